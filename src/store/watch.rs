//! Tells whether the files that are read are still the ones whose headers were read.

use std::fs;
use std::io;
use std::sync::Arc;

use super::io::mmap::{State, changed};
use crate::error::{Code, Error, Result};
use crate::gguf::{Part, errno};

/// The files of a model.
pub struct Watch {
    files: Vec<Watched>,
}

struct Watched {
    file: Arc<fs::File>,
    path: String,
    state: State,
}

impl Watch {
    /// Remembers how the files are now.
    pub fn new(parts: &[Part]) -> Result<Self> {
        let mut files = Vec::new();
        for part in parts {
            let path = part.path.to_string_lossy().into_owned();
            let state = State::of(&part.file).map_err(|error| failed(&path, 0, &error))?;
            if state.bytes != part.bytes {
                return Err(changed(&path));
            }
            files.push(Watched { file: part.file.clone(), path, state });
        }
        Ok(Watch { files })
    }

    /// `ERR_FILE_CHANGED` unless all files have the lengths and times that they had.
    pub fn check(&self) -> Result<()> {
        for watched in &self.files {
            match State::of(&watched.file) {
                Ok(state) if state == watched.state => {}
                _ => return Err(changed(&watched.path)),
            }
        }
        Ok(())
    }

    /// What a failed read means: the file changed, or `ERR_IO` at a byte.
    pub fn explain(&self, part: u32, offset: u64, error: &io::Error) -> Error {
        if let Err(error) = self.check() {
            return error;
        }
        let path = self.files.get(part as usize).map_or("", |watched| watched.path.as_str());
        failed(path, offset, error)
    }
}

fn failed(path: &str, offset: u64, error: &io::Error) -> Error {
    let errno = match error.kind() {
        io::ErrorKind::UnexpectedEof => "EIO".to_owned(),
        _ => errno(error),
    };
    let what = format!("reading failed ({errno})");
    Error::at(Code::Io, path, format!("byte {offset}"), what).with("errno", errno)
}
