#!/usr/bin/env node
// Runs the JavaScript tests, on what `npm test` has built, with the other supported lines of Node,
// taken as npm packages. A line that cannot be had here is left out, with the reason.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const MAJORS = ['20', '22', '24'];

const failed = [];
for (const major of MAJORS) {
  if (process.versions.node.startsWith(`${major}.`)) continue;
  const node = obtain(major);
  if (!node) continue;
  const tasks = join(ROOT, '.ci', 'tasks.mjs');
  const { status } = spawnSync(node, [tasks, 'test', 'js'], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) failed.push(major);
}
if (failed.length) console.error(`JavaScript tests failed on Node ${failed.join(', ')}`);
process.exit(failed.length ? 1 : 0);

/** The path of a Node of this major version, or null where it cannot be installed. */
function obtain(major) {
  const folder = join(ROOT, 'node_modules', '.cache', 'node-chord', `node-${major}`);
  const exe = process.platform === 'win32' ? 'node.exe' : 'node';
  const node = join(folder, 'node_modules', 'node', 'bin', exe);
  if (!existsSync(node)) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
    const args = ['install', '--no-audit', '--no-fund', '--no-save', `node@${major}`];
    const shell = process.platform === 'win32';
    spawnSync('npm', args, { cwd: folder, stdio: 'inherit', shell });
  }
  const probe = spawnSync(node, ['--version'], { encoding: 'utf8' });
  if (probe.status === 0) {
    console.error(`Node ${probe.stdout.trim()}`);
    return node;
  }
  console.error(`Node ${major} is left out: ${probe.error?.message ?? probe.stderr}`);
  return null;
}
