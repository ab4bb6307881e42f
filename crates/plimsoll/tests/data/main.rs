//! Samples from files: shapes, scored positions, limits, and lines that are refused.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod answers;
mod templates;
mod tokenizer;

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::data::{DataOptions, Ending, LongSamples, TemplateChoice, TemplateUse, TokenizedDataset, Turns, load};
use plimsoll::formats::Gguf;
use plimsoll::tokenizer::{Special, Tokenizer};
use proptest::prelude::*;

const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn given(source: &str) -> TemplateChoice {
    TemplateChoice::Given { file: "template.jinja".into(), source: source.to_owned() }
}

fn chat() -> DataOptions {
    DataOptions {
        template: given(TEMPLATE),
        turns: Turns::Last,
        max_samples: None,
        seed: 0,
        max_length: 4096,
        long: LongSamples::Skip,
    }
}

fn plain() -> DataOptions {
    DataOptions { template: TemplateChoice::None, ..chat() }
}

fn file(bytes: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.jsonl");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn loaded(text: impl AsRef<[u8]>, options: &DataOptions) -> TokenizedDataset {
    let (_guard, path) = file(text);
    load(&path, &tokenizer("tokenizer_byte_level"), options).unwrap()
}

fn refused(text: impl AsRef<[u8]>, options: &DataOptions) -> String {
    let (_guard, path) = file(text);
    let error = load(&path, &tokenizer("tokenizer_byte_level"), options).unwrap_err().to_string();
    assert!(error.contains("valid.jsonl"), "{error}");
    error
}

/// The text of a sample with its answers in brackets.
fn marked(dataset: &TokenizedDataset, index: usize) -> String {
    let tokenizer = tokenizer("tokenizer_byte_level");
    let sample = &dataset.samples[index];
    let mut text = String::new();
    let mut inside = false;
    for position in 0..=sample.tokens.len() {
        let answer = sample.answer.contains(&position);
        if answer != inside {
            text.push(if answer { '[' } else { ']' });
            inside = answer;
        }
        if let Some(&token) = sample.tokens.get(position) {
            text.push_str(&tokenizer.decode(&[token]).unwrap());
        }
    }
    text
}

#[test]
fn every_shape_becomes_the_same_chat() {
    let lines = [
        r#"{"messages": [{"role": "user", "content": "How\n\ndeep?"}, {"role": "assistant", "content": "Nine."}]}"#,
        r#"{"conversations": [{"from": "human", "value": "How\n\ndeep?"}, {"from": "gpt", "value": "Nine."}]}"#,
        r#"{"prompt": "How\n\ndeep?", "completion": "Nine."}"#,
        r#"{"instruction": "How", "input": "deep?", "output": "Nine.", "text": "a ready-made text"}"#,
        r#"{"instruction": "How\n\ndeep?", "input": "", "output": "Nine."}"#,
        r#"{"instruction": "How\n\ndeep?", "output": "Nine."}"#,
    ];
    let dataset = loaded(lines.join("\n"), &chat());
    assert_eq!(dataset.samples.len(), lines.len());
    assert_eq!(dataset.template, TemplateUse::Given);
    for (index, sample) in dataset.samples.iter().enumerate() {
        assert_eq!(sample.line, index + 1);
        let expected = "<|im_start|>user\nHow\n\ndeep?<|im_end|>\n<|im_start|>assistant\n[Nine.<|im_end|>]";
        assert_eq!(marked(&dataset, index), expected);
        assert_eq!(sample.tokens, dataset.samples[0].tokens);
    }
}

#[test]
fn the_last_message_or_each_is_scored() {
    let line = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}]}"#;
    let line = line.replace("\n        ", " ");
    let turn = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}");
    let start = turn("system", "s<|im_end|>\n") + &turn("user", "a<|im_end|>\n");
    let last = start.clone()
        + &turn("assistant", "b<|im_end|>\n")
        + &turn("user", "c<|im_end|>\n")
        + &turn("assistant", "[d<|im_end|>]");
    assert_eq!(marked(&loaded(&line, &chat()), 0), last);
    let all = start
        + &turn("assistant", "[b<|im_end|>]\n")
        + &turn("user", "c<|im_end|>\n")
        + &turn("assistant", "[d<|im_end|>]");
    assert_eq!(marked(&loaded(&line, &DataOptions { turns: Turns::All, ..chat() }), 0), all);
}

#[test]
fn without_a_template_nothing_but_bos_is_added() {
    let dataset = loaded("{\"prompt\": \"How deep? \", \"completion\": \"Nine.\"}\n{\"text\": \"tide\"}", &plain());
    assert_eq!(dataset.template, TemplateUse::None);
    // The fixture's tokenizer adds <|endoftext|> before a text and <|im_end|> after it.
    assert_eq!(marked(&dataset, 0), "<|endoftext|>How deep? [Nine.]");
    assert_eq!(marked(&dataset, 1), "<|endoftext|>[tide<|im_end|>]");
    let automatic =
        loaded(r#"{"prompt": "a", "completion": "b"}"#, &DataOptions { template: TemplateChoice::Tokenizer, ..chat() });
    assert_eq!((automatic.template, marked(&automatic, 0)), (TemplateUse::None, "<|endoftext|>[ab]".to_owned()));
    for line in [
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]}"#,
        r#"{"instruction": "a", "output": "b"}"#,
    ] {
        assert!(refused(line, &plain()).contains("--template FILE"), "{line}");
    }
}

#[test]
fn a_template_that_writes_bos_gets_no_other() {
    let options = DataOptions { template: given(&format!("{{{{ bos_token }}}}{TEMPLATE}")), ..chat() };
    let dataset = loaded(r#"{"prompt": "a", "completion": "b"}"#, &options);
    let tokens = &dataset.samples[0].tokens;
    let bos = tokenizer("tokenizer_byte_level").token_id("<|endoftext|>").unwrap();
    assert_eq!((tokens[0], tokens.iter().filter(|&&token| token == bos).count()), (bos, 1));
}

#[test]
fn a_token_that_covers_the_border_is_scored() {
    // SentencePiece joins the space at the end of the prompt with the first word of the answer.
    let tokenizer = tokenizer("tokenizer_metaspace");
    let (_guard, path) = file(r#"{"prompt": "a ", "completion": "tide"}"#);
    let sample = load(&path, &tokenizer, &plain()).unwrap().samples.remove(0);
    assert_eq!(sample.tokens, tokenizer.encode("a tide", Special::Begin).unwrap());
    let (prompt, answer) = sample.tokens.split_at(sample.answer[0]);
    assert_eq!(tokenizer.decode(&[prompt, answer].concat()).unwrap(), "<s> a tide");
    assert_eq!(prompt, tokenizer.encode("a", Special::Begin).unwrap());
}

#[test]
fn a_special_token_that_covers_white_space_of_an_answer_is_not_scored() {
    // As in Phi-3.
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer_byte_level/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(fixture).unwrap()).unwrap();
    for token in json["added_tokens"].as_array_mut().unwrap() {
        token["rstrip"] = (token["content"] == "<|im_start|>").into();
    }
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let template =
        "{{ messages[0].content }}<|im_start|>\n{% if messages[1] %}{{ messages[1].content }}<|im_end|>{% endif %}";
    let (_guard, path) = file(r#"{"prompt": "a", "completion": " tide"}"#);
    let dataset = load(&path, &tokenizer, &DataOptions { template: given(template), ..chat() }).unwrap();
    let sample = &dataset.samples[0];
    let mark = tokenizer.token_id("<|im_start|>").unwrap();
    assert_eq!(sample.tokens[sample.answer[0] - 1], mark);
    assert_eq!(tokenizer.decode(&sample.tokens[sample.answer[0]..]).unwrap(), "tide<|im_end|>");
}

#[test]
fn an_answer_ends_with_its_stop_token() {
    let line = r#"{"prompt": "a", "completion": "b"}"#;
    let ends = |template: &str| {
        let dataset = loaded(line, &DataOptions { template: given(template), ..chat() });
        (marked(&dataset, 0), dataset.endings)
    };
    let tokenizer = tokenizer("tokenizer_byte_level");
    let id = |token: &str| tokenizer.token_id(token).unwrap();
    // The tokenizer's EOS, even if the template writes more after it.
    let (text, endings) = ends(
        "{{ messages[0].content }}:{% if messages[1] %}{{ messages[1].content }}<|im_end|>\n<|endoftext|>{% endif %}",
    );
    assert_eq!((text.as_str(), endings), ("a:[b<|im_end|>]", vec![(Ending::Token(id("<|im_end|>")), 1)]));
    // A special token that no file names as a stop token.
    let (text, endings) =
        ends("{{ messages[0].content }}:{% if messages[1] %}{{ messages[1].content }}<|endoftext|>\n{% endif %}");
    assert_eq!((text.as_str(), endings), ("a:[b<|endoftext|>]", vec![(Ending::Token(id("<|endoftext|>")), 1)]));
    // One before the text is no stop token, and of two after it the first counts.
    let (text, endings) = ends("{% for m in messages %}<|im_start|>{{ m.content }}\n{% endfor %}");
    assert_eq!((text.as_str(), endings), ("<|im_start|>a\n[<|im_start|>b\n]", vec![(Ending::Open, 1)]));
    let (text, _) = ends(
        "{{ messages[0].content }}:{% if messages[1] %}{{ messages[1].content }}<|endoftext|>\n<|im_end|>{% endif %}",
    );
    assert_eq!(text, "a:[b<|endoftext|>]");
    // Without a stop token.
    let (text, endings) = ends("{{ messages[0].content }}:{% if messages[1] %}{{ messages[1].content }}\n{% endif %}");
    assert_eq!((text.as_str(), endings), ("a:[b\n]", vec![(Ending::Open, 1)]));
    assert!(loaded(line, &plain()).endings.is_empty());
    // No template writes the ending of a plain text, or of an answer that was cut.
    assert!(loaded(r#"{"text": "a"}"#, &chat()).endings.is_empty());
    let first = loaded(line, &chat()).samples[0].answer[0];
    let cut = loaded(line, &DataOptions { max_length: first + 1, long: LongSamples::Cut, ..chat() });
    assert!(cut.endings.is_empty() && cut.cut == [1], "{}", marked(&cut, 0));
}

#[test]
fn templates_that_change_the_prompt_when_the_answer_follows_are_refused() {
    let rewrites = "{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}";
    let line = r#"{"prompt": "a", "completion": "b"}"#;
    let error = refused(line, &DataOptions { template: given(rewrites), ..chat() });
    assert!(error.contains("line 1") && error.contains("before message 2"), "{error}");
    // Renders only the last answer in full, like templates that drop earlier reasoning.
    let shortens = "{% for m in messages %}{{ m.content if loop.last or m.role == 'user' else '-' }}|{% endfor %}";
    let line = concat!(
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, "#,
        r#"{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#
    );
    let options = DataOptions { template: given(shortens), ..chat() };
    assert_eq!(marked(&loaded(line, &options), 0), "a|-|c|[d|]");
    let error = refused(line, &DataOptions { turns: Turns::All, ..options });
    assert!(error.contains("last turn only"), "{error}");
}

#[test]
fn byte_order_marks_blank_lines_and_crlf_are_accepted() {
    let text = "\u{feff}{\"text\": \"one\"}\r\n\r\n   \n{\"text\": \"two\"}\r\n";
    let lines: Vec<_> = loaded(text, &plain()).samples.iter().map(|sample| sample.line).collect();
    assert_eq!(lines, [1, 4]);
}

#[test]
fn a_bad_line_is_refused_with_its_number_and_fault() {
    let good = r#"{"text": "fine"}"#;
    let cases: [(&[u8], &[&str]); 19] = [
        (b"{", &["one JSON object"]),
        (b"[1]", &["one JSON object"]),
        (b"{} {}", &["one JSON object"]),
        (b"\xff\xfe", &["UTF-8"]),
        (b"{\"question\": 1, \"answer\": 2}", &["found question, answer"]),
        (b"{}", &["found none"]),
        (b"{\"text\": 3}", &["`text`", "a string", "a number"]),
        (b"{\"text\": \" \\n\"}", &["empty"]),
        (b"{\"prompt\": [\"a\"], \"completion\": \"b\"}", &["`prompt`", "a list"]),
        (b"{\"prompt\": \"a\", \"completion\": \"\"}", &["empty"]),
        (b"{\"prompt\": \"a\", \"completion\": null}", &["`completion`", "null"]),
        (b"{\"instruction\": \"a\", \"input\": 1, \"output\": \"b\"}", &["`input`"]),
        (b"{\"messages\": \"a\"}", &["`messages`", "a list of messages"]),
        (b"{\"messages\": []}", &["message of the assistant"]),
        (b"{\"messages\": [{\"role\": \"user\"}]}", &["`messages[0].content`", "nothing"]),
        (b"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", &["message of the assistant"]),
        (b"{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}", &["a prompt before"]),
        (b"{\"conversations\": [{\"from\": \"bing\", \"value\": \"a\"}]}", &["`conversations[0].from`", "bing"]),
        (b"{\"messages\": [], \"tools\": [{}]}", &["`tools`"]),
    ];
    for (line, expected) in cases {
        let error = refused([good.as_bytes(), b"\n\n", line, b"\n"].concat(), &chat());
        for part in ["line 3", expected[0], expected[expected.len() - 1]] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    let refuses = given("{{ raise_exception('no such role') }}");
    let error = refused(r#"{"prompt": "a", "completion": "b"}"#, &DataOptions { template: refuses, ..chat() });
    assert!(error.contains("line 1") && error.contains("no such role"), "{error}");
}

#[test]
fn a_folder_is_read_and_a_missing_file_is_refused() {
    let (guard, path) = file(r#"{"text": "one"}"#);
    let tokenizer = tokenizer("tokenizer_byte_level");
    assert_eq!(load(guard.path(), &tokenizer, &plain()).unwrap().file, path);
    fs::rename(&path, guard.path().join("train.jsonl")).unwrap();
    let error = load(guard.path(), &tokenizer, &plain()).unwrap_err().to_string();
    assert!(error.contains("valid.jsonl"), "{error}");
    assert!(load(&path, &tokenizer, &plain()).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn samples_that_are_too_long_are_left_out() {
    let text = format!("{{\"text\": \"a\"}}\n{{\"text\": \"{}\"}}\n{{\"text\": \"b\"}}", "tide ".repeat(100));
    let dataset = loaded(&text, &DataOptions { max_length: 50, ..plain() });
    assert_eq!(dataset.samples.iter().map(|sample| sample.line).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(dataset.skipped, [2]);
    let exact = dataset.samples[0].tokens.len();
    assert_eq!(loaded(&text, &DataOptions { max_length: exact, ..plain() }).samples.len(), 2);
    let error = refused(&text, &DataOptions { max_length: exact - 1, ..plain() });
    assert!(error.contains("found 3 samples, all longer"), "{error}");
    assert!(refused("\n \n", &plain()).contains("only blank lines"));
}

#[test]
fn answers_that_are_too_long_are_cut_on_request() {
    let pair = |prompt: &str, answer: &str| serde_json::json!({"prompt": prompt, "completion": answer}).to_string();
    let text = [pair("How deep?", "Nine."), pair("How deep?", &"tide ".repeat(30)), pair(&"tide ".repeat(30), "Nine.")];
    let options = DataOptions { max_length: 20, long: LongSamples::Cut, ..plain() };
    let dataset = loaded(text.join("\n"), &options);
    assert_eq!(dataset.samples.iter().map(|sample| sample.line).collect::<Vec<_>>(), [1, 2]);
    // The third has no answer after the cut.
    assert_eq!((&dataset.cut[..], &dataset.skipped[..]), (&[2][..], &[3][..]));
    let whole = loaded(text.join("\n"), &plain());
    let (cut, uncut) = (&dataset.samples[1], &whole.samples[1]);
    assert_eq!((cut.tokens.len(), cut.answer.last()), (20, Some(&19)));
    assert_eq!((&cut.tokens[..], &cut.answer[..]), (&uncut.tokens[..20], &uncut.answer[..cut.answer.len()]));
    assert_eq!(dataset.samples[0], whole.samples[0]);
}

#[test]
fn a_subset_depends_on_its_seed_and_keeps_the_order_of_the_file() {
    let text: String = (0..50).map(|number| format!("{{\"text\": \"number {number}\"}}\n")).collect();
    let sampled = |seed| {
        let dataset = loaded(&text, &DataOptions { max_samples: Some(10), seed, ..plain() });
        dataset.samples.iter().map(|sample| sample.line).collect::<Vec<_>>()
    };
    assert_eq!(sampled(1).len(), 10);
    assert!(sampled(1).is_sorted());
    assert_eq!(sampled(1), sampled(1));
    assert_ne!(sampled(1), sampled(2));
    assert_eq!(loaded(&text, &DataOptions { max_samples: Some(80), ..plain() }).samples.len(), 50);
}

#[test]
fn a_line_above_the_limit_is_refused() {
    let error = refused("x".repeat((16 << 20) + 10), &plain());
    assert!(error.contains("line 1") && error.contains("at most"), "{error}");
}

const FIELDS: [&str; 7] = ["messages", "conversations", "prompt", "completion", "instruction", "output", "text"];

fn json_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,40}", "[ \\n\\t]{0,3}[a-z ]{1,20}", Just("<|im_end|>".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Exactly the answer's tokens are scored; they are the end of the rendered text.
    #[test]
    fn the_scored_positions_are_those_of_the_answer(prompt in json_text(), completion in json_text()) {
        let line = serde_json::json!({"prompt": prompt, "completion": completion}).to_string();
        let (_guard, path) = file(line);
        let tokenizer = tokenizer("tokenizer_byte_level");
        for options in [chat(), plain()] {
            let Ok(dataset) = load(&path, &tokenizer, &options) else {
                prop_assert!(completion.trim().is_empty());
                continue;
            };
            let sample = &dataset.samples[0];
            let border = sample.answer[0];
            prop_assert!(border >= 1);
            prop_assert_eq!(&sample.answer, &(border..sample.tokens.len()).collect::<Vec<_>>());
            // A special token in the completion is its stop token.
            if completion.contains("<|") || prompt.contains("<|") {
                continue;
            }
            let (before, answer) = sample.tokens.split_at(border);
            let (before, answer) = (tokenizer.decode(before).unwrap(), tokenizer.decode(answer).unwrap());
            // The fixture's tokenizer composes characters.
            let composed = |text: &str| tokenizer.decode(&tokenizer.encode(text, Special::Leave).unwrap()).unwrap();
            let (text, stop) = if options.template == TemplateChoice::None {
                (format!("<|endoftext|>{}", composed(&format!("{prompt}{completion}"))), "")
            } else {
                let chat = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{completion}");
                (format!("{}<|im_end|>", composed(&chat)), "<|im_end|>")
            };
            prop_assert_eq!(format!("{before}{answer}"), text);
            prop_assert!(answer.ends_with(stop));
            // At most one token covers the border. The first token can be a part of a character, whose text is the
            // replacement character: three bytes, which can be more than the whole answer has.
            let longest = composed(&completion).len() + stop.len();
            let first = tokenizer.decode(&sample.tokens[border..=border]).unwrap();
            prop_assert!(
                answer.len() + 4 > longest && answer.len().saturating_sub(first.len()) < longest,
                "{answer:?} {completion:?}"
            );
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_guard, path) = file(&bytes);
        // A sample has a prompt and an answer; an error names the file.
        match load(&path, &tokenizer("tokenizer_byte_level"), &chat()) {
            Ok(dataset) => prop_assert!(dataset.samples.iter().all(|sample| sample.answer[0] >= 1)),
            Err(error) => prop_assert!(error.to_string().contains("valid.jsonl")),
        }
    }

    /// Without a template, a line is a sample if it has a prompt and an answer, or a text, that are strings and not
    /// blank.
    #[test]
    fn json_is_accepted_only_with_a_prompt_and_an_answer_or_a_text(
        field in prop::sample::select(&FIELDS[..]),
        other in prop::sample::select(&FIELDS[..]),
        value in prop_oneof![
            Just(serde_json::json!(null)), Just(serde_json::json!([[]])), Just(serde_json::json!([{"role": 1}])),
            Just(serde_json::json!([{"from": "gpt", "value": "a"}])), json_text().prop_map(Into::into),
        ],
        text in json_text(),
    ) {
        // If both fields are the same, `text` is the value.
        let line = serde_json::json!({field: value, other: text});
        let has = |name: &str| line.get(name).is_some();
        let is_answer = |name: &str| line[name].as_str().is_some_and(|text| !text.trim().is_empty());
        // Chats and instructions need a template.
        let needs_template =
            has("messages") || has("conversations") || (has("instruction") && has("output"));
        let is_sample = if needs_template {
            false
        } else if has("prompt") && has("completion") {
            line["prompt"].is_string() && is_answer("completion")
        } else {
            is_answer("text")
        };
        let (_guard, path) = file(line.to_string());
        match load(&path, &tokenizer("tokenizer_byte_level"), &plain()) {
            Ok(dataset) => prop_assert!(is_sample && dataset.samples[0].answer[0] >= 1, "{line}: was accepted"),
            Err(error) => prop_assert!(!is_sample, "{line}: {error}"),
        }
    }
}

#[test]
#[ignore = "needs models/SmolLM2-135M-Instruct.Q4_1.gguf: run examples/smollm2-gsm8k/fetch.py models first"]
fn smollm2_samples_end_with_their_stop_token() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let tokenizer = Tokenizer::from_gguf(&path, Gguf::open(&path).unwrap().metadata()).unwrap();
    let line = r#"{"prompt": "How deep is it, in metres?", "completion": "It is 3 x 3 = <<3*3=9>>9.\n#### 9"}"#;
    let (_guard, path) = file(line);
    let options = DataOptions { template: TemplateChoice::Tokenizer, ..chat() };
    let dataset = load(&path, &tokenizer, &options).unwrap();
    assert_eq!(dataset.template, TemplateUse::Tokenizer);
    let sample = &dataset.samples[0];
    let (prompt, answer) = sample.tokens.split_at(sample.answer[0]);
    assert!(tokenizer.decode(prompt).unwrap().ends_with("metres?<|im_end|>\n<|im_start|>assistant\n"));
    assert_eq!(tokenizer.decode(answer).unwrap(), "It is 3 x 3 = <<3*3=9>>9.\n#### 9<|im_end|>");
}

#[test]
fn the_hash_is_of_the_bytes_that_were_read() {
    let text = "\u{feff}{\"text\": \"Hello there\"}\r\n\n{\"text\": \"Hello you\"}";
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let expected = plimsoll::formats::files::sha256_of_files(&[file.path().to_owned()]).unwrap();
    assert_eq!(loaded(text, &plain()).sha256, expected);
}

#[test]
fn lists_empty_files_and_lfs_pointers_are_refused_with_advice() {
    let found = |text: &str| refused(text, &plain());
    assert!(found("[{\"text\": \"Hello\"}]").contains("found a JSON list: write one object per line"));
    assert!(found("").contains("found an empty file"));
    assert!(found("version https://git-lfs.github.com/spec/v1\noid sha256:0\n").contains("git lfs pull"));
    let message = found("{\"text\": oops}");
    assert!(message.contains("at column 10") && !message.contains("at line"), "{message}");
    assert!(found("nope").contains("found text that is not JSON: unknown word at column 2"), "{}", found("nope"));
}
