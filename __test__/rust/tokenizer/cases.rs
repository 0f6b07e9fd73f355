//! Every case of every vocabulary: ids, the text back, the table of pieces, what ends generation.

use node_chord::tokenizer::Tokenizer;
use serde_json::Value;

use super::{data, sha256};

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap().iter();
    list.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Runs the cases of one vocabulary and returns what went wrong.
fn wrong_cases(name: &str, tokenizer: &Tokenizer) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in data::lines(&format!("{name}.jsonl")).unwrap() {
        let flag = |key: &str| case[key].as_bool().unwrap();
        let Some(text) = case["text"].as_str() else {
            let bytes = data::base64(case["text_b64"].as_str().unwrap());
            let lossy = String::from_utf8_lossy(&bytes);
            let _ = tokenizer.encode(&lossy, flag("add_special"), flag("parse_special"));
            continue;
        };
        let got = tokenizer.encode(text, flag("add_special"), flag("parse_special"));
        let want = ids(&case["ids"]);
        if got != want {
            wrong.push(format!(
                "{name} {}: {text:?}\n  got  {got:?}\n  want {want:?}",
                case["kind"]
            ));
        }
        let want = match (case["detok"].as_str(), case["detok_b64"].as_str()) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(bytes)) => data::base64(bytes),
            (None, None) => text.as_bytes().to_vec(),
        };
        let got = tokenizer.decode(&ids(&case["ids"]), true);
        if got != want {
            let got = String::from_utf8_lossy(&got);
            wrong.push(format!("{name} text of {}: {text:?}, got {got:?}", case["ids"]));
        }
    }
    wrong
}

fn pieces_hash(tokenizer: &Tokenizer, special: bool) -> String {
    let mut all = Vec::new();
    for id in 0..u32::try_from(tokenizer.n_vocab()).unwrap() {
        let piece = tokenizer.piece(id, special);
        all.extend(u32::try_from(piece.len()).unwrap().to_le_bytes());
        all.extend_from_slice(piece);
    }
    sha256::hex(&all)
}

/// Compares the facts of `vocabs.json`.
fn wrong_facts(name: &str, tokenizer: &Tokenizer) -> Vec<String> {
    let facts: Value = serde_json::from_slice(&data::read("vocabs.json").unwrap()).unwrap();
    let facts = &facts[name];
    let special = |key: &str| facts["special"][key].as_u64();
    let mut wrong = Vec::new();
    let mut check = |what: &str, good: bool| {
        if !good {
            wrong.push(format!("{name}: {what}"));
        }
    };
    check("number of tokens", facts["n_tokens"] == tokenizer.n_vocab());
    check("model", facts["model"] == tokenizer.kind());
    check("pre", facts["pre"].as_str() == tokenizer.pre());
    check("bos", special("bos") == tokenizer.bos().map(u64::from));
    check("eos", special("eos") == tokenizer.eos().map(u64::from));
    check("add_bos", facts["add_bos"] == tokenizer.add_bos());
    check(&format!("eog {:?}", tokenizer.eog()), ids(&facts["eog"]) == tokenizer.eog());
    // It has tokens that are not of GPT-2's alphabet: llama.cpp prints "[UNK_BYTE_0x..]" for them,
    // we and Hugging Face what they say.
    if name != "command-r" {
        check("special pieces", facts["pieces_sha256_special"] == pieces_hash(tokenizer, true));
        check("plain pieces", facts["pieces_sha256_plain"] == pieces_hash(tokenizer, false));
    }
    wrong
}

fn check(names: &[&str]) {
    let mut wrong = Vec::new();
    for name in names {
        let Some(tokenizer) = data::tokenizer(name) else { return };
        wrong.extend(wrong_facts(name, &tokenizer));
        wrong.extend(wrong_cases(name, &tokenizer));
    }
    let shown: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n"));
}

#[test]
fn our_vocabularies_give_the_wanted_ids_and_texts() {
    check(&data::OURS);
}

#[test]
fn other_vocabularies_of_these_kinds_too() {
    check(&data::SHARED);
}

/// Giant words, and giant texts of all kinds of words, come back whole.
#[test]
fn giant_texts_come_back_from_their_tokens() {
    let size = 1_000_000;
    let units = ["a", " ", "\n", "漢", "ab", "the quick brown fox ", "é1 !\n", "</s>", "\u{301}"];
    let texts: Vec<String> = units.iter().map(|unit| unit.repeat(size / unit.len())).collect();
    for name in data::OURS {
        let tokenizer = data::tokenizer(name).unwrap();
        for text in &texts {
            let tokens = tokenizer.encode(text, false, false);
            let back = tokenizer.decode(&tokens, true);
            let back = back.strip_prefix(b" ").filter(|_| back.len() > text.len()).unwrap_or(&back);
            assert!(back == text.as_bytes(), "{name}: {:?}", &text[..12]);
            assert!(tokens.len() <= text.len() + 2, "{name}");
        }
    }
}
