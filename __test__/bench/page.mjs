// The figures of docs/benchmarks.md and its plots, made from the records: `npm run bench -- plots`.
// A test holds the page to what this makes, so that nobody edits a figure by hand.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './machine.mjs';
import { records } from './record.mjs';
import { chapter } from './sections.mjs';

const DOCS = join(ROOT, 'docs');
const PAGE = 'benchmarks.md';
const START = '<!-- made by `npm run bench -- plots`: what stands below is overwritten -->\n';

/** All files of docs/ that records make, as a map of path (below docs/) to text. */
export function made() {
  const files = new Map();
  const chapters = records().map(({ name, record }) => {
    const { text, plots } = chapter(name, record);
    for (const [plot, svg] of Object.entries(plots)) files.set(`plots/${name}-${plot}.svg`, svg);
    return text;
  });
  const page = fs.readFileSync(join(DOCS, PAGE), 'utf8');
  const at = page.indexOf(START);
  if (at < 0) throw new Error(`docs/${PAGE} lacks the line ${START}`);
  files.set(PAGE, `${page.slice(0, at)}${START}\n${chapters.join('\n')}`);
  return files;
}

/** The files of docs/ that are there, in the same form. */
export function present() {
  const plots = fs.readdirSync(join(DOCS, 'plots')).map((name) => `plots/${name}`);
  return new Map([...plots, PAGE].map((path) => [path, fs.readFileSync(join(DOCS, path), 'utf8')]));
}

/** Writes them; plots whose records have gone are removed. */
export function draw() {
  fs.mkdirSync(join(DOCS, 'plots'), { recursive: true });
  const files = made();
  for (const path of present().keys()) if (!files.has(path)) fs.rmSync(join(DOCS, path));
  for (const [path, text] of files) fs.writeFileSync(join(DOCS, path), text);
  console.log(`docs: ${files.size} files`);
}
