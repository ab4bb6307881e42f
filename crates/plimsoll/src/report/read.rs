//! Reading of `result.json` and `tokens.jsonl`. The files are untrusted: sizes and counts are limited, and layouts are
//! checked.

use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use plimsoll_formats::text::shown;
use plimsoll_stats::choose::Margin;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::error::{Error, Result};
use crate::lora::adapter::EmbeddingLora;
use crate::lora::{Family, MAX_LAYERS, Variant};
use crate::report::words::margin_in_words;
use crate::result::{SCHEMA, SampleTokens, SearchResult, SufficientLayers, VariantSummary};

/// The oldest layout that is read.
const OLDEST: u32 = 1;

/// The file of a search's result in its folder.
const RESULT: &str = "result.json";
/// The samples' tokens, in the same folder.
const TOKENS: &str = "tokens.jsonl";
/// Largest result. Results with all effects of a large model's modules have some megabytes.
const MAX_RESULT_BYTES: u64 = 64 << 20;
/// Largest file of tokens: it is held in memory.
const MAX_TOKENS_BYTES: u64 = 256 << 20;
/// Largest number of samples.
const MAX_SAMPLES: usize = 1_000_000;

/// What is wrong with a file of results.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportProblem {
    /// Not JSON, or not the fields of a search result.
    #[error("not the result of a search: {0}")]
    Json(#[source] serde_json::Error),
    /// A version of the layout that cannot be read.
    #[error(
        "`schema` is {found}: expected {OLDEST} to {SCHEMA}. {} wrote it: render it with that version, or repeat its \
         search with this one",
        shown(tool)
    )]
    Schema {
        /// The version in the file.
        found: u64,
        /// The program that wrote the file.
        tool: String,
    },
    /// JSON of another kind.
    #[error("not the result of a search: found {found}, expected the result.json that plimsoll search writes")]
    Other {
        /// What the file holds.
        found: &'static str,
    },
    /// A folder without a result.
    #[error("no {RESULT} in this folder: {hint}")]
    NoResult {
        /// What to do.
        hint: &'static str,
    },
    /// A search without a candidate.
    #[error("has no candidate.gates: expected the result.json of a search with a candidate")]
    NoCandidate,
    /// A search without sufficient layers.
    #[error("has no sufficient layers of this family: expected the result.json of a search --rule sufficient")]
    NoSufficient,
    /// A margin in nats that the search was not asked for.
    #[error("has no row for this margin: expected the margin of the search, or a share such as 95%")]
    NoMargin,
    /// A margin that needs all layers.
    #[error("no cut is shown to retain {margin}: all layers are needed, so there is nothing to trim")]
    AllNeeded {
        /// The margin, in words.
        margin: String,
    },
    /// A search of another adapter.
    #[error("is of another adapter: expected one of SHA-256 {}, found {found}", shown(expected))]
    OtherAdapter {
        /// The hash of the adapter of the search.
        expected: String,
        /// The hash of the given adapter.
        found: String,
    },
    /// More layers than are supported.
    #[error("model.layers is {found}: expected at most {MAX_LAYERS}")]
    Layers {
        /// The number of layers in the file.
        found: usize,
    },
    /// LoRA strengths that cannot be read.
    #[error("candidate.gates: {0}")]
    Gates(String),
    /// A line that is not the tokens of a sample.
    #[error("line {line}: {problem}")]
    Tokens {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// Reads the result of a search. `path` is a `result.json`, or the folder that holds it. Returns the file's path too.
///
/// # Errors
/// A file that cannot be read, is too large, has another layout, or is not the result of a search.
pub fn read(path: &Path) -> Result<(PathBuf, SearchResult)> {
    let file = if path.is_dir() { path.join(RESULT) } else { path.to_owned() };
    if path.is_dir() && !file.exists() {
        let hint = if path.join("journal.jsonl").exists() {
            "it holds an interrupted search; run the same command again to finish it"
        } else {
            "expected a folder that plimsoll search wrote into, or a result.json"
        };
        return Err(Error::input(path, ReportProblem::NoResult { hint }));
    }
    let text = files::read_limited(&file, MAX_RESULT_BYTES)?;
    let result = parse(&text).map_err(|problem| Error::input(&file, problem))?;
    Ok((file, result))
}

/// Which variant of a search is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Asked {
    /// The candidate.
    #[default]
    Candidate,
    /// The sufficient layers for a margin.
    Sufficient {
        /// The margin.
        margin: Margin,
        /// The family; `None` for the first of the result.
        family: Option<Family>,
    },
}

/// The LoRA strengths of a variant of a search, and what the search did with LoRA on embeddings. `path` as in [`read`].
///
/// # Errors
/// A result that cannot be read, lacks the variant, or is of another adapter than the one with this SHA-256; a margin
/// that needs all layers.
pub fn picked_gates(path: &Path, adapter_sha256: &str, asked: Asked) -> Result<(Variant, Option<EmbeddingLora>)> {
    let (file, result) = read(path)?;
    let problem = |problem| Err(Error::input(&file, problem));
    let gates = match asked {
        Asked::Candidate => {
            result.candidate.as_ref().map(|candidate| &candidate.gates).ok_or(ReportProblem::NoCandidate)
        }
        Asked::Sufficient { margin, family } => sufficient_gates(&result, margin, family),
    };
    let gates = match gates {
        Ok(gates) => gates,
        Err(error) => return problem(error),
    };
    if result.adapter.sha256 != adapter_sha256 {
        let (expected, found) = (result.adapter.sha256.clone(), adapter_sha256.to_owned());
        return problem(ReportProblem::OtherAdapter { expected, found });
    }
    if result.model.layers > MAX_LAYERS {
        return problem(ReportProblem::Layers { found: result.model.layers });
    }
    match Variant::parse(gates, result.model.layers) {
        Ok(variant) => Ok((variant, result.adapter.embedding_lora)),
        Err(error) => problem(ReportProblem::Gates(error.to_string())),
    }
}

/// The LoRA strengths of the sufficient layers for a margin. A share that has no row is looked up in the retained
/// shares: a cut holds it if the lower end of its interval, and of all earlier cuts, is above it.
fn sufficient_gates(result: &SearchResult, margin: Margin, family: Option<Family>) -> Result<&String, ReportProblem> {
    let is_asked = |list: &&SufficientLayers| family.is_none_or(|family| list.family == family);
    let list = result.sufficient.iter().find(is_asked).ok_or(ReportProblem::NoSufficient)?;
    let all_needed = || ReportProblem::AllNeeded { margin: margin_in_words(margin, result) };
    if let Some(row) = list.row(margin) {
        return if row.answer.p.is_some() { Ok(&row.gates) } else { Err(all_needed()) };
    }
    let Margin::Share(share) = margin else { return Err(ReportProblem::NoMargin) };
    let held = list.shares.iter().take_while(|cut| cut.retained.low > share).last().ok_or_else(all_needed)?;
    let is_cut = |variant: &&VariantSummary| variant.family == list.family && variant.at == held.layers_kept as f64;
    result.variants.iter().find(is_cut).map(|variant| &variant.gates).ok_or(ReportProblem::NoSufficient)
}

/// The fields that identify the kind and the layout of a file.
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
    // serde would read a list as the fields of a struct in their order.
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

/// Reads the `tokens.jsonl` in the folder of a `result.json`; empty if there is no such file.
///
/// # Errors
/// A file that cannot be read or is too large, or a line that is not the tokens of a sample with one number for each.
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
