import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { makeTempDir } from '../support/temp-dir.ts';
import { runProcess, startProcess } from '../support/processes.ts';

test('a process sees exactly the environment given, and its lines are text or JSON', async () => {
  const program = `console.log(JSON.stringify(process.env)); console.log('plain'); console.error('{broken');
    process.stdout.write('no newline'); process.exitCode = 3;`;
  const result = await runProcess({ args: ['-e', program], env: { ONLY: 'this' } });
  expect(result).toMatchObject({ code: 3, signal: null, jsonLines: [{ ONLY: 'this' }], stderr: '{broken\n' });
  expect(result.stdout.endsWith('plain\nno newline')).toBe(true);
  expect(result.lines.filter(({ stream }) => stream === 'stdout').map(({ text }) => text)).toEqual([
    '{"ONLY":"this"}',
    'plain',
    'no newline',
  ]);
});

test('waits for lines printed before and after, and says what was printed when none comes', async () => {
  const running = startProcess({
    args: ['-e', `console.log('one'); process.stdin.on('data', (d) => console.log('got ' + d));`],
  });
  await running.waitForLine(({ text }) => text === 'one');
  await running.waitForLine(({ text }) => text === 'one');
  const mark = running.lines.length;
  running.write('two');
  expect((await running.waitForLine(() => true, 5000, mark)).text).toBe('got two');
  await expect(running.waitForLine(({ text }) => text === 'never', 50)).rejects.toThrow(/50 ms[^]*got two/);
  await expect(running.waitForExit(50)).rejects.toThrow(/did not end within 50 ms/);
  const missing = running.waitForLine(({ text }) => text === 'never');
  running.signal('SIGTERM');
  await expect(missing).rejects.toThrow(/ended without[^]*SIGTERM/);
  expect(await running.exit).toEqual({ code: null, signal: 'SIGTERM' });
  expect(running.isRunning()).toBe(false);
  expect(running.signal('SIGTERM')).toBe(false);
});

test('a program that does not exist ends with 127', async () => {
  expect(await runProcess({ command: '/nowhere/program', args: [] })).toMatchObject({ code: 127 });
});

test('clean-up kills what still runs and removes the folders', async () => {
  const dir = makeTempDir();
  const program = `
    const { makeTempDir } = await import(${JSON.stringify(join(process.cwd(), 'tests/support/temp-dir.ts'))});
    const { startProcess } = await import(${JSON.stringify(join(process.cwd(), 'tests/support/processes.ts'))});
    const { cleanUp } = await import(${JSON.stringify(join(process.cwd(), 'tests/support/clean-up.ts'))});
    const dir = makeTempDir();
    const child = startProcess({ args: ['-e', 'setInterval(() => {}, 1000)'] });
    await cleanUp();
    console.log(JSON.stringify({ dir, exit: await child.exit }));`;
  const { jsonLines } = await runProcess({
    args: ['--input-type=module', '-e', program],
    env: { TMPDIR: dir },
  });
  expect(jsonLines).toEqual([{ dir: expect.stringContaining(dir), exit: { code: null, signal: 'SIGKILL' } }]);
  expect(existsSync(String(jsonLines[0]?.['dir']))).toBe(false);
});
