//! All tests that need more than one part, as one binary; `tidy` keeps the house itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail that way")]
#![allow(clippy::needless_range_loop, clippy::type_complexity, reason = "tables of cases")]

mod arch;
mod attend;
mod cpu;
mod determinism;
mod diff;
mod draft;
mod engine;
mod estimate;
mod gguf;
mod hostile;
mod huge;
mod load;
mod kernels;
mod logits;
mod malformed;
mod measure;
mod numeric;
mod over;
mod passes;
mod place;
mod quant;
mod reference;
mod runner;
mod shapes;
mod share;
mod special;
mod store;
mod streaming;
mod template;
mod tidy;
mod tokenizer;
mod writer;
