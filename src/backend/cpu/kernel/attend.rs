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

use super::super::simd::{Kernel, LANES, Simd, Tier};
use super::buffer::Buffer;
use super::math::exp;
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
            for row in 0..n {
                if position + row < start {
                    continue;
                }
                let valid = PAGE_TOKENS.min(position + row + 1 - start);
                for g in 0..group {
                    let at = row * width + (head * group + g) * dk;
                    let i = row * group + g;
                    let o = &mut o[i * stride..(i + 1) * stride];
                    let query = &q[at..at + dk];
                    step(s, query, attend.scale, (k, v, valid), &mut state[i], o);
                }
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

/// One query against one tile.
#[inline(always)]
fn step<S: Simd>(
    s: S,
    query: &[f32],
    scale: f32,
    (k, v, valid): (&[f32], &[f32], usize),
    state: &mut State,
    o: &mut [f32],
) {
    let mut scores = [s.splat(0.0); 2];
    for (q, k) in query.iter().zip(k.as_chunks::<PAGE_TOKENS>().0) {
        let q = s.splat(*q);
        let (k, _) = k.as_chunks::<LANES>();
        scores = [s.fma(q, s.load(&k[0]), scores[0]), s.fma(q, s.load(&k[1]), scores[1])];
    }
    let mut p = [[0.0f32; LANES]; 2];
    for (scores, p) in scores.iter().zip(&mut p) {
        s.store(s.mul(*scores, s.splat(scale)), p);
    }
    p.as_flattened_mut()[valid..].fill(f32::NEG_INFINITY);
    let max = s.reduce_max(s.max(s.load(&p[0]), s.load(&p[1])));
    let m = if max > state.m { max } else { state.m };
    let mut c = [state.m - m; LANES];
    s.store(exp(s, s.load(&c.clone())), &mut c);
    let c = c[0];
    let mut e = [s.splat(0.0); 2];
    for (p, e) in p.iter_mut().zip(&mut e) {
        *e = exp(s, s.sub(s.load(p), s.splat(m)));
        s.store(*e, p);
    }
    *state = State { m, l: state.l * c + s.reduce_add(s.add(e[0], e[1])) };
    let stride = o.len();
    for (at, o) in o.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = s.mul(s.load(o), s.splat(c));
        for (p, v) in p.as_flattened().iter().take(valid).zip(v.chunks_exact(stride)) {
            if let Some(v) = v[at * LANES..].first_chunk() {
                sum = s.fma(s.splat(*p), s.load(v), sum);
            }
        }
        s.store(sum, o);
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
    use super::math::store_padded;
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
