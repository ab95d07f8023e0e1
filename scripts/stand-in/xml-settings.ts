import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { parseXml, renderXml, type XmlTree } from './xml.ts';

/** A settings file of the server: one level of elements, some of which hold a list of `<string>`. */
export type Settings = Record<string, string | string[]>;

function renderSettings(root: string, settings: Settings): string {
  const children = Object.entries(settings).map(([name, value]): [string, string | XmlTree] => [
    name,
    typeof value === 'string' ? value : { string: value },
  ]);
  return renderXml({ [root]: Object.fromEntries(children) });
}

function parseSettings(root: string, xml: string): Settings {
  const content = parseXml(xml, root);
  if (typeof content === 'string') return {};
  return Object.fromEntries(Object.entries(content).map(([name, value]) => [name, settingOf(value)]));
}

function settingOf(value: XmlTree[string]): string | string[] {
  if (typeof value === 'string') return value;
  const list = (value as { string?: string | string[] }).string;
  return list === undefined ? '' : [list].flat();
}

/** Undefined when the file is missing or cannot be read as settings; the reason goes to `onDamage`. */
export function loadSettings(
  file: string,
  root: string,
  onDamage: (error: Error) => void,
): Settings | undefined {
  try {
    return parseSettings(root, readFileSync(file, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') onDamage(error as Error);
    return undefined;
  }
}

/**
 * Truncates the live file and then writes it, as the real server does: whoever copies it in between gets an empty
 * file, and so does the next start after a kill. `pauseMs` widens that moment for a test.
 */
export function saveSettings(file: string, root: string, settings: Settings, pauseMs: number): void {
  const descriptor = openSync(file, 'w');
  try {
    if (pauseMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs);
    writeSync(descriptor, renderSettings(root, settings));
  } finally {
    closeSync(descriptor);
  }
}
