import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { load } from 'js-yaml';
import { README_FILE, withConfigTable } from '../../scripts/config-table.ts';
import { PROJECT_DIR } from '../support/stack-config.ts';

const read = (...path: string[]): string => readFileSync(join(PROJECT_DIR, ...path), 'utf8');

describe('the README', () => {
  it('holds the configuration keys as Pulumi.yaml declares them (npm run docs)', () => {
    const text = read(README_FILE);
    expect(text).toContain('<!-- config-table');
    expect(withConfigTable(text, PROJECT_DIR)).toBe(text);
  });
});

interface Workflow {
  permissions: Record<string, string>;
  jobs: Record<
    string,
    { if?: string; environment?: string; steps: { uses?: string; with?: Record<string, unknown> }[] }
  >;
}

describe('the workflows', () => {
  const workflows = readdirSync(join(PROJECT_DIR, '.github', 'workflows')).map((file) => ({
    file,
    text: read('.github', 'workflows', file),
    workflow: load(read('.github', 'workflows', file)) as Workflow,
  }));
  const steps = workflows.flatMap(({ workflow }) => Object.values(workflow.jobs).flatMap((job) => job.steps));

  it('pin every action to a commit and say which version that is', () => {
    const uses = workflows.flatMap(({ text }) => text.match(/uses: .*/g) ?? []);
    expect(uses.length).toBeGreaterThan(5);
    for (const line of uses) expect(line).toMatch(/^uses: [\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/);
  });

  it('use the CLI version that package.json pins', () => {
    const { devDependencies } = JSON.parse(read('package.json')) as {
      devDependencies: Record<string, string>;
    };
    const versions = steps
      .map((step) => step.with?.['pulumi-version'])
      .filter((version) => version !== undefined);
    expect(versions).toEqual([devDependencies['pulumi'], devDependencies['pulumi']]);
  });

  it('preview with an identity of its own, skip forks, and update behind an environment', () => {
    const of = (file: string) => workflows.find((candidate) => candidate.file === file);
    expect(of('preview.yml')?.workflow.jobs['preview']?.if).toBe(
      'github.event.pull_request.head.repo.full_name == github.repository',
    );
    expect(of('preview.yml')?.text).not.toContain('AZURE_UP_CLIENT_ID');
    expect(of('up.yml')?.workflow.jobs['up']?.environment).toBe('production');
    expect(of('up.yml')?.text).not.toContain('AZURE_PREVIEW_CLIENT_ID');
    for (const { text } of workflows)
      expect(text).not.toMatch(/ARM_CLIENT_SECRET|permissions: write-all|pull_request_target/);
  });
});

describe('the Dockerfile', () => {
  const dockerfile = read('agent', 'Dockerfile');
  it('pins its base by digest and comes from a registry without pull limits', () => {
    expect(dockerfile).toMatch(/^ARG BASE=gcr\.io\/distroless\/nodejs24-debian13@sha256:[0-9a-f]{64}$/m);
    expect(dockerfile.match(/^FROM .*/gm)).toEqual([
      'FROM ${BASE} AS agent',
      'FROM agent AS fetch',
      'FROM agent AS jellyroller',
    ]);
  });
  it('starts the bundle without a shell', () => {
    expect(dockerfile).toMatch(/^ENTRYPOINT \[.*"\/app\/agent\.mjs"\]$/m);
    expect(dockerfile).not.toMatch(/^RUN [^[]/m);
  });
});
