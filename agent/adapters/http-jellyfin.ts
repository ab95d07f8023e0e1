import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { AgentError } from '../errors.ts';
import type { JellyfinHealth, JellyfinServer, JellyfinSetup } from '../ports.ts';
import type { Secret } from '../secret.ts';

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
  method: 'GET' | 'POST';
  body?: unknown;
}

/** `fetch` would refuse some ports by its own list (the "bad ports" of the web), and keep connections open. */
function ask(url: string, { method, body }: HttpQuestion, signal: AbortSignal): Promise<HttpAnswer> {
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = {
    authorization: 'MediaBrowser Client="agent", Device="agent", DeviceId="agent", Version="1.0.0"',
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

export class HttpJellyfin implements JellyfinServer, JellyfinSetup {
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

  async #post(path: string, body: unknown, signal: AbortSignal | undefined): Promise<void> {
    const { status } = await this.#request(path, { method: 'POST', body }, signal);
    if (status !== 204 && status !== 200) throw failed(`POST ${path.split('?')[0] ?? ''}`, status);
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
