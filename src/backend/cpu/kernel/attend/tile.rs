//! A few queries against one tile of keys: scores, weights, weighted values, and the fold into what
//! the tiles before gave.

use super::super::super::simd::{LANES, Simd};
use super::super::float::{BF16, F16, F32};
use super::super::math::{exp2_below, load_padded, store_padded};
use super::stored::{Each, Q4, Q8, Stored, Values};
use super::{LINE_STATE, TILE, TILE_PAGES};
use crate::backend::{KV_BLOCK, KvType, PAGE_TOKENS};

/// One kv head of a tile's pages.
pub struct Tile<'a> {
    /// Types of keys and values.
    pub kinds: [KvType; 2],
    /// A head's keys of each page.
    pub k: [&'a [u8]; TILE_PAGES],
    /// A head's values of each page.
    pub v: [&'a [u8]; TILE_PAGES],
    /// Pages that hold keys for some row.
    pub pages: usize,
    /// Values of a row of `v`.
    pub head_dim_v: usize,
}

/// Queries `[head_dim][Q]`, times scale and log2 e, and how many keys of the tile each sees.
pub struct Queries<'a, const Q: usize> {
    pub q: &'a [[f32; Q]],
    pub valid: [usize; Q],
}

/// Weights of the keys of a tile, by query.
type Weights<const Q: usize> = [[f32; TILE]; Q];
/// 32 columns of sums over values, by query.
type Sums<const Q: usize> = [[[f32; LANES]; 2]; Q];

/// Folds the tile into the queries' lines, `width` numbers each.
#[inline(always)]
pub fn fold_tile<S: Simd, const Q: usize>(
    s: S,
    tile: &Tile<'_>,
    queries: &Queries<'_, Q>,
    lines: &mut [f32],
    width: usize,
) {
    let mut p = [[0.0; TILE]; Q];
    let kinds = tile.kinds;
    match kinds[0] {
        KvType::F32 => scores::<S, F32, Q>(s, tile, queries.q, &mut p),
        KvType::F16 => scores::<S, F16, Q>(s, tile, queries.q, &mut p),
        KvType::BF16 => scores::<S, BF16, Q>(s, tile, queries.q, &mut p),
        KvType::Q8_0 => scores::<S, Q8, Q>(s, tile, queries.q, &mut p),
        KvType::Q4_0 => scores::<S, Q4, Q>(s, tile, queries.q, &mut p),
    }
    let mut folds = [None; Q];
    for i in 0..Q {
        if queries.valid[i] > 0 {
            let part = soften(s, &mut p[i], queries.valid[i], tile.pages);
            folds[i] = fold_state(s, &mut lines[i * width..(i + 1) * width], part);
        }
    }
    for column in (0..tile.head_dim_v).step_by(KV_BLOCK) {
        let place = (column, &queries.valid);
        let sums = match kinds[1] {
            KvType::F32 => weigh::<S, F32, Q>(s, tile, &p, place),
            KvType::F16 => weigh::<S, F16, Q>(s, tile, &p, place),
            KvType::BF16 => weigh::<S, BF16, Q>(s, tile, &p, place),
            KvType::Q8_0 => weigh::<S, Q8, Q>(s, tile, &p, place),
            KvType::Q4_0 => weigh::<S, Q4, Q>(s, tile, &p, place),
        };
        for i in 0..Q {
            let line = &mut lines[i * width + column..][..KV_BLOCK];
            fold_values(s, folds[i], line, sums[i].as_flattened());
        }
    }
}

/// Sums of q k over the dimensions in order; lanes are keys.
struct Scores<'q, S: Simd, const Q: usize> {
    q: &'q [[f32; Q]],
    sums: [[S::F; 2]; Q],
}

impl<S: Simd, const Q: usize> Each<S> for Scores<'_, S, Q> {
    #[inline(always)]
    fn each(&mut self, s: S, d: usize, k: [S::F; 2]) {
        let Some(q) = self.q.get(d) else { return };
        for i in 0..Q {
            let q = s.splat(q[i]);
            self.sums[i] = [s.fma(q, k[0], self.sums[i][0]), s.fma(q, k[1], self.sums[i][1])];
        }
    }
}

#[inline(always)]
fn scores<S: Simd, T: Stored, const Q: usize>(
    s: S,
    tile: &Tile<'_>,
    q: &[[f32; Q]],
    p: &mut Weights<Q>,
) {
    for page in 0..tile.pages {
        let next = if page + 1 < tile.pages { tile.k[page + 1] } else { tile.v[0] };
        let mut scores = Scores { q, sums: [[s.splat(0.0); 2]; Q] };
        T::keys(s, tile.k[page], next.as_ptr(), &mut scores);
        for i in 0..Q {
            let p = p[i].as_chunks_mut::<LANES>().0;
            let [p0, p1] = &mut p[2 * page..2 * page + 2] else { return };
            s.store(scores.sums[i][0], p0);
            s.store(scores.sums[i][1], p1);
        }
    }
}

/// Scores to 2^(score - largest); gives the largest and the sum.
#[inline(always)]
fn soften<S: Simd>(s: S, p: &mut [f32; TILE], valid: usize, pages: usize) -> [f32; 2] {
    let live = &mut p[..pages * PAGE_TOKENS];
    live[valid..].fill(f32::NEG_INFINITY);
    let (live, _) = live.as_chunks_mut::<LANES>();
    let mut largest = s.splat(f32::NEG_INFINITY);
    for p in live.iter() {
        largest = s.max(s.load(p), largest);
    }
    let m = s.reduce_max(largest);
    let mut sum = s.splat(0.0);
    for p in live {
        let e = exp2_below(s, s.sub(s.load(p), s.splat(m)));
        s.store(e, p);
        sum = s.add(sum, e);
    }
    [m, s.reduce_add(sum)]
}

/// Sums of p[j] v[j] over the keys j in order, 32 columns of them.
struct Weighted<'p, S: Simd, const Q: usize> {
    p: &'p Weights<Q>,
    /// Key of the first row.
    start: usize,
    sums: [[S::F; 2]; Q],
}

impl<S: Simd, const Q: usize> Each<S> for Weighted<'_, S, Q> {
    #[inline(always)]
    fn each(&mut self, s: S, j: usize, v: [S::F; 2]) {
        for i in 0..Q {
            let p = s.splat(self.p[i][(self.start + j) % TILE]);
            self.sums[i] = [s.fma(p, v[0], self.sums[i][0]), s.fma(p, v[1], self.sums[i][1])];
        }
    }
}

#[inline(always)]
fn weigh<S: Simd, T: Stored, const Q: usize>(
    s: S,
    tile: &Tile<'_>,
    p: &Weights<Q>,
    (column, valid): (usize, &[usize; Q]),
) -> Sums<Q> {
    let head_dim = tile.head_dim_v;
    let common = valid.iter().copied().min().unwrap_or(0);
    let mut weighted = Weighted { p, start: 0, sums: [[s.splat(0.0); 2]; Q] };
    for page in 0..common.div_ceil(PAGE_TOKENS) {
        weighted.start = page * PAGE_TOKENS;
        let rows = 0..PAGE_TOKENS.min(common - weighted.start);
        let next = tile.v.get(page + 1).map_or(std::ptr::null(), |v| v.as_ptr());
        let values = Values { head: tile.v[page], head_dim, column, rows, next };
        T::values(s, &values, &mut weighted);
    }
    let mut out = [[[0.0; LANES]; 2]; Q];
    for i in 0..Q {
        s.store(weighted.sums[i][0], &mut out[i][0]);
        s.store(weighted.sums[i][1], &mut out[i][1]);
    }
    for (i, (out, valid)) in out.iter_mut().zip(valid).enumerate() {
        if *valid > common {
            rest::<S, T>(s, tile, &p[i], (column, common, *valid), out);
        }
    }
    out
}

/// The keys from `common` on that one query sees and another does not.
#[inline(always)]
fn rest<S: Simd, T: Stored>(
    s: S,
    tile: &Tile<'_>,
    p: &[f32; TILE],
    (column, common, valid): (usize, usize, usize),
    out: &mut [[f32; LANES]; 2],
) {
    let p: &Weights<1> = std::array::from_ref(p);
    let mut weighted = Weighted { p, start: 0, sums: [[s.load(&out[0]), s.load(&out[1])]] };
    for page in common / PAGE_TOKENS..valid.div_ceil(PAGE_TOKENS) {
        let start = page * PAGE_TOKENS;
        let rows = common.saturating_sub(start)..PAGE_TOKENS.min(valid - start);
        weighted.start = start + rows.start;
        let (head, head_dim) = (tile.v[page], tile.head_dim_v);
        let values = Values { head, head_dim, column, rows, next: std::ptr::null() };
        T::values(s, &values, &mut weighted);
    }
    s.store(weighted.sums[0][0], &mut out[0]);
    s.store(weighted.sums[0][1], &mut out[1]);
}

/// How a part joins a line.
#[derive(Clone, Copy)]
pub struct Fold {
    /// Multiplies what the line has.
    line: f32,
    /// Multiplies the part.
    part: f32,
    /// The line has nothing yet.
    is_first: bool,
}

/// Puts a part's largest score and sum into a line. A line without a sum is empty.
#[inline(always)]
pub fn fold_state<S: Simd>(s: S, line: &mut [f32], [part_m, part_l]: [f32; 2]) -> Option<Fold> {
    let at = line.len() - LINE_STATE;
    let [m, l] = &mut line[at..at + 2] else { return None };
    if *l == 0.0 {
        (*m, *l) = (part_m, part_l);
        return Some(Fold { line: 0.0, part: 1.0, is_first: true });
    }
    let largest = if part_m > *m { part_m } else { *m };
    let mut e = [0.0; LANES];
    (e[0], e[1]) = (*m - largest, part_m - largest);
    s.store(exp2_below(s, s.load(&e)), &mut e);
    *m = largest;
    *l = part_l.mul_add(e[1], *l * e[0]);
    Some(Fold { line: e[0], part: e[1], is_first: false })
}

/// Some of a line's values: o = part * b + o * a; an empty line takes the part as it is.
#[inline(always)]
pub fn fold_values<S: Simd>(s: S, fold: Option<Fold>, line: &mut [f32], part: &[f32]) {
    let Some(fold) = fold else { return };
    let (a, b) = (s.splat(fold.line), s.splat(fold.part));
    for (o, part) in line.chunks_mut(LANES).zip(part.chunks(LANES)) {
        let part = load_padded(s, part);
        let sum = if fold.is_first { part } else { s.fma(part, b, s.mul(load_padded(s, o), a)) };
        store_padded(s, sum, o);
    }
}
