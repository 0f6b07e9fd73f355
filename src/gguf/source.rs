//! Opening a path as a plain file, whatever it turns out to be, without ever blocking.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use crate::error::{Code, Error, Result, shown};

/// Opens a file for reading. Returns it with its length.
///
/// # Errors
/// `ERR_FILE_NOT_FOUND`; `ERR_FILE_UNREADABLE` for what is no plain file or may not be read.
pub(super) fn open(path: &Path) -> Result<(fs::File, u64)> {
    let failed = |error: io::Error| unreadable(path, &error);
    plain(path, &fs::metadata(path).map_err(failed)?)?;
    let mut options = OpenOptions::new();
    options.read(true);
    // The path may have become a FIFO or a terminal since it was looked at.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    plain(path, &metadata)?;
    Ok((file, metadata.len()))
}

fn plain(path: &Path, metadata: &fs::Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (what, errno) = special(&metadata.file_type());
    let path = shown(&path.to_string_lossy());
    let text = format!("{path} is {what}, not a file ({errno}); give the path of a GGUF file");
    Err(Error::new(Code::FileUnreadable, text).with("path", path).with("errno", errno))
}

#[cfg(unix)]
fn special(kind: &fs::FileType) -> (&'static str, &'static str) {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_fifo() {
        ("a FIFO", "ESPIPE")
    } else if kind.is_socket() {
        ("a socket", "ENXIO")
    } else if kind.is_char_device() || kind.is_block_device() {
        ("a device", "ENODEV")
    } else {
        ("a folder", "EISDIR")
    }
}

#[cfg(not(unix))]
fn special(kind: &fs::FileType) -> (&'static str, &'static str) {
    if kind.is_dir() { ("a folder", "EISDIR") } else { ("something special", "EINVAL") }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let path = shown(&path.to_string_lossy());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::new(Code::FileNotFound, format!("{path}: no such file")).with("path", path)
        }
        _ => {
            let errno = errno(error);
            let text = format!("{path} cannot be opened ({errno})");
            Error::new(Code::FileUnreadable, text).with("path", path).with("errno", errno)
        }
    }
}

/// The name of an operating system's error, such as `EACCES`.
#[must_use]
pub fn errno(error: &io::Error) -> String {
    #[cfg(unix)]
    if let Some(number) = error.raw_os_error() {
        let known = NAMES.iter().find(|(known, _)| *known == number);
        return known.map_or_else(|| format!("E{number}"), |(_, name)| (*name).to_owned());
    }
    match error.kind() {
        io::ErrorKind::NotFound => "ENOENT",
        io::ErrorKind::PermissionDenied => "EACCES",
        io::ErrorKind::IsADirectory => "EISDIR",
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => "EINVAL",
        io::ErrorKind::OutOfMemory => "ENOMEM",
        io::ErrorKind::ResourceBusy => "EBUSY",
        io::ErrorKind::TimedOut => "ETIMEDOUT",
        io::ErrorKind::StorageFull => "ENOSPC",
        _ => "EIO",
    }
    .to_owned()
}

#[cfg(unix)]
const NAMES: &[(i32, &str)] = &[
    (libc::EACCES, "EACCES"),
    (libc::EPERM, "EPERM"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::EMFILE, "EMFILE"),
    (libc::ENFILE, "ENFILE"),
    (libc::EIO, "EIO"),
    (libc::EISDIR, "EISDIR"),
    (libc::ENXIO, "ENXIO"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EINVAL, "EINVAL"),
    (libc::ESTALE, "ESTALE"),
    (libc::EBUSY, "EBUSY"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::EINTR, "EINTR"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EROFS, "EROFS"),
    (libc::ETXTBSY, "ETXTBSY"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::EBADF, "EBADF"),
    (libc::ENOENT, "ENOENT"),
    (libc::ENOTDIR, "ENOTDIR"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_nul_is_unreadable_and_a_file_as_a_folder_is_not_found() {
        let code = |path: &str| open(Path::new(path)).map(|_| ()).map_err(|error| error.code);
        assert_eq!(code("a\0b"), Err(Code::FileUnreadable));
        assert_eq!(code("Cargo.toml/m.gguf"), Err(Code::FileNotFound));
        assert_eq!(code(""), Err(Code::FileNotFound));
        assert_eq!(code("src"), Err(Code::FileUnreadable));
    }
}
