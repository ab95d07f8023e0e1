import { evaluateProgram } from '../../scripts/local-engine.ts';

describe('two instances in one stack', () => {
  it('collide neither in URNs nor in Azure ids', async () => {
    const { resources } = await evaluateProgram({ program: 'tests/program/two-instances.ts' });
    const custom = resources.filter((resource) => resource.custom);
    expect(custom.length).toBeGreaterThan(20);
    expect(new Set(custom.map(({ urn }) => urn)).size).toBe(custom.length);
    expect(new Set(custom.map(({ id }) => id)).size).toBe(custom.length);
    for (const { name, parent } of custom)
      expect(name.startsWith(parent.split('::').at(-1) ?? '')).toBe(true);
  });
});
