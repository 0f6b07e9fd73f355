//! Splits work over the pool: batch rows, stripes of output columns. Every piece of an
//! output belongs to one chunk, and the pool runs a chunk once.

use super::super::pool::Pool;
use super::super::simd::Tier;
use super::acts::{ActCache, PACK_ROWS_MIN};
use super::linear::{Args, Linear};
use super::matmul::PANEL;
use super::stripe::Shared;
use crate::error::{Error, Result};
use std::ops::Range;

/// Values below which a job is not worth waking another thread.
const SMALL: usize = 16 * 1024;
/// Weight bytes of a chunk: some ten microseconds of reading. A chunk begins with lines that nobody
/// has asked for: one row of Q4_K takes 85, 92 and 90 % of the read limit by 96, 192 and 384 KiB.
const CHUNK_BYTES: usize = 256 * 1024;
/// Output columns are split at multiples of a cache line.
const COLUMNS: usize = 16;

/// Runs `body(row)` for every row, on several threads if `rows * width` values are worth it.
///
/// # Errors
/// `ERR_INTERNAL` if one of them panicked.
pub fn for_rows(
    pool: &mut Pool,
    rows: usize,
    width: usize,
    body: &(dyn Fn(usize) + Sync),
) -> Result<()> {
    if pool.threads() == 1 || rows < 2 || rows * width < SMALL {
        (0..rows).for_each(body);
        return Ok(());
    }
    let per = rows.div_ceil(pool.threads() * 4).max(1);
    pool.run(rows.div_ceil(per), &|chunk, _| {
        (chunk * per..rows.min((chunk + 1) * per)).for_each(body);
    })
}

/// Writes each row of `out` with `body(row, out_row)`.
///
/// # Errors
/// `ERR_INTERNAL` if one of them panicked.
pub fn map_rows(
    pool: &mut Pool,
    out: &mut [f32],
    width: usize,
    body: &(dyn Fn(usize, &mut [f32]) + Sync),
) -> Result<()> {
    let rows = out.len().checked_div(width).unwrap_or(0);
    let shared = Shared::new(out, width);
    // SAFETY: `for_rows` gives each row to one thread, once.
    for_rows(pool, rows, width, &|row| body(row, unsafe { shared.row(row) }))
}

/// One matrix product: some rows of x through one weight into some rows of an output.
pub struct Product<'a> {
    /// The kernel.
    pub kernel: Linear,
    /// `[n_out, k]`.
    pub weights: &'a [u8],
    /// Width of the result.
    pub n_out: usize,
    /// Values of a row of x.
    pub k: usize,
    /// Rows of x and of the output.
    pub rows: Range<usize>,
    /// `[all rows, n_out]`.
    pub out: &'a Shared<'a>,
}

impl Product<'_> {
    fn check(&self) -> Result<()> {
        let fits = self.kernel.kind.row_bytes(self.k).and_then(|row| row.checked_mul(self.n_out));
        if fits != Some(self.weights.len()) || self.k == 0 || self.n_out == 0 {
            let text = format!(
                "{} bytes of {} for [{}, {}]",
                self.weights.len(),
                self.kernel.kind.name(),
                self.n_out,
                self.k
            );
            return Err(Error::internal("linear", text));
        }
        Ok(())
    }

    /// Columns of a chunk.
    fn step(&self, threads: usize) -> usize {
        if self.rows.len() >= PACK_ROWS_MIN {
            return PANEL;
        }
        let row_bytes = self.weights.len() / self.n_out;
        let wanted = (CHUNK_BYTES / row_bytes.max(1)).min(self.n_out.div_ceil(3 * threads));
        wanted.next_multiple_of(COLUMNS)
    }
}

/// Runs products whose outputs do not overlap as one job. `x` is `[all rows, k]`, its quantised
/// forms prepared.
///
/// # Errors
/// `ERR_INTERNAL` if a weight's bytes do not fit its shape.
pub fn products(
    (tier, pool): (Tier, &mut Pool),
    acts: &ActCache,
    x: &[f32],
    list: &[Product<'_>],
    after: &(dyn Fn(usize, Range<usize>) + Sync),
) -> Result<()> {
    let threads = pool.threads();
    let mut chunks = 0;
    for product in list {
        product.check()?;
        chunks += product.n_out.div_ceil(product.step(threads));
    }
    pool.run(chunks, &|chunk, _| {
        let mut chunk = chunk;
        for (index, p) in list.iter().enumerate() {
            let step = p.step(threads);
            let here = p.n_out.div_ceil(step);
            if chunk >= here {
                chunk -= here;
                continue;
            }
            let columns = chunk * step..p.n_out.min((chunk + 1) * step);
            let row_bytes = p.weights.len() / p.n_out;
            // SAFETY: chunks cover disjoint columns, products disjoint outputs.
            let mut out = unsafe { p.out.piece(p.rows.clone(), columns.clone()) };
            let weights = &p.weights[columns.start * row_bytes..columns.end * row_bytes];
            let packed = acts.packed(p.kernel.act, &p.rows, p.k);
            let acts = acts.view(p.kernel.act, x, p.rows.clone(), p.k);
            p.kernel.call(tier, Args { weights, k: p.k, acts, packed, out: &mut out });
            after(index, columns);
            return;
        }
    })
}
