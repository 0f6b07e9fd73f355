//! Chat templates against what Python rendered, and hostile ones against their bounds.

use std::collections::HashMap;
use std::io::Read as _;

use node_chord::error::{Code, Error, Field};
use node_chord::template::{Clock, Input, Template, context};
use serde_json::{Map, Value, json};

/// 2026-03-05 14:07:09, a Thursday: the clock of the oracle.
const NOW: Clock = Clock {
    year: 2026,
    month: 3,
    day: 5,
    hour: 14,
    minute: 7,
    second: 9,
    weekday: 4,
    day_of_year: 64,
};

/// The lines of a file of test data.
pub fn lines(name: &str) -> Vec<Value> {
    let path = format!("{}/__test__/data/chat/{name}.jsonl.zst", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(file).unwrap().read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["kind"] == kind).collect()
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn reason(error: &Error) -> &str {
    let reason = error.fields.iter().find(|(name, _)| *name == "reason");
    match reason {
        Some((_, Field::Text(text))) => text,
        _ => panic!("no reason in {error:?}"),
    }
}

#[test]
fn chat_cases_render_as_in_python() {
    let lines = lines("cases");
    let templates: HashMap<&str, Result<Template, _>> = of_kind(&lines, "template")
        .into_iter()
        .map(|line| {
            (line["name"].as_str().unwrap(), Template::compile(line["source"].as_str().unwrap()))
        })
        .collect();
    let contexts: HashMap<&str, &Value> = of_kind(&lines, "context")
        .into_iter()
        .map(|line| (line["name"].as_str().unwrap(), &line["vars"]))
        .collect();
    let cases = of_kind(&lines, "case");
    let mut wrong = Vec::new();
    for case in &cases {
        let (name, context) =
            (case["template"].as_str().unwrap(), case["context"].as_str().unwrap());
        let mut vars = object(contexts[context]);
        for (key, value) in case["extra_vars"].as_object().into_iter().flatten() {
            vars.insert(key.clone(), value.clone());
        }
        let got = templates[name].clone().and_then(|template| template.render(&vars, NOW));
        if let Err(problem) = judge(&got, case) {
            wrong.push(format!("{name} / {context}: {problem}"));
        }
    }
    assert_eq!(cases.len(), 3695);
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The meter's limits are for hostile templates: a long chat must pass them in every real one.
#[test]
fn long_chats_stay_within_limits() {
    let words = "Some words of a message, some of them in ünïcode. ".repeat(8);
    let mut messages = vec![json!({"role": "system", "content": "Be brief."})];
    for turn in 0..300 {
        let answer = format!("<think>\nhm\n</think>\n\n{turn} {words}");
        messages.push(json!({"role": "user", "content": words}));
        messages.push(json!({"role": "assistant", "content": answer, "reasoning_content": "hm"}));
    }
    messages.push(json!({"role": "user", "content": words}));
    let input = Input { messages, add_generation_prompt: true, ..Input::default() };
    let vars = context(Input { bos_token: Some("<s>".to_owned()), ..input }).unwrap();
    let limits = ["too much work", "too long", "exceed", "more than", "deep"];
    let lines = lines("cases");
    let mut rendered = 0;
    for line in of_kind(&lines, "template") {
        match Template::compile(line["source"].as_str().unwrap()).unwrap().render(&vars, NOW) {
            Ok(_) => rendered += 1,
            Err(error) => {
                let refused = limits.iter().any(|limit| error.message.contains(limit));
                assert!(!refused, "{}: {}", line["name"], error.message);
            }
        }
    }
    // The others refuse the system role or want content in parts.
    assert!(rendered > 80, "{rendered}");
}

fn judge(got: &Result<String, Error>, case: &Value) -> Result<(), String> {
    let expected = &case["expected"];
    match (got, expected["text"].as_str()) {
        (Ok(got), Some(want)) if got == want => Ok(()),
        // Python's Markup escapes by accident here; the text without that is preferred.
        (Ok(got), Some(_)) if case["without_markup"]["text"] == got.as_str() => Ok(()),
        (Ok(got), Some(want)) => {
            Err(format!("{:?}\n  want {:?}", near(got, want), near(want, got)))
        }
        (Err(got), Some(_)) => Err(format!("fails: {}", got.message)),
        (Ok(_), None) => Err(format!("no error, want {}", expected["error"])),
        (Err(got), None) if got.code != Code::Template => Err(format!("wrong code: {got}")),
        (Err(got), None) => {
            let (kind, message) = (&expected["error"]["kind"], &expected["error"]["message"]);
            if kind != "raised" || *message == reason(got) {
                return Ok(());
            }
            Err(format!("raised {:?}, want {message}", reason(got)))
        }
    }
}

/// The first difference of two texts, with what stands before it.
fn near(text: &str, other: &str) -> String {
    let same = text.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    text.chars().skip(same.saturating_sub(30)).take(90).collect()
}

#[test]
fn callers_messages_become_what_transformers_renders() {
    let lines = lines("cases");
    let known =
        ["messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"];
    let mut checked = 0;
    for line in of_kind(&lines, "context") {
        let vars = object(&line["vars"]);
        let messages = line.get("raw_messages").unwrap_or(&vars["messages"]);
        let array = |name: &str| vars[name].as_array().cloned();
        let text = |name: &str| vars.get(name).and_then(Value::as_str).map(str::to_owned);
        let extra = vars.iter().filter(|(name, _)| !known.contains(&name.as_str()));
        let built = context(Input {
            messages: messages.as_array().unwrap().clone(),
            tools: array("tools"),
            documents: array("documents"),
            add_generation_prompt: vars["add_generation_prompt"] == true,
            bos_token: text("bos_token"),
            eos_token: text("eos_token"),
            extra: extra.map(|(name, value)| (name.clone(), value.clone())).collect(),
        })
        .unwrap();
        // As text: templates that dump a message depend on the order of its keys.
        assert_eq!(built["messages"].to_string(), vars["messages"].to_string(), "{}", line["name"]);
        assert_eq!(built, vars, "{}", line["name"]);
        checked += 1;
    }
    assert_eq!(checked, 41);
}

#[test]
fn contexts_that_transformers_refuses_are_refused() {
    let none = context(Input::default()).unwrap_err();
    assert_eq!(none.code, Code::InvalidArg);
    let text = context(Input { messages: vec![json!({}), json!("hi")], ..Input::default() });
    assert!(text.unwrap_err().message.contains("messages[1]: expected an object, got a string"));
}

fn render(source: &str, vars: Value) -> Result<String, Error> {
    Template::compile(source)?.render(&object(&vars), NOW)
}

#[test]
fn errors_name_line_and_reason() {
    let cases = [
        ("a\n{{ foo(1) }}", "template line 2: unknown function: foo is unknown"),
        ("a\n\n{{ foo + 'x' }}", "template line 3: 'foo' is undefined"),
        ("{{ foo.bar }}", "template line 1: 'foo' is undefined"),
        ("{#\n#}{{ m.a.b }}", "template line 2: 'm' or 'm.a' is undefined"),
        ("{% if x %}\n", "template line 1: syntax error: 'if' is not closed"),
        ("{{ m\n+ 1 }}", "template line 2: unsupported operand types for +: 'dict' and 'int'"),
        ("\n{{ raise_exception('no\\n\\u0007') }}", "template line 2: no\\n\\u{7}"),
    ];
    for (source, want) in cases {
        let error = render(source, json!({"m": {}})).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (Code::Template, want), "{source}");
    }
    assert_eq!(reason(&render("{{ raise_exception('a\\n') }}", json!({})).unwrap_err()), "a\n");
}

#[test]
fn additions_to_minijinja_do_as_jinja2_does() {
    let vars = json!({"f": [1.0, 1e20, 1e-7], "l": [{"k": "it's"}, null, true], "s": "a\n\nb\n"});
    let cases = [
        ("{{ l|tojson }}", r#"[{"k": "it's"}, null, true]"#),
        ("{{ l[1:]|tojson(indent=1, sort_keys=true) }}", "[\n null,\n true\n]"),
        ("{{ {'é<': []}|tojson(ensure_ascii=true, separators=(',', ':')) }}", r#"{"\u00e9<":[]}"#),
        ("{{ f }}{{ f|tojson }}", "[1.0, 1e+20, 1e-07][1.0, 1e+20, 1e-07]"),
        ("{{ l }}", "[{'k': \"it's\"}, None, True]"),
        ("{{ l|string }}{{ '' ~ f }}", "[{'k': \"it's\"}, None, True][1.0, 1e+20, 1e-07]"),
        ("{%- generation -%} x {%- endgeneration -%} y", "xy"),
        ("{{ 'a,b'.split(',')[1].upper() }}{{ {'a': 1}.items()|list }}", "B[('a', 1)]"),
        ("{{ none is iterable }}{{ u is iterable }}{{ u|length }}", "FalseTrue0"),
        ("{{ s|indent(2) }}|{{ s|indent(1, true, true) }}", "a\n\n  b\n| a\n \n b\n "),
        ("{{ '{\\n'|indent(4, first=true) }}", "    {\n"),
        ("a\r\n{% if true %}\r\nb\r{% endif %}\r\n", "a\nb\n"),
        ("{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ 2 ** 3 }}{{ 1 + true }}", "-423.582"),
        ("{{ [1, 2, 3][::-1] }}{{ 'abc'[-2:] }}{{ (1, 2)[1:] }}", "[3, 2, 1]bc(2,)"),
        ("{{ 'x' * 3 }}{{ [0] * 2 }}{{ [f] + [1] }}", "xxx[0, 0][[1.0, 1e+20, 1e-07], 1]"),
        ("{{ '%s-%d' % ('a', 3) }}{{ '{0}{b}'.format(1, b=2) }}", "a-312"),
        ("{{ 1 < 2 < 3 }}{{ 't' in l[0].k }}{{ 2 not in [1] }}", "TrueTrueTrue"),
        ("{{ strftime_now('%d %b %Y') }}", "05 Mar 2026"),
        (
            "{% set n = namespace(a=1) %}{% for x in l %}{% set n.a=n.a+1 %}{% endfor %}{{ n.a }}",
            "4",
        ),
        ("{% macro m(a, b='z') %}[{{ a }}{{ b }}]{% endmacro %}{{ m(1) ~ m(2, b=3) }}", "[1z][23]"),
        ("{% for a, b in {'x': 1}.items() if b %}{{ a }}{{ loop.last }}{% endfor %}", "xTrue"),
        ("{{ [3, 1]|sort(reverse=true) }}{{ [1, 1]|unique|list }}{{ [1, 2]|sum }}", "[3, 1][1]3"),
        ("{% set x %} {{ s|trim|replace('\\n', '') }}{% endset %}{{ x|upper }}", " AB"),
    ];
    for (source, want) in cases {
        assert_eq!(render(source, vars.clone()).as_deref(), Ok(want), "{source}");
    }
}
