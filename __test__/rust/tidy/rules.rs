//! The rules as functions: files in, one line for each breach out.
//! They know no path of this repository: lists and limits come from `tidy`.

use super::source::File;
use std::collections::BTreeSet;

/// A part of the crate and the parts that it may import, `error` and itself apart.
pub struct Part {
    pub name: &'static str,
    pub uses: &'static [&'static str],
}

/// A path that may break a rule, and why.
pub type Exception = (&'static str, &'static str);

/// Paths that leave a part for one which the table does not name.
pub fn imports(files: &[&File], parts: &[Part]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.path != "src/lib.rs") {
        let Some(part) = parts.iter().find(|part| part.name == file.part()) else {
            broken.push(format!("{}: '{}' is not in the table", file.path, file.part()));
            continue;
        };
        for (line, used) in used_parts(file, parts) {
            if used != part.name && used != "error" && !part.uses.contains(&used.as_str()) {
                broken.push(format!("{}:{line}: {} may not use {used}", file.path, part.name));
            }
        }
    }
    broken
}

/// The first names behind `crate::` (also in braces), and the parts that a `super` reaches.
fn used_parts(file: &File, parts: &[Part]) -> Vec<(usize, String)> {
    let code = file.code();
    let mut found = Vec::new();
    for at in occurrences(&code, "crate") {
        if let Some(path) = code[at + 5..].trim_start().strip_prefix("::") {
            let names = first_names(path.trim_start());
            found.extend(names.into_iter().map(|name| (line_of(&code, at), name)));
        }
    }
    for at in occurrences(&code, "super").filter(|&at| reaches_root(&code, at, file.depth())) {
        let mut path = &code[at..];
        while let Some(inner) = path.strip_prefix("super::") {
            path = inner;
        }
        let is_part = |name: &String| parts.iter().any(|part| part.name == name);
        let names = first_names(path).into_iter().filter(is_part);
        found.extend(names.map(|name| (line_of(&code, at), name)));
    }
    found
}

/// True at the first of as many `super::` as lead out of the file's part.
fn reaches_root(code: &str, at: usize, depth: usize) -> bool {
    let chain = code[at..].split("::").take_while(|name| name.trim() == "super").count();
    let first = !code[..at].trim_end().ends_with("::");
    first && chain >= depth
}

/// `a::b` -> a; `{a::b, c}` -> a, c.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim().chars().take_while(|&c| c == '_' || c == '*' || c.is_alphanumeric()).collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Parts whose row `| name | holds | imports |` is missing or names other imports; "all of these"
/// stands for the rows above it.
pub fn told(page: &str, parts: &[Part]) -> Vec<String> {
    let mut broken = Vec::new();
    for part in parts {
        let start = format!("| `{}` |", part.name);
        let Some(row) = page.lines().find(|line| line.starts_with(&start)) else {
            broken.push(format!("no row for {}", part.name));
            continue;
        };
        let cell = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or("");
        let told: BTreeSet<&str> = cell.split('`').skip(1).step_by(2).collect();
        if cell.trim() != "all of these" && told != part.uses.iter().copied().collect() {
            broken.push(format!("{}: told {told:?}, allowed {:?}", part.name, part.uses));
        }
    }
    broken
}

/// Relative imports of scripts that are not allowed; packages are no concern of this rule.
pub fn scripts(
    files: &[&File],
    allowed: impl Fn(&str) -> bool,
    exceptions: &[Exception],
) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !is_excepted(file, exceptions)) {
        for opening in ["from '", "import('", "require('", "import '"] {
            for (at, _) in file.text.match_indices(opening) {
                let path = file.text[at + opening.len()..].split('\'').next().unwrap_or("");
                if path.starts_with('.') && !allowed(path) {
                    broken.push(format!("{}:{}: {path}", file.path, line_of(&file.text, at)));
                }
            }
        }
    }
    broken
}

/// Crates that are named outside their homes.
pub fn homes(files: &[&File], homes: &[(&str, &[&str])]) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, places) in homes {
        for file in files.iter().filter(|file| !file.is_below(places)) {
            let code = file.code();
            let path = occurrences(&code, name).find(|at| is_crate_path(&code, *at, name));
            broken.extend(path.map(|at| {
                format!("{}:{}: {name} lives in {}", file.path, line_of(&code, at), places[0])
            }));
        }
    }
    broken
}

/// `name::..` or `use name`, but not `other::name`, which is a module of ours.
fn is_crate_path(code: &str, at: usize, name: &str) -> bool {
    let (before, after) = (code[..at].trim_end(), code[at + name.len()..].trim_start());
    let rooted = !before.ends_with("::") || before.ends_with([' ', '(', '{', '<', '&', ';']);
    rooted && (after.starts_with("::") || before.ends_with("use") || before.ends_with("crate"))
}

/// A word of the language (or a path) outside the places where it may stand.
pub fn words(files: &[&File], word: &str, places: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !file.is_below(places)) {
        let code = file.code();
        let lines = occurrences(&code, word).map(|at| line_of(&code, at));
        broken.extend(lines.map(|line| format!("{}:{line}: {word}", file.path)));
    }
    broken
}

/// Files of too many lines.
pub fn file_lines(files: &[&File], most: usize, exceptions: &[Exception]) -> Vec<String> {
    let long = files.iter().filter(|file| !is_excepted(file, exceptions)).filter_map(|file| {
        let lines = file.text.lines().count();
        (lines > most).then(|| format!("{}: {lines} lines, {most} allowed", file.path))
    });
    long.collect()
}

/// Lines of too many characters.
pub fn columns(files: &[&File], most: usize, exceptions: &[Exception]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !is_excepted(file, exceptions)) {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > most {
                broken.push(format!("{}:{}: {columns} columns", file.path, index + 1));
            }
        }
    }
    broken
}

/// Functions whose bodies have too many lines of code, blank ones and comments left out.
pub fn function_lines(files: &[&File], most: usize, exceptions: &[Exception]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !is_excepted(file, exceptions)) {
        let code = file.code();
        for at in occurrences(&code, "fn") {
            let Some((name, body)) = function(&code[at + 2..]) else { continue };
            let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
            if lines > most {
                let line = line_of(&code, at);
                broken.push(format!("{}:{line}: {name} has {lines} lines", file.path));
            }
        }
    }
    broken
}

/// Name and body of the function whose text follows `fn`; None for a type or a declaration.
fn function(after: &str) -> Option<(&str, &str)> {
    let text = after.trim_start();
    let name = text.split(|c: char| c != '_' && !c.is_alphanumeric()).next()?;
    let open = text.find(['{', ';']).filter(|_| !name.is_empty())?;
    if text[open..].starts_with(';') {
        return None;
    }
    let mut depth = 0;
    for (at, c) in text[open..].char_indices() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            return Some((name, &text[open + 1..open + at]));
        }
    }
    None
}

/// Files that do not open with a comment, or whose head is longer than five lines.
pub fn heads(files: &[&File], long: &[&str]) -> Vec<String> {
    let broken = files.iter().filter_map(|file| {
        let lines = file.text.lines().skip_while(|line| line.starts_with("#!/"));
        let comment = |line: &&str| match file.path.ends_with(".rs") {
            true => line.starts_with("//!"),
            false => ["//", "/*", " *"].iter().any(|start| line.starts_with(start)),
        };
        let head = lines.take_while(comment).count();
        let most = if file.is_below(long) { 40 } else { 5 };
        let long = file.path.ends_with(".rs") && head > most;
        match head {
            0 => Some(format!("{}: opens without a head", file.path)),
            _ if long => Some(format!("{}: a head of {head} lines", file.path)),
            _ => None,
        }
    });
    broken.collect()
}

/// Files that no `mod` line leads to from the root file.
pub fn dead_files(files: &[&File], root: &str) -> Vec<String> {
    let (mut alive, mut queue) = (BTreeSet::new(), vec![root.to_string()]);
    while let Some(path) = queue.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        if !alive.insert(path.clone()) {
            continue;
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let folder = match name {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
            _ => path.trim_end_matches(".rs").to_string(),
        };
        let code = file.code();
        for at in occurrences(&code, "mod") {
            let rest = code[at + 3..].trim_start();
            let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            if rest[end..].trim_start().starts_with(';') {
                queue.push(format!("{folder}/{}.rs", &rest[..end]));
                queue.push(format!("{folder}/{}/mod.rs", &rest[..end]));
            }
        }
    }
    let dead = files.iter().filter(|file| !alive.contains(&file.path));
    dead.map(|file| format!("{}: no mod line leads here", file.path)).collect()
}

/// Texts that hold one of these strings.
pub fn forbidden(files: &[&File], strings: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for string in strings {
            let found = file.text.find(string);
            broken.extend(
                found.map(|at| format!("{}:{}: '{string}'", file.path, line_of(&file.text, at))),
            );
        }
    }
    broken
}

/// Lock files that say where a package was fetched from, other than crates.io's own index.
pub fn locks(files: &[&File]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("package-lock.json")) {
        let found = file.text.find("\"resolved\"");
        broken.extend(found.map(|at| format!("{}:{}", file.path, line_of(&file.text, at))));
    }
    let index = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    for file in files.iter().filter(|file| file.path.ends_with("Cargo.lock")) {
        let mut sources = file.text.lines().filter(|line| line.starts_with("source = "));
        broken
            .extend(sources.find(|&line| line != index).map(|line| format!("{line} (Cargo.lock)")));
    }
    broken
}

/// Exceptions whose file no longer breaks the rule.
pub fn stale(
    files: &[&File],
    exceptions: &[Exception],
    breaks: impl Fn(&File) -> bool,
) -> Vec<String> {
    let kept = |path: &str| files.iter().any(|file| file.path == path && !breaks(file));
    let stale = exceptions.iter().filter(|(path, _)| kept(path));
    stale.map(|(path, reason)| format!("{path} ({reason})")).collect()
}

fn is_excepted(file: &File, exceptions: &[Exception]) -> bool {
    exceptions.iter().any(|(path, _)| *path == file.path)
}

/// Where a word stands by itself, not inside a longer name.
fn occurrences<'t>(code: &'t str, word: &'t str) -> impl Iterator<Item = usize> + 't {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}
