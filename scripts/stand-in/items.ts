import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, oneRow, sqlDate } from './database.ts';
import { apiGuid } from './guids.ts';
import { classOf, typeOf, type ItemType } from './item-types.ts';

export interface Item {
  Id: string;
  Type: string;
  Name: string;
  Path: string | null;
  IsFolder: 0 | 1;
}

interface UserDataRow {
  PlaybackPositionTicks: number;
  PlayCount: number;
  IsFavorite: 0 | 1;
  Played: 0 | 1;
  LastPlayedDate: string | null;
}

export interface UserDataChange {
  played?: boolean;
  isFavorite?: boolean;
  positionTicks?: number;
}

export interface ItemQuery {
  types: readonly ItemType[];
  searchTerm: string;
  parentId: string | undefined;
}

const UNTOUCHED: UserDataRow = {
  PlaybackPositionTicks: 0,
  PlayCount: 0,
  IsFavorite: 0,
  Played: 0,
  LastPlayedDate: null,
};

export class Items {
  readonly #db: DatabaseSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  find({ types, searchTerm, parentId }: ItemQuery): Item[] {
    const all = allRows<Item & { TopParentId: string | null }>(
      this.#db,
      'SELECT Id, Type, Name, Path, IsFolder, TopParentId FROM BaseItems ORDER BY SortName, Id',
    );
    const classes = new Set(types.map(classOf));
    return all.filter(
      (item) =>
        (classes.size === 0 || classes.has(item.Type)) &&
        item.Name.toLowerCase().includes(searchTerm.toLowerCase()) &&
        (parentId === undefined || item.TopParentId === parentId),
    );
  }

  byId(id: string): Item | undefined {
    return oneRow<Item>(this.#db, 'SELECT Id, Type, Name, Path, IsFolder FROM BaseItems WHERE Id = ?', id);
  }

  /** Where the poster should be; whether the file is there is another question. */
  posterFile(id: string, metadataDir: string): string | undefined {
    const sql = 'SELECT Path AS path FROM BaseItemImageInfos WHERE ItemId = ? AND ImageType = 0';
    const path = oneRow<{ path: string }>(this.#db, sql, id)?.path;
    return path?.replace('%MetadataPath%', () => join(metadataDir));
  }

  change(itemId: string, userId: string, change: UserDataChange): void {
    const now = this.#userData(itemId, userId);
    const played = change.played ?? now.Played === 1;
    const isNewPlay = change.played === true;
    execute(
      this.#db,
      `INSERT OR REPLACE INTO UserData (ItemId, UserId, CustomDataKey, PlaybackPositionTicks, PlayCount, IsFavorite,
        LastPlayedDate, Played) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      itemId,
      userId,
      apiGuid(itemId),
      change.played === undefined ? (change.positionTicks ?? now.PlaybackPositionTicks) : 0,
      isNewPlay ? now.PlayCount + 1 : change.played === false ? 0 : now.PlayCount,
      (change.isFavorite ?? now.IsFavorite === 1) ? 1 : 0,
      isNewPlay ? sqlDate() : change.played === false ? null : now.LastPlayedDate,
      played ? 1 : 0,
    );
  }

  userDataDto(itemId: string, userId: string): object {
    const data = this.#userData(itemId, userId);
    return {
      PlaybackPositionTicks: data.PlaybackPositionTicks,
      PlayCount: data.PlayCount,
      IsFavorite: data.IsFavorite === 1,
      Played: data.Played === 1,
      LastPlayedDate: data.LastPlayedDate,
      Key: apiGuid(itemId),
      ItemId: apiGuid(itemId),
    };
  }

  dto(item: Item, serverId: string, userId: string | undefined): object {
    return {
      Name: item.Name,
      ServerId: serverId,
      Id: apiGuid(item.Id),
      Type: typeOf(item.Type),
      IsFolder: item.IsFolder === 1,
      Path: item.Path,
      ...(userId !== undefined && { UserData: this.userDataDto(item.Id, userId) }),
    };
  }

  /** An item that is a file of the server itself: a playlist or a collection. */
  addOwn(id: string, type: ItemType, name: string, path: string): void {
    const now = sqlDate();
    execute(
      this.#db,
      `INSERT OR REPLACE INTO BaseItems (Id, Type, Path, Name, SortName, IsFolder, DateCreated, DateModified,
        PresentationUniqueKey) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)`,
      id,
      classOf(type),
      path,
      name,
      name.toLowerCase(),
      now,
      now,
      apiGuid(id),
    );
  }

  #userData(itemId: string, userId: string): UserDataRow {
    const sql = `SELECT PlaybackPositionTicks, PlayCount, IsFavorite, Played, LastPlayedDate FROM UserData
      WHERE ItemId = ? AND UserId = ?`;
    return oneRow<UserDataRow>(this.#db, sql, itemId, userId) ?? UNTOUCHED;
  }
}
