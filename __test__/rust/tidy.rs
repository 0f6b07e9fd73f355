//! Style as a test: who may import whom, where crates live, sizes, heads, dead files.
//! The rules are data here; `rules` checks them, `source` reads Rust well enough for that, and
//! `tests` shows that every rule can fail. An exception stands in a list here, with its reason.

mod rules;
mod source;
mod tests;

use rules::{Exception, Part};
use source::{File, Repository};

/// Who knows whom. All may use `error`; what is not listed here may not be imported.
const PARTS: &[Part] = &[
    Part { name: "error", uses: &[] },
    Part { name: "gguf", uses: &["quant"] },
    Part { name: "quant", uses: &[] },
    Part { name: "template", uses: &[] },
    Part { name: "tokenizer", uses: &["gguf"] },
    Part { name: "plan", uses: &["quant"] },
    Part { name: "model", uses: &["gguf", "plan"] },
    Part { name: "place", uses: &["plan"] },
    Part { name: "store", uses: &["gguf", "plan"] },
    Part { name: "backend", uses: &["plan", "quant", "store"] },
    Part { name: "engine", uses: &["backend", "store", "plan", "tokenizer"] },
    Part { name: "load", uses: BELOW_LOAD },
    Part { name: "tools", uses: BELOW_NODE },
    Part { name: "node", uses: &["load", "engine", "tools"] },
];

/// `load` knows all parts below it.
const BELOW_LOAD: &[&str] = &[
    "gguf",
    "quant",
    "template",
    "tokenizer",
    "plan",
    "model",
    "place",
    "store",
    "backend",
    "engine",
];

/// A tool works on any part, and on what is loaded.
const BELOW_NODE: &[&str] = &[
    "load",
    "gguf",
    "quant",
    "template",
    "tokenizer",
    "plan",
    "model",
    "place",
    "store",
    "backend",
    "engine",
];

/// What the command may import from beside its own folder: the public surface, as a user does.
const COMMAND_IMPORTS: &[&str] = &["../index.js", "../../../index.js"];

/// What no public function does.
const COMMAND_EXCEPTIONS: &[Exception] = &[
    ("src/js/cli/diff.ts", "calls the addon's comparison"),
    ("src/js/cli/estimate.ts", "counts on a disk of a rate that is given"),
    ("src/js/cli/bench.ts", "the same, and tells what was read and computed when"),
    ("src/js/cli/plan.ts", "calls the addon for a model's steps"),
];

/// A crate has one home: the first name is used below the paths that follow, and nowhere else.
const HOMES: &[(&str, &[&str])] = &[
    ("aho_corasick", &["src/tokenizer"]),
    ("candle_core", &["src/backend/reference"]),
    ("core_affinity", &["src/backend/cpu"]),
    ("cudarc", &["src/backend/cuda"]),
    ("io_uring", &["src/store/io"]),
    ("memmap2", &["src/store/io"]),
    ("minijinja", &["src/template"]),
    ("minijinja_contrib", &["src/template"]),
    ("napi", &["src/node"]),
    ("napi_derive", &["src/node"]),
    ("regex", &["src/tokenizer"]),
    ("regex_syntax", &["src/tokenizer"]),
    ("tokio", &["src/node", "src/engine/queue.rs"]),
    ("unicode_normalization", &["src/tokenizer"]),
    ("wgpu", &["src/backend/wgpu"]),
    ("windows_sys", &["src/store/io"]),
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "src/backend/cpu/simd",
    "src/backend/cpu/kernel",
    "src/backend/cpu/pool.rs",
    "src/backend/cpu/table",
    "src/backend/cuda",
    "src/backend/wgpu",
    "src/store/io",
    "src/tools/heap.rs",
];

/// Where JavaScript reads the environment; Rust gets options. `NO_COLOR` is the terminal's affair.
const ENVIRONMENT: &[&str] = &["src/js/env.ts", "src/js/cli/terminal.ts"];

/// Files whose head may be longer than five lines, since it draws a layout.
const LONG_HEADS: &[&str] = &["src/backend/cpu/kernel", "src/backend/cpu/simd", "src/quant"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;
const COLUMNS_MAX: usize = 100;
const TRACKED_BYTES_MAX: u64 = 40_000_000;

/// Files that may break a size rule: path, and why.
const LONG_FILES: &[Exception] = &[("index.d.ts", "the whole public surface on one page")];
const LONG_FUNCTIONS: &[Exception] = &[];
const LONG_LINES: &[Exception] =
    &[("LICENSE-APACHE", "the licence's own text"), ("LICENSE-MIT", "the licence's own text")];

/// Nothing that names a machine belongs into the repository.
const FORBIDDEN: &[&str] = &["/home/", "/root/", "/Users/", "/work/", "file:///"];

fn keep(claim: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{claim}:\n  {}\n", broken.join("\n  "));
}

#[test]
fn parts_import_only_what_the_table_allows() {
    let repository = Repository::open();
    keep("a part may use what PARTS says", rules::imports(&repository.rust("src/"), PARTS));
}

#[test]
fn architecture_md_tells_the_same_imports() {
    let repository = Repository::open();
    let page = repository.files.iter().find(|file| file.path == "ARCHITECTURE.md").unwrap();
    keep("ARCHITECTURE.md shows PARTS", rules::told(&page.text, PARTS));
}

#[test]
fn the_command_is_a_user_of_the_public_surface() {
    let repository = Repository::open();
    let allowed = |path: &str| path.starts_with("./") || COMMAND_IMPORTS.contains(&path);
    let command = repository.typescript("src/js/cli/");
    let mut broken = rules::scripts(&command, allowed, COMMAND_EXCEPTIONS);
    let no_command = |path: &str| !path.contains("/cli/");
    broken.extend(rules::scripts(&repository.typescript("src/js/"), no_command, &[]));
    keep("the command and the package meet in index.js", broken);
}

#[test]
fn every_crate_stays_in_its_home() {
    let repository = Repository::open();
    keep("a crate has one home", rules::homes(&repository.rust("src/"), HOMES));
}

#[test]
fn unsafe_stays_where_it_is_allowed() {
    let repository = Repository::open();
    keep("unsafe is for these places", rules::words(&repository.rust("src/"), "unsafe", UNSAFE));
}

#[test]
fn the_environment_is_read_in_one_file() {
    let repository = Repository::open();
    let mut broken = rules::words(&repository.typescript("src/js/"), "process.env", ENVIRONMENT);
    for call in ["env::var", "env::var_os", "env::vars", "env::vars_os", "libc::getenv"] {
        broken.extend(rules::words(&repository.rust("src/"), call, &[]));
    }
    keep("the environment is read in src/js/env.ts", broken);
}

#[test]
fn files_functions_and_lines_keep_their_sizes() {
    let repository = Repository::open();
    let texts = repository.code();
    keep("a file is short", rules::file_lines(&texts, FILE_LINES_MAX, LONG_FILES));
    keep("a line is short", rules::columns(&texts, COLUMNS_MAX, LONG_LINES));
    let mut rust = repository.rust("src/");
    rust.extend(repository.rust("__test__/"));
    let long = rules::function_lines(&rust, FUNCTION_LINES_MAX, LONG_FUNCTIONS);
    keep("a function is short", long);
}

#[test]
fn every_exception_is_still_needed() {
    let repository = Repository::open();
    let texts = repository.code();
    let mut stale = rules::stale(&texts, LONG_FILES, |file| {
        !rules::file_lines(&[file], FILE_LINES_MAX, &[]).is_empty()
    });
    stale.extend(rules::stale(&texts, LONG_FUNCTIONS, |file| {
        !rules::function_lines(&[file], FUNCTION_LINES_MAX, &[]).is_empty()
    }));
    keep("an exception that nothing needs goes", stale);
}

#[test]
fn every_file_opens_with_a_head() {
    let repository = Repository::open();
    keep("a file says what it is", rules::heads(&repository.code(), LONG_HEADS));
}

#[test]
fn every_rust_file_is_part_of_a_crate() {
    let repository = Repository::open();
    let mut dead = rules::dead_files(&repository.rust("src/"), "src/lib.rs");
    let tests = repository.rust("__test__/rust/");
    // Two binaries: the second counts what the whole process allocates.
    let second = rules::dead_files(&tests, "__test__/rust/allocations.rs");
    let first = rules::dead_files(&tests, "__test__/rust/main.rs");
    dead.extend(first.into_iter().filter(|file| second.contains(file)));
    keep("no file is dead", dead);
}

#[test]
fn nothing_names_a_machine_or_a_mirror() {
    let repository = Repository::open();
    let texts: Vec<&File> =
        repository.files.iter().filter(|file| !file.path.contains("rust/tidy")).collect();
    keep("no path of a machine", rules::forbidden(&texts, FORBIDDEN));
    keep("no mirror in a lock file", rules::locks(&texts));
}

#[test]
fn the_repository_stays_small() {
    let repository = Repository::open();
    let bytes = repository.bytes();
    assert!(bytes < TRACKED_BYTES_MAX, "{bytes} bytes are tracked, {TRACKED_BYTES_MAX} allowed");
    let names: Vec<&File> =
        repository.files.iter().filter(|file| file.path.contains("stories260")).collect();
    assert!(names.is_empty(), "stories260K stays out of the repository");
}
