import { AgentError } from './errors.ts';
import type { Disk } from './ports.ts';
import type { StagedTree } from './stage-backup.ts';

/**
 * Moves a staged tree into place: databases last, so that a tree that looks complete is complete.
 * Only empty folders may be in the way.
 */
export async function moveIntoPlace(disk: Disk, staged: StagedTree, dataDir: string): Promise<void> {
  const holdsDatabase = (path: string) =>
    staged.databases.some((database) => database === path || database.startsWith(`${path}/`));
  const touched = new Set<string>();
  async function move(path: string): Promise<void> {
    for (const name of (await disk.names(`${staged.dir}/${path}`)) ?? []) {
      const child = path === '' ? name : `${path}/${name}`;
      if (staged.databases.includes(child)) continue;
      const target = `${dataDir}/${child}`;
      const existing = await disk.stat(target);
      const isFolder = (await disk.stat(`${staged.dir}/${child}`))?.type === 'directory';
      if (isFolder && (existing?.type === 'directory' || holdsDatabase(child))) {
        await disk.makeDir(target);
        touched.add(child);
        await move(child);
      } else if (existing === undefined) {
        await disk.rename(`${staged.dir}/${child}`, target);
      } else {
        throw new AgentError('target_unsafe', `${target} appeared during the restore`);
      }
    }
  }
  await move('');
  for (const path of staged.databases) {
    for (const suffix of ['-wal', '-shm', '-journal']) await disk.removeFile(`${dataDir}/${path}${suffix}`);
    await disk.rename(`${staged.dir}/${path}`, `${dataDir}/${path}`);
  }
  for (const directory of staged.directories) {
    if (touched.has(directory.path)) await disk.setAttributes(`${dataDir}/${directory.path}`, directory);
  }
  for (const path of [...touched].sort().reverse()) await disk.sync(`${dataDir}/${path}`);
  await disk.sync(dataDir);
}
