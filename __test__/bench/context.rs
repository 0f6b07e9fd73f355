//! How cost grows with context: decode tok/s against the tokens that a session holds, prefill
//! against the length of a prompt, and the share of it that attention takes, by type of KV cache.
//! `cargo bench --bench context -- FILE [--threads N] [--kv f16,q8_0:q4_0] [--decode 128,8192]
//! [--prefill 512,8192] [--json]`; `k:v` where the two differ. Contexts are filled with zeros.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "limits.rs"]
mod limits;

use node_chord::backend::cpu::cores::default_threads;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::plan::{Op, Plan};
use node_chord::store::Lease;
use node_chord::tools::open::kv_type;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Rows of a prompt's pass.
const CHUNK: usize = 512;
/// Decode steps of a context, interleaved with those of the others.
const STEPS: usize = 9;

/// A model on the CPU backend with pages for a context.
struct Subject<'m> {
    cpu: Cpu,
    plan: Arc<Plan>,
    lease: &'m Lease<'m>,
    pages: Vec<PageId>,
}

impl Subject<'_> {
    /// Seconds that a pass of `n` rows from `position` on takes.
    fn pass(&mut self, position: usize, n: usize) -> f64 {
        let start = Instant::now();
        self.begin(position, n);
        for group in self.plan.group_ids() {
            self.cpu.run(group, self.lease, None).unwrap();
        }
        start.elapsed().as_secs_f64()
    }

    /// Seconds of such a pass that its attention steps take, each step run by itself.
    fn attention(&mut self, position: usize, n: usize) -> f64 {
        self.begin(position, n);
        let mut sum = 0.0;
        for group in self.plan.clone().group_ids() {
            let steps = &self.plan.group(group).steps;
            let mut last = Instant::now();
            let mut probe = |_, index: usize, _, _: &[f32]| {
                let now = Instant::now();
                if matches!(steps[index].op, Op::Attend(_)) {
                    sum += (now - last).as_secs_f64();
                }
                last = now;
            };
            self.cpu.run(group, self.lease, Some(&mut probe)).unwrap();
        }
        sum
    }

    fn begin(&mut self, position: usize, n: usize) {
        let row = |i: usize| Row {
            token: (i * 7919 % 1000) as u32,
            position: (position + i) as u32,
            sequence: 0,
            wants_logits: i == n - 1,
        };
        let rows = (0..n).map(row).collect();
        self.cpu.begin(&Batch { rows, sequences: vec![self.pages.clone()] }).unwrap();
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let numbers = |name: &str, or: &str| -> Vec<usize> {
        let list = option(name).map_or(or, String::as_str).split(',').filter(|n| !n.is_empty());
        list.map(|n| n.parse().expect("numbers")).collect()
    };
    let Some(path) = args.first() else { return println!("usage: context FILE [options]") };
    let threads = option("--threads").map_or_else(default_threads, |n| n.parse().unwrap());
    let decode = numbers("--decode", "128,512,1024,2048,4096,8192");
    let prefill = numbers("--prefill", "128,512,2048,8192");
    let as_json = args.iter().any(|a| a == "--json");
    let file = node_chord::gguf::File::open(std::path::Path::new(path)).unwrap();
    let plan = Arc::new(node_chord::model::plan(&file).unwrap());
    let parts: Vec<_> = file.parts().iter().map(|p| std::fs::read(&p.path).unwrap()).collect();
    let slice = |w: &node_chord::plan::Weight| {
        let from = w.extent.offset as usize;
        Some(&parts[w.extent.part as usize][from..from + w.extent.bytes as usize])
    };
    let slices: Vec<Option<&[u8]>> = plan.weights.iter().map(slice).collect();
    let lease = Lease::new(&slices);
    let mut records = Vec::new();
    for name in option("--kv").map_or("f16", String::as_str).split(',') {
        let (k, v) = name.split_once(':').unwrap_or((name, name));
        let (kv_k, kv_v) = (kv_type(k).unwrap(), kv_type(v).unwrap());
        let config = Config { threads: Some(threads), kv_k, kv_v, ..Config::default() };
        let mut cpu = Cpu::new(plan.clone(), config).unwrap();
        let tokens = decode.iter().chain(&prefill).max().unwrap_or(&0) + 1;
        let pages: Vec<_> = (0..tokens.div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
        pages.iter().for_each(|page| cpu.page_commit(*page).unwrap());
        let limits = limits::measure(&mut Pool::new(threads).unwrap(), Tier::detect());
        let mut subject = Subject { cpu, plan: plan.clone(), lease: &lease, pages };
        let record = json!({
            "model": path, "threads": threads, "kv": { "k": k, "v": v }, "tier": subject.cpu.tier(),
            "bytesPerToken": subject.cpu.page_bytes() / PAGE_TOKENS,
            "limits": { "readGBs": limits.read, "int8Gops": limits.int8, "f32Gops": limits.f32 },
            "decode": curve(&mut subject, &decode), "prefill": prompts(&mut subject, &prefill),
        });
        if !as_json {
            print(&record);
        }
        records.push(record);
    }
    if as_json {
        println!("{}", Value::from(records));
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Decode against context.
fn curve(subject: &mut Subject<'_>, contexts: &[usize]) -> Vec<Value> {
    let mut times = vec![(Vec::new(), Vec::new()); contexts.len()];
    for step in 0..=STEPS {
        for (context, (all, attention)) in contexts.iter().zip(&mut times) {
            let time = subject.pass(context - 1, 1);
            // The first step makes room.
            if step > 0 {
                all.push(time);
                attention.push(subject.attention(context - 1, 1));
            }
        }
    }
    let point = |(context, (all, attention)): (&usize, &mut (Vec<f64>, Vec<f64>))| {
        let time = median(all);
        json!({ "context": context, "tokensPerSecond": 1.0 / time, "ms": 1e3 * time,
            "attentionMs": 1e3 * median(attention) })
    };
    contexts.iter().zip(&mut times).map(point).collect()
}

/// Prefill against the length of a prompt, once each: long ones take seconds.
fn prompts(subject: &mut Subject<'_>, lengths: &[usize]) -> Vec<Value> {
    let chunks = |n: usize| (0..n).step_by(CHUNK).map(move |at| (at, CHUNK.min(n - at)));
    let point = |n: &usize| {
        let runs = (1024 / n).clamp(1, 3);
        let mut whole = |_| chunks(*n).map(|(at, n)| subject.pass(at, n)).sum::<f64>();
        let time = median(&mut (0..runs).map(&mut whole).collect::<Vec<_>>());
        let attention: f64 = chunks(*n).map(|(at, n)| subject.attention(at, n)).sum();
        json!({ "prompt": n, "tokensPerSecond": *n as f64 / time, "ms": 1e3 * time,
            "attentionMs": 1e3 * attention })
    };
    lengths.iter().map(point).collect()
}

fn print(record: &Value) {
    println!(
        "{}: tier {}, {} threads, k {}, v {}, {} bytes a token; read {:.1} GB/s, f32 {:.0} Gop/s",
        record["model"].as_str().unwrap(),
        record["tier"].as_str().unwrap(),
        record["threads"],
        record["kv"]["k"].as_str().unwrap(),
        record["kv"]["v"].as_str().unwrap(),
        record["bytesPerToken"],
        record["limits"]["readGBs"].as_f64().unwrap(),
        record["limits"]["f32Gops"].as_f64().unwrap(),
    );
    for (kind, x) in [("decode", "context"), ("prefill", "prompt")] {
        let points = record[kind].as_array().unwrap();
        let rate = |point: &Value| point["tokensPerSecond"].as_f64().unwrap();
        for point in points {
            println!(
                "{kind:8} {:6} tokens: {:8.2} tok/s ({:3.0} %), {:9.2} ms, attention {:9.2} ms",
                point[x],
                rate(point),
                100.0 * rate(point) / rate(&points[0]),
                point["ms"].as_f64().unwrap(),
                point["attentionMs"].as_f64().unwrap(),
            );
        }
    }
}
