//! The ARM tiers: NEON, then with dot products (`sdot`), then with mixed-sign ones (`usdot`, of
//! i8mm). Sixteen lanes in four registers; they differ only in how products of bytes are added.
//! The instructions that stable Rust has no function for are written as assembly.

use super::wide::WideKernel;
use super::{Kernel, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// How products of bytes are added.
pub(super) const NEON: u8 = 0;
const DOTPROD: u8 = 1;
const I8MM: u8 = 2;

/// Proof that this CPU has NEON (0), also dotprod (1), also i8mm (2).
#[derive(Clone, Copy, Debug)]
pub struct Arm<const DOT: u8>(());

/// NEON alone, which every aarch64 CPU of a known system has.
pub type Neon = Arm<NEON>;
/// NEON and dotprod.
pub type Dotprod = Arm<DOTPROD>;
/// NEON, dotprod and i8mm.
pub type I8mm = Arm<I8MM>;

/// Whether this CPU (and system) has what [`Neon`] stands for.
pub fn has_neon() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

/// Whether it also has what [`Dotprod`] adds.
pub fn has_dotprod() -> bool {
    has_neon() && std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Whether it also has what [`I8mm`] adds.
pub fn has_i8mm() -> bool {
    has_dotprod() && std::arch::is_aarch64_feature_detected!("i8mm")
}

impl<const DOT: u8> Arm<DOT> {
    /// Stands for the features.
    ///
    /// # Safety
    /// The CPU has them.
    pub unsafe fn assume() -> Self {
        Arm(())
    }

    /// acc + w * x summed by fours.
    #[inline(always)]
    pub(super) fn dot_signed(self, acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the token proves NEON, and dotprod if DOT says so.
        unsafe {
            if DOT == NEON {
                let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
                let sums = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(vmull_high_s8(w, x)));
                vaddq_s32(acc, sums)
            } else {
                let mut acc = acc;
                asm!(
                    ".arch_extension dotprod",
                    "sdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
                    acc = inout(vreg) acc, w = in(vreg) w, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
                acc
            }
        }
    }

    /// acc + codes * x summed by fours, codes without sign up to 255.
    ///
    /// # Safety
    /// The CPU has i8mm.
    #[inline(always)]
    pub(super) unsafe fn dot_mixed(
        self,
        acc: int32x4_t,
        codes: uint8x16_t,
        x: int8x16_t,
    ) -> int32x4_t {
        let mut acc = acc;
        // SAFETY: the caller has i8mm.
        unsafe {
            asm!(
                ".arch_extension i8mm",
                "usdot {acc:v}.4s, {w:v}.16b, {x:v}.16b",
                acc = inout(vreg) acc, w = in(vreg) codes, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        acc
    }
}

/// acc + four of the codes, the Q-th, times four values of x in each lane.
///
/// # Safety
/// The CPU has dotprod; if MIXED, where codes have no sign, i8mm.
#[inline(always)]
pub(super) unsafe fn dot_quad<const Q: usize, const MIXED: bool>(
    mut acc: int32x4_t,
    codes: int8x16_t,
    x: int8x16_t,
) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        if MIXED {
            asm!(
                ".arch_extension i8mm",
                "sudot {acc:v}.4s, {x:v}.16b, {w:v}.4b[{quad}]",
                acc = inout(vreg) acc, x = in(vreg) x, w = in(vreg) codes, quad = const Q,
                options(pure, nomem, nostack, preserves_flags),
            );
        } else {
            asm!(
                ".arch_extension dotprod",
                "sdot {acc:v}.4s, {x:v}.16b, {w:v}.4b[{quad}]",
                acc = inout(vreg) acc, x = in(vreg) x, w = in(vreg) codes, quad = const Q,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    }
    acc
}

/// Entries: one a tier, so that a kernel's code is compiled with its features.
macro_rules! entry {
    ($call:ident, $call_wide:ident, $token:ty, $features:literal) => {
        /// Runs a kernel with this tier's code.
        ///
        /// # Safety
        /// The CPU has the features; the token proves it.
        #[target_feature(enable = $features)]
        pub unsafe fn $call<K: Kernel>(token: $token, kernel: K) -> K::Out {
            kernel.run(token)
        }

        /// Runs a wide kernel with this tier's code.
        ///
        /// # Safety
        /// The CPU has the features; the token proves it.
        #[target_feature(enable = $features)]
        pub unsafe fn $call_wide<K: WideKernel>(token: $token, kernel: K) -> K::Out {
            kernel.run(token)
        }
    };
}

entry!(call_neon, call_wide_neon, Neon, "neon");
entry!(call_dotprod, call_wide_dotprod, Dotprod, "neon,dotprod");
entry!(call_i8mm, call_wide_i8mm, I8mm, "neon,dotprod,i8mm");

/// Sixteen f32 lanes.
pub(super) type F = [float32x4_t; 4];

/// One operation on each register.
#[inline(always)]
pub(super) fn each<T: Copy>(f: impl Fn(usize) -> T) -> [T; 4] {
    [f(0), f(1), f(2), f(3)]
}

/// Methods of one operation on each register.
macro_rules! registerwise {
    ($(fn $name:ident($($arg:ident: $from:ty),*) -> $to:ty = $one:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $from),*) -> $to {
            // SAFETY: the token proves NEON.
            each(|i| unsafe { $one($($arg[i]),*) })
        }
    )*};
}
pub(super) use registerwise;

/// f32 of four f16 in the low half.
#[inline(always)]
unsafe fn widen(v: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: `fcvtl` from f16 is part of base NEON.
    unsafe {
        asm!(
            "fcvtl {out:v}.4s, {v:v}.4h",
            out = lateout(vreg) out, v = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// Four f16, to nearest even.
#[inline(always)]
unsafe fn narrow(v: float32x4_t) -> uint16x4_t {
    let out: uint16x4_t;
    // SAFETY: `fcvtn` to f16 is part of base NEON.
    unsafe {
        asm!(
            "fcvtn {out:v}.4h, {v:v}.4s",
            out = lateout(vreg) out, v = in(vreg) v,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    out
}

/// Lanes by halves with `f`: l + (l + 8), + (l + 4), + (l + 2), + (l + 1).
#[inline(always)]
fn halves(v: F, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> f32 {
    let four = f(f(v[0], v[2]), f(v[1], v[3]));
    // SAFETY: a token's method calls this, so the CPU has NEON.
    unsafe {
        let two = f(four, vextq_f32::<2>(four, four));
        vgetq_lane_f32::<0>(f(two, vextq_f32::<1>(two, two)))
    }
}

/// a > b ? a : b.
#[inline(always)]
unsafe fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller has NEON.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

impl<const DOT: u8> Simd for Arm<DOT> {
    const REGISTERS: usize = 8;
    type F = F;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        // SAFETY: the token proves NEON.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load(self, p: &[f32; 16]) -> F {
        // SAFETY: the token proves NEON; four quarters lie in the array.
        each(|i| unsafe { vld1q_f32(p.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn store(self, v: F, p: &mut [f32; 16]) {
        for (v, p) in v.into_iter().zip(p.as_chunks_mut::<4>().0) {
            // SAFETY: the token proves NEON; four lanes lie in the chunk.
            unsafe { vst1q_f32(p.as_mut_ptr(), v) };
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint; no memory is accessed as far as the program can tell.
        unsafe {
            asm!(
                "prfm pldl1keep, [{p}]",
                p = in(reg) p,
                options(nostack, preserves_flags, readonly),
            );
        }
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        // SAFETY: the token proves NEON.
        unsafe { vgetq_lane_f32::<0>(widen(vdup_n_u16(bits))) }
    }
    #[inline(always)]
    fn load_f16(self, p: &[u8; 32]) -> F {
        // SAFETY: the token proves NEON; four quarters lie in the array.
        each(|i| unsafe { widen(vreinterpret_u16_u8(vld1_u8(p.as_ptr().add(8 * i)))) })
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u8; 32]) -> F {
        // SAFETY: the token proves NEON; four quarters lie in the array.
        each(|i| unsafe {
            let half = vreinterpret_u16_u8(vld1_u8(p.as_ptr().add(8 * i)));
            vreinterpretq_f32_u32(vshll_n_u16::<16>(half))
        })
    }
    #[inline(always)]
    fn load_i8(self, p: &[u8; 16]) -> F {
        // SAFETY: the token proves NEON; 16 bytes lie in the array.
        let p = unsafe { vld1q_s8(p.as_ptr().cast()) };
        // SAFETY: the token proves NEON.
        unsafe {
            let (low, high) = (vmovl_s8(vget_low_s8(p)), vmovl_s8(vget_high_s8(p)));
            let first = |x| vcvtq_f32_s32(vmovl_s16(vget_low_s16(x)));
            let second = |x| vcvtq_f32_s32(vmovl_s16(vget_high_s16(x)));
            [first(low), second(low), first(high), second(high)]
        }
    }
    #[inline(always)]
    fn store_f16(self, v: F, p: &mut [u8; 32]) {
        for (v, p) in v.into_iter().zip(p.as_chunks_mut::<8>().0) {
            // SAFETY: the token proves NEON; eight bytes lie in the chunk.
            unsafe { vst1_u8(p.as_mut_ptr(), vreinterpret_u8_u16(narrow(v))) };
        }
    }
    registerwise! {
        fn add(a: F, b: F) -> F = vaddq_f32;
        fn sub(a: F, b: F) -> F = vsubq_f32;
        fn mul(a: F, b: F) -> F = vmulq_f32;
        fn div(a: F, b: F) -> F = vdivq_f32;
        fn fma(a: F, b: F, c: F) -> F = |a, b, c| vfmaq_f32(c, a, b);
        fn max(a: F, b: F) -> F = larger;
        fn min(a: F, b: F) -> F = |a, b| vbslq_f32(vcltq_f32(a, b), a, b);
        fn select_lt(a: F, b: F, yes: F, no: F) -> F = |a, b, yes, no| {
            vbslq_f32(vcltq_f32(a, b), yes, no)
        };
        fn round(v: F) -> F = vrndnq_f32;
        fn exp2_whole(n: F) -> F = |n| {
            let n = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(n))
        };
        fn magnitude_max(m: F, v: F) -> F = |m, v| {
            let v = vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0x7fff_ffff));
            vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(m), v))
        };
    }
    #[inline(always)]
    fn store_i8(self, v: F, p: &mut [i8; 16]) {
        // SAFETY: the token proves NEON; sixteen bytes lie in the array.
        unsafe {
            let words =
                |a, b| vcombine_s16(vqmovn_s32(vcvtq_s32_f32(a)), vqmovn_s32(vcvtq_s32_f32(b)));
            let (low, high) = (words(v[0], v[1]), words(v[2], v[3]));
            vst1q_s8(p.as_mut_ptr(), vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        }
    }
    #[inline(always)]
    fn reduce_add(self, v: F) -> f32 {
        // SAFETY: the token proves NEON.
        halves(v, |a, b| unsafe { vaddq_f32(a, b) })
    }
    #[inline(always)]
    fn reduce_max(self, v: F) -> f32 {
        // SAFETY: the token proves NEON.
        halves(v, |a, b| unsafe { larger(a, b) })
    }
    #[inline(always)]
    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32 {
        // SAFETY: the token proves NEON; 16 x 16 bytes lie in both arrays.
        unsafe {
            let mut total = vdupq_n_s32(0);
            for (i, scale) in scales.iter().enumerate() {
                let w = vreinterpretq_s8_u8(vld1q_u8(codes.as_ptr().add(16 * i)));
                let sums = self.dot_signed(vdupq_n_s32(0), w, vld1q_s8(x.as_ptr().add(16 * i)));
                total = vmlaq_n_s32(total, sums, i32::from(*scale));
            }
            vaddvq_s32(total)
        }
    }
    #[inline(always)]
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32 {
        // SAFETY: the token proves NEON; 2 x 16 bytes lie in both arrays.
        unsafe {
            let mut sums = vdupq_n_s32(0);
            for i in 0..2 {
                let w = vld1q_s8(w.as_ptr().add(16 * i));
                sums = self.dot_signed(sums, w, vld1q_s8(x.as_ptr().add(16 * i)));
            }
            vaddvq_s32(sums)
        }
    }
    #[inline(always)]
    fn dot16(self, a: &[i16; 16], b: &[i16; 16]) -> i32 {
        // SAFETY: the token proves NEON; 2 x 8 words lie in both arrays.
        unsafe {
            let mut sums = vdupq_n_s32(0);
            for i in 0..2 {
                let (a, b) = (vld1q_s16(a.as_ptr().add(8 * i)), vld1q_s16(b.as_ptr().add(8 * i)));
                sums = vmlal_s16(sums, vget_low_s16(a), vget_low_s16(b));
                sums = vmlal_high_s16(sums, a, b);
            }
            vaddvq_s32(sums)
        }
    }
}
