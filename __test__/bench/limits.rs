//! What this machine can do, measured in the run that compares with it: memory reads, int8 and f32
//! multiply-adds out of registers, on all threads of a pool.
#![allow(unsafe_code, reason = "peaks need the instructions themselves")]
#![allow(dead_code, reason = "each bench takes the limits it is held to")]

use node_chord::backend::cpu::kernel::buffer::Buffer;
use node_chord::backend::cpu::pool::Pool;
use node_chord::backend::cpu::simd::Tier;
use std::hint::black_box;
use std::time::Instant;

/// GB/s read, Gop/s of int8 and f32 (a multiply-add is two).
pub struct Limits {
    pub read: f64,
    pub int8: f64,
    pub f32: f64,
}

/// Steps of a peak loop.
const LOOPS: usize = 200_000;

thread_local! {
    static MEMORY: Buffer<u8> = Buffer::new(256 << 20).expect("memory");
}

/// Measures all of it, about a tenth of a second. The best of each counts: a neighbour only slows.
pub fn measure(pool: &mut Pool, tier: Tier) -> Limits {
    let read = read(pool, tier, 12);
    let threads = pool.threads();
    let (mut int8, mut f32) = (0f64, 0f64);
    for _ in 0..3 {
        let (ops, time) = (ops8(tier), run(pool, |_| peak8(tier)));
        int8 = int8.max(ops * (LOOPS * threads) as f64 / time / 1e9);
        let (ops, time) = (if wide(tier) { 384.0 } else { 160.0 }, run(pool, |_| peak32(tier)));
        f32 = f32.max(ops * (LOOPS * threads) as f64 / time / 1e9);
    }
    Limits { read, int8, f32 }
}

/// GB/s read, the best of so many times 256 MiB.
pub fn read(pool: &mut Pool, tier: Tier, times: usize) -> f64 {
    let threads = pool.threads();
    MEMORY.with(|memory| {
        let part = memory.len() / threads;
        let rates = (0..times).map(|_| {
            let time = run(pool, |t| sum(tier, &memory[t * part..(t + 1) * part]));
            (part * threads) as f64 / time / 1e9
        });
        rates.fold(0.0, f64::max)
    })
}

fn wide(tier: Tier) -> bool {
    tier.name() == "avx512"
}

fn ops8(tier: Tier) -> f64 {
    if wide(tier) { 12.0 * 128.0 } else { 8.0 * 64.0 }
}

/// Runs a body once on every thread; the time of all.
fn run(pool: &mut Pool, body: impl Fn(usize) + Sync) -> f64 {
    let at = Instant::now();
    let threads = pool.threads();
    pool.run(threads, &|chunk, _| body(chunk)).expect("a pool that works");
    at.elapsed().as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Accumulators start out of a `black_box`: equal ones would be moved about instead of kept.
    use std::arch::x86_64::*;
    use std::hint::black_box;

    #[target_feature(enable = "avx512f")]
    pub fn sum512(p: &[u8]) -> i64 {
        let mut s = [_mm512_setzero_si512(); 4];
        for line in p.as_chunks::<256>().0 {
            for (k, s) in s.iter_mut().enumerate() {
                // SAFETY: 64 bytes inside the line.
                let v = unsafe { _mm512_loadu_si512(line.as_ptr().add(64 * k).cast()) };
                *s = _mm512_add_epi64(*s, v);
            }
        }
        _mm512_reduce_add_epi64(_mm512_add_epi64(
            _mm512_add_epi64(s[0], s[1]),
            _mm512_add_epi64(s[2], s[3]),
        ))
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn int512(loops: usize) -> i32 {
        let mut s = black_box([_mm512_setzero_si512(); 12]);
        let a = _mm512_set1_epi8(black_box(3));
        for _ in 0..loops {
            for s in &mut s {
                *s = _mm512_dpbusd_epi32(*s, a, a);
            }
        }
        s.into_iter().map(|s| _mm512_reduce_add_epi32(s)).sum()
    }

    #[target_feature(enable = "avx512f")]
    pub fn float512(loops: usize) -> f32 {
        let a = _mm512_set1_ps(black_box(0.5));
        let mut s = black_box([a; 12]);
        for _ in 0..loops {
            for s in &mut s {
                *s = _mm512_fmadd_ps(a, a, *s);
            }
        }
        s.into_iter().map(|s| _mm512_reduce_add_ps(s)).sum()
    }

    #[target_feature(enable = "avx2")]
    pub fn int256(loops: usize) -> __m256i {
        let mut s = black_box([_mm256_setzero_si256(); 8]);
        let a = _mm256_set1_epi8(black_box(3));
        for _ in 0..loops {
            for s in &mut s {
                let words = _mm256_madd_epi16(_mm256_maddubs_epi16(a, *s), a);
                *s = _mm256_add_epi32(*s, words);
            }
        }
        s.into_iter().fold(a, |a, b| _mm256_add_epi32(a, b))
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn float256(loops: usize) -> __m256 {
        let a = _mm256_set1_ps(black_box(0.5));
        let mut s = black_box([a; 10]);
        for _ in 0..loops {
            for s in &mut s {
                *s = _mm256_fmadd_ps(a, a, *s);
            }
        }
        s.into_iter().fold(a, |a, b| _mm256_add_ps(a, b))
    }
}

#[cfg(target_arch = "x86_64")]
fn sum(tier: Tier, p: &[u8]) {
    if wide(tier) {
        // SAFETY: the tier has AVX-512.
        black_box(unsafe { x86::sum512(p) });
    } else {
        black_box(p.as_chunks::<8>().0.iter().fold(0u64, |s, b| s ^ u64::from_le_bytes(*b)));
    }
}

#[cfg(target_arch = "x86_64")]
fn peak8(tier: Tier) {
    if wide(tier) {
        // SAFETY: the tier has AVX-512 VNNI.
        black_box(unsafe { x86::int512(LOOPS) });
    } else if tier.name() != "portable" {
        // SAFETY: the tier has AVX2.
        black_box(unsafe { x86::int256(LOOPS) });
    }
}

#[cfg(target_arch = "x86_64")]
fn peak32(tier: Tier) {
    if wide(tier) {
        // SAFETY: the tier has AVX-512.
        black_box(unsafe { x86::float512(LOOPS) });
    } else if tier.name() != "portable" {
        // SAFETY: the tier has AVX2 and FMA.
        black_box(unsafe { x86::float256(LOOPS) });
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn sum(_: Tier, p: &[u8]) {
    black_box(p.as_chunks::<8>().0.iter().fold(0u64, |s, b| s ^ u64::from_le_bytes(*b)));
}

#[cfg(not(target_arch = "x86_64"))]
fn peak8(_: Tier) {}

#[cfg(not(target_arch = "x86_64"))]
fn peak32(_: Tier) {}
