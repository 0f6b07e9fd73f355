//! Few batch rows through 256-value blocks whose codes are looked up: a block's codes come out of
//! the table once for up to four batch rows, or four weight rows far apart meet one.
//!
//! ```text
//! |codes| x (x with the signs of codes) -> pairs in i16, times the 16-bit scales of their
//!   sub-blocks -> i32 lanes; lanes are summed once a block for four products.
//! ```

use super::super::simd::wide::{Wide, WideKernel};
use super::quantise::Bytes;
use super::registers::Dot256;
use super::stripe::Stripe;
use std::marker::PhantomData;

/// Weight rows `[width of out, k]` times all batch rows.
pub struct ByRow<'a, 'b, T> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// All batch rows.
    pub x: Bytes<'a>,
    /// Where to: `[batch rows, weight rows]`.
    pub out: &'a mut Stripe<'b>,
    /// The type.
    pub life: PhantomData<T>,
}

/// Sixteens of 64 codes in order, for [`Wide::pick16`]: their bytes become the high ones.
const SIXTEENS: [[u8; 64]; 4] = [four(0), four(4), four(8), four(12)];

const fn four(first: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i + 1] = first + (i / 16) as u8;
        i += 2;
    }
    index
}

/// Four products at a time, as (weight row, batch row): four weight rows with one batch row, or one
/// with four. Indices past the end repeat the last.
fn fours(n: usize, width: usize) -> impl Iterator<Item = [(usize, usize); 4]> {
    let apart = width.div_ceil(4);
    let (steps, tiles) = if n == 1 { (apart, 1) } else { (width, n.div_ceil(4)) };
    (0..steps * tiles).map(move |i| {
        [0, 1, 2, 3].map(|a| match n {
            1 => ((i + a * apart).min(width - 1), 0),
            _ => (i / tiles, (i % tiles * 4 + a).min(n - 1)),
        })
    })
}

impl<T: Dot256> WideKernel for ByRow<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let n = self.out.n_rows();
        for four in fours(n, self.out.width()) {
            let y = if n == 1 { self.rows(s, four) } else { self.row(s, four) };
            for ((r, b), y) in four.into_iter().zip(y) {
                self.out.row(b)[r] = y;
            }
        }
    }
}

impl<T: Dot256> ByRow<'_, '_, T> {
    /// Four weight rows with the only batch row.
    #[inline(always)]
    fn rows<S: Wide>(&self, s: S, four: [(usize, usize); 4]) -> [f32; 4] {
        let (n_blocks, mut acc) = (self.k / 256, [0.0; 4]);
        for (b, x) in self.x.qs[..self.k].as_chunks::<256>().0.iter().enumerate() {
            let (mut t, mut d) = ([s.zero_i(); 4], [0.0; 4]);
            for a in 0..4 {
                let block = &self.weights[(four[a].0 * n_blocks + b) * T::BYTES..][..T::BYTES];
                [t[a]] = lanes::<S, T, 1>(s, block, [x]);
                d[a] = T::factors(s, block)[0];
            }
            add(&mut acc, s.reduce_halves(t), (d, [self.x.ds[b]; 4]));
        }
        acc
    }

    /// One weight row with four batch rows.
    #[inline(always)]
    fn row<S: Wide>(&self, s: S, four: [(usize, usize); 4]) -> [f32; 4] {
        let (n_blocks, mut acc) = (self.k / 256, [0.0; 4]);
        let blocks = &self.weights[four[0].0 * n_blocks * T::BYTES..][..n_blocks * T::BYTES];
        let qs = self.x.qs.as_chunks::<256>().0;
        for (b, block) in blocks.chunks_exact(T::BYTES).enumerate() {
            let (mut x, mut dx) = ([&[0; 256]; 4], [0.0; 4]);
            for a in 0..4 {
                let at = four[a].1 * n_blocks + b;
                (x[a], dx[a]) = (&qs[at], self.x.ds[at]);
            }
            let t = lanes::<S, T, 4>(s, block, x);
            add(&mut acc, s.reduce_halves(t), ([T::factors(s, block)[0]; 4], dx));
        }
        acc
    }
}

/// The f32 operations of a block.
#[inline(always)]
fn add(acc: &mut [f32; 4], [low, high]: [[i32; 4]; 2], (d, dx): ([f32; 4], [f32; 4])) {
    for a in 0..4 {
        let v = low[a].wrapping_add(high[a]) as f32 * d[a];
        acc[a] = v.mul_add(dx[a], acc[a]);
    }
}

/// Lanes of T of a block with N times 256 values of x.
#[inline(always)]
pub fn lanes<S: Wide, T: Dot256 + ?Sized, const N: usize>(
    s: S,
    block: &[u8],
    x: [&[i8; 256]; N],
) -> [S::I; N] {
    let mut t = [s.zero_i(); N];
    let (codes, (scales, _)) = (T::codes(s, block), T::scales(block));
    let offset = s.splat_b(128u8.wrapping_sub(T::OFFSET as u8));
    for part in 0..4 {
        let above = s.add_b(codes[part], offset);
        let scale = s.pick16(&scales, &SIXTEENS[part]);
        for n in 0..N {
            let x = halves(s, x[n], T::HALVES[part]);
            t[n] = s.dot_scaled_signed(t[n], above, x, scale);
        }
    }
    t
}

/// The 64 activations that meet a vector of codes.
#[inline(always)]
fn halves<S: Wide>(s: S, x: &[i8; 256], [a, b]: [usize; 2]) -> S::B {
    let (a, b) = (x[a..].first_chunk(), x[b..].first_chunk());
    s.join_x(a.unwrap_or(&[0; 32]), b.unwrap_or(&[0; 32]))
}
