/** Pure: physical names and their limits. No other file spells one. */

export interface Names {
  readonly resourceGroup: string;
  readonly mediaAccount: string;
  readonly backupAccount: string;
  readonly registry: string;
  readonly workspace: string;
  readonly environment: string;
  readonly app: string;
  readonly pullIdentity: string;
  readonly dataIdentity: string;
  readonly alert: string;
  readonly actionGroup: string;
}

/** Length of the random part: 36^8 combinations, and it fits the 24 characters of a storage account. */
export const SUFFIX_LENGTH = 8;
/** 24 minus `media`/`backup` minus the suffix: the storage account is the tightest of the names. */
export const PREFIX_MAX_LENGTH = 24 - 'backup'.length - SUFFIX_LENGTH;

/** The share and the environment storage keep the name of the client's first version. */
export const MEDIA_SHARE = 'jellyfin-media';
/** Private container of the media account that hands the image context to ACR. */
export const CONTEXT_CONTAINER = 'image-context';

/**
 * Names of one stack's resources.
 *
 * @param prefix checked by `parseStackConfig`: lower-case letters and digits, starts with a letter
 * @param suffix the random part, fixed for the life of the stack; account and registry names are global to Azure
 */
export function namesFor(prefix: string, suffix: string): Names {
  return {
    resourceGroup: `rg-${prefix}-${suffix}`,
    mediaAccount: `${prefix}media${suffix}`,
    backupAccount: `${prefix}backup${suffix}`,
    registry: `${prefix}cr${suffix}`,
    workspace: `log-${prefix}-${suffix}`,
    environment: `cae-${prefix}-${suffix}`,
    app: `ca-${prefix}-${suffix}`,
    pullIdentity: `id-${prefix}-pull-${suffix}`,
    dataIdentity: `id-${prefix}-data-${suffix}`,
    alert: `alert-${prefix}-backup-${suffix}`,
    actionGroup: `ag-${prefix}-${suffix}`,
  };
}
