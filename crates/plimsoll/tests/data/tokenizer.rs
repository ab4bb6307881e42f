//! Token ids, compared with the tokenizers and transformers projects (`reference/tokenizer_golden.py`).

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::formats::Gguf;
use plimsoll::tokenizer::{GenerationPrompt, Message, Special, Tokenizer};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Folder {
    lines: Vec<String>,
    plain: Vec<Vec<u32>>,
    special: Vec<Vec<u32>>,
    decoded: Vec<String>,
}

#[test]
fn folders_give_the_ids_of_transformers() {
    for name in ["tokenizer_byte_level", "tokenizer_metaspace", "tokenizer_prepend"] {
        let folder = fixtures().join(name);
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        let expected: Folder = read(&folder.join("expected.json"));
        assert!(expected.lines.len() > 100);
        for (index, line) in expected.lines.iter().enumerate() {
            let plain = tokenizer.encode(line, Special::Leave).unwrap();
            assert_eq!(plain, expected.plain[index], "{name}: {line:?}");
            let special = tokenizer.encode(line, Special::Add).unwrap();
            assert_eq!(special, expected.special[index], "{name}: {line:?}");
            assert!(special.starts_with(&tokenizer.encode(line, Special::Begin).unwrap()), "{name}: {line:?}");
            assert_eq!(tokenizer.decode(&special).unwrap(), expected.decoded[index], "{name}: {line:?}");
        }
    }
}

#[test]
fn spans_cover_the_text() {
    for name in ["tokenizer_byte_level", "tokenizer_metaspace", "tokenizer_prepend"] {
        let folder = fixtures().join(name);
        let tokenizer = Tokenizer::from_folder(&folder).unwrap();
        let expected: Folder = read(&folder.join("expected.json"));
        for line in &expected.lines {
            let encoding = tokenizer.encode_with_spans(line, Special::Add).unwrap();
            assert_eq!(encoding.ids, tokenizer.encode(line, Special::Add).unwrap(), "{name}: {line:?}");
            assert_eq!(encoding.ids.len(), encoding.spans.len());
            assert!(encoding.spans.is_sorted_by_key(|span| span.start), "{name}: {line:?} {:?}", encoding.spans);
            // No byte of the text is left out, except combining marks that were composed with the letter before them.
            let is_composed = tokenizer.decode(&tokenizer.encode(line, Special::Leave).unwrap()).unwrap() != *line;
            let mut end = 0;
            for span in &encoding.spans {
                assert!(span.start <= end || is_composed, "{name}: {line:?} {:?}", encoding.spans);
                end = end.max(span.end);
            }
            assert!(end == line.len() || is_composed, "{name}: {line:?}");
        }
    }
}

/// A folder with the byte-level fixture, its JSON changed by `change`.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut json: serde_json::Value = read(&fixtures().join("tokenizer_byte_level/tokenizer.json"));
    change(&mut json);
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn templates_are_read_from_all_files_of_a_folder() {
    let chat = [Message::new("user", "hi")];
    let rendered = |folder: &Path| {
        let tokenizer = Tokenizer::from_folder(folder).unwrap();
        tokenizer.template().unwrap().map(|template| template.render(&chat, GenerationPrompt::Leave).unwrap())
    };
    let (_guard, folder) = changed(|_| {});
    assert_eq!(rendered(&folder), None);
    let config = folder.join("tokenizer_config.json");
    fs::write(&config, r#"{"bos_token": {"content": "<b>"}, "chat_template": "{{ bos_token }}one"}"#).unwrap();
    assert_eq!(rendered(&folder).as_deref(), Some("<b>one"));
    let named =
        r#"{"chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "two"}]}"#;
    fs::write(&config, named).unwrap();
    assert_eq!(rendered(&folder).as_deref(), Some("two"));
    fs::write(folder.join("chat_template.jinja"), "three").unwrap();
    assert_eq!(rendered(&folder).as_deref(), Some("three"));
    fs::remove_file(folder.join("chat_template.jinja")).unwrap();
    fs::write(&config, r#"{"chat_template": [{"name": "rag", "template": "no"}]}"#).unwrap();
    let error = Tokenizer::from_folder(&folder).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json") && error.contains("found rag"), "{error}");
}

#[test]
fn the_vocabulary_size_is_one_more_than_the_highest_id() {
    let (_guard, folder) = changed(|_| {});
    let tokenizer = Tokenizer::from_folder(&folder).unwrap();
    let (think, pad) = (tokenizer.token_id("<think>").unwrap(), tokenizer.token_id("<pad>").unwrap());
    assert_eq!(tokenizer.vocab_size(), think.max(pad) as usize + 1);
    assert_eq!(tokenizer.encode("a<think>", Special::Leave).unwrap().last(), Some(&think));
    assert_eq!(tokenizer.token_id("<nothing>"), None);
}

#[test]
fn unsupported_tokenizers_are_refused_by_name() {
    type Change = fn(&mut serde_json::Value);
    let cases: [(Change, &str); 12] = [
        (|json| json["model"]["type"] = "WordPiece".into(), "WordPiece"),
        (|json| json["model"]["dropout"] = 0.1.into(), "dropout"),
        (|json| json["model"]["end_of_word_suffix"] = "</w>".into(), "</w>"),
        (|json| json["model"]["merges"] = serde_json::json!([["a", "\u{4e00}"]]), "merge 1"),
        // A merge longer than any token, on which the library would index out of bounds.
        (|json| json["model"]["merges"] = serde_json::json!(["<|endoftext|> <|endoftext|>"]), "merge 1"),
        (|json| json["model"]["vocab"]["a"] = 0.into(), "twice"),
        (|json| json["normalizer"] = serde_json::json!({"type": "BertNormalizer"}), "BertNormalizer"),
        (|json| json["pre_tokenizer"] = serde_json::json!({"type": "UnicodeScripts"}), "UnicodeScripts"),
        (|json| json["decoder"] = 5.into(), "not a supported tokenizer"),
        (|json| json["decoder"] = serde_json::json!({"type": "Strip", "content": " ", "start": 0, "stop": 1}), "stop"),
        (|json| json["added_tokens"][0]["id"] = 400.into(), "expected id 400"),
        (|json| json["post_processor"] = serde_json::json!({"type": "RobertaProcessing"}), "RobertaProcessing"),
    ];
    for (change, expected) in cases {
        let (_guard, folder) = changed(change);
        let error = Tokenizer::from_folder(&folder).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("tokenizer.json"), "{expected}: {error}");
    }
}

#[derive(Deserialize)]
struct Lines {
    lines: Vec<String>,
    smollm2: Ids,
}

#[derive(Deserialize)]
struct Ids {
    ids: Vec<Vec<u32>>,
    digests: Vec<u32>,
}

/// FNV-1a of 32 bits.
fn digest(ids: &[u32]) -> u32 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0x811c_9dc5, |value, byte| (value ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[test]
#[ignore = "needs models/SmolLM2-135M-Instruct.Q4_1.gguf: run examples/smollm2-gsm8k/fetch.py models first"]
fn smollm2_gives_the_ids_of_its_own_tokenizer() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let file = Gguf::open(&path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&path, file.metadata()).unwrap();
    let expected: Lines = read(&fixtures().join("tokenizer_lines.json"));
    assert!(expected.lines.len() >= 2000);
    for (line, digest_of_ids) in expected.lines.iter().zip(&expected.smollm2.digests) {
        assert_eq!(digest(&tokenizer.encode(line, Special::Add).unwrap()), *digest_of_ids, "{line:?}");
    }
    for (line, ids) in expected.lines.iter().zip(&expected.smollm2.ids) {
        assert_eq!(&tokenizer.encode(line, Special::Add).unwrap(), ids, "{line:?}");
        // The vocabulary has no tokens for some control characters, which are dropped.
        if !line.contains(|char: char| char.is_control() && !"\t\n\r".contains(char)) {
            assert_eq!(&tokenizer.decode(ids).unwrap(), line);
        }
    }
    assert_eq!((tokenizer.vocab_size(), tokenizer.token_id("<|im_end|>")), (49152, Some(2)));
    let chat = [Message::new("system", "Be brief."), Message::new("user", "How deep?")];
    let rendered = tokenizer.template().unwrap().unwrap().render(&chat, GenerationPrompt::Add).unwrap();
    let expected =
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow deep?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(rendered, expected);
    assert_eq!(tokenizer.encode(&rendered, Special::Leave).unwrap().iter().filter(|&&id| id <= 2).count(), 5);
}
