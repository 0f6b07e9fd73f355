//! Broken vocabularies: refused by the right code, and never more than refused.

use node_chord::gguf;
use node_chord::tokenizer::Tokenizer;

use super::data;

#[test]
fn broken_vocabularies_are_refused_by_code() {
    let Some(folder) = data::shared("malformed") else { return };
    let mut wrong = Vec::new();
    let mut refused = 0;
    for line in std::fs::read_to_string(folder.join("cases.jsonl")).unwrap().lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["file"].as_str().unwrap();
        let Ok(file) = gguf::File::open(&folder.join(name)) else { continue };
        let code = Tokenizer::from_meta(file.meta()).map(|tokenizer| {
            let _ = tokenizer.encode("hello the ab.", true, true);
        });
        let code = code.map_err(|error| error.code.as_str()).err();
        let ours = case["code"] == "ERR_TOKENIZER_INVALID" && case["also"] != "accept";
        refused += usize::from(ours && code.is_some());
        let accept = case["expect"] == "accept" && code.is_some();
        if accept || (ours && code != Some("ERR_TOKENIZER_INVALID")) {
            wrong.push(format!("{name}: {code:?}, wanted {}: {}", case["code"], case["about"]));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(refused > 40, "only {refused} cases");
}

/// Whole models: what they hold loads and gives text back, or its kind is named as not built yet.
#[test]
fn the_tokenizers_of_whole_models_load() {
    let Some(folder) = data::shared("../models") else { return };
    let lists = [folder.clone(), folder.join("random")].map(std::fs::read_dir);
    let mut loaded = 0;
    for entry in lists.into_iter().flatten().flatten() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "gguf") {
            continue;
        }
        let file = gguf::File::open(&path).unwrap();
        match Tokenizer::from_meta(file.meta()) {
            Ok(tokenizer) => {
                let tokens = tokenizer.encode("the cat sat", false, true);
                let text = tokenizer.decode(&tokens, true);
                let text = String::from_utf8_lossy(&text).into_owned();
                assert_eq!(text.trim_start(), "the cat sat", "{}", path.display());
                loaded += 1;
            }
            Err(error) => {
                println!("{error}");
                assert_eq!(error.code.as_str(), "ERR_UNSUPPORTED", "{}: {error}", path.display());
            }
        }
    }
    assert!(loaded > 5, "only {loaded}");
}
