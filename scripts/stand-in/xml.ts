import { XMLParser } from 'fast-xml-parser';

/** Elements by name; a list makes one element for each of its members. */
export interface XmlTree {
  [name: string]: string | undefined | null | XmlTree | readonly (string | XmlTree)[];
}

const parser = new XMLParser({ parseTagValue: false, ignoreDeclaration: true, ignoreAttributes: true });

export function renderXml(tree: XmlTree): string {
  return `<?xml version="1.0" encoding="utf-8"?>\n${renderChildren(tree, '')}`;
}

/** The content of the root element; throws on a document that is cut off or has another root. */
export function parseXml(xml: string, root: string): XmlTree | string {
  const isWhole = new RegExp(`(</${root}>|<${root}[^>]*/>)\\s*$`).test(xml);
  if (!isWhole) throw new Error(`There is an error in the XML document: <${root}> does not end.`);
  const document = parser.parse(xml) as Record<string, XmlTree | string>;
  const content = document[root];
  if (content === undefined) throw new Error(`There is an error in the XML document: no <${root}>.`);
  return content;
}

function renderChildren(tree: XmlTree, indent: string): string {
  const elements = Object.entries(tree).flatMap(([name, value]) =>
    (isList(value) ? value : [value ?? '']).map((child) => renderElement(name, child, indent)),
  );
  return elements.join('');
}

function renderElement(name: string, value: string | XmlTree, indent: string): string {
  const content =
    typeof value === 'string' ? escapeXml(value) : `\n${renderChildren(value, `${indent}  `)}${indent}`;
  return `${indent}<${name}>${content}</${name}>\n`;
}

const isList = (value: XmlTree[string]): value is readonly (string | XmlTree)[] => Array.isArray(value);

const escapeXml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
