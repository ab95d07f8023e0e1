import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { apiGuid, databaseGuid } from '../guids.ts';
import { HttpError } from '../http-error.ts';
import { json, noContent } from '../http-listener.ts';
import type { ApiRequest } from '../http-request.ts';
import { route, type Route } from '../http-router.ts';
import { hashPassword, isPassword } from '../passwords.ts';
import type { Server } from '../server.ts';
import type { Client } from '../sessions.ts';
import type { User } from '../users.ts';

export function userRoutes(server: Server): Route[] {
  const { users, sessions, activity } = server;

  const authenticate = async (request: ApiRequest) => {
    const client = clientOf(request);
    const body = request.jsonObject();
    const user = users.byName(body.text('Username') ?? '');
    const password = body.text('Pw') ?? '';
    if (!user || user.IsDisabled || !(await mayEnter(user, password))) {
      throw new HttpError(401, 'Error processing request.');
    }
    const AccessToken = sessions.signIn(user, client);
    activity.record('AuthenticationSucceeded', `${user.Username} successfully authenticated`, user.Id);
    const SessionInfo = { UserId: apiGuid(user.Id), UserName: user.Username, Client: client.client };
    return json({ User: userDto(user, server.id), SessionInfo, AccessToken, ServerId: server.id });
  };

  return [
    route('POST', '/Users/AuthenticateByName', 'anyone', authenticate),
    route('POST', '/Sessions/Logout', 'user', ({ credentials }) => {
      sessions.signOut(credentials.token ?? '');
      return noContent;
    }),
    // Users are hidden from the login screen unless an administrator shows them.
    route('GET', '/Users/Public', 'anyone', () => json([])),
    route('GET', '/Users/Me', 'user', ({ caller }) => {
      if (!caller?.user) throw new HttpError(400, 'An API key is no user.');
      return json(userDto(caller.user, server.id));
    }),
    route('GET', '/Users', 'user', () => json(users.list().map((user) => userDto(user, server.id)))),
    route('POST', '/Users/New', 'admin', async (request) => {
      const body = request.jsonObject();
      const name = body.text('Name');
      if (!name) throw new HttpError(400, 'Name is required.');
      if (users.byName(name)) throw new HttpError(400, `A user with the name '${name}' already exists.`);
      const password = body.text('Password');
      const hash = password ? await hashPassword(password) : undefined;
      const user = users.create(name, false);
      if (hash !== undefined) users.setPasswordHash(user.Id, hash);
      return json(userDto(users.byId(user.Id) ?? user, server.id));
    }),
    route('GET', '/Auth/Keys', 'admin', () => {
      const Items = sessions.listKeys().map(({ Id, Name, AccessToken, DateCreated }) => {
        return { Id, AccessToken, AppName: Name, DateCreated, IsActive: true };
      });
      return json({ Items, TotalRecordCount: Items.length, StartIndex: 0 });
    }),
    route('POST', '/Auth/Keys', 'admin', (request) => {
      const app = request.query('app');
      if (!app) throw new HttpError(400, 'The app field is required.');
      sessions.createKey(app);
      return noContent;
    }),
    route('DELETE', '/Auth/Keys/{key}', 'admin', (request) => {
      sessions.deleteKey(request.param('key'));
      return noContent;
    }),
    route('POST', '/UserImage', 'user', (request) => {
      const user = imageOwner(server, request);
      mkdirSync(join(server.paths.usersDir, user.Username), { recursive: true });
      writeFileSync(imageFile(server, user), Buffer.from(request.bytes.toString('latin1'), 'base64'));
      return noContent;
    }),
    route('GET', '/UserImage', 'anyone', (request) => {
      const user = users.byId(databaseGuid(request.query('userId')) ?? '');
      if (!user) throw new HttpError(404, 'Not Found');
      return { status: 200, type: 'image/png', body: readOr404(imageFile(server, user)) };
    }),
  ];
}

export function readOr404(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new HttpError(404, 'Not Found');
    throw error;
  }
}

/** A user without a password gets in with an empty one. */
async function mayEnter(user: User, password: string): Promise<boolean> {
  return user.Password ? isPassword(password, user.Password) : password === '';
}

function clientOf({ credentials }: ApiRequest): Client {
  const { client, device, deviceId, version } = credentials;
  if (!client || !device || !deviceId || !version) {
    throw new HttpError(400, 'The Authorization header needs Client, Device, DeviceId and Version.');
  }
  return { client, device, deviceId, version };
}

function imageOwner(server: Server, request: ApiRequest): User {
  const id = databaseGuid(request.query('userId')) ?? request.caller?.user?.Id;
  const user = id === undefined ? undefined : server.users.byId(id);
  if (!user) throw new HttpError(404, 'Not Found');
  if (request.caller?.user?.Id !== user.Id && !request.caller?.isAdministrator) throw new HttpError(403, '');
  return user;
}

const imageFile = (server: Server, user: User): string =>
  join(server.paths.usersDir, user.Username, 'profile.png');

function userDto(user: User, serverId: string): object {
  const hasPassword = Boolean(user.Password);
  return {
    Name: user.Username,
    ServerId: serverId,
    Id: apiGuid(user.Id),
    HasPassword: hasPassword,
    HasConfiguredPassword: hasPassword,
    LastLoginDate: user.LastLoginDate,
    Policy: {
      IsAdministrator: user.IsAdministrator === 1,
      IsHidden: true,
      IsDisabled: user.IsDisabled === 1,
    },
  };
}
