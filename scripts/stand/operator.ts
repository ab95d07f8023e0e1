import { CONTAINER } from '../../agent/contract.ts';
import { coldStart, keyNames, operate, runInit, signIn, stop, type Walk } from './steps.ts';

interface Listed {
  backups: { name: string; place: string; jellyfinVersion: string | null }[];
}

const listed = async (walk: Walk) => (await operate<Listed>(walk, ['list'])).backups;

async function restoreThatOne(walk: Walk): Promise<void> {
  const { report } = walk;
  report.chapter('An operator: restore that one, once');
  const wanted = (await operate<{ candidate: string }>(walk, ['status'])).candidate;
  const first = await coldStart(walk, 20);
  await (await signIn(walk)).createApiKey('a mistake');
  report.event('a person', 'created an API key by mistake');
  await stop(walk, first);
  const mistaken = (await operate<{ candidate: string }>(walk, ['status'])).candidate;
  await operate(walk, ['restore-request', wanted]);
  report.event('an operator', `agent restore-request ${wanted}`);

  const second = await coldStart(walk, 21);
  const keys = await keyNames(await signIn(walk));
  report.check('the next start restores it', !keys.includes('a mistake'), `${String(keys.length)} keys`);
  await (await signIn(walk)).createApiKey('after the request');
  await stop(walk, second);
  const third = await coldStart(walk, 22);
  const later = await keyNames(await signIn(walk));
  report.check(
    'only once: the start after it goes on from there',
    later.includes('after the request') && !later.includes('a mistake'),
    `${String(later.length)} keys`,
  );
  const place = (await listed(walk)).find(({ name }) => name === mistaken)?.place;
  report.check(
    'the state before the request is kept',
    place !== undefined && place !== 'candidate',
    `${mistaken}: ${place ?? 'gone'}`,
  );
  await stop(walk, third);
}

async function upgradeAndRollback(walk: Walk): Promise<void> {
  const { report, world } = walk;
  report.chapter('An upgrade of Jellyfin, and the way back');
  if (world.jellyfin.kind === 'real') {
    report.event('skipped', 'one JELLYFIN_BIN has one version; `npm test` shows this with the stand-in');
    return;
  }
  const { upgraded } = await walk.later;
  const before = (await operate<{ candidate: string }>(walk, ['status'])).candidate;
  const newer = await coldStart(walk, 30, { app: upgraded });
  // Before that, a stop stores nothing: a migration may be half done (README, "Known limits").
  await newer
    .container(CONTAINER.backup)
    .waitForLine(({ json }) => json?.['msg'] === 'jellyfin is healthy', 30_000);
  await (await signIn(walk)).createApiKey('with the new version');
  await stop(walk, newer);
  const backups = await listed(walk);
  const versionOf = (name: string) => backups.find((backup) => backup.name === name)?.jellyfinVersion ?? '?';
  const after = backups.find(({ place }) => place === 'candidate')?.name ?? '';
  report.event('an operator', `sets the old image again: Jellyfin ${versionOf(before)}`);
  const refused = await runInit(walk, 31);
  const message = String((refused.log.at(-1)?.['err'] as { message?: string } | undefined)?.message);
  report.check(
    'the old version does not start on the database of the new one',
    refused.exitCode === 4 && message.includes(versionOf(before)) && message.includes(versionOf(after)),
    `exit ${String(refused.exitCode)}, ${versionOf(before)} and ${versionOf(after)} named`,
  );
  await operate(walk, ['restore-request', before]);
  report.event('an operator', `agent restore-request ${before}`);
  const old = await coldStart(walk, 32);
  const keys = await keyNames(await signIn(walk));
  report.check(
    'the last backup of the old version brings it back',
    keys.includes('after the request') && !keys.includes('with the new version'),
    `${String(keys.length)} keys`,
  );
  await stop(walk, old);
}

/** What a person decides: design.md 7, "Restore that one", and the version gate. */
export async function operatorsWishes(walk: Walk): Promise<void> {
  await restoreThatOne(walk);
  await upgradeAndRollback(walk);
}
