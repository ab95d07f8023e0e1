import { randomUUID } from 'node:crypto';
import { AgentError, messageOf } from '../errors.ts';
import type { JellyfinHealth, JellyfinKeys, JellyfinServer, JellyfinSetup, ServerApiKey } from '../ports.ts';
import type { Library, MediaFolder, NewLibrary } from '../libraries.ts';
import { Secret } from '../secret.ts';
import { ask, isNobody, type HttpAnswer, type HttpQuestion } from './http-exchange.ts';

const TIMEOUT_MS = 5_000;
const SLOW_TIMEOUT_MS = 30_000;
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
    const call = 'GET /System/Info/Public';
    const { status, body } = await this.#asked('/System/Info/Public', { method: 'GET' }, signal);
    if (status !== 200) return undefined;
    const { StartupWizardCompleted } = parsed(call, body) as { StartupWizardCompleted?: unknown };
    return typeof StartupWizardCompleted === 'boolean' ? StartupWizardCompleted : undefined;
  }

  async createAdministrator(
    admin: { name: string; password: Secret },
    signal?: AbortSignal,
  ): Promise<boolean> {
    // Asking for the first user creates it: without this the next call answers 404 (facts/jellyfin.md 6.1).
    const first = await this.#asked('/Startup/User', { method: 'GET' }, signal);
    if (first.status !== 200) throw failed('GET /Startup/User', first.status);
    const body = { Name: admin.name, Password: admin.password.reveal() };
    const { status } = await this.#asked('/Startup/User', { method: 'POST', body }, signal);
    if (status === 403) return false;
    if (!isDone(status)) throw failed('POST /Startup/User', status);
    return true;
  }

  async finishWizard(signal?: AbortSignal): Promise<void> {
    await this.#post('/Startup/Complete', {}, signal);
  }

  async configureServer(token: Secret, signal?: AbortSignal): Promise<void> {
    const server = {
      ServerName: 'Jellyfin',
      UICulture: 'en-US',
      MetadataCountryCode: 'US',
      PreferredMetadataLanguage: 'en',
    };
    await this.#post('/Startup/Configuration', { token, body: server }, signal);
    // The second field is required up to 10.11 and unknown to 12.
    const remote = { EnableRemoteAccess: true, EnableAutomaticPortMapping: false };
    await this.#post('/Startup/RemoteAccess', { token, body: remote }, signal);
  }

  async folders(token: Secret, path: string, signal?: AbortSignal): Promise<MediaFolder[]> {
    const query = new URLSearchParams({ path, includeDirectories: 'true', includeFiles: 'false' });
    const entries = await this.#list(`/Environment/DirectoryContents?${query.toString()}`, token, signal);
    return (entries as { Name?: unknown; Path?: unknown }[]).flatMap(({ Name, Path }) =>
      typeof Name === 'string' && typeof Path === 'string' ? [{ name: Name, path: Path }] : [],
    );
  }

  async libraries(token: Secret, signal?: AbortSignal): Promise<Library[]> {
    const entries = await this.#list('/Library/VirtualFolders', token, signal);
    return (entries as { Name?: string; Locations?: string[] }[]).map(({ Name, Locations }) => ({
      name: Name ?? '',
      paths: Locations ?? [],
    }));
  }

  async addLibrary(token: Secret, { name, type, paths }: NewLibrary, signal?: AbortSignal): Promise<void> {
    const query = new URLSearchParams({
      name,
      refreshLibrary: 'true',
      ...(type !== undefined && { collectionType: type }),
    });
    for (const path of paths) query.append('paths', path);
    // Each location is looked at first, on a share that may be slow.
    const question = { token, body: { LibraryOptions: {} }, timeoutMs: SLOW_TIMEOUT_MS };
    await this.#post(`/Library/VirtualFolders?${query.toString()}`, question, signal);
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
      throw new AgentError(
        'jellyfin_unavailable',
        `${question.method} ${nameOf(path)}: ${messageOf(error)}`,
        { cause: error, retryable: true },
      );
    }
  }

  async #post(
    path: string,
    question: Omit<HttpQuestion, 'method'>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { status } = await this.#asked(path, { ...question, method: 'POST' }, signal);
    if (!isDone(status)) throw refusedOrFailed(`POST ${nameOf(path)}`, status);
  }

  async #list(path: string, token: Secret, signal: AbortSignal | undefined): Promise<unknown[]> {
    const call = `GET ${nameOf(path)}`;
    const { status, body } = await this.#asked(path, { method: 'GET', token }, signal);
    if (status !== 200) throw refusedOrFailed(call, status);
    const list = parsed(call, body);
    if (!Array.isArray(list)) throw notUnderstood(call);
    return list as unknown[];
  }

  #get(path: string, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    return this.#request(path, { method: 'GET' }, signal);
  }

  #request(path: string, question: HttpQuestion, signal: AbortSignal | undefined): Promise<HttpAnswer> {
    const timeout = AbortSignal.timeout(question.timeoutMs ?? TIMEOUT_MS);
    const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
    return ask(`${this.#baseUrl}${path}`, question, either);
  }
}

/** The answer's body is not repeated: it may hold what was sent. */
function failed(call: string, status: number): AgentError {
  return new AgentError('jellyfin_unavailable', `${call} answered ${String(status)}`, { retryable: true });
}

/** The first two parts of a path: what follows may be an argument, or a key. */
const nameOf = (path: string): string => (path.split('?')[0] ?? '').split('/', 3).join('/');

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
