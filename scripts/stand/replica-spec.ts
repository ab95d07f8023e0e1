import { deployedApp, type DeployedApp } from '../deployed-app.ts';
import { evaluateProgram } from '../local-engine.ts';

/** What a walk of a minute needs shorter than a server that runs for weeks. Everything else is the stack's default. */
const TUNING = {
  'azure-native:location': 'westeurope',
  backupOnChangeSeconds: '3',
  startupDelaySeconds: '1',
  shutdownBudgetSeconds: '20',
  terminationGraceSeconds: '60',
  retryMax: '2',
  retryBackoffSeconds: '1',
};

/**
 * The Container App that `pulumi up` would deploy, taken from the real program: what is executed here is what is deployed.
 * @param bootstrapAdmin Whether the sidecar completes the wizard of a brand-new server.
 * @param config What an operator has set besides.
 */
export async function deployedReplica(
  bootstrapAdmin: boolean,
  config: Readonly<Record<string, string>> = {},
): Promise<DeployedApp> {
  return deployedApp(
    await evaluateProgram({ config: { ...TUNING, bootstrapAdmin: String(bootstrapAdmin), ...config } }),
  );
}
