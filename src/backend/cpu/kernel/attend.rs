//! Attention over a paged KV cache: online softmax over tiles of 32 keys (a page), no score matrix.
//!
//! For one query row and head, tiles in order of position:
//! ```text
//! s[j] = scale * sum over d of q[d] k[d][j]        lanes are keys, d in order
//! m' = max(m, max s); c = e^(m - m'); p = e^(s - m')
//! l = l c + sum p;  o = o c, then o = fma(p[j], v[j], o) for the keys j in order
//! ```
//! and o / l in the end. Rows and heads that share a kv head share the conversion of its tiles;
//! none of this changes a row's bits. Source: Milakov and Gimelshein 2018, Dao et al. 2022.

pub mod job;

use super::super::simd::{Kernel, LANES, Simd, Tier};
use super::buffer::Buffer;
use super::math::{exp, load_padded, store_padded};
use super::stripe::Shared;
use crate::backend::{KvType, PAGE_TOKENS};
use crate::error::Result;
use crate::plan::{Attend, KvLayer};
use half::{bf16, f16};

/// Query rows of one item of work.
pub const ROWS: usize = 16;

/// One layer of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageView<'a> {
    /// `[n_head_kv][head_dim_k][32]`.
    pub k: &'a [u8],
    /// `[n_head_kv][32][head_dim_v]`.
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

/// Writes keys `[n, n_head_kv * head_dim]` into slots `first..` of a page.
pub fn append_keys(kind: KvType, layer: KvLayer, first: usize, k: &[f32], out: &mut [u8]) {
    let (width, dim) = (layer.n_head_kv * layer.head_dim_k, layer.head_dim_k);
    let size = super::super::kv::kv_bytes(kind);
    for (i, line) in out.chunks_exact_mut(PAGE_TOKENS * size).enumerate().take(width) {
        debug_assert!(i / dim < layer.n_head_kv);
        let rows = k.iter().skip(i).step_by(width);
        for (slot, x) in line.chunks_exact_mut(size).skip(first).zip(rows) {
            match kind {
                KvType::F32 => slot.copy_from_slice(&x.to_le_bytes()),
                KvType::F16 => slot.copy_from_slice(&f16::from_f32(*x).to_le_bytes()),
                KvType::BF16 => slot.copy_from_slice(&bf16::from_f32(*x).to_le_bytes()),
            }
        }
    }
}

/// Writes values `[n, n_head_kv * head_dim]` into slots `first..` of a page.
pub fn append_values(
    tier: Tier,
    kind: KvType,
    layer: KvLayer,
    first: usize,
    v: &[f32],
    out: &mut [u8],
) {
    let dim = layer.head_dim_v;
    let bytes = dim * super::super::kv::kv_bytes(kind);
    for (t, row) in v.chunks_exact(layer.n_head_kv * dim).enumerate() {
        for (h, x) in row.chunks_exact(dim).enumerate() {
            let at = (h * PAGE_TOKENS + first + t) * bytes;
            if let Some(out) = out.get_mut(at..at + bytes) {
                tier.call(Store { kind, x, out });
            }
        }
    }
}

/// f32 to a KV type.
struct Store<'a> {
    kind: KvType,
    x: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Store<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.kind {
            KvType::F32 => {
                for (out, x) in self.out.as_chunks_mut::<4>().0.iter_mut().zip(self.x) {
                    *out = x.to_le_bytes();
                }
            }
            KvType::F16 => {
                let (whole, rest) = self.x.as_chunks::<LANES>();
                let (out, out_rest) = self.out.as_chunks_mut::<32>();
                for (x, out) in whole.iter().zip(out) {
                    s.store_f16(s.load(x), out);
                }
                for (out, x) in out_rest.as_chunks_mut::<2>().0.iter_mut().zip(rest) {
                    *out = f16::from_f32(*x).to_le_bytes();
                }
            }
            KvType::BF16 => {
                for (out, x) in self.out.as_chunks_mut::<2>().0.iter_mut().zip(self.x) {
                    *out = bf16::from_f32(*x).to_le_bytes();
                }
            }
        }
    }
}

/// What one worker needs: a tile's keys and values as f32, and the state of the queries.
#[derive(Default)]
pub struct Scratch {
    k: Buffer<f32>,
    v: Buffer<f32>,
    o: Buffer<f32>,
    state: Vec<State>,
}

/// Running maximum and sum of a query.
#[derive(Clone, Copy)]
struct State {
    m: f32,
    l: f32,
}

impl Scratch {
    /// Room for items of this attention.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, attend: &Attend) -> Result<()> {
        let queries = ROWS * attend.n_head / attend.n_head_kv.max(1);
        self.k.grow(attend.head_dim_k * PAGE_TOKENS)?;
        self.v.grow(padded(attend.head_dim_v) * PAGE_TOKENS)?;
        self.o.grow(padded(attend.head_dim_v) * queries)?;
        self.state.reserve(queries);
        Ok(())
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.k.bytes() + self.v.bytes() + self.o.bytes()
    }
}

fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Some rows of one sequence against one kv head.
pub struct Item<'a, P> {
    /// Shape.
    pub attend: &'a Attend,
    /// Types of the pages.
    pub kv: KvLayerView,
    /// Which kv head.
    pub head: usize,
    /// `[rows, n_head * head_dim_k]`, at most [`ROWS`] rows.
    pub q: &'a [f32],
    /// Position of each row, consecutive.
    pub position: usize,
    /// Page p of the sequence.
    pub page: P,
    /// All rows of the output `[n_rows, n_head * head_dim_v]`.
    pub out: &'a Shared<'a>,
    /// Row of the output that belongs to the first row of `q`.
    pub out_row: usize,
    /// The worker's.
    pub scratch: &'a mut Scratch,
}

impl<'p, P: Fn(usize) -> PageView<'p>> Kernel for Item<'_, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Item { attend, kv, head, q, position, page, out, out_row, scratch } = self;
        let (dk, dv) = (attend.head_dim_k, attend.head_dim_v);
        let group = attend.n_head / attend.n_head_kv;
        let width = attend.n_head * dk;
        let (n, stride) = (q.len() / width, padded(dv));
        let Scratch { k, v, o, state } = scratch;
        state.clear();
        state.resize(n * group, State { m: f32::NEG_INFINITY, l: 0.0 });
        o[..n * group * stride].fill(0.0);
        for tile in 0..=(position + n - 1) / PAGE_TOKENS {
            let start = tile * PAGE_TOKENS;
            // Keys that exist: up to the last row's own.
            let live = PAGE_TOKENS.min(position + n - start);
            let view = page(tile);
            load_keys(s, kv.k, view.k, head, &mut k[..dk * PAGE_TOKENS]);
            load_values(s, kv.v, view.v, (head, live, dv), &mut v[..stride * PAGE_TOKENS]);
            // Queries (row, head of the group) that see this tile.
            let first = start.saturating_sub(position) * group;
            let tile = Tile { k, v, start, position, group, head, scale: attend.scale };
            let queries = Queries { q, width, dk, stride };
            let mut i = first;
            while i + 4 <= n * group {
                step::<S, 4>(s, &tile, &queries, i, state, o);
                i += 4;
            }
            while i < n * group {
                step::<S, 1>(s, &tile, &queries, i, state, o);
                i += 1;
            }
        }
        for row in 0..n {
            // SAFETY: rows of an item and its heads belong to this item alone.
            let mut part = unsafe {
                let from = head * group * dv;
                out.piece(out_row + row..out_row + row + 1, from..from + group * dv)
            };
            for (g, out) in part.row(0).chunks_exact_mut(dv).enumerate() {
                let i = row * group + g;
                for (out, x) in out.iter_mut().zip(&o[i * stride..]) {
                    *out = x / state[i].l;
                }
            }
        }
    }
}

/// One tile as f32.
struct Tile<'a> {
    /// `[head_dim_k][32]`.
    k: &'a [f32],
    /// `[32][head_dim_v, padded]`.
    v: &'a [f32],
    /// Position of the first key.
    start: usize,
    /// Position of the first row.
    position: usize,
    /// Query heads of the kv head.
    group: usize,
    /// The kv head.
    head: usize,
    /// Factor on scores.
    scale: f32,
}

/// Query i is head `i % group` of row `i / group`.
struct Queries<'a> {
    q: &'a [f32],
    width: usize,
    dk: usize,
    stride: usize,
}

/// Q queries from `first` on against one tile.
#[inline(always)]
fn step<S: Simd, const Q: usize>(
    s: S,
    tile: &Tile<'_>,
    queries: &Queries<'_>,
    first: usize,
    state: &mut [State],
    o: &mut [f32],
) {
    let mut query = [&[][..]; Q];
    let mut valid = [0; Q];
    for i in 0..Q {
        let (row, g) = ((first + i) / tile.group, (first + i) % tile.group);
        let at = row * queries.width + (tile.head * tile.group + g) * queries.dk;
        query[i] = &queries.q[at..at + queries.dk];
        valid[i] = PAGE_TOKENS.min(tile.position + row + 1 - tile.start);
    }
    let mut p = scores::<S, Q>(s, tile, query);
    let mut c = [0.0; Q];
    for i in 0..Q {
        c[i] = soften(s, &mut p[i], valid[i], &mut state[first + i]);
    }
    let stride = queries.stride;
    let o = &mut o[first * stride..(first + Q) * stride];
    let (v, mut at) = (tile.v, 0);
    while at + 2 * LANES <= stride {
        weigh::<S, Q, 2>(s, (v, &p, &valid, &c), o, (stride, at));
        at += 2 * LANES;
    }
    if at < stride {
        weigh::<S, Q, 1>(s, (v, &p, &valid, &c), o, (stride, at));
    }
}

/// Scores of Q queries, times the scale.
#[inline(always)]
fn scores<S: Simd, const Q: usize>(
    s: S,
    tile: &Tile<'_>,
    query: [&[f32]; Q],
) -> [[f32; PAGE_TOKENS]; Q] {
    let mut sums = [[s.splat(0.0); 2]; Q];
    for (d, k) in tile.k.as_chunks::<PAGE_TOKENS>().0.iter().enumerate() {
        let (k, _) = k.as_chunks::<LANES>();
        let (k0, k1) = (s.load(&k[0]), s.load(&k[1]));
        for i in 0..Q {
            let q = s.splat(query[i][d]);
            sums[i] = [s.fma(q, k0, sums[i][0]), s.fma(q, k1, sums[i][1])];
        }
    }
    let mut p = [[0.0; PAGE_TOKENS]; Q];
    for i in 0..Q {
        for (sum, p) in sums[i].iter().zip(p[i].as_chunks_mut::<LANES>().0) {
            s.store(s.mul(*sum, s.splat(tile.scale)), p);
        }
    }
    p
}

/// Scores to weights, state to the new maximum and sum; gives the factor on what was summed before.
#[inline(always)]
fn soften<S: Simd>(s: S, p: &mut [f32; PAGE_TOKENS], valid: usize, state: &mut State) -> f32 {
    p[valid..].fill(f32::NEG_INFINITY);
    let (p, _) = p.as_chunks_mut::<LANES>();
    let max = s.reduce_max(s.max(s.load(&p[0]), s.load(&p[1])));
    let m = if max > state.m { max } else { state.m };
    let mut c = [0.0; LANES];
    s.store(exp(s, s.splat(state.m - m)), &mut c);
    let mut e = [s.splat(0.0); 2];
    for (p, e) in p.iter_mut().zip(&mut e) {
        *e = exp(s, s.sub(s.load(p), s.splat(m)));
        s.store(*e, p);
    }
    *state = State { m, l: state.l * c[0] + s.reduce_add(s.add(e[0], e[1])) };
    c[0]
}

/// Values of a page; weights, keys in sight and rescaling of each query.
type Weighing<'a, const Q: usize> =
    (&'a [f32], &'a [[f32; PAGE_TOKENS]; Q], &'a [usize; Q], &'a [f32; Q]);

/// D vectors of the outputs at `at`: o = o c, then o = fma(p[j], v[j], o) for the keys in order.
#[inline(always)]
fn weigh<S: Simd, const Q: usize, const D: usize>(
    s: S,
    (v, p, valid, c): Weighing<'_, Q>,
    o: &mut [f32],
    (stride, at): (usize, usize),
) {
    let mut sums = [[s.splat(0.0); D]; Q];
    let mut common = PAGE_TOKENS;
    for i in 0..Q {
        common = common.min(valid[i]);
        for d in 0..D {
            let o = load_padded(s, &o[i * stride + at + d * LANES..][..LANES]);
            sums[i][d] = s.mul(o, s.splat(c[i]));
        }
    }
    for j in 0..common {
        let mut values = [s.splat(0.0); D];
        for d in 0..D {
            values[d] = load_padded(s, &v[j * stride + at + d * LANES..][..LANES]);
        }
        for i in 0..Q {
            let p = s.splat(p[i][j]);
            for d in 0..D {
                sums[i][d] = s.fma(p, values[d], sums[i][d]);
            }
        }
    }
    for i in 0..Q {
        for j in common..valid[i] {
            let p = s.splat(p[i][j]);
            for d in 0..D {
                let value = load_padded(s, &v[j * stride + at + d * LANES..][..LANES]);
                sums[i][d] = s.fma(p, value, sums[i][d]);
            }
        }
        for d in 0..D {
            store_padded(s, sums[i][d], &mut o[i * stride + at + d * LANES..][..LANES]);
        }
    }
}

/// The keys of a head as f32 `[head_dim][32]`.
#[inline(always)]
fn load_keys<S: Simd>(s: S, kind: KvType, bytes: &[u8], head: usize, out: &mut [f32]) {
    let size = super::super::kv::kv_bytes(kind);
    let Some(bytes) = bytes.get(head * out.len() * size..(head + 1) * out.len() * size) else {
        return out.fill(f32::NAN);
    };
    load(s, kind, bytes, out);
}

/// The first `live` values of a head as f32 `[live][head_dim, padded]`.
#[inline(always)]
fn load_values<S: Simd>(
    s: S,
    kind: KvType,
    bytes: &[u8],
    (head, live, dim): (usize, usize, usize),
    out: &mut [f32],
) {
    let row = dim * super::super::kv::kv_bytes(kind);
    let Some(bytes) = bytes.get(head * PAGE_TOKENS * row..(head + 1) * PAGE_TOKENS * row) else {
        return out.fill(f32::NAN);
    };
    let rows = bytes.chunks_exact(row).zip(out.chunks_exact_mut(padded(dim)));
    for (bytes, out) in rows.take(live) {
        load(s, kind, bytes, &mut out[..dim]);
    }
}

/// Stored numbers as f32.
#[inline(always)]
fn load<S: Simd>(s: S, kind: KvType, bytes: &[u8], out: &mut [f32]) {
    use super::float::{BF16, F16, F32, FloatType};
    match kind {
        KvType::F32 => {
            for (b, out) in bytes.chunks(64).zip(out.chunks_mut(LANES)) {
                store_padded(s, F32::load(s, b), out);
            }
        }
        KvType::F16 => {
            for (b, out) in bytes.chunks(32).zip(out.chunks_mut(LANES)) {
                store_padded(s, F16::load(s, b), out);
            }
        }
        KvType::BF16 => {
            for (b, out) in bytes.chunks(32).zip(out.chunks_mut(LANES)) {
                store_padded(s, BF16::load(s, b), out);
            }
        }
    }
}
