// Records: one JSON file a run in `records/`, all with the same head (`bench`, when, machine,
// versions, noise), then what the bench measured. `page.mjs` draws them.

import * as fs from 'node:fs';
import { join } from 'node:path';
import { machine, ROOT, versions, watch } from './machine.mjs';

const FOLDER = join(ROOT, '__test__', 'bench', 'records');

/** Starts a record; call the result with what was measured to get it whole. */
export function begin(bench, began = new Date().toISOString()) {
  const told = watch();
  return (figures) => ({
    bench,
    began,
    ended: new Date().toISOString(),
    machine: machine(),
    versions: { ...versions(), ...figures.versions },
    noise: told(),
    ...without(figures, 'versions'),
  });
}

/** Writes what the options ask for: `--json FILE`, `--record [NAME]`. */
export function save(record, { json, record: name }) {
  const text = `${JSON.stringify(record, null, 2)}\n`;
  if (json) fs.writeFileSync(json, text);
  if (!name) return;
  const file = name === true ? record.bench : `${record.bench}-${name}`;
  if (!/^[a-z0-9_.-]+$/i.test(file)) throw new Error(`not a name for a record: '${name}'`);
  fs.mkdirSync(FOLDER, { recursive: true });
  fs.writeFileSync(join(FOLDER, `${file}.json`), text);
  console.log(`\nWritten: __test__/bench/records/${file}.json. Draw it: npm run bench -- plots`);
}

/** All committed records with their names, in the order of the page. */
export function records() {
  const names = fs.existsSync(FOLDER) ? fs.readdirSync(FOLDER) : [];
  const sorted = names.filter((name) => name.endsWith('.json')).sort();
  return sorted.map((name) => ({
    name: name.slice(0, -'.json'.length),
    record: JSON.parse(fs.readFileSync(join(FOLDER, name), 'utf8')),
  }));
}

function without(object, key) {
  const { [key]: _, ...rest } = object;
  return rest;
}
