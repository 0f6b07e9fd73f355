//! Types whose codes stand for vectors of a grid (IQ1 to IQ3), in the order of memory. A grid's
//! vectors are words of digits, looked up 32 at a time in registers; digits become values one plane
//! after the other.
//!
//! ```text
//! IQ1, IQ2: word i = 8 digits of 2 bits, values 8 i on; plane p of 4: digits p, 4 + p of each
//! IQ3:      word i = 4 digits of 3 bits, values 4 i on; plane p of 2: digits p, 2 + p of each
//! ```
//! On Zen 4 a look-up of 32 words out of 64 takes one cycle, a gather of 8 vectors out of memory
//! takes 9. IQ1's grid, of which that would be 32, is read word by word: in 25.

use super::super::simd::in_order::InOrder;
use super::in_order::{Ordered, Sums, Taken};
use super::ordered::{repeated, steps};
use super::registers::bytes;
use super::unpack_grid::{Gridded, IQ1M, IQ1S, IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS};
use crate::quant::grids;

/// Where digit `i` of a word of `count` begins: half of them are in each byte, without a gap.
const fn place(count: usize, i: usize) -> usize {
    let half = count / 2;
    i / half * 8 + i % half * if count == 8 { 2 } else { 3 }
}

/// A grid as words of digits, each the index of a value's magnitude.
const fn words<const V: usize, const M: usize, const L: usize, const BASE: usize>(
    grid: &[[u8; V]; M],
    magnitudes: [u8; BASE],
) -> [[u16; 32]; L] {
    let (mut out, mut i) = ([[0; 32]; L], 0);
    while i < M * V {
        let mut digit = 0;
        while magnitudes[digit] != grid[i / V][i % V] {
            digit += 1;
        }
        out[i / V / 32][i / V % 32] |= (digit << place(V, i % V)) as u16;
        i += 1;
    }
    out
}

/// What six bits stand for by the digit that begins at bit `from`.
const fn values<const N: usize>(magnitudes: [u8; N], from: usize) -> [u8; 64] {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = magnitudes[(i >> from) % N];
        i += 1;
    }
    out
}

/// Places of the planes of words of eight values.
const PLACES_2: [[u8; 64]; 4] = {
    let (mut out, mut i) = ([[0; 64]; 4], 0);
    while i < 256 {
        out[i % 4][i / 8 * 2 + i / 4 % 2] = i as u8;
        i += 1;
    }
    out
};
/// Places of the planes of two vectors of words of four values.
const PLACES_3: [[u8; 64]; 4] = {
    let (mut out, mut i) = ([[0; 64]; 4], 0);
    while i < 256 {
        out[i / 128 * 2 + i % 2][i % 128 / 4 * 2 + i / 2 % 2] = i as u8;
        i += 1;
    }
    out
};
/// Bits of signs that planes of such words meet: a byte of signs, twice in each word.
const BITS_2: [[u8; 64]; 4] =
    [repeated([1, 16]), repeated([2, 32]), repeated([4, 64]), repeated([8, 128])];
/// The same, four times in two words.
const BITS_3: [[u8; 64]; 2] = [repeated([1, 4, 16, 64]), repeated([2, 8, 32, 128])];

/// Where codes of IQ2_XXS lie: four at the start of each of eight groups.
const GROUPS: [u8; 64] = {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = (i / 8 * 8 + i % 8 / 2) as u8;
        i += 1;
    }
    out
};

static WORDS_IQ2_XXS: [[u16; 32]; 8] = words(&grids::IQ2_XXS, [8, 25, 43]);
static WORDS_IQ2_XS: [[u16; 32]; 16] = words(&grids::IQ2_XS, [8, 25, 43]);
static WORDS_IQ2_S: [[u16; 32]; 32] = words(&grids::IQ2_S, [8, 25, 43]);
static WORDS_IQ3_XXS: [[u16; 32]; 8] = words(&grids::IQ3_XXS, MAGNITUDES_XXS);
static WORDS_IQ3_S: [[u16; 32]; 16] = words(&grids::IQ3_S, MAGNITUDES_S);
/// Eight words more lie before and behind them.
static WORDS_IQ1: [u16; 2064] = {
    const WORDS: [[u16; 32]; 64] = words(&grids::IQ1, [0, 1, 2]);
    let (mut out, mut i) = ([0; 2064], 0);
    while i < 2048 {
        out[8 + i] = WORDS[i / 32][i % 32];
        i += 1;
    }
    out
};
const MAGNITUDES_XXS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const MAGNITUDES_S: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

/// Eight signs of seven.
const EVEN: [u8; 128] = {
    let (mut out, mut i) = ([0; 128], 0);
    while i < 128 {
        out[i] = i as u8 | (i.count_ones() as u8 & 1) << 7;
        i += 1;
    }
    out
};

/// Words of two blocks of one vector of indices each.
#[inline(always)]
fn look_up_both<S: InOrder, const N: usize>(
    s: S,
    table: &[[u16; 32]; N],
    [[a, _], [b, _]]: [[S::B; 2]; 2],
) -> [[S::B; 2]; 2] {
    let [a, b] = s.look_up_words(table, [a, b]);
    [[a; 2], [b; 2]]
}

/// Words of two blocks of two vectors of indices each; all four at once would not fit registers.
#[inline(always)]
fn look_up_each<S: InOrder, const N: usize>(
    s: S,
    table: &[[u16; 32]; N],
    [a, b]: [[S::B; 2]; 2],
) -> [[S::B; 2]; 2] {
    [s.look_up_words(table, a), s.look_up_words(table, b)]
}

/// Planes of a vector of words of IQ2. A look-up sees six bits, so three of them need no shift.
#[inline(always)]
fn twos<S: InOrder>(s: S, w: S::B, signs: S::B) -> Taken<S> {
    const TWOS: [u8; 4] = [8, 25, 43, 0];
    const VALUES: [[u8; 64]; 3] = [values(TWOS, 0), values(TWOS, 2), values(TWOS, 4)];
    let last = s.look_up_64(&VALUES[2], s.shr_b::<2>(w));
    let codes = [
        s.look_up_64(&VALUES[0], w),
        s.look_up_64(&VALUES[1], w),
        s.look_up_64(&VALUES[2], w),
        last,
    ];
    let mut taken = Taken::new(s, codes);
    taken.signs[0] = signs;
    taken
}

/// Planes of two vectors of words of IQ3.
#[inline(always)]
fn threes<S: InOrder>(
    s: S,
    [v, w]: [S::B; 2],
    signs: [S::B; 2],
    values: &[[u8; 64]; 2],
) -> Taken<S> {
    let codes = [
        s.look_up_64(&values[0], v),
        s.look_up_64(&values[1], v),
        s.look_up_64(&values[0], w),
        s.look_up_64(&values[1], w),
    ];
    let mut taken = Taken::new(s, codes);
    taken.signs = signs;
    taken
}

/// 1 + 2 times the bits from 1 to 4 of every N bytes; the others are 0.
#[inline(always)]
fn odd<S: InOrder>(s: S, bits: S::B) -> S::B {
    s.or_b(s.and_b(bits, s.as_b(s.splat_i(30))), s.as_b(s.splat_i(1)))
}

/// Activations with the signs of plane `i`.
#[inline(always)]
fn signed_2<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
    s.negate_where(x, taken.signs[0], &BITS_2[i])
}

/// The same with two vectors of two planes each.
#[inline(always)]
fn signed_3<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
    s.negate_where(x, taken.signs[i / 2], &BITS_3[i % 2])
}

/// Indices of IQ1: eight bits, and three more out of two bytes for each four, from these bits on in
/// their upper bytes.
#[inline(always)]
fn elevens<S: InOrder>(s: S, low: &[u8; 32], high: &[u8; 16], from: &[u8; 64]) -> [S::B; 2] {
    let high = s.bits_from(own(s, high), from);
    [s.or_b(s.widen(low), s.and_b(high, s.as_b(s.splat_i(0x0700_0700)))); 2]
}

/// Words of two blocks of one vector of indices each, out of 2048.
#[inline(always)]
fn look_up_large<S: InOrder>(s: S, [[a, _], [b, _]]: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
    [[s.look_up_2048(&WORDS_IQ1, a); 2], [s.look_up_2048(&WORDS_IQ1, b); 2]]
}

/// A number of two bytes in each eight.
#[inline(always)]
fn own<S: InOrder>(s: S, numbers: &[u8; 16]) -> S::B {
    const OWN: [u8; 64] = {
        let (mut out, mut i) = ([0; 64], 0);
        while i < 64 {
            out[i] = (i / 8 * 2 + i % 2) as u8;
            i += 1;
        }
        out
    };
    s.pick(s.splat_16(numbers), &OWN)
}

/// Planes of words of IQ1: 8 x digit, 2 more unless delta is subtracted.
#[inline(always)]
fn eights<S: InOrder>(s: S, w: S::B, minus: S::B, scales: S::B) -> Taken<S> {
    let (mask, two) = (s.splat_b(24), s.splat_b(2));
    let delta = s.sub_b(two, s.and_b(minus, two));
    let mut codes = [s.shl_b::<3>(w), s.shl_b::<1>(w), s.shr_b::<1>(w), s.shr_b::<3>(w)];
    for codes in &mut codes {
        *codes = s.or_b(s.and_b(*codes, mask), delta);
    }
    let mut taken = Taken::new(s, codes);
    let scales = s.and_b(scales, s.as_b(s.splat_i(14)));
    taken.scales[0] = s.or_b(scales, s.as_b(s.splat_i(1)));
    taken
}

/// Bytes 2 j and 2 j + 1 of each eight: `from` and `step` j.
const fn by_word(from: usize, step: usize) -> [u8; 64] {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = (from + i % 8 / 2 * step) as u8;
        i += 1;
    }
    out
}

impl Ordered for Gridded<IQ1S> {
    const BYTES: usize = 50;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_2;
    const OFFSET: u8 = 9;
    const SUMS: Sums = Sums::Fours(1);
    const FACTOR: (usize, f32) = (0, 0.125);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        elevens(s, bytes(block, 2), bytes(block, 34), &by_word(0, 3))
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_large(s, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        let high = own(s, bytes(block, 34));
        eights(s, words[0], s.bits_from(high, &[14; 64]), s.bits_from(high, &[11; 64]))
    }
}

impl Ordered for Gridded<IQ1M> {
    const BYTES: usize = 56;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_2;
    const OFFSET: u8 = 9;
    const SUMS: Sums = Sums::Fours(1);
    const FACTOR: (usize, f32) = (48, 0.125);

    #[inline(always)]
    fn factor(block: &[u8]) -> [u8; 2] {
        let words = u64::from_le_bytes(*bytes(block, 48));
        let low = words >> 12 & 15 | words >> 24 & 0xf0;
        [low as u8, (words >> 44 & 15 | words >> 56 & 0xf0) as u8]
    }
    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        elevens(s, bytes(block, 0), bytes(block, 32), &by_word(0, 4))
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_large(s, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        // Three bits of each four of a word, from the bit before them.
        const SCALES: [u8; 64] = {
            let (mut out, mut i) = ([0; 64], 0);
            while i < 64 {
                out[i] = ((i / 16 * 16 + i % 16 / 4 * 3 + 63) % 64) as u8;
                i += 1;
            }
            out
        };
        let high = own(s, bytes(block, 32));
        let scales = s.bits_from(s.splat_8(bytes(block, 48)), &SCALES);
        eights(s, words[0], s.bits_from(high, &by_word(2, 4)), scales)
    }
}

impl Ordered for Gridded<IQ2XXS> {
    const BYTES: usize = 66;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_2;
    const OFFSET: u8 = 0;
    const SUMS: Sums = Sums::Fours(1);
    const FACTOR: (usize, f32) = (0, 0.125);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        // Twice in a word; the look-up takes the lower one.
        [s.pick(s.load_b(bytes(block, 2)), &GROUPS); 2]
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_both(s, &WORDS_IQ2_XXS, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        const SIGNS: [u8; 64] = repeated([32, 32, 39, 39, 46, 46, 53, 53]);
        let groups = s.load_b(bytes(block, 2));
        let signs = s.look_up_128(&EVEN, s.bits_from(groups, &SIGNS));
        let mut taken = twos(s, words[0], signs);
        taken.scales[0] = odd(s, s.bits_from(groups, &[59; 64]));
        taken
    }
    #[inline(always)]
    fn signed<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
        signed_2(s, taken, i, x)
    }
}

/// Scales of every sixteen values: nibbles, of which a lane has one.
#[inline(always)]
fn nibbles<S: InOrder>(s: S, nibbles: &[u8; 8]) -> S::B {
    odd(s, s.bits_from(s.splat_8(nibbles), &steps(63, 4, 4)))
}

impl Ordered for Gridded<IQ2XS> {
    const BYTES: usize = 74;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_2;
    const OFFSET: u8 = 0;
    const SUMS: Sums = Sums::Fours(1);
    const FACTOR: (usize, f32) = (0, 0.125);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        [s.load_b(bytes(block, 2)); 2]
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_both(s, &WORDS_IQ2_XS, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        // Nine bits of code, seven of signs.
        const SIGNS: [u8; 64] = repeated([9, 9, 25, 25, 41, 41, 57, 57]);
        let codes = s.load_b(bytes(block, 2));
        let signs = s.look_up_128(&EVEN, s.bits_from(codes, &SIGNS));
        let mut taken = twos(s, words[0], signs);
        taken.scales[0] = nibbles(s, bytes(block, 66));
        taken
    }
    #[inline(always)]
    fn signed<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
        signed_2(s, taken, i, x)
    }
}

impl Ordered for Gridded<IQ2S> {
    const BYTES: usize = 82;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_2;
    const OFFSET: u8 = 0;
    const SUMS: Sums = Sums::Fours(1);
    const FACTOR: (usize, f32) = (0, 0.125);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        // Codes, signs, then two upper bits of each code.
        let high = s.bits_from(s.splat_8(bytes(block, 66)), &steps(0, 2, 2));
        let high = s.and_b(high, s.as_b(s.splat_i(0x0300_0300)));
        [s.or_b(s.widen(bytes(block, 2)), high); 2]
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_both(s, &WORDS_IQ2_S, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        let signs = s.pick(s.load_b(bytes(block, 18)), &steps(16, 1, 2));
        let mut taken = twos(s, words[0], signs);
        taken.scales[0] = nibbles(s, bytes(block, 74));
        taken
    }
    #[inline(always)]
    fn signed<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
        signed_2(s, taken, i, x)
    }
}

impl Ordered for Gridded<IQ3XXS> {
    const BYTES: usize = 98;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_3;
    const OFFSET: u8 = 0;
    const SUMS: Sums = Sums::Fours(2);
    const FACTOR: (usize, f32) = (0, 0.25);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        [s.widen(bytes(block, 2)), s.widen(bytes(block, 34))]
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_each(s, &WORDS_IQ3_XXS, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        const VALUES: [[u8; 64]; 2] = [values(MAGNITUDES_XXS, 0), values(MAGNITUDES_XXS, 3)];
        // Words of 28 bits of signs and a scale, one for each quarter of a vector.
        const HALVES: [[u8; 64]; 2] = [quarters(32), quarters(48)];
        const SIGNS: [u8; 64] = repeated([0, 0, 0, 0, 7, 7, 7, 7, 14, 14, 14, 14, 21, 21, 21, 21]);
        let rest = s.load_b(bytes(block, 34));
        let (mut signs, mut scales) = ([rest; 2], [rest; 2]);
        for half in 0..2 {
            let own = s.pick(rest, &HALVES[half]);
            signs[half] = s.look_up_128(&EVEN, s.bits_from(own, &SIGNS));
            scales[half] = odd(s, s.bits_from(own, &[27; 64]));
        }
        let mut taken = threes(s, words, signs, &VALUES);
        [taken.scales[0], taken.scales[1]] = scales;
        taken
    }
    #[inline(always)]
    fn signed<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
        signed_3(s, taken, i, x)
    }
}

/// Four words from a byte on, four times each.
const fn quarters(from: usize) -> [u8; 64] {
    let (mut out, mut i) = ([0; 64], 0);
    while i < 64 {
        out[i] = (from + i / 16 * 4 + i % 4) as u8;
        i += 1;
    }
    out
}

impl Ordered for Gridded<IQ3S> {
    const BYTES: usize = 110;
    const PLACES: &'static [[u8; 64]; 4] = &PLACES_3;
    const OFFSET: u8 = 0;
    const SUMS: Sums = Sums::Fours(2);
    const FACTOR: (usize, f32) = (0, 1.0);

    #[inline(always)]
    fn indices<S: InOrder>(s: S, block: &[u8]) -> [S::B; 2] {
        // The ninth bit of each code becomes the lowest of its word's upper byte.
        const HIGH: [[u8; 64]; 2] = [steps(0, 1, 2), steps(32, 1, 2)];
        let (high, mask) = (s.splat_8(bytes(block, 66)), s.as_b(s.splat_i(0x0100_0100)));
        let [a, b] = [s.bits_from(high, &HIGH[0]), s.bits_from(high, &HIGH[1])];
        [
            s.or_b(s.widen(bytes(block, 2)), s.and_b(a, mask)),
            s.or_b(s.widen(bytes(block, 34)), s.and_b(b, mask)),
        ]
    }
    #[inline(always)]
    fn look_up<S: InOrder>(s: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        look_up_each(s, &WORDS_IQ3_S, indices)
    }
    #[inline(always)]
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S> {
        const VALUES: [[u8; 64]; 2] = [values(MAGNITUDES_S, 0), values(MAGNITUDES_S, 3)];
        const SIGNS: [[u8; 64]; 2] = [steps(28, 1, 4), steps(44, 1, 4)];
        const SCALES: [[u8; 64]; 2] = [steps(31, 4, 16), steps(47, 4, 16)];
        let head = s.splat_8(bytes(block, 102));
        let rest = s.load_b(bytes(block, 46));
        let (mut signs, mut scales) = ([rest; 2], [rest; 2]);
        for half in 0..2 {
            signs[half] = s.pick(rest, &SIGNS[half]);
            scales[half] = odd(s, s.bits_from(head, &SCALES[half]));
        }
        let mut taken = threes(s, words, signs, &VALUES);
        [taken.scales[0], taken.scales[1]] = scales;
        taken
    }
    #[inline(always)]
    fn signed<S: InOrder>(s: S, taken: &Taken<S>, i: usize, x: S::B) -> S::B {
        signed_3(s, taken, i, x)
    }
}
