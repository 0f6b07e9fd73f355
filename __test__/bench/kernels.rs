//! Kernels by type and rows: GB/s of weights, Gop/s, and the share of what this machine can do,
//! measured in the same run. `cargo bench --bench kernels -- [threads] [types] [rows] [--json]`,
//! for example `2 Q4_K,Q6_K 1,8,512`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool for developers")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

#[path = "limits.rs"]
mod limits;

use node_chord::backend::cpu::cores::default_threads;
use node_chord::backend::cpu::kernel::acts::ActCache;
use node_chord::backend::cpu::kernel::buffer::Buffer;
use node_chord::backend::cpu::kernel::drive::{Product, products};
use node_chord::backend::cpu::kernel::quantise::ActKind;
use node_chord::backend::cpu::kernel::stripe::Shared;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use node_chord::backend::cpu::table::Table;
use node_chord::quant::TensorType;
use std::time::Instant;

const ROWS: &[usize] = &[1, 4, 8, 32, 128, 512];
/// Width of the matrices: TinyLlama's.
const K: usize = 2048;
/// Rows of all matrices together, so that decode reads memory and not caches.
const N_OUT: usize = 65_536;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let json = std::env::args().any(|arg| arg == "--json");
    let threads = args.first().and_then(|t| t.parse().ok()).unwrap_or_else(default_threads);
    let listed = |name: &str| args.get(1).is_none_or(|list| list.split(',').any(|t| t == name));
    let rows: Vec<usize> = args.get(2).map_or(ROWS.to_vec(), |list| {
        list.split(',').map(|n| n.parse().expect("a number of rows")).collect()
    });
    let tier = std::env::var("CHORD_BENCH_TIER")
        .map_or_else(|_| Tier::detect(), |name| Tier::by_name(&name).expect("a tier of this CPU"));
    let mut pool = Pool::new(threads).unwrap();
    if !json {
        println!("tier {}, {threads} threads, [{N_OUT}, {K}]", tier.name());
        println!(
            "{:36} {:>5} {:>9} {:>8} {:>9} {:>6} {:>6}",
            "", "rows", "ms", "GB/s", "Gop/s", "read", "peak"
        );
    }
    for kind in TensorType::ALL.iter().copied().filter(|kind| listed(kind.name())) {
        let bytes = kind.row_bytes(K).unwrap() * N_OUT;
        let mut weights = Buffer::<u8>::new(bytes).unwrap();
        fill(kind, &mut weights);
        for n in rows.iter().copied() {
            let limits = limits::measure(&mut pool, tier);
            let table = Table::new(tier);
            let time = measure(&mut pool, &table, kind, &weights, n);
            let is_float = table.linear(kind).act == ActKind::Float;
            let peak = if is_float { limits.f32 } else { limits.int8 };
            let (gb, gop) = (bytes as f64 / time / 1e9, 2.0 * (N_OUT * K * n) as f64 / time / 1e9);
            let (name, ms) = (table.name(kind), time * 1e3);
            let (read_share, peak_share) = (gb / limits.read, gop / peak);
            if json {
                let line = serde_json::json!({
                    "kernel": name, "type": kind.name(), "rows": n, "threads": threads, "ms": ms,
                    "GBs": gb, "Gops": gop, "readShare": read_share, "peakShare": peak_share,
                    "peak": if is_float { "f32" } else { "int8" },
                });
                println!("{line}");
            } else {
                let (read, peak) = (100.0 * read_share, 100.0 * peak_share);
                println!("{name:36} {n:5} {ms:9.3} {gb:8.1} {gop:9.1} {read:5.0}% {peak:5.0}%");
            }
        }
    }
}

/// Bits that look like weights: scales must be numbers, or subnormals slow things down.
fn fill(kind: TensorType, weights: &mut [u8]) {
    let mut state = 1u64;
    for byte in weights.iter_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
        *byte = (state >> 56) as u8;
    }
    let one = half::f16::from_f32(0.01).to_le_bytes();
    for block in weights.chunks_exact_mut(kind.block_bytes()) {
        match kind {
            TensorType::F32 => block.copy_from_slice(&0.01f32.to_le_bytes()),
            TensorType::F16 | TensorType::BF16 => block.copy_from_slice(&one),
            TensorType::Q8_K => block[..4].copy_from_slice(&0.01f32.to_le_bytes()),
            TensorType::Q2_K => block[80..84].copy_from_slice(&[one[0], one[1], one[0], one[1]]),
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => {
                block[..4].copy_from_slice(&[one[0], one[1], one[0], one[1]]);
            }
            TensorType::Q3_K | TensorType::Q6_K | TensorType::TQ1_0 | TensorType::TQ2_0 => {
                let at = block.len() - 2;
                block[at..].copy_from_slice(&one);
            }
            TensorType::IQ1_M => block[55] = 0x20 | block[55] & 15,
            TensorType::MXFP4 => block[0] = 120,
            TensorType::NVFP4 => block[..4].fill(0x30),
            _ => block[..2].copy_from_slice(&one),
        }
    }
}

/// Median time of one product.
fn measure(pool: &mut Pool, table: &Table, kind: TensorType, weights: &[u8], n: usize) -> f64 {
    let tier = table.tier();
    let x: Vec<f32> = (0..n * K).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let mut out = Buffer::<f32>::new(n * N_OUT).unwrap();
    let mut acts = ActCache::default();
    let kernel = table.linear(kind);
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || (start.elapsed().as_secs_f64() < 0.4 && times.len() < 50) {
        let at = Instant::now();
        acts.clear();
        acts.prepare(0, kernel, (tier, pool), (&x, K), &mut std::iter::once(0..n)).unwrap();
        let shared = Shared::new(&mut out, N_OUT);
        let one = |_| Ok(Product { kernel, weights, n_out: N_OUT, k: K, rows: 0..n, out: &shared });
        products((tier, pool), &acts, &x, (1, &one), None).unwrap();
        times.push(at.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
