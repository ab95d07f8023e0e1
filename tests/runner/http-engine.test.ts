import { HttpBackupEngine } from '../../agent/adapters/http-engine.ts';
import { serve } from './support.ts';

test('creates and lists', async () => {
  const { server, key } = await serve();
  const engine = new HttpBackupEngine({
    baseUrl: server.url,
    apiKey: async () => key,
    createTimeoutMs: 10_000,
  });
  expect(await engine.list()).toEqual([]);
  expect(await engine.create()).toEqual({ kind: 'done' });
  const [backup] = await engine.list();
  expect(backup).toMatchObject({ serverVersion: '10.11.11.0', engineVersion: '0.2.0' });
  await expect(engine.restore('jellyfin-backup-20200101000000.zip')).rejects.toMatchObject({
    code: 'backup_missing',
  });
  await engine.restore(backup!.fileName);
  await server.untilHealth('refused');
  await expect(engine.list()).rejects.toMatchObject({ code: 'jellyfin_unavailable', retryable: true });
});
