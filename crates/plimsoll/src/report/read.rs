//! Reads what a search wrote, to tell it again. A result may come from a stranger, so that there are limits, and a
//! message says what was expected.

use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use plimsoll_formats::text::shown;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::lora::adapter::EmbeddingLora;
use crate::lora::{MAX_LAYERS, Variant};
use crate::result::{SCHEMA, SampleTokens, SearchResult};

/// The oldest layout that is read.
const OLDEST: u32 = 1;

/// The file that is read from a folder.
const RESULT: &str = "result.json";
/// The samples' tokens, beside it.
const TOKENS: &str = "tokens.jsonl";
/// Larger results are refused: with every effect of a large model's modules they reach some megabytes.
const MAX_RESULT_BYTES: u64 = 64 << 20;
/// Larger files of tokens are refused: all of one is held in memory.
const MAX_TOKENS_BYTES: u64 = 256 << 20;
/// More samples are refused.
const MAX_SAMPLES: usize = 1_000_000;

/// Why a file is not what a search writes.
#[derive(Debug, thiserror::Error)]
pub enum ReportProblem {
    /// Not JSON, or not the fields of a result.
    #[error("not the result of a search: {0}")]
    Json(#[source] serde_json::Error),
    /// Another layout.
    #[error(
        "`schema` is {found}: expected {OLDEST} to {SCHEMA}. {} wrote it: render it with that version, or repeat its search with this one",
        shown(tool)
    )]
    Schema {
        /// What it says.
        found: u64,
        /// What wrote it.
        tool: String,
    },
    /// JSON of something else.
    #[error("not the result of a search: found {found}, expected the result.json that plimsoll search writes")]
    Other {
        /// What it seems to be.
        found: &'static str,
    },
    /// A folder without a result.
    #[error("no {RESULT} in this folder: {hint}")]
    NoResult {
        /// What to do.
        hint: &'static str,
    },
    /// A search that picked no gates.
    #[error("has no candidate.gates: expected the result.json of a search that picked some")]
    NoCandidate,
    /// A search of another adapter.
    #[error("is of another adapter: expected one of SHA-256 {}, found {found}", shown(expected))]
    OtherAdapter {
        /// The hash of the adapter that was searched.
        expected: String,
        /// The hash of the adapter at hand.
        found: String,
    },
    /// More layers than any model has.
    #[error("model.layers is {found}: at most {MAX_LAYERS} are read")]
    Layers {
        /// How many it says there are.
        found: usize,
    },
    /// Gates that cannot be read.
    #[error("candidate.gates: {0}")]
    Gates(String),
    /// A line of tokens that is not one.
    #[error("line {line}: {problem}")]
    Tokens {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads a result: the path of a `result.json`, or of the folder that a search wrote it into. Also says which file it
/// read.
///
/// # Errors
/// Unreadable, too large, another layout, or not the result of a search.
pub fn read(path: &Path) -> Result<(PathBuf, SearchResult)> {
    let file = if path.is_dir() { path.join(RESULT) } else { path.to_owned() };
    if path.is_dir() && !file.exists() {
        let hint = if path.join("journal.jsonl").exists() {
            "it holds an interrupted search; run that again to finish it"
        } else {
            "expected a folder that plimsoll search wrote into, or a result.json"
        };
        return Err(Error::input(path, ReportProblem::NoResult { hint }));
    }
    let text = files::read_limited(&file, MAX_RESULT_BYTES)?;
    let result = parse(&text).map_err(|problem| Error::input(&file, problem))?;
    Ok((file, result))
}

/// The gates that a search picked for the adapter of this SHA-256: see [`read`].
///
/// # Errors
/// A result that cannot be read, one without a candidate, or one of another adapter.
pub fn picked_gates(path: &Path, adapter_sha256: &str) -> Result<(Variant, Option<EmbeddingLora>)> {
    let (file, result) = read(path)?;
    let problem = |problem| Err(Error::input(&file, problem));
    let Some(candidate) = result.candidate else { return problem(ReportProblem::NoCandidate) };
    if result.adapter.sha256 != adapter_sha256 {
        let (expected, found) = (result.adapter.sha256, adapter_sha256.to_owned());
        return problem(ReportProblem::OtherAdapter { expected, found });
    }
    if result.model.layers > MAX_LAYERS {
        return problem(ReportProblem::Layers { found: result.model.layers });
    }
    let gates = Variant::parse(&candidate.gates, result.model.layers);
    match gates {
        Ok(gates) => Ok((gates, result.adapter.embedding_lora)),
        Err(error) => problem(ReportProblem::Gates(error.to_string())),
    }
}

/// What tells a result from other JSON, and its layout from others.
#[derive(Deserialize)]
struct Head {
    schema: Option<u64>,
    #[serde(default)]
    tool: String,
    choice: Option<IgnoredAny>,
    task: Option<IgnoredAny>,
    runs: Option<IgnoredAny>,
}

fn parse(text: &str) -> Result<SearchResult, ReportProblem> {
    // serde takes a list for the fields of a struct in their order.
    if !text.trim_start().starts_with('{') {
        return Err(ReportProblem::Other { found: "something else than a JSON object" });
    }
    let head: Head = serde_json::from_str(text).map_err(ReportProblem::Json)?;
    match head {
        Head { task: Some(_), choice: None, .. } => Err(ReportProblem::Other { found: "the result of an evaluation" }),
        Head { runs: Some(_), choice: None, .. } => Err(ReportProblem::Other { found: "a comparison" }),
        Head { schema: None, .. } => Err(ReportProblem::Other { found: "no `schema`" }),
        Head { schema: Some(found), tool, .. } if !(u64::from(OLDEST)..=u64::from(SCHEMA)).contains(&found) => {
            let tool = if tool.is_empty() { "Another program".to_owned() } else { tool };
            Err(ReportProblem::Schema { found, tool })
        }
        Head { .. } => serde_json::from_str(text).map_err(ReportProblem::Json),
    }
}

/// Reads the tokens of the samples that lie beside a result; none where there is no such file.
///
/// # Errors
/// Unreadable, too large, or a line that is not a sample's tokens with one number for each.
pub fn read_tokens(result: &Path) -> Result<Vec<SampleTokens>> {
    let path = result.with_file_name(TOKENS);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_limited(&path, MAX_TOKENS_BYTES)?;
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let sample = parse_tokens(line, samples.len());
        let wrong = |problem| Error::input(&path, ReportProblem::Tokens { line: index + 1, problem });
        samples.push(sample.map_err(wrong)?);
    }
    Ok(samples)
}

fn parse_tokens(line: &str, before: usize) -> Result<SampleTokens, String> {
    if before >= MAX_SAMPLES {
        return Err(format!("more than {MAX_SAMPLES} samples"));
    }
    let sample: SampleTokens =
        serde_json::from_str(line).map_err(|error| format!("not the tokens of a sample: {error}"))?;
    let SampleTokens { sequence, tokens, base, full, candidate, .. } = &sample;
    let scored = sequence.iter().filter(|token| token.scored).count();
    if scored != tokens.len() && !sequence.is_empty() {
        return Err(format!("`sequence` has {scored} scored tokens: expected {}, as `tokens` has", tokens.len()));
    }
    for (name, values) in [("base", base), ("full", full), ("candidate", candidate)] {
        let is_left_out = name == "candidate" && values.is_empty();
        if values.len() != tokens.len() && !is_left_out {
            return Err(format!(
                "`{name}` has {} numbers: expected {}, one for each token",
                values.len(),
                tokens.len()
            ));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("`{name}` holds {value}: expected finite numbers"));
        }
    }
    Ok(sample)
}
