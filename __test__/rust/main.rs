//! All tests that need more than one part, as one binary.

mod arch;
mod refused;
mod runner;
