//! y = W x for float weights: 16 f32 lanes over K (lane l takes k = l mod 16), fma, then added by
//! halves, in tiles of weight rows x batch rows.
//!
//! The weight rows of a tile lie far apart in the chunk, so that memory sees long streams. Six of
//! them, because x comes from the second cache as soon as it is longer than 8 KB, and is then a
//! third of all that the first cache takes in if only four rows share it. With eight to
//! sixteen batch rows, three: of rows that are multiplied four at a time the first four alone read
//! memory, which then waits for the others. Cycles for 16 weights and 8 rows of F16 on Zen 4, of
//! which the multipliers need 8: 10.1 instead of 10.2 at 34 GB/s, 10.2 instead of 10.9 at 45. Tried
//! too: six weight rows in pieces of 512 of K, whose sums wait in memory: 10.4 and 10.1.

use super::super::simd::{Kernel, LANES, Simd};
use super::float::FloatType;
use super::linear::Args;
use super::math::load_padded;
use std::marker::PhantomData;
use std::ops::{Range, RangeInclusive};

/// Batch rows that meet all weight rows of a chunk before the next: in the second cache.
const BLOCK: usize = 32;

/// Weight rows of a tile, if there are registers for four batch rows beside them.
const TALL: usize = 6;

/// How many batch rows go eight at a time: more than that wait for the multipliers, not for memory.
const WIDE: RangeInclusive<usize> = 8..=16;

/// Weight rows of a float type times rows of x.
pub struct RowsFloat<'a, 'b, T> {
    /// `[n_rows, k]`.
    pub x: &'a [f32],
    /// The call.
    pub args: Args<'a, 'b>,
    /// The type.
    pub life: PhantomData<T>,
}

impl<T: FloatType> Kernel for RowsFloat<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let n = self.args.out.n_rows();
        for first in (0..n).step_by(BLOCK) {
            let batch = first..n.min(first + BLOCK);
            if S::REGISTERS >= 32 && WIDE.contains(&batch.len()) {
                self.rows::<S, 3, 8>(s, batch);
            } else if S::REGISTERS >= 32 || batch.len() == 1 {
                self.rows::<S, TALL, 4>(s, batch);
            } else {
                self.rows::<S, 2, 2>(s, batch);
            }
        }
    }
}

impl<T: FloatType> RowsFloat<'_, '_, T> {
    /// All weight rows, R at a time, times some batch rows, N at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const N: usize>(&mut self, s: S, batch: Range<usize>) {
        let width = self.args.out.width();
        let apart = width / R;
        for r in 0..apart {
            let mut i = batch.start;
            while i + N <= batch.end {
                self.tile::<S, R, N>(s, (r, apart), i);
                i += N;
            }
            if N > 4 && i + 4 <= batch.end {
                self.tile::<S, R, 4>(s, (r, apart), i);
                i += 4;
            }
            if N > 2 && i + 2 <= batch.end {
                self.tile::<S, R, 2>(s, (r, apart), i);
                i += 2;
            }
            while i < batch.end {
                self.tile::<S, R, 1>(s, (r, apart), i);
                i += 1;
            }
        }
        for r in apart * R..width {
            batch.clone().for_each(|i| self.tile::<S, 1, 1>(s, (r, 0), i));
        }
    }

    /// R weight rows, the first `r`, `apart` from each other, times N batch rows from `i` on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize>(
        &mut self,
        s: S,
        (r, apart): (usize, usize),
        i: usize,
    ) {
        let k = self.args.k;
        let (mut rows, mut tails) = ([&[][..]; R], [&[][..]; R]);
        for a in 0..R {
            let at = (r + a * apart) * k * T::BYTES;
            (rows[a], tails[a]) = T::sixteens(&self.args.weights[at..at + k * T::BYTES]);
        }
        let (mut xs, mut ends) = ([&[][..]; N], [&[][..]; N]);
        for b in 0..N {
            (xs[b], ends[b]) = self.x[(i + b) * k..(i + b + 1) * k].as_chunks();
        }
        let mut acc = [[s.splat(0.0); N]; R];
        multiply::<S, T, R, N>(s, rows, xs, &mut acc);
        if !k.is_multiple_of(LANES) {
            for a in 0..R {
                let w = T::load(s, tails[a]);
                for b in 0..N {
                    acc[a][b] = s.fma(w, load_padded(s, ends[b]), acc[a][b]);
                }
            }
        }
        for b in 0..N {
            let out = self.args.out.row(i + b);
            for a in 0..R {
                out[r + a * apart] = s.reduce_add(acc[a][b]);
            }
        }
    }
}

/// Adds the products of R weight rows with N rows of x, lane by lane.
#[inline(always)]
fn multiply<S: Simd, T: FloatType, const R: usize, const N: usize>(
    s: S,
    mut w: [&[T::Sixteen]; R],
    mut x: [&[[f32; LANES]]; N],
    acc: &mut [[S::F; N]; R],
) {
    // All of one length that the compiler sees, so that the loop checks nothing.
    let len = x[0].len();
    for w in &mut w {
        *w = &w[..len];
    }
    for x in &mut x {
        *x = &x[..len];
    }
    for c in 0..len {
        let mut xs = [s.splat(0.0); N];
        for b in 0..N {
            xs[b] = s.load(&x[b][c]);
        }
        for a in 0..R {
            if R > 1 && c % 2 == 0 {
                s.prefetch(w[a].as_ptr().wrapping_add(c).cast::<u8>().wrapping_add(AHEAD));
            }
            let w = T::sixteen(s, &w[a][c]);
            for b in 0..N {
                acc[a][b] = s.fma(w, xs[b], acc[a][b]);
            }
        }
    }
}

/// Bytes ahead of a stream that are asked for: few, or the hardware's own streams get in the way.
const AHEAD: usize = 256;
