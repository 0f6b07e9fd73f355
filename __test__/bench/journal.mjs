// What a long bench has measured so far, a line a run, so that the same command goes on where it
// was stopped. It lies in the scratch folder and goes when all is measured.

import { createHash } from 'node:crypto';
import * as fs from 'node:fs';
import { join } from 'node:path';

/** A journal of one command: `subject` is all that must be the same to go on. */
export class Journal {
  #path;
  #runs = new Map();
  /** When the first run of it began. */
  began = new Date().toISOString();

  /** Opens it, or starts a new one (`fresh`: always). */
  constructor(folder, subject, fresh = false) {
    const hash = createHash('sha256').update(JSON.stringify(subject)).digest('hex').slice(0, 16);
    this.#path = join(folder, `journal-${hash}.jsonl`);
    if (fresh) fs.rmSync(this.#path, { force: true });
    if (!fs.existsSync(this.#path)) {
      fs.mkdirSync(folder, { recursive: true });
      fs.writeFileSync(this.#path, `${JSON.stringify({ began: this.began })}\n`);
      return;
    }
    const [head, ...runs] = fs.readFileSync(this.#path, 'utf8').split('\n').flatMap(parsed);
    this.began = head?.began ?? this.began;
    for (const { key, value } of runs) this.#runs.set(key, value);
  }

  /** How many runs it holds. */
  get size() {
    return this.#runs.size;
  }

  /** What a run gave, or undefined. */
  get(key) {
    return this.#runs.get(key);
  }

  /** Adds a run at once. */
  add(key, value) {
    this.#runs.set(key, value);
    fs.appendFileSync(this.#path, `${JSON.stringify({ key, value })}\n`);
  }

  /** Everything is measured. */
  end() {
    fs.rmSync(this.#path, { force: true });
  }
}

/** The object of a line; none of a line that was cut when the machine went down. */
function parsed(line) {
  try {
    return [JSON.parse(line)];
  } catch {
    return [];
  }
}
