//! One file an architecture: its keys, weights and steps.

pub mod llama;
