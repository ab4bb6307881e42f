//! Token ids and scored positions of conversations, compared with `apply_chat_template` of transformers and with the
//! masks of TRL and transformers (`reference/answers.py golden`; its `check` uses real tokenizers and templates).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use plimsoll::data::{DataOptions, LongSamples, TemplateChoice, Turns, load};
use plimsoll::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    templates: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    template: String,
    turns: String,
    samples: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    messages: serde_json::Value,
    ids: Vec<u32>,
    /// Positions of the mask.
    mask: Vec<usize>,
}

/// Runs of consecutive positions.
fn runs(positions: &[usize]) -> Vec<&[usize]> {
    positions.chunk_by(|a, b| a + 1 == *b).collect()
}

#[test]
fn ids_and_masks_are_those_of_transformers_and_trl() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let fixture: Fixture = serde_json::from_str(&fs::read_to_string(fixtures.join("answers.json")).unwrap()).unwrap();
    assert_eq!(fixture.cases.len(), 25);
    let (mut shorter, mut open) = (0, 0);
    for case in &fixture.cases {
        let tokenizer = Tokenizer::from_folder(&fixtures.join(&case.tokenizer)).unwrap();
        let lines: Vec<String> =
            case.samples.iter().map(|sample| serde_json::json!({"messages": sample.messages}).to_string()).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("valid.jsonl");
        fs::write(&path, lines.join("\n")).unwrap();
        let source = fixture.templates[&case.template].clone();
        let options = DataOptions {
            template: TemplateChoice::Given { file: case.template.clone().into(), source },
            turns: if case.turns == "all" { Turns::All } else { Turns::Last },
            max_samples: None,
            seed: 0,
            max_length: usize::MAX,
            long: LongSamples::Skip,
        };
        let found = load(&path, &tokenizer, &options).unwrap();
        assert_eq!(found.samples.len(), case.samples.len());
        for (sample, expected) in found.samples.iter().zip(&case.samples) {
            let place = format!("{} {} {}: {}", case.tokenizer, case.template, case.turns, expected.messages);
            assert_eq!(sample.tokens, expected.ids[..sample.tokens.len()], "{place}");
            assert_eq!(sample.tokens.len(), sample.answer.last().unwrap() + 1, "{place}");
            let (ours, theirs) = (runs(&sample.answer), runs(&expected.mask));
            assert_eq!(ours.len(), theirs.len(), "{place}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!(theirs.starts_with(ours), "{place}: {ours:?}, expected {theirs:?}");
                // The mask may continue after our last token, which is then a stop token.
                if ours.len() < theirs.len() {
                    let last = sample.tokens[ours[ours.len() - 1]];
                    assert!(tokenizer.end_tokens().contains(&last), "{place}: {last}");
                    shorter += 1;
                }
            }
        }
        open += usize::from(case.template == "open");
        let is_open = matches!(found.endings[..], [(plimsoll::data::Ending::Open, 24)]);
        assert_eq!(is_open, case.template == "open", "{}", case.template);
    }
    // The line feed after a stop token, in `chatml` and `zephyr`; BOS after the last message in `closed`.
    assert!(shorter > 100 && open == 6, "{shorter} {open}");
}
