//! Tools around models: they may know all parts, and no part knows them.

pub mod chat;
pub mod comparison;
pub mod diff;
pub mod estimated;
pub mod facts;
pub mod features;
pub mod heap;
pub mod loaded;
pub mod open;
pub mod planned;
