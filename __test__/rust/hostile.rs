//! Hostile chat templates: each in a process of its own, which must neither die nor take more than
//! a second or 64 MiB; and random ones, which must never panic. The first 55 are the corpus of
//! `oracles/malformed`, with the answers that it wants; the others (`own_*`) are more of each kind.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use node_chord::error::Code;
use node_chord::template::{Clock, Template};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::template::lines;

/// Processor time and memory that a template may take.
const SECONDS_MAX: f64 = 1.0;
const KIB_MAX: u64 = 64 << 10;

#[test]
fn hostile_templates_end_as_wanted_in_time_and_memory() {
    let cases = lines("hostile");
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(problem) = check(case) {
            wrong.push(format!("{}: {problem}", case["name"]));
        }
    }
    assert!(cases.len() > 150);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check(case: &Value) -> Result<(), String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["hostile::child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let source = case["template"].as_str().unwrap();
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let Some(report) = text.lines().find_map(|line| line.split_once("REPORT ").map(|l| l.1)) else {
        return Err(format!("died: {} {}", out.status, String::from_utf8_lossy(&out.stderr)));
    };
    let report: Value = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let (seconds, kib) = (report["seconds"].as_f64().unwrap(), report["kib"].as_u64().unwrap());
    if seconds > SECONDS_MAX || kib > KIB_MAX {
        return Err(format!("{seconds:.2} s, {kib} KiB"));
    }
    if report["message"] == "template: the template engine failed" {
        return Err("a panic".to_owned());
    }
    let accepted = report["message"].is_null();
    let wanted = match case["expect"].as_str() {
        Some("accept") => accepted,
        Some("reject") => !accepted || case["also"] == "accept",
        _ => true,
    };
    let renders = case.get("renders").filter(|text| accepted && !text.is_null());
    if !wanted || renders.is_some_and(|text| *text != report["text"]) {
        return Err(format!("ends as {report}"));
    }
    Ok(())
}

/// What the test above starts: renders the template on standard input and reports.
#[test]
#[ignore = "started by hostile_templates_end_as_wanted_in_time_and_memory"]
fn child() {
    let mut source = String::new();
    std::io::stdin().read_to_string(&mut source).unwrap();
    let vars =
        json!({"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true});
    let vars = vars.as_object().unwrap();
    let (kib, seconds) = (peak_kib(), processor_seconds());
    let got = Template::compile(&source).and_then(|t| t.render(vars, Clock::default()));
    let (kib, seconds) = (peak_kib() - kib, processor_seconds() - seconds);
    let text = got.as_ref().ok().map(|text| text.chars().take(100).collect::<String>());
    if let Err(error) = &got {
        assert_eq!(error.code, Code::Template);
        assert!(error.message.chars().count() < 300);
    }
    let message = got.err().map(|error| error.message);
    let report = json!({"kib": kib, "seconds": seconds, "text": text, "message": message});
    println!("\nREPORT {report}");
}

/// Peak memory of this process, 0 where /proc is missing.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

/// Processor time of all threads, ended ones too; 0 where /proc is missing.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks =
        |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// What templates are made of.
const SCRAPS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-",
    "+",
    " ",
    "\n",
    "a",
    "messages",
    "1",
    "1.5",
    "'x'",
    "\"",
    "'",
    "\\",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    ".",
    "|",
    "~",
    "*",
    "**",
    "/",
    "//",
    "%",
    "=",
    "==",
    "<",
    "!=",
    " in ",
    " not ",
    " and ",
    " or ",
    " if ",
    " else ",
    " is ",
    "defined",
    "none",
    "true",
    "length",
    "tojson",
    "{% for x in messages %}",
    "{% endfor %}",
    "{% if a %}",
    "{% elif b %}",
    "{% else %}",
    "{% endif %}",
    "{% set a = ",
    "{% set a %}",
    "{% endset %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(1) }}",
    "namespace(a=1)",
    "loop.index",
    "range(3)",
    "[::-1]",
    ".items()",
    "|join(',')",
    "|indent(2)",
    "\u{0}",
    "é",
    "9223372036854775807",
    "0x",
    "{% raw %}",
    "{% endraw %}",
    "{% generation %}",
    "|sort",
    "|map('upper')",
    "{{ messages[0].content }}",
    "{{ 'a' ~ 1 }}",
    "%s",
    "|format(1)",
    ".split('')",
    "|batch(2)",
    "|slice(3)",
];

/// Scraps in any order.
fn scraps() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(SCRAPS), 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_templates_end_as_text_or_as_an_error(source in prop_oneof![scraps(), ".{0,60}"]) {
        let vars = json!({"messages": [{"role": "user", "content": "Hi"}], "a": [1, 2]});
        let vars = vars.as_object().unwrap();
        let got = Template::compile(&source).and_then(|t| t.render(vars, Clock::default()));
        if let Err(error) = got {
            prop_assert_eq!(error.code, Code::Template);
            prop_assert!(!error.message.contains("the template engine failed"), "{}", source);
        }
    }
}
