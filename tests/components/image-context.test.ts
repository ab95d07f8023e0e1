import { execFileSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import tar from 'tar-stream';
import { contextArchive, imageTag, type ContextFile } from '../../components/image-context.ts';
import { PROJECT_DIR } from '../support/stack-config.ts';

const FILES: ContextFile[] = [
  { name: 'b.mjs', content: 'x'.repeat(200_000) },
  { name: 'Dockerfile', content: 'FROM scratch\n' },
];

async function entriesOf(archive: Buffer): Promise<{ header: tar.Header; content: string }[]> {
  const entries: { header: tar.Header; content: string }[] = [];
  const extract = tar.extract();
  extract.end(gunzipSync(archive));
  for await (const entry of extract) {
    let content = '';
    for await (const chunk of entry) content += String(chunk);
    entries.push({ header: entry.header, content });
  }
  return entries;
}

describe('contextArchive', () => {
  it('is a tar.gz that others can read: sorted, without clock, owner or umask', async () => {
    const entries = await entriesOf(contextArchive(FILES).archive);
    expect(entries.map(({ header, content }) => [header.name, content.length])).toEqual([
      ['Dockerfile', 13],
      ['b.mjs', 200_000],
    ]);
    for (const { header } of entries) {
      expect(header).toMatchObject({ type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0) });
    }
  });

  it('can be unpacked by tar', () => {
    const dir = mkdtempSync(join(tmpdir(), 'context-'));
    writeFileSync(join(dir, 'c.tar.gz'), contextArchive(FILES).archive);
    execFileSync('tar', ['-xzf', 'c.tar.gz'], { cwd: dir });
    expect(readdirSync(dir).toSorted()).toEqual(['Dockerfile', 'b.mjs', 'c.tar.gz']);
    rmSync(dir, { recursive: true });
  });

  it('depends on names and contents and on nothing else', () => {
    const { hash, archive } = contextArchive(FILES);
    expect(contextArchive(FILES.toReversed())).toEqual({ hash, archive });
    const [first, second] = FILES as [ContextFile, ContextFile];
    expect(contextArchive([first, { ...second, content: 'FROM scratch\r\n' }]).hash).toBe(hash);
    expect(contextArchive([first, { ...second, content: 'FROM other\n' }]).hash).not.toBe(hash);
    expect(contextArchive([first, { ...second, name: 'dockerfile' }]).hash).not.toBe(hash);
  });

  it.each(['/etc/passwd', '../x', 'a b', '', 'x'.repeat(101)])('refuses the name %j', (name) => {
    expect(() => contextArchive([{ name, content: '' }])).toThrow(JSON.stringify(name));
  });
});

describe('imageTag', () => {
  const context = contextArchive(FILES);
  it('changes with the stage and with every argument, not with their order', () => {
    const tag = imageTag(context, { name: 'jellyroller', args: { A: '1', B: '2' } });
    expect(tag).toMatch(/^[0-9a-f]{16}$/);
    expect(imageTag(context, { name: 'jellyroller', args: { B: '2', A: '1' } })).toBe(tag);
    expect(imageTag(context, { name: 'jellyroller', args: { A: '1', B: '3' } })).not.toBe(tag);
    expect(imageTag(context, { name: 'agent', args: { A: '1', B: '2' } })).not.toBe(tag);
  });
});

describe('the image context of two clean checkouts', () => {
  const root = mkdtempSync(join(tmpdir(), 'checkouts-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  /** What a fresh clone holds: the tracked files as they are now, new inodes, the umask of whoever made it. */
  function checkout(name: string, umask: string): string {
    const dir = join(root, name, 'a longer path than the other one'.slice(0, name.length * 3));
    execFileSync(
      'sh',
      [
        '-c',
        `umask ${umask}; mkdir -p "$1"; git ls-files -z -- agent components scripts package.json tsconfig.json | xargs -0 cp --parents -t "$1"`,
        'sh',
        dir,
      ],
      {
        cwd: PROJECT_DIR,
      },
    );
    symlinkSync(join(PROJECT_DIR, 'node_modules'), join(dir, 'node_modules'));
    return dir;
  }

  function contextOf(dir: string): Buffer {
    const script =
      "import { writeImageContext } from './scripts/image-context.ts'; console.log((await writeImageContext(process.cwd())).hash)";
    const hash = execFileSync(
      process.execPath,
      ['--input-type=module', '--disable-warning=ExperimentalWarning', '-e', script],
      {
        cwd: dir,
        encoding: 'utf8',
      },
    );
    expect(hash.trim()).toMatch(/^[0-9a-f]{64}$/);
    return readFileSync(join(dir, 'dist', 'image', `${hash.trim()}.tar.gz`));
  }

  it('is byte for byte the same, whatever the umask, the path, the line ends and the clock', () => {
    const one = checkout('one', '022');
    const two = checkout('two-two', '077');
    for (const file of readdirSync(join(two, 'agent'), { recursive: true, encoding: 'utf8' })) {
      if (!/Dockerfile$|\.m?ts$|\.mjs$/.test(file)) continue;
      const path = join(two, 'agent', file);
      writeFileSync(path, readFileSync(path, 'utf8').replaceAll('\n', '\r\n'));
    }
    const archive = contextOf(one);
    expect(contextOf(two).equals(archive)).toBe(true);
    expect(archive.includes(root)).toBe(false);
    expect(archive.includes(PROJECT_DIR)).toBe(false);

    cpSync(join(one, 'agent', 'main.ts'), join(two, 'agent', 'main.ts'));
    writeFileSync(
      join(two, 'agent', 'main.ts'),
      `${readFileSync(join(one, 'agent', 'main.ts'), 'utf8')}\nconsole.log(1);\n`,
    );
    expect(contextOf(two).equals(archive)).toBe(false);
  });
});
