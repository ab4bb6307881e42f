//! Writing a trimmed adapter: the LoRA of some layers, byte for byte, in a folder that PEFT loads without a warning.
//!
//! Deleting tensors is not enough: PEFT then warns of missing keys, and goes on computing with zeros. The config must
//! say which layers are left, and there are two ways to say it (PEFT 0.21.2, `check_target_module_exists`):
//! 1. `target_modules` as a list of names, with `layers_to_transform` and `layers_pattern`. A regular expression and
//!    `all-linear` are expanded to a list first, because PEFT refuses them together with `layers_to_transform`;
//! 2. where layers differ in their modules, or the list names full paths (which `layers_to_transform` does not
//!    restrict), `target_modules` as the full path of every module that is left.
//!
//! Which one is right is not reasoned about but tried: the new config is parsed again and asked about every module.
//! Entries of `rank_pattern` and `alpha_pattern` that match none of the modules that are left go, because PEFT warns of
//! them; every other field stays as it was. An empty `layers_to_transform` would mean *all* layers, so keeping nothing is
//! an error: that is the base model.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Adapter, AdapterConfig, CONFIG_FILE, Module, WEIGHTS_FILE};
use crate::error::{Error, Result};
use crate::files;
use crate::gates::Projection;

/// The name of the model card.
pub const CARD_FILE: &str = "README.md";
/// The name of the file that says where a trimmed adapter comes from.
pub const PROVENANCE_FILE: &str = "plimsoll.json";

/// Version of the layout of [`PROVENANCE_FILE`].
const SCHEMA: u32 = 1;

/// Where a trimmed adapter comes from; what is not known is left out of the card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name and version of the program, such as `plimsoll 0.1.0`.
    pub tool: String,
    /// The command that repeats it.
    pub command: Option<String>,
    /// The adapter that was trimmed.
    pub adapter: Option<Source>,
    /// The base model that the boundary was measured on.
    pub model: Option<Source>,
    /// How many decoder layers that model has.
    pub model_layers: Option<usize>,
    /// The samples.
    pub data: Option<Source>,
    /// Seed of the split and of every resampling.
    pub seed: Option<u64>,
    /// What was measured; a trim to a given boundary has none.
    pub scores: Option<TrimScores>,
}

/// A file, or several taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As the user gave it.
    pub path: String,
    /// SHA-256, as [`files::sha256_of_files`] makes it.
    pub sha256: String,
}

/// Scores on samples that had no part in choosing the boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrimScores {
    /// What is measured in place of the NLL, such as `gsm8k flexible`; higher is better then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// How many samples.
    pub samples: usize,
    /// Mean NLL without the adapter, in nats per answer token; or the metric.
    pub base: f64,
    /// Mean NLL with the whole adapter, in nats per answer token; or the metric.
    pub full: f64,
    /// Mean NLL with the trimmed adapter, in nats per answer token; or the metric.
    pub trimmed: f64,
    /// What the trimmed adapter gains over the whole one, in nats per answer token or in the metric. Positive is better.
    pub gain: Estimate,
    /// Share of the whole adapter's gain over the base that is left. 1 is all of it.
    pub retained: Option<Estimate>,
}

/// An estimate with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The new folder.
    pub folder: PathBuf,
    /// Layers whose LoRA is in it, ascending.
    pub layers_kept: Vec<usize>,
    /// Layers whose LoRA was dropped, ascending.
    pub layers_dropped: Vec<usize>,
    /// Number of LoRA modules in it.
    pub modules: usize,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Bytes of the whole adapter's tensors.
    pub bytes_before: u64,
}

/// Writes the adapter's LoRA in the layers `keep` to the new folder `out`, with its config, a model card and its
/// provenance. Layers of `keep` that have no LoRA are passed over; tensors keep their type and their bytes.
///
/// # Errors
/// `keep` is not strictly ascending, or has no layer with LoRA; `out` exists already; the folder cannot be written.
pub fn write_trimmed(adapter: &Adapter, keep: &[usize], card: &Provenance, out: &Path) -> Result<Written> {
    if !keep.is_sorted_by(|a, b| a < b) {
        return Err(Error::Usage(format!("the layers to keep must be ascending, without repetition: got {keep:?}")));
    }
    let wanted: BTreeSet<usize> = keep.iter().copied().collect();
    let (layers_kept, layers_dropped): (Vec<usize>, Vec<usize>) =
        adapter.layers().into_iter().partition(|layer| wanted.contains(layer));
    if layers_kept.is_empty() {
        return Err(Error::Usage(
            "no layer with LoRA is kept: use the base model without an adapter; nothing is written".to_owned(),
        ));
    }
    let modules: Vec<&Module> = adapter.modules().filter(|module| wanted.contains(&module.layer)).collect();
    let written = Written {
        folder: out.to_owned(),
        modules: modules.len(),
        bytes: modules.iter().map(|module| module.bytes).sum(),
        bytes_before: adapter.bytes(),
        layers_kept,
        layers_dropped,
    };
    let config = if written.layers_dropped.is_empty() {
        adapter.config.clone()
    } else {
        trimmed_config(adapter, &written.layers_kept)?
    };
    let weights = views(adapter, &modules)?;
    files::write_folder(out, |folder| {
        write_json(&folder.join(CONFIG_FILE), config.raw())?;
        let weights_path = folder.join(WEIGHTS_FILE);
        write_weights(&weights_path, weights)?;
        // What serialises them makes the file private to its owner.
        files::make_readable(&weights_path, 0o644).map_err(Error::write(&weights_path))?;
        write_json(&folder.join(PROVENANCE_FILE), &provenance(&written, card)?)?;
        let readme = folder.join(CARD_FILE);
        fs::write(&readme, model_card(adapter, &written, card)).map_err(Error::write(&readme))
    })?;
    Ok(written)
}

/// The adapter's config, restricted to the layers `kept`.
fn trimmed_config(adapter: &Adapter, kept: &[usize]) -> Result<AdapterConfig> {
    let config = &adapter.config;
    let problem = |problem| Error::input(adapter.config_path(), problem);
    let is_kept = |module: &&Module| kept.binary_search(&module.layer).is_ok();
    let paths: Vec<String> =
        adapter.modules().filter(is_kept).map(|module| adapter.path(module.layer, module.projection)).collect();
    let mut by_layer = config.patterns_for(&paths).map_err(problem)?;
    let mut by_path = by_layer.clone();

    let container = adapter.stack.rsplit_once('.').map_or(adapter.stack, |(_, name)| name);
    by_layer.extend([("layers_to_transform", json!(kept)), ("layers_pattern", json!(container))]);
    if !config.targets().is_list() {
        let names = |projection: &Projection| adapter.modules().any(|module| module.projection == *projection);
        let names: Vec<_> = Projection::ALL.into_iter().filter(names).map(Projection::name).collect();
        by_layer.push(("target_modules", json!(names)));
    }
    let by_layer = config.with_fields(&by_layer).map_err(problem)?;
    if says_exactly(&by_layer, adapter, kept).map_err(problem)? {
        return Ok(by_layer);
    }

    by_path.push(("target_modules", json!(paths)));
    by_path.extend([("layers_to_transform", Value::Null), ("layers_pattern", Value::Null)]);
    let by_path = config.with_fields(&by_path).map_err(problem)?;
    if says_exactly(&by_path, adapter, kept).map_err(problem)? {
        return Ok(by_path);
    }
    Err(Error::Internal("the trimmed adapter's config does not name exactly the modules that are kept".to_owned()))
}

/// Whether the config targets all modules of the adapter in the layers `kept` and no other module of its layers.
fn says_exactly(config: &AdapterConfig, adapter: &Adapter, kept: &[usize]) -> Result<bool, super::AdapterProblem> {
    for layer in adapter.layers() {
        for projection in Projection::ALL {
            let is_kept = adapter.modules.contains_key(&(layer, projection)) && kept.binary_search(&layer).is_ok();
            let path = adapter.path(layer, projection);
            if config.adapts(&path)? != is_kept {
                return Ok(false);
            }
            // The trim may not change what a module that stays is scaled by.
            if is_kept && config.rank_and_alpha(&path)? != adapter.config.rank_and_alpha(&path)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The modules' tensors as they lie in the file.
fn views<'a>(adapter: &'a Adapter, modules: &[&'a Module]) -> Result<BTreeMap<&'a str, TensorView<'a>>> {
    let view = |name: &'a String| {
        let dtype = match adapter.tensors.dtype(name)? {
            "F32" => Dtype::F32,
            "F16" => Dtype::F16,
            "BF16" => Dtype::BF16,
            _ => return None,
        };
        TensorView::new(dtype, adapter.tensors.shape(name)?.to_vec(), adapter.tensors.bytes(name)?).ok()
    };
    let names = modules.iter().flat_map(|module| [&module.a, &module.b]);
    let with_view = |name: &'a String| {
        let lost = || Error::Internal(format!("tensor {name} is not what it was when the adapter was opened"));
        view(name).map(|view| (name.as_str(), view)).ok_or_else(lost)
    };
    names.map(with_view).collect()
}

fn write_weights(path: &Path, weights: BTreeMap<&str, TensorView<'_>>) -> Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(weights, Some(metadata), path).map_err(|error| {
        let reason = match error {
            SafeTensorError::IoError(reason) => reason,
            other => io::Error::other(other.to_string()),
        };
        Error::Write { path: path.to_owned(), reason }
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Error::Internal(error.to_string()))?;
    text.push('\n');
    fs::write(path, text).map_err(Error::write(path))
}

/// The content of [`PROVENANCE_FILE`].
fn provenance(written: &Written, card: &Provenance) -> Result<Value> {
    let mut fields = json!({
        "schema": SCHEMA,
        "layers_kept": written.layers_kept,
        "layers_dropped": written.layers_dropped,
        "modules": written.modules,
        "bytes": written.bytes,
        "bytes_before": written.bytes_before,
    });
    let card = serde_json::to_value(card).map_err(|error| Error::Internal(error.to_string()))?;
    if let (Value::Object(fields), Value::Object(card)) = (&mut fields, card) {
        fields.extend(card.into_iter().filter(|(_, value)| !value.is_null()));
    }
    Ok(fields)
}

/// The content of [`CARD_FILE`], in the form that the Hugging Face Hub reads.
fn model_card(adapter: &Adapter, written: &Written, card: &Provenance) -> String {
    let base = adapter.config.base_model();
    let mut text = String::from("---\n");
    // Only a repository's id may stand here: the Hub refuses a card that names somebody's local path.
    if let Some(id) = base.filter(|name| is_repository_id(name)) {
        text += &format!("base_model: {id}\n");
    }
    text += "library_name: peft\ntags:\n- lora\n- plimsoll\n---\n\n# A trimmed LoRA adapter\n\n";
    let total = written.layers_kept.len() + written.layers_dropped.len();
    if written.layers_dropped.is_empty() {
        text += &format!("All {total} layers of the adapter are kept.");
    } else {
        text += &format!(
            "LoRA is kept in the layers {} and dropped in the layers {} (0 is next to the embedding). ",
            ranges(&written.layers_kept),
            ranges(&written.layers_dropped)
        );
        text += "Nothing was retrained: the kept tensors are those of the whole adapter, byte for byte.";
    }
    text += &format!(
        "\n\n| | |\n|---|---|\n| LoRA modules | {} of {} |\n| bytes of tensors | {} of {} |\n",
        written.modules,
        adapter.modules().len(),
        written.bytes,
        written.bytes_before
    );
    if let Some(base) = base {
        let base = if is_repository_id(base) { base } else { last_component(base) };
        text += &format!("| base model | {} |\n", code(base));
    }
    if let Some(layers) = card.model_layers {
        text += &format!("| layers of the base model | {layers} |\n");
    }
    if let Some(scores) = &card.scores {
        text += &score_section(scores);
    }
    text += "\n## Where it comes from\n\n";
    text += &format!("- made by {}\n", code(&card.tool));
    for (what, source) in [("adapter", &card.adapter), ("measured on", &card.model), ("samples", &card.data)] {
        if let Some(source) = source {
            text += &format!("- {what}: {}, SHA-256 {}\n", code(last_component(&source.path)), code(&source.sha256));
        }
    }
    if let Some(seed) = card.seed {
        text += &format!("- seed: {seed}\n");
    }
    let command = if card.command.is_some() { ", with the command that repeats it" } else { "" };
    text += &format!("\nThe same, for programs{command}: `{PROVENANCE_FILE}`.\n");
    text
}

/// The last part of a path of any system: a card is made to be published, and where things lay on somebody's disk is
/// nobody else's business.
fn last_component(path: &str) -> &str {
    path.rsplit(['/', '\\']).find(|part| !matches!(*part, "" | "." | "..")).unwrap_or("–")
}

fn score_section(scores: &TrimScores) -> String {
    let TrimScores { metric, samples, base, full, trimmed, gain, retained } = scores;
    let (what, unit, better) = match metric {
        Some(metric) => (format!("{} of generated answers", code(metric)), code(metric), "higher"),
        None => (
            "Mean negative log-likelihood of the answers in nats per token".to_owned(),
            "nats per token".to_owned(),
            "lower",
        ),
    };
    let mut text = format!(
        "\n## Scores\n\n{what}, on {samples} samples that had no part in choosing the layers; {better} is better.\n\n\
         | | {unit} |\n|---|---|\n| base model | {base:.4} |\n| whole adapter | {full:.4} |\n| this adapter | \
         {trimmed:.4} |\n\nAgainst the whole adapter it gains {:.4} {unit} (95 % interval {:.4} to {:.4}; positive is \
         better).",
        gain.value, gain.low, gain.high
    );
    if let Some(Estimate { value, low, high }) = retained {
        text += &format!(
            " It retains {:.1} % of what the whole adapter gains over the base model ({:.1} % to {:.1} %).",
            100.0 * value,
            100.0 * low,
            100.0 * high
        );
    }
    text + "\n"
}

/// Ascending numbers, with runs drawn together: `0–3, 7`.
pub(crate) fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}–{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    };
    runs.map(run).collect::<Vec<String>>().join(", ")
}

/// Text from outside as a Markdown code span that it cannot leave, in a table cell or a list.
fn code(text: &str) -> String {
    let harmless = |c: char| match c {
        '`' => '\'',
        '|' => '¦',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", text.chars().map(harmless).collect::<String>())
}

/// Whether this is `name` or `organisation/name` in the characters that the Hub allows.
fn is_repository_id(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    name.len() <= 96 && name.split('/').count() == 2 && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_drawn_together() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0–3, 7, 9–10");
        assert_eq!(ranges(&[5]), "5");
    }

    #[test]
    fn only_a_repository_is_named_as_base_model() {
        assert!(is_repository_id("HuggingFaceTB/SmolLM2-135M-Instruct"));
        for name in ["D:\\models\\x", "/home/me/model", "./model", "a/b/c", "a/b\nlicense: mit", "a b/c", "model", ""] {
            assert!(!is_repository_id(name), "{name}");
        }
    }

    #[test]
    fn a_card_names_no_folder_of_somebodys_disk() {
        for (path, expected) in [
            ("/home/me/lora", "lora"),
            ("lora/", "lora"),
            ("C:\\Users\\me\\lora", "lora"),
            ("model.gguf", "model.gguf"),
            ("../lora/.", "lora"),
            ("/", "–"),
            ("..", "–"),
        ] {
            assert_eq!(last_component(path), expected);
        }
    }

    #[test]
    fn outside_text_stays_in_its_code_span() {
        assert_eq!(code("a`b|c\nd"), "`a'b¦c d`");
    }
}
