import { apiGuid } from '../guids.ts';
import { HttpError } from '../http-error.ts';
import { json, noContent } from '../http-listener.ts';
import { route, type Route } from '../http-router.ts';
import type { Server } from '../server.ts';
import { formatVersion } from '../versions.ts';

const PRODUCT = 'Jellyfin Server';

export function systemRoutes(server: Server): Route[] {
  const publicInfo = (): Record<string, unknown> => ({
    LocalAddress: null,
    ServerName: server.configuration.serverName,
    Version: formatVersion(server.options.version),
    ProductName: PRODUCT,
    OperatingSystem: '',
    Id: server.id,
    StartupWizardCompleted: server.configuration.isWizardCompleted,
  });

  return [
    route('GET', '/System/Ping', 'anyone', () => json(PRODUCT)),
    route('POST', '/System/Ping', 'anyone', () => json(PRODUCT)),
    route('GET', '/System/Info/Public', 'anyone', () => json(publicInfo())),
    route('GET', '/System/Info', 'setup-or-user', () =>
      json({
        ...publicInfo(),
        ProgramDataPath: server.paths.programDataDir,
        CachePath: server.paths.cacheDir,
        LogPath: server.paths.logDir,
        InternalMetadataPath: server.paths.metadataDir,
        HasPendingRestart: false,
        IsShuttingDown: false,
      }),
    ),
    route('GET', '/System/Configuration', 'admin', () => json(server.configuration.system)),
    route('GET', '/System/ActivityLog/Entries', 'admin', (request) => {
      const startIndex = request.queryInteger('startIndex', 0);
      const entries = server.activity.newest(startIndex, request.queryInteger('limit', 100));
      const Items = entries.map((entry) => ({ ...entry, UserId: apiGuid(entry.UserId) }));
      return json({ Items, TotalRecordCount: server.activity.count(), StartIndex: startIndex });
    }),
    route('POST', '/System/Shutdown', 'admin', () => {
      setImmediate(() => server.control.shutdown());
      return noContent;
    }),
    route('POST', '/System/Restart', 'admin', () => {
      setImmediate(() => server.control.restart());
      return noContent;
    }),
    route('GET', '/Plugins', 'admin', () => json(server.plugins.list())),
    route('GET', '/ScheduledTasks', 'admin', () => json(server.tasks.list())),
    route('POST', '/ScheduledTasks/Running/{id}', 'admin', (request) => {
      if (!server.tasks.run(request.param('id'))) throw new HttpError(404, 'Not Found');
      return noContent;
    }),
    route('POST', '/ScheduledTasks/{id}/Triggers', 'admin', (request) => {
      if (!server.tasks.setTriggers(request.param('id'), request.json()))
        throw new HttpError(404, 'Not Found');
      return noContent;
    }),
  ];
}
