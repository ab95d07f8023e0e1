import { join } from 'node:path';
import { CONTAINER, ENV } from '../../agent/contract.ts';
import { download, nextRun, type Run } from './archives.ts';
import { JellyfinClient } from './jellyfin-client.ts';
import type { Replica } from './replica.ts';
import { SPIKE } from './spike.ts';
import {
  blobNames,
  coldStart,
  describeState,
  keyNames,
  nextBackup,
  operate,
  signInAsAdmin,
  stateOf,
  stop,
  urlOf,
  type ServerState,
  type Walk,
} from './steps.ts';

/** Of whom only the archive knows. */
export const GUEST = { name: 'guest', password: 'battery staple horse' };

/** An archive, and what the server held when it was made. */
export interface Archived {
  run: Run;
  state: ServerState;
}

interface Restored {
  backedUpFirst: string | null;
  checks: { what: string; ok: boolean; is: string }[];
}

/** What the guardrails refuse, in the runner's container. */
async function refusals(there: Walk, replica: Replica): Promise<void> {
  const { report, store } = there;
  const { bootstrapped } = await there.later;
  const before = await blobNames(store, 'jellyroller/');
  const once = (env: Record<string, string>) =>
    replica.exec(CONTAINER.jellyroller, ['jellyroller', '--once'], env);
  const tooSmall = await once({ [ENV.minBackupSizeBytes]: '1000000000' });
  const after = await blobNames(store, 'jellyroller/');
  report.check(
    SPIKE.floor,
    tooSmall.code === 4 && after.length === before.length,
    `with MIN_BACKUP_SIZE_BYTES=1000000000: exit ${String(tooSmall.code)}, nothing stored`,
  );
  const isOff = await once({ [ENV.jellyrollerEnabled]: 'false' });
  report.check(
    SPIKE.gate,
    isOff.code === 2 && !bootstrapped.template.containers.some(({ name }) => name === CONTAINER.jellyroller),
    `"false": exit ${String(isOff.code)}; no such container without jellyrollerEnabled`,
  );
}

/** The volume and every tar backup are gone; another server has come up in their place. */
export async function restoreOnWiped(walk: Walk, { run, state }: Archived): Promise<Walk> {
  const { report } = walk;
  report.chapter('The volume and all tar backups are lost: back from the archive');
  const there = { ...walk, ...walk.wiped, app: (await walk.later).withRunner };
  const file = join(there.world.dir, 'saved.zip');
  const { metadata } = await download(walk.second.store, run.name, file);
  await there.store.getBlockBlobClient(run.name).uploadFile(file, { metadata });
  report.event('Blob', `another container, in it only ${run.name}`);
  const replica = await coldStart(there, 82);
  const runner = replica.container(CONTAINER.jellyroller);
  await nextRun(report, runner, 0);
  const stranger = (await signInAsAdmin(there)).client;
  await stranger.createApiKey('of the empty server');
  const wipedId = (await stranger.publicInfo()).Id;
  report.event(
    'jellyfin',
    `another server, id ${wipedId.slice(0, 8)}…, users ${(await stranger.userNames()).join(', ')}`,
  );
  await refusals(there, replica);

  report.event('an operator', `agent jellyroller restore ${run.name}, in the container of the runner`);
  const { code, stdout, stderr } = await replica.exec(CONTAINER.jellyroller, [
    'jellyroller',
    'restore',
    run.name,
    '--json',
  ]);
  if (code !== 0) throw new Error(`agent jellyroller restore exited ${String(code)}: ${stderr}`);
  const { backedUpFirst, checks } = JSON.parse(stdout) as Restored;
  report.event('agent', checks.map(({ what, is }) => `${what}: ${is}`).join('; '));
  const { backups } = await operate<{ backups: { name: string }[] }>(there, ['list']);
  report.check(
    'the state before that restore is in a tar backup, named in the answer',
    backedUpFirst !== null && backups.some(({ name }) => name === backedUpFirst),
    backedUpFirst ?? 'none',
  );
  const { Id, StartupWizardCompleted } = await new JellyfinClient(urlOf(there.world)).publicInfo();
  report.check(
    SPIKE.loginScreen,
    StartupWizardCompleted,
    `StartupWizardCompleted: ${String(StartupWizardCompleted)}`,
  );
  const { client, userId } = await signInAsAdmin(there);
  const found = await stateOf(client, userId);
  const guest = new JellyfinClient(urlOf(there.world)).logIn(GUEST.name, GUEST.password);
  const signsIn = await guest.then(
    () => true,
    () => false,
  );
  report.check(
    SPIKE.expectedData,
    isSame(found, state) && signsIn,
    `${describeState(found)}; ${GUEST.name} ${signsIn ? 'signs in' : 'cannot sign in'}`,
  );
  report.event(
    'jellyfin',
    `id ${Id.slice(0, 8)}…: ${Id === wipedId ? 'still that of the new server' : 'another'}; the archive has no id, no plugins`,
  );

  await runner.kill();
  report.event('platform', `SIGKILL to ${CONTAINER.jellyroller}`);
  const next = nextBackup(there, replica);
  await client.createApiKey('without the runner');
  report.event('a person', 'created an API key');
  await next;
  const exitCode = await stop(there, replica);
  report.check(
    'the sidecar goes on with the restored server, and without the runner',
    exitCode === 0,
    `a tar backup more, exit ${String(exitCode)}`,
  );
  return there;
}

/** All but the server's id, which the engine does not save (facts/jellyfin.md 4.2). */
function isSame(found: ServerState, expected: ServerState): boolean {
  return JSON.stringify({ ...found, serverId: '' }) === JSON.stringify({ ...expected, serverId: '' });
}

/** The way back: the runner goes, and nothing else. */
export async function turnOff(there: Walk, { state }: Archived): Promise<void> {
  const { report } = there;
  report.chapter('JellyRoller off again: the tar backups go on from there');
  const here = { ...there, app: (await there.later).bootstrapped };
  const names = here.app.template.containers.map(({ name }) => name);
  report.check(
    'without jellyrollerEnabled there is no runner',
    !names.includes(CONTAINER.jellyroller),
    `containers ${names.join(', ')}`,
  );
  const replica = await coldStart(here, 83);
  const { client, userId } = await signInAsAdmin(here);
  const found = await stateOf(client, userId);
  const more = found.keys.filter((key) => !state.keys.includes(key)).map((key) => key.split(':')[0]);
  const without = { ...found, keys: found.keys.filter((key) => state.keys.includes(key)) };
  report.check(
    SPIKE.tarFallback,
    isSame(without, state) && more.join() === 'without the runner',
    `cold start from a tar backup: ${describeState(found)}; keys ${(await keyNames(client)).join(', ')}`,
  );
  await stop(here, replica);
}
