// Plots as SVG text: lines and bars with labelled axes, readable on light and on dark paper, told
// apart by dashes and shapes as well as by colour. The same data gives the same bytes.

import { figure } from './stats.mjs';

const WIDTH = 720;
const HEIGHT = 380;
const BOX = { left: 66, right: WIDTH - 18, top: 74, bottom: HEIGHT - 58 };
/** A series' colour on light and on dark paper, and its dashes. */
const SERIES = [
  ['#0969da', '#4493f8', ''],
  ['#bc4c00', '#f0883e', '7 4'],
  ['#8250df', '#ab7df8', '2 3'],
  ['#1a7f37', '#3fb950', '10 3 2 3'],
  ['#cf222e', '#f85149', '4 2'],
  ['#59636e', '#9198a1', '1 2'],
];

/**
 * Lines over a logarithmic x axis whose marks are the points themselves.
 * `series`: `[{ name, points: [[x, y], ..] }]`; `x`, `y`: labels with units.
 */
export function lines({ title, x, y, series }) {
  const all = series.flatMap(({ points }) => points);
  const marks = [...new Set(all.map(([at]) => at))].sort((a, b) => a - b);
  const [least, most] = [Math.log(marks[0]), Math.log(marks.at(-1))];
  const wide = BOX.right - BOX.left - 40;
  const across = (at) => BOX.left + 20 + (wide * (Math.log(at) - least)) / (most - least || 1);
  const axis = upright(Math.max(...all.map(([, value]) => value)));
  const drawn = series.flatMap(({ points }, index) => {
    const at = points.map(([value, height]) => [across(value), axis.place(height)]);
    const path = at.map((point, i) => `${i === 0 ? 'M' : 'L'}${point.map(short).join(' ')}`);
    const shapes = at.map((point) => shape(index, ...point));
    return [`<path class="line s${index}" d="${path.join('')}"/>`, ...shapes];
  });
  const below = marks.map((at) => text(across(at), BOX.bottom + 18, count(at), 'soft middle'));
  const names = series.map(({ name }) => name);
  return svg({ title, x, y, names, parts: [...axis.parts, ...below, ...drawn] });
}

/**
 * Groups of bars. `groups`: `[{ name, bars: [{ value, label }, ..] }]`, a bar a series or null;
 * `names`: of the series; `y`: label with unit; `most`: the axis reaches so far at least.
 */
export function bars({ title, x, y, names, groups, most = 0 }) {
  const values = groups.flatMap((group) => group.bars.map((bar) => bar?.value ?? 0));
  const axis = upright(Math.max(most, ...values));
  const step = (BOX.right - BOX.left) / groups.length;
  const wide = Math.min(56, (step * 0.84) / names.length);
  const drawn = groups.flatMap((group, at) => {
    const middle = BOX.left + step * (at + 0.5);
    const start = middle - (wide * names.length) / 2;
    const columns = group.bars.map((bar, index) => {
      if (!bar) return '';
      const [left, top] = [start + wide * index, axis.place(bar.value)];
      const size = `width="${short(wide - 2)}" height="${short(BOX.bottom - top)}"`;
      const label = text(left + wide / 2 - 1, top - 4, bar.label, 'soft middle small');
      return `<rect class="fill s${index}" x="${short(left)}" y="${short(top)}" ${size}/>${label}`;
    });
    return [...columns, text(middle, BOX.bottom + 18, group.name, 'soft middle')];
  });
  return svg({ title, x, y, names, parts: [...axis.parts, ...drawn] });
}

/** A y axis from 0 to a round number: where a value lies, and its lines. */
function upright(most) {
  const rough = (most || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const top = step * Math.ceil((most || 1) / step - 1e-9);
  const place = (value) => BOX.bottom - ((BOX.bottom - BOX.top) * value) / top;
  const parts = [];
  for (let at = 0; at <= top + step / 2; at += step) {
    const y = short(place(at));
    parts.push(`<path class="grid" d="M${BOX.left} ${y}H${BOX.right}"/>`);
    parts.push(text(BOX.left - 8, place(at) + 4, count(at), 'soft end'));
  }
  return { place, parts };
}

function svg({ title, x, y, names, parts }) {
  let left = BOX.left;
  const legend = names.map((name, index) => {
    const mark = `<path class="line s${index}" d="M${short(left)} 50h22"/>`;
    const entry = mark + shape(index, left + 11, 50) + text(left + 28, 54, name, 'soft');
    left += 56 + 6.8 * name.length;
    return entry;
  });
  const middle = (BOX.top + BOX.bottom) / 2;
  const turned = `<g transform="translate(16 ${short(middle)}) rotate(-90)">`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">`,
    `<title>${escaped(title)}</title>`,
    `<style>${style()}</style>`,
    `<rect class="paper" width="${WIDTH}" height="${HEIGHT}" rx="6"/>`,
    text(BOX.left, 28, title, 'ink large'),
    ...(names.length > 1 ? legend : []),
    ...parts,
    text((BOX.left + BOX.right) / 2, HEIGHT - 16, x, 'ink middle'),
    `${turned}${text(0, 0, y, 'ink middle')}</g>`,
    '</svg>',
    '',
  ].join('\n');
}

function style() {
  const painted = (colour, at) => `.line.s${at}{stroke:${colour}}.fill.s${at}{fill:${colour}}`;
  const series = (paper) => SERIES.map((colours, at) => painted(colours[paper], at)).join('');
  const dashes = SERIES.map(([, , dash], index) => `path.s${index}{stroke-dasharray:${dash || 0}}`);
  return [
    'text{font:13px system-ui,sans-serif}.large{font-size:16px;font-weight:600}',
    '.small{font-size:11px}.middle{text-anchor:middle}.end{text-anchor:end}',
    '.paper{fill:#fff}.ink{fill:#1f2328}.soft{fill:#4d5660}.grid{stroke:#d1d9e0}',
    `.line{fill:none;stroke-width:2}${series(0)}`,
    dashes.join(''),
    '@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#f0f6fc}',
    `.soft{fill:#a9b4c0}.grid{stroke:#30363d}${series(1)}}`,
  ].join('');
}

/** A point of a series: a circle, a square or a diamond. */
function shape(index, x, y) {
  const kind = `class="fill s${index}"`;
  const [left, top] = [short(x), short(y)];
  if (index % 3 === 0) return `<circle ${kind} cx="${left}" cy="${top}" r="4"/>`;
  const turn = index % 3 === 2 ? ` transform="rotate(45 ${left} ${top})"` : '';
  return `<rect ${kind} x="${short(x - 3.5)}" y="${short(y - 3.5)}" width="7" height="7"${turn}/>`;
}

function text(x, y, content, kind) {
  return `<text class="${kind}" x="${short(x)}" y="${short(y)}">${escaped(content)}</text>`;
}

function count(value) {
  return Number.isInteger(value) && value < 10_000 ? String(value) : figure(value);
}

function short(value) {
  return String(Math.round(10 * value) / 10);
}

function escaped(content) {
  return String(content).replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);
}
