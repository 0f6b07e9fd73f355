//! Few batch rows through 256-value blocks in the order of memory: a register holds 64 codes of a
//! block, and sixteen blocks that follow each other are the lanes of a vector.
//!
//! ```text
//! block: 4 x 64 codes . x, times scales -> 16 lanes; those of 16 blocks are summed into one vector
//! 16 blocks: v = f32(T) d, a block a lane -> values; acc of each of 16 rows, block by block
//! ```
//! A thread reads one stream, line after line, which the hardware follows by itself. Cycles a block
//! out of L2 on Zen 4, for 1, 2, 4 batch rows: Q6_K 23 (25 in `lanes`), 32, 56; IQ4_XS 18, 26, 47;
//! TQ2_0 11, 17, 35; TQ1_0 19, 26, 46; IQ2_XXS 28, 39, 59; IQ2_XS 33, 43, 64; IQ2_S 50, 60, 80;
//! IQ3_XXS 37, 52, 74; IQ3_S 49, 64, 82; IQ1_S and IQ1_M 49, 57, 78. So three rows go as four, but
//! two not. Out of memory Q6_K has 89 to 93 % of the read limit at 35 GB/s (81 to 84 in
//! `lanes`), 89 % at 60 (82). Asking for lines ahead changes nothing, but touching any line of the
//! next blocks early costs a third: so d is read last.
//!
//! What is walked over beside the weights must be small. Sums of a block of Q6_K begin with one
//! vector, not four: with room for one, a thread reads rows of 22 blocks at 20 to 23 GB/s, where it
//! had 18 and reads 30 at most. It is 25 for 8 blocks, 23 for 32, 16 for 43 and 13 for 56, whatever
//! the arithmetic (with x of 16 blocks over and over 25 again): long rows of Q6_K stay in `lanes`
//! (18).
//!
//! Tried: four rows far apart 72 %, four neighbours 30 %. Q2_K to Q5_K, whose headers need more
//! work then, take 20, 25, 26 and 28 cycles, and stay in `lanes` (15, 22, 15, 19). Q8_K has 53 to
//! 65 % of the limit, 99 by row. Blocks of 32 values take as long as in `lanes` (Q4_0 3.0 cycles,
//! Q5_0 4.4), but 48 to 73 % of the limit where those have 84 to 97.

use super::super::simd::in_order::{InOrder, InOrderKernel};
use super::quantise::Bytes;
use super::registers::bytes;
use super::stripe::Stripe;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Blocks of a row that there is room for.
pub const BLOCKS_MAX: usize = 64;
/// Rows whose values are kept, and blocks of a vector.
const ROWS: usize = 16;
/// Bytes of the longest block.
const BYTES_MAX: usize = 210;
/// Blocks of a batch row, then the first again: sixteen follow every block.
const ROOM: usize = BLOCKS_MAX + 15;

/// A type in the order of memory.
pub trait Ordered: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Which of a block's values meet the codes of each vector.
    const PLACES: &'static [[u8; 64]; 4];
    /// Subtracted from codes.
    const OFFSET: u8;
    /// How codes become sums.
    const SUMS: Sums;
    /// Where its f16 factor lies, and by what that is multiplied.
    const FACTOR: (usize, f32);

    /// Its factor as it lies there.
    #[inline(always)]
    fn factor(block: &[u8]) -> [u8; 2] {
        *bytes(block, Self::FACTOR.0)
    }
    /// What a block's words are in a grid, if the type has one.
    #[inline(always)]
    fn indices<S: InOrder>(s: S, _: &[u8]) -> [S::B; 2] {
        [s.splat_b(0); 2]
    }
    /// The words of two blocks' indices.
    #[inline(always)]
    fn look_up<S: InOrder>(_: S, indices: [[S::B; 2]; 2]) -> [[S::B; 2]; 2] {
        indices
    }
    /// Takes a block apart, whose words were looked up.
    fn take<S: InOrder>(s: S, block: &[u8], words: [S::B; 2]) -> Taken<S>;
    /// Activations where codes have signs of their own.
    #[inline(always)]
    fn signed<S: InOrder>(_: S, _: &Taken<S>, _: usize, x: S::B) -> S::B {
        x
    }
}

/// How codes become sums.
#[derive(Clone, Copy)]
pub enum Sums {
    /// All under one factor.
    One,
    /// Fours of codes, then scales: vector v of codes adds to vector `v * .0 / 4` of sums.
    Fours(usize),
    /// Pairs of codes, then words of scales of every 16 values, in order.
    Pairs,
}

impl Sums {
    /// Vectors of sums.
    const fn vectors(self) -> usize {
        match self {
            Sums::One | Sums::Pairs => 1,
            Sums::Fours(n) => n,
        }
    }
}

/// A block's codes and scales.
pub struct Taken<S: InOrder> {
    /// Codes; not below 0.
    pub codes: [S::B; 4],
    /// Of each vector of sums, or of pairs of codes.
    pub scales: [S::B; 4],
    /// The latter's words, twice.
    pub words: S::I,
    /// Signs.
    pub signs: [S::B; 2],
}

impl<S: InOrder> Taken<S> {
    /// No scales yet.
    #[inline(always)]
    pub fn new(s: S, codes: [S::B; 4]) -> Self {
        Taken { codes, scales: codes, words: s.zero_i(), signs: [codes[0]; 2] }
    }
}

/// A block of a batch row, as vectors of codes meet it.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Block([[i8; 64]; 4]);

/// What a vector of sums begins with.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Start([i32; 16]);

/// Room for a batch row, of which a call writes what it needs.
struct Room {
    blocks: [MaybeUninit<Block>; ROOM],
    starts: [MaybeUninit<Start>; 4 * ROOM],
}

impl Room {
    const EMPTY: Room =
        Room { blocks: [MaybeUninit::uninit(); ROOM], starts: [MaybeUninit::uninit(); 4 * ROOM] };
}

/// A batch row: blocks, and as many starts of each as there are vectors of sums. What is walked
/// over must be small: the weights that pass by leave it a third of the nearest cache.
#[derive(Clone, Copy)]
struct Row<'a> {
    blocks: &'a [Block],
    starts: &'a [Start],
}

/// Weight rows `[width of out, k]` times up to N batch rows; k is at most 256 [`BLOCKS_MAX`].
pub struct InRows<'a, 'b, T, const N: usize> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// All batch rows.
    pub x: Bytes<'a>,
    /// The first batch row, and how many there are.
    pub rows: (usize, usize),
    /// Where to: `[batch rows, weight rows]`.
    pub out: &'a mut Stripe<'b>,
    /// The type.
    pub life: PhantomData<T>,
}

impl<T: Ordered, const N: usize> InOrderKernel for InRows<'_, '_, T, N> {
    #[inline(always)]
    fn run<S: InOrder>(self, s: S) {
        let (n, width) = (self.k / 256, self.out.width());
        assert!(n > 0 && n <= BLOCKS_MAX && self.weights.len() == width * n * T::BYTES);
        assert!((1..=N).contains(&self.rows.1));
        let mut room = [const { Room::EMPTY }; N];
        let mut x = [Row { blocks: &[], starts: &[] }; N];
        for (i, (room, x)) in room.iter_mut().zip(&mut x).enumerate() {
            let row = self.rows.0 + i.min(self.rows.1 - 1);
            *x = prepared::<S, T>(s, self.x, row * n..(row + 1) * n, room);
        }
        let mut values = [[[0.0; 16]; BLOCKS_MAX]; N];
        for (t, tile) in self.weights.chunks(ROWS * n * T::BYTES).enumerate() {
            let mut groups = tile.chunks_exact(16 * T::BYTES);
            let mut at = 0;
            for (g, group) in groups.by_ref().enumerate() {
                let v = sixteen::<S, T, N>(s, group, x, at);
                for i in 0..N {
                    s.store(v[i], &mut values[i][g]);
                }
                at = (at + 16) % n;
            }
            let rest = groups.remainder();
            if !rest.is_empty() {
                let mut group = [0; 16 * BYTES_MAX];
                group[..rest.len()].copy_from_slice(rest);
                let v = sixteen::<S, T, N>(s, &group[..16 * T::BYTES], x, at);
                for i in 0..N {
                    s.store(v[i], &mut values[i][tile.len() / T::BYTES / 16]);
                }
            }
            let columns = ROWS * t..width.min(ROWS * (t + 1));
            for (i, values) in values.iter().enumerate().take(self.rows.1) {
                let row = self.rows.0 + i;
                let ds = &self.x.ds[row * n..][..n];
                let out = &mut self.out.row(row)[columns.clone()];
                add(values.as_flattened(), ds, out);
            }
        }
    }
}

/// The f32 operations of some weight rows.
#[inline(always)]
fn add(values: &[f32], ds: &[f32], out: &mut [f32]) {
    for (out, v) in out.iter_mut().zip(values.chunks_exact(ds.len())) {
        let mut acc = 0.0f32;
        for (v, dx) in v.iter().zip(ds) {
            acc = v.mul_add(*dx, acc);
        }
        *out = acc;
    }
}

/// The batch row of these blocks, and its first blocks again.
#[inline(always)]
fn prepared<'a, S: InOrder, T: Ordered>(
    s: S,
    x: Bytes<'_>,
    row: Range<usize>,
    room: &'a mut Room,
) -> Row<'a> {
    let (n, vectors) = (row.len(), T::SUMS.vectors());
    let (blocks, starts) = (&mut room.blocks[..n + 15], &mut room.starts[..(n + 15) * vectors]);
    for (b, (to, starts)) in blocks.iter_mut().zip(starts.chunks_mut(vectors)).enumerate().take(n) {
        let (block, from) = block::<S, T>(s, x, row.start + b);
        to.write(block);
        for (start, from) in starts.iter_mut().zip(from) {
            start.write(Start(from));
        }
    }
    for b in n..n + 15 {
        blocks[b] = blocks[b - n];
        starts.copy_within((b - n) * vectors..(b - n + 1) * vectors, b * vectors);
    }
    // SAFETY: all of them were written.
    unsafe {
        Row {
            blocks: &*(&raw const *blocks as *const [Block]),
            starts: &*(&raw const *starts as *const [Start]),
        }
    }
}

/// Block `at` of the activations, and what the sums with it begin with.
#[inline(always)]
fn block<S: InOrder, T: Ordered>(s: S, x: Bytes<'_>, at: usize) -> (Block, [[i32; 16]; 4]) {
    let (mut block, mut starts) = (Block([[0; 64]; 4]), [[0; 16]; 4]);
    let qs: &[[i8; 64]] = x.qs[256 * at..][..256].as_chunks().0;
    let v = [s.load_x(&qs[0]), s.load_x(&qs[1]), s.load_x(&qs[2]), s.load_x(&qs[3])];
    let (mut less, vectors) = ([s.zero_i(); 4], T::SUMS.vectors());
    for i in 0..4 {
        let v = s.pick_256(v, &T::PLACES[i]);
        s.store_b(v, zerocopy::transmute_mut!(&mut block.0[i]));
        let sum = i * vectors / 4;
        less[sum] = s.dot_quads::<0>(less[sum], s.splat_b(T::OFFSET), v);
    }
    if let Sums::Pairs = T::SUMS {
        let sums: &[i16; 16] = x.sums[16 * at..].first_chunk().unwrap_or(&[0; 16]);
        // The whole offset times a sum may not fit a word: half of it, twice.
        let half = -i16::from(T::OFFSET / 2);
        for (i, start) in starts[0].iter_mut().enumerate() {
            let [a, b] = [0, 1].map(|at| half * sums[(2 * i + at) % 16]);
            *start = i32::from(b) << 16 | i32::from(a.cast_unsigned());
        }
    } else {
        for i in 0..vectors {
            let mut sums = [0; 64];
            s.store_b(s.as_b(s.sub_shl::<0>(s.zero_i(), less[i])), &mut sums);
            starts[i] = zerocopy::transmute!(sums);
        }
    }
    (block, starts)
}

/// v of sixteen blocks with N rows of x; the first meets block `at` of them.
#[inline(always)]
fn sixteen<S: InOrder, T: Ordered, const N: usize>(
    s: S,
    group: &[u8],
    x: [Row<'_>; N],
    mut at: usize,
) -> [S::F; N] {
    let mut totals = [[s.zero_i(); 4]; N];
    for (quarter, blocks) in group.chunks_exact(4 * T::BYTES).enumerate() {
        let (a, c) = blocks.split_at(2 * T::BYTES);
        let [a, b] = two::<S, T, N>(s, a, x, at);
        let [c, d] = two::<S, T, N>(s, c, x, at + 2);
        at += 4;
        for n in 0..N {
            totals[n][quarter] = s.sum_quads([a[n], b[n], c[n], d[n]]);
        }
    }
    let d = factors::<S, T>(s, group);
    let mut out = [d; N];
    for n in 0..N {
        out[n] = s.mul(s.to_f(s.sum_quarters(totals[n])), d);
    }
    out
}

/// Factors of sixteen blocks.
#[inline(always)]
fn factors<S: InOrder, T: Ordered>(s: S, blocks: &[u8]) -> S::F {
    let mut d = [0; 32];
    for (d, block) in d.as_chunks_mut().0.iter_mut().zip(blocks.chunks_exact(T::BYTES)) {
        *d = T::factor(block);
    }
    s.mul(s.load_f16(&d), s.splat(T::FACTOR.1))
}

/// Lanes of T of two blocks with N rows of x.
#[inline(always)]
fn two<S: InOrder, T: Ordered, const N: usize>(
    s: S,
    blocks: &[u8],
    x: [Row<'_>; N],
    at: usize,
) -> [[S::I; N]; 2] {
    let (a, b) = blocks.split_at(T::BYTES);
    let [v, w] = T::look_up(s, [T::indices(s, a), T::indices(s, b)]);
    let taken = [T::take(s, a, v), T::take(s, b, w)];
    let mut totals = [[s.zero_i(); N]; 2];
    for i in 0..2 {
        for n in 0..N {
            // SAFETY: sixteen blocks follow each that a group begins with.
            let (x, starts) = unsafe {
                let starts = (at + i) * T::SUMS.vectors()..(at + i + 1) * T::SUMS.vectors();
                (x[n].blocks.get_unchecked(at + i), x[n].starts.get_unchecked(starts))
            };
            totals[i][n] = total::<S, T>(s, &taken[i], x, starts);
        }
    }
    totals
}

/// Lanes of T of a block.
#[inline(always)]
fn total<S: InOrder, T: Ordered>(s: S, taken: &Taken<S>, x: &Block, starts: &[Start]) -> S::I {
    let (mut sums, vectors) = ([s.zero_i(); 4], T::SUMS.vectors());
    if T::OFFSET != 0 {
        for (sum, start) in sums.iter_mut().zip(starts) {
            *sum = s.load_i(&start.0);
        }
    }
    if let Sums::Pairs = T::SUMS {
        let mut total = s.zero_i();
        if T::OFFSET != 0 {
            total = s.dot_words(total, taken.words, sums[0]);
        }
        for i in 0..4 {
            total = s.dot_scaled_b(total, taken.codes[i], s.load_x(&x.0[i]), taken.scales[i]);
        }
        return total;
    }
    for i in 0..4 {
        let sum = i * vectors / 4;
        let x = T::signed(s, taken, i, s.load_x(&x.0[i]));
        sums[sum] = s.dot_quads::<0>(sums[sum], taken.codes[i], x);
    }
    if let Sums::One = T::SUMS {
        return sums[0];
    }
    let mut total = s.zero_i();
    for i in 0..vectors {
        total = s.mul_add_i(total, sums[i], s.as_i(taken.scales[i]));
    }
    total
}
