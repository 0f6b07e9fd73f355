// What a record becomes on the page: a heading, where and when it was measured, tables, plots.

import { bars, lines } from './plot.mjs';
import { figure, markdown, percent } from './stats.mjs';

const CHAPTERS = { peer, curves, kernels, model: passes, context };

/** The text of a record's chapter and its plots by name. */
export function chapter(name, record) {
  const { title, parts, plots } = CHAPTERS[record.bench](record);
  const images = Object.keys(plots).map((plot) => `![${plot}](plots/${name}-${plot}.svg)`);
  const text = [`## ${title}`, origin(record), ...parts, ...images].join('\n\n');
  return { text: `${text}\n`, plots };
}

/** Where, when, with what, and how quiet it was. */
function origin({ began, ended, machine, versions, noise }) {
  const minute = (time) => time.slice(0, 16).replace('T', ' ');
  const family = machine.family ? ` (family ${machine.family})` : '';
  const kind = machine.virtual ? 'a virtual machine' : 'a machine';
  const engines = Object.entries(versions).map(([name, version]) => `${name} ${version}`);
  return [
    `${minute(began)} to ${minute(ended).slice(11)} UTC, ${engines.join(', ')}.`,
    `${machine.cpu}${family}, ${kind} of ${machine.cores} cores and ${machine.memoryGiB} GiB,`,
    `${machine.kernel}, huge pages: ${machine.hugePages}; ${machine.features.join(' ')}.`,
    `Of all processor time the host kept ${percent(noise.steal)} and other processes took`,
    `${percent(noise.others)}; the load was ${noise.loadAtStart} at the start.`,
  ].join('\n');
}

/** Side by side: a table a model, and bars of the shares of the limits. */
function peer({ models, options }) {
  const parts = models.flatMap((model) => [`### ${label(model)}`, peerTable(model), around(model)]);
  const names = models[0].sides.map(({ side }) => side);
  const chart = (metric, share) =>
    models.map((model) => ({
      name: label(model),
      bars: names.map((name) =>
        bar(
          model.sides.find(({ side }) => side === name),
          metric,
          share,
        ),
      ),
    }));
  const common = { x: 'model (on the bars: tokens a second)', names, most: 100 };
  const decode = { ...common, groups: chart('decodeTps', 'decodeShare') };
  const prompt = { ...common, groups: chart('promptTps', 'promptShare') };
  const title = `Side by side with node-llama-cpp, ${options.rounds} rounds`;
  return {
    title,
    parts,
    plots: {
      decode: bars({ ...decode, title: 'Decoding', y: '% of the read limit' }),
      prompt: bars({ ...prompt, title: 'Prompt', y: '% of the multiply-add peak' }),
    },
  };
}

function bar(side, metric, share) {
  if (!side?.[metric]) return null;
  return { value: 100 * side[share].median, label: figure(side[metric].median) };
}

function peerTable({ sides, prompt, peak }) {
  const head = ['', 'ready ms', 'of that, model', 'first token ms', 'decode tok/s'];
  head.push('of read limit', `prompt of ${prompt}, tok/s`, `of ${peakName(peak)}`);
  head.push('peak memory MiB');
  const tellsPages = sides.some((side) => side.hugeMiB);
  if (tellsPages) head.push('in huge pages MiB');
  head.push('threads', 'runs');
  const rows = sides.map((side) => {
    const of = (name) => figure(side[name]?.median);
    const spread = (name) => {
      if (!side[name] || side[name].count < 2) return of(name);
      return `${of(name)} (${figure(side[name].min)}-${figure(side[name].max)})`;
    };
    const failed = side.failed.length > 0 ? `, ${side.failed.length} ended early` : '';
    return [
      ...[side.side, of('readyMs'), of('loadMs'), of('firstTokenMs'), spread('decodeTps')],
      ...[percent(side.decodeShare?.median), spread('promptTps')],
      ...[percent(side.promptShare?.median), of('peakRssMiB')],
      ...(tellsPages ? [of('hugeMiB')] : []),
      ...[side.threads ?? '-', `${side.runs}${failed}`],
    ];
  });
  return markdown([head, ...rows]);
}

/** The limits around a model's runs, and what it asks of them. */
function around({ limits, peak, bytesPerToken, layerWeights, fileMiB, name }) {
  const of = (limit) => `${figure(limit.median)} (${figure(limit.min)}-${figure(limit.max)})`;
  return [
    `${name}: ${figure(fileMiB)} MiB, ${figure(bytesPerToken / 1e6)} MB read a token,`,
    `${figure(layerWeights / 1e6)} M weights a prompt token. Limits meanwhile: read`,
    `${of(limits.readGBs)} GB/s, ${peakName(peak)} ${of(limits[peak])}.`,
  ].join('\n');
}

function peakName(peak) {
  return peak === 'int8Gops' ? 'int8 peak (Gop/s)' : 'f32 peak (Gflop/s)';
}

function label({ file }) {
  return file.replace(/\.gguf$/, '');
}

/** How cost grows: a table and a plot a part. */
function curves({ model, limits, parts }) {
  const axes = {
    context: ['tokens held', 'Decoding against context'],
    prompt: ['tokens of the prompt', 'Prompt against its length'],
    sessions: ['sessions at once', 'Sessions that decode together'],
  };
  const measured = Object.entries(parts).filter(([, { points }]) => points.length > 0);
  const tables = measured.map(([part, { points }]) => {
    const head = [axes[part][0], ...points.map(({ x }) => x)];
    const rates = ['tok/s', ...points.map(({ tokensPerSecond }) => figure(tokensPerSecond))];
    return markdown([head, rates]);
  });
  const plots = measured.map(([part, { points }]) => {
    const name = label(model);
    const series = [{ name, points: points.map((at) => [at.x, at.tokensPerSecond]) }];
    const [x, title] = axes[part];
    return [part, lines({ title: `${title}: ${name}`, x, y: 'tokens a second', series })];
  });
  const { min, max } = limits.readGBs;
  const read = `Read limit before, between and after: ${figure(min)} to ${figure(max)} GB/s.`;
  const title = `How cost grows: ${label(model)}`;
  return { title, parts: [read, ...tables], plots: Object.fromEntries(plots) };
}

/** Kernels: the share of the limit that binds, of one row and of the most rows. */
function kernels({ rows }) {
  const most = Math.max(...rows.map((row) => row.rows));
  const types = [...new Set(rows.map(({ type }) => type))];
  const find = (type, count) => rows.find((row) => row.type === type && row.rows === count);
  const one = (row) => row && { value: 100 * row.readShare, label: figure(row.GBs) };
  const many = (row) => row && { value: 100 * row.peakShare, label: figure(row.Gops) };
  const groups = types.map((type) => {
    return { name: type, bars: [one(find(type, 1)), many(find(type, most))] };
  });
  const names = ['1 row: % of the read limit (GB/s)', `${most} rows: % of the peak (Gop/s)`];
  const head = ['kernel', 'rows', 'ms', 'GB/s', 'of read limit', 'Gop/s', 'of peak', 'peak'];
  const cells = rows.map((row) => [
    ...[row.kernel, row.rows, figure(row.ms), figure(row.GBs), percent(row.readShare)],
    ...[figure(row.Gops), percent(row.peakShare), row.peak],
  ]);
  const note = 'The limits are measured before every line, on the same threads.';
  const title = `Kernels, ${rows[0].threads} threads`;
  const plot = { title, x: 'type of the weights', y: '% of the limit', names, most: 100 };
  // More names than these would not fit beside each other.
  const per = 9;
  const plots = {};
  for (let at = 0; at < groups.length; at += per) {
    plots[at ? `shares-${at / per + 1}` : 'shares'] = bars({
      ...plot,
      groups: groups.slice(at, at + per),
    });
  }
  return { title: 'Kernels', parts: [note, markdown([head, ...cells])], plots };
}

/** Passes of so many rows through a whole model. */
function passes({ arguments: [file], rows }) {
  const points = rows.map((row) => [row.rows, row.tokensPerSecond]);
  const first = rows[0];
  const head = ['rows in a pass', 'ms', 'best ms', 'tok/s', `of ${first.rows}, time`];
  if (first.of) head.push('share of limit', 'read limit GB/s');
  const cells = rows.map((row) => [
    ...[row.rows, figure(row.medianMs), figure(row.bestMs), figure(row.tokensPerSecond)],
    `${figure(row.medianMs / first.medianMs)}x`,
    ...(first.of ? [`${percent(row.share)} (${row.of})`, figure(row.readGBps)] : []),
  ]);
  const name = label({ file });
  const axes = { x: 'rows in a pass', y: 'tokens a second', series: [{ name, points }] };
  const rates = lines({ title: `Rows in one pass: ${name}`, ...axes });
  return {
    title: `Rows in one pass: ${name}`,
    parts: [markdown([head, ...cells])],
    plots: { rates },
  };
}

/** Contexts in the CPU backend, a line a type of KV cache. */
function context({ rows }) {
  const kind = ({ kv: { k, v } }) => (k === v ? k : `${k}:${v}`);
  const series = (part, x) =>
    rows
      .filter((row) => row[part].length > 0)
      .map((row) => {
        return { name: kind(row), points: row[part].map((at) => [at[x], at.tokensPerSecond]) };
      });
  const [decode, prefill] = [series('decode', 'context'), series('prefill', 'prompt')];
  const table = (all, what) =>
    markdown([
      [what, ...all[0].points.map(([x]) => x)],
      ...all.map(({ name, points }) => [name, ...points.map(([, y]) => figure(y))]),
    ]);
  const name = label({ file: rows[0].model });
  const y = 'tokens a second';
  const plots = {};
  const parts = [];
  if (decode.length > 0) {
    const title = `Decoding against context, by KV cache: ${name}`;
    plots.decode = lines({ title, x: 'tokens held', y, series: decode });
    parts.push(table(decode, 'decode tok/s; tokens held'));
  }
  if (prefill.length > 0) {
    const title = `Prompt against its length, by KV cache: ${name}`;
    plots.prefill = lines({ title, x: 'tokens of the prompt', y, series: prefill });
    parts.push(table(prefill, 'prompt tok/s; tokens'));
  }
  return { title: `Context and KV cache: ${name}`, parts, plots };
}
