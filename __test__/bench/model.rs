//! Times passes of a model file on the CPU backend: decode, small batches, prefill.
//! `cargo bench --bench model -- FILE [threads] [rows,rows,..] [--json]`; weights are read before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]

use node_chord::backend::cpu::{Config, Cpu};
use node_chord::backend::{Backend, Batch, PAGE_TOKENS, PageId, Row};
use node_chord::store::Lease;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let json = std::env::args().any(|arg| arg == "--json");
    let Some(path) = args.first() else { return println!("usage: model FILE [threads] [rows]") };
    let threads = args.get(1).and_then(|t| t.parse().ok());
    let rows = args.get(2).map_or("1,2,4,8,16,32,128,512", String::as_str);
    let tier = std::env::var("CHORD_BENCH_TIER").ok();
    let file = node_chord::gguf::File::open(std::path::Path::new(path)).unwrap();
    let plan = Arc::new(node_chord::model::plan(&file).unwrap());
    let parts: Vec<_> = file.parts().iter().map(|p| std::fs::read(&p.path).unwrap()).collect();
    let slices: Vec<Option<&[u8]>> = plan
        .weights
        .iter()
        .map(|w| {
            let from = w.extent.offset as usize;
            Some(&parts[w.extent.part as usize][from..from + w.extent.bytes as usize])
        })
        .collect();
    let lease = Lease::new(&slices);
    let config = Config { threads, tier, ..Config::default() };
    let mut cpu = Cpu::new(plan.clone(), config).unwrap();
    if !json {
        println!("{path}: tier {}", cpu.tier());
    }
    let pages: Vec<_> = (0..64).map(PageId).collect();
    pages.iter().for_each(|page| cpu.page_commit(*page).unwrap());
    for n in rows.split(',').map(|n| n.parse::<usize>().unwrap()) {
        let barriers = cpu.barriers();
        let mut best = f64::INFINITY;
        let mut times = Vec::new();
        let start = Instant::now();
        let mut position = 0;
        while times.len() < 3 || (start.elapsed().as_secs_f64() < 2.0 && times.len() < 100) {
            let row = |i: usize| Row {
                token: (i * 7919 % 1000) as u32,
                position: (position + i) as u32,
                sequence: 0,
                wants_logits: i == n - 1,
            };
            let batch = Batch { rows: (0..n).map(row).collect(), sequences: vec![pages.clone()] };
            let at = Instant::now();
            cpu.begin(&batch).unwrap();
            for group in plan.group_ids() {
                cpu.run(group, &lease, None).unwrap();
            }
            let time = at.elapsed().as_secs_f64();
            best = best.min(time);
            times.push(time);
            position = if n == 1 { (position + 1) % (60 * PAGE_TOKENS) } else { 0 };
        }
        times.sort_by(f64::total_cmp);
        let barriers = (cpu.barriers() - barriers) / times.len() as u64;
        tell(json, cpu.tier(), (n, barriers), (times[times.len() / 2], best));
    }
}

/// A line for people or for records; times in seconds.
fn tell(json: bool, tier: &str, (n, barriers): (usize, u64), (median, best): (f64, f64)) {
    let rate = n as f64 / median;
    let (median, best) = (median * 1e3, best * 1e3);
    if json {
        let line = serde_json::json!({
            "rows": n, "tier": tier, "medianMs": median, "bestMs": best, "tokensPerSecond": rate,
            "barriers": barriers,
        });
        println!("{line}");
    } else {
        let times = format!("median {median:9.2} ms, best {best:9.2} ms");
        println!("{n:5} rows: {times}, {rate:8.1} tok/s, {barriers} barriers");
    }
}
