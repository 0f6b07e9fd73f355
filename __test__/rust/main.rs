//! All tests that need more than one part, as one binary; `tidy` keeps the house itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail that way")]

mod arch;
mod cpu;
mod diff;
mod engine;
mod logits;
mod quant;
mod reference;
mod refused;
mod runner;
mod tidy;
