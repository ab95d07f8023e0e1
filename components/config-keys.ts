/** Pure: the rule of every single key. Meaning and defaults are in `Pulumi.yaml`; this file has none. */
import type { ConfigReader, Get } from './config-reader.ts';
import { isDockerHub, isPinned, jellyfinVersionOf, parseImageRef } from './image-ref.ts';
import { PREFIX_MAX_LENGTH } from './names.ts';
import type { Size } from './sizing.ts';

export const IMAGE_BUILDS = ['acr-task', 'docker-build', 'prebuilt'] as const;
export type ImageBuild = (typeof IMAGE_BUILDS)[number];
const REDUNDANCY = ['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'] as const;
export type Redundancy = (typeof REDUNDANCY)[number];
const SHARE_TIERS = ['TransactionOptimized', 'Hot', 'Cool'] as const;
export type ShareTier = (typeof SHARE_TIERS)[number];
const JELLYROLLER_DRIVERS = ['cli', 'http'] as const;
const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;

const HASH_COMMAND = 'curl -fsSL <jellyrollerUrl> | sha256sum';

/** Reads every key; what is wrong is noted in `read`. */
export function readKeys(read: ConfigReader, get: Get, isSecret: (key: string) => boolean) {
  const size = (prefix: string): Size => ({
    cpu: read.decimal(`${prefix}Cpu`, 0.1, 4, 'Container Apps gives a Consumption replica up to 4 vCPU'),
    memoryGib: read.decimal(
      `${prefix}MemoryGib`,
      0.1,
      8,
      'Container Apps gives a Consumption replica up to 8 GiB',
    ),
  });
  const jellyrollerEnabled = read.boolean('jellyrollerEnabled', 'it adds the runner container or does not');
  const imageBuild = read.oneOf('imageBuild', IMAGE_BUILDS, 'the ways in which the agent image can be made');
  return {
    location: read.matching('azure-native:location', /^[a-z][a-z0-9]{2,39}$/i, {
      rule: 'an Azure region such as westeurope',
      reason: 'everything is created there; pulumi config set azure-native:location <region>',
    }),
    namePrefix: read.matching(
      'namePrefix',
      new RegExp(`^[a-z][a-z0-9]{1,${String(PREFIX_MAX_LENGTH - 1)}}$`),
      {
        rule: `2 to ${String(PREFIX_MAX_LENGTH)} lower-case letters and digits, a letter first`,
        reason: 'storage accounts have at most 24 characters and the suffix takes its share',
      },
    ),
    protectData: read.boolean('protectData', 'data is protected from deletion or it is not'),
    jellyfinImage: readJellyfinImage(read),
    jellyfin: size('jellyfin'),
    agent: size('agent'),
    dataSizeGib: read.integer(
      'dataSizeGib',
      1,
      3,
      'a replica has at most 8 GiB and /data is staged once more in it',
    ),
    minReplicas: read.integer(
      'minReplicas',
      0,
      1,
      'a second replica would be a second writer of one database',
    ),
    cooldownSeconds: read.integer(
      'cooldownSeconds',
      300,
      86_400,
      'shorter ends a paused film; a day is no scale to zero',
    ),
    startupTimeoutSeconds: read.integer('startupTimeoutSeconds', 50, 2_400, 'ten probes of 5 to 240 s'),
    terminationGraceSeconds: read.integer(
      'terminationGraceSeconds',
      10,
      600,
      'the platform accepts up to 600',
    ),
    shutdownBudgetSeconds: read.integer(
      'shutdownBudgetSeconds',
      10,
      590,
      'a final backup needs time, and has not for ever',
    ),
    allowedIpRanges: readRanges(read),
    bootstrapAdmin: read.boolean('bootstrapAdmin', 'the agent completes the wizard or a person does'),
    adminUser: read.matching('adminUser', /^[\w.@-]{1,64}$/, {
      rule: '1 to 64 letters, digits, dots, hyphens, underscores or @',
      reason: 'Jellyfin accepts these without escaping',
    }),
    mediaShareQuotaGib: read.integer('mediaShareQuotaGib', 1, 102_400, 'the range of an Azure Files share'),
    mediaShareTier: read.oneOf('mediaShareTier', SHARE_TIERS, 'the tiers of a standard file share'),
    mediaRedundancy: read.oneOf('mediaRedundancy', REDUNDANCY, 'the standard SKUs with file shares'),
    mediaReadOnly: read.boolean('mediaReadOnly', '/media is mounted read-only or writable'),
    backupContainer: read.matching('backupContainer', /^(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*$/, {
      rule: '3 to 63 lower-case letters, digits and single hyphens',
      reason: 'Azure allows no other container name',
    }),
    backupRedundancy: read.oneOf('backupRedundancy', REDUNDANCY, 'the standard SKUs'),
    backupSoftDeleteDays: read.integer(
      'backupSoftDeleteDays',
      1,
      365,
      'the range of soft delete; 0 would turn it off',
    ),
    backupVersionDays: read.integer(
      'backupVersionDays',
      1,
      3_650,
      'older versions of blobs are deleted after that',
    ),
    backupIntervalSeconds: read.integer(
      'backupIntervalSeconds',
      300,
      86_400,
      'the alert can look back two days at most',
    ),
    backupOnChangeSeconds: read.integer(
      'backupOnChangeSeconds',
      0,
      86_400,
      '0 turns change-driven backups off',
    ),
    startupDelaySeconds: read.integer(
      'startupDelaySeconds',
      0,
      3_600,
      'writes in this time are not yet backed up',
    ),
    minBackupSizeBytes: read.integer(
      'minBackupSizeBytes',
      0,
      1_000_000_000,
      'a floor under the content checks',
    ),
    backupArtwork: read.boolean('backupArtwork', 'metadata/ is in the backup or it is not'),
    drillIntervalSeconds: read.integer('drillIntervalSeconds', 0, 2_592_000, '0 turns the restore drill off'),
    handoverWaitSeconds: read.integer(
      'handoverWaitSeconds',
      0,
      200,
      'the ingress gives up a request after 240 s; 0 turns the handover off',
    ),
    retentionKeep: read.integer('retentionKeep', 1, 4_000, 'the last good backup is never deleted'),
    retentionDaily: read.integer('retentionDaily', 0, 3_650, '0 turns the tier off'),
    retentionWeekly: read.integer('retentionWeekly', 0, 520, '0 turns the tier off'),
    retentionMonthly: read.integer('retentionMonthly', 0, 120, '0 turns the tier off'),
    retryMax: read.integer('retryMax', 0, 100, 'retries after the first attempt'),
    retryBackoffSeconds: read.integer('retryBackoffSeconds', 0, 600, 'the first wait; it doubles'),
    logLevel: read.oneOf('logLevel', LOG_LEVELS, 'other levels do not exist'),
    imageBuild,
    agentImage: readPrebuilt(read, 'agentImage', imageBuild === 'prebuilt'),
    jellyrollerEnabled,
    jellyroller: size('jellyroller'),
    jellyrollerImage: readPrebuilt(read, 'jellyrollerImage', imageBuild === 'prebuilt' && jellyrollerEnabled),
    jellyrollerUrl: read.matching('jellyrollerUrl', /^https:\/\/[^\s?#]+\.tar\.gz$/, {
      rule: 'an https URL that ends in .tar.gz',
      reason: 'the image build downloads the release archive from there',
    }),
    jellyrollerSha256: read.matching(
      'jellyrollerSha256',
      // Lower case only: the build compares text, and one spelling gives one image tag.
      jellyrollerEnabled && imageBuild !== 'prebuilt' ? /^[0-9a-f]{64}$/ : /^(?:[0-9a-f]{64})?$/,
      {
        rule: '64 lower-case hex digits when jellyrollerEnabled is true',
        reason: `the release has no published checksum, so the build trusts only the bytes you name: ${HASH_COMMAND}`,
      },
    ),
    jellyrollerDriver: read.oneOf('jellyrollerDriver', JELLYROLLER_DRIVERS, 'there are two'),
    jellyrollerMinBackupSizeBytes: read.integer(
      'jellyrollerMinBackupSizeBytes',
      0,
      1_000_000_000,
      'smaller archives are refused',
    ),
    hasApiKey: readApiKey(read, get, isSecret),
    alertsEnabled: read.boolean('alertsEnabled', 'the log alert exists or it does not'),
    alertEmail: read.matching('alertEmail', /^(?:[^\s@,;<>"]+@[^\s@,;<>"]+\.[^\s@,;<>".]{2,})?$/, {
      rule: 'one e-mail address, or empty',
      reason: 'the alert is mailed there',
    }),
    logRetentionDays: read.integer('logRetentionDays', 30, 730, 'the range of a PerGB2018 workspace'),
    logDailyCapGb: read.decimal(
      'logDailyCapGb',
      0.1,
      100,
      'above the cap nothing is logged until the next day',
    ),
  };
}

export type ConfigKeys = ReturnType<typeof readKeys>;

function readJellyfinImage(read: ConfigReader): string {
  const value = read.text('jellyfinImage', (text) => parseImageRef(text) !== undefined, {
    rule: 'a full image reference with a registry host, such as ghcr.io/jellyfin/jellyfin:10.11.11',
    reason: 'a short name means Docker Hub',
  });
  const image = parseImageRef(value);
  if (image === undefined) return value;
  const got = JSON.stringify(value);
  if (isDockerHub(image)) {
    const reason =
      'it limits anonymous pulls per address, and a cold start would wait or fail; use ghcr.io/jellyfin/jellyfin';
    read.problem('jellyfinImage', { rule: 'from a registry other than Docker Hub', reason }, got);
  }
  if (jellyfinVersionOf(image) === undefined) {
    const reason =
      'never latest: a restart must not upgrade the database, and a restore compares this version with the backup';
    read.problem(
      'jellyfinImage',
      { rule: 'tagged with a full version such as 10.11.11, a digest may follow', reason },
      got,
    );
  }
  return value;
}

function readPrebuilt(read: ConfigReader, key: string, needed: boolean): string {
  return read.text(
    key,
    (text) => {
      const image = parseImageRef(text);
      return text === '' ? !needed : image !== undefined && isPinned(image);
    },
    {
      rule: needed ? 'a pinned image with imageBuild=prebuilt' : 'empty or a pinned image',
      reason: 'registry/repository:version or @sha256:…; latest could change between two restarts',
    },
  );
}

function readRanges(read: ConfigReader): readonly string[] {
  const value = read.text(
    'allowedIpRanges',
    (text) => text.trim() === '' || splitList(text).every(isIpv4Range),
    {
      rule: 'empty or comma-separated IPv4 addresses or CIDR ranges such as 203.0.113.7, 198.51.100.0/24',
      reason: 'the ingress of Container Apps filters IPv4 only',
    },
  );
  return splitList(value).map((range) => (range.includes('/') ? range : `${range}/32`));
}

function splitList(value: string): string[] {
  return value.trim() === '' ? [] : value.split(',').map((item) => item.trim());
}

function isIpv4Range(value: string): boolean {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(value);
  if (match === null) return false;
  return match.slice(1, 5).every((part) => Number(part) <= 255) && Number(match[5] ?? 32) <= 32;
}

function readApiKey(read: ConfigReader, get: Get, isSecret: (key: string) => boolean): boolean {
  const key = 'jellyfinApiKey';
  const value = get(key) ?? '';
  if (value === '') return false;
  const hidden = '[redacted]';
  if (!isSecret(key)) {
    read.problem(
      key,
      { rule: 'set with --secret', reason: 'in plain text it would be committed with the stack file' },
      hidden,
    );
  }
  if (!/^[0-9a-f]{32}$/i.test(value)) {
    read.problem(
      key,
      { rule: '32 hex digits', reason: 'Jellyfin makes such keys, under Dashboard, API Keys' },
      hidden,
    );
  }
  return true;
}
