//! Times passes of a model file on the CPU backend: decode, small batches, prefill, each between
//! two looks at what the machine can do. `cargo bench --bench model -- FILE [threads]
//! [rows,rows,..] [--json]`; weights are mapped as the product maps them, and read before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "limits.rs"]
mod limits;

use node_chord::backend::cpu::cores::default_threads;
use node_chord::backend::cpu::kernel::quantise::ActKind;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use node_chord::backend::cpu::table::Table;
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::plan::{Op, Plan};
use node_chord::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most passes of one number of rows.
const PASSES: usize = 100;
/// Up to so many rows a pass is held to the read limit.
const ROWS_READ: usize = 16;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let json = std::env::args().any(|arg| arg == "--json");
    let Some(path) = args.first() else { return println!("usage: model FILE [threads] [rows]") };
    let threads = args.get(1).and_then(|t| t.parse().ok());
    let rows = args.get(2).map_or("1,2,4,8,16,32,128,512", String::as_str);
    let tier = std::env::var("CHORD_BENCH_TIER").ok();
    let file = node_chord::gguf::File::open(std::path::Path::new(path)).unwrap();
    let plan = Arc::new(node_chord::model::plan(&file).unwrap());
    let cpu = Cpu::new(plan.clone(), Config { threads, tier, ..Config::default() }).unwrap();
    let tier = Tier::by_name(cpu.tier()).unwrap();
    let mut bench = Bench {
        store: Store::open(&file, &plan).unwrap(),
        meter: Pool::new(threads.unwrap_or_else(default_threads)).unwrap(),
        work: Work::of(&plan, tier),
        pages: (0..64).map(PageId).collect(),
        plan,
        cpu,
        tier,
    };
    if !json {
        println!("{path}: tier {}", tier.name());
    }
    bench.pages.iter().for_each(|page| bench.cpu.page_commit(*page).unwrap());
    // Whatever the file system has to read is read here.
    bench.pass(0, 1);
    for n in rows.split(',').map(|n| n.parse::<usize>().unwrap()) {
        bench.measure(n).tell(json, tier.name());
    }
}

struct Bench {
    cpu: Cpu,
    plan: Arc<Plan>,
    store: Store,
    pages: Vec<PageId>,
    /// Measures what the machine can do.
    meter: Pool,
    tier: Tier,
    work: Work,
}

impl Bench {
    /// Times passes of `n` rows for some seconds.
    fn measure(&mut self, n: usize) -> Line {
        let barriers = self.cpu.barriers();
        let (mut times, mut shares, mut reads) = (Vec::new(), Vec::new(), Vec::new());
        let peaks = limits::measure(&mut self.meter, self.tier);
        let peak = if self.work.is_float { peaks.f32 } else { peaks.int8 };
        let (start, mut position) = (Instant::now(), 0);
        let mut before = self.read_limit();
        while times.len() < 3 || (start.elapsed().as_secs_f64() < 3.0 && times.len() < PASSES) {
            let time = self.pass(position, n).as_secs_f64();
            let after = if n <= ROWS_READ { self.read_limit() } else { before };
            let limit = before.midpoint(after);
            shares.push(if n <= ROWS_READ {
                self.work.bytes / time / 1e9 / limit
            } else {
                2.0 * self.work.values * n as f64 / time / 1e9 / peak
            });
            reads.push(limit);
            times.push(time);
            before = after;
            position = if n == 1 { (position + 1) % (60 * PAGE_TOKENS) } else { 0 };
        }
        Line {
            rows: n,
            barriers: (self.cpu.barriers() - barriers) / times.len() as u64,
            best: times.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(&mut times),
            share: median(&mut shares),
            read: median(&mut reads),
            is_whole: self.work.is_whole,
        }
    }

    /// GB/s.
    fn read_limit(&mut self) -> f64 {
        limits::read(&mut self.meter, self.tier, 2)
    }

    /// Runs one pass of `n` rows that follow each other; its time.
    fn pass(&mut self, position: usize, n: usize) -> Duration {
        let row = |i: usize| Row {
            token: (i * 7919 % 1000) as u32,
            position: (position + i) as u32,
            sequence: 0,
            wants_logits: i == n - 1,
        };
        let rows = (0..n).map(row).collect();
        let batch = Batch { rows, sequences: vec![self.pages.clone()] };
        let at = Instant::now();
        self.cpu.begin(&batch).unwrap();
        for group in self.plan.group_ids() {
            self.cpu.run(group, &self.store.acquire(group).unwrap(), None).unwrap();
        }
        at.elapsed()
    }
}

/// What a pass has to do at least.
struct Work {
    /// Bytes of weights that every pass reads.
    bytes: f64,
    /// Weights that every row is multiplied with: all but the head's.
    values: f64,
    /// Whether most of them are multiplied as floats.
    is_float: bool,
    /// Whether that is all: not if it depends on a router.
    is_whole: bool,
}

impl Work {
    fn of(plan: &Plan, tier: Tier) -> Self {
        let table = Table::new(tier);
        let (mut bytes, mut values, mut floats, mut is_whole) = (0, 0, 0, true);
        for step in plan.groups.iter().flat_map(|group| &group.steps) {
            is_whole &= !matches!(step.op, Op::Experts(_));
            for weight in step.weights.iter().filter(|_| step.op == Op::Linear) {
                let weight = plan.weight(*weight);
                let n = weight.shape.iter().product::<usize>();
                bytes += weight.extent.bytes;
                if !plan.value(step.output).selected {
                    values += n;
                    let is_float = table.linear(weight.kind).act == ActKind::Float;
                    floats += if is_float { n } else { 0 };
                }
            }
        }
        let (bytes, is_float) = (bytes as f64, 2 * floats > values);
        Work { bytes, values: values as f64, is_float, is_whole }
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// What is told of a number of rows; times in seconds, medians.
struct Line {
    rows: usize,
    barriers: u64,
    median: f64,
    best: f64,
    share: f64,
    /// GB/s that memory gave meanwhile.
    read: f64,
    is_whole: bool,
}

impl Line {
    /// A line for people or for records.
    fn tell(&self, json: bool, tier: &str) {
        let Line { rows, barriers, share, read, .. } = self;
        let rate = *rows as f64 / self.median;
        let (median, best) = (self.median * 1e3, self.best * 1e3);
        let limit = if *rows <= ROWS_READ { "read" } else { "peak" };
        if json {
            let mut line = serde_json::json!({
                "rows": rows, "tier": tier, "medianMs": median, "bestMs": best,
                "tokensPerSecond": rate, "barriers": barriers, "readGBps": read,
            });
            if self.is_whole {
                line["share"] = (*share).into();
                line["of"] = limit.into();
            }
            println!("{line}");
            return;
        }
        let times = format!("median {median:9.2} ms, best {best:9.2} ms");
        let share = self.is_whole.then(|| format!(", {:.0} % of {limit}", share * 100.0));
        let share = share.unwrap_or_default();
        let rest = format!("{share}, {read:.0} GB/s, {barriers} barriers");
        println!("{rows:5} rows: {times}, {rate:8.1} tok/s{rest}");
    }
}
