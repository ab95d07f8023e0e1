import { formatBackupName } from '../../agent/backup-name.ts';
import {
  activitiesIn,
  agentEnv,
  ask,
  filesIn,
  newHome,
  NEVER,
  Replica,
  restore,
  runAgent,
  Store,
} from './support.ts';

const OLD = '10.11.11';
const NEW = '12.0.0';
/** Retention as greedy as it gets: what is left is left for a reason. */
const KEEP_ONE = {
  RETENTION_KEEP: '1',
  RETENTION_DAILY: '0',
  RETENTION_WEEKLY: '0',
  RETENTION_MONTHLY: '0',
};

interface Listed {
  name: string;
  place: string;
  jellyfinVersion: string | null;
  versionHold: string | null;
}
const list = async (store: Store) => (await ask<{ backups: Listed[] }>(store, ['list'])).backups;
const find = async (store: Store, wanted: string) => (await list(store)).find(({ name }) => name === wanted);

/** A cold start with an image of this version. */
async function start(store: Store, version: string, agent: Record<string, string> = {}): Promise<Replica> {
  const home = newHome();
  await restore(store, home, { JELLYFIN_VERSION: version });
  return Replica.start(store, {
    home,
    agent: { ...KEEP_ONE, ...agent },
    server: { STAND_IN_VERSION: version },
  });
}

/** Writes a row, scales to zero, and answers the name of the last backup. */
async function useAndStop(replica: Replica, label: string): Promise<string> {
  await replica.write(label);
  replica.signal('SIGTERM');
  expect(await replica.sidecar.exit()).toBe(0);
  return (await replica.store.newest()).name;
}

const ONLY_AT_STOP = { BACKUP_ON_CHANGE_SECONDS: NEVER };

test.concurrent('an upgrade that is regretted: back to the last backup of the old version', async () => {
  const store = await Store.create();
  const first = await start(store, OLD, ONLY_AT_STOP);
  await first.server.setUp(first.home);
  const lastOfOld = await useAndStop(first, 'before the upgrade');
  const lastOfNew = await useAndStop(await start(store, NEW, ONLY_AT_STOP), 'after the upgrade');
  expect(await find(store, lastOfOld)).toMatchObject({ jellyfinVersion: OLD, versionHold: 'held' });
  expect(await find(store, lastOfNew)).toMatchObject({ jellyfinVersion: NEW, versionHold: null });

  // The old image without the request: refused with both versions, and nothing is on the volume.
  const empty = newHome();
  const refused = await runAgent(['restore'], agentEnv(store, empty.data, { JELLYFIN_VERSION: OLD }));
  expect(refused.code).toBe(4);
  expect(refused.jsonLines).toContainEqual(
    expect.objectContaining({
      msg: 'restore refused',
      exitCode: 4,
      err: expect.objectContaining({
        code: 'backup_incompatible',
        message: `${lastOfNew} was made by Jellyfin ${NEW}, the image is ${OLD}: there is no downgrade`,
      }) as unknown,
    }),
  );
  expect(filesIn(empty.data)).toEqual([]);

  expect((await runAgent(['restore-request', lastOfOld], store.env)).code).toBe(0);
  const ofNew = (await list(store)).filter(({ jellyfinVersion }) => jellyfinVersion === NEW);
  const back = await start(store, OLD);
  expect(activitiesIn(back.home.database)).toContain('before the upgrade');
  expect(activitiesIn(back.home.database)).not.toContain('after the upgrade');
  await back.storeAll();
  const newest = await useAndStop(back, 'after the rollback');

  // A retention later what the newer version made is still there, beside the line.
  const places = new Map((await list(store)).map(({ name, place }) => [name, place]));
  expect(ofNew.map(({ name }) => places.get(name))).toEqual(ofNew.map(() => 'tail'));
  expect(places.get(newest)).toBe('candidate');

  const again = newHome();
  await restore(store, again, { JELLYFIN_VERSION: OLD });
  expect(activitiesIn(again.database)).toEqual(
    expect.arrayContaining(['before the upgrade', 'after the rollback']),
  );
  expect(activitiesIn(again.database)).not.toContain('after the upgrade');
});

test.concurrent(
  'the hold on the last backup of an older version: shown, and released by a person',
  async () => {
    const store = await Store.create();
    const stored = async (sequence: number, version: string) => {
      const name = formatBackupName({ placement: 'line', stamp: '20260101000000', epoch: 1, sequence });
      const metadata = { sha256: 'a', size: '7', jellyfin_version: version };
      await store.client.getBlockBlobClient(name).upload('archive', 7, { metadata });
      return name;
    };
    const earlier = await stored(1, OLD);
    const held = await stored(2, OLD);
    const newest = await stored(3, NEW);
    const reasons = async () => {
      const { verdicts } = await ask<{ verdicts: { name: string; reason: string }[] }>(
        store,
        ['prune', '--dry-run'],
        KEEP_ONE,
      );
      return verdicts.map(({ name, reason }) => [name, reason]);
    };
    const release = (name: string) => runAgent(['release', name], store.env);
    const holds = async () => (await list(store)).map(({ name, versionHold }) => [name, versionHold]);

    expect(await reasons()).toEqual([
      [newest, 'newest 1 of 1'],
      [held, `held: last of Jellyfin ${OLD}`],
      [earlier, 'a restore may be reading it'],
    ]);
    expect(await holds()).toEqual([
      [newest, null],
      [held, 'held'],
      [earlier, null],
    ]);
    for (const name of [newest, earlier]) {
      expect(await release(name)).toMatchObject({
        code: 4,
        stderr: `error: ${name} is on the line and not held as the last of an older Jellyfin version: there is nothing to release\nhint: held: ${held} (Jellyfin ${OLD})\n`,
      });
    }

    expect(await release(held)).toMatchObject({
      code: 0,
      stdout: `${held} is no longer held as the last of Jellyfin ${OLD}: retention deletes it when nothing else keeps it\n`,
    });
    expect(await holds()).toEqual([
      [newest, null],
      [held, 'released'],
      [earlier, null],
    ]);
    expect(await reasons()).toContainEqual([held, 'a restore may be reading it']);
    expect(await release(held)).toMatchObject({
      code: 0,
      stdout: `Jellyfin ${OLD} was let go already, with ${held}\n`,
    });
    // The one before does not take its place.
    await store.client.deleteBlob(held);
    expect(await holds()).toEqual([
      [newest, null],
      [earlier, 'released'],
    ]);
  },
);
