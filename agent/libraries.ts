/** A library as the server has it: its folders are paths in the server's container. */
export interface Library {
  name: string;
  paths: string[];
}

/** One to be made. */
export interface NewLibrary extends Library {
  /** Jellyfin's collection type; `undefined` is mixed content. */
  type: string | undefined;
}

/** A folder directly below the media folder. */
export interface MediaFolder {
  name: string;
  path: string;
}

export interface LibraryPlan {
  add: NewLibrary[];
  /** Folders whose names say nothing about what is in them: a person decides. */
  leftOut: string[];
}

/** What people call their folders, in lower case, and Jellyfin's collection type for it. */
const TYPE_OF_FOLDER: Readonly<Record<string, string>> = {
  movies: 'movies',
  movie: 'movies',
  films: 'movies',
  film: 'movies',
  shows: 'tvshows',
  'tv shows': 'tvshows',
  tvshows: 'tvshows',
  tv: 'tvshows',
  series: 'tvshows',
  music: 'music',
  'music videos': 'musicvideos',
  musicvideos: 'musicvideos',
  photos: 'homevideos',
  pictures: 'homevideos',
  'home videos': 'homevideos',
  homevideos: 'homevideos',
  books: 'books',
  audiobooks: 'books',
};

const typeOf = (folder: string): string | undefined =>
  Object.entries(TYPE_OF_FOLDER).find(([name]) => name === folder.toLowerCase())?.[1];

/** `movies` is shown as `Movies`, `tv` as `TV`; a name that somebody capitalised stays as it is. */
const titleOf = (folder: string): string =>
  folder === 'tv' ? 'TV' : `${folder.slice(0, 1).toUpperCase()}${folder.slice(1)}`;

/**
 * The libraries of a brand-new server: one for each folder whose name says what it holds; if there is none, all of the media
 * folder as one mixed library. Beside recognised folders the others are left out: a guessed type would have to be removed
 * again, and every user may see a new library.
 *
 * Whatever is covered already is not made again, by folder and by name: the server would number a second one of that name.
 */
export function planLibraries(
  mediaDir: string,
  folders: readonly MediaFolder[],
  existing: readonly Library[],
): LibraryPlan {
  if (existing.some(({ paths }) => paths.includes(mediaDir))) return { add: [], leftOut: [] };
  const wanted = new Map<string, NewLibrary>();
  const leftOut: string[] = [];
  for (const { name, path } of folders) {
    const type = typeOf(name);
    const sameName = wanted.get(name.toLowerCase());
    if (type === undefined) leftOut.push(name);
    else if (sameName !== undefined) sameName.paths.push(path);
    else wanted.set(name.toLowerCase(), { name: titleOf(name), type, paths: [path] });
  }
  const all =
    wanted.size > 0 ? [...wanted.values()] : [{ name: 'Media', type: undefined, paths: [mediaDir] }];
  const isThere = ({ name, paths }: NewLibrary) =>
    existing.some(
      (other) =>
        other.name.toLowerCase() === name.toLowerCase() || paths.some((path) => other.paths.includes(path)),
    );
  return { add: all.filter((library) => !isThere(library)), leftOut: wanted.size > 0 ? leftOut : [] };
}
