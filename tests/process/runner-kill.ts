import { Mirrored } from './runner-support.ts';
import { eventually, Store } from './support.ts';

export interface KillStep {
  name: string;
  /** In `npm test`; the others take their turn in `npm run test:long`. */
  isQuick?: true;
  server?: Record<string, string>;
  /** Resolves when the runner must die; or has killed it itself, on the way of a request. */
  until: (world: Mirrored & { store: Behind }, kill: () => Promise<unknown>) => Promise<unknown>;
}

type Behind = Awaited<ReturnType<typeof Store.createBehindProxy>>;
type Operation = 'ListBlobs' | 'PutBlock' | 'PutBlockList' | 'GetBlob' | 'SetMetadata' | 'HeadBlob';

/** At a request to the store: the runner is dead before the store hears of it, or before it hears the answer. */
const at =
  (operation: Operation, when: 'before' | 'after'): KillStep['until'] =>
  async ({ store }, kill) => {
    await new Promise<void>((resolve) => {
      const run = async () => {
        await kill();
        resolve();
        return 'drop' as const;
      };
      store.proxy.on(
        { operation, ...(operation === 'ListBlobs' ? {} : { name: /^jellyroller\// }) },
        { kind: 'hook', when, run },
        { times: 1 },
      );
    });
  };

export const KILL_STEPS: readonly KillStep[] = [
  {
    name: 'while the engine writes',
    isQuick: true,
    server: { STAND_IN_BACKUP_MS: '2000' },
    until: (world) => eventually(() => world.local.length > 0),
  },
  { name: 'while the first block is sent', until: at('PutBlock', 'before') },
  { name: 'between upload and commit', isQuick: true, until: at('PutBlockList', 'before') },
  { name: 'after the commit, before it knows', isQuick: true, until: at('PutBlockList', 'after') },
  { name: 'before the archive is read back', until: at('GetBlob', 'before') },
  { name: 'before the verdict is recorded', until: at('SetMetadata', 'before') },
  { name: 'after the verdict is recorded', isQuick: true, until: at('SetMetadata', 'after') },
];

export async function killedAt(step: KillStep): Promise<Mirrored> {
  const store = await Store.createBehindProxy();
  const world = await Mirrored.start({
    store,
    ...(step.server === undefined ? {} : { server: step.server }),
  });
  const runner = world.run();
  await step.until(world as Mirrored & { store: Behind }, () => runner.process.kill());
  await runner.process.kill();
  store.proxy.clear();
  expect(world.claim).toMatchObject({ kind: 'backup' });
  return world;
}

/** One archive was made, it is stored once, verified, and the engine is free. */
export async function expectWhole(world: Mirrored): Promise<void> {
  expect(world.created).toBe(1);
  const archives = await world.archives();
  expect(archives).toMatchObject([{ metadata: { verified_utc: expect.any(String) } }]);
  const stored = await world.store.read(archives[0]?.name ?? '');
  expect(stored.byteLength).toBe(Number(archives[0]?.metadata?.['size']));
  expect(world.claim).toBeUndefined();
}
