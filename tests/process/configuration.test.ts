import { runAgent, Store } from './support.ts';

const KEY = 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0'.repeat(2);
const PASSWORD = 'correct-horse-battery';
const ACCOUNT = { AZURE_STORAGE_ACCOUNT: 'jellyfinbackups', AZURE_STORAGE_KEY: KEY };

/** Variable, value, the rule that the message must name. What a secret must not show is checked for all of them. */
const INVALID: readonly (readonly [name: string, value: string, rule: RegExp])[] = [
  ['AZURE_STORAGE_ACCOUNT', 'Jellyfin-Backups', /3 to 24 lower-case letters and digits/],
  ['AZURE_STORAGE_ACCOUNT', 'ab', /3 to 24 lower-case letters and digits/],
  ['BLOB_CONTAINER', 'Backups', /3 to 63 lower-case letters, digits and single hyphens/],
  ['BLOB_CONTAINER', 'a--b', /3 to 63 lower-case letters, digits and single hyphens/],
  ['DATA_DIR', 'data', /an absolute path below \//],
  ['DATA_DIR', '/', /an absolute path below \//],
  ['MEDIA_DIR', 'media', /an absolute path below \//],
  ['JELLYFIN_URL', 'localhost:8096', /an http or https URL without query/],
  ['JELLYFIN_URL', 'http://localhost:8096/?x=1', /an http or https URL without query/],
  ['BACKUP_INTERVAL_SECONDS', '0', /a whole number from 1 to 604800/],
  ['BACKUP_INTERVAL_SECONDS', '4h', /a whole number from 1 to 604800, digits only/],
  ['BACKUP_ON_CHANGE_SECONDS', '-1', /a whole number from 0 to 86400/],
  ['BACKUP_ON_CHANGE_SECONDS', '86401', /a whole number from 0 to 86400/],
  ['STARTUP_DELAY_SECONDS', '1.5', /a whole number from 0 to 3600/],
  ['STARTUP_DELAY_SECONDS', '3601', /a whole number from 0 to 3600/],
  ['MIN_BACKUP_SIZE_BYTES', '1KB', /a whole number from 0 to /],
  ['BACKUP_ARTWORK', 'yes', /"true" or "false"/],
  ['BACKUP_ARTWORK', 'TRUE', /"true" or "false"/],
  ['DRILL_INTERVAL_SECONDS', '1e3', /a whole number from 0 to 2592000/],
  ['RETENTION_KEEP', '0', /a whole number from 1 to 4000/],
  ['RETENTION_DAILY', '0x10', /a whole number from 0 to 3650/],
  ['RETENTION_WEEKLY', '521', /a whole number from 0 to 520/],
  ['RETENTION_MONTHLY', ' 1', /a whole number from 0 to 120/],
  ['RETRY_MAX', '101', /a whole number from 0 to 100/],
  ['RETRY_BACKOFF_SECONDS', 'Infinity', /a whole number from 0 to 600/],
  ['SHUTDOWN_BUDGET_SECONDS', '0', /a whole number from 1 to 600/],
  ['HEALTH_HOST', 'example.com', /an IP address or localhost/],
  ['HEALTH_PORT', '65536', /a whole number from 0 to 65535/],
  ['LOG_LEVEL', 'verbose', /one of debug, info, warn, error/],
];

const quoted = (value: string) => JSON.stringify(value);

/** One line for each problem: variable, rule, reason, value. */
function problemsOf(stderr: string): string[] {
  return stderr
    .split('\n')
    .filter((line) => line.startsWith('  - '))
    .map((line) => line.slice(4));
}

const start = (env: Record<string, string>, args: readonly string[] = ['backup', '--once']) =>
  runAgent(args, { ...ACCOUNT, ...env });

test('every invalid value is named with its rule, reason and value, all in one message, exit 2', async () => {
  // As few starts as there are values of one variable.
  const batches: (readonly [string, string, RegExp])[][] = [];
  for (const row of INVALID) {
    const batch = batches.find((rows) => rows.every(([name]) => name !== row[0]));
    if (batch === undefined) batches.push([row]);
    else batch.push(row);
  }
  for (const batch of batches) {
    const { code, stdout, stderr } = await start(
      Object.fromEntries(batch.map(([name, value]) => [name, value])),
    );
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(new RegExp(`^error: configuration has ${String(batch.length)} problems?:\n`));
    const problems = problemsOf(stderr);
    expect(problems).toHaveLength(batch.length);
    for (const [name, value, rule] of batch) {
      const problem = problems.find((line) => line.startsWith(`${name} must be `)) ?? `nothing about ${name}`;
      expect(problem).toMatch(rule);
      expect(problem).toMatch(/ \([^)]{8,}\); got /);
      expect(problem.endsWith(`; got ${quoted(value)}`)).toBe(true);
    }
  }
});

test.each([
  [
    'no account at all',
    { AZURE_STORAGE_ACCOUNT: '', AZURE_STORAGE_KEY: '' },
    /^AZURE_STORAGE_ACCOUNT must be set \(backups live there; .*; it is not set$/,
  ],
  [
    'a key that is no key',
    { AZURE_STORAGE_KEY: 'not base64!' },
    /^AZURE_STORAGE_KEY must be base64 \(.*; got "\[redacted\]"$/,
  ],
  [
    'a key and an identity',
    { AZURE_CLIENT_ID: '00000000-0000-4000-8000-000000000000' },
    /^AZURE_STORAGE_KEY must be unset when AZURE_CLIENT_ID is set/,
  ],
  [
    'an identity that is no GUID',
    { AZURE_STORAGE_KEY: '', AZURE_CLIENT_ID: 'backup-agent' },
    /^AZURE_CLIENT_ID must be a GUID \(.*; got "backup-agent"$/,
  ],
  [
    'a connection string and a key',
    {
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=${KEY};EndpointSuffix=core.windows.net`,
    },
    /^AZURE_STORAGE_KEY must be unset when AZURE_STORAGE_CONNECTION_STRING is set/,
  ],
  [
    'a connection string without a key',
    { AZURE_STORAGE_KEY: '', AZURE_STORAGE_CONNECTION_STRING: 'AccountName=abc' },
    /^AZURE_STORAGE_CONNECTION_STRING must be .*; got "\[redacted\]"$/,
  ],
  [
    'a connection string without an endpoint',
    {
      AZURE_STORAGE_KEY: '',
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=${KEY}`,
    },
    /^AZURE_STORAGE_CONNECTION_STRING must be .*; got "\[redacted\]"$/,
  ],
  [
    'a connection string with no URL',
    {
      AZURE_STORAGE_KEY: '',
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=${KEY};BlobEndpoint=abc`,
    },
    /^AZURE_STORAGE_CONNECTION_STRING must be .*; got "\[redacted\]"$/,
  ],
  [
    'a connection string cut in its key',
    {
      AZURE_STORAGE_KEY: '',
      AZURE_STORAGE_CONNECTION_STRING: `DefaultEndpointsProtocol=https;AccountName=abc;AccountKey=!!;EndpointSuffix=core.windows.net`,
    },
    /^AZURE_STORAGE_CONNECTION_STRING must be .*; got "\[redacted\]"$/,
  ],
  [
    'a URL with a password',
    { JELLYFIN_URL: `http://admin:${PASSWORD}@localhost:8096` },
    /^JELLYFIN_URL must be a URL without credentials \(.*; got "\[redacted\]"$/,
  ],
  [
    'another URL with a password',
    { JELLYFIN_URL: `ftp://admin:${PASSWORD}@localhost` },
    /^JELLYFIN_URL must be a URL without credentials \(.*; got "\[redacted\]"$/,
  ],
  [
    'a password without a user',
    { JELLYFIN_ADMIN_PASSWORD: PASSWORD },
    /^JELLYFIN_ADMIN_USER must be set when JELLYFIN_ADMIN_PASSWORD is/,
  ],
])('%s: exit 2, and no secret is printed', async (_what, env: Record<string, string>, problem) => {
  const { code, stdout, stderr } = await start(env);
  expect({ code, stdout, stderr }).toEqual({ code: 2, stdout: '', stderr: expect.any(String) as string });
  expect(problemsOf(stderr)).toEqual([expect.stringMatching(problem) as string]);
  for (const secret of [KEY, PASSWORD, 'not base64!', 'AccountName=abc'])
    expect(stderr).not.toContain(secret);
});

test('a variable that a command may not see is not looked at', async () => {
  const store = await Store.create();
  const env = { ...store.env, BACKUP_INTERVAL_SECONDS: 'never', JELLYFIN_URL: 'nowhere' };
  expect(await runAgent(['list'], env)).toMatchObject({ code: 0, stderr: '' });
});

test('no secret in any output, however much is logged and whatever fails', async () => {
  const store = await Store.create();
  const key = store.azurite.accountKey;
  const connectionString = store.env['AZURE_STORAGE_CONNECTION_STRING'] ?? '';
  const nobody = connectionString.replace(/:\d+\//, ':9/');
  const runs = [
    { args: ['restore'], env: {} },
    { args: ['list'], env: {} },
    { args: ['verify'], env: {} },
    { args: ['list', '--json'], env: { BLOB_CONTAINER: 'never-made' } },
    { args: ['restore'], env: { AZURE_STORAGE_CONNECTION_STRING: nobody } },
    { args: ['backup', '--once'], env: { AZURE_STORAGE_CONNECTION_STRING: nobody } },
    { args: ['backup', '--once'], env: { HEALTH_PORT: 'x', BLOB_CONTAINER: 'X' } },
  ];
  const outputs = await Promise.all(
    runs.map(async ({ args, env }) => {
      const { stdout, stderr } = await runAgent(args, {
        ...store.env,
        DATA_DIR: '/nonexistent/data',
        JELLYFIN_URL: 'http://127.0.0.1:9',
        LOG_LEVEL: 'debug',
        RETRY_MAX: '1',
        RETRY_BACKOFF_SECONDS: '0',
        ...env,
      });
      return stdout + stderr;
    }),
  );
  for (const output of outputs) {
    expect(output).not.toBe('');
    expect(output).not.toContain(key);
    expect(output).not.toContain('AccountKey');
    expect(output).not.toMatch(/SharedKey devstore|authorization/i);
  }
});
