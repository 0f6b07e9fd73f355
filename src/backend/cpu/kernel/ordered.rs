//! Types of 256-value blocks as vectors of 64 codes in the order of memory, and their scales.

use super::super::simd::in_order::InOrder;
use super::in_order::{Ordered, Sums, Taken};
use super::registers::{Dot256, bytes};
use super::unpack::Q6K;
use super::unpack_grid::{IQ4_CODES, IQ4XS, TQ20};

/// Places of vectors whose halves are 32 values from these on.
const fn halves(at: [[usize; 2]; 4]) -> [[u8; 64]; 4] {
    let mut out = [[0; 64]; 4];
    let mut i = 0;
    while i < 256 {
        out[i / 64][i % 64] = (at[i / 64][i % 64 / 32] + i % 32) as u8;
        i += 1;
    }
    out
}

/// Bytes over and over.
pub(super) const fn repeated<const N: usize>(bytes: [u8; N]) -> [u8; 64] {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = bytes[i % N];
        i += 1;
    }
    out
}

/// `from`, so many times, then `step` more, and so on, around 64.
pub(super) const fn steps(from: usize, step: usize, times: usize) -> [u8; 64] {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = ((from + i / times * step) % 64) as u8;
        i += 1;
    }
    out
}

impl Ordered for IQ4XS {
    const BYTES: usize = 136;
    const PLACES: &'static [[u8; 64]; 4] = &{
        let (mut out, mut i) = ([[0; 64]; 4], 0);
        while i < 256 {
            out[i / 128 * 2 + i % 32 / 16][i % 128 / 32 * 16 + i % 16] = i as u8;
            i += 1;
        }
        out
    };
    const OFFSET: u8 = 128;
    const SUMS: Sums = Sums::Fours(2);
    const FACTOR: (usize, f32) = (0, 1.0);

    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], _: [S::B; 2]) -> Taken<S> {
        // Look-ups see six bits, of which a nibble's two are foreign.
        const CODES: [u8; 64] = repeated(IQ4_CODES);
        // A scale of six bits for each quarter of a vector.
        const LOW: [[u8; 64]; 2] = [steps(32, 4, 16), steps(48, 4, 16)];
        const HIGH: [[u8; 64]; 2] = [steps(12, 2, 16), steps(20, 2, 16)];
        let (q, r) = (s.load_b(bytes(block, 8)), s.load_b(bytes(block, 72)));
        let codes = [q, s.shr_b::<4>(q), r, s.shr_b::<4>(r)];
        let mut taken = Taken::new(s, codes);
        for code in &mut taken.codes {
            *code = s.look_up_64(&CODES, *code);
        }
        let head = s.splat_8(bytes(block, 0));
        for i in 0..2 {
            let low = s.and_b(s.bits_from(head, &LOW[i]), s.as_b(s.splat_i(15)));
            let high = s.and_b(s.bits_from(head, &HIGH[i]), s.as_b(s.splat_i(48)));
            taken.scales[i] = s.as_b(s.add_i(s.as_i(s.or_b(low, high)), s.splat_i(-32)));
        }
        taken
    }
}

impl Ordered for TQ20 {
    const BYTES: usize = 66;
    const PLACES: &'static [[u8; 64]; 4] = &halves(<TQ20 as Dot256>::HALVES);
    const OFFSET: u8 = 1;
    const SUMS: Sums = Sums::One;
    const FACTOR: (usize, f32) = (64, 1.0);

    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], _: [S::B; 2]) -> Taken<S> {
        Taken::new(s, <TQ20 as Dot256>::codes(s, block))
    }
}

impl Ordered for Q6K {
    const BYTES: usize = 210;
    const PLACES: &'static [[u8; 64]; 4] = &halves(<Q6K as Dot256>::HALVES);
    const OFFSET: u8 = 32;
    const SUMS: Sums = Sums::Pairs;
    const FACTOR: (usize, f32) = (208, 1.0);

    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], _: [S::B; 2]) -> Taken<S> {
        let mut taken = Taken::new(s, <Q6K as Dot256>::codes(s, block));
        (taken.words, taken.scales) = s.scales16(s.splat_16(bytes(block, 192)));
        taken
    }
}
