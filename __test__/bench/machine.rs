//! The machine's limits alone, as one line of JSON: `cargo bench --bench machine -- [threads]`.
//! The end-to-end benches run it between their runs, so that shares are of the same minute.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]

mod limits;

use node_chord::backend::cpu::cores::default_threads;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let threads = threads.unwrap_or_else(default_threads);
    let tier = Tier::detect();
    let limits = limits::measure(&mut Pool::new(threads).unwrap(), tier);
    let line = serde_json::json!({
        "tier": tier.name(),
        "threads": threads,
        "readGBs": limits.read,
        "int8Gops": limits.int8,
        "f32Gflops": limits.f32,
    });
    println!("{line}");
}
