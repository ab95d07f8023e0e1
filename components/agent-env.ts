import type * as pulumi from '@pulumi/pulumi';
import {
  COMMAND_ENV,
  ENV,
  type Command,
  type EnvKey,
  type EnvOf,
  type SECRET_ENV,
} from '../agent/contract.ts';

/** One entry of a container's `env`, as Container Apps takes it. */
export type EnvVar = { name: string; value: pulumi.Input<string> } | { name: string; secretRef: string };

type SecretKey = (typeof SECRET_ENV)[number];

/** A deliberate absence: the command may see the variable and this deployment does not set it. */
type Absent = undefined;

/**
 * What a deployment must say about each variable that a command may see. Forgetting one and passing one that the
 * command must not see both fail to compile; a secret can only be named by `secretRef`, never given as text.
 */
export type AgentEnv<C extends Command> = {
  readonly [K in EnvOf<C>]:
    (K extends SecretKey ? { readonly secretRef: string } : pulumi.Input<string>) | Absent;
};

/** Builds a container's `env` in the contract's order, so that an unchanged stack gives an unchanged template. */
export function agentEnv<C extends Command>(command: C, values: AgentEnv<C>): EnvVar[] {
  const given: Partial<Record<EnvKey, pulumi.Input<string> | { readonly secretRef: string }>> = values;
  return COMMAND_ENV[command].flatMap((key: EnvKey): EnvVar[] => {
    const value = given[key];
    if (value === undefined) return [];
    const name = ENV[key];
    return [isSecretRef(value) ? { name, secretRef: value.secretRef } : { name, value }];
  });
}

function isSecretRef(
  value: pulumi.Input<string> | { readonly secretRef: string },
): value is { readonly secretRef: string } {
  return typeof value === 'object' && 'secretRef' in value && typeof value.secretRef === 'string';
}
