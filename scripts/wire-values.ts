/** Values as they cross the wire between the SDK and an engine: plain JSON in which secrets are wrapped objects. */

// sdk/nodejs/runtime/rpc.ts: specialSigKey, specialSecretSig, unknownValue.
const SIGNATURE = '4dabf18193072939515e22adb298388d';
const SECRET_SIGNATURE = '1b47061264138c4ac30d75fd1eb44270';
const UNKNOWN = '04da6b54-80e4-46f7-96ec-b56ff0331ba9';

/** True for a value that the SDK marked as secret. */
export function isSecretValue(value: unknown): value is { value: unknown } {
  return isObject(value) && value[SIGNATURE] === SECRET_SIGNATURE;
}

/** Marks a value as secret, as a provider's secret output is. */
export function secretValue(value: unknown): object {
  return { [SIGNATURE]: SECRET_SIGNATURE, value };
}

/** The value with every secret opened, however deep. For whoever runs the spec; never for a log. */
export function reveal(value: unknown): unknown {
  return transform(value, (secret) => secret);
}

/** The value with every secret replaced by `mask`. */
export function mask(value: unknown, text = '[secret]'): unknown {
  return transform(value, () => text);
}

/** True when the value is, or contains, something that only a real update would know. */
export function hasUnknown(value: unknown): boolean {
  if (value === UNKNOWN) return true;
  if (Array.isArray(value)) return value.some(hasUnknown);
  return isObject(value) && Object.values(value).some(hasUnknown);
}

function transform(value: unknown, onSecret: (value: unknown) => unknown): unknown {
  if (isSecretValue(value)) return onSecret(transform(value.value, onSecret));
  if (Array.isArray(value)) return value.map((item) => transform(item, onSecret));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, transform(item, onSecret)]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
