import { readdirSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { readZip } from '../../scripts/stand-in/zip.ts';
import { eventually, Home, StandIn } from './support.ts';

const EVERYTHING = { Metadata: true, Trickplay: true, Subtitles: true, Database: true };

/** 204 only means that the restore will come; the server goes away for it a little later. */
async function restore(standIn: StandIn, token: string, archive: string, wanted = 'Healthy'): Promise<void> {
  const body = { ArchiveFileName: basename(archive) };
  expect((await standIn.call('POST', '/Backup/Restore', { token, body })).status).toBe(204);
  expect(await standIn.health()).toBe('Healthy');
  await standIn.untilHealth('refused');
  await standIn.untilHealth(wanted);
}

test.concurrent('creates an archive, lists it and restores it in the same process', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home);
  const { token, itemId } = await standIn.setUp(home);
  const created = (await standIn.call('POST', '/Backup/Create', { token, body: EVERYTHING })).json;
  expect(created).toMatchObject({
    ServerVersion: '10.11.11.0',
    BackupEngineVersion: '0.2.0',
    Options: EVERYTHING,
  });
  expect(created.Path).toMatch(/\/data\/data\/backups\/jellyfin-backup-\d{14}\.zip$/);
  expect((await standIn.call('GET', '/Backup', { token })).json).toEqual([created]);
  const query = `/Backup/Manifest?path=${encodeURIComponent(created.Path)}`;
  expect((await standIn.call('GET', query, { token })).json).toEqual(created);

  const names = [...readZip(created.Path).keys()];
  expect(names.at(-1)).toBe('manifest.json');
  expect(names).toEqual(
    expect.arrayContaining(['Database/Users.json', 'Config/system.xml', 'Database/HistoryRow.json']),
  );
  expect(names.filter((name) => /plugin|device\.txt|playback_reporting/i.test(name))).toEqual([]);

  await standIn.call('DELETE', `/UserPlayedItems/${itemId}`, { token });
  await standIn.call('DELETE', '/Library/VirtualFolders?name=Movies&refreshLibrary=true', { token });
  await standIn.call('POST', '/Users/New', { token, body: { Name: 'later' } });
  await restore(standIn, token, created.Path);
  expect((await standIn.call('GET', `/UserItems/${itemId}/UserData`, { token })).json.Played).toBe(true);
  expect((await standIn.call('GET', '/Library/VirtualFolders', { token })).json).toHaveLength(1);
  expect((await standIn.call('GET', '/Users', { token })).json).toHaveLength(1);
  expect((await standIn.logIn()).status).toBe(200);
  expect(await standIn.stop()).toBe(0);
});

test.concurrent('a half-written archive is on disk and not in the list', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { STAND_IN_BACKUP_MS: '1000' });
  const { token } = await standIn.setUp(home);
  const creating = standIn.call('POST', '/Backup/Create', { token, body: EVERYTHING });
  await eventually(() => home.has('data/backups') && readdirSync(home.path('data/backups')).length === 1);
  expect((await standIn.call('GET', '/Backup', { token })).json).toEqual([]);
  expect((await creating).status).toBe(200);
  expect((await standIn.call('GET', '/Backup', { token })).json).toHaveLength(1);
});

test.concurrent('less than 5 GiB of free space is a 500 without a file', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { STAND_IN_FREE_SPACE_BYTES: '5368709114' });
  const { token } = await standIn.setUp(home);
  const refused = await standIn.call('POST', '/Backup/Create', { token, body: EVERYTHING });
  expect(refused).toMatchObject({ status: 500, text: 'Error processing request.' });
  expect(readdirSync(home.path('data/backups'))).toEqual([]);
});

test.concurrent('what is no backup is passed over, and what is not there is a 404', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home);
  const { token } = await standIn.setUp(home);
  await standIn.call('POST', '/Backup/Create', { token, body: EVERYTHING });
  writeFileSync(home.path('data/backups/notes.zip'), 'no zip');
  expect((await standIn.call('GET', '/Backup', { token })).json).toHaveLength(1);
  expect((await standIn.call('GET', '/Backup/Manifest?path=notes.zip', { token })).status).toBe(204);
  expect((await standIn.call('GET', '/Backup/Manifest?path=none.zip', { token })).status).toBe(404);
  const body = { ArchiveFileName: '../../config/none.zip' };
  expect((await standIn.call('POST', '/Backup/Restore', { token, body })).status).toBe(404);
  expect((await standIn.call('GET', '/Backup')).status).toBe(401);
});

test.concurrent('an archive of an older schema breaks the start (issue #17111)', async () => {
  const home = new Home();
  const old = await StandIn.start(home, { STAND_IN_VERSION: '10.11.8' });
  const { token } = await old.setUp(home);
  const { Path } = (await old.call('POST', '/Backup/Create', { token, body: EVERYTHING })).json;
  await old.stop();
  const standIn = await StandIn.start(home, { STAND_IN_VERSION: '10.11.11' });
  await restore(standIn, token, Path, 'Unhealthy');
  expect(standIn.process.stderr()).toContain('duplicate column name: NormalizedUsername');
  await standIn.process.kill();
});
