//! Types of 256-value blocks as vectors of 64 codes in the order of memory, and their scales.

use super::super::simd::in_order::InOrder;
use super::in_order::{Ordered, Sums, Taken};
use super::registers::{Dot256, bytes};
use super::unpack::Q6K;
use super::unpack_grid::{Gridded, IQ4_CODES, IQ4XS, TQ10, TQ20};

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

/// Digits of a byte of TQ1_0 from `first` on, two bits each.
const fn digits(first: usize, count: usize) -> [u8; 256] {
    const POWERS: [usize; 5] = [1, 3, 9, 27, 81];
    let (mut out, mut i) = ([0; 256], 0);
    while i < 256 * count {
        let (byte, digit) = (i / count, i % count);
        let part = byte * POWERS[first + digit] % 256;
        out[byte] |= ((part * 3) >> 8 << (2 * digit)) as u8;
        i += 1;
    }
    out
}

static FIRST_DIGITS: [u8; 256] = digits(0, 4);
static LAST_DIGITS: [u8; 256] = digits(4, 1);

/// In a vector of the first 32 bytes of TQ1_0 and then 32 from byte 20 on, twelve come a second
/// time: from here on. There the fifth digits of 48 bytes find room, four by four.
const SPARE: usize = 32;

/// Which four bytes of that vector have their fifth digits in the spare byte `i`.
const fn spared(i: usize) -> usize {
    if i < 8 { i } else { i + 3 }
}

impl Ordered for Gridded<TQ10> {
    const BYTES: usize = 54;
    const PLACES: &'static [[u8; 64]; 4] = &{
        let (mut out, mut i) = ([[0; 64]; 4], 0);
        while i < 256 {
            let (digit, at) = (i / 64, i % 64);
            out[digit][at] = match at {
                0..SPARE => 32 * digit + at,
                SPARE..40 => 128 + 4 * spared(at - SPARE) + digit,
                40..44 => 224 + 4 * spared(at - SPARE) + digit - 44,
                44..60 => 160 + 16 * digit + at - 44,
                _ => 240 + 4 * digit + at - 60,
            } as u8;
            i += 1;
        }
        out
    };
    const OFFSET: u8 = 1;
    const SUMS: Sums = Sums::One;
    const FACTOR: (usize, f32) = (52, 1.0);

    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], _: [S::B; 2]) -> Taken<S> {
        // The low byte of the sum of four, or a byte that is 0.
        const FIFTHS: [u8; 64] = {
            let (mut out, mut i) = ([1; 64], 0);
            while i < 12 {
                out[SPARE + i] = 4 * spared(i) as u8;
                i += 1;
            }
            out
        };
        const OTHERS: [u8; 64] = {
            let (mut out, mut i) = ([255; 64], 0);
            while i < 12 {
                out[SPARE + i] = 0;
                i += 1;
            }
            out
        };
        const TIMES: [i8; 64] = {
            let (mut out, mut i) = ([0; 64], 0);
            while i < 64 {
                out[i] = 1 << (i % 4 * 2);
                i += 1;
            }
            out
        };
        let v = s.join(bytes(block, 0), bytes(block, 20));
        let last = s.look_up_256(&LAST_DIGITS, v);
        let last = s.as_b(s.dot_quads::<0>(s.zero_i(), last, s.load_x(&TIMES)));
        let first = s.and_b(s.look_up_256(&FIRST_DIGITS, v), s.load_b(&OTHERS));
        let q = s.or_b(first, s.pick(last, &FIFTHS));
        let (mask, mut codes) =
            (s.splat_b(3), [q, s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q)]);
        for codes in &mut codes {
            *codes = s.and_b(*codes, mask);
        }
        Taken::new(s, codes)
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
