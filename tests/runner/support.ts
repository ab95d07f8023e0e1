import { randomUUID } from 'node:crypto';
import { Home, StandIn } from '../stand-in/support.ts';
import { Secret } from '../../agent/secret.ts';

/** What the stand-in serves under, so that every test also proves that a BaseUrl is kept. */
export interface Served {
  home: Home;
  server: StandIn;
  /** An API key; its owner is an administrator whatever happens to the users. */
  key: Secret;
}

/** A server that is set up, with an API key of its own. */
export async function serve(env: Record<string, string> = {}): Promise<Served> {
  const home = new Home();
  const server = await StandIn.start(home, env);
  await server.completeWizard();
  const { AccessToken: token } = (await server.logIn()).json;
  return { home, server, key: new Secret(await mintKey(server, token)) };
}

export async function mintKey(server: StandIn, token: string): Promise<string> {
  const name = `test ${randomUUID()}`;
  await server.call('POST', `/Auth/Keys?app=${encodeURIComponent(name)}`, { token });
  const keys = (await server.call('GET', '/Auth/Keys', { token })).json as unknown as {
    Items: { AppName: string; AccessToken: string }[];
  };
  const minted = keys.Items.find(({ AppName }) => AppName === name);
  if (minted === undefined) throw new Error('no key was made');
  return minted.AccessToken;
}
