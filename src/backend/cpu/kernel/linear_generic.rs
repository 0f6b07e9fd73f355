//! y = W x for tensor types without a kernel of their own: some values of a few weight rows become
//! f32 on the stack and meet all batch rows, in the order of additions of float weights.

use super::super::simd::{Kernel, LANES, Simd};
use super::float::{F32, FloatType, dequantise};
use super::linear::Args;
use super::linear_float::{TALL, multiply};
use crate::quant::TensorType;
use std::ops::Range;
use zerocopy::IntoBytes;

/// Values of K that are unpacked at a time: with six rows of them in the first cache.
const VALUES: usize = 512;
/// Batch rows that one unpacking serves.
const BLOCK: usize = 128;

/// Weight rows of any type times rows of x.
pub struct RowsGeneric<'a, 'b> {
    /// `[n_rows, k]`.
    pub x: &'a [f32],
    /// The weight's type.
    pub kind: TensorType,
    /// The call.
    pub args: Args<'a, 'b>,
}

/// Sums of a tile's weight rows with every batch row, lane by lane.
type Sums = [[[f32; LANES]; TALL]; BLOCK];

impl Kernel for RowsGeneric<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, n) = (self.args.k, self.args.out.n_rows());
        let width = self.args.out.width();
        let mut sums: Sums = [[[0.0; LANES]; TALL]; BLOCK];
        let mut panel = [[0.0f32; VALUES]; TALL];
        for first in (0..n).step_by(BLOCK) {
            let batch = first..n.min(first + BLOCK);
            for r in (0..width).step_by(TALL) {
                let rows = r..width.min(r + TALL);
                sums[..batch.len()].as_flattened_mut().fill([0.0; LANES]);
                for at in (0..k).step_by(VALUES) {
                    let values = at..k.min(at + VALUES);
                    self.unpack(&rows, &values, &mut panel);
                    let mut i = 0;
                    while i + 4 <= batch.len() && S::REGISTERS >= 32 {
                        self.tile::<S, 4>(s, &panel, (&values, first), i, &mut sums);
                        i += 4;
                    }
                    while i < batch.len() {
                        self.tile::<S, 1>(s, &panel, (&values, first), i, &mut sums);
                        i += 1;
                    }
                }
                for (sums, i) in sums.iter().zip(batch.clone()) {
                    let out = &mut self.args.out.row(i)[rows.clone()];
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = s.reduce_add(s.load(sum));
                    }
                }
            }
        }
    }
}

impl RowsGeneric<'_, '_> {
    /// Some values of some rows to the panel.
    fn unpack(&self, rows: &Range<usize>, values: &Range<usize>, panel: &mut [[f32; VALUES]]) {
        let (len, bytes) = (self.kind.block_len(), self.kind.block_bytes());
        let row_bytes = self.args.k / len * bytes;
        for (r, out) in rows.clone().zip(panel) {
            let row = &self.args.weights[r * row_bytes..(r + 1) * row_bytes];
            let blocks = &row[values.start / len * bytes..values.end / len * bytes];
            let out = &mut out[..values.len()];
            if dequantise(self.kind, blocks, out).is_err() {
                out.fill(f32::NAN);
            }
        }
    }

    /// The panel times N batch rows from `first + i` on; its missing rows are computed for nothing.
    #[inline(always)]
    fn tile<S: Simd, const N: usize>(
        &self,
        s: S,
        panel: &[[f32; VALUES]; TALL],
        (values, first): (&Range<usize>, usize),
        i: usize,
        sums: &mut Sums,
    ) {
        let mut w = [&[][..]; TALL];
        for (w, panel) in w.iter_mut().zip(panel) {
            *w = F32::sixteens(panel.as_bytes()).0;
        }
        let mut x = [&[][..]; N];
        for (b, x) in x.iter_mut().enumerate() {
            let row = &self.x[(first + i + b) * self.args.k..][values.clone()];
            *x = row.as_chunks().0;
        }
        let mut acc = [[s.splat(0.0); N]; TALL];
        for a in 0..TALL {
            for b in 0..N {
                acc[a][b] = s.load(&sums[i + b][a]);
            }
        }
        multiply::<S, F32, TALL, N>(s, w, x, &mut acc);
        for a in 0..TALL {
            for b in 0..N {
                s.store(acc[a][b], &mut sums[i + b][a]);
            }
        }
    }
}
