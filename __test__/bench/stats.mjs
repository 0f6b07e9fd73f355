// Numbers for people: medians, rounding, and tables for a terminal or a page.

/** The median of the numbers in a list, or null where there is none. */
export function median(values) {
  const sorted = numbers(values);
  if (sorted.length === 0) return null;
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

/** Median, least, most and count of a list; null where it has no number. */
export function summary(values) {
  const sorted = numbers(values);
  if (sorted.length === 0) return null;
  return {
    median: digits(median(sorted)),
    min: digits(sorted[0]),
    max: digits(sorted.at(-1)),
    count: sorted.length,
  };
}

function numbers(values) {
  return values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
}

/** Four significant digits: more than such measurements carry. */
export function digits(value) {
  return Number.isFinite(value) ? Number(value.toPrecision(4)) : null;
}

/** A number as a table shows it: `1,234`, `56.7`, `0.40`; a dash where there is none. */
export function figure(value) {
  if (!Number.isFinite(value)) return '-';
  const decimals = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  const text = value.toFixed(decimals);
  return text.replace(/\B(?=(\d{3})+(?!\d))(?<!\.\d*)/g, ',');
}

/** A share of 1 as per cent. */
export function percent(share) {
  return Number.isFinite(share) ? `${Math.round(100 * share)} %` : '-';
}

/** Rows (the first is the head) with columns as wide as they need; all but the first right. */
export function columns(rows) {
  const wide = rows[0].map((_, at) => Math.max(...rows.map((row) => String(row[at]).length)));
  const cell = (text, at) =>
    at === 0 ? String(text).padEnd(wide[at]) : String(text).padStart(wide[at]);
  return rows.map((row) => row.map(cell).join('  ').trimEnd()).join('\n');
}

/** The same rows as a table of Markdown. */
export function markdown(rows) {
  const line = (row) => `| ${row.map((text) => String(text).replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = rows[0].map((_, at) => (at === 0 ? '---' : '--:'));
  return [line(rows[0]), line(rule), ...rows.slice(1).map(line)].join('\n');
}
