//! Generated text compared with transformers and PEFT, and between batches, prefixes and chats.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::ops::ControlFlow;

use common::{adapter_folder, bind, checkpoint, engine, fixtures, golden};
use plimsoll::data::{Renderer, TemplateChoice, questions};
use plimsoll::engine::{CpuEngine, CpuOptions, Generator as _, Scorer as _};
use plimsoll::generate::{GenerateOptions, GenerationEvent, Prompt};
use plimsoll::lora::Variant;
use plimsoll::model::{Dtype, Precision};
use plimsoll::result::{Finish, Generated, Sampling};
use plimsoll::tokenizer::Tokenizer;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    new_tokens: usize,
    end: u32,
    greedy: Vec<Greedy>,
    sampling: Samplings,
}

#[derive(Deserialize)]
struct Greedy {
    model: String,
    adapter: String,
    layers: usize,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    prompt: Vec<u32>,
    layers_kept: usize,
    tokens: Vec<u32>,
    gaps: Vec<f64>,
    line: Option<usize>,
    text: Option<String>,
}

#[derive(Deserialize)]
struct Samplings {
    vectors: Vec<Vector>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Vector {
    logits: Vec<f32>,
    history: Vec<u32>,
}

#[derive(Deserialize)]
struct Case {
    vector: usize,
    settings: Settings,
    probabilities: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(&std::fs::read_to_string(fixtures().join("generate.json")).unwrap()).unwrap()
}

/// The tokenizer of the tiny models.
fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(&golden().join("tiny-gqa-tied")).unwrap()
}

fn greedy(max_tokens: usize, batch: usize) -> GenerateOptions {
    GenerateOptions { sampling: Sampling::GREEDY, max_tokens, stop: Vec::new(), batch }
}

fn run(engine: &CpuEngine, prompts: &[Prompt], options: &GenerateOptions) -> Vec<Generated> {
    let variants = Variant::every_boundary(engine.layers());
    engine.generate(&tokenizer(), &variants, prompts, options, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Prompts under every boundary, with one random stream for each text.
fn prompts_of(texts: &[Vec<u32>], layers: usize) -> Vec<Prompt> {
    let mut prompts = Vec::new();
    for (tokens, number) in texts.iter().zip(0..) {
        prompts.extend((0..=layers).map(|variant| Prompt { tokens: tokens.clone(), variant, number }));
    }
    prompts
}

#[test]
fn greedy_texts_are_those_of_transformers_and_peft() {
    let fixture = fixture();
    let (mut texts, mut stopped, mut compared) = (0, 0, 0);
    for Greedy { model, adapter, layers, texts: expected } in &fixture.greedy {
        let engine = engine(model, adapter);
        assert_eq!(engine.layers(), *layers);
        let prompts: Vec<Prompt> = expected
            .iter()
            .map(|text| Prompt { tokens: text.prompt.clone(), variant: text.layers_kept, number: 0 })
            .collect();
        for batch in [1, 5, 64] {
            let found = run(&engine, &prompts, &greedy(fixture.new_tokens, batch));
            for (found, expected) in found.iter().zip(expected) {
                // No gap between the two best logits is so small that a correct engine might pick another token.
                assert!(expected.gaps.iter().all(|&gap| gap > 1e-4));
                let end = expected.tokens.iter().position(|&token| token == fixture.end);
                let tokens = &expected.tokens[..end.unwrap_or(expected.tokens.len())];
                assert_eq!(found.tokens, tokens, "{model}, {adapter}, {} layers", expected.layers_kept);
                assert_eq!(found.finish, if end.is_some() { Finish::Stop } else { Finish::Length });
                if let Some(text) = &expected.text {
                    assert_eq!(&found.text, text);
                    compared += 1;
                }
                (texts, stopped) = (texts + 1, stopped + usize::from(end.is_some()));
            }
        }
    }
    assert!(texts > 150 && stopped > 3 && compared > 3, "{texts} texts, {stopped} stopped, {compared} compared");
}

#[test]
fn prompts_of_a_file_are_rendered_as_transformers_renders_them() {
    let fixture = fixture();
    let tokenizer = tokenizer();
    let renderer = Renderer::new(&tokenizer, &TemplateChoice::Tokenizer).unwrap();
    let questions = questions(&golden().join("data/valid.jsonl"), &renderer, 10_000).unwrap();
    let expected = fixture.greedy.iter().flat_map(|greedy| &greedy.texts).filter_map(|text| Some((text, text.line?)));
    let mut seen = 0;
    for (text, line) in expected {
        let question = questions.iter().find(|question| question.line == line).unwrap();
        assert_eq!(question.tokens, text.prompt, "line {line}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn candidates_are_those_of_transformers() {
    let Samplings { vectors, cases } = fixture().sampling;
    assert!(cases.len() > 50);
    for Case { vector, settings, probabilities } in cases {
        let Settings { temperature, top_k, top_p, min_p, repetition_penalty } = settings;
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed: 0 };
        sampling.check().unwrap();
        let Vector { logits, history } = &vectors[vector];
        let mut found = vec![0.0; logits.len()];
        for (token, probability) in sampling.candidates(&mut logits.clone(), history) {
            found[token as usize] = f64::from(probability);
        }
        for (token, (found, expected)) in found.iter().zip(&probabilities).enumerate() {
            // The processors compute in single precision.
            assert!((found - expected).abs() < 2e-6, "{sampling:?}: token {token}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_text_does_not_depend_on_the_batch() {
    let engine = engine("tiny-gqa-tied", "plain");
    // Some that share leading tokens, and one that does not.
    let shared: Vec<u32> = (30..60).collect();
    let texts: Vec<Vec<u32>> = (0..6).map(|i| [&shared[..], &[70 + i, 80][..1 + i as usize % 2]].concat()).collect();
    let warm = Sampling { temperature: 1.0, top_p: 0.95, seed: 7, ..Sampling::GREEDY };
    for texts in [texts.clone(), [&texts[..], &[vec![5]]].concat()] {
        let prompts = prompts_of(&texts, engine.layers());
        let all = |batch| run(&engine, &prompts, &GenerateOptions { sampling: warm, ..greedy(16, batch) });
        let together = all(64);
        assert_eq!(all(1), together);
        assert_eq!(all(7), together);
        for (prompt, expected) in prompts.iter().zip(&together) {
            let alone =
                run(&engine, std::slice::from_ref(prompt), &GenerateOptions { sampling: warm, ..greedy(16, 1) });
            assert_eq!(alone[0], *expected);
        }
        // The random stream is the prompt's: with other numbers, some text differs.
        let others: Vec<Prompt> =
            prompts.iter().map(|prompt| Prompt { number: prompt.number + 100, ..prompt.clone() }).collect();
        assert_ne!(run(&engine, &others, &GenerateOptions { sampling: warm, ..greedy(16, 64) }), together);
    }
}

#[test]
fn a_bound_on_memory_and_the_number_of_threads_change_no_text() {
    let checkpoint = checkpoint("tiny-gqa-tied");
    let lora = bind(&checkpoint, &adapter_folder("tiny-gqa-tied", "plain"));
    let texts: Vec<Vec<u32>> = (0..9).map(|i| (20..40 + i * 3).collect()).collect();
    let run = |threads: usize, memory: Option<u64>, dtype| {
        let threads = std::num::NonZero::new(threads);
        let options = CpuOptions { threads, memory, precision: Precision::new(dtype) };
        let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
        run(&engine, &prompts_of(&texts, engine.layers()), &greedy(12, 32))
    };
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let expected = run(1, None, dtype);
        assert_eq!(run(3, None, dtype), expected);
        assert_eq!(run(2, Some(1), dtype), expected);
    }
}

#[test]
fn a_stop_text_ends_an_answer_and_is_not_part_of_it() {
    let (engine, tokenizer) = (engine("tiny-gqa-tied", "trained"), tokenizer());
    let prompts = prompts_of(&[(30..50).collect(), (60..70).collect()], engine.layers());
    let mut tested = 0;
    for whole in run(&engine, &prompts, &greedy(24, 8)).iter().zip(&prompts) {
        let (Generated { text, .. }, prompt) = whole;
        let characters: Vec<char> = text.chars().collect();
        let Some(middle) = characters.get(characters.len() / 2..).map(|rest| rest.iter().take(3).collect::<String>())
        else {
            continue;
        };
        if middle.is_empty() {
            continue;
        }
        let options = GenerateOptions { stop: vec!["no such text".into(), middle.clone()], ..greedy(24, 8) };
        let mut streamed = String::new();
        let stopped = engine.generate(
            &tokenizer,
            &Variant::every_boundary(engine.layers()),
            std::slice::from_ref(prompt),
            &options,
            &mut |event| {
                if let GenerationEvent::Text(_, piece) = event {
                    streamed.push_str(piece);
                }
                ControlFlow::Continue(())
            },
        );
        let stopped = &stopped.unwrap()[0];
        assert_eq!(stopped.finish, Finish::Stop);
        assert_eq!(stopped.text, text[..text.find(&middle).unwrap()]);
        assert_eq!(streamed, stopped.text);
        tested += 1;
    }
    assert!(tested > 5, "{tested} texts were long enough");
}

#[test]
fn a_chat_answers_as_one_whole_prompt_does() {
    let (engine, tokenizer) = (engine("tiny-gqa-tied", "plain"), tokenizer());
    let variant = Variant::bottom_k(engine.layers(), 2);
    let mut chat = engine.chat(&tokenizer, variant);
    let mut tokens: Vec<u32> = (30..45).collect();
    for number in 0..4 {
        let prompt = Prompt { tokens: tokens.clone(), variant: 2, number };
        let answer = chat.answer(&prompt, &greedy(9, 1), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answer, run(&engine, std::slice::from_ref(&prompt), &greedy(9, 1))[0]);
        if number == 2 {
            // A new chat: the old one must have no effect.
            tokens = vec![90, 91, 92];
        } else {
            tokens.extend(answer.tokens);
            tokens.extend([33, 34, 35 + number as u32]);
        }
    }
}

#[test]
fn a_chat_continues_after_a_stopped_answer() {
    let (engine, tokenizer) = (engine("tiny-gqa-tied", "plain"), tokenizer());
    let mut chat = engine.chat(&tokenizer, Variant::uniform(engine.layers(), 1.0));
    let prompt = |tokens: Vec<u32>| Prompt { tokens, variant: 4, number: 1 };
    let mut seen = 0;
    let stopped = chat.answer(&prompt((30..45).collect()), &greedy(9, 1), &mut |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(plimsoll::Error::Interrupted)), "{stopped:?}");
    assert_eq!(seen, 3);
    for tokens in [(30..45).chain([33, 34]).collect::<Vec<u32>>(), vec![90, 91, 92]] {
        let next = prompt(tokens);
        let answer = chat.answer(&next, &greedy(9, 1), &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answer, run(&engine, std::slice::from_ref(&next), &greedy(9, 1))[0]);
    }
}

#[test]
fn bad_prompts_and_options_are_refused() {
    let (engine, tokenizer) = (engine("tiny-gqa-tied", "plain"), tokenizer());
    let variants = Variant::every_boundary(engine.layers());
    let context = engine.model().config().context;
    let prompt = |length: usize| Prompt { tokens: vec![30; length], variant: 0, number: 3 };
    let message = |prompt: Prompt, options: GenerateOptions| {
        let generated = engine.generate(&tokenizer, &variants, &[prompt], &options, &mut |_| ControlFlow::Continue(()));
        generated.unwrap_err().to_string()
    };
    assert!(message(prompt(0), greedy(4, 1)).contains("prompt 3 has 0 tokens"));
    assert!(message(prompt(context), greedy(4, 1)).contains("context length"));
    assert!(message(prompt(4), greedy(0, 1)).contains("at least 1"));
    assert!(message(prompt(4), GenerateOptions { stop: vec![String::new()], ..greedy(4, 1) }).contains("empty stop"));
    for sampling in [
        Sampling { temperature: -1.0, ..Sampling::GREEDY },
        Sampling { temperature: f32::NAN, ..Sampling::GREEDY },
        Sampling { top_p: 0.0, ..Sampling::GREEDY },
        Sampling { min_p: 1.5, ..Sampling::GREEDY },
        Sampling { repetition_penalty: 0.0, ..Sampling::GREEDY },
    ] {
        assert!(message(prompt(4), GenerateOptions { sampling, ..greedy(4, 1) }).contains("expected"), "{sampling:?}");
    }
    // The answer ends where the context does.
    let long = run(&engine, &[prompt(context - 3)], &greedy(24, 1));
    assert!(long[0].tokens.len() <= 3);
}

#[test]
fn a_break_of_the_observer_stops_the_generation() {
    let (engine, tokenizer) = (engine("tiny-gqa-tied", "plain"), tokenizer());
    let variants = Variant::every_boundary(engine.layers());
    let prompts = prompts_of(&[(30..50).collect()], engine.layers());
    let mut events = 0;
    let stopped = engine.generate(&tokenizer, &variants, &prompts, &greedy(50, 2), &mut |_| {
        events += 1;
        if events == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(plimsoll::Error::Interrupted)));
}
