//! The portable tier: plain loops. It is slow and obviously right, the oracle of the others.

use super::Simd;
use half::{bf16, f16};

/// Sixteen lanes in an array.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

type F = [f32; 16];

fn lanes(f: impl Fn(usize) -> f32) -> F {
    std::array::from_fn(f)
}

/// Two bytes of lane `l`.
fn half_bits(p: &[u8; 32], l: usize) -> u16 {
    u16::from_le_bytes([p[2 * l], p[2 * l + 1]])
}

fn halves(v: F, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut v = v;
    for width in [8, 4, 2, 1] {
        for l in 0..width {
            v[l] = f(v[l], v[l + width]);
        }
    }
    v[0]
}

impl Simd for Portable {
    const REGISTERS: usize = 1;
    type F = F;

    fn splat(self, x: f32) -> F {
        [x; 16]
    }
    fn load(self, p: &[f32; 16]) -> F {
        *p
    }
    fn store(self, v: F, p: &mut [f32; 16]) {
        *p = v;
    }
    fn half(self, bits: u16) -> f32 {
        f16::from_bits(bits).to_f32()
    }
    fn load_f16(self, p: &[u8; 32]) -> F {
        lanes(|l| f16::from_bits(half_bits(p, l)).to_f32())
    }
    fn load_bf16(self, p: &[u8; 32]) -> F {
        lanes(|l| f32::from_bits(u32::from(half_bits(p, l)) << 16))
    }
    fn load_i8(self, p: &[u8; 16]) -> F {
        lanes(|l| f32::from(p[l].cast_signed()))
    }
    fn store_f16(self, v: F, p: &mut [u8; 32]) {
        for (two, x) in p.chunks_exact_mut(2).zip(v) {
            two.copy_from_slice(&f16::from_f32(x).to_bits().to_le_bytes());
        }
    }
    fn add(self, a: F, b: F) -> F {
        lanes(|l| a[l] + b[l])
    }
    fn sub(self, a: F, b: F) -> F {
        lanes(|l| a[l] - b[l])
    }
    fn mul(self, a: F, b: F) -> F {
        lanes(|l| a[l] * b[l])
    }
    fn div(self, a: F, b: F) -> F {
        lanes(|l| a[l] / b[l])
    }
    fn fma(self, a: F, b: F, c: F) -> F {
        lanes(|l| a[l].mul_add(b[l], c[l]))
    }
    fn max(self, a: F, b: F) -> F {
        lanes(|l| if a[l] > b[l] { a[l] } else { b[l] })
    }
    fn min(self, a: F, b: F) -> F {
        lanes(|l| if a[l] < b[l] { a[l] } else { b[l] })
    }
    fn select_lt(self, a: F, b: F, yes: F, no: F) -> F {
        lanes(|l| if a[l] < b[l] { yes[l] } else { no[l] })
    }
    fn round(self, v: F) -> F {
        lanes(|l| v[l].round_ties_even())
    }
    #[allow(clippy::cast_possible_truncation, reason = "n is whole and small")]
    fn exp2_whole(self, n: F) -> F {
        lanes(|l| f32::from_bits((n[l] as i32).wrapping_add(127).cast_unsigned() << 23))
    }
    fn magnitude_max(self, m: F, v: F) -> F {
        lanes(|l| f32::from_bits((v[l].to_bits() & 0x7fff_ffff).max(m[l].to_bits())))
    }
    #[allow(clippy::cast_possible_truncation, reason = "the caller clamped")]
    fn store_i8(self, v: F, p: &mut [i8; 16]) {
        for (q, x) in p.iter_mut().zip(v) {
            *q = x as i8;
        }
    }
    fn reduce_add(self, v: F) -> f32 {
        halves(v, |a, b| a + b)
    }
    fn reduce_max(self, v: F) -> f32 {
        halves(v, |a, b| if a > b { a } else { b })
    }

    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32 {
        let mut total = 0i32;
        for (s, scale) in scales.iter().enumerate() {
            let mut sum = 0;
            for i in 16 * s..16 * s + 16 {
                sum += i32::from(codes[i]) * i32::from(x[i]);
            }
            total = total.wrapping_add(sum * i32::from(*scale));
        }
        total
    }
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32 {
        w.iter().zip(x).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum()
    }
    fn dot16(self, a: &[i16; 16], b: &[i16; 16]) -> i32 {
        a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum()
    }
}

/// bf16 of a number, to nearest even. The same code serves every tier.
#[must_use]
pub fn bf16_bits(x: f32) -> u16 {
    bf16::from_f32(x).to_bits()
}
