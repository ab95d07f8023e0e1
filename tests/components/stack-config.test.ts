import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../../components/config-reader.ts';
import { parseStackConfig } from '../../components/stack-config.ts';
import { declaredKeys } from '../../scripts/project-config.ts';
import { DEFAULTS, JELLYROLLER, PROJECT_DIR, stackConfig } from '../support/stack-config.ts';

type Overrides = Record<string, string | undefined>;

function problemsOf(overrides: Overrides, secretKeys: string[] = []): readonly string[] {
  try {
    stackConfig(overrides, secretKeys);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

const SUM = 'the sum of jellyfinCpu/MemoryGib and its sidecars';

// Overrides, the key named, a part of the reason, and the value shown.
const INVALID: [Overrides, string, string, string][] = [
  [{ 'azure-native:location': undefined }, 'azure-native:location', 'pulumi config set', 'it is not set'],
  [{ 'azure-native:location': '' }, 'azure-native:location', 'everything is created there', '""'],
  [
    { 'azure-native:location': 'West Europe' },
    'azure-native:location',
    'everything is created there',
    '"West Europe"',
  ],
  [{ namePrefix: 'a' }, 'namePrefix', '24 characters', '"a"'],
  [{ namePrefix: 'jellyfinserver' }, 'namePrefix', '24 characters', '"jellyfinserver"'],
  [{ namePrefix: 'Jelly' }, 'namePrefix', '24 characters', '"Jelly"'],
  [{ namePrefix: '1jelly' }, 'namePrefix', '24 characters', '"1jelly"'],
  [{ namePrefix: 'jelly-fin' }, 'namePrefix', '24 characters', '"jelly-fin"'],
  [{ protectData: 'yes' }, 'protectData', 'protected from deletion', '"yes"'],
  [
    { jellyfinImage: 'ghcr.io/jellyfin/jellyfin:latest' },
    'jellyfinImage',
    'never latest',
    '"ghcr.io/jellyfin/jellyfin:latest"',
  ],
  [
    { jellyfinImage: 'ghcr.io/jellyfin/jellyfin' },
    'jellyfinImage',
    'never latest',
    '"ghcr.io/jellyfin/jellyfin"',
  ],
  [{ jellyfinImage: 'ghcr.io/jellyfin/jellyfin:10.11' }, 'jellyfinImage', 'never latest', ':10.11"'],
  [{ jellyfinImage: 'ghcr.io/jellyfin/jellyfin:10' }, 'jellyfinImage', 'never latest', ':10"'],
  [{ jellyfinImage: 'ghcr.io/jellyfin/jellyfin:unstable' }, 'jellyfinImage', 'never latest', ':unstable"'],
  [
    { jellyfinImage: `ghcr.io/jellyfin/jellyfin@sha256:${'a'.repeat(64)}` },
    'jellyfinImage',
    'restore compares',
    'sha256:aaa',
  ],
  [
    { jellyfinImage: 'jellyfin/jellyfin:10.11.11' },
    'jellyfinImage',
    'a short name means Docker Hub',
    '"jellyfin/jellyfin:10.11.11"',
  ],
  [
    { jellyfinImage: 'docker.io/jellyfin/jellyfin:10.11.11' },
    'jellyfinImage',
    'limits anonymous pulls',
    '"docker.io/',
  ],
  [{ jellyfinImage: '' }, 'jellyfinImage', 'a short name', '""'],
  [
    { jellyfinImage: 'ghcr.io/jellyfin/jellyfin:10.10.7', ...JELLYROLLER },
    'jellyfinImage',
    'came with 10.11',
    ':10.10.7"',
  ],
  [{ jellyfinCpu: 'one' }, 'jellyfinCpu', 'up to 4 vCPU', '"one"'],
  [{ jellyfinCpu: '8' }, 'jellyfinCpu', 'up to 4 vCPU', '"8"'],
  [{ jellyfinCpu: '0.333' }, 'jellyfinCpu', 'up to 4 vCPU', '"0.333"'],
  [{ jellyfinCpu: '-1' }, 'jellyfinCpu', 'up to 4 vCPU', '"-1"'],
  [{ jellyfinMemoryGib: '2Gi' }, 'jellyfinMemoryGib', 'up to 8 GiB', '"2Gi"'],
  [
    { jellyfinMemoryGib: '3' },
    SUM,
    'the next one that fits is 1.75 vCPU with 3.5 GiB',
    '1.25 vCPU with 3.5 GiB',
  ],
  [{ jellyfinCpu: '1.1' }, SUM, 'the next one that fits is 1.5 vCPU with 3 GiB', '1.35 vCPU with 2.5 GiB'],
  [{ jellyfinCpu: '4', jellyfinMemoryGib: '8' }, SUM, 'refuses other sums', '4.25 vCPU with 8.5 GiB'],
  [
    { jellyfinCpu: '3.75', jellyfinMemoryGib: '7.5', ...JELLYROLLER },
    SUM,
    'refuses other sums',
    '(jellyfin + agent + jellyroller)',
  ],
  [{ jellyfinCpu: '0.25', jellyfinMemoryGib: '0.5' }, 'jellyfinCpu', 'does not boot', 'which has 2 GiB'],
  [
    { jellyfinCpu: '0.5', jellyfinMemoryGib: '1', dataSizeGib: '2' },
    'jellyfinCpu',
    'does not boot',
    'which has 4 GiB',
  ],
  [
    { jellyfinCpu: '0.5', jellyfinMemoryGib: '1', ...JELLYROLLER },
    'jellyfinCpu',
    "Jellyfin's own backups",
    'which has 4 GiB',
  ],
  [{ dataSizeGib: '0' }, 'dataSizeGib', 'at most 8 GiB', '"0"'],
  [{ dataSizeGib: '1.5' }, 'dataSizeGib', 'at most 8 GiB', '"1.5"'],
  [{ minReplicas: '2' }, 'minReplicas', 'second writer', '"2"'],
  [{ cooldownSeconds: '60' }, 'cooldownSeconds', 'ends a paused film', '"60"'],
  [{ cooldownSeconds: '30m' }, 'cooldownSeconds', 'ends a paused film', '"30m"'],
  [{ startupTimeoutSeconds: '5' }, 'startupTimeoutSeconds', 'ten probes', '"5"'],
  [{ terminationGraceSeconds: '601' }, 'terminationGraceSeconds', 'up to 600', '"601"'],
  [{ terminationGraceSeconds: '50' }, 'terminationGraceSeconds', 'before the final backup is stored', '"50"'],
  [{ shutdownBudgetSeconds: '120' }, 'terminationGraceSeconds', 'before the final backup is stored', '"120"'],
  [{ shutdownBudgetSeconds: '0' }, 'shutdownBudgetSeconds', 'needs time', '"0"'],
  [{ allowedIpRanges: '300.1.1.1' }, 'allowedIpRanges', 'IPv4 only', '"300.1.1.1"'],
  [{ allowedIpRanges: '10.0.0.0/33' }, 'allowedIpRanges', 'IPv4 only', '"10.0.0.0/33"'],
  [{ allowedIpRanges: '10.0.0.1,,10.0.0.2' }, 'allowedIpRanges', 'IPv4 only', '"10.0.0.1,,10.0.0.2"'],
  [{ allowedIpRanges: '2001:db8::/32' }, 'allowedIpRanges', 'IPv4 only', '"2001:db8::/32"'],
  [{ bootstrapAdmin: '' }, 'bootstrapAdmin', 'wizard', '""'],
  [{ adminUser: 'a b' }, 'adminUser', 'without escaping', '"a b"'],
  [{ mediaShareQuotaGib: '0' }, 'mediaShareQuotaGib', 'Azure Files share', '"0"'],
  [{ mediaShareQuotaGib: '102401' }, 'mediaShareQuotaGib', 'Azure Files share', '"102401"'],
  [{ mediaShareTier: 'Premium' }, 'mediaShareTier', 'standard file share', '"Premium"'],
  [{ mediaRedundancy: 'Premium_LRS' }, 'mediaRedundancy', 'standard SKUs', '"Premium_LRS"'],
  [{ mediaReadOnly: 'ro' }, 'mediaReadOnly', 'read-only or writable', '"ro"'],
  [{ backupContainer: 'Backups' }, 'backupContainer', 'no other container name', '"Backups"'],
  [{ backupContainer: 'a--b' }, 'backupContainer', 'no other container name', '"a--b"'],
  [{ backupRedundancy: 'LRS' }, 'backupRedundancy', 'standard SKUs', '"LRS"'],
  [{ 'azure-native:location': 'polandcentral' }, 'backupRedundancy', 'no pair', '"Standard_GRS"'],
  [{ backupSoftDeleteDays: '0' }, 'backupSoftDeleteDays', 'would turn it off', '"0"'],
  [{ backupVersionDays: '-1' }, 'backupVersionDays', 'older versions', '"-1"'],
  [{ backupIntervalSeconds: '4h' }, 'backupIntervalSeconds', 'two days', '"4h"'],
  [{ backupIntervalSeconds: '604800' }, 'backupIntervalSeconds', 'two days', '"604800"'],
  [{ retentionKeep: '0' }, 'retentionKeep', 'never deleted', '"0"'],
  [{ retryMax: '1e3' }, 'retryMax', 'after the first attempt', '"1e3"'],
  [{ logLevel: 'trace' }, 'logLevel', 'do not exist', '"trace"'],
  [{ imageBuild: 'acr' }, 'imageBuild', 'agent image can be made', '"acr"'],
  [{ imageBuild: 'prebuilt' }, 'agentImage', 'between two restarts', '""'],
  [
    { imageBuild: 'prebuilt', agentImage: 'ghcr.io/me/agent:latest' },
    'agentImage',
    'between two restarts',
    '"ghcr.io/me/agent:latest"',
  ],
  [
    { imageBuild: 'prebuilt', agentImage: 'ghcr.io/me/agent:1.0.0', jellyrollerEnabled: 'true' },
    'jellyrollerImage',
    'between two restarts',
    '""',
  ],
  [{ jellyrollerEnabled: 'on' }, 'jellyrollerEnabled', 'runner container', '"on"'],
  [{ jellyrollerEnabled: 'true' }, 'jellyrollerSha256', 'sha256sum', '""'],
  [{ ...JELLYROLLER, jellyrollerSha256: 'AB'.repeat(32) }, 'jellyrollerSha256', 'sha256sum', 'ABAB'],
  [
    { jellyrollerUrl: 'http://example.com/j.tar.gz' },
    'jellyrollerUrl',
    'downloads',
    '"http://example.com/j.tar.gz"',
  ],
  [{ jellyrollerUrl: 'https://example.com/j.zip' }, 'jellyrollerUrl', 'downloads', '.zip"'],
  [{ ...JELLYROLLER, bootstrapAdmin: 'false' }, 'jellyfinApiKey', 'no other way to sign in', 'it is not set'],
  [{ alertEmail: 'me@example' }, 'alertEmail', 'mailed there', '"me@example"'],
  [{ alertEmail: 'a@b.example, c@d.example' }, 'alertEmail', 'mailed there', 'c@d.example"'],
  [{ alertsEnabled: '1' }, 'alertsEnabled', 'log alert', '"1"'],
  [{ logRetentionDays: '7' }, 'logRetentionDays', 'PerGB2018', '"7"'],
  [{ logDailyCapGb: '0' }, 'logDailyCapGb', 'nothing is logged', '"0"'],
];

describe('parseStackConfig', () => {
  it('needs nothing but a region', () => {
    const config = stackConfig();
    expect(config).toMatchObject({
      location: 'westeurope',
      jellyfinVersion: '10.11.11',
      total: { cpu: 1.25, memoryGib: 2.5 },
      mediaShareQuotaGib: 90,
      backupContainer: 'jellyfin-backups',
      minReplicas: 0,
      jellyrollerEnabled: false,
      imageBuild: 'acr-task',
      protectData: true,
      hasApiKey: false,
      allowedIpRanges: [],
    });
    expect(
      Object.isFrozen(config) && Object.isFrozen(config.jellyfin) && Object.isFrozen(config.allowedIpRanges),
    ).toBe(true);
  });

  it.each(INVALID.map((row) => ({ row, title: JSON.stringify(row[0]) })))(
    'refuses $title with one message',
    ({ row }) => {
      const [overrides, key, reason, value] = row;
      const problems = problemsOf(overrides);
      expect(problems).toHaveLength(1);
      const [message = ''] = problems;
      expect(message.startsWith(`${key} must be `)).toBe(true);
      expect(message).toContain(reason);
      expect(message).toMatch(/; (?:got .+|it is not set)$/s);
      expect(message.slice(message.lastIndexOf('; '))).toContain(value);
    },
  );

  it('has at least forty of them', () => {
    expect(INVALID.length).toBeGreaterThanOrEqual(40);
  });

  it('reports several problems in one error', () => {
    expect(() =>
      stackConfig({ minReplicas: '3', logLevel: 'loud', namePrefix: 'X', retentionKeep: '0' }),
    ).toThrow(/has 4 problems:\n(?: {2}- .+\n?){4}$/);
  });

  it('never shows the API key, and refuses it in plain text', () => {
    const key = '0123456789abcdef0123456789abcdef';
    const [message = '', ...others] = problemsOf({ jellyfinApiKey: key });
    expect(others).toEqual([]);
    expect(message).toMatch(/^jellyfinApiKey must be set with --secret .*\[redacted\]$/);
    expect(problemsOf({ jellyfinApiKey: 'hunter2-hunter2' }, ['jellyfinApiKey']).join()).not.toContain(
      'hunter2',
    );
    expect(stackConfig({ jellyfinApiKey: key }, ['jellyfinApiKey']).hasApiKey).toBe(true);
    expect(JSON.stringify(stackConfig({ jellyfinApiKey: key }, ['jellyfinApiKey']))).not.toContain(key);
  });

  it.each([
    ['ghcr.io/jellyfin/jellyfin:10.11.11', '10.11.11'],
    [`ghcr.io/jellyfin/jellyfin:10.11.11@sha256:${'0'.repeat(64)}`, '10.11.11'],
    ['ghcr.io/jellyfin/jellyfin:12.0', '12.0'],
    ['ghcr.io/jellyfin/jellyfin:12.0-rc5', '12.0-rc5'],
    ['registry.example.com:5000/mirror/jellyfin:10.11.11.20260801-012345', '10.11.11'],
  ])('takes the version of %s for the version gate', (jellyfinImage, version) => {
    expect(stackConfig({ jellyfinImage }).jellyfinVersion).toBe(version);
  });

  it('turns single addresses into ranges', () => {
    expect(stackConfig({ allowedIpRanges: '203.0.113.7, 198.51.100.0/24' }).allowedIpRanges).toEqual([
      '203.0.113.7/32',
      '198.51.100.0/24',
    ]);
  });

  it('accepts a region without a pair once the redundancy fits it', () => {
    expect(
      problemsOf({ 'azure-native:location': 'polandcentral', backupRedundancy: 'Standard_ZRS' }),
    ).toEqual([]);
  });
});

describe('Pulumi.yaml', () => {
  const declared = declaredKeys(PROJECT_DIR);

  it('declares every key that is read, and no other', () => {
    const read = new Set<string>();
    parseStackConfig(
      (key) => {
        read.add(key);
        return DEFAULTS[key];
      },
      () => true,
    );
    expect([...read].toSorted()).toEqual([...Object.keys(declared), 'azure-native:location'].toSorted());
  });

  it('gives each a type, a default of that type and a description', () => {
    for (const [key, { type, default: value, description }] of Object.entries(declared)) {
      const expected = type === 'integer' ? 'number' : type;
      expect({ key, type: typeof value }).toEqual({ key, type: expected });
      expect(description.length).toBeGreaterThan(15);
    }
  });

  it('is read in one place', () => {
    const readers = readdirSync(join(PROJECT_DIR, 'components')).filter((file) =>
      /pulumi\.Config\b|getConfig\(/.test(readFileSync(join(PROJECT_DIR, 'components', file), 'utf8')),
    );
    expect(readers).toEqual(['stack-config.ts']);
  });
});
