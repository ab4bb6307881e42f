//! Writes the HTML report of a search result.
//!
//! ```text
//! cargo run --release -p plimsoll --example report -- RESULT.json PAGE.html [TOKENS.jsonl] [--repeat N]
//! ```
//!
//! `--repeat N` repeats the tokens of all samples N times, to test a page with many samples.
#![allow(clippy::unwrap_used)]

use std::fs;

use plimsoll::report::html;
use plimsoll::result::{SampleTokens, SearchResult};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let repeat = match arguments.iter().position(|argument| argument == "--repeat") {
        Some(index) => arguments.drain(index..).nth(1).and_then(|count| count.parse().ok()).expect("--repeat N"),
        None => 1,
    };
    let [result, page, tokens @ ..] = arguments.as_slice() else {
        panic!("usage: report RESULT.json PAGE.html [TOKENS.jsonl] [--repeat N]")
    };
    let result: SearchResult = serde_json::from_str(&fs::read_to_string(result).unwrap()).unwrap();
    let lines = tokens.first().map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    let samples: Vec<SampleTokens> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let samples: Vec<SampleTokens> = std::iter::repeat_n(samples, repeat)
        .flatten()
        .enumerate()
        .map(|(index, sample)| if repeat > 1 { SampleTokens { line: index + 1, ..sample } } else { sample })
        .collect();
    fs::write(page, html(&result, &samples)).unwrap();
}
