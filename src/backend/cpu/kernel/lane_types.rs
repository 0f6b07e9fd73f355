//! Blocks of sixteen rows in lanes: how each type's words become codes, scales and factors. Layouts
//! stand in `unpack`; nothing here reads outside a block. Vectors go through loops: the closure of
//! an array's `map` is compiled without the tier's features (7 times the cycles of Q8_0 on AVX2).

use super::super::simd::wide::Wide;
use super::lanes::Blocks;
use super::registers::Dot32;
use super::unpack::{Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80, Type256};
use super::unpack_grid::{FP4_CODES, IQ4_CODES, IQ4NL, MXFP4};
use crate::quant::fp4::e8m0_half;

/// What all values of a 256-value block share, a weight row a lane.
pub struct Head<S: Wide> {
    /// Factor on scales.
    pub d: S::F,
    /// Factor on mins; zeros if the type has none.
    pub dmin: S::F,
    /// Of every 16, or of every 32 (the first eight).
    pub scales: [S::I; 16],
    /// i16 pairs that meet the sums of x: mins, or scales if the type has an offset; of every 16,
    /// or of every 32 (the first four).
    pub pairs: [S::I; 8],
    /// Words of upper bits that all steps share, shifted from step to step.
    pub high: [S::B; 8],
}

/// Words of a step: 8 or 16 of lower bits, and their upper bits.
pub struct Words<S: Wide> {
    low: [S::B; 16],
    high: [S::B; 8],
}

/// A type with 256-value blocks in lanes.
pub trait Lanes256: Type256 {
    /// Planes of 32 values that a step's words hold.
    const PLANES: usize;

    /// Scales and factors.
    ///
    /// # Safety
    /// Each row has a block.
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S>;
    /// Words of a step; steps come in order, and leave `high` to the next.
    ///
    /// # Safety
    /// Each row has a block.
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, high: &mut [S::B; 8]) -> Words<S>;
    /// Codes 4 `quad` to 4 `quad` + 3 of plane P; above 127 only without [`Wide::SIGNED_QUADS`].
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B;
}

/// A type with 32-value blocks in lanes.
pub trait Lanes32: Dot32 {
    /// Where codes begin.
    const AT: usize;
    /// Whether four bytes of fifth bits lie before them.
    const FIFTH: bool;
    /// What codes stand for, if they are looked up.
    const TABLE: Option<&'static [u8; 16]> = None;

    /// Codes, four of each row.
    ///
    /// # Safety
    /// Each row has a block.
    #[inline(always)]
    unsafe fn quads<S: Wide>(s: S, blocks: &Blocks) -> [S::B; 8] {
        let (mask, fifth) = (s.splat_b(15), s.splat_b(16));
        // SAFETY: the 16 bytes of nibbles end a block.
        let w = unsafe { blocks.words(s, Self::AT) };
        let mut codes = [mask; 8];
        for i in 0..4 {
            (codes[i], codes[4 + i]) = (w[i], s.shr_b::<4>(w[i]));
        }
        if let Some(table) = Self::TABLE {
            for codes in &mut codes {
                *codes = s.look_up_low(table, *codes);
            }
            return codes;
        }
        for codes in &mut codes {
            *codes = s.and_b(*codes, mask);
        }
        if Self::FIFTH {
            // SAFETY: behind the bits lie the nibbles.
            let [bits, ..] = unsafe { blocks.words(s, Self::AT - 4) };
            for quad in 0..8 {
                let high = s.and_b(s.fifth_bits(bits, quad), fifth);
                codes[quad] = s.or_b(codes[quad], high);
            }
        }
        codes
    }
    /// d and m (d again if there is none).
    ///
    /// # Safety
    /// Each row has a block.
    #[inline(always)]
    unsafe fn factors<S: Wide>(s: S, blocks: &Blocks) -> [S::F; 2] {
        if Self::MIN {
            // SAFETY: blocks begin with both, and are longer than 16 bytes.
            let [w, ..] = unsafe { blocks.words(s, 0) };
            return [s.half_of::<false>(w), s.half_of::<true>(w)];
        }
        // SAFETY: blocks begin with it. Sixteen small reads leave the vector units alone.
        let d = s.load_f16(&unsafe { halves(blocks, 0) });
        [d, d]
    }
}

/// Two bytes at `at` of each block.
#[inline(always)]
pub(super) unsafe fn halves(blocks: &Blocks, at: usize) -> [u8; 32] {
    let mut out = [0; 32];
    for (out, row) in out.as_chunks_mut().0.iter_mut().zip(blocks.rows) {
        // SAFETY: the caller's blocks are longer than that.
        *out = unsafe { row.add(blocks.at + at).cast::<[u8; 2]>().read() };
    }
    out
}

/// 32 bytes of each block from `at` on.
#[inline(always)]
pub(super) unsafe fn eight<S: Wide>(s: S, blocks: &Blocks, at: usize) -> [S::B; 8] {
    // SAFETY: the caller's blocks are longer than that.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (blocks.words(s, at), blocks.words(s, at + 16)) };
    [a, b, c, d, e, f, g, h]
}

/// Eight words and upper bits.
#[inline(always)]
fn with_high<S: Wide>(low: [S::B; 8], high: [S::B; 8]) -> Words<S> {
    let [a, b, c, d, e, f, g, h] = low;
    Words { low: [a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h], high }
}

/// Bytes of four words as numbers, in order.
#[inline(always)]
fn spread<S: Wide, const SIGNED: bool>(s: S, words: [S::B; 4]) -> [S::I; 16] {
    let mut out = [s.zero_i(); 16];
    for (w, word) in words.into_iter().enumerate() {
        out[4 * w] = s.byte::<0, SIGNED>(word);
        out[4 * w + 1] = s.byte::<1, SIGNED>(word);
        out[4 * w + 2] = s.byte::<2, SIGNED>(word);
        out[4 * w + 3] = s.byte::<3, SIGNED>(word);
    }
    out
}

/// The same as pairs of i16.
#[inline(always)]
fn pairs<S: Wide, const SIGNED: bool>(s: S, words: [S::B; 4]) -> [S::I; 8] {
    let mut out = [s.zero_i(); 8];
    for (w, word) in words.into_iter().enumerate() {
        out[2 * w] = s.byte_pair::<0, SIGNED>(word);
        out[2 * w + 1] = s.byte_pair::<2, SIGNED>(word);
    }
    out
}

/// Some bits of a and some of b.
#[inline(always)]
fn merge<S: Wide>(s: S, (a, a_mask): (S::B, u8), (b, b_mask): (S::B, u8)) -> S::B {
    s.or_b(s.and_b(a, s.splat_b(a_mask)), s.and_b(b, s.splat_b(b_mask)))
}

/// The header of Q4_K and Q5_K: d dmin | a | m | h, four bytes each.
///
/// ```text
/// scales 0..4 = a & 63,                mins 0..4 = m & 63
/// scales 4..8 = h & 15 | a >> 2 & 48,  mins 4..8 = h >> 4 & 15 | m >> 2 & 48
/// ```
#[inline(always)]
unsafe fn head_6bit<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
    // SAFETY: a block begins with these 16 bytes.
    let [d, a, m, h] = unsafe { blocks.words(s, 0) };
    let low = s.splat_b(63);
    let scales_high = merge(s, (h, 15), (s.shr_b::<2>(a), 48));
    let mins_high = merge(s, (s.shr_b::<4>(h), 15), (s.shr_b::<2>(m), 48));
    let (scales, mins) = (s.and_b(a, low), s.and_b(m, low));
    Head {
        d: s.half_of::<false>(d),
        dmin: s.half_of::<true>(d),
        scales: spread::<S, false>(s, [scales, scales_high, scales, scales]),
        pairs: pairs::<S, false>(s, [mins, mins_high, mins, mins]),
        high: [low; 8],
    }
}

impl Lanes256 for Q4K {
    const PLANES: usize = 2;
    /// Where codes may be bytes, upper nibbles stay where they are, sixteen times too large. So
    /// lower ones have scales that are, and d is a sixteenth: powers of two change no rounding.
    #[inline(always)]
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
        // SAFETY: the caller's promise.
        let mut head = unsafe { head_6bit(s, blocks) };
        if !S::SIGNED_QUADS {
            for i in 0..4 {
                head.scales[2 * i] = s.shl_i::<4>(head.scales[2 * i]);
            }
            head.d = s.mul(head.d, s.splat(1.0 / 16.0));
        }
        head
    }
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, high: &mut [S::B; 8]) -> Words<S> {
        // SAFETY: four times 32 bytes lie behind 16.
        with_high(unsafe { eight(s, blocks, 16 + 32 * step) }, *high)
    }
    #[inline(always)]
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B {
        match (P, S::SIGNED_QUADS) {
            (0, _) => s.and_b(words.low[quad], s.splat_b(15)),
            (_, true) => s.and_b(s.shr_b::<4>(words.low[quad]), s.splat_b(15)),
            (_, false) => s.and_b(words.low[quad], s.splat_b(240)),
        }
    }
}

impl Lanes256 for Q5K {
    const PLANES: usize = 2;
    #[inline(always)]
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
        // SAFETY: the caller's promise; 32 bytes of fifth bits lie behind 16.
        unsafe { Head { high: eight(s, blocks, 16), ..head_6bit(s, blocks) } }
    }
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, high: &mut [S::B; 8]) -> Words<S> {
        let now = *high;
        for h in high.iter_mut() {
            *h = s.shr_b::<2>(*h);
        }
        // SAFETY: four times 32 bytes lie behind 48.
        with_high(unsafe { eight(s, blocks, 48 + 32 * step) }, now)
    }
    #[inline(always)]
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B {
        let (w, h) = (words.low[quad], words.high[quad]);
        match P {
            0 => merge(s, (w, 15), (s.shl_b::<4>(h), 16)),
            _ => merge(s, (s.shr_b::<4>(w), 15), (s.shl_b::<3>(h), 16)),
        }
    }
}

impl Lanes256 for Q6K {
    const PLANES: usize = 4;
    #[inline(always)]
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
        // SAFETY: sixteen scales lie behind 192 bytes, and d behind them.
        let (scales, d) = unsafe { (blocks.words(s, 192), halves(blocks, 208)) };
        Head {
            d: s.load_f16(&d),
            dmin: s.splat(0.0),
            scales: spread::<S, true>(s, scales),
            pairs: pairs::<S, true>(s, scales),
            high: [scales[0]; 8],
        }
    }
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, _: &mut [S::B; 8]) -> Words<S> {
        // SAFETY: twice 64 bytes, then twice 32.
        let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p], high) = unsafe {
            let at = 64 * step;
            let high = eight(s, blocks, 128 + 32 * step);
            (eight(s, blocks, at), eight(s, blocks, at + 32), high)
        };
        Words { low: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p], high }
    }
    #[inline(always)]
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B {
        let (a, c, h) = (words.low[quad], words.low[8 + quad], words.high[quad]);
        match P {
            0 => merge(s, (a, 15), (s.shl_b::<4>(h), 48)),
            1 => merge(s, (c, 15), (s.shl_b::<2>(h), 48)),
            2 => merge(s, (s.shr_b::<4>(a), 15), (h, 48)),
            _ => merge(s, (s.shr_b::<4>(c), 15), (s.shr_b::<2>(h), 48)),
        }
    }
}

impl Lanes256 for Q2K {
    const PLANES: usize = 4;
    #[inline(always)]
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
        // SAFETY: a block begins with 16 bytes of scales; d and dmin lie behind 80.
        let (w, d, dmin) = unsafe { (blocks.words(s, 0), halves(blocks, 80), halves(blocks, 82)) };
        let mask = s.splat_b(15);
        let (mut scales, mut mins) = (w, w);
        for i in 0..4 {
            scales[i] = s.and_b(w[i], mask);
            mins[i] = s.and_b(s.shr_b::<4>(w[i]), mask);
        }
        Head {
            d: s.load_f16(&d),
            dmin: s.load_f16(&dmin),
            scales: spread::<S, false>(s, scales),
            pairs: pairs::<S, false>(s, mins),
            high: [mask; 8],
        }
    }
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, high: &mut [S::B; 8]) -> Words<S> {
        // SAFETY: twice 32 bytes lie behind 16.
        with_high(unsafe { eight(s, blocks, 16 + 32 * step) }, *high)
    }
    #[inline(always)]
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B {
        s.and_b(pair_of_bits::<S, P>(s, words.low[quad]), s.splat_b(3))
    }
}

/// Pair P of the bits of every byte, lowest.
#[inline(always)]
fn pair_of_bits<S: Wide, const P: usize>(s: S, w: S::B) -> S::B {
    match P {
        0 => w,
        1 => s.shr_b::<2>(w),
        2 => s.shr_b::<4>(w),
        _ => s.shr_b::<6>(w),
    }
}

impl Lanes256 for Q3K {
    const PLANES: usize = 4;
    #[inline(always)]
    unsafe fn head<S: Wide>(s: S, blocks: &Blocks) -> Head<S> {
        // SAFETY: third bits begin a block, 12 bytes of scales lie behind 96, d behind them.
        let (high, [_, a, b, c], d) =
            unsafe { (eight(s, blocks, 0), blocks.words(s, 92), halves(blocks, 108)) };
        // 6 bits, of which 32 is subtracted.
        let less = s.splat_b(32);
        let mut scales = [
            merge(s, (a, 15), (s.shl_b::<4>(c), 48)),
            merge(s, (b, 15), (s.shl_b::<2>(c), 48)),
            merge(s, (s.shr_b::<4>(a), 15), (c, 48)),
            merge(s, (s.shr_b::<4>(b), 15), (s.shr_b::<2>(c), 48)),
        ];
        for scales in &mut scales {
            *scales = s.sub_b(*scales, less);
        }
        Head {
            d: s.load_f16(&d),
            dmin: s.splat(0.0),
            scales: spread::<S, true>(s, scales),
            pairs: pairs::<S, true>(s, scales),
            high,
        }
    }
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks, step: usize, high: &mut [S::B; 8]) -> Words<S> {
        let now = *high;
        for h in high.iter_mut() {
            *h = s.shr_b::<4>(*h);
        }
        // SAFETY: twice 32 bytes lie behind 32.
        with_high(unsafe { eight(s, blocks, 32 + 32 * step) }, now)
    }
    #[inline(always)]
    fn quad<S: Wide, const P: usize>(s: S, words: &Words<S>, quad: usize) -> S::B {
        let h = words.high[quad];
        let third = match P {
            0 => s.shl_b::<2>(h),
            1 => s.shl_b::<1>(h),
            2 => h,
            _ => s.shr_b::<1>(h),
        };
        merge(s, (pair_of_bits::<S, P>(s, words.low[quad]), 3), (third, 4))
    }
}

impl Lanes32 for Q40 {
    const AT: usize = 2;
    const FIFTH: bool = false;
}

impl Lanes32 for Q41 {
    const AT: usize = 4;
    const FIFTH: bool = false;
}

impl Lanes32 for Q50 {
    const AT: usize = 6;
    const FIFTH: bool = true;
}

impl Lanes32 for Q51 {
    const AT: usize = 8;
    const FIFTH: bool = true;
}

impl Lanes32 for IQ4NL {
    const AT: usize = 2;
    const FIFTH: bool = false;
    const TABLE: Option<&'static [u8; 16]> = Some(&IQ4_CODES);
}

impl Lanes32 for MXFP4 {
    const AT: usize = 1;
    const FIFTH: bool = false;
    const TABLE: Option<&'static [u8; 16]> = Some(&FP4_CODES);
    #[inline(always)]
    unsafe fn factors<S: Wide>(s: S, blocks: &Blocks) -> [S::F; 2] {
        let mut words = [0; 32];
        for (word, row) in words.as_chunks_mut().0.iter_mut().zip(blocks.rows) {
            // SAFETY: a block begins with it.
            *word = E8M0_HALVES[usize::from(unsafe { row.add(blocks.at).read() })];
        }
        let d = s.load_bf16(&words);
        [d, d]
    }
}

/// Half of every E8M0 number as a bf16, which is exact.
static E8M0_HALVES: [[u8; 2]; 256] = {
    let (mut out, mut e) = ([[0; 2]; 256], 0);
    while e < 256 {
        let [_, _, low, high] = e8m0_half(e as u8).to_le_bytes();
        out[e] = [low, high];
        e += 1;
    }
    out
};

impl Lanes32 for Q80 {
    const AT: usize = 2;
    const FIFTH: bool = false;
    #[inline(always)]
    unsafe fn quads<S: Wide>(s: S, blocks: &Blocks) -> [S::B; 8] {
        // SAFETY: 32 bytes of codes lie behind d.
        let mut codes = unsafe { eight(s, blocks, Self::AT) };
        for codes in &mut codes {
            *codes = s.flip_sign(*codes);
        }
        codes
    }
}
