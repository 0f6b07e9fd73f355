//! y = W x for float weights: 16 f32 lanes over K (lane l takes k = l mod 16), fma, then added by
//! halves, in tiles of weight rows x batch rows.

use super::super::simd::{Kernel, LANES, Simd};
use super::float::FloatType;
use super::linear::Args;
use super::math::load_padded;
use std::marker::PhantomData;

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
        // Tiles of weight rows x batch rows; a tile's weights stay in the first cache, a block of
        // batch rows in the second.
        let (n, width) = (self.args.out.n_rows(), self.args.out.width());
        let (tall, broad) = if S::REGISTERS >= 32 { (6, 4) } else { (2, 2) };
        for block in (0..n).step_by(FLOAT_ROWS) {
            let end = n.min(block + FLOAT_ROWS);
            let mut r = 0;
            while r < width {
                let whole = r + tall <= width;
                let mut i = block;
                while i < end {
                    let full = i + broad <= end;
                    match (whole, full, S::REGISTERS >= 32) {
                        (true, true, true) => self.tile::<S, 6, 4>(s, r, i),
                        (true, false, true) => self.tile::<S, 6, 1>(s, r, i),
                        (true, true, false) => self.tile::<S, 2, 2>(s, r, i),
                        (true, false, false) => self.tile::<S, 2, 1>(s, r, i),
                        (false, ..) => self.tile::<S, 1, 1>(s, r, i),
                    }
                    i += if whole && full { broad } else { 1 };
                }
                r += if whole { tall } else { 1 };
            }
        }
    }
}

/// Batch rows that meet all weight rows of a chunk before the next.
const FLOAT_ROWS: usize = 32;

impl<T: FloatType> RowsFloat<'_, '_, T> {
    /// R weight rows from `r` on times N batch rows from `i` on.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const N: usize>(&mut self, s: S, r: usize, i: usize) {
        let k = self.args.k;
        let (mut rows, mut xs) = ([&[][..]; R], [&[][..]; N]);
        for (a, row) in rows.iter_mut().enumerate() {
            *row = &self.args.weights[(r + a) * k * T::BYTES..(r + a + 1) * k * T::BYTES];
        }
        for (b, x) in xs.iter_mut().enumerate() {
            *x = &self.x[(i + b) * k..(i + b + 1) * k];
        }
        let mut acc = [[s.splat(0.0); N]; R];
        for at in (0..k).step_by(LANES) {
            let mut x = [s.splat(0.0); N];
            for b in 0..N {
                x[b] = load_padded(s, &xs[b][at..]);
            }
            for a in 0..R {
                let row = &rows[a][at * T::BYTES..];
                if N == 1 && R > 1 {
                    s.prefetch(row.as_ptr().wrapping_add(AHEAD));
                }
                let w = T::load(s, row);
                for b in 0..N {
                    acc[a][b] = s.fma(w, x[b], acc[a][b]);
                }
            }
        }
        for b in 0..N {
            for a in 0..R {
                self.args.out.row(i + b)[r + a] = s.reduce_add(acc[a][b]);
            }
        }
    }
}

/// Bytes ahead of a float row that are asked for.
const AHEAD: usize = 1024;
