import fc from 'fast-check';
import { guidOf } from '../../components/guid.ts';
import { isPinned, parseImageRef } from '../../components/image-ref.ts';
import { CONTEXT_CONTAINER, MEDIA_SHARE, PREFIX_MAX_LENGTH, namesFor } from '../../components/names.ts';
import {
  ephemeralDemandGib,
  ephemeralStorageGib,
  isConsumptionRow,
  nearestRow,
  totalOf,
} from '../../components/sizing.ts';

describe('names', () => {
  const limits = {
    mediaAccount: /^[a-z0-9]{3,24}$/,
    backupAccount: /^[a-z0-9]{3,24}$/,
    registry: /^[a-zA-Z0-9]{5,50}$/,
  };
  const others = /^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])$/;

  it('keeps the limits of Azure for the longest and the shortest prefix', () => {
    for (const prefix of ['ab', 'a'.repeat(PREFIX_MAX_LENGTH)]) {
      const { mediaAccount, backupAccount, registry, app, ...rest } = namesFor(prefix, 'x9x9x9x9');
      expect(mediaAccount).toMatch(limits.mediaAccount);
      expect(backupAccount).toMatch(limits.backupAccount);
      expect(registry).toMatch(limits.registry);
      // learn.microsoft.com/azure/container-apps: 2 to 32 characters, no double hyphen.
      expect(app).toMatch(/^(?!.*--)[a-z][a-z0-9-]{0,30}[a-z0-9]$/);
      for (const name of Object.values(rest)) expect(name).toMatch(others);
    }
  });

  it('gives every resource another name, and another one for another suffix', () => {
    const one = Object.values(namesFor('jellyfin', 'aaaaaaaa'));
    const two = Object.values(namesFor('jellyfin', 'bbbbbbbb'));
    expect(new Set([...one, ...two]).size).toBe(one.length + two.length);
  });

  it("keeps the client's share and uses a container name that Azure accepts", () => {
    expect(MEDIA_SHARE).toBe('jellyfin-media');
    expect(CONTEXT_CONTAINER).toMatch(/^(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*$/);
  });
});

describe('guidOf', () => {
  it('is a version 5 GUID that depends on every part and on nothing else', () => {
    expect(guidOf('a', 'b')).toBe(guidOf('a', 'b'));
    expect(guidOf('a', 'b')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set([guidOf('a', 'b'), guidOf('b', 'a'), guidOf('a'), guidOf('a', 'b', 'c')]).size).toBe(4);
    // Python: uuid.uuid5(uuid.NAMESPACE_URL, 'www.example.com')
    expect(guidOf('www.example.com')).toBe('b63cdfa4-3df9-568e-97ae-006c5b8fd652');
  });
});

describe('sizing', () => {
  it('knows the rows of the Consumption profile', () => {
    const rows = Array.from({ length: 16 }, (_, index) => (index + 1) * 0.25);
    for (const cpu of rows) expect(isConsumptionRow({ cpu, memoryGib: cpu * 2 })).toBe(true);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 900 }), fc.integer({ min: 1, max: 1800 }), (cpu, memory) => {
        const size = { cpu: cpu / 100, memoryGib: memory / 100 };
        const isRow = cpu % 25 === 0 && cpu <= 400 && memory === cpu * 2;
        return isConsumptionRow(size) === isRow;
      }),
    );
  });

  it('adds up without the rounding errors of binary fractions', () => {
    expect(totalOf([0.1, 0.2, 0.45].map((cpu) => ({ cpu, memoryGib: cpu * 2 })))).toEqual({
      cpu: 0.75,
      memoryGib: 1.5,
    });
  });

  it('names the next row that fits', () => {
    expect(nearestRow({ cpu: 1.3, memoryGib: 2 })).toBe('1.5 vCPU with 3 GiB');
    expect(nearestRow({ cpu: 0.5, memoryGib: 4 })).toBe('2 vCPU with 4 GiB');
  });

  it.each([
    [0.25, 1],
    [0.5, 2],
    [0.75, 4],
    [1, 4],
    [1.25, 8],
    [4, 8],
  ])('gives %d vCPU %d GiB of ephemeral storage', (cpu, gib) => {
    expect(ephemeralStorageGib(cpu)).toBe(gib);
  });

  it('asks for room to stage /data and for the free space Jellyfin insists on', () => {
    expect(ephemeralDemandGib(1, false)).toBe(4);
    expect(ephemeralDemandGib(1, true)).toBe(7);
  });
});

describe('image references', () => {
  it.each(['ghcr.io/a/b:1.2.3', `mcr.microsoft.com/x@sha256:${'f'.repeat(64)}`, 'ghcr.io/a/b:3fa2c1'])(
    'takes %s as pinned',
    (text) => {
      const image = parseImageRef(text);
      expect(image !== undefined && isPinned(image)).toBe(true);
    },
  );
  it.each(['ghcr.io/a/b', 'ghcr.io/a/b:latest', 'ghcr.io/a/b:10', 'ghcr.io/a/b:main'])(
    'takes %s as moving',
    (text) => {
      const image = parseImageRef(text);
      expect(image !== undefined && isPinned(image)).toBe(false);
    },
  );
  it.each(['nginx', 'a/b:1', 'ghcr.io/A/b:1', 'ghcr.io/a/b:1@sha256:12', 'ghcr.io/a b:1', ''])(
    'refuses %s',
    (text) => {
      expect(parseImageRef(text)).toBeUndefined();
    },
  );
});
