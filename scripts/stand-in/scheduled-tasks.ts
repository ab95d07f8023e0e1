import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { optimizeDatabase } from './database.ts';
import type { Paths } from './paths.ts';
import type { Scanner } from './scanner.ts';

interface Task {
  Id: string;
  Key: string;
  Name: string;
  run: () => void;
}

/** Tasks leave their last result in `data/ScheduledTasks` and their triggers in `<config>/ScheduledTasks`. */
export class ScheduledTasks {
  readonly #tasks: readonly Task[];
  readonly #resultsDir: string;
  readonly #triggersDir: string;

  constructor(db: DatabaseSync, scanner: Scanner, paths: Paths) {
    this.#resultsDir = join(paths.dataDir, 'ScheduledTasks');
    this.#triggersDir = join(paths.configDir, 'ScheduledTasks');
    this.#tasks = [
      {
        Id: '7738148ffcd07979c7ceb148e06b3aed',
        Key: 'RefreshLibrary',
        Name: 'Scan Media Library',
        run: () => scanner.scan(),
      },
      {
        Id: '4f43c5a4d8b8b4d4a1b4a0a5c2f3e1d0',
        Key: 'OptimizeDatabaseTask',
        Name: 'Optimize database',
        run: () => optimizeDatabase(db),
      },
    ];
  }

  list(): object[] {
    return this.#tasks.map(({ Id, Key, Name }) => ({
      Id,
      Key,
      Name,
      State: 'Idle',
      LastExecutionResult: readJson(this.#file(this.#resultsDir, Id)),
      Triggers: readJson(this.#file(this.#triggersDir, Id)) ?? [],
    }));
  }

  /** False when there is no such task. */
  run(id: string): boolean {
    const task = this.#byId(id);
    if (!task) return false;
    const StartTimeUtc = new Date().toISOString();
    task.run();
    const { Id, Key, Name } = task;
    const result = { StartTimeUtc, EndTimeUtc: new Date().toISOString(), Status: 'Completed', Name, Key, Id };
    this.#write(this.#resultsDir, Id, result);
    return true;
  }

  setTriggers(id: string, triggers: unknown): boolean {
    const task = this.#byId(id);
    if (!task) return false;
    this.#write(this.#triggersDir, task.Id, triggers);
    return true;
  }

  runByKey(key: string): void {
    const task = this.#tasks.find((candidate) => candidate.Key === key);
    if (!task) throw new Error(`no task has the key ${key}`);
    this.run(task.Id);
  }

  #byId(id: string): Task | undefined {
    return this.#tasks.find((task) => task.Id === id.replaceAll('-', '').toLowerCase());
  }

  #file(dir: string, id: string): string {
    return join(dir, `${id}.js`);
  }

  #write(dir: string, id: string, content: unknown): void {
    mkdirSync(dir, { recursive: true });
    writeFileSync(this.#file(dir, id), JSON.stringify(content));
  }
}

function readJson(file: string): unknown {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
}
