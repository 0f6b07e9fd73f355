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
