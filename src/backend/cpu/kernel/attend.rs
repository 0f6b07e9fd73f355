//! Attention over a paged KV cache in tiles of 256 keys (8 pages), no score matrix beyond a tile.
//!
//! For one query row and head, every tile by itself, from its place in the sequence:
//! ```text
//! s[j] = sum over d of (q[d] scale log2 e) k[d][j]     lanes are keys, d in order
//! m = max s; p = 2^(s - m); l = sum p                  lanes first, then by halves
//! o = sum over j of p[j] v[j]                          fma, keys j in order
//! ```
//! then tiles are folded in order of position: (m, l, o) and the next (m', l', o') become
//! M = max(m, m'), a = 2^(m - M), b = 2^(m' - M), l a + l' b, o a + o' b; and o / l in the end.
//! Who computes a tile, and with which other queries, changes no bit: long contexts of single rows
//! are cut between tiles, and many queries share the conversion of a tile to f32.
//! Source: Milakov and Gimelshein 2018; Dao et al. 2022, 2023 (split over keys).

pub mod append;
pub mod job;
mod stored;
mod tile;

use super::super::simd::{Kernel, LANES, Simd};
use super::buffer::Buffer;
use super::float::{BF16, F16, F32};
use super::hadamard::rotate;
use super::math::{load_padded, store_padded};
use crate::backend::{KV_BLOCK, KvType, PAGE_TOKENS};
use crate::error::Result;
use crate::plan::{Attend, KvLayer};
use std::ops::Range;
use stored::{Each, Q4, Q8, Stored, Values};
use tile::{Fold, Queries, Tile, fold_state, fold_tile, fold_values};
use zerocopy::IntoBytes;

/// Pages of a tile.
pub const TILE_PAGES: usize = 8;
/// Keys of a tile.
pub const TILE: usize = TILE_PAGES * PAGE_TOKENS;
/// Largest score, sum, and what keeps lines aligned.
const LINE_STATE: usize = LANES;
/// Queries that an item should have, so that converting its tiles costs little.
const QUERIES: usize = 128;
/// Most rows of an item.
const ROWS_MAX: usize = 64;

/// One layer of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    /// A head after the other, see `stored`.
    pub k: &'a [u8],
    /// Likewise.
    pub v: &'a [u8],
}

impl PageView<'_> {
    /// No page.
    pub const EMPTY: PageView<'static> = PageView { k: &[], v: &[] };
}

/// Shape and types of a layer's pages.
#[derive(Clone, Copy, Debug)]
pub struct KvLayerView {
    /// Shape.
    pub layer: KvLayer,
    /// Type of keys.
    pub k: KvType,
    /// Type of values.
    pub v: KvType,
}

/// Query rows of one item of work.
#[must_use]
pub fn rows_of(attend: &Attend) -> usize {
    let group = (attend.n_head / attend.n_head_kv.max(1)).max(1);
    (QUERIES / group).clamp(1, ROWS_MAX)
}

/// Numbers of a query's line: values, padded, then largest score and sum.
fn line_width(attend: &Attend) -> usize {
    attend.head_dim_v.next_multiple_of(KV_BLOCK) + LINE_STATE
}

/// What one worker needs.
#[derive(Default)]
pub struct Scratch {
    /// A tile's keys as f32: `[8 pages][head_dim_k][32]`.
    k: Buffer<f32>,
    /// A tile's values as f32: `[8 pages][32][head_dim_v, padded]`.
    v: Buffer<f32>,
    /// Queries, transposed in blocks.
    q: Buffer<f32>,
    /// A line a query.
    lines: Buffer<f32>,
}

impl Scratch {
    /// Room for items of this attention.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, attend: &Attend) -> Result<()> {
        let queries = rows_of(attend) * attend.n_head / attend.n_head_kv.max(1);
        self.k.grow(attend.head_dim_k * TILE)?;
        self.v.grow(attend.head_dim_v.next_multiple_of(KV_BLOCK) * TILE)?;
        self.q.grow((queries + 1) * attend.head_dim_k)?;
        self.lines.grow(line_width(attend) * queries)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.k.bytes() + self.v.bytes() + self.q.bytes() + self.lines.bytes()
    }
}

/// Some rows of one sequence against one kv head.
pub struct Item<'a, 'f, 'o, P> {
    /// Shape.
    pub attend: &'a Attend,
    /// Types of the pages.
    pub kv: KvLayerView,
    /// Which kv head.
    pub head: usize,
    /// `[rows, n_head * head_dim_k]`, at most [`rows_of`] rows.
    pub q: &'a [f32],
    /// Position of each row, consecutive.
    pub position: usize,
    /// Page p of the sequence.
    pub page: P,
    /// The worker's.
    pub scratch: &'a mut Scratch,
    /// Where results go.
    pub target: Target<'f, 'o>,
}

/// Where the results of an item go.
pub enum Target<'f, 'o> {
    /// All tiles, finished: `[rows]` slices of `group * head_dim_v` by a call.
    Rows(&'f mut dyn FnMut(usize) -> &'o mut [f32]),
    /// These tiles, each by itself: `[tiles]` slices of a line a query.
    Tiles(Range<usize>, &'f mut dyn FnMut(usize) -> &'o mut [f32]),
}

impl<'p, P: Fn(usize) -> PageView<'p>> Kernel for Item<'_, '_, '_, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Item { attend, kv, head, q, position, page, scratch, target } = self;
        let (dk, dv, width) = (attend.head_dim_k, attend.head_dim_v, line_width(attend));
        let group = attend.n_head / attend.n_head_kv;
        let n = q.len() / (attend.n_head * dk);
        let Scratch { k, v, q: packed, lines } = scratch;
        pack(s, attend, kv.k, (head, q), packed);
        let rows = Rows { n, group, position, dk, width };
        let mut views = Pages { kv, head, k, v, page, is_direct: n * group <= widest::<S>() };
        match target {
            Target::Rows(row_of) => {
                let lines = &mut lines[..n * group * width];
                lines.fill(0.0);
                for tile in 0..=(position + n - 1) / TILE {
                    let view = views.tile(s, tile, position + n);
                    rows.fold(s, &view, tile, packed, lines);
                }
                let mut lines = lines.chunks_exact_mut(width);
                for row in 0..n {
                    for (out, line) in row_of(row).chunks_exact_mut(dv).zip(lines.by_ref()) {
                        finish(s, kv.v, line, out);
                    }
                }
            }
            Target::Tiles(tiles, lines_of) => {
                for tile in tiles {
                    let lines = lines_of(tile);
                    lines.fill(0.0);
                    let view = views.tile(s, tile, position + n);
                    rows.fold(s, &view, tile, packed, lines);
                }
            }
        }
    }
}

/// Queries in registers at once, at most: fewer where a vector takes several registers.
#[inline(always)]
const fn widest<S: Simd>() -> usize {
    if size_of::<S::F>() == align_of::<S::F>() { 8 } else { 2 }
}

/// Queries of the next block, where so many are left.
#[inline(always)]
const fn block<S: Simd>(left: usize) -> usize {
    match left {
        8.. if widest::<S>() >= 8 => 8,
        4.. if widest::<S>() >= 8 => 4,
        2.. if widest::<S>() < 8 => 2,
        _ => 1,
    }
}

/// Queries times scale and log2 e, each block `[head_dim][its queries]`; rotated like the keys.
#[inline(always)]
fn pack<S: Simd>(s: S, attend: &Attend, kind: KvType, (head, q): (usize, &[f32]), out: &mut [f32]) {
    let (dk, group) = (attend.head_dim_k, attend.n_head / attend.n_head_kv);
    let factor = attend.scale * std::f32::consts::LOG2_E;
    let total = q.len() / (attend.n_head * dk) * group;
    let (out, line) = out.split_at_mut(total * dk);
    let mut i = 0;
    while i < total {
        let n = block::<S>(total - i);
        let out = &mut out[i * dk..(i + n) * dk];
        for lane in 0..n {
            let (row, g) = ((i + lane) / group, (i + lane) % group);
            let from = (row * attend.n_head + head * group + g) * dk;
            let line = &mut line[..dk];
            line.copy_from_slice(&q[from..from + dk]);
            if kind.is_rotated() {
                rotate(s, line);
            }
            for (out, x) in out.iter_mut().skip(lane).step_by(n).zip(line) {
                *out = *x * factor;
            }
        }
        i += n;
    }
}

/// The rows of an item. Query i is head `i % group` of row `i / group`.
struct Rows {
    n: usize,
    group: usize,
    position: usize,
    dk: usize,
    width: usize,
}

impl Rows {
    /// Folds a tile into the lines of all queries that see it.
    #[inline(always)]
    fn fold<S: Simd>(&self, s: S, view: &Tile<'_>, tile: usize, packed: &[f32], lines: &mut [f32]) {
        let total = self.n * self.group;
        let mut i = 0;
        while i < total {
            let n = block::<S>(total - i);
            let q = &packed[i * self.dk..(i + n) * self.dk];
            let lines = &mut lines[i * self.width..(i + n) * self.width];
            match n {
                8 if widest::<S>() >= 8 => self.block::<S, 8>(s, view, (tile, i), q, lines),
                4 if widest::<S>() >= 8 => self.block::<S, 4>(s, view, (tile, i), q, lines),
                2 if widest::<S>() < 8 => self.block::<S, 2>(s, view, (tile, i), q, lines),
                _ => self.block::<S, 1>(s, view, (tile, i), q, lines),
            }
            i += n;
        }
    }

    #[inline(always)]
    fn block<S: Simd, const Q: usize>(
        &self,
        s: S,
        view: &Tile<'_>,
        (tile, first): (usize, usize),
        q: &[f32],
        lines: &mut [f32],
    ) {
        let valid = std::array::from_fn(|i| {
            let row = (first + i) / self.group;
            (self.position + row + 1).saturating_sub(tile * TILE).min(TILE)
        });
        if valid[Q - 1] > 0 {
            let queries = Queries { q: q.as_chunks::<Q>().0, valid };
            fold_tile(s, view, &queries, lines, self.width);
        }
    }
}

/// Where tiles come from: pages as they are, or converted to f32 if many queries share them.
struct Pages<'a, P> {
    kv: KvLayerView,
    head: usize,
    k: &'a mut [f32],
    v: &'a mut [f32],
    page: P,
    is_direct: bool,
}

impl<'p, P: Fn(usize) -> PageView<'p>> Pages<'_, P> {
    /// The tile, of a sequence that ends at `end`.
    #[inline(always)]
    fn tile<'t, S: Simd>(&'t mut self, s: S, tile: usize, end: usize) -> Tile<'t>
    where
        'p: 't,
    {
        let (kv, head) = (self.kv, self.head);
        let (dk, dv) = (kv.layer.head_dim_k, kv.layer.head_dim_v);
        let pages = (end - tile * TILE).min(TILE).div_ceil(PAGE_TOKENS);
        let (mut k, mut v) = ([&[][..]; TILE_PAGES], [&[][..]; TILE_PAGES]);
        let part = |bytes: &'p [u8], kind: KvType, dim: usize| {
            let size = PAGE_TOKENS * kind.head_bytes(dim);
            bytes.get(head * size..(head + 1) * size).unwrap_or(&[])
        };
        for (i, (k, v)) in k.iter_mut().zip(&mut v).take(pages).enumerate() {
            let view = (self.page)(tile * TILE_PAGES + i);
            (*k, *v) = (part(view.k, kv.k, dk), part(view.v, kv.v, dv));
        }
        if self.is_direct {
            return Tile { kinds: [kv.k, kv.v], k, v, pages, head_dim_v: dv };
        }
        let stride = dv.next_multiple_of(KV_BLOCK);
        for page in 0..pages {
            let rows = 0..PAGE_TOKENS.min(end - tile * TILE - page * PAGE_TOKENS);
            let next = (k.get(page + 1).unwrap_or(&k[0]), v.get(page + 1).unwrap_or(&v[0]));
            let out = &mut self.k[page * PAGE_TOKENS * dk..][..PAGE_TOKENS * dk];
            convert_keys(s, kv.k, (k[page], next.0.as_ptr()), out);
            let out = &mut self.v[page * PAGE_TOKENS * stride..][..PAGE_TOKENS * stride];
            let (head, next) = (v[page], next.1.as_ptr());
            convert_values(s, kv.v, Values { head, head_dim: dv, column: 0, rows, next }, out);
        }
        let (all_k, all_v) = (self.k.as_bytes(), self.v.as_bytes());
        let bytes = 4 * PAGE_TOKENS * dk;
        k.iter_mut().zip(all_k.chunks_exact(bytes)).for_each(|(k, part)| *k = part);
        let bytes = 4 * PAGE_TOKENS * stride;
        v.iter_mut().zip(all_v.chunks_exact(bytes)).for_each(|(v, part)| *v = part);
        Tile { kinds: [KvType::F32; 2], k, v, pages, head_dim_v: stride }
    }
}

/// Where converted vectors go: two to a line, from a column on.
struct Lines<'a> {
    out: &'a mut [f32],
    stride: usize,
    column: usize,
}

impl<S: Simd> Each<S> for Lines<'_> {
    #[inline(always)]
    fn each(&mut self, s: S, index: usize, vectors: [S::F; 2]) {
        let line = &mut self.out[index * self.stride + self.column..][..2 * LANES];
        let (first, second) = line.split_at_mut(LANES);
        store_padded(s, vectors[0], first);
        store_padded(s, vectors[1], second);
    }
}

/// A head's keys of a page as f32 `[head_dim][32]`.
#[inline(always)]
fn convert_keys<S: Simd>(s: S, kind: KvType, (head, next): (&[u8], *const u8), out: &mut [f32]) {
    let to = &mut Lines { out, stride: PAGE_TOKENS, column: 0 };
    match kind {
        KvType::F32 => F32::keys(s, head, next, to),
        KvType::F16 => F16::keys(s, head, next, to),
        KvType::BF16 => BF16::keys(s, head, next, to),
        KvType::Q8_0 => Q8::keys(s, head, next, to),
        KvType::Q4_0 => Q4::keys(s, head, next, to),
    }
}

/// Rows of a head's values as f32 `[rows][head_dim, padded]`.
#[inline(always)]
fn convert_values<S: Simd>(s: S, kind: KvType, values: Values<'_>, out: &mut [f32]) {
    let stride = values.head_dim.next_multiple_of(KV_BLOCK);
    for column in (0..values.head_dim).step_by(KV_BLOCK) {
        let values = &Values { column, ..values.clone() };
        let to = &mut Lines { out, stride, column };
        match kind {
            KvType::F32 => F32::values(s, values, to),
            KvType::F16 => F16::values(s, values, to),
            KvType::BF16 => BF16::values(s, values, to),
            KvType::Q8_0 => Q8::values(s, values, to),
            KvType::Q4_0 => Q4::values(s, values, to),
        }
    }
}

/// o / l of a line; a head's rotation is undone.
#[inline(always)]
fn finish<S: Simd>(s: S, kind: KvType, line: &[f32], out: &mut [f32]) {
    let sum = s.splat(line[line.len() - LINE_STATE + 1]);
    for (out, o) in out.chunks_mut(LANES).zip(line.chunks(LANES)) {
        store_padded(s, s.div(load_padded(s, o), sum), out);
    }
    if kind.is_rotated() {
        rotate(s, out);
    }
}

/// Folds the lines of a query's tiles, in order, and finishes it.
pub struct Merge<'a, L> {
    /// Shape.
    pub attend: &'a Attend,
    /// Type of values.
    pub v: KvType,
    /// Tile's line.
    pub lines: L,
    /// A line of the worker's.
    pub scratch: &'a mut Scratch,
    /// `[head_dim_v]`.
    pub out: &'a mut [f32],
}

impl<'l, L: Iterator<Item = &'l [f32]>> Kernel for Merge<'_, L> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = line_width(self.attend);
        let line = &mut self.scratch.lines[..width];
        line.fill(0.0);
        for part in self.lines {
            let (values, state) = part.split_at(width - LINE_STATE);
            let fold: Option<Fold> = fold_state(s, line, [state[0], state[1]]);
            fold_values(s, fold, &mut line[..width - LINE_STATE], values);
        }
        finish(s, self.v, line, self.out);
    }
}
