import type { LegacyBackup, StoredBackup } from '../../agent/catalog.ts';
import { formatBackupName, type Placement } from '../../agent/backup-name.ts';

interface StoredOptions {
  placement?: Placement;
  stamp?: string;
  lastModified?: Date;
  metadata?: Record<string, string>;
  isVerified?: boolean;
  isReleased?: boolean;
}

/** A backup as a listing would show it. */
export function stored(epoch: number, sequence: number, options: StoredOptions = {}): StoredBackup {
  const { placement = 'line', stamp = '20260101000000', isReleased = false } = options;
  const verified: Record<string, string> =
    (options.isVerified ?? true) ? { sha256: 'a'.repeat(64), size: '1000' } : {};
  return {
    format: 'tarZst',
    placement,
    epoch,
    sequence,
    stamp,
    isReleased,
    item: {
      name: formatBackupName({ placement, stamp, epoch, sequence }),
      sizeBytes: 1000,
      etag: '"1"',
      lastModified: options.lastModified ?? new Date('2026-01-01T00:00:00Z'),
      metadata: { ...verified, ...options.metadata },
    },
  };
}

export function legacyTar(stamp: string): LegacyBackup {
  return {
    format: 'tarGz',
    stamp,
    items: [
      {
        name: `backup-${stamp}.tar.gz`,
        sizeBytes: 133,
        etag: '"1"',
        lastModified: new Date(0),
        metadata: {},
      },
    ],
  };
}
