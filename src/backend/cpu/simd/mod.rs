//! The narrow vector trait that kernels are written over, and the tiers that implement it.
//!
//! A vector is 16 f32 lanes in every tier (one, two or sixteen registers), so that a kernel adds
//! in the same order, and gives the same bits, whatever the CPU has. Integer helpers are exact.
#![allow(unsafe_code, reason = "a proof token stands for the CPU feature behind every intrinsic")]

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_wide;
pub mod in_order;
pub mod portable;
pub mod wide;
#[cfg(target_arch = "x86_64")]
pub mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_512;
#[cfg(target_arch = "x86_64")]
mod x86_512_in_order;
#[cfg(target_arch = "x86_64")]
mod x86_512_wide;
#[cfg(target_arch = "x86_64")]
mod x86_wide;

use crate::error::{Error, Result};

/// Lanes of a vector.
pub const LANES: usize = 16;

/// What a tier offers. Every method is exact or correctly rounded, hence the same in all tiers.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Vectors of sixteen lanes that the registers hold.
    const REGISTERS: usize;
    /// Sixteen f32 lanes.
    type F: Copy;

    /// Every lane `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Lanes from memory.
    fn load(self, p: &[f32; 16]) -> Self::F;
    /// Lanes to memory.
    fn store(self, v: Self::F, p: &mut [f32; 16]);
    /// Asks for the cache line at `p`, which need not be readable.
    fn prefetch(self, _p: *const u8) {}
    /// f32 of an f16.
    fn half(self, bits: u16) -> f32;
    /// Lanes from sixteen little-endian f16.
    fn load_f16(self, p: &[u8; 32]) -> Self::F;
    /// Lanes from sixteen little-endian bf16.
    fn load_bf16(self, p: &[u8; 32]) -> Self::F;
    /// Lanes from sixteen signed bytes.
    fn load_i8(self, p: &[u8; 16]) -> Self::F;
    /// Lanes from the low or high nibbles of sixteen bytes, less 8.
    #[inline(always)]
    fn load_nibbles(self, p: &[u8; 16], high: bool) -> Self::F {
        let mut codes = *p;
        for code in &mut codes {
            *code = (if high { *code >> 4 } else { *code & 15 }).wrapping_sub(8);
        }
        self.load_i8(&codes)
    }
    /// Lanes to f16, to nearest even.
    fn store_f16(self, v: Self::F, p: &mut [u8; 32]);
    /// a + b.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// a > b ? a : b; so b if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// a < b ? a : b; so b if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// a < b ? yes : no, lane by lane.
    fn select_lt(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// To the nearest whole number, ties to even.
    fn round(self, v: Self::F) -> Self::F;
    /// 2^n for whole n in -126..=128 (infinity at 128).
    fn exp2_whole(self, n: Self::F) -> Self::F;
    /// The larger magnitude of each lane; NaN is larger than everything.
    fn magnitude_max(self, m: Self::F, v: Self::F) -> Self::F;
    /// Whole numbers in -127..=127 to bytes.
    fn store_i8(self, v: Self::F, p: &mut [i8; 16]);
    /// Sum of the lanes by halves: l + (l+8), + (l+4), + (l+2), + (l+1).
    fn reduce_add(self, v: Self::F) -> f32;
    /// The largest lane, by halves as above with [`Simd::max`].
    fn reduce_max(self, v: Self::F) -> f32;

    /// Sum over s of `scales[s]` * sum of codes * x in the s-th 16; codes at most 127.
    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32;
    /// Sum of w * x over 32; no x is -128.
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32;
    /// Sum of a * b over 16.
    fn dot16(self, a: &[i16; 16], b: &[i16; 16]) -> i32;
}

/// Code that runs on any tier.
pub trait Kernel {
    /// What it gives.
    type Out;
    /// Runs with the tier's vectors.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// A set of CPU features that kernels are compiled for. Only [`Tier::detect`] and
/// [`Tier::by_name`] make one, after asking the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(target_arch = "aarch64")]
    Dotprod,
    #[cfg(target_arch = "aarch64")]
    I8mm,
}

impl Tier {
    /// The tiers of this CPU, slowest first.
    #[must_use]
    pub fn available() -> Vec<Tier> {
        #[cfg(target_arch = "x86_64")]
        let fast = [
            (Kind::Avx2, x86::has_avx2()),
            (Kind::AvxVnni, x86::has_avx2() && x86::has_avx_vnni()),
            (Kind::Avx512, x86::has_avx2() && x86_512::has_avx512()),
        ];
        #[cfg(target_arch = "aarch64")]
        let fast = [
            (Kind::Neon, neon::has_neon()),
            (Kind::Dotprod, neon::has_dotprod()),
            (Kind::I8mm, neon::has_i8mm()),
        ];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let fast = [];
        let has = fast.into_iter().filter(|(_, has)| *has).map(|(kind, _)| Tier(kind));
        std::iter::once(Tier(Kind::Portable)).chain(has).collect()
    }

    /// The fastest tier of this CPU.
    #[must_use]
    pub fn detect() -> Tier {
        Tier::available().last().copied().unwrap_or(Tier(Kind::Portable))
    }

    /// The tier of a name. Errors: `ERR_INVALID_ARG` naming the tiers that this CPU has.
    pub fn by_name(name: &str) -> Result<Tier> {
        let tiers = Tier::available();
        tiers.iter().copied().find(|tier| tier.name() == name).ok_or_else(|| {
            let have: Vec<_> = tiers.iter().map(|tier| format!("'{}'", tier.name())).collect();
            let expected = format!("a tier that this CPU has ('auto', {})", have.join(", "));
            Error::invalid_arg("cpu", &expected, &format!("'{}'", crate::error::shown(name)))
        })
    }

    /// `portable`; `avx2`, `avxvnni`, `avx512`; `neon`, `dotprod`, `i8mm`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod => "dotprod",
            #[cfg(target_arch = "aarch64")]
            Kind::I8mm => "i8mm",
        }
    }

    /// Runs a kernel compiled for this tier.
    #[inline]
    pub fn call<K: Kernel>(self, kernel: K) -> K::Out {
        match self.0 {
            Kind::Portable => kernel.run(portable::Portable),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a Tier of this kind exists only if `available` found AVX2, FMA and F16C.
            Kind::Avx2 => unsafe { x86::call(x86::Avx2::assume(), kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and AVX-VNNI.
            Kind::AvxVnni => unsafe { x86::call_vnni(x86::AvxVnni::assume(), kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and AVX-512 F, BW, VL, DQ, VNNI, VBMI.
            Kind::Avx512 => unsafe { x86_512::call(x86_512::Avx512::assume(), kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a Tier of this kind exists only if `available` found NEON.
            Kind::Neon => unsafe { neon::call_neon(neon::Neon::assume(), kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, and dotprod.
            Kind::Dotprod => unsafe { neon::call_dotprod(neon::Dotprod::assume(), kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, and i8mm.
            Kind::I8mm => unsafe { neon::call_i8mm(neon::I8mm::assume(), kernel) },
        }
    }

    /// Whether this tier has fast integer kernels.
    #[must_use]
    pub fn is_wide(self) -> bool {
        self.0 != Kind::Portable
    }

    /// Whether this tier has kernels that take blocks in the order of memory.
    #[must_use]
    pub fn is_in_order(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Kind::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Runs a kernel that takes blocks in the order of memory; `false` if this tier has none.
    #[inline]
    pub fn call_in_order<K: in_order::InOrderKernel>(self, kernel: K) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => {
                // SAFETY: a Tier of this kind exists only if `available` found its features.
                unsafe { x86_512_in_order::call_in_order(x86_512::Avx512::assume(), kernel) };
                true
            }
            _ => {
                drop(kernel);
                false
            }
        }
    }

    /// Runs a fast integer kernel compiled for this tier, if it has any.
    #[inline]
    pub fn call_wide<K: wide::WideKernel>(self, kernel: K) -> Option<K::Out> {
        match self.0 {
            Kind::Portable => None,
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a Tier of this kind exists only if `available` found AVX2, FMA and F16C.
            Kind::Avx2 => Some(unsafe { x86::call_wide(x86::Avx2::assume(), kernel) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and AVX-VNNI.
            Kind::AvxVnni => Some(unsafe { x86::call_wide_vnni(x86::AvxVnni::assume(), kernel) }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above, and AVX-512 F, BW, VL, DQ, VNNI, VBMI.
            Kind::Avx512 => Some(unsafe { x86_512::call_wide(x86_512::Avx512::assume(), kernel) }),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: a Tier of this kind exists only if `available` found NEON.
            Kind::Neon => Some(unsafe { neon::call_wide_neon(neon::Neon::assume(), kernel) }),
            #[cfg(target_arch = "aarch64")]
            Kind::Dotprod => {
                // SAFETY: as above, and dotprod.
                Some(unsafe { neon::call_wide_dotprod(neon::Dotprod::assume(), kernel) })
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above, and i8mm.
            Kind::I8mm => Some(unsafe { neon::call_wide_i8mm(neon::I8mm::assume(), kernel) }),
        }
    }
}
