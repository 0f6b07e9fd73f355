//! Every rule can fail: each is shown a small text that breaks it, and one that does not.

use super::rules::{self, Part};
use super::source::{File, blank};

const PARTS: &[Part] = &[
    Part { name: "error", uses: &[] },
    Part { name: "plan", uses: &["quant"] },
    Part { name: "quant", uses: &[] },
];

fn imports(path: &str, text: &str) -> usize {
    rules::imports(&[&File::sample(path, text)], PARTS).len()
}

#[test]
fn blanking_leaves_code_and_lines_alone() {
    let cases = [
        ("a // b\nc", "a     \nc"),
        ("/* a /* b */ c */d", "                 d"),
        (r#"f("x{", '{', 'a)"#, "f(    ,    , 'a)"),
        ("r#\"a\"b\"# c", "         c"),
        (r#""\"" d"#, "     d"),
        (r"'\'' e", "     e"),
        ("for_r\"x\"", "for_r   "),
    ];
    for (text, expected) in cases {
        assert_eq!(blank(text).trim_end(), expected.trim_end(), "{text}");
    }
}

#[test]
fn a_foreign_import_is_found() {
    assert_eq!(imports("src/plan/mod.rs", "use crate::quant::TensorType;"), 0);
    assert_eq!(imports("src/plan/mod.rs", "use crate::error::Result; use crate::plan::x;"), 0);
    assert_eq!(imports("src/quant/mod.rs", "use crate::plan::Plan;"), 1);
    assert_eq!(imports("src/quant/mod.rs", "fn f() -> crate::plan::Plan {}"), 1);
    assert_eq!(
        imports("src/plan/mod.rs", "use crate::{error::{a, b}, quant::c, node, load::d};"),
        2
    );
    assert_eq!(imports("src/quant/k.rs", "// crate::plan\nconst A: &str = \"crate::plan\";"), 0);
    assert_eq!(imports("src/quant/k.rs", "pub(crate) fn a() {}"), 0);
}

#[test]
fn a_way_around_by_super_is_found() {
    assert_eq!(imports("src/quant/k.rs", "use super::block::Block;"), 0);
    assert_eq!(imports("src/quant/k.rs", "use super::super::plan::Plan;"), 1);
    assert_eq!(imports("src/quant/mod.rs", "use super::plan::Plan;"), 1);
    assert_eq!(imports("src/quant/mod.rs", "mod tests { use super::*; use super::table; }"), 0);
}

#[test]
fn a_part_outside_the_table_is_found() {
    assert_eq!(imports("src/helpers.rs", ""), 1);
}

#[test]
fn a_crate_away_from_home_is_found() {
    let homes: &[(&str, &[&str])] = &[("tokio", &["src/node", "src/engine/queue.rs"])];
    let check = |path, text| rules::homes(&[&File::sample(path, text)], homes).len();
    assert_eq!(check("src/engine/mod.rs", "use tokio::sync::Notify;"), 1);
    assert_eq!(check("src/engine/mod.rs", "use tokio;"), 1);
    assert_eq!(check("src/engine/mod.rs", "let a = tokio::spawn(b);"), 1);
    assert_eq!(check("src/engine/mod.rs", "// tokio::spawn\nlet tokio = 1;"), 0);
    assert_eq!(check("src/engine/mod.rs", "use crate::tokio_like::a;"), 0);
    assert_eq!(check("src/engine/queue.rs", "use tokio::sync::Notify;"), 0);
    assert_eq!(check("src/node/model.rs", "use tokio::sync::Notify;"), 0);
}

#[test]
fn a_script_that_reaches_past_the_surface_is_found() {
    let check = |text| {
        let file = File::sample("src/js/cli/run.ts", text);
        rules::scripts(&[&file], |path| path == "../index.js", &[]).len()
    };
    assert_eq!(check("import { a } from '../index.js';\nimport b from 'node:fs';"), 0);
    assert_eq!(check("import { a } from '../model.js';"), 1);
    assert_eq!(check("const { a } = await import('../native.js');"), 1);
}

#[test]
fn a_page_that_tells_other_imports_is_found() {
    let page = "| `plan` | data | `quant` (types) |\n| `quant` | types | nothing |\n";
    assert_eq!(rules::told(page, PARTS), ["no row for error"]);
    let page = "| `error` | codes | nothing |\n| `plan` | data | all of these |\n";
    let other = format!("{page}| `quant` | types | `plan` |\n");
    assert_eq!(rules::told(&other, PARTS).len(), 1);
}

#[test]
fn a_forbidden_word_is_found() {
    let check = |path, text| rules::words(&[&File::sample(path, text)], "unsafe", &["src/io"]);
    assert_eq!(check("src/load.rs", "let a = unsafe { b() };").len(), 1);
    assert_eq!(check("src/load.rs", "#![deny(unsafe_code)] // unsafe").len(), 0);
    assert_eq!(check("src/io/mmap.rs", "unsafe { b() }").len(), 0);
    assert_eq!(check("src/io.rs", "unsafe { b() }").len(), 0);
    assert_eq!(check("src/iota.rs", "unsafe { b() }").len(), 1);
}

#[test]
fn sizes_are_counted() {
    let file = File::sample("src/a.rs", "fn a() {\n    b();\n\n    // why\n    c();\n}\n");
    assert_eq!(rules::file_lines(&[&file], 6, &[]).len(), 0);
    assert_eq!(rules::file_lines(&[&file], 5, &[]).len(), 1);
    assert_eq!(rules::file_lines(&[&file], 5, &[("src/a.rs", "data")]).len(), 0);
    assert_eq!(rules::columns(&[&file], 10, &[]).len(), 0);
    assert_eq!(rules::columns(&[&file], 9, &[]).len(), 1);
    assert_eq!(rules::function_lines(&[&file], 2, &[]).len(), 0);
    assert_eq!(rules::function_lines(&[&file], 1, &[]).len(), 1);
    let types = File::sample("src/a.rs", "type A = fn(u32) -> u32;\ntrait B { fn c(&self); }");
    assert_eq!(rules::function_lines(&[&types], 0, &[]).len(), 0);
}

#[test]
fn a_missing_or_long_head_is_found() {
    let check =
        |path: &str, text: &str| rules::heads(&[&File::sample(path, text)], &["src/quant"]).len();
    assert_eq!(check("src/a.rs", "//! What it is.\n\nuse b;\n"), 0);
    assert_eq!(check("src/a.rs", "use b;\n"), 1);
    assert_eq!(check("src/a.rs", &"//! too long\n".repeat(6)), 1);
    assert_eq!(check("src/quant/a.rs", &"//! a layout\n".repeat(6)), 0);
    assert_eq!(check("src/js/a.ts", "// What it is.\n"), 0);
    assert_eq!(check("src/js/a.ts", "#!/usr/bin/env node\n// What it is.\n"), 0);
    assert_eq!(check("src/js/a.ts", "import b from 'b';\n"), 1);
}

#[test]
fn a_file_without_a_mod_line_is_found() {
    let files = [
        File::sample("src/lib.rs", "pub mod a;\n// mod c;\n"),
        File::sample("src/a/mod.rs", "mod b;\n#[cfg(test)]\nmod tests { }\n"),
        File::sample("src/a/b.rs", "mod deep;\n"),
        File::sample("src/a/b/deep.rs", ""),
        File::sample("src/c.rs", ""),
    ];
    let dead = rules::dead_files(&files.iter().collect::<Vec<_>>(), "src/lib.rs");
    assert_eq!(dead, ["src/c.rs: no mod line leads here"]);
}

#[test]
fn a_machine_and_a_mirror_are_found() {
    let check = |path, text| {
        let file = File::sample(path, text);
        rules::forbidden(&[&file], &["/somewhere/"]).len() + rules::locks(&[&file]).len()
    };
    assert_eq!(check("a.md", "see /somewhere/b"), 1);
    assert_eq!(check("package-lock.json", "{ \"resolved\": \"https://mirror/a.tgz\" }"), 1);
    assert_eq!(check("package-lock.json", "{ \"integrity\": \"sha512-\" }"), 0);
    assert_eq!(check("Cargo.lock", "source = \"registry+https://mirror\"\n"), 1);
}

#[test]
fn an_exception_that_nothing_needs_is_found() {
    let file = File::sample("src/a.rs", "");
    let check = |breaks| rules::stale(&[&file], &[("src/a.rs", "data")], |_| breaks).len();
    assert_eq!(check(true), 0);
    assert_eq!(check(false), 1);
}
