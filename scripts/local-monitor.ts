/** The two services that a Pulumi program talks to, answered from memory. */
import type { UntypedHandleCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js';
import { status } from '@grpc/grpc-js';
import engineProto from '@pulumi/pulumi/proto/engine_pb.js';
import providerProto from '@pulumi/pulumi/proto/provider_pb.js';
import resourceProto from '@pulumi/pulumi/proto/resource_pb.js';
import emptyProto from 'google-protobuf/google/protobuf/empty_pb.js';
import structProto from 'google-protobuf/google/protobuf/struct_pb.js';
import { createdState, invokeResult, type Properties } from './azure-stand-in.ts';
import { isSecretValue, reveal, secretValue } from './wire-values.ts';

/** One resource as the program registered it. */
export interface RecordedResource {
  readonly urn: string;
  readonly type: string;
  readonly name: string;
  /** False for a component. */
  readonly custom: boolean;
  /** URN; the stack's for a root resource. */
  readonly parent: string;
  readonly protect: boolean;
  readonly dependencies: readonly string[];
  readonly retainOnDelete: boolean;
  /** As on the wire: secrets are wrapped; see `reveal` and `mask` of the local engine. */
  readonly inputs: Readonly<Properties>;
  readonly id: string;
}

export interface MonitorState {
  readonly project: string;
  readonly stack: string;
  readonly recorded: RecordedResource[];
  readonly outputs: Properties;
}

const STACK_TYPE = 'pulumi:pulumi:Stack';

/** Answers of the resource monitor. What is not here is answered UNIMPLEMENTED, and the SDK does without. */
export function monitorHandlers(state: MonitorState): UntypedServiceImplementation {
  const handlers: Record<string, UntypedHandleCall> = {
    supportsFeature: unary((request: InstanceType<typeof resourceProto.SupportsFeatureRequest>) => {
      const response = new resourceProto.SupportsFeatureResponse();
      response.setHassupport(request.getId() === 'secrets');
      return response;
    }),
    invoke: unary((request: InstanceType<typeof resourceProto.ResourceInvokeRequest>) => {
      const response = new providerProto.InvokeResponse();
      const args = (request.getArgs()?.toJavaScript() ?? {}) as Properties;
      response.setReturn(
        structProto.Struct.fromJavaScript(
          invokeResult(request.getTok(), reveal(args) as Properties) as never,
        ),
      );
      return response;
    }),
    registerResource: unary((request: InstanceType<typeof resourceProto.RegisterResourceRequest>) =>
      register(state, request),
    ),
    registerResourceOutputs: unary(
      (request: InstanceType<typeof resourceProto.RegisterResourceOutputsRequest>) => {
        if (request.getUrn().includes(`::${STACK_TYPE}::`))
          Object.assign(state.outputs, request.getOutputs()?.toJavaScript() ?? {});
        return new emptyProto.Empty();
      },
    ),
    signalAndWaitForShutdown: unary(() => new emptyProto.Empty()),
  };
  return handlers;
}

/** Answers of the engine: it keeps what the program logs. */
export function engineHandlers(logs: string[]): UntypedServiceImplementation {
  let root = '';
  const handlers: Record<string, UntypedHandleCall> = {
    log: unary((request: InstanceType<typeof engineProto.LogRequest>) => {
      if (request.getSeverity() > engineProto.LogSeverity.DEBUG) logs.push(request.getMessage());
      return new emptyProto.Empty();
    }),
    getRootResource: unary(() => {
      const response = new engineProto.GetRootResourceResponse();
      response.setUrn(root);
      return response;
    }),
    setRootResource: unary((request: InstanceType<typeof engineProto.SetRootResourceRequest>) => {
      root = request.getUrn();
      return new engineProto.SetRootResourceResponse();
    }),
  };
  return handlers;
}

function register(state: MonitorState, request: InstanceType<typeof resourceProto.RegisterResourceRequest>) {
  const [type, name, parent] = [request.getType(), request.getName(), request.getParent()];
  const inputs = (request.getObject()?.toJavaScript() ?? {}) as Properties;
  const urn = urnOf(state, type, name, parent);
  if (state.recorded.some((other) => other.urn === urn))
    throw new Error(`register ${urn} failed: the URN is taken`);
  const created = request.getCustom()
    ? createdState(type, name, reveal(inputs) as Properties)
    : { id: '', state: {} };
  if (type !== STACK_TYPE) {
    state.recorded.push({
      urn,
      type,
      name,
      custom: request.getCustom(),
      parent,
      protect: request.getProtect() === true,
      dependencies: request.getDependenciesList(),
      retainOnDelete: request.getRetainondelete() === true,
      inputs,
      id: created.id,
    });
  }
  const response = new resourceProto.RegisterResourceResponse();
  response.setUrn(urn);
  response.setId(created.id);
  const outputs = withSecrets(created.state, inputs, request.getAdditionalsecretoutputsList());
  response.setObject(structProto.Struct.fromJavaScript(outputs as never));
  return response;
}

/** What was secret on the way in is secret on the way out, as with the real engine. */
function withSecrets(state: Properties, inputs: Properties, additional: readonly string[]): Properties {
  return Object.fromEntries(
    Object.entries(state).map(([key, value]) => [
      key,
      containsSecret(inputs[key]) || additional.includes(key) ? secretValue(value) : value,
    ]),
  );
}

function containsSecret(value: unknown): boolean {
  if (isSecretValue(value)) return true;
  return typeof value === 'object' && value !== null && Object.values(value).some(containsSecret);
}

function urnOf({ project, stack }: MonitorState, type: string, name: string, parent: string): string {
  const parentType = parent.split('::')[2];
  const qualified = parentType === undefined || parentType === STACK_TYPE ? type : `${parentType}$${type}`;
  return `urn:pulumi:${stack}::${project}::${qualified}::${name}`;
}

function unary(answer: (request: never) => unknown): UntypedHandleCall {
  return ((call: { request: never }, callback: sendUnaryData<unknown>) => {
    try {
      callback(null, answer(call.request));
    } catch (error) {
      callback({
        code: status.INVALID_ARGUMENT,
        details: error instanceof Error ? error.message : String(error),
      });
    }
  }) as unknown as UntypedHandleCall;
}
