//! y = W x for tensor types without a kernel of their own: a block at a time to f32 on the stack,
//! used by several batch rows, in the order of additions of float weights.

use super::super::simd::{Kernel, LANES, Simd};
use super::float::dequantise;
use super::linear::Args;
use super::math::load_padded;
use crate::quant::TensorType;

/// Batch rows that one unpacking of a weight block serves.
const ROWS: usize = 8;

/// Weight rows of any type times rows of x.
pub struct RowsGeneric<'a, 'b> {
    /// `[n_rows, k]`.
    pub x: &'a [f32],
    /// The weight's type.
    pub kind: TensorType,
    /// The call.
    pub args: Args<'a, 'b>,
}

impl Kernel for RowsGeneric<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, n) = (self.args.k, self.args.out.n_rows());
        let (len, bytes) = (self.kind.block_len(), self.kind.block_bytes());
        let mut values = [0.0; 256];
        let values = &mut values[..len];
        for first in (0..n).step_by(ROWS) {
            let count = ROWS.min(n - first);
            for (r, row) in self.args.weights.chunks_exact(k / len * bytes).enumerate() {
                let mut acc = [s.splat(0.0); ROWS];
                for (b, block) in row.chunks_exact(bytes).enumerate() {
                    if dequantise(self.kind, block, values).is_err() {
                        values.fill(f32::NAN);
                    }
                    for (i, acc) in acc.iter_mut().enumerate().take(count) {
                        let x = &self.x[(first + i) * k + b * len..][..len];
                        for (w, x) in values.chunks(LANES).zip(x.chunks(LANES)) {
                            *acc = s.fma(load_padded(s, w), load_padded(s, x), *acc);
                        }
                    }
                }
                for (i, acc) in acc.iter().enumerate().take(count) {
                    self.args.out.row(first + i)[r] = s.reduce_add(*acc);
                }
            }
        }
    }
}
