import * as authorization from '@pulumi/azure-native/authorization/index.js';
import * as pulumi from '@pulumi/pulumi';
import { guidOf } from './guid.ts';

/** Built-in roles (learn.microsoft.com/azure/role-based-access-control/built-in-roles). */
export const ROLE = {
  acrPull: '7f951dda-4ed3-4680-a7ca-43fe172d538d',
  storageBlobDataContributor: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe',
} as const;

export interface RoleArgs {
  /** Resource id of what the role opens; as narrow as it goes. */
  readonly scope: pulumi.Input<string>;
  readonly role: keyof typeof ROLE;
  /** Object id of the identity that gets it. */
  readonly principalId: pulumi.Input<string>;
  readonly description: string;
}

/** Gives a managed identity one role on one scope. Created before whatever relies on it, through `dependsOn`. */
export function assignRole(
  name: string,
  args: RoleArgs,
  parent: pulumi.Resource,
): authorization.RoleAssignment {
  const { scope, role, principalId, description } = args;
  return new authorization.RoleAssignment(
    name,
    {
      scope,
      principalId,
      // Without it Azure looks the principal up and fails while Entra still replicates a new identity.
      principalType: 'ServicePrincipal',
      roleDefinitionId: pulumi.output(scope).apply((id) => roleDefinitionId(id, role)),
      roleAssignmentName: pulumi
        .all([scope, principalId])
        .apply(([id, principal]) => guidOf(id, principal, ROLE[role])),
      description,
    },
    { parent },
  );
}

/**
 * The role's full id in the subscription of `scope`; Azure stores it in this form, so a shorter one would show a
 * difference on every refresh.
 */
export function roleDefinitionId(scope: string, role: keyof typeof ROLE): string {
  const subscription = /^\/subscriptions\/[^/]+/i.exec(scope)?.[0];
  if (subscription === undefined)
    throw new Error(`read the subscription from scope ${JSON.stringify(scope)} failed`);
  return `${subscription}/providers/Microsoft.Authorization/roleDefinitions/${ROLE[role]}`;
}
