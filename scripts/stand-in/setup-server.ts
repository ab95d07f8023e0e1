import { withoutBaseUrl } from './base-url.ts';
import { HttpListener, html, json, text, type ApiResult } from './http-listener.ts';

export interface SetupInfo {
  id: string;
  serverName: string;
  version: string;
}

interface State {
  info: SetupInfo | undefined;
  hasFailed: boolean;
}

const RETRY = { 'retry-after': '005' };

/**
 * The face of the server while it starts. Two of its answers mislead a careless client: `/health` is 200, and
 * `/System/Info/Public` says that the wizard has not been completed, whatever the truth is.
 */
export class SetupServer {
  readonly #listener: HttpListener;
  readonly #state: State;

  private constructor(listener: HttpListener, state: State) {
    this.#listener = listener;
    this.#state = state;
  }

  static async open(port: number, baseUrl: string): Promise<SetupServer> {
    const state: State = { info: undefined, hasFailed: false };
    const listener = await HttpListener.open(port, (_request, url) =>
      respond(withoutBaseUrl(url.pathname, baseUrl).toLowerCase(), state),
    );
    return new SetupServer(listener, state);
  }

  get port(): number {
    return this.#listener.port;
  }

  /** From now on the server can say who it is. */
  introduce(info: SetupInfo): void {
    this.#state.info = info;
  }

  fail(): void {
    this.#state.hasFailed = true;
  }

  close(): Promise<void> {
    return this.#listener.close(0);
  }
}

function respond(path: string, { info, hasFailed }: State): ApiResult {
  if (path === '/health') return hasFailed ? text('Unhealthy', 503) : text('Degraded');
  if (path === '/system/info/public' && info) {
    // Camel case, unlike the main server: this answer is written past its JSON settings.
    return json({
      localAddress: null,
      serverName: info.serverName,
      version: info.version,
      productName: 'Jellyfin Server',
      operatingSystem: '',
      id: info.id,
      startupWizardCompleted: false,
    });
  }
  const state = hasFailed ? 'Jellyfin could not start. See the log.' : 'Jellyfin is starting.';
  return { ...html(`<!doctype html><title>Jellyfin Startup</title><p>${state}</p>`, 503), headers: RETRY };
}
