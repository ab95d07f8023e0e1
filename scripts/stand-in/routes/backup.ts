import { HttpError } from '../http-error.ts';
import { json, noContent } from '../http-listener.ts';
import { route, type Route } from '../http-router.ts';
import type { Server } from '../server.ts';

export function backupRoutes(server: Server): Route[] {
  const { backups, control } = server;
  return [
    route('GET', '/Backup', 'admin', () => json(backups.list())),
    route('GET', '/Backup/Manifest', 'admin', (request) => {
      const file = backups.find(request.query('path') ?? '');
      if (file === undefined) throw new HttpError(404, 'Not Found');
      const manifest = backups.manifest(file);
      return manifest === undefined ? noContent : json(manifest);
    }),
    route('POST', '/Backup/Create', 'admin', async (request) => {
      const body = request.bytes.length > 0 ? request.jsonObject() : undefined;
      const flag = (name: string): boolean => body?.flag(name) ?? false;
      return json(
        await backups.create({
          Metadata: flag('Metadata'),
          Trickplay: flag('Trickplay'),
          Subtitles: flag('Subtitles'),
          Database: body?.flag('Database') ?? true,
        }),
      );
    }),
    route('POST', '/Backup/Restore', 'admin', (request) => {
      const file = backups.find(request.jsonObject().text('ArchiveFileName') ?? '');
      if (file === undefined) throw new HttpError(404, 'Not Found');
      control.restoreAndRestart(file);
      return noContent;
    }),
  ];
}
