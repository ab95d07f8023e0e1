/**
 * What the client's spike "JellyRoller API-Driven Backups" demands: its four acceptance criteria, taken apart, then those of its
 * guardrails and of its section on logs that a walk can show. The rest of them (retries, one run at a time) is in tests/process.
 */
export const SPIKE = {
  onDisk: 'archive on disk, not below MIN_BACKUP_SIZE_BYTES',
  mirrored: 'mirrored to Blob with metadata',
  listed: 'get-backups lists it',
  roundTrip: 'retrievable, and the same hash after the way through Blob',
  loginScreen: 'a restore from it yields the login screen, not the wizard',
  expectedData: 'a restore from it yields the expected data',
  tarIntact: 'the tar sidecar remains intact beside it',
  tarFallback: 'the tar sidecar remains usable as fallback',
  gate: 'guardrail: gated by JELLYROLLER_ENABLED',
  delay: 'guardrail: the first backup is delayed',
  floor: 'guardrail: an archive below the minimum size is not taken',
  prune: 'guardrail: pruned only after upload and validation',
  log: 'log: start, archive, size, sha256, URL, retention, durations',
  healthLine: 'log: last_backup_utc=<iso8601> size_bytes=<n>',
} as const;

export const SPIKE_TITLE = "THE CLIENT'S SPIKE: JELLYROLLER";
