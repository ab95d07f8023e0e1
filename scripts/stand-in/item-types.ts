import { extname } from 'node:path';

/** The name in the API and the class name that the database keeps. */
const CLASS_OF = {
  Movie: 'MediaBrowser.Controller.Entities.Movies.Movie',
  Episode: 'MediaBrowser.Controller.Entities.TV.Episode',
  Video: 'MediaBrowser.Controller.Entities.Video',
  Audio: 'MediaBrowser.Controller.Entities.Audio.Audio',
  CollectionFolder: 'MediaBrowser.Controller.Entities.CollectionFolder',
  Playlist: 'MediaBrowser.Controller.Playlists.Playlist',
  BoxSet: 'MediaBrowser.Controller.Entities.Movies.BoxSet',
} as const;
export type ItemType = keyof typeof CLASS_OF;

export const classOf = (type: ItemType): string => CLASS_OF[type];

export const typeOf = (className: string): string => className.slice(className.lastIndexOf('.') + 1);

export const isItemType = (text: string): text is ItemType => Object.hasOwn(CLASS_OF, text);

const VIDEO = new Set(['.mkv', '.mp4', '.avi', '.webm', '.ts']);
const AUDIO = new Set(['.mp3', '.flac', '.ogg', '.m4a']);

/** Undefined for a file that no library takes in. */
export function typeOfFile(path: string, collectionType: string | undefined): ItemType | undefined {
  const extension = extname(path).toLowerCase();
  if (AUDIO.has(extension)) return 'Audio';
  if (!VIDEO.has(extension)) return undefined;
  if (collectionType === 'movies') return 'Movie';
  return collectionType === 'tvshows' ? 'Episode' : 'Video';
}
