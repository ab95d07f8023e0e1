import { activitiesIn, agentEnv, ask, newHome, restore, runAgent, Store } from './support.ts';
import { Tree } from './seed.ts';

interface Status {
  candidate: string;
  requested: string | null;
  onLine: number;
}

const status = (store: Store) => ask<Status>(store, ['status']);

test.concurrent(
  'the next start restores the requested backup once; the start after that the newest again',
  async () => {
    const store = await Store.create();
    const tree = new Tree(store);
    const older = await tree.stored('one');
    const newer = await tree.stored('two');

    const asked = await runAgent(['restore-request', older], store.env);
    expect({ code: asked.code, stdout: asked.stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining(`the next start restores ${older}, once`) as string,
    });
    expect(await status(store)).toMatchObject({ candidate: newer, requested: older });

    const first = newHome();
    const { jsonLines } = await restore(store, first);
    expect(jsonLines).toContainEqual(expect.objectContaining({ msg: 'restored on request', backup: older }));
    expect(activitiesIn(first.database)).toContain('one');
    expect(activitiesIn(first.database)).not.toContain('two');
    // The wish is consumed, its result is the line, and what was newer is stored beside it.
    expect(await status(store)).toMatchObject({ candidate: older, requested: null, onLine: 1 });
    const { backups } = await ask<{ backups: { name: string; place: string }[] }>(store, ['list']);
    expect(backups.find(({ name }) => name === newer)).toMatchObject({ place: 'tail' });

    const again = newHome();
    await restore(store, again);
    expect(activitiesIn(again.database)).not.toContain('two');
  },
);

test.concurrent('a tail that is requested becomes the line, also when no backup follows', async () => {
  const store = await Store.create();
  const tree = new Tree(store);
  await tree.stored('one');
  await restore(store, newHome());
  tree.write('only in the tail');
  const fenced = await tree.backUp();
  expect(fenced.code).toBe(5);
  const [tail] = await store.names('tail/');
  expect((await runAgent(['restore-request', String(tail)], store.env)).code).toBe(0);
  for (let start = 1; start <= 2; start += 1) {
    const home = newHome();
    await restore(store, home);
    expect(activitiesIn(home.database)).toContain('only in the tail');
  }
});

test.concurrent('a request survives a start that keeps its volume, and one that is refused', async () => {
  const store = await Store.create();
  const tree = new Tree(store);
  const older = await tree.stored('one');
  await tree.stored('two');
  await runAgent(['restore-request', older], store.env);
  const kept = await runAgent(['restore'], agentEnv(store, tree.dir));
  expect(kept.stdout).toContain('volume kept');
  const dead = await runAgent(['restore'], agentEnv(store, newHome().data, { BLOB_CONTAINER: 'not-there' }));
  expect(dead.code).toBe(3);
  expect(await status(store)).toMatchObject({ requested: older });
  const home = newHome();
  await restore(store, home);
  expect(activitiesIn(home.database)).not.toContain('two');
});

test.concurrent(
  'a request for a backup that has gone is consumed loudly, and the newest is restored',
  async () => {
    const store = await Store.create();
    const tree = new Tree(store);
    const older = await tree.stored('one');
    await tree.stored('two');
    await runAgent(['restore-request', older], store.env);
    await store.client.deleteBlob(older);
    const home = newHome();
    const { jsonLines } = await restore(store, home);
    expect(jsonLines).toContainEqual(
      expect.objectContaining({
        level: 'error',
        msg: 'the requested backup could not be restored; the request is consumed',
      }),
    );
    expect(activitiesIn(home.database)).toContain('two');
    expect(await status(store)).toMatchObject({ requested: null });
  },
);

test.concurrent('a request is checked when it is made, and can be taken back', async () => {
  const store = await Store.create();
  const tree = new Tree(store);
  const name = await tree.stored('one');
  expect((await runAgent(['restore-request', 'backup-nonsense'], store.env)).code).toBe(4);
  expect((await runAgent(['restore-request'], store.env)).code).toBe(2);
  expect((await runAgent(['restore-request', name, '--cancel'], store.env)).code).toBe(2);
  await runAgent(['restore-request', name], store.env);
  expect((await runAgent(['restore-request', '--cancel'], store.env)).stdout).toContain('taken back');
  expect(await status(store)).toMatchObject({ requested: null });
  expect((await runAgent(['restore-request', '--cancel'], store.env)).stdout).toContain('no request');
});
