//! Mapped weights: the right bytes, and files that change under them.
#![allow(unsafe_code, reason = "a foreign signal handler is part of the test")]

use std::fs;
use std::sync::Arc;

use node_chord::gguf::File;
use node_chord::model;
use node_chord::plan::{GroupId, Plan};
use node_chord::store::Store;

use crate::malformed::file;
use crate::special::Folder;

fn open(path: &std::path::Path) -> (Arc<Plan>, Store) {
    let file = File::open(path).unwrap();
    let plan = Arc::new(model::plan(&file).unwrap());
    let store = Store::open(&file, &plan).unwrap();
    (plan, store)
}

#[test]
fn a_lease_has_the_bytes_of_its_groups_weights_and_of_no_other() {
    for name in ["ok_base.gguf", "ok_alignment_8.gguf", "ok_split/m-00001-of-00003.gguf"] {
        let path = file(name);
        let (plan, store) = open(&path);
        let parts: Vec<Vec<u8>> = File::open(&path)
            .unwrap()
            .parts()
            .iter()
            .map(|part| fs::read(&part.path).unwrap())
            .collect();
        for (group, id) in plan.groups.iter().zip(plan.group_ids()) {
            let lease = store.acquire(id).unwrap();
            let own = group.weights();
            for (index, weight) in (0..).zip(&plan.weights) {
                let index = node_chord::plan::WeightId(index);
                let extent = weight.extent;
                let bytes = &parts[extent.part as usize][extent.offset as usize..];
                let wanted = if own.contains(&index) { extent.bytes as usize } else { 0 };
                assert_eq!(lease.bytes(index), &bytes[..wanted], "{}", weight.name);
            }
            lease.check().unwrap();
        }
        assert!(store.acquire(GroupId(1000)).is_err());
    }
}

/// Reads every byte of every weight.
fn read_all(plan: &Plan, store: &Store) -> node_chord::error::Result<u64> {
    let mut sum = 0;
    for (group, id) in plan.groups.iter().zip(plan.group_ids()) {
        let lease = store.acquire(id)?;
        for weight in group.weights() {
            sum += lease.bytes(weight).iter().map(|byte| u64::from(*byte)).sum::<u64>();
        }
        lease.check()?;
    }
    Ok(sum)
}

#[cfg(unix)]
#[test]
fn a_file_that_shrinks_under_the_weights_is_an_error_and_the_process_lives() {
    let folder = Folder::new("shrinks");
    let path = folder.path("m.gguf");
    for length in [0, 100, 4096, 6000] {
        fs::copy(file("ok_base.gguf"), &path).unwrap();
        let (plan, store) = open(&path);
        let whole = read_all(&plan, &store).unwrap();
        let lease = store.acquire(GroupId(1)).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
        // Beyond the end of the file there is nothing; the lease must still be safe to read.
        for weight in plan.groups[1].weights() {
            assert!(lease.bytes(weight).iter().map(|byte| u64::from(*byte)).sum::<u64>() <= whole);
        }
        for _ in 0..2 {
            let error = read_all(&plan, &store).unwrap_err();
            assert_eq!(error.code.as_str(), "ERR_FILE_CHANGED", "{length}: {error}");
            assert!(error.message.contains("m.gguf"), "{error}");
        }
    }
    // A whole file in its place is read again as if nothing had been.
    fs::copy(file("ok_base.gguf"), &path).unwrap();
    let (plan, store) = open(&path);
    read_all(&plan, &store).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_that_is_removed_or_replaced_by_name_changes_nothing() {
    let folder = Folder::new("replaced");
    let path = folder.path("m.gguf");
    fs::copy(file("ok_base.gguf"), &path).unwrap();
    let (plan, store) = open(&path);
    let sum = read_all(&plan, &store).unwrap();
    fs::copy(file("ok_experts.gguf"), folder.path("other.gguf")).unwrap();
    fs::rename(folder.path("other.gguf"), &path).unwrap();
    assert_eq!(read_all(&plan, &store).unwrap(), sum);
    fs::remove_file(&path).unwrap();
    assert_eq!(read_all(&plan, &store).unwrap(), sum);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_written_to_is_an_error() {
    let folder = Folder::new("written");
    let path = folder.path("m.gguf");
    fs::copy(file("ok_base.gguf"), &path).unwrap();
    let (plan, store) = open(&path);
    read_all(&plan, &store).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    fs::write(&path, fs::read(file("ok_base.gguf")).unwrap()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(read_all(&plan, &store).unwrap_err().code.as_str(), "ERR_FILE_CHANGED");
}

#[test]
fn a_file_that_changed_between_header_and_mapping_is_an_error() {
    let folder = Folder::new("between");
    let path = folder.path("m.gguf");
    fs::copy(file("ok_base.gguf"), &path).unwrap();
    let opened = File::open(&path).unwrap();
    let plan = Arc::new(model::plan(&opened).unwrap());
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error = Store::open(&opened, &plan).map(|_| ()).unwrap_err();
    assert_eq!(error.code.as_str(), "ERR_FILE_CHANGED");
}

/// Runs one of the ignored tests below in a process of its own; says how that ended.
#[cfg(target_os = "linux")]
fn child(name: &str) -> std::process::ExitStatus {
    let program = std::env::current_exe().unwrap();
    let name = format!("store::{name}");
    let mut command = std::process::Command::new(program);
    command.args(["--ignored", "--exact", &name, "--test-threads=1"]);
    command.env("CHORD_TEST_CHILD", "1").stdout(std::process::Stdio::null());
    command.stderr(std::process::Stdio::null()).status().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn faults_that_are_not_ours_do_what_they_did() {
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child("child_with_a_foreign_fault").signal(), Some(libc::SIGBUS));
    assert_eq!(child("child_with_a_foreign_handler").code(), Some(42));
    assert_eq!(child("child_that_is_sent_the_signal").signal(), Some(libc::SIGBUS));
}

/// Maps a file as another part of the process would, and reads beyond its end.
#[cfg(target_os = "linux")]
fn fault() {
    let folder = Folder::new("foreign");
    let path = folder.sparse("f", b"", 8192);
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // SAFETY: a new read-only mapping of an open file.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    assert_eq!(map[5000], 0, "the read above ends the process");
    panic!("no fault");
}

/// Whether this process was started by `child`, with a guard installed.
#[cfg(target_os = "linux")]
fn is_child() -> bool {
    std::env::var_os("CHORD_TEST_CHILD").is_some()
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "ends the process; run by another test"]
fn child_with_a_foreign_fault() {
    if is_child() {
        let _ours = open(&file("ok_base.gguf"));
        fault();
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "ends the process; run by another test"]
fn child_with_a_foreign_handler() {
    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: async-signal-safe, and the process is a test's.
        unsafe { libc::_exit(42) }
    }
    if is_child() {
        // SAFETY: a handler of the right type.
        unsafe { libc::signal(libc::SIGBUS, handler as *const () as usize) };
        let _ours = open(&file("ok_base.gguf"));
        fault();
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "ends the process; run by another test"]
fn child_that_is_sent_the_signal() {
    if is_child() {
        // Rust's own handler, which a program has and an addon has not, swallows a sent signal.
        // SAFETY: resets to the system's default.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        let _ours = open(&file("ok_base.gguf"));
        // SAFETY: ends this process, which is a test's.
        unsafe { libc::raise(libc::SIGBUS) };
    }
}
