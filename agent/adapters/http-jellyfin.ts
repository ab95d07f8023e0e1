import { randomUUID } from 'node:crypto';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { AgentError, messageOf } from '../errors.ts';
import type { JellyfinHealth, JellyfinKeys, JellyfinServer, JellyfinSetup, ServerApiKey } from '../ports.ts';
import { Secret } from '../secret.ts';

const TIMEOUT_MS = 5_000;
const MAX_BODY_BYTES = 1024 * 1024;
/** Refused, or the name does not resolve: nobody listens there. */
const NOBODY = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

function isNobody(error: unknown): boolean {
  // `localhost` is tried on both address families: one error each.
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isNobody);
  return NOBODY.has((error as NodeJS.ErrnoException).code ?? '');
}

interface HttpAnswer {
  status: number;
  body: string;
}

interface HttpQuestion {
  method: 'GET' | 'POST' | 'DELETE';
  body?: unknown;
  /** The token of a session or an API key. */
  token?: Secret;
  /** Only signing in tells devices apart. */
  deviceId?: string;
}

/** All four fields are required to sign in (facts/jellyfin.md 6.1); 12 knows no other header for the token. */
function authorizationOf({ token, deviceId = 'agent' }: HttpQuestion): string {
  const client = `MediaBrowser Client="agent", Device="agent", DeviceId="${deviceId}", Version="1.0.0"`;
  return token === undefined ? client : `${client}, Token="${token.reveal()}"`;
}

/** `fetch` would refuse some ports by its own list (the "bad ports" of the web), and keep connections open. */
function ask(url: string, question: HttpQuestion, signal: AbortSignal): Promise<HttpAnswer> {
  const { method, body } = question;
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = {
    authorization: authorizationOf(question),
    // A POST without a body still says so; some proxies answer 411 otherwise.
    ...(method === 'POST' ? { 'content-length': payload?.byteLength ?? 0 } : {}),
    ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
  };
  return new Promise((resolve, reject) => {
    const request = send(url, { agent: false, method, headers, signal }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > MAX_BODY_BYTES) response.destroy(new Error('answer too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: text });
      });
    });
    request.on('error', reject);
    request.end(payload);
  });
}

export class HttpJellyfin implements JellyfinServer, JellyfinSetup, JellyfinKeys {
  readonly #baseUrl: string;

  /** @param baseUrl With the server's BaseUrl if it has one, without a trailing slash. */
  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl;
  }

  async health(signal?: AbortSignal): Promise<JellyfinHealth> {
    try {
      const { status, body } = await this.#get('/health', signal);
      return status === 200 && body.trim() === 'Healthy' ? 'healthy' : 'starting';
    } catch (error) {
      return isNobody(error) ? 'refused' : 'starting';
    }
  }

  async publicInfo(signal?: AbortSignal): Promise<{ version: string; serverId: string } | undefined> {
    try {
      const { status, body } = await this.#get('/System/Info/Public', signal);
      if (status !== 200) return undefined;
      const { Version, Id } = JSON.parse(body) as { Version?: unknown; Id?: unknown };
      return typeof Version === 'string' && typeof Id === 'string'
        ? { version: Version, serverId: Id }
        : undefined;
    } catch {
      // No answer, and an answer that is not JSON, say the same: not known now. The backup goes on without a version.
      return undefined;
    }
  }

  async wizardCompleted(signal?: AbortSignal): Promise<boolean | undefined> {
    const { status, body } = await this.#get('/System/Info/Public', signal);
    if (status !== 200) return undefined;
    const { StartupWizardCompleted } = JSON.parse(body) as { StartupWizardCompleted?: unknown };
    return typeof StartupWizardCompleted === 'boolean' ? StartupWizardCompleted : undefined;
  }

  async createAdministrator(
    admin: { name: string; password: Secret },
    signal?: AbortSignal,
  ): Promise<boolean> {
    const server = {
      ServerName: 'Jellyfin',
      UICulture: 'en-US',
      MetadataCountryCode: 'US',
      PreferredMetadataLanguage: 'en',
    };
    await this.#post('/Startup/Configuration', server, signal);
    // Asking for the first user creates it: without this the next call answers 404 (facts/jellyfin.md 6.1).
    await this.#get('/Startup/User', signal);
    const user = { Name: admin.name, Password: admin.password.reveal() };
    const { status } = await this.#request('/Startup/User', { method: 'POST', body: user }, signal);
    if (status !== 204 && status !== 200 && status !== 403) throw failed('POST /Startup/User', status);
    // The second field is required up to 10.11 and unknown to 12.
    const remote = { EnableRemoteAccess: true, EnableAutomaticPortMapping: false };
    await this.#post('/Startup/RemoteAccess', remote, signal);
    return status !== 403;
  }

  async canSignIn(admin: { name: string; password: Secret }, signal?: AbortSignal): Promise<boolean> {
    const body = { Username: admin.name, Pw: admin.password.reveal() };
    const { status } = await this.#request('/Users/AuthenticateByName', { method: 'POST', body }, signal);
    return status === 200;
  }

  async libraryNames(signal?: AbortSignal): Promise<string[]> {
    const { status, body } = await this.#get('/Library/VirtualFolders', signal);
    if (status !== 200) throw failed('GET /Library/VirtualFolders', status);
    return (JSON.parse(body) as { Name?: string }[]).map((folder) => folder.Name ?? '');
  }

  async addLibrary({ name, path }: { name: string; path: string }, signal?: AbortSignal): Promise<void> {
    const query = new URLSearchParams({ name, paths: path, refreshLibrary: 'true' });
    await this.#post(`/Library/VirtualFolders?${query.toString()}`, { LibraryOptions: {} }, signal);
  }

  async finishWizard(signal?: AbortSignal): Promise<void> {
    await this.#post('/Startup/Complete', undefined, signal);
  }

  async signIn(admin: { name: string; password: Secret }, signal?: AbortSignal): Promise<Secret> {
    const call = 'POST /Users/AuthenticateByName';
    const body = { Username: admin.name, Pw: admin.password.reveal() };
    // A second sign-in with one device id ends the first session: two containers that do so at a time need two.
    const question: HttpQuestion = { method: 'POST', body, deviceId: `agent-${randomUUID()}` };
    const { status, body: text } = await this.#asked('/Users/AuthenticateByName', question, signal);
    // 401 a wrong name or password, 403 a user that is disabled or may not sign in from here.
    if (status === 401 || status === 403) {
      throw new AgentError(
        'external_failed',
        `the server refuses the administrator: ${call} answered ${String(status)}`,
        {
          hint: 'name and password must be those of an administrator of this server; a restored server has those of its backup',
        },
      );
    }
    if (status !== 200) throw failed(call, status);
    const { AccessToken } = parsed(call, text) as { AccessToken?: unknown };
    if (typeof AccessToken !== 'string' || AccessToken === '') throw notUnderstood(call);
    return new Secret(AccessToken);
  }

  async signOut(session: Secret, signal?: AbortSignal): Promise<void> {
    const { status } = await this.#asked('/Sessions/Logout', { method: 'POST', token: session }, signal);
    if (!isDone(status) && status !== 401) throw failed('POST /Sessions/Logout', status);
  }

  async apiKeys(session: Secret, signal?: AbortSignal): Promise<ServerApiKey[]> {
    const call = 'GET /Auth/Keys';
    const { status, body } = await this.#asked('/Auth/Keys', { method: 'GET', token: session }, signal);
    if (status !== 200) throw refusedOrFailed(call, status);
    const { Items } = parsed(call, body) as { Items?: unknown };
    if (!Array.isArray(Items)) throw notUnderstood(call);
    return (Items as { AppName?: unknown; AccessToken?: unknown }[]).flatMap(({ AppName, AccessToken }) =>
      typeof AppName === 'string' && typeof AccessToken === 'string' && AccessToken !== ''
        ? [{ appName: AppName, token: new Secret(AccessToken) }]
        : [],
    );
  }

  async createApiKey(session: Secret, appName: string, signal?: AbortSignal): Promise<void> {
    const path = `/Auth/Keys?app=${encodeURIComponent(appName)}`;
    const { status } = await this.#asked(path, { method: 'POST', token: session }, signal);
    if (!isDone(status)) throw refusedOrFailed('POST /Auth/Keys', status);
  }

  async deleteApiKey(session: Secret, key: Secret, signal?: AbortSignal): Promise<void> {
    const path = `/Auth/Keys/${encodeURIComponent(key.reveal())}`;
    const { status } = await this.#asked(path, { method: 'DELETE', token: session }, signal);
    if (!isDone(status) && status !== 404) throw refusedOrFailed('DELETE /Auth/Keys', status);
  }

  async isKeyValid(key: Secret, signal?: AbortSignal): Promise<boolean> {
    // One of the calls that are closed to others also while the wizard is open.
    const { status } = await this.#asked('/Auth/Keys', { method: 'GET', token: key }, signal);
    if (status === 200) return true;
    if (status === 401 || status === 403) return false;
    throw failed('GET /Auth/Keys', status);
  }

  /** As `#request`; no answer is an `AgentError`. */
  async #asked(path: string, question: HttpQuestion, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    try {
      return await this.#request(path, question, signal);
    } catch (error) {
      signal?.throwIfAborted();
      const why = messageOf(error);
      throw new AgentError(
        'jellyfin_unavailable',
        `${question.method} ${path.split('/', 3).join('/').split('?')[0] ?? ''}: ${why}`,
        {
          cause: error,
          retryable: true,
        },
      );
    }
  }

  async #post(path: string, body: unknown, signal: AbortSignal | undefined): Promise<void> {
    const { status } = await this.#request(path, { method: 'POST', body }, signal);
    if (!isDone(status)) throw failed(`POST ${path.split('?')[0] ?? ''}`, status);
  }

  #get(path: string, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    return this.#request(path, { method: 'GET' }, signal);
  }

  #request(path: string, question: HttpQuestion, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
    return ask(`${this.#baseUrl}${path}`, question, either);
  }
}

/** The answer's body is not repeated: it may hold what was sent. */
function failed(call: string, status: number): AgentError {
  return new AgentError('jellyfin_unavailable', `${call} answered ${String(status)}`, { retryable: true });
}

const isDone = (status: number): boolean => status === 200 || status === 204;

/** 401: the session is gone, which a new one mends. 403: whoever signed in is no administrator, which stays so. */
function refusedOrFailed(call: string, status: number): AgentError {
  if (status !== 403) return failed(call, status);
  return new AgentError('external_failed', `${call} answered 403`, {
    hint: 'the user that signs in must be an administrator of this server',
  });
}

/** Something else than Jellyfin answers, or it is restarting behind a proxy. */
function notUnderstood(call: string): AgentError {
  return new AgentError('jellyfin_unavailable', `${call} answered something else than Jellyfin does`, {
    retryable: true,
  });
}

function parsed(call: string, body: string): object {
  try {
    const value = JSON.parse(body) as unknown;
    if (typeof value === 'object' && value !== null) return value;
  } catch {
    // Falls through: the text itself may hold a token and is not repeated.
  }
  throw notUnderstood(call);
}
