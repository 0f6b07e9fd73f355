//! How fast text becomes tokens: `cargo bench --bench tokenizer [NAME..]`. The text is that of
//! the pre-tokenizer cases, joined by newlines and repeated to 1 MiB; then giant runs; loading.

// Processor seconds of one thread, November 2026, shared 2-core x86-64 machine, release build;
// in brackets llama.cpp on such a machine. Peak memory of each run is 80 to 110 MB in all.
//
// | vocabulary   | cases 1 MiB | 10^6 x 'a'  | 10^6 blanks | loading     |
// | ------------ | ----------- | ----------- | ----------- | ----------- |
// | gpt-2        | 0.02 (0.22) | 0.14 (0.74) | 0.02 (0.14) | 0.01 (0.10) |
// | llama-bpe    | 0.02 (0.28) | 0.14 (0.82) | 0.19 (1.18) | 0.12 (0.36) |
// | qwen2        | 0.03 (0.30) | 0.13 (0.73) | 0.17 (1.09) | 0.07 (0.27) |
// | llama-spm    | 0.06 (0.19) | 0.13 (0.27) | 0.15 (0.32) | 0.00 (0.03) |
// | gemma-4      | 0.06 (0.27) | 0.15 (0.70) | 0.12 (0.94) | 0.27 (0.88) |
// | deepseek-llm | 0.09 (0.99) | 0.14 crash  | 0.17 crash  | 0.04 (0.23) |
// | falcon       | 0.03 (0.43) | 0.12 (0.81) | 0.19 (1.24) | 0.02 (0.13) |
// | command-r    | 0.04 (0.34) | 0.15 (0.97) | 0.18 (1.27) | 0.13 (0.61) |

#[path = "../rust/tokenizer/data.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod data;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Time that this thread has had on a processor, where the system tells; else time as it passes.
/// The figures to beat are such times, and the machines are shared.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse().ok());
    let passed = || START.get_or_init(Instant::now).elapsed();
    nanoseconds.map_or_else(passed, Duration::from_nanos)
}

/// The least of up to so many runs, fewer if they are long, and what the last returned.
fn best<T>(runs: usize, run: impl Fn() -> T) -> (Duration, T) {
    let mut least = Duration::MAX;
    let begin = now();
    let mut left = runs;
    loop {
        let start = now();
        let result = run();
        least = least.min(now().saturating_sub(start));
        left = left.saturating_sub(1);
        if left == 0 || now().saturating_sub(begin) > Duration::from_secs(1) {
            return (least, result);
        }
    }
}

fn cases_text(bytes: usize) -> String {
    let lines = data::lines("split.jsonl").unwrap_or_default();
    let texts: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    let mut all = texts.join("\n").repeat(bytes / 8192 + 1);
    let cut = (0..=bytes).rev().find(|at| all.is_char_boundary(*at)).unwrap_or(0);
    all.truncate(cut);
    all
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let names = data::OURS.iter().chain(&data::SHARED);
    let inputs = [
        ("cases 1 MiB", cases_text(1 << 20)),
        ("cases 10 MiB", cases_text(10 << 20)),
        (
            "words 10 MiB",
            "The quick brown fox jumps over the lazy dog, again and again.\n".repeat(169_126),
        ),
        ("1e6 letters", "a".repeat(1_000_000)),
        ("1e6 blanks", " ".repeat(1_000_000)),
        ("1e6 newlines", "\n".repeat(1_000_000)),
    ];
    for name in names.filter(|name| wanted.is_empty() || wanted.iter().any(|w| w == *name)) {
        let Some(bytes) = data::read(&format!("{name}.gguf")) else { continue };
        let path = std::env::temp_dir().join(format!("bench-{name}-{}.gguf", std::process::id()));
        if std::fs::write(&path, bytes).is_err() {
            continue;
        }
        let (open, file) = best(5, || node_chord::gguf::File::open(&path));
        let Ok(file) = file else { continue };
        let (load, tokenizer) =
            best(5, || node_chord::tokenizer::Tokenizer::from_meta(file.meta()));
        let _ = std::fs::remove_file(&path);
        let Ok(tokenizer) = tokenizer else { continue };
        println!(
            "{name:14} open {:.3} s, tokenizer {:.3} s",
            open.as_secs_f64(),
            load.as_secs_f64()
        );
        for (what, text) in &inputs {
            let (time, tokens) = best(3, || tokenizer.encode(text, false, true));
            let rate = text.len() as f64 / 1_048_576.0 / time.as_secs_f64();
            let count = tokens.len();
            println!("  {what:13} {:.3} s, {rate:7.1} MiB/s, {count} tokens", time.as_secs_f64());
            let (time, back) = best(3, || tokenizer.decode(&tokens, true));
            if *what == "cases 10 MiB" {
                println!("  {:13} {:.3} s, {} bytes", "  back", time.as_secs_f64(), back.len());
            }
        }
    }
}
