import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { HttpError } from '../http-error.ts';
import { json, noContent } from '../http-listener.ts';
import { route, type Route } from '../http-router.ts';
import { isFolder, libraryDto } from '../libraries.ts';
import type { Server } from '../server.ts';

export function libraryRoutes(server: Server): Route[] {
  const { libraries, tasks } = server;
  const refresh = (): void => tasks.runByKey('RefreshLibrary');

  return [
    route('GET', '/Library/VirtualFolders', 'setup-or-admin', () => json(libraries.list().map(libraryDto))),
    route('POST', '/Library/VirtualFolders', 'setup-or-admin', (request) => {
      const name = request.query('name')?.trim() ?? '';
      if (name === '' || /[/\\\0]/.test(name) || /^\.+$/.test(name)) {
        throw new HttpError(400, 'Error processing request.');
      }
      const paths = request.queryAll('paths');
      if (!paths.every(isFolder)) throw new HttpError(404, 'The path does not exist.');
      libraries.create(name, request.query('collectionType')?.toLowerCase(), paths);
      if (request.query('refreshLibrary')?.toLowerCase() === 'true') refresh();
      return noContent;
    }),
    route('DELETE', '/Library/VirtualFolders', 'setup-or-admin', (request) => {
      if (!libraries.remove(request.query('name') ?? '')) throw new HttpError(404, 'Not Found');
      if (request.query('refreshLibrary')?.toLowerCase() === 'true') refresh();
      return noContent;
    }),
    // The folder browser of the wizard and the dashboard.
    route('GET', '/Environment/DirectoryContents', 'setup-or-admin', (request) => {
      const path = request.query('path') ?? '';
      if (!isFolder(path)) throw new HttpError(404, 'Not Found');
      const isWanted = (isDirectory: boolean): boolean =>
        request.query(isDirectory ? 'includeDirectories' : 'includeFiles')?.toLowerCase() === 'true';
      const entries = readdirSync(path, { withFileTypes: true }).filter((entry) =>
        isWanted(entry.isDirectory()),
      );
      return json(
        entries.map((entry) => {
          const Type = entry.isDirectory() ? 'Directory' : 'File';
          return { Name: entry.name, Path: join(path, entry.name), Type };
        }),
      );
    }),
    route('POST', '/Library/Refresh', 'admin', () => {
      refresh();
      return noContent;
    }),
  ];
}
