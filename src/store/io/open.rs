//! Chooses how to read: around the page cache in the way that the system is best at, else through
//! it by a pool of positioned reads. What the system refuses is told as the reason.

use std::fs::File;
use std::sync::Arc;

use super::buffer::Buffer;
use super::pread::Pool;
use super::{Opened, Opener};
use crate::error::Result;
use crate::gguf::{Part, errno};

/// Makes a reader of a model's parts; `direct`: around the page cache if that can be done.
#[must_use]
pub fn opener(parts: &[Part], direct: bool) -> Opener {
    let files: Vec<Arc<File>> = parts.iter().map(|part| part.file.clone()).collect();
    Box::new(move |buffers| {
        let reason = if direct {
            match around_cache(&files, buffers)? {
                Ok(opened) => return Ok(opened),
                Err(reason) => Some(reason),
            }
        } else {
            None
        };
        Ok(Opened { io: Box::new(Pool::new(files.clone(), "pread buffered")?), reason })
    })
}

/// A way around the page cache, or why there is none.
type Direct = std::result::Result<Opened, String>;

/// io_uring, or positioned reads where it is forbidden.
#[cfg(target_os = "linux")]
fn around_cache(files: &[Arc<File>], buffers: &mut [Buffer]) -> Result<Direct> {
    let files = match files.iter().map(direct_file).collect::<std::io::Result<Vec<_>>>() {
        Ok(files) => files,
        Err(error) => return Ok(Err(format!("O_DIRECT: {}", errno(&error)))),
    };
    let error = match super::uring::Uring::new(&files, buffers) {
        Ok(io) => return Ok(Ok(Opened { io: Box::new(io), reason: None })),
        Err(error) => error,
    };
    let io = Box::new(Pool::new(files, "pread direct")?);
    Ok(Ok(Opened { io, reason: Some(format!("io_uring: {}", errno(&error))) }))
}

/// The same file, opened to read around the page cache; tried out on its first page.
#[cfg(target_os = "linux")]
fn direct_file(file: &Arc<File>) -> std::io::Result<Arc<File>> {
    use std::io;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};

    // By its handle: the name may be another file's by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let page = Buffer::new(crate::plan::residency::ALIGN);
    let page = page.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let (_lent, mut target) = page.lend();
    file.read_at(target.bytes_mut(), 0)?;
    Ok(Arc::new(file))
}

/// Positioned reads of files that leave nothing in the cache. The handles are the model's own: its
/// header has been read, and nothing else of a streamed model is read through them.
#[cfg(target_os = "macos")]
fn around_cache(files: &[Arc<File>], _: &mut [Buffer]) -> Result<Direct> {
    if let Err(error) = files.iter().try_for_each(|file| super::nocache::set(file)) {
        return Ok(Err(format!("F_NOCACHE: {}", errno(&error))));
    }
    let io = Box::new(Pool::new(files.to_vec(), "pread direct")?);
    Ok(Ok(Opened { io, reason: None }))
}

/// Overlapped reads of unbuffered files.
#[cfg(windows)]
fn around_cache(files: &[Arc<File>], _: &mut [Buffer]) -> Result<Direct> {
    Ok(match super::windows::Overlapped::new(files) {
        Ok(io) => Ok(Opened { io: Box::new(io), reason: None }),
        Err(error) => Err(format!("FILE_FLAG_NO_BUFFERING: {}", errno(&error))),
    })
}

#[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
fn around_cache(_: &[Arc<File>], _: &mut [Buffer]) -> Result<Direct> {
    Ok(Err("direct reads are built for Linux, macOS and Windows only".to_owned()))
}
