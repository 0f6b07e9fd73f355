//! The table of pre-tokenizers against its oracle, and against giant inputs.

use std::collections::BTreeSet;

use node_chord::tokenizer::{Pre, pre_names};
use serde_json::Value;

use super::data;

#[test]
fn the_table_has_exactly_the_known_names() {
    let table: Value = serde_json::from_slice(&data::read("pre.json").unwrap()).unwrap();
    let want: BTreeSet<&str> = table.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(pre_names().collect::<BTreeSet<_>>(), want);
    assert_eq!(pre_names().count(), want.len());
}

#[test]
fn every_pattern_list_cuts_as_hugging_face_does() {
    let mut texts = Vec::new();
    let mut wrong = Vec::new();
    let mut lists = 0;
    for line in data::lines("split.jsonl").unwrap() {
        if let Some(text) = line["text"].as_str() {
            texts.push(text.to_owned());
            continue;
        }
        lists += 1;
        for name in line["pre"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            let pre = named(name);
            for case in line["cases"].as_array().unwrap() {
                let text = &texts[usize::try_from(case[0].as_u64().unwrap()).unwrap()];
                let want = case.get(2).unwrap_or(&case[1]);
                let got = lengths(&pre, text);
                if serde_json::json!(got) != *want {
                    wrong.push(format!("{name}: {text:?}\n  got  {got:?}\n  want {want}"));
                }
            }
        }
    }
    assert_eq!(lists, 31);
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}

/// One giant run of anything must neither crash nor take more than linear time.
#[test]
fn giant_runs_are_cut_by_every_pattern_list() {
    let run = |unit: &str, size: usize| unit.repeat(size / unit.len());
    let mut texts: Vec<String> = ["a", " "].iter().map(|unit| run(unit, 1 << 20)).collect();
    let units = [
        "A", "aB", "\n", " \n", "1", "!", "é", "漢", "e\u{301}", "\0", "a ", "  a", "'", "'s",
        "한 ", "12a", "IMG", "\u{301}", "\t\t.",
    ];
    texts.extend(["x", "\n", "'", "1"].iter().map(|end| run(" ", 1 << 20) + end));
    texts.extend(units.iter().map(|unit| run(unit, 1 << 17)));
    // Names of one line of the oracle share their patterns.
    let lines = data::lines("split.jsonl").unwrap();
    for name in lines.iter().filter_map(|line| line["pre"][0].as_str()) {
        let pre = named(name);
        for text in &texts {
            assert_eq!(lengths(&pre, text).iter().sum::<usize>(), text.len(), "{name}");
        }
    }
}

fn named(name: &str) -> Pre {
    Pre::named(name).expect("sound patterns").expect("a name of the table")
}

/// Bytes of each piece.
fn lengths(pre: &Pre, text: &str) -> Vec<usize> {
    let mut lengths = Vec::new();
    pre.split(text, &mut |piece| lengths.push(piece.len()));
    lengths
}
