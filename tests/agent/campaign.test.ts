import { AzureBlobStore } from '../../agent/adapters/azure-blob-store.ts';
import { Secret } from '../../agent/secret.ts';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { broken } from './campaign-check.ts';
import { report, runHistory } from './campaign-world.ts';
import { MemoryBlobStore } from './support-memory-store.ts';

let azurite: Azurite;
beforeAll(async () => {
  azurite = await sharedAzurite();
});
test('x', async () => {
  const N = Number(process.env['N'] ?? 20);
  const S = Number(process.env['S'] ?? 1);
  const t0 = performance.now();
  let bad = 0, steps = 0; const kinds: Record<string, number> = {}; const rules: Record<string, number> = {};
  for (let seed = S; seed < S + N; seed += 1) {
    const store = process.env['MEM'] ? new MemoryBlobStore() : new AzureBlobStore({ kind: 'connectionString', connectionString: new Secret(azurite.connectionString) }, await azurite.createContainer('campaign'));
    const outcome = await runHistory({ seed }, { store });
    steps += Number(outcome.trace.at(-1)?.slice(0, 4));
    const h = outcome.history;
    const add = (k: string, n: number) => (kinds[k] = (kinds[k] ?? 0) + n);
    add('starts', h.starts.length); add('line', h.commits.filter(c => c.placement === 'line').length); add('tail', h.commits.filter(c => c.placement === 'tail').length);
    add('quar', h.commits.filter(c => c.placement === 'quarantine').length); add('acks', h.acknowledged.length); add('stops0', h.stops.filter(s => s.exitCode === 0).length); add('stops', h.stops.length);
    add('removals', h.removals.length); add('refused', h.final.refusal ? 1 : 0); add('finalrestored', h.starts.at(-1)?.action === 'restored' ? 1 : 0);
    const b = broken(h);
    if (b.length > 0) { bad += 1; for (const r of new Set(b.map(x => x.rule))) rules[r] = (rules[r] ?? 0) + 1; if (bad <= Number(process.env['SHOW'] ?? 1)) process.stderr.write(report(outcome, `seed ${seed}`) + '\n'); else process.stderr.write(`seed ${seed} ${b.map(x=>x.rule+': '+x.problem).join('\n   ')}\n`); }
  }
  process.stderr.write(`${N} histories ${bad} bad ${steps} steps ${Math.round(performance.now() - t0)} ms ${JSON.stringify(kinds)} ${JSON.stringify(rules)}\n`);
}, 3_000_000);
