import { userInfo } from 'node:os';
import { HttpError } from '../http-error.ts';
import { json, noContent } from '../http-listener.ts';
import { route, type Route } from '../http-router.ts';
import { hashPassword } from '../passwords.ts';
import type { Server } from '../server.ts';
import { isTwelve } from '../versions.ts';

/** The setup wizard. Up to 10.11 it lets anyone overwrite the first user's password until it is completed. */
export function startupRoutes(server: Server): Route[] {
  const { configuration, users } = server;
  const isNew = isTwelve(server.options.version);

  const firstUser = () => {
    // Asking is what creates the user; it is an administrator without a password.
    const user = users.first() ?? users.create(userInfo().username, true);
    return json({ Name: user.Username });
  };

  return [
    route('GET', '/Startup/Configuration', 'setup-or-admin', () => {
      const { ServerName, UICulture, MetadataCountryCode, PreferredMetadataLanguage } = configuration.system;
      return json({ ServerName, UICulture, MetadataCountryCode, PreferredMetadataLanguage });
    }),
    route('POST', '/Startup/Configuration', 'setup-or-admin', (request) => {
      const body = request.jsonObject();
      configuration.updateSystem({
        ServerName: body.text('ServerName') ?? '',
        UICulture: body.text('UICulture') ?? '',
        MetadataCountryCode: body.text('MetadataCountryCode') ?? '',
        PreferredMetadataLanguage: body.text('PreferredMetadataLanguage') ?? '',
      });
      return noContent;
    }),
    route('GET', '/Startup/User', 'setup-or-admin', firstUser),
    route('GET', '/Startup/FirstUser', 'setup-or-admin', firstUser),
    route('POST', '/Startup/User', 'setup-or-admin', async (request) => {
      const user = users.first();
      if (!user) throw new HttpError(404, 'Not Found');
      if (isNew && user.Password) throw new HttpError(403, '');
      const body = request.jsonObject();
      const password = body.text('Password');
      if (!password) throw new HttpError(400, 'Password must not be empty');
      const name = body.text('Name');
      if (name) users.rename(user.Id, name);
      users.setPasswordHash(user.Id, await hashPassword(password));
      return noContent;
    }),
    route('POST', '/Startup/RemoteAccess', 'setup-or-admin', (request) => {
      const body = request.jsonObject();
      const required = isNew ? ['EnableRemoteAccess'] : ['EnableRemoteAccess', 'EnableAutomaticPortMapping'];
      const missing = required.filter((name) => body.flag(name) === undefined);
      if (missing.length > 0) throw new HttpError(400, `JSON properties are required: ${missing.join(', ')}`);
      configuration.updateNetwork({ EnableRemoteAccess: String(body.flag('EnableRemoteAccess')) });
      return noContent;
    }),
    route('POST', '/Startup/Complete', 'setup-or-admin', () => {
      configuration.updateSystem({ IsStartupWizardCompleted: 'true' });
      return noContent;
    }),
  ];
}
