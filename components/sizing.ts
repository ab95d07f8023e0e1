/** Pure: the rows of the Consumption profile, ephemeral storage by vCPU, and what Jellyfin demands of it. */

export interface Size {
  /** vCPU. */
  readonly cpu: number;
  /** Memory in GiB. */
  readonly memoryGib: number;
}

/**
 * What the init container gets. It runs alone, before the others, and within their totals it can always be scheduled:
 * Jellyfin's 2 GiB of free space rule out totals below 0.75 vCPU.
 */
export const RESTORE_SIZE: Size = { cpu: 0.5, memoryGib: 1 };

// learn.microsoft.com/azure/container-apps/containers: steps of 0.25 vCPU at 1:2, up to 4 vCPU on the Consumption
// profile of a workload-profiles environment.
const STEP = 0.25;
const MAX_CPU = 4;
const GIB_PER_CPU = 2;

/** Jellyfin 10.11+ ends itself with less free on /data and /cache (StorageHelper.cs). */
export const JELLYFIN_BOOT_FREE_GIB = 2;
/** Jellyfin's own backup, which JellyRoller drives, refuses to start with less free (BackupService.cs). */
export const JELLYFIN_BACKUP_FREE_GIB = 5;

/** Sum of the containers of a replica; the init container does not run beside them. */
export function totalOf(sizes: readonly Size[]): Size {
  return {
    cpu: round(sizes.reduce((sum, size) => sum + size.cpu, 0)),
    memoryGib: round(sizes.reduce((sum, size) => sum + size.memoryGib, 0)),
  };
}

/** True when the sum over all containers is a combination that Container Apps accepts. */
export function isConsumptionRow({ cpu, memoryGib }: Size): boolean {
  return (
    cpu >= STEP && cpu <= MAX_CPU && Number.isInteger(cpu / STEP) && round(cpu * GIB_PER_CPU) === memoryGib
  );
}

/** The row that a total needs: enough of both, in text for an error message. */
export function nearestRow({ cpu, memoryGib }: Size): string {
  const needed = Math.max(
    Math.ceil(cpu / STEP) * STEP,
    Math.ceil(memoryGib / GIB_PER_CPU / STEP) * STEP,
    STEP,
  );
  const row = Math.min(needed, MAX_CPU);
  return `${String(row)} vCPU with ${String(round(row * GIB_PER_CPU))} GiB`;
}

/**
 * Ephemeral storage of a replica in GiB: container file systems and EmptyDir together
 * (learn.microsoft.com/azure/container-apps/storage-mounts). Using more evicts the replica.
 */
export function ephemeralStorageGib(cpu: number): number {
  if (cpu <= 0.25) return 1;
  if (cpu <= 0.5) return 2;
  return cpu <= 1 ? 4 : 8;
}

/**
 * What a replica needs of it: /data, a second /data (a backup and a restore are staged beside it), and the free space
 * that Jellyfin insists on.
 */
export function ephemeralDemandGib(dataSizeGib: number, jellyroller: boolean): number {
  return 2 * dataSizeGib + (jellyroller ? JELLYFIN_BACKUP_FREE_GIB : JELLYFIN_BOOT_FREE_GIB);
}

/** Memory as Container Apps spells it. */
export function memoryText(gib: number): string {
  return `${String(gib)}Gi`;
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}
