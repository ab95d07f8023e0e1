import type { IncomingMessage } from 'node:http';
import { readCredentials, type Credentials } from './credentials.ts';
import { HttpError } from './http-error.ts';
import { text, type ApiResult, type HttpHandler } from './http-listener.ts';
import { ApiRequest, lowerCaseNames, readBody } from './http-request.ts';
import type { Log } from './log.ts';
import type { Caller, Sessions } from './sessions.ts';

/** `setup-or-…`: anyone while the wizard has not been completed. An API key is an administrator. */
export type Access = 'anyone' | 'user' | 'admin' | 'setup-or-user' | 'setup-or-admin';

export interface Route {
  method: string;
  segments: readonly string[];
  access: Access;
  run: (request: ApiRequest) => Promise<ApiResult> | ApiResult;
}

/** `pattern` is a path in which `{name}` stands for one segment. */
export function route(method: string, pattern: string, access: Access, run: Route['run']): Route {
  return { method, segments: segmentsOf(pattern), access, run };
}

export interface RouterRules {
  sessions: Sessions;
  isWizardCompleted: () => boolean;
  isLegacyAllowed: boolean;
  log: Log;
}

export function createRouter(routes: readonly Route[], rules: RouterRules): HttpHandler {
  return async (request, url) => {
    try {
      const { found, params } = match(routes, request.method ?? 'GET', url.pathname);
      const credentials = credentialsOf(request, url, rules.isLegacyAllowed);
      const caller = credentials.token === undefined ? undefined : rules.sessions.callerOf(credentials.token);
      admit(found.access, caller, rules.isWizardCompleted());
      const contentType = request.headers['content-type'] ?? '';
      const body = await readBody(request);
      return await found.run(new ApiRequest({ caller, credentials, params, url, contentType, body }));
    } catch (error) {
      if (error instanceof HttpError) return text(error.message, error.status);
      rules.log.error(`Error processing request. URL ${request.method} ${url.pathname}`, error);
      return text('Error processing request.', 500);
    }
  };
}

function match(
  routes: readonly Route[],
  method: string,
  pathname: string,
): { found: Route; params: ReadonlyMap<string, string> } {
  const parts = segmentsOf(pathname).map(decodePart);
  const sameShape = routes.filter((candidate) => matches(candidate.segments, parts));
  if (sameShape.length === 0) throw new HttpError(404, 'Not Found');
  const found = sameShape.find((candidate) => candidate.method === (method === 'HEAD' ? 'GET' : method));
  if (!found) throw new HttpError(405, 'Method Not Allowed');
  const named = found.segments.flatMap((segment, index) =>
    segment.startsWith('{') ? [[segment.slice(1, -1), parts[index] ?? ''] as const] : [],
  );
  return { found, params: new Map(named) };
}

const segmentsOf = (path: string): string[] => path.replace(/\/+$/, '').split('/').slice(1);

function matches(segments: readonly string[], parts: readonly string[]): boolean {
  return (
    segments.length === parts.length &&
    segments.every(
      (segment, index) => segment.startsWith('{') || segment.toLowerCase() === parts[index]?.toLowerCase(),
    )
  );
}

function admit(access: Access, caller: Caller | undefined, isWizardCompleted: boolean): void {
  if (access === 'anyone' || (access.startsWith('setup-or-') && !isWizardCompleted)) return;
  if (!caller) throw new HttpError(401, '');
  if (access.endsWith('admin') && !caller.isAdministrator) throw new HttpError(403, '');
}

function credentialsOf(request: IncomingMessage, url: URL, isLegacyAllowed: boolean): Credentials {
  const query = lowerCaseNames(url.searchParams);
  const header = (name: string): string | undefined => {
    const value = request.headers[name];
    return Array.isArray(value) ? value[0] : value;
  };
  return readCredentials({ header, query: (name) => query.get(name) ?? undefined }, isLegacyAllowed);
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch (error) {
    if (error instanceof URIError) throw new HttpError(400, 'Bad Request');
    throw error;
  }
}
