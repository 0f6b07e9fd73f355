//! Pieces that kernels share: whole vectors over slices with a padded tail, exp, softmax.

use super::super::simd::{Kernel, LANES, Simd};

/// Lanes from the start of a slice, zeros where it ends.
#[inline(always)]
pub fn load_padded<S: Simd>(s: S, x: &[f32]) -> S::F {
    if let Some(whole) = x.first_chunk::<LANES>() {
        return s.load(whole);
    }
    let mut padded = [0.0; LANES];
    padded[..x.len()].copy_from_slice(x);
    s.load(&padded)
}

/// Lanes to the start of a slice, as many as it has room for.
#[inline(always)]
pub fn store_padded<S: Simd>(s: S, v: S::F, out: &mut [f32]) {
    if let Some(whole) = out.first_chunk_mut::<LANES>() {
        return s.store(v, whole);
    }
    let mut padded = [0.0; LANES];
    s.store(v, &mut padded);
    let n = out.len();
    out.copy_from_slice(&padded[..n]);
}

/// e^x with an error below 2 units in the last place; 0 below -87.33, infinity above 88.37.
///
/// Cephes `expf`: n = round(x log2 e), r = x - n ln 2 in two parts, a polynomial of degree 5 for
/// (e^r - 1 - r) / r^2, times 2^n through the exponent bits.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let low = s.splat(-87.33);
    let clamped = s.max(low, s.min(s.splat(88.7), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), clamped);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.select_lt(x, low, s.splat(0.0), s.mul(p, s.exp2_whole(n)))
}

/// 2^x for x <= 0 with an error below 2 units in the last place; 0 below -126, NaN of NaN.
///
/// n = round(x), f = x - n, a polynomial of degree 5 for 2^f (minimax of the relative error on
/// -0.5..=0.5: 9.2e-8), times 2^n through the exponent bits.
#[inline(always)]
#[allow(clippy::approx_constant, reason = "a coefficient of the polynomial, near ln 2 by nature")]
pub fn exp2_below<S: Simd>(s: S, x: S::F) -> S::F {
    let low = s.splat(-126.0);
    let clamped = s.max(low, x);
    let n = s.round(clamped);
    let f = s.sub(clamped, n);
    let mut p = s.splat(1.326_472_7e-3);
    for c in [9.671_513e-3, 5.550_733_6e-2, 0.240_222_42, 0.693_147, 1.0] {
        p = s.fma(p, f, s.splat(c));
    }
    s.select_lt(x, low, s.splat(0.0), s.mul(p, s.exp2_whole(n)))
}

/// Softmax of a slice in place.
pub struct Softmax<'a>(pub &'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let x = self.0;
        let mut max = f32::NEG_INFINITY;
        for v in x.iter() {
            max = if *v > max { *v } else { max };
        }
        let mut sum = s.splat(0.0);
        for part in x.chunks_mut(LANES) {
            let e = exp(s, s.sub(load_padded(s, part), s.splat(max)));
            store_padded(s, e, part);
            sum = s.add(sum, load_padded(s, part));
        }
        let sum = s.splat(s.reduce_add(sum));
        for part in x.chunks_mut(LANES) {
            store_padded(s, s.div(load_padded(s, part), sum), part);
        }
    }
}

/// a + b into a.
pub struct AddTo<'a>(pub &'a mut [f32], pub &'a [f32]);

impl Kernel for AddTo<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (a, b) in self.0.chunks_mut(LANES).zip(self.1.chunks(LANES)) {
            store_padded(s, s.add(load_padded(s, a), load_padded(s, b)), a);
        }
    }
}

/// a + x y into a, rounded once.
pub struct AddScaled<'a>(pub &'a mut [f32], pub &'a [f32], pub f32);

impl Kernel for AddScaled<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let y = s.splat(self.2);
        for (a, x) in self.0.chunks_mut(LANES).zip(self.1.chunks(LANES)) {
            store_padded(s, s.fma(load_padded(s, x), y, load_padded(s, a)), a);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::simd::Tier;
    use super::*;

    struct Exp([f32; 16]);
    impl Kernel for Exp {
        type Out = [f32; 16];
        fn run<S: Simd>(self, s: S) -> [f32; 16] {
            let mut out = [0.0; 16];
            s.store(exp(s, s.load(&self.0)), &mut out);
            out
        }
    }

    #[test]
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a sweep")]
    fn exp_is_close_and_the_same_in_every_tier() {
        for i in 0..20_000 {
            let x = std::array::from_fn(|l| -95.0 + 0.009_2 * (i as f32) + 0.000_5 * l as f32);
            let want = Tier::by_name("portable").unwrap().call(Exp(x));
            for tier in Tier::available() {
                let got = tier.call(Exp(x));
                assert_eq!(got.map(f32::to_bits), want.map(f32::to_bits), "{}", tier.name());
            }
            for (x, y) in x.iter().zip(want) {
                let exact = f64::from(*x).exp();
                if *x > -87.3 && *x < 88.3 {
                    let error = (f64::from(y) - exact).abs() / exact;
                    assert!(error < 2.4e-7, "exp({x}) = {y}, off by {error}");
                }
            }
        }
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -100.0, 100.0, 0.0];
        let x = std::array::from_fn(|l| odd[l % 6]);
        for tier in Tier::available() {
            let y = tier.call(Exp(x));
            assert!(y[0].is_nan());
            assert_eq!(y[1..6], [f32::INFINITY, 0.0, 0.0, f32::INFINITY, 1.0]);
        }
    }
}
