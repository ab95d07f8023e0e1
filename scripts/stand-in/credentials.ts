/** What a request says about its sender: `MediaBrowser Client="…", Device="…", DeviceId="…", Version="…", Token="…"`. */
export interface Credentials {
  client?: string;
  device?: string;
  deviceId?: string;
  version?: string;
  token?: string;
}

interface Source {
  header(name: string): string | undefined;
  query(name: string): string | undefined;
}

/** Legacy forms are the headers and the parameter that 12.0 switches off. */
export function readCredentials(request: Source, isLegacyAllowed: boolean): Credentials {
  const authorization = request.header('authorization');
  const legacy = isLegacyAllowed ? request.header('x-emby-authorization') : undefined;
  const fields = parseFields(authorization ?? legacy ?? '', isLegacyAllowed);
  const token =
    fields.token ??
    (isLegacyAllowed
      ? (request.header('x-emby-token') ?? request.header('x-mediabrowser-token'))
      : undefined) ??
    request.query('apikey') ??
    (isLegacyAllowed ? request.query('api_key') : undefined);
  return {
    ...(fields.client && { client: fields.client }),
    ...(fields.device && { device: fields.device }),
    ...(fields.deviceid && { deviceId: fields.deviceid }),
    ...(fields.version && { version: fields.version }),
    ...(token && { token }),
  };
}

function parseFields(header: string, isLegacyAllowed: boolean): Record<string, string | undefined> {
  const [, scheme = '', rest = ''] = /^\s*(\S+)\s+(.*)$/s.exec(header) ?? [];
  const isKnown = /^mediabrowser$/i.test(scheme) || (isLegacyAllowed && /^emby$/i.test(scheme));
  if (!isKnown) return {};
  const pairs = [...rest.matchAll(/(\w+)\s*=\s*(?:"([^"]*)"|([^,\s]*))/g)];
  return Object.fromEntries(
    pairs.map(([, name = '', quoted, bare]) => [name.toLowerCase(), decode(quoted ?? bare ?? '')]),
  );
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    // A percent sign that starts no escape is part of the name.
    if (error instanceof URIError) return text;
    throw error;
  }
}
