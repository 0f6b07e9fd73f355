//! node-chord: GGUF language models on a Rust inference thread, for Node.
//!
//! The map, in the order in which a token meets the parts; ARCHITECTURE.md tells the way.

pub mod error;
pub mod gguf;
pub mod quant;
pub mod tokenizer;
pub mod template;
pub mod plan;
pub mod model;
pub mod place;
pub mod store;
pub mod backend;
pub mod engine;
pub mod load;
pub mod tools;
pub mod node;
