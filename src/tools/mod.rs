//! Tools around models: they may know all parts, and no part knows them.

pub mod diff;
