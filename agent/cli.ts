import { Command, CommanderError } from 'commander';

/** What was asked on the command line, as a value. */
export type Invocation =
  | { command: 'restore'; dryRun: boolean; json: boolean }
  | { command: 'restore-to'; from: string | undefined; to: string; dryRun: boolean; json: boolean }
  | { command: 'backup'; once: boolean }
  | { command: 'list' | 'status'; json: boolean }
  | { command: 'verify'; name: string | undefined; json: boolean }
  | { command: 'prune'; dryRun: true; json: boolean }
  | { command: 'export'; name: string; to: string; json: boolean }
  | { command: 'release'; name: string; json: boolean }
  | { command: 'restore-request'; name: string | undefined; json: boolean }
  | { command: 'jellyroller'; once: boolean }
  | { command: 'jellyroller-restore'; name: string; withoutBackup: boolean; json: boolean }
  | { command: 'help'; text: string }
  | { command: 'usage-error'; text: string };

interface Flags {
  dryRun?: boolean;
  json?: boolean;
  once?: boolean;
  cancel?: boolean;
  withoutBackup?: boolean;
  from?: string;
  to?: string;
}

/** Parses arguments (without `node` and the script). Never exits and never prints. */
export function parseArguments(argv: readonly string[]): Invocation {
  let invocation: Invocation | undefined;
  let printed = '';
  const program = new Command('agent')
    .description(
      "Keeps a Jellyfin server's state safe in Azure Blob Storage. Environment and exit codes: README.",
    )
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        printed += text;
      },
      writeErr: (text) => {
        printed += text;
      },
    });
  const sub = (name: string, description: string) =>
    program
      .command(name)
      .description(description)
      .exitOverride()
      .allowExcessArguments(false)
      .copyInheritedSettings(program);
  const json = ['--json', 'print JSON for scripts'] as const;

  sub(
    'restore',
    'restore the newest good backup onto DATA_DIR (the init container), or one backup into a folder',
  )
    .option('--from <name>', 'this backup instead of the newest; needs --to')
    .option('--to <dir>', 'an empty or new folder instead of DATA_DIR; takes no epoch')
    .option('--dry-run', 'print the plan and change nothing')
    .option(...json)
    .action(({ dryRun = false, json: asJson = false, from, to }: Flags) => {
      if (to !== undefined) invocation = { command: 'restore-to', from, to, dryRun, json: asJson };
      else if (from === undefined) invocation = { command: 'restore', dryRun, json: asJson };
      else
        invocation = {
          command: 'usage-error',
          text: 'error: --from needs --to DIR: on DATA_DIR the newest good backup is restored, always\n',
        };
    });
  sub('backup', 'back up DATA_DIR until told to stop (the sidecar)')
    .option('--once', 'one backup now, then exit')
    .action(({ once = false }: Flags) => {
      invocation = { command: 'backup', once };
    });
  for (const [name, description] of [
    ['list', 'all backups, newest first'],
    ['status', 'what the next start restores'],
  ] as const) {
    sub(name, description)
      .option(...json)
      .action(({ json: asJson = false }: Flags) => {
        invocation = { command: name, json: asJson };
      });
  }
  sub('verify', 'check a backup as a restore would; without a name the one that the next start restores')
    .argument('[name]')
    .option(...json)
    .action((name: string | undefined, { json: asJson = false }: Flags) => {
      invocation = { command: 'verify', name, json: asJson };
    });
  sub('prune', 'what retention keeps and deletes; the sidecar does it after each backup')
    .requiredOption('--dry-run', 'only print: deleting is left to the holder of the epoch')
    .option(...json)
    .action(({ json: asJson = false }: Flags) => {
      invocation = { command: 'prune', dryRun: true, json: asJson };
    });
  sub('export', 'download an archive; tar --zstd -xf opens it')
    .argument('<name>')
    .requiredOption('--to <file>', 'a file that does not exist yet')
    .option(...json)
    .action((name: string, { to = '', json: asJson = false }: Flags) => {
      invocation = { command: 'export', name, to, json: asJson };
    });
  sub('restore-request', 'ask the next start on an empty volume to restore this backup, once')
    .argument('[name]')
    .option('--cancel', 'take the request back')
    .option(...json)
    .action((name: string | undefined, { cancel = false, json: asJson = false }: Flags) => {
      invocation =
        cancel === (name === undefined)
          ? { command: 'restore-request', name, json: asJson }
          : { command: 'usage-error', text: 'error: restore-request takes either a name or --cancel\n' };
    });
  sub(
    'release',
    'put a quarantined backup or a tail on the line, or stop holding the last one of an older Jellyfin',
  )
    .argument('<name>')
    .option(...json)
    .action((name: string, { json: asJson = false }: Flags) => {
      invocation = { command: 'release', name, json: asJson };
    });

  const runner = sub('jellyroller', "mirror Jellyfin's own backups until told to stop (the optional runner)")
    .option('--once', 'one archive now, then exit')
    .action(({ once = false }: Flags) => {
      invocation = { command: 'jellyroller', once };
    });
  runner
    .command('restore')
    .description('bring the running server back to a mirrored archive, through its own restore')
    .exitOverride()
    .allowExcessArguments(false)
    .copyInheritedSettings(program)
    .argument('<name>', 'below jellyroller/, as agent list shows it')
    .option('--without-backup', 'do not store the present state first')
    .option(...json)
    .action((name: string, { withoutBackup = false, json: asJson = false }: Flags) => {
      invocation = { command: 'jellyroller-restore', name, withoutBackup, json: asJson };
    });

  try {
    program.parse(argv, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const isHelp = error.code === 'commander.helpDisplayed' || error.code === 'commander.help';
    return isHelp && argv.length > 0
      ? { command: 'help', text: printed }
      : { command: 'usage-error', text: printed };
  }
  return invocation ?? { command: 'usage-error', text: program.helpInformation() };
}
