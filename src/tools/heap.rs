//! Memory that the allocator keeps for later. Loading and closing happen on threads of their own,
//! and glibc gives threads arenas of their own: what one model leaves in one arena is of no use to
//! the next model in another, so a process that opens and closes models would grow for a while.
#![allow(unsafe_code, reason = "a function of the C library")]

/// Gives free memory back to the system, where the allocator does not do so by itself.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes no pointer, locks what it looks at and frees nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
