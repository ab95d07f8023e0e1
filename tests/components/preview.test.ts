import { estimateCost, type CostInput } from '../../scripts/cost.ts';
import type { RecordedResource } from '../../scripts/local-monitor.ts';
import { renderCost, renderTree } from '../../scripts/resource-tree.ts';
import { hasUnknown, isSecretValue, mask, reveal, secretValue } from '../../scripts/wire-values.ts';

const INPUT: CostInput = {
  cpu: 1.25,
  memoryGib: 2.5,
  alwaysOn: false,
  cooldownSeconds: 1800,
  mediaGib: 90,
  mediaTier: 'Hot',
  mediaRedundancy: 'Standard_LRS',
  backupRedundancy: 'Standard_GRS',
  hasRegistry: true,
  hasAlert: true,
};

describe('estimateCost', () => {
  const price = (estimate: ReturnType<typeof estimateCost>, what: string) =>
    estimate.lines.find((line) => line.what === what);

  it('charges an idle month for storage, registry and alert only', () => {
    const estimate = estimateCost(INPUT);
    expect(price(estimate, 'replica')?.idle).toBe(0);
    expect(estimate.idle).toBeCloseTo(5 + 0.5 + 90 * 0.0255 + 5 * 0.0458, 5);
    expect(estimate.assumptions).toHaveLength(3);
  });

  it('charges the watched hours with their cooldown, less the free grant', () => {
    const seconds = (60 + 30 * 0.5) * 3600;
    const expected = (1.25 * seconds - 180_000) * 0.000024 + (2.5 * seconds - 360_000) * 0.000003;
    expect(price(estimateCost(INPUT), 'replica')?.watched).toBeCloseTo(expected, 5);
  });

  it('shows what a replica that never sleeps costs, and what prebuilt images save', () => {
    const always = estimateCost({ ...INPUT, alwaysOn: true });
    expect(price(always, 'replica')?.idle).toBeGreaterThan(20);
    expect(price(always, 'replica')?.watched).toBeGreaterThan(80);
    expect(estimateCost(INPUT).idle - estimateCost({ ...INPUT, hasRegistry: false }).idle).toBeCloseTo(5, 5);
  });

  it('prints a table with a total', () => {
    expect(renderCost(estimateCost(INPUT))).toMatch(/total +8\.02 +\d+\.\d\d/);
  });
});

describe('wire values', () => {
  const wire = { a: secretValue({ b: 'hidden', c: [secretValue('deeper')] }), d: 'open' };
  it('are opened for the stand and masked for people', () => {
    expect(reveal(wire)).toEqual({ a: { b: 'hidden', c: ['deeper'] }, d: 'open' });
    expect(mask(wire)).toEqual({ a: '[secret]', d: 'open' });
    expect(isSecretValue(wire.a)).toBe(true);
    expect(hasUnknown({ a: [{ b: '04da6b54-80e4-46f7-96ec-b56ff0331ba9' }] })).toBe(true);
    expect(hasUnknown(wire)).toBe(false);
  });
});

describe('renderTree', () => {
  it('shows components, protection and physical names, and no secret', () => {
    const stack = 'urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev';
    const base = { dependencies: [], retainOnDelete: false, id: '' };
    const resources: RecordedResource[] = [
      {
        ...base,
        urn: 'c',
        type: 'p:storage:MediaStorage',
        name: 'media',
        custom: false,
        parent: stack,
        protect: false,
        inputs: {},
      },
      {
        ...base,
        urn: 'e',
        type: 'azure-native:app:ManagedEnvironmentsStorage',
        name: 'media-share',
        custom: true,
        parent: 'c',
        protect: true,
        inputs: {
          storageName: 'films',
          properties: {
            azureFile: {
              accountName: 'acct',
              shareName: 'films',
              accessMode: 'ReadOnly',
              accountKey: secretValue('hunter2'),
            },
          },
        },
      },
    ];
    expect(renderTree(resources)).toBe(
      '[MediaStorage] media\n  ManagedEnvironmentsStorage films  (protected)\n      Azure Files acct/films, ReadOnly, account key [secret]',
    );
  });
});
