//! GGUF files: header, metadata and tensor directory of one file or of a split model's parts.
//! It reads no weights and knows no model, backend or device. Everything here came from outside:
//! no count or length is believed before the rest of the file is known to hold it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;
mod file;
mod header;
mod meta;
mod recognise;
mod source;
mod split;
mod value;

pub use file::{File, Part, Tensor};
pub use header::Header;
pub use meta::Meta;
pub use source::errno;
pub use value::{Array, Strings, Value};
