//! What a path may lead to that is no GGUF file: folders, devices, links, other formats. Made in
//! a folder of `target/tmp` for each test and removed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use node_chord::error::Result;
use node_chord::gguf::File;

use crate::malformed::{assert_is_good, file};
use crate::measure::{Cost, cost};

/// A folder that goes away with its contents.
pub struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that goes on with zeros, which take no room, up to `bytes` bytes.
    pub fn sparse(&self, name: &str, head: &[u8], bytes: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, head).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(bytes.max(head.len() as u64)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens with a watchdog: a reader that blocks fails the test instead of hanging it.
pub fn open(path: &Path) -> (Result<File>, Cost) {
    let (sender, receiver) = mpsc::channel();
    let owned = path.to_owned();
    std::thread::spawn(move || drop(sender.send(Box::new(cost(|| File::open(&owned))))));
    *receiver.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{path:?} blocks"))
}

/// Checks that a file is refused quickly, in little memory, with this code and these words.
pub fn refused(path: &Path, code: &str, text: &str) {
    let (result, cost) = open(path);
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(error.code.as_str(), code, "{path:?}: {error}");
    assert!(error.message.contains(text), "{error}");
    assert_is_good(&error, &path.to_string_lossy());
    assert!(cost.time < Duration::from_secs(1), "{path:?} takes {:?}", cost.time);
    assert!(cost.peak_bytes < 64 << 20, "{path:?} takes {} bytes", cost.peak_bytes);
}

#[test]
fn what_is_no_file_is_refused_without_being_read() {
    let folder = Folder::new("no-file");
    refused(&folder.path("missing.gguf"), "ERR_FILE_NOT_FOUND", "no such file");
    refused(&folder.path("missing/m.gguf"), "ERR_FILE_NOT_FOUND", "no such file");
    fs::create_dir(folder.path("dir.gguf")).unwrap();
    refused(&folder.path("dir.gguf"), "ERR_FILE_UNREADABLE", "EISDIR");
}

#[cfg(unix)]
#[test]
fn special_files_are_refused_without_blocking() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("special");
    let link = |to: &str, name: &str| {
        symlink(to, folder.path(name)).unwrap();
        folder.path(name)
    };
    refused(&link("nothing.gguf", "dangling.gguf"), "ERR_FILE_NOT_FOUND", "no such file");
    refused(&link("loop.gguf", "loop.gguf"), "ERR_FILE_UNREADABLE", "ELOOP");
    refused(&link("/dev/zero", "zero.gguf"), "ERR_FILE_UNREADABLE", "a device");
    refused(&link("/dev/tty", "tty.gguf"), "ERR_FILE_UNREADABLE", "a device");
    let fifo = folder.path("fifo.gguf");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    refused(&fifo, "ERR_FILE_UNREADABLE", "a FIFO");
    let long = folder.path(&format!("{}.gguf", "x".repeat(300)));
    let error = open(&long).0.map(|_| ()).unwrap_err();
    assert!(error.message.contains("ENAMETOOLONG"), "{error}");
    // The path of a socket may have about a hundred bytes.
    let socket = std::env::temp_dir().join(format!("chord-{}.gguf", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    refused(&socket, "ERR_FILE_UNREADABLE", "a socket");
    drop(listener);
    fs::remove_file(&socket).unwrap();
    if cfg!(target_os = "linux") {
        refused(&link("/proc/self/maps", "maps.gguf"), "ERR_NOT_GGUF", "empty");
    }
}

#[cfg(unix)]
#[test]
fn links_odd_names_and_long_paths_are_fine() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new("links");
    let original = file("ok_base.gguf");
    symlink(&original, folder.path("link.gguf")).unwrap();
    fs::copy(&original, folder.path("näme 🦙 $(id).gguf")).unwrap();
    fs::hard_link(folder.path("näme 🦙 $(id).gguf"), folder.path("hard.gguf")).unwrap();
    for name in ["link.gguf", "näme 🦙 $(id).gguf", "hard.gguf"] {
        assert!(open(&folder.path(name)).0.is_ok(), "{name}");
    }
    let mut long = folder.path("");
    while long.as_os_str().len() < 3700 {
        long.push("d".repeat(200));
        fs::create_dir(&long).unwrap();
    }
    fs::copy(&original, long.join("m.gguf")).unwrap();
    assert!(open(&long.join("m.gguf")).0.is_ok());
    let locked = folder.path("hard.gguf");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything.
    if fs::read(&locked).is_err() {
        refused(&locked, "ERR_FILE_UNREADABLE", "EACCES");
    }
}

#[test]
fn other_formats_are_named() {
    let folder = Folder::new("formats");
    let check = |name: &str, bytes: &[u8], text: &str| {
        fs::write(folder.path(name), bytes).unwrap();
        refused(&folder.path(name), "ERR_NOT_GGUF", text);
    };
    check("empty.gguf", b"", "empty");
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4920739232\n";
    check("text.gguf", pointer, "Git LFS pointer");
    check("page.gguf", b"<!doctype html><html><body>404</body></html>\n", "HTML");
    check("json.gguf", b"{\"a\":1}\n", "JSON");
    check("model.safetensors", b"\x40\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\"}}", "safetensors");
    check("zip.gguf", b"PK\x03\x04\x14\0\0\0archive/data.pkl", "ZIP");
    check("gzip.gguf", b"\x1f\x8b\x08\0\0\0\0\0\x02\xff", "gzip");
    refused(&folder.sparse("zeros.gguf", b"", 64 << 20), "ERR_NOT_GGUF", "zeros");
}
