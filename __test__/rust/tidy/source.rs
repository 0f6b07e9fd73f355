//! The repository as `tidy` sees it: tracked files, and Rust text without comments and strings.
//! It is no parser: it blanks what is not code, so that words and braces can be counted.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracked file; `text` is empty where it is not UTF-8.
pub struct File {
    pub path: String,
    pub text: String,
    pub bytes: u64,
}

impl File {
    /// A file of a test's own.
    pub fn sample(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into(), bytes: text.len() as u64 }
    }

    /// `src/engine/queue.rs` -> `engine`; `src/load.rs` -> `load`.
    pub fn part(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }

    /// How many modules deep the file lies: 1 for `src/engine/mod.rs`, 2 for its neighbours.
    pub fn depth(&self) -> usize {
        let folders = self.path.matches('/').count();
        folders - usize::from(self.path.ends_with("/mod.rs"))
    }

    /// True if the path is one of these, or lies below one of them (`x` covers `x.rs` too).
    pub fn is_below(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            let rest = self.path.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
        })
    }

    /// The text with comments and the insides of strings and characters blanked.
    pub fn code(&self) -> String {
        blank(&self.text)
    }
}

/// What git tracks, or all there is but build products where git cannot tell.
pub struct Repository {
    pub files: Vec<File>,
}

impl Repository {
    /// Reads this repository; a tracked file that was just deleted is left out.
    pub fn open() -> Repository {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let listed = tracked(root).unwrap_or_else(|| walk(root));
        let files = listed.iter().filter_map(|path| {
            let bytes = std::fs::read(root.join(path)).ok()?;
            let size = bytes.len() as u64;
            let text = String::from_utf8(bytes).unwrap_or_default();
            Some(File { path: path.clone(), text, bytes: size })
        });
        Repository { files: files.collect() }
    }

    /// The Rust files below a folder.
    pub fn rust(&self, folder: &str) -> Vec<&File> {
        let wanted = |file: &&File| file.path.starts_with(folder) && file.path.ends_with(".rs");
        self.files.iter().filter(wanted).collect()
    }

    /// The TypeScript files below a folder.
    pub fn typescript(&self, folder: &str) -> Vec<&File> {
        let kinds = [".ts", ".mts", ".cts"];
        let wanted = |file: &&File| {
            file.path.starts_with(folder) && kinds.iter().any(|kind| file.path.ends_with(kind))
        };
        self.files.iter().filter(wanted).collect()
    }

    /// What people write by hand: Rust, TypeScript, JavaScript, shell, kernels.
    pub fn code(&self) -> Vec<&File> {
        let kinds = [".rs", ".ts", ".mts", ".cts", ".js", ".mjs", ".cjs", ".cu", ".cuh", ".wgsl"];
        let written = |file: &&File| kinds.iter().any(|kind| file.path.ends_with(kind));
        self.files.iter().filter(written).collect()
    }

    /// What all tracked files weigh together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// `git ls-files` and what is about to be added, or None outside a checkout.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(args).current_dir(root).output().ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    output
        .status
        .success()
        .then(|| listed.split('\0').filter(|path| !path.is_empty()).map(String::from).collect())
}

fn walk(root: &Path) -> Vec<String> {
    let skipped = [".git", "target", "node_modules", "dist"];
    let (mut found, mut folders) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in entries {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !skipped.contains(&name.as_str()) {
                folders.push(path);
            } else if path.is_file() && !name.ends_with(".node") && !name.ends_with(".tgz") {
                let inner = path.strip_prefix(root).unwrap().to_string_lossy();
                found.push(inner.replace('\\', "/"));
            }
        }
    }
    found
}

/// Blanks comments and literals; every other byte and every line break keeps its place.
pub fn blank(text: &str) -> String {
    let (chars, mut out) = (text.chars().collect::<Vec<_>>(), String::with_capacity(text.len()));
    let mut at = 0;
    while at < chars.len() {
        let end = match literal_end(&chars, at) {
            Some(end) => end,
            None => {
                out.push(chars[at]);
                at += 1;
                continue;
            }
        };
        out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    out
}

/// Where the comment, string or character that starts at `at` ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let end = match rest {
        ['/', '/', ..] => rest.iter().position(|&c| c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['r', '"' | '#', ..] if !follows_word(chars, at) => raw_string(rest)?,
        ['"', ..] => quoted(rest, '"'),
        ['\'', '\\', ..] => quoted(rest, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => return None,
    };
    Some(at + end)
}

/// True after an identifier, whose `r` is no prefix (the `b` of `br"..."` is fine).
fn follows_word(chars: &[char], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|index| chars.get(index));
    let is_word = |c: Option<&char>| c.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    is_word(before(1)) && (before(1) != Some(&'b') || is_word(before(2)))
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn raw_string(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().skip(1).take_while(|&&c| c == '#').count();
    (rest.get(hashes + 1) == Some(&'"')).then(|| {
        let closes = |at: &usize| {
            rest[*at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes
        };
        (hashes + 2..rest.len()).find(closes).map_or(rest.len(), |at| at + 1 + hashes)
    })
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
