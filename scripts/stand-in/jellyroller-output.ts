export interface Backup {
  ServerVersion: string;
  BackupEngineVersion: string;
  DateCreated: string;
  Path: string;
  Options: object;
}

const HEADINGS = ['Server Version', 'Backup Engine Version', 'Date Created', 'Path'];
/** Of each column, in a table that is 120 wide whatever the terminal: long paths go over several lines. */
const CELL = 26;

const cellsOf = (backup: Backup): string[] => [
  backup.ServerVersion,
  backup.BackupEngineVersion,
  backup.DateCreated,
  backup.Path,
];

/** The server lists a folder, whose order means nothing; here it never means anything. */
export function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((value) => ({ value, place: Math.random() }))
    .sort((left, right) => left.place - right.place)
    .map(({ value }) => value);
}

/** Without a heading, and without quotes around anything. */
export function asCsv(backups: readonly Backup[]): string {
  return backups.map((backup) => cellsOf(backup).join(', ')).join('\n');
}

export function asTable(backups: readonly Backup[]): string {
  const rule = `+${'-'.repeat(CELL + 2)}`.repeat(HEADINGS.length);
  const rows = [HEADINGS, ...backups.map(cellsOf)].map((cells) => {
    const wrapped = cells.map((cell) => cell.match(new RegExp(`.{1,${CELL}}`, 'g')) ?? ['']);
    const height = Math.max(...wrapped.map(({ length }) => length));
    return Array.from({ length: height }, (_, row) =>
      wrapped.map((lines) => `| ${(lines[row] ?? '').padEnd(CELL)} `).join(''),
    )
      .map((line) => `${line}|`)
      .join('\n');
  });
  return [`${rule}+`, ...rows.flatMap((row) => [row, `${rule}+`])].join('\n');
}
