import { setTimeout as sleep } from 'node:timers/promises';

const CLIENT = 'MediaBrowser Client="stand", Device="stand", DeviceId="stand-1", Version="1.0.0"';

export interface PublicInfo {
  Id: string;
  ServerName: string;
  Version: string;
  StartupWizardCompleted: boolean;
}

/** A person at a browser: the calls that Jellyfin's own web client makes (facts/jellyfin.md 6.1). */
export class JellyfinClient {
  readonly #baseUrl: string;
  #token: string | undefined;

  constructor(baseUrl: string, token?: string) {
    this.#baseUrl = baseUrl;
    this.#token = token;
  }

  /** A device token: it stays valid over a restore, since it is a row of the database. */
  get token(): string | undefined {
    return this.#token;
  }

  /** @throws When the server is not `Healthy` in time. */
  async waitHealthy(timeoutMs = 120_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (Date.now() < deadline) {
      const body = await fetch(`${this.#baseUrl}/health`, { signal: AbortSignal.timeout(2_000) }).then(
        (response) => response.text(),
        () => '',
      );
      if (body.trim() === 'Healthy') return;
      await sleep(100);
    }
    throw new Error(`Jellyfin was not healthy within ${String(timeoutMs)} ms`);
  }

  async publicInfo(): Promise<PublicInfo> {
    return (await this.#call('GET', '/System/Info/Public')) as PublicInfo;
  }

  async completeWizard(name: string, password: string): Promise<void> {
    await this.#call('POST', '/Startup/Configuration', {
      ServerName: 'stand',
      UICulture: 'en-US',
      MetadataCountryCode: 'US',
      PreferredMetadataLanguage: 'en',
    });
    await this.#call('GET', '/Startup/User');
    await this.#call('POST', '/Startup/User', { Name: name, Password: password });
    await this.#call('POST', '/Startup/RemoteAccess', {
      EnableRemoteAccess: true,
      EnableAutomaticPortMapping: false,
    });
    await this.#call('POST', '/Startup/Complete');
  }

  async logIn(name: string, password: string): Promise<string> {
    this.#token = undefined;
    const answer = (await this.#call('POST', '/Users/AuthenticateByName', {
      Username: name,
      Pw: password,
    })) as {
      AccessToken: string;
      User: { Id: string };
    };
    this.#token = answer.AccessToken;
    return answer.User.Id;
  }

  async createApiKey(app: string): Promise<void> {
    await this.#call('POST', `/Auth/Keys?app=${encodeURIComponent(app)}`);
  }

  async apiKeys(): Promise<string[]> {
    const { Items } = (await this.#call('GET', '/Auth/Keys')) as {
      Items: { AppName: string; AccessToken: string }[];
    };
    return Items.map((key) => `${key.AppName}:${key.AccessToken}`).sort();
  }

  async addLibrary(name: string, path: string): Promise<void> {
    const query = new URLSearchParams({
      name,
      collectionType: 'movies',
      paths: path,
      refreshLibrary: 'true',
    });
    await this.#call('POST', `/Library/VirtualFolders?${query.toString()}`, { LibraryOptions: {} });
  }

  async libraries(): Promise<string[]> {
    return ((await this.#call('GET', '/Library/VirtualFolders')) as { Name: string }[])
      .map((folder) => folder.Name)
      .sort();
  }

  async userNames(): Promise<string[]> {
    return ((await this.#call('GET', '/Users')) as { Name: string }[]).map((user) => user.Name).sort();
  }

  async movies(userId: string): Promise<{ id: string; name: string }[]> {
    const query = new URLSearchParams({ recursive: 'true', includeItemTypes: 'Movie', userId });
    const { Items } = (await this.#call('GET', `/Items?${query.toString()}`)) as {
      Items: { Id: string; Name: string }[];
    };
    return Items.map(({ Id, Name }) => ({ id: Id, name: Name })).sort((a, b) => a.name.localeCompare(b.name));
  }

  async addUser(name: string, password: string): Promise<void> {
    await this.#call('POST', '/Users/New', { Name: name, Password: password });
  }

  async markPlayed(userId: string, itemId: string): Promise<void> {
    await this.#call('POST', `/UserPlayedItems/${itemId}?userId=${userId}`);
  }

  async isPlayed(userId: string, itemId: string): Promise<boolean> {
    const { Played } = (await this.#call('GET', `/UserItems/${itemId}/UserData?userId=${userId}`)) as {
      Played: boolean;
    };
    return Played;
  }

  async #call(method: string, path: string, body?: unknown): Promise<unknown> {
    const authorization = this.#token === undefined ? CLIENT : `${CLIENT}, Token="${this.#token}"`;
    const response = await fetch(`${this.#baseUrl}${path}`, {
      method,
      headers: { authorization, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(30_000),
    });
    const text = await response.text();
    if (!response.ok)
      throw new Error(
        `${method} ${path.split('?')[0] ?? ''}: ${String(response.status)} ${text.slice(0, 200)}`,
      );
    return text === '' ? undefined : (JSON.parse(text) as unknown);
  }
}
