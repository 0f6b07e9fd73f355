//! How bytes come from files: mappings, with a guard against files that shrink under them.

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod guard;
pub mod mmap;

/// Systems where a mapped file cannot be truncated (Windows refuses to), or where no guard exists.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod guard {
    /// Watches nothing.
    pub struct Guard;

    impl Guard {
        /// A guard that is never hit.
        pub fn new(_: &[u8]) -> crate::error::Result<Self> {
            Ok(Guard)
        }

        /// Never.
        pub fn is_hit(&self) -> bool {
            false
        }
    }
}
