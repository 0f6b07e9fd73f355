//! [`super::matmul`] for weights with factors for every 32 values, or for both halves of them.

use super::super::simd::wide::{Wide, WideKernel};
use super::matmul::{
    Matmul, PANEL, Panel, Room, Sums, Tile, VECTORS, dots, floats, load_sums, prefetch, tiles,
    write,
};
use super::pack::Packed;
use super::registers::Dot32;
use std::marker::PhantomData;

/// The same for 32-value blocks.
pub struct Matmul32<'a, 'b, T>(pub Matmul<'a, 'b, T>);

impl<T: Dot32> WideKernel for Matmul32<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matmul { weights, k, x, out, .. } = self.0;
        let row_bytes = k / (32 * T::PARTS) * T::BYTES;
        let mut panel = Panel::ZERO;
        let mut room = Room::EMPTY;
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                let sums = room.zeros(vectors);
                for b in 0..k.div_ceil(256) {
                    let count = 8.min(k / 32 - 8 * b);
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        let bytes = |parts: usize| parts / T::PARTS * T::BYTES;
                        let (blocks, next) = row[bytes(8 * b)..].split_at(bytes(count));
                        prefetch(s, next, blocks.len());
                        fill32::<S, T>(s, &mut panel, r, blocks);
                    }
                    let at = (b, first, vectors);
                    let tile = Tile32::<T>(count, PhantomData);
                    tiles(s, tile, (&panel, rows), x, at, sums);
                }
                write(out, sums, p * PANEL..p * PANEL + rows, first);
            }
        }
    }
}

/// Up to 256 values of one row into the panel.
#[inline(always)]
fn fill32<S: Wide, T: Dot32>(s: S, panel: &mut Panel, r: usize, blocks: &[u8]) {
    let parts = blocks.len() / T::BYTES * T::PARTS;
    let pairs = panel.codes[r].as_chunks_mut::<64>().0;
    for (pair, codes) in pairs.iter_mut().enumerate().take(parts.div_ceil(2)) {
        s.store_b(T::codes(s, blocks, pair), codes);
    }
    let factors = panel.d[r].iter_mut().zip(&mut panel.m[r]).enumerate();
    for (i, (d, m)) in factors.take(parts) {
        [*d, *m] = T::d_and_m(s, &blocks[i / T::PARTS * T::BYTES..], i % T::PARTS);
    }
}

/// What sums of 32 values begin with, of which each sixteen counts so often.
#[inline(always)]
fn starts<S: Wide, T: Dot32, const C: usize>(s: S, pairs: [S::I; C], times: [i16; 2]) -> [S::I; C] {
    let mut out = [s.zero_i(); C];
    if T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS) {
        return out;
    }
    let [a, b] = times.map(|times| -i16::from(T::OFFSET) * times);
    let mut words = [0; 16];
    (words[0], words[1]) = (a, b);
    for c in 0..C {
        out[c] = s.dot_words(out[c], pairs[c], s.splat_words(&words, 0));
    }
    out
}

/// Sums of two sixteens that follow each other.
#[inline(always)]
fn halves<S: Wide, T: Dot32, const R: usize, const C: usize>(
    s: S,
    (panel, row): (&Panel, usize),
    (x, sixteen, (first, apart)): (Packed<'_>, usize, (usize, usize)),
    pairs: [S::I; C],
) -> [[[S::I; C]; R]; 2] {
    let (a, b) = (starts::<S, T, C>(s, pairs, [1, 0]), starts::<S, T, C>(s, pairs, [0, 1]));
    let (codes, wide) = ((&panel.codes, row), T::OFFSET == 128);
    let a = dots(s, [a; R], codes, (x, sixteen..sixteen + 1, (first, apart)), wide);
    let second = (x, sixteen + 1..sixteen + 2, (first + 4, apart));
    [a, dots(s, [b; R], codes, second, wide)]
}

struct Tile32<T>(usize, PhantomData<T>);
impl<T> Clone for Tile32<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tile32<T> {}

impl<T: Dot32> Tile for Tile32<T> {
    #[inline(always)]
    fn run<S: Wide, const R: usize, const C: usize>(
        self,
        s: S,
        panel: &Panel,
        x: Packed<'_>,
        (b, row, first, v): (usize, usize, usize, usize),
        sums: &mut Sums,
    ) {
        let count = self.0;
        // Lines of 32 values of K before this chunk and vector.
        let at = 8 * b * x.vectors + (first + v) * count;
        let mut values = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                values[r][c] = s.load(&sums[v + c][row + r]);
            }
        }
        for sub in 0..count {
            let pairs: [S::I; C] = load_sums(s, x.sums, (at + sub, count));
            let lines = (8 * (at + sub), 8 * count);
            let mut dx = [s.splat(0.0); C];
            for c in 0..C {
                dx[c] = s.load(floats(x.ds, at + sub + c * count));
            }
            if T::HALVES {
                let [a, b] = halves::<S, T, R, C>(s, (panel, row), (x, 2 * sub, lines), pairs);
                for r in 0..R {
                    let d = s.splat(panel.d[row + r][sub]);
                    let m = s.splat(panel.m[row + r][sub]);
                    for c in 0..C {
                        let v = s.fma(s.to_f(b[r][c]), m, s.mul(s.to_f(a[r][c]), d));
                        values[r][c] = s.fma(v, dx[c], values[r][c]);
                    }
                }
                continue;
            }
            let start = starts::<S, T, C>(s, pairs, [1, 1]);
            let x = (x, 2 * sub..2 * sub + 2, lines);
            let acc = dots(s, [start; R], (&panel.codes, row), x, T::OFFSET == 128);
            for r in 0..R {
                let d = s.splat(panel.d[row + r][sub]);
                for c in 0..C {
                    let dd = s.mul(d, dx[c]);
                    values[r][c] = s.fma(s.to_f(acc[r][c]), dd, values[r][c]);
                    if T::MIN {
                        let m = s.mul(s.splat(panel.m[row + r][sub]), dx[c]);
                        let sum = s.dot_words(s.zero_i(), pairs[c], s.splat_words(&[1; 16], 0));
                        values[r][c] = s.fma(s.to_f(sum), m, values[r][c]);
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(values[r][c], &mut sums[v + c][row + r]);
            }
        }
    }
}
