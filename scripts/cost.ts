/** Pure: what a month costs, idle and watched, with every assumption on the table. */

export interface CostInput {
  /** Sum over the containers of a replica. */
  readonly cpu: number;
  readonly memoryGib: number;
  readonly alwaysOn: boolean;
  readonly cooldownSeconds: number;
  readonly mediaGib: number;
  readonly mediaTier: string;
  readonly mediaRedundancy: string;
  readonly backupRedundancy: string;
  readonly hasRegistry: boolean;
  readonly hasAlert: boolean;
}

export interface CostLine {
  readonly what: string;
  readonly idle: number;
  readonly watched: number;
  readonly basis: string;
}

export interface CostEstimate {
  readonly lines: readonly CostLine[];
  readonly idle: number;
  readonly watched: number;
  readonly assumptions: readonly string[];
}

/** Public list prices in USD (East US, pay as you go, 2026); they differ by region and change. */
const PRICE = {
  vcpuSecond: 0.000024,
  vcpuSecondIdle: 0.000003,
  gibSecond: 0.000003,
  freeVcpuSeconds: 180_000,
  freeGibSeconds: 360_000,
  egressGb: 0.087,
  freeEgressGb: 100,
  registryMonth: 5,
  alertMonth: 0.5,
} as const;
const FILES_GIB: Readonly<Record<string, number>> = { TransactionOptimized: 0.06, Hot: 0.0255, Cool: 0.015 };
const BLOB_GIB: Readonly<Record<string, number>> = {
  Standard_LRS: 0.0208,
  Standard_ZRS: 0.026,
  Standard_GRS: 0.0458,
  Standard_GZRS: 0.0468,
};
/** Files are priced like blobs: about this much more than one local copy. */
const REDUNDANCY_FACTOR: Readonly<Record<string, number>> = {
  Standard_LRS: 1,
  Standard_ZRS: 1.25,
  Standard_GRS: 2.2,
  Standard_GZRS: 2.25,
};

const HABIT = { hours: 60, evenings: 30, mbitPerSecond: 8, backupGib: 5 } as const;
const MONTH_SECONDS = 30 * 86_400;

/** Estimates a month in which nobody watches and one in which a household does. */
export function estimateCost(input: CostInput): CostEstimate {
  const cooldownHours = (HABIT.evenings * input.cooldownSeconds) / 3_600;
  const runningSeconds = input.alwaysOn ? MONTH_SECONDS : (HABIT.hours + cooldownHours) * 3_600;
  const streamedGb = (HABIT.hours * 3_600 * HABIT.mbitPerSecond) / 8 / 1_000;
  const media =
    input.mediaGib *
    (FILES_GIB[input.mediaTier] ?? 0.06) *
    (REDUNDANCY_FACTOR[input.mediaRedundancy] ?? 2.25);
  const backups = HABIT.backupGib * (BLOB_GIB[input.backupRedundancy] ?? 0.0468);
  const lines: CostLine[] = [
    {
      what: 'replica',
      idle: input.alwaysOn ? compute(input, MONTH_SECONDS, PRICE.vcpuSecondIdle) : 0,
      watched: compute(input, runningSeconds, PRICE.vcpuSecond),
      basis: `${String(input.cpu)} vCPU, ${String(input.memoryGib)} GiB, ${String(Math.round(runningSeconds / 3_600))} h after the monthly free grant`,
    },
    {
      what: 'streaming',
      idle: 0,
      watched: Math.max(0, streamedGb - PRICE.freeEgressGb) * PRICE.egressGb,
      basis: `${String(Math.round(streamedGb))} GB out, the first ${String(PRICE.freeEgressGb)} free`,
    },
    {
      what: 'media share',
      idle: media,
      watched: media,
      basis: `${String(input.mediaGib)} GiB, all of it used`,
    },
    {
      what: 'backups',
      idle: backups,
      watched: backups,
      basis: `${String(HABIT.backupGib)} GiB with versions`,
    },
    ...(input.hasRegistry
      ? [fixed('registry', PRICE.registryMonth, 'ACR Basic; imageBuild=prebuilt has none')]
      : []),
    ...(input.hasAlert
      ? [fixed('log alert', PRICE.alertMonth, 'every 15 minutes; alertsEnabled=false has none')]
      : []),
    fixed('logs', 0, 'below the 5 GB a month that are free'),
  ];
  return {
    lines,
    idle: lines.reduce((sum, { idle }) => sum + idle, 0),
    watched: lines.reduce((sum, { watched }) => sum + watched, 0),
    assumptions: [
      `watched: ${String(HABIT.hours)} h in ${String(HABIT.evenings)} evenings at ${String(HABIT.mbitPerSecond)} Mbit/s, and ${String(input.cooldownSeconds)} s of cooldown after each`,
      'idle: the month in which nobody opens the page (bots on a public address wake it; allowedIpRanges keeps them out)',
      'list prices in USD, East US, without transactions and tax; the free grants are per subscription',
    ],
  };
}

function fixed(what: string, price: number, basis: string): CostLine {
  return { what, idle: price, watched: price, basis };
}

function compute({ cpu, memoryGib }: CostInput, seconds: number, vcpuPrice: number): number {
  const vcpu = Math.max(0, cpu * seconds - PRICE.freeVcpuSeconds) * vcpuPrice;
  const memory = Math.max(0, memoryGib * seconds - PRICE.freeGibSeconds) * PRICE.gibSecond;
  return vcpu + memory;
}
