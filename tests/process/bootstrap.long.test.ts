import { expectAllOnce, killEverywhere, NewServer, TWELVE } from './new-server.ts';

test.each([{}, TWELVE])(
  'kill -9 of the sidecar between each two calls: the same end, everything once (%j)',
  async (version) => {
    const it = await NewServer.create({ ...version, STAND_IN_EXIT_AFTER_SECONDS: '600' });
    it.addFolders('movies', 'music');
    let last: ReturnType<NewServer['sidecar']> | undefined;
    const moments = await killEverywhere(it, () => {
      const sidecar = (last = it.sidecar());
      const finished = sidecar.nth(0).then(
        () => true,
        // Killed before it stored anything: that start has ended another way.
        () => new Promise<boolean>(() => undefined),
      );
      return { finished, kill: async () => void (await sidecar.process.kill()) };
    });
    expectAllOnce(it, moments);
    if (last !== undefined) await it.end(last);
  },
);
