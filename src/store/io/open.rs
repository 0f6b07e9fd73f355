//! Chooses how to read: io_uring around the page cache, else a pool of positioned reads around it,
//! else one through it. What the system refuses is told as the reason.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::pread::Pool;
use super::{Opened, Opener};
use crate::gguf::{Part, errno};

/// Makes a reader of a model's parts; `direct`: around the page cache if that can be done.
#[must_use]
pub fn opener(parts: &[Part], direct: bool) -> Opener {
    let files: Vec<Arc<File>> = parts.iter().map(|part| part.file.clone()).collect();
    Box::new(move |buffers| {
        if !direct {
            let io = Box::new(Pool::new(files.clone(), "pread buffered")?);
            return Ok(Opened { io, reason: None });
        }
        match direct_files(&files) {
            Ok(direct) => with_direct(direct, buffers),
            Err(reason) => {
                let io = Box::new(Pool::new(files.clone(), "pread buffered")?);
                Ok(Opened { io, reason: Some(reason) })
            }
        }
    })
}

#[cfg(target_os = "linux")]
fn with_direct(
    files: Vec<Arc<File>>,
    buffers: &mut [super::buffer::Buffer],
) -> crate::error::Result<Opened> {
    match super::uring::Uring::new(&files, buffers) {
        Ok(io) => Ok(Opened { io: Box::new(io), reason: None }),
        Err(error) => {
            let io = Box::new(Pool::new(files, "pread direct")?);
            Ok(Opened { io, reason: Some(format!("io_uring: {}", errno(&error))) })
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn with_direct(
    files: Vec<Arc<File>>,
    _: &mut [super::buffer::Buffer],
) -> crate::error::Result<Opened> {
    Ok(Opened { io: Box::new(Pool::new(files, "pread direct")?), reason: None })
}

/// The same files, opened to read around the page cache; tried out on the first page of each.
#[cfg(target_os = "linux")]
fn direct_files(files: &[Arc<File>]) -> Result<Vec<Arc<File>>, String> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;

    let open = |file: &Arc<File>| -> io::Result<Arc<File>> {
        // By its handle: the name may be another file's by now.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let options = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        try_out(options)
    };
    let failed = |error: io::Error| format!("O_DIRECT: {}", errno(&error));
    files.iter().map(open).collect::<io::Result<_>>().map_err(failed)
}

#[cfg(target_os = "linux")]
fn try_out(file: File) -> io::Result<Arc<File>> {
    use super::buffer::Buffer;
    use std::os::unix::fs::FileExt;

    let page = Buffer::new(crate::plan::residency::ALIGN);
    let page = page.map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let (_lent, mut target) = page.lend();
    file.read_at(target.bytes_mut(), 0)?;
    Ok(Arc::new(file))
}

#[cfg(not(target_os = "linux"))]
fn direct_files(_: &[Arc<File>]) -> Result<Vec<Arc<File>>, String> {
    Err("direct reads are built for Linux only".to_owned())
}
