//! Splits work over the pool: batch rows, stripes of output columns. Every piece of an
//! output belongs to one chunk, and the pool runs a chunk once.

use super::super::pool::Pool;
use super::super::simd::Tier;
use super::act::GatedAct;
use super::acts::ActCache;
use super::linear::{Args, Linear};
use super::matmul::PANEL;
use super::stripe::Shared;
use crate::error::{Error, Result};
use crate::plan::Act;
use std::ops::Range;

/// Values below which a job is not worth waking another thread.
const SMALL: usize = 16 * 1024;
/// Least weight bytes of a piece: some microseconds of reading, which is what a thread waits for
/// another at most if none is disturbed. A piece begins with lines that nobody has asked for, so
/// they are larger as long as much is left. Pieces of 65 or 80 % of a thread's share instead of
/// half, or of at least 64 or 192 KiB, were no faster.
const PIECE_BYTES: usize = 96 * 1024;
/// Output columns are split at multiples of a cache line.
const COLUMNS: usize = 16;
/// From so many tiles on their number must be odd.
const TILES_ROUND: usize = 32;

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
    if pool.active() == 1 || rows < 2 || rows * width < SMALL {
        (0..rows).for_each(body);
        return Ok(());
    }
    let per = rows.div_ceil(pool.active() * 4).max(1);
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

/// How products are cut into pieces.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// For so many threads that read the weights once: pieces are half of a thread's share of what
    /// is left, so there are few, their streams are long, and the last are short.
    Streams(usize),
    /// Panels of the matrix kernels.
    Panels,
}

impl Cut {
    /// For so many rows through a kernel.
    #[must_use]
    pub fn of(kernel: Linear, rows: usize, threads: usize) -> Self {
        if rows >= kernel.many_from { Cut::Panels } else { Cut::Streams(threads) }
    }
}

/// The pieces of products, of which `size` tells (columns, bytes of each): index and columns.
pub fn pieces(
    size: impl Fn(usize) -> Option<(usize, usize)>,
    cut: Cut,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut left: usize = (0..).map_while(&size).map(|(n, bytes)| n * bytes).sum();
    let (mut index, mut at) = (0, 0);
    std::iter::from_fn(move || {
        while size(index).is_some_and(|(n, _)| at >= n) {
            (index, at) = (index + 1, 0);
        }
        let (n, bytes) = size(index)?;
        let columns = match cut {
            Cut::Panels => PANEL,
            Cut::Streams(1) => streams(n, n - at),
            Cut::Streams(threads) => {
                let wanted = (left / (2 * threads)).max(PIECE_BYTES);
                streams(wanted / bytes.max(1), n - at)
            }
        };
        let part = at..n.min(at + columns);
        at = part.end;
        left = left.saturating_sub(part.len() * bytes);
        Some((index, part))
    })
}

/// About `wanted` columns of those that are left. With a round number of tiles the streams of a
/// tile may lie a multiple of a cache's ways apart, and evict each other: one thread reads
/// TinyLlama at 16 GB/s so, at 20 otherwise.
fn streams(wanted: usize, left: usize) -> usize {
    let tiles = (wanted.div_ceil(COLUMNS) | 1).min(left.div_ceil(COLUMNS));
    let tiles = if tiles < TILES_ROUND { tiles } else { (tiles - 1) | 1 };
    left.min(tiles * COLUMNS)
}

impl Product<'_> {
    /// Whether the weights have the size that their shape asks for.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if not.
    pub fn check(&self) -> Result<()> {
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

    /// Computes some columns. `x` is `[all rows, k]`, its form for this weight prepared.
    ///
    /// # Safety
    /// Nobody else touches these columns of these rows.
    pub unsafe fn columns(&self, tier: Tier, acts: &ActCache, x: &[f32], columns: Range<usize>) {
        let row_bytes = self.weights.len() / self.n_out;
        // SAFETY: the caller's promise.
        let mut out = unsafe { self.out.piece(self.rows.clone(), columns.clone()) };
        let weights = &self.weights[columns.start * row_bytes..columns.end * row_bytes];
        let packed = acts.packed(self.kernel.act, &self.rows, self.k);
        let acts = acts.view(self.kernel.act, x, self.rows.clone(), self.k);
        self.kernel.call(tier, Args { weights, k: self.k, acts, packed, out: &mut out });
    }
}

/// Runs `n` products whose outputs do not overlap as one job. `x` is `[all rows, k]`, its
/// quantised forms prepared. With `act` they are pairs (gate, up) of equal shape, and gate becomes
/// act(gate) * up.
///
/// # Errors
/// What `product` fails with; `ERR_INTERNAL` if a weight's bytes do not fit its shape.
pub fn products<'a>(
    (tier, pool): (Tier, &mut Pool),
    acts: &ActCache,
    x: &[f32],
    (n, product): (usize, &(dyn Fn(usize) -> Result<Product<'a>> + Sync)),
    act: Option<Act>,
) -> Result<()> {
    let (mut cut, per) = (Cut::Panels, if act.is_some() { 2 } else { 1 });
    for index in 0..n {
        let product = product(index)?;
        product.check()?;
        let own = Cut::of(product.kernel, product.rows.len(), pool.active());
        cut = if matches!(own, Cut::Streams(_)) { own } else { cut };
    }
    let size = |index: usize| {
        let some = per * index..n.min(per * (index + 1));
        let parts = some.map_while(|i| product(i).ok());
        let parts = parts.map(|p| (p.n_out, p.weights.len() / p.n_out));
        parts.reduce(|a, b| (a.0, a.1 + b.1))
    };
    let chunks = pieces(size, cut).count();
    pool.run(chunks, &|chunk, _| {
        let Some((index, columns)) = pieces(size, cut).nth(chunk) else { return };
        for index in per * index..per * (index + 1) {
            if let Ok(product) = product(index) {
                // SAFETY: pieces are of disjoint columns, products of disjoint outputs.
                unsafe { product.columns(tier, acts, x, columns.clone()) };
            }
        }
        if let Some(act) = act
            && let (Ok(gate), Ok(up)) = (product(2 * index), product(2 * index + 1))
        {
            // SAFETY: as above; this piece is done.
            let (mut gate, mut up) = unsafe {
                let rows = gate.rows.clone();
                (gate.out.piece(rows.clone(), columns.clone()), up.out.piece(rows, columns))
            };
            for row in 0..gate.n_rows() {
                tier.call(GatedAct { act, gate: gate.row(row), up: up.row(row) });
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_take_every_column_once_and_no_streams_lie_round_numbers_of_tiles_apart() {
        for threads in [1, 2, 3, 16] {
            for sizes in [vec![(2048, 1152)], vec![(256, 1152), (4096, 1680)], vec![(32_001, 2304)]]
            {
                let mut next = (0, 0);
                for (index, part) in pieces(|i| sizes.get(i).copied(), Cut::Streams(threads)) {
                    if index != next.0 {
                        assert_eq!(next.1, sizes[next.0].0, "{threads} threads, {sizes:?}");
                        next = (index, 0);
                    }
                    assert_eq!(part.start, next.1, "{threads} threads, {sizes:?}");
                    let tiles = part.len().div_ceil(COLUMNS);
                    assert!(tiles < TILES_ROUND || tiles % 2 == 1, "{tiles} tiles of {sizes:?}");
                    next.1 = part.end;
                }
                assert_eq!(next, (sizes.len() - 1, sizes[sizes.len() - 1].0));
            }
        }
    }
}
