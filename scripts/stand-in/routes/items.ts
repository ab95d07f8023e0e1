import { apiGuid, databaseGuid } from '../guids.ts';
import { HttpError } from '../http-error.ts';
import { json, type ApiResult } from '../http-listener.ts';
import type { ApiRequest } from '../http-request.ts';
import { route, type Route } from '../http-router.ts';
import { isItemType } from '../item-types.ts';
import type { Item, UserDataChange } from '../items.ts';
import type { Server } from '../server.ts';
import { readOr404 } from './users.ts';

export function itemRoutes(server: Server): Route[] {
  const { items, lists } = server;

  const change = (request: ApiRequest, changed: UserDataChange): ApiResult => {
    const item = itemOf(server, request.param('id'));
    const userId = userIdOf(server, request);
    if (userId === undefined) throw new HttpError(400, 'userId is required with an API key.');
    items.change(item.Id, userId, changed);
    if (changed.played) server.plugins.notePlayback(item.Name, item.Id, userId);
    return json(items.userDataDto(item.Id, userId));
  };
  const members = (ids: readonly string[]): Item[] => ids.map((id) => itemOf(server, id));

  return [
    route('GET', '/Items', 'user', (request) => {
      const userId = userIdOf(server, request);
      const found = items.find({
        types: request.queryList('includeItemTypes').filter(isItemType),
        searchTerm: request.query('searchTerm') ?? '',
        parentId: databaseGuid(request.query('parentId')),
      });
      const start = request.queryInteger('startIndex', 0);
      const page = found.slice(start, start + request.queryInteger('limit', found.length));
      const Items = page.map((item) => items.dto(item, server.id, userId));
      return json({ Items, TotalRecordCount: found.length, StartIndex: start });
    }),
    route('GET', '/Items/{id}', 'user', (request) => {
      const item = itemOf(server, request.param('id'));
      return json(items.dto(item, server.id, userIdOf(server, request)));
    }),
    route('GET', '/Items/{id}/Images/Primary', 'anyone', (request) => {
      const file = items.posterFile(itemOf(server, request.param('id')).Id, server.paths.metadataDir);
      if (file === undefined) throw new HttpError(404, 'Not Found');
      return { status: 200, type: 'image/jpeg', body: readOr404(file) };
    }),
    route('POST', '/UserPlayedItems/{id}', 'user', (request) => change(request, { played: true })),
    route('DELETE', '/UserPlayedItems/{id}', 'user', (request) => change(request, { played: false })),
    route('POST', '/Users/{userId}/PlayedItems/{id}', 'user', (request) => change(request, { played: true })),
    route('POST', '/UserFavoriteItems/{id}', 'user', (request) => change(request, { isFavorite: true })),
    route('DELETE', '/UserFavoriteItems/{id}', 'user', (request) => change(request, { isFavorite: false })),
    route('GET', '/UserItems/{id}/UserData', 'user', (request) => {
      const item = itemOf(server, request.param('id'));
      const userId = userIdOf(server, request);
      if (userId === undefined) throw new HttpError(404, 'Not Found');
      return json(items.userDataDto(item.Id, userId));
    }),
    route('POST', '/UserItems/{id}/UserData', 'user', (request) => {
      const body = request.jsonObject();
      const played = body.flag('Played');
      const isFavorite = body.flag('IsFavorite');
      const positionTicks = body.number('PlaybackPositionTicks');
      return change(request, {
        ...(played !== undefined && { played }),
        ...(isFavorite !== undefined && { isFavorite }),
        ...(positionTicks !== undefined && { positionTicks }),
      });
    }),
    route('POST', '/Playlists', 'user', (request) => {
      const body = request.jsonObject();
      const name = body.text('Name');
      if (!name) throw new HttpError(400, 'Name is required.');
      return json({ Id: apiGuid(lists.createPlaylist(name, members(body.texts('Ids')))) });
    }),
    route('POST', '/Collections', 'user', (request) => {
      const name = request.query('name');
      if (!name) throw new HttpError(400, 'name is required.');
      return json({ Id: apiGuid(lists.createCollection(name, members(request.queryList('ids')))) });
    }),
  ];
}

function itemOf(server: Server, text: string): Item {
  const id = databaseGuid(text);
  const item = id === undefined ? undefined : server.items.byId(id);
  if (!item) throw new HttpError(404, 'Not Found');
  return item;
}

/** The user that a request is about: only administrators may name another one than themselves. */
function userIdOf(server: Server, request: ApiRequest): string | undefined {
  const own = request.caller?.user?.Id;
  const named = databaseGuid(request.query('userId') ?? request.param('userId'));
  if (named === undefined || named === own) return own;
  if (!request.caller?.isAdministrator) throw new HttpError(403, '');
  if (!server.users.byId(named)) throw new HttpError(404, 'Not Found');
  return named;
}
