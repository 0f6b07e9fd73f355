//! Splits attention over the pool: kv heads and blocks of rows of a sequence. Every piece of the
//! output belongs to one chunk.

use super::super::super::pool::Pool;
use super::super::super::simd::Tier;
use super::super::stripe::Shared;
use super::{Item, KvLayerView, PageView, ROWS, Scratch};
use crate::error::{Error, Result};
use crate::plan::Attend;
use parking_lot::Mutex;
use std::ops::Range;

/// Rows of one sequence in the batch.
#[derive(Clone, Debug)]
pub struct Span {
    /// Rows.
    pub rows: Range<usize>,
    /// Position of the first.
    pub position: usize,
    /// Index of the sequence.
    pub sequence: usize,
}

/// Attention of all rows, split by kv head and blocks of rows.
pub struct Attention<'a> {
    /// Shape.
    pub attend: &'a Attend,
    /// Types of the pages.
    pub kv: KvLayerView,
    /// `[n_rows, n_head * head_dim_k]`.
    pub q: &'a [f32],
    /// Rows of each sequence.
    pub spans: &'a [Span],
    /// One a worker.
    pub scratch: &'a [Mutex<Scratch>],
}

/// Runs it into `out [n_rows, n_head * head_dim_v]`; `page(sequence, p)` finds a page.
///
/// # Errors
/// `ERR_INTERNAL` for heads that do not divide or too little scratch.
pub fn attend<'p>(
    (tier, pool): (Tier, &mut Pool),
    job: &Attention<'_>,
    page: &(dyn Fn(usize, usize) -> PageView<'p> + Sync),
    out: &mut [f32],
) -> Result<()> {
    let (attend, n_kv) = (job.attend, job.attend.n_head_kv);
    if n_kv == 0 || attend.n_head % n_kv != 0 || job.scratch.len() < pool.threads() {
        return Err(Error::internal("attend", "heads or scratch"));
    }
    let (width, out_width) = (attend.n_head * attend.head_dim_k, attend.n_head * attend.head_dim_v);
    let blocks = |span: &Span| span.rows.len().div_ceil(ROWS);
    let chunks: usize = job.spans.iter().map(|span| blocks(span) * n_kv).sum();
    let out = Shared::new(out, out_width);
    pool.run(chunks, &|chunk, worker| {
        let mut chunk = chunk;
        for span in job.spans {
            let here = blocks(span) * n_kv;
            if chunk >= here {
                chunk -= here;
                continue;
            }
            let first = chunk / n_kv * ROWS;
            let rows = span.rows.start + first..span.rows.end.min(span.rows.start + first + ROWS);
            tier.call(Item {
                attend,
                kv: job.kv,
                head: chunk % n_kv,
                q: &job.q[rows.start * width..rows.end * width],
                position: span.position + first,
                page: |tile| page(span.sequence, tile),
                out: &out,
                out_row: rows.start,
                scratch: &mut job.scratch[worker].lock(),
            });
            return;
        }
    })
}
