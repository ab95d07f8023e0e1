import * as containerregistry from '@pulumi/azure-native/containerregistry/index.js';
import * as storage from '@pulumi/azure-native/storage/index.js';
import * as dockerBuild from '@pulumi/docker-build';
import * as pulumi from '@pulumi/pulumi';
import { imageTag, type ImageContext, type ImageTarget } from './image-context.ts';
import { CONTEXT_CONTAINER } from './names.ts';

const TYPE = 'jellyfin-on-azure:image:AgentImage';
const REPOSITORY = { agent: 'jellyfin-agent', jellyroller: 'jellyroller-runner' } as const;
// The SAS must not differ between two runs, or every `up` would build again. What it opens is one blob that holds this
// public program and no secret; rotating the account's key ends it.
const SAS_WINDOW = {
  sharedAccessStartTime: '2026-01-01T00:00:00Z',
  sharedAccessExpiryTime: '2056-01-01T00:00:00Z',
};

export interface BuiltImageArgs {
  readonly build: 'acr-task' | 'docker-build';
  readonly resourceGroupName: pulumi.Input<string>;
  readonly registryName: pulumi.Input<string>;
  readonly context: ImageContext;
  /** Account that hands the context to ACR; it needs shared keys, so it is the one of the media. */
  readonly contextAccountName: pulumi.Input<string>;
  /** The release to put into the runner's image; no runner image without it. @default none */
  readonly jellyroller?: { readonly url: string; readonly sha256: string } | undefined;
}
export interface PrebuiltImageArgs {
  readonly build: 'prebuilt';
  readonly agentImage: string;
  /** @default none */
  readonly jellyrollerImage?: string | undefined;
}
export type AgentImageArgs = BuiltImageArgs | PrebuiltImageArgs;

/**
 * The agent's images. The tag is a hash of everything that goes into them, so it is known before the build, is the same
 * on every machine and never means two things. Nothing is built or pushed by a preview.
 *
 * Cost: the registry is the dearest idle part of the stack (Basic, about 5 USD a month); `prebuilt` has none.
 */
export class AgentImage extends pulumi.ComponentResource {
  readonly agent: pulumi.Output<string>;
  /** Only when the runner is asked for. */
  readonly jellyroller: pulumi.Output<string> | undefined;
  /** The registry to pull from with an identity; none when the images are prebuilt. */
  readonly registry:
    { readonly id: pulumi.Output<string>; readonly loginServer: pulumi.Output<string> } | undefined;

  constructor(name: string, args: AgentImageArgs, opts?: pulumi.ComponentResourceOptions) {
    super(TYPE, name, args, opts);
    if (args.build === 'prebuilt') {
      this.agent = pulumi.output(args.agentImage);
      this.jellyroller =
        args.jellyrollerImage === undefined ? undefined : pulumi.output(args.jellyrollerImage);
      this.registry = undefined;
    } else {
      const registry = createRegistry(name, args, this);
      const build =
        args.build === 'acr-task'
          ? acrTaskBuilder(name, args, registry, this)
          : dockerBuilder(name, args, registry, this);
      this.agent = build({ name: 'agent', args: {} });
      this.jellyroller =
        args.jellyroller === undefined
          ? undefined
          : build({
              name: 'jellyroller',
              args: { JELLYROLLER_SHA256: args.jellyroller.sha256, JELLYROLLER_URL: args.jellyroller.url },
            });
      this.registry = { id: registry.id, loginServer: registry.loginServer };
    }
    this.registerOutputs({ agent: this.agent, jellyroller: this.jellyroller });
  }
}

type Build = (target: ImageTarget) => pulumi.Output<string>;

function createRegistry(
  name: string,
  args: BuiltImageArgs,
  parent: pulumi.Resource,
): containerregistry.Registry {
  return new containerregistry.Registry(
    name,
    {
      resourceGroupName: args.resourceGroupName,
      registryName: args.registryName,
      sku: { name: 'Basic' },
      // The app pulls with its identity; there is no password that could leak.
      adminUserEnabled: false,
      anonymousPullEnabled: false,
    },
    { parent },
  );
}

/** Azure builds: the context goes to a private blob, the run reads it through a SAS for that blob alone. */
function acrTaskBuilder(
  name: string,
  args: BuiltImageArgs,
  registry: containerregistry.Registry,
  parent: pulumi.Resource,
): Build {
  const { resourceGroupName, context, contextAccountName: accountName } = args;
  const container = new storage.BlobContainer(
    `${name}-context`,
    { resourceGroupName, accountName, containerName: CONTEXT_CONTAINER, publicAccess: 'None' },
    { parent },
  );
  const blob = new storage.Blob(
    `${name}-context-archive`,
    {
      resourceGroupName,
      accountName,
      containerName: container.name,
      // The hash is in the name, so a changed context is another blob and not a replaced one.
      blobName: `${context.hash}.tar.gz`,
      source: new pulumi.asset.FileAsset(context.archiveFile),
      contentType: 'application/gzip',
    },
    { parent },
  );
  const sas = storage.listStorageAccountServiceSASOutput(
    {
      resourceGroupName,
      accountName,
      canonicalizedResource: pulumi.interpolate`/blob/${accountName}/${container.name}/${blob.name}`,
      resource: 'b',
      permissions: 'r',
      protocols: 'https',
      ...SAS_WINDOW,
    },
    { parent },
  );
  const sourceLocation = pulumi.secret(pulumi.interpolate`${blob.url}?${sas.serviceSasToken}`);
  return (target) => {
    const tag = imageTag(context, target);
    const image = `${REPOSITORY[target.name]}:${tag}`;
    const run = new containerregistry.TaskRun(
      `${name}-${target.name}`,
      {
        resourceGroupName,
        registryName: registry.name,
        taskRunName: `build-${target.name}`,
        // Another tag runs the task again; the same tag does not.
        forceUpdateTag: tag,
        runRequest: {
          type: 'DockerBuildRequest',
          sourceLocation,
          dockerFilePath: 'Dockerfile',
          target: target.name,
          imageNames: [image],
          isPushEnabled: true,
          platform: { os: 'Linux', architecture: 'amd64' },
          arguments: Object.entries(target.args).map(([key, value]) => ({
            name: key,
            value,
            isSecret: false,
          })),
          agentConfiguration: { cpu: 2 },
          timeout: 900,
        },
      },
      { parent },
    );
    return pulumi.all([registry.loginServer, run.runResult]).apply(([loginServer, result]) => {
      // `up` reports a failed run as created; the app must not be pointed at an image that is not there.
      if (/^(?:Failed|Canceled|Error|Timeout)$/.test(result.status ?? '')) {
        const logs = `az acr task logs --registry ${loginServer} --run-id ${result.runId ?? ''}`;
        throw new pulumi.ResourceError(
          `build image ${image} ended with ${result.status ?? ''}; see: ${logs}`,
          parent,
        );
      }
      return `${loginServer}/${image}`;
    });
  };
}

/** The Docker daemon of this machine builds and pushes; it must be signed in to the registry (`az acr login`). */
function dockerBuilder(
  name: string,
  args: BuiltImageArgs,
  registry: containerregistry.Registry,
  parent: pulumi.Resource,
): Build {
  return (target) => {
    const image = `${REPOSITORY[target.name]}:${imageTag(args.context, target)}`;
    const tag = pulumi.interpolate`${registry.loginServer}/${image}`;
    const built = new dockerBuild.Image(
      `${name}-${target.name}`,
      {
        context: { location: args.context.directory },
        dockerfile: { location: `${args.context.directory}/Dockerfile` },
        target: target.name,
        buildArgs: target.args,
        platforms: ['linux/amd64'],
        tags: [tag],
        push: true,
        // The default is true, and then a preview on a pull request would build.
        buildOnPreview: false,
      },
      { parent, retainOnDelete: true },
    );
    return pulumi.all([tag, built.digest]).apply(([text]) => text);
  };
}
