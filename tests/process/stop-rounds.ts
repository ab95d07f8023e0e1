import { activitiesIn, Replica, Store } from './support.ts';

export interface StopRound {
  closingMs: number;
  exitCode: number | null;
  /** Both the write before SIGTERM and the one that the server made while it closed are in the next start. */
  isThere: boolean;
  isClean: boolean;
}

/**
 * One line of replicas, each started from the backups of the one before: a write, at once SIGTERM to both containers, a new
 * volume. The server closes after a time drawn from 0 to `maxClosingMs`, and writes once more in it.
 */
export async function stopRounds(rounds: number, maxClosingMs: number): Promise<StopRound[]> {
  const store = await Store.create();
  const results: StopRound[] = [];
  // Longer than any closing time, so that a server that seems killed is not waited for too long.
  const agent = { SHUTDOWN_BUDGET_SECONDS: String(Math.ceil((maxClosingMs / 1000) * 1.5) + 5) };
  const drawn = () => Math.round(Math.random() * maxClosingMs);
  const serverOf = (closingMs: number) => ({
    STAND_IN_LATE_WRITE: '1',
    STAND_IN_SHUTDOWN_MS: String(closingMs),
    STAND_IN_EXIT_AFTER_SECONDS: '600',
  });
  let closingMs = drawn();
  let replica: Replica = await Replica.startUsed(store, { agent, server: serverOf(closingMs) });
  for (let round = 1; round <= rounds; round += 1) {
    const label = `before stop ${String(round)}`;
    await replica.write(label);
    replica.signal('SIGTERM');
    const exitCode = await replica.sidecar.exit(120_000);
    await replica.server.process.waitForExit(maxClosingMs + 10_000);
    const isClean = (await store.newest()).meta['clean_stop'] === 'true';
    const previous = { closingMs, exitCode, isClean };
    closingMs = drawn();
    replica = await Replica.start(store, { agent, server: serverOf(closingMs) });
    const activities = activitiesIn(replica.home.database);
    const at = activities.indexOf(label);
    results.push({ ...previous, isThere: at >= 0 && activities[at + 1] === 'late write' });
  }
  await replica.kill();
  return results;
}
