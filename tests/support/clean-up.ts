/**
 * What a test started must be gone when the test file is done: processes first, then servers, then the folders
 * that they wrote to. Under jest this happens by itself (importing any support module registers one `afterAll`);
 * elsewhere (the local stand, a benchmark) call `cleanUp()`.
 */

/** The order matters: removing a folder that a live process still writes to fails with ENOTEMPTY. */
const PHASES = ['processes', 'servers', 'folders'] as const;
export type Phase = (typeof PHASES)[number];
type Action = () => Promise<unknown> | unknown;

const registered: Record<Phase, Set<Action>> = {
  processes: new Set(),
  servers: new Set(),
  folders: new Set(),
};

/** Runs `action` at the end; the function returned takes it back (for what ended by itself). */
export function onCleanUp(phase: Phase, action: Action): () => void {
  registered[phase].add(action);
  return () => registered[phase].delete(action);
}

export async function cleanUp(): Promise<void> {
  const errors: unknown[] = [];
  for (const phase of PHASES) {
    const actions = [...registered[phase]].reverse();
    registered[phase].clear();
    for (const result of await Promise.allSettled(actions.map(async (action) => action()))) {
      if (result.status === 'rejected') errors.push(result.reason);
    }
  }
  if (errors.length > 0)
    throw new AggregateError(errors, `clean up failed: ${errors.map(String).join('; ')}`);
}

// Jest's globals exist only in a test file; the same modules serve programs that have no jest.
if (typeof afterAll === 'function') afterAll(cleanUp, 30_000);
