//! Loading a real model from its file to its first words, and what is refused on the way.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use node_chord::engine::command::Cancel;
use node_chord::error::{Code, Result};
use node_chord::load::{Engine, LoadOptions, Loaded, load};

use crate::engine::client::{request, run, send, until};
use crate::runner::root;

fn open(path: &Path, options: &LoadOptions) -> Result<Loaded> {
    load(path, options, &mut |_, _| {}, &AtomicBool::new(false))
}

fn chord(options: &LoadOptions) -> Result<Loaded> {
    open(&root("models/chord-5m-Q4_K_M.gguf"), options)
}

#[test]
fn chord_tells_a_story_on_both_backends() {
    let tell = |engine| {
        let loaded = chord(&LoadOptions { engine, ..LoadOptions::default() }).expect("loads");
        assert!(loaded.template_source.as_ref().is_ok_and(Option::is_some));
        let prompt = loaded.tokenizer.encode("Once upon a time", true, true);
        run(&loaded.handle, request(None, &prompt, 12)).outcome().text
    };
    let story = tell(Engine::Cpu);
    assert!(story.contains("there was"), "{story:?}");
    assert_eq!(story, tell(Engine::Reference));
}

#[test]
fn progress_is_told_and_loading_can_be_called_off() {
    let path = root("models/chord-5m-Q4_K_M.gguf");
    let mut seen = Vec::new();
    let mut progress = |done, total| seen.push((done, total));
    let options = LoadOptions::default();
    load(&path, &options, &mut progress, &AtomicBool::new(false)).expect("loads");
    let bytes = std::fs::metadata(&path).expect("there").len();
    assert_eq!(seen, [(0, bytes), (bytes, bytes)]);
    let cancelled = AtomicBool::new(false);
    let mut cancel = |_, _| cancelled.store(true, Ordering::Relaxed);
    let error = load(&path, &options, &mut cancel, &cancelled).err().expect("called off");
    assert_eq!(error.code, Code::Abort);
}

#[test]
fn options_that_cannot_be_met_are_coded_errors() {
    let check = |options: LoadOptions, code| {
        let error = chord(&options).err().expect("refused");
        assert_eq!(error.code, code, "{error}");
    };
    let base = LoadOptions::default;
    check(LoadOptions { devices: vec!["cuda:1".to_owned()], ..base() }, Code::Device);
    check(LoadOptions { devices: vec!["toaster".to_owned()], ..base() }, Code::InvalidArg);
    check(LoadOptions { n_ctx: Some(0), ..base() }, Code::InvalidArg);
    check(LoadOptions { n_ctx: Some(16_000_000), ..base() }, Code::InsufficientMemory);
    check(LoadOptions { ram_bytes: Some(1 << 20), ..base() }, Code::InsufficientMemory);
    check(LoadOptions { tier: Some("abacus".to_owned()), ..base() }, Code::InvalidArg);
    check(LoadOptions { threads: Some(0), ..base() }, Code::InvalidArg);
    let error = open(Path::new("nowhere.gguf"), &base()).err().expect("refused");
    assert_eq!(error.code, Code::FileNotFound);
}

#[test]
fn a_long_prompt_of_chord_29m_is_called_off_wherever_it_is() {
    let path = root("../shared/models/chord-29m-Q4_K_M.gguf");
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return;
    }
    let options = LoadOptions { n_ctx: Some(8192), ..LoadOptions::default() };
    let loaded = open(&path, &options).expect("loads");
    let prompt = vec![50; 8000];
    let mut worst = Duration::ZERO;
    for wait_ms in [1, 50, 150, 400] {
        let run = send(&loaded.handle, request(None, &prompt, 10));
        until("it runs", || loaded.handle.stats().running == 1 || wait_ms == 1);
        std::thread::sleep(Duration::from_millis(wait_ms));
        let begin = Instant::now();
        run.cancel(&loaded.handle, Cancel::Reject);
        assert_eq!(run.wait().error().code, Code::Abort);
        worst = worst.max(begin.elapsed());
    }
    // The figure is for people: clocks decide nothing here.
    println!("slowest abort: {worst:?}");
    assert_eq!(loaded.handle.stats().running, 0);
}

#[test]
fn closing_gives_everything_back() {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for _ in 0..5 {
        let loaded = chord(&LoadOptions::default()).expect("loads");
        let prompt = loaded.tokenizer.encode("Once", true, true);
        run(&loaded.handle, request(None, &prompt, 3)).outcome();
        loaded.handle.close();
        assert!(loaded.handle.join(Duration::from_secs(10)));
        assert_eq!(loaded.handle.stats().kv_used, 0);
    }
    // Other tests run beside: only growth without bound shows.
    assert!(threads() < 200);
    assert!(maps().lines().count() < 5000);
}
