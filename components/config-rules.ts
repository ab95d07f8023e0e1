/** Pure: the rules about several keys at once. */
import type { ConfigKeys } from './config-keys.ts';
import type { ConfigReader } from './config-reader.ts';
import {
  ephemeralDemandGib,
  ephemeralStorageGib,
  isConsumptionRow,
  nearestRow,
  type Size,
} from './sizing.ts';

// learn.microsoft.com/azure/reliability/regions-list, column "paired region": none. GRS does not exist there.
const UNPAIRED_REGIONS =
  /^(?:austriaeast|belgiumcentral|chilecentral|indonesiacentral|israelcentral|italynorth|malaysiawest|mexicocentral|newzealandnorth|polandcentral|qatarcentral|spaincentral)$/;

const SIZE_KEYS = ['jellyfin', 'agent', 'jellyroller'].flatMap((name) => [`${name}Cpu`, `${name}MemoryGib`]);

/** The sums over the containers: Consumption rows and ephemeral storage. */
export function checkSizes(read: ConfigReader, keys: ConfigKeys, total: Size): void {
  if (!read.isSound(...SIZE_KEYS, 'jellyrollerEnabled')) return;
  const parts = keys.jellyrollerEnabled ? 'jellyfin + agent + jellyroller' : 'jellyfin + agent';
  const got = `${String(total.cpu)} vCPU with ${String(total.memoryGib)} GiB (${parts})`;
  if (!isConsumptionRow(total)) {
    const rule =
      'a row of the Consumption profile in sum: steps of 0.25 vCPU, 2 GiB for each vCPU, at most 4 vCPU';
    const reason = `Container Apps refuses other sums; the next one that fits is ${nearestRow(total)}`;
    read.problem('the sum of jellyfinCpu/MemoryGib and its sidecars', { rule, reason }, got);
  }
  if (!read.isSound('dataSizeGib')) return;
  const limit = ephemeralStorageGib(total.cpu);
  const demand = ephemeralDemandGib(keys.dataSizeGib, keys.jellyrollerEnabled);
  if (demand > limit) {
    const free = keys.jellyrollerEnabled
      ? "5 GiB free for Jellyfin's own backups"
      : '2 GiB free without which Jellyfin does not boot';
    const reason = `twice dataSizeGib and ${free} make ${String(demand)} GiB; up to 0.25 vCPU gives 1, 0.5 gives 2, 1 gives 4, more gives 8`;
    read.problem(
      'jellyfinCpu',
      { rule: `large enough for ${String(demand)} GiB of ephemeral storage`, reason },
      `${got}, which has ${String(limit)} GiB`,
    );
  }
}

/** Pairs of keys that contradict each other. */
export function checkCombinations(read: ConfigReader, keys: ConfigKeys): void {
  if (
    read.isSound('terminationGraceSeconds', 'shutdownBudgetSeconds') &&
    keys.terminationGraceSeconds <= keys.shutdownBudgetSeconds
  ) {
    const rule = `above shutdownBudgetSeconds (${String(keys.shutdownBudgetSeconds)})`;
    const reason = 'otherwise the platform kills the sidecar before the final backup is stored';
    read.problem('terminationGraceSeconds', { rule, reason }, `"${String(keys.terminationGraceSeconds)}"`);
  }
  if (
    read.isSound('azure-native:location', 'backupRedundancy', 'mediaRedundancy') &&
    UNPAIRED_REGIONS.test(keys.location.toLowerCase())
  ) {
    for (const key of ['backupRedundancy', 'mediaRedundancy'] as const) {
      if (!/G/.test(keys[key].replace('Standard_', ''))) continue;
      const rule = `Standard_ZRS or Standard_LRS in ${keys.location}`;
      read.problem(
        key,
        { rule, reason: 'the region has no pair to replicate to' },
        JSON.stringify(keys[key]),
      );
    }
  }
  if (
    read.isSound('jellyrollerEnabled', 'bootstrapAdmin', 'jellyfinApiKey') &&
    keys.jellyrollerEnabled &&
    !keys.bootstrapAdmin &&
    !keys.hasApiKey
  ) {
    const reason = 'with bootstrapAdmin=false the runner has no other way to sign in';
    read.problem('jellyfinApiKey', { rule: 'set when jellyrollerEnabled is true', reason });
  }
}

/** JellyRoller needs a Jellyfin that can back itself up. */
export function checkJellyrollerVersion(
  read: ConfigReader,
  keys: ConfigKeys,
  version: string | undefined,
): void {
  if (!keys.jellyrollerEnabled || version === undefined) return;
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major > 10 || (major === 10 && minor >= 11)) return;
  const reason = "Jellyfin's own backups, which JellyRoller drives, came with 10.11";
  read.problem(
    'jellyfinImage',
    { rule: '10.11 or later when jellyrollerEnabled is true', reason },
    JSON.stringify(keys.jellyfinImage),
  );
}
