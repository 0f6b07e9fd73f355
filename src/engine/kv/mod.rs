//! The KV cache as the engine sees it: pages with owners, and sequences of tokens that hold them.
//! It does not know what a page contains.

pub mod pages;
pub mod sequence;
