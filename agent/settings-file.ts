import { SaxesParser } from 'saxes';

/** The text of the root's direct children by name; `undefined` when the document is not well-formed. */
function childrenOfRoot(bytes: Uint8Array): Map<string, string> | undefined {
  const children = new Map<string, string>();
  const path: string[] = [];
  const roots: string[] = [];
  const parser = new SaxesParser();
  parser.on('error', (error) => {
    throw error;
  });
  parser.on('opentag', ({ name }) => {
    path.push(name);
    if (path.length === 1) roots.push(name);
    if (path.length === 2) children.set(name, '');
  });
  parser.on('closetag', () => {
    path.pop();
  });
  parser.on('text', (text) => {
    const [, child] = path;
    if (path.length === 2 && child !== undefined) children.set(child, `${children.get(child) ?? ''}${text}`);
  });
  try {
    parser.write(new TextDecoder('utf-8', { fatal: true }).decode(bytes)).close();
  } catch {
    // Whatever is wrong with it, it is not a document that Jellyfin would read.
    return undefined;
  }
  return roots.length === 1 ? children : undefined;
}

/** Whether the text is well-formed XML with a root element. An empty or cut file is not. */
export function isWellFormedXml(bytes: Uint8Array): boolean {
  return childrenOfRoot(bytes) !== undefined;
}

/**
 * The setup wizard's flag in `system.xml`; `undefined` when the file is not an XML document of its kind.
 * Jellyfin replaces such a file silently by defaults and shows the wizard (facts/jellyfin.md 2.5).
 */
export function wizardCompleted(systemXml: Uint8Array): boolean | undefined {
  const settings = childrenOfRoot(systemXml);
  if (settings === undefined) return undefined;
  return settings.get('IsStartupWizardCompleted')?.trim().toLowerCase() === 'true';
}

/**
 * A `system.xml` that says only that the wizard is done; Jellyfin fills in its defaults. For backups of the older format,
 * which hold no `config/`: without the flag Jellyfin up to 10.11 would let anyone set the administrator's password.
 */
export const MINIMAL_SYSTEM_XML = `<?xml version="1.0" encoding="utf-8"?>
<ServerConfiguration>
  <IsStartupWizardCompleted>true</IsStartupWizardCompleted>
</ServerConfiguration>
`;

/**
 * Why a server with this `database.xml` cannot be backed up while it runs, or `undefined`.
 * An administrator can force `locking_mode=EXCLUSIVE` or another database engine there (facts/jellyfin.md 3.1).
 */
export function unsupportedDatabaseReason(databaseXml: Uint8Array): string | undefined {
  const type = childrenOfRoot(databaseXml)?.get('DatabaseType')?.trim() ?? '';
  if (type !== '' && type !== 'Jellyfin-SQLite') return `DatabaseType is ${type}, not Jellyfin-SQLite`;
  const text = new TextDecoder().decode(databaseXml).replace(/\s+/g, ' ');
  if (/locking_?mode(?:\s|<[^>]*>|[="'])*EXCLUSIVE/i.test(text)) {
    return 'lockingmode is EXCLUSIVE, so no other process may read the database';
  }
  return undefined;
}
