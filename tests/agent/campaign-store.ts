import { AgentError } from '../../agent/errors.ts';
import type { BlobItem, BlobStore } from '../../agent/ports.ts';
import type { Actor } from './campaign-scheduler.ts';

/** Two pages and more as soon as there are a few backups: a listing is not one moment. */
const PAGE_ITEMS = 4;

/** What the gates of all agents on one store have in common. */
export interface StoreWorld {
  readonly inner: BlobStore;
  /** The service's own clock, by blob: the histories take seconds, retention thinks in hours. */
  readonly lastModified: Map<string, Date>;
  serviceNow(): Date;
  /** Requests that hang on their way and may arrive at any later moment. */
  readonly stray: { label: string; effect: () => Promise<unknown> }[];
  /** A call that changed the store, at the moment when it did. */
  onEffect(effect: Effect): void;
}

export type Effect =
  | { kind: 'put'; by: Actor; name: string; bytes: Uint8Array }
  | { kind: 'commit'; by: Actor; name: string; carried: unknown }
  | { kind: 'metadata'; by: Actor; name: string; metadata: Readonly<Record<string, string>> }
  | { kind: 'remove'; by: Actor; name: string };

/** What `AzureBlobStore` makes of 500, 503, 429, of no answer, and of a role assignment that has not spread. */
const FAILURES: readonly (() => AgentError)[] = [
  () => new AgentError('store_unreachable', 'failed: 503 ServerBusy', { retryable: true }),
  () => new AgentError('store_unreachable', 'failed: 500 InternalError', { retryable: true }),
  () =>
    new AgentError('store_unreachable', 'failed: 429 TooManyRequests', {
      retryable: true,
      retryAfterMs: 2_000,
    }),
  () => new AgentError('store_unreachable', 'failed: no answer in 60 s', { retryable: true }),
  () => new AgentError('store_denied', 'failed: 403 AuthorizationFailure', { retryable: true }),
];

/**
 * The store as one process sees it: each call waits for its turn and for its fate.
 * @param carried What a backup that is committed now holds, to be remembered with it.
 */
export function gatedStore(world: StoreWorld, by: Actor, carried: () => unknown): BlobStore {
  const { inner } = world;
  let failures = 0;

  async function call<T>(label: string, effect: () => Promise<T>, isWrite = false): Promise<T> {
    const fate = await by.gate(label, isWrite ? effect : undefined);
    if (fate === 'run') return effect();
    // A lost answer may also be that of a refusal.
    if (fate === 'lost_answer') await effect().catch(() => undefined);
    if (fate === 'late' && isWrite) world.stray.push({ label: `${by.name} ${label}`, effect });
    const failure = FAILURES[(failures += 1) % FAILURES.length];
    throw fate === 'fail_before' && failure !== undefined
      ? failure()
      : new AgentError('store_unreachable', `${label}: no answer in 60 s`, { retryable: true });
  }

  async function write<T>(label: string, work: () => Promise<T>, effect: Effect): Promise<T> {
    return call(
      label,
      async () => {
        const answer = await work();
        world.lastModified.set(effect.name, world.serviceNow());
        world.onEffect(effect);
        return answer;
      },
      true,
    );
  }

  const dated = (item: BlobItem): BlobItem => ({
    ...item,
    lastModified: world.lastModified.get(item.name) ?? item.lastModified,
  });

  return {
    describe: () => inner.describe(),
    listPage: (prefix, continuation) =>
      call(`list ${continuation === undefined ? '' : `after ${continuation}`}`, async () => {
        const { items } = await inner.listPage(prefix, undefined);
        const rest = items.filter(({ name }) => continuation === undefined || name > continuation);
        const page = rest.slice(0, PAGE_ITEMS).map(dated);
        const last = page.at(-1);
        // A service under load was seen to repeat entries.
        const repeated = items.filter(({ name }) => name === continuation).map(dated);
        return {
          items: [...repeated, ...page],
          continuation: rest.length > PAGE_ITEMS ? last?.name : undefined,
        };
      }),
    head: (name) =>
      call(`head ${name}`, async () => {
        const item = await inner.head(name);
        return item === undefined ? undefined : dated(item);
      }),
    readRange: (name, range) => call(`read ${name}`, () => inner.readRange(name, range)),
    find: (name) => call(`find ${name}`, () => inner.find(name)),
    put: (name, bytes, condition) =>
      write(`put ${name}`, () => inner.put(name, bytes, condition), { kind: 'put', by, name, bytes }),
    stageBlock: (name, blockId, bytes) => {
      // The caller uses its bytes again; a late request still has them.
      const sent = bytes.slice();
      return call(`stage ${name}`, () => inner.stageBlock(name, blockId, sent), true);
    },
    commitNew: (name, blockIds, metadata) =>
      write(`commit ${name}`, () => inner.commitNew(name, blockIds, metadata), {
        kind: 'commit',
        by,
        name,
        carried: carried(),
      }),
    setMetadata: (name, metadata, condition) =>
      write(`set metadata ${name}`, () => inner.setMetadata(name, metadata, condition), {
        kind: 'metadata',
        by,
        name,
        metadata,
      }),
    remove: (name, ifMatch) =>
      write(`remove ${name}`, () => inner.remove(name, ifMatch), { kind: 'remove', by, name }),
  };
}
