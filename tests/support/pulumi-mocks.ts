/**
 * Pulumi's own mocks over the stand-in answers of Azure. They prove which children are made with which inputs; not
 * parents' options such as protect (tests/program does), and not that Azure accepts anything.
 */
import * as pulumi from '@pulumi/pulumi';
import { createdState, invokeResult, type Properties } from '../../scripts/azure-stand-in.ts';
import { isSecretValue, reveal } from '../../scripts/wire-values.ts';

export interface Recorded {
  readonly type: string;
  readonly name: string;
  /** Secrets opened. */
  readonly inputs: Properties;
  /** Names of the inputs that arrived as, or with, a secret. */
  readonly secretInputs: readonly string[];
}

// The SDK exports it without declaring it; it is how its own engine connection drains.
const { waitForRPCs } = pulumi.runtime as unknown as { waitForRPCs: () => Promise<void> };

const recorded: Recorded[] = [];

/** Installs the mocks for this test file. Call it before anything creates a resource. */
export async function installMocks({ preview }: { preview: boolean } = { preview: false }): Promise<void> {
  await pulumi.runtime.setMocks(
    {
      newResource: ({ type, name, inputs, custom }) => {
        const plain = reveal(inputs) as Properties;
        const secretInputs = Object.keys(inputs as Properties).filter((key) =>
          containsSecret((inputs as Properties)[key]),
        );
        recorded.push({ type, name, inputs: plain, secretInputs });
        return custom === true ? createdState(type, name, plain) : { id: '', state: {} };
      },
      call: ({ token, inputs }) => invokeResult(token, reveal(inputs) as Properties),
    },
    'jellyfin-on-azure',
    'test',
    preview,
  );
}

/** Builds something, waits until every registration has been answered, and returns what was registered. */
export async function recordingOf<T>(build: () => T): Promise<{ result: T; resources: Recorded[] }> {
  recorded.length = 0;
  const result = build();
  await waitForRPCs();
  return { result, resources: [...recorded] };
}

/** Types and names, sorted: the exact list of children. */
export function inventory(resources: readonly Recorded[]): string[] {
  return resources.map(({ type, name }) => `${type.replace(/^azure-native:/, '')} ${name}`).toSorted();
}

/** The one resource of this type (and name). */
export function only(resources: readonly Recorded[], type: string, name?: string): Recorded {
  const found = resources.filter(
    (resource) => resource.type === type && (name === undefined || resource.name === name),
  );
  if (found.length !== 1)
    throw new Error(`${String(found.length)} resources of type ${type}: ${found.map((r) => r.name).join()}`);
  return found[0] as Recorded;
}

/** The value of an output. Await it: an assertion inside `apply` would not fail its test. */
export function valueOf<T>(output: pulumi.Output<T>): Promise<T> {
  return new Promise((resolve) => output.apply(resolve));
}

function containsSecret(value: unknown): boolean {
  if (isSecretValue(value)) return true;
  return typeof value === 'object' && value !== null && Object.values(value).some(containsSecret);
}
