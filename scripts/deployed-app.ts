/** The Container App that an evaluated program would deploy, in the names of Azure, for whoever executes or checks it. */
import type { Evaluation } from './local-engine.ts';
import { reveal } from './wire-values.ts';

export interface EnvEntry {
  name: string;
  value?: string;
  secretRef?: string;
}
export interface ContainerSpec {
  name: string;
  image: string;
  args?: string[];
  env: EnvEntry[];
  resources: { cpu: number; memory: string };
  volumeMounts: { volumeName: string; mountPath: string }[];
  probes?: {
    type: string;
    httpGet: { path: string; port: number };
    periodSeconds: number;
    failureThreshold: number;
  }[];
}
export interface DeployedApp {
  readonly template: {
    initContainers: ContainerSpec[];
    containers: ContainerSpec[];
    volumes: { name: string; storageType: string; storageName?: string }[];
    scale: { minReplicas: number; maxReplicas: number; cooldownPeriod: number };
    terminationGracePeriodSeconds: number;
  };
  /** The app's secrets, opened: what a `secretRef` names. */
  readonly secrets: ReadonlyMap<string, string>;
}

/** Takes the one Container App out of an evaluation. Secrets are open in it: never log it. */
export function deployedApp({ resources }: Evaluation): DeployedApp {
  const [app, ...others] = resources.filter(({ type }) => type === 'azure-native:app:ContainerApp');
  if (app === undefined || others.length > 0)
    throw new Error(`find the Container App failed: ${String(others.length)} of them`);
  const { template, configuration } = reveal(app.inputs) as {
    template: DeployedApp['template'];
    configuration: { secrets: { name: string; value: string }[] };
  };
  return { template, secrets: new Map(configuration.secrets.map(({ name, value }) => [name, value])) };
}

/**
 * The environment of a container as its process sees it.
 * @throws Error when a variable refers to a secret that the app does not hold; Azure refuses such an app
 */
export function environmentOf({ secrets }: DeployedApp, container: ContainerSpec): Record<string, string> {
  return Object.fromEntries(
    container.env.map(({ name, value, secretRef }) => {
      const resolved = secretRef === undefined ? value : secrets.get(secretRef);
      if (resolved === undefined)
        throw new Error(`resolve ${name} of ${container.name} failed: no secret ${secretRef ?? '(none)'}`);
      return [name, resolved];
    }),
  );
}
