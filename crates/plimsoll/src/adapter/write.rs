//! Writing a trimmed adapter: what a variant leaves of the LoRA, in a folder that PEFT loads without a warning.
//!
//! A module whose gate is 0 leaves the files; one whose gate is 1 keeps its tensors byte for byte; any other gate is
//! folded into B (see `fold`), so that the scale stays what it was.
//!
//! Deleting tensors is not enough: PEFT then warns of missing keys, and goes on computing with zeros. The config must
//! say which modules are left, and there are three ways to say it (PEFT 0.21.2, `check_target_module_exists`):
//! 1. `target_modules` as it is, where it is a list, with `layers_to_transform` and `layers_pattern`;
//! 2. the same with `target_modules` as the names of the modules that are left. A regular expression and `all-linear`
//!    are expanded so, because PEFT refuses them together with `layers_to_transform`;
//! 3. where layers differ in their modules, or the list names full paths (which `layers_to_transform` does not
//!    restrict), `target_modules` as the full path of every module that is left.
//!
//! Which one is right is not reasoned about but tried: the new config is parsed again and asked about every module.
//! Entries of `rank_pattern` and `alpha_pattern` that match none of the modules that are left go, because PEFT warns of
//! them; every other field stays as it was. An empty `layers_to_transform` would mean *all* layers, so keeping nothing is
//! an error: that is the base model.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::fold::fold;
use super::keys::{KEY_PREFIX, Part};
use super::{Adapter, AdapterConfig, AdapterProblem, CONFIG_FILE, EndModule, Ends, Layout, Module, Names, Saved, mlx};
use crate::error::{Error, Result};
use crate::files;
use crate::gates::{Projection, Variant};

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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Written {
    /// The new folder.
    pub folder: PathBuf,
    /// The gates of the adapter's layers, as [`Variant::parse`] reads them.
    pub gates: String,
    /// Layers that have LoRA in it, ascending.
    pub layers_kept: Vec<usize>,
    /// Layers whose whole LoRA was dropped, ascending.
    pub layers_dropped: Vec<usize>,
    /// Number of LoRA modules in it.
    pub modules: usize,
    /// Number of LoRA modules that were dropped.
    pub modules_dropped: usize,
    /// Gates that were folded into B: those that occur but 0 and 1, ascending.
    pub strengths: Vec<f32>,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Bytes of the whole adapter's tensors.
    pub bytes_before: u64,
}

/// The adapter's modules under a variant, each in the order of [`Adapter::modules`].
struct Cut<'a> {
    /// Those that stay, with their gates.
    kept: Vec<(&'a Module, f32)>,
    dropped: Vec<&'a Module>,
    /// LoRA on the ends of the model that stays.
    ends: Vec<&'a EndModule>,
}

/// Writes what the variant leaves of the adapter to the new folder `out`, in the adapter's own layout, with its config, a
/// model card and its provenance. Gates of places without LoRA say nothing, and the variant may have more layers than the
/// adapter. Weights that were trained in full stay; LoRA on the ends of the model as [`Adapter::with_ends`] has it.
///
/// # Errors
/// The adapter has LoRA in a layer that the variant has not; no module is kept; a gate makes a tensor's values too
/// large for their type, or is neither 0 nor 1 for DoRA; there is LoRA on an end of the model and no word on what becomes
/// of it; `out` exists already; the folder cannot be written.
pub fn write_trimmed(adapter: &Adapter, variant: &Variant, card: &Provenance, out: &Path) -> Result<Written> {
    write_trimmed_as(adapter, variant, card, adapter.layout, out)
}

/// The same in a layout of choice.
///
/// # Errors
/// As [`write_trimmed`], and what mlx-lm's layout cannot say.
pub fn write_trimmed_as(
    adapter: &Adapter,
    variant: &Variant,
    card: &Provenance,
    layout: Layout,
    out: &Path,
) -> Result<Written> {
    let layers = adapter.layers();
    let highest = layers.last().copied().unwrap_or(0);
    let Some(gates) = variant.gates.get(..=highest) else {
        let found = variant.gates.len();
        return Err(Error::Usage(format!("gates of {found} layers: the adapter has LoRA in layer {highest}")));
    };
    let mut cut = Cut { kept: Vec::new(), dropped: Vec::new(), ends: adapter.kept_ends()?.collect() };
    for module in adapter.modules() {
        match gates[module.layer].get(module.projection) {
            0.0 => cut.dropped.push(module),
            gate => cut.kept.push((module, gate)),
        }
    }
    if cut.kept.is_empty() {
        return Err(Error::Usage(
            "no LoRA is kept: use the base model without an adapter; nothing is written".to_owned(),
        ));
    }
    let mut strengths: Vec<f32> = cut.kept.iter().map(|(_, gate)| *gate).filter(|gate| *gate != 1.0).collect();
    if let Some(&strength) = strengths.first().filter(|_| adapter.config.use_dora()) {
        return Err(Error::input(&adapter.folder, AdapterProblem::Strength { strength }));
    }
    strengths.sort_by(f32::total_cmp);
    strengths.dedup();
    let (layers_kept, layers_dropped) =
        layers.into_iter().partition(|layer| cut.kept.iter().any(|(module, _)| module.layer == *layer));
    let written = Written {
        folder: out.to_owned(),
        gates: Variant { gates: gates.to_vec() }.spec(),
        layers_kept,
        layers_dropped,
        modules: cut.kept.len(),
        modules_dropped: cut.dropped.len(),
        strengths,
        bytes: cut.kept.iter().map(|(module, _)| module.bytes).chain(cut.ends.iter().map(|end| end.bytes)).sum::<u64>()
            + adapter.bytes_saved(),
        bytes_before: adapter.bytes(),
    };
    let everything = cut.dropped.is_empty() && cut.ends.len() == adapter.end_modules.len();
    let config = if everything { adapter.config.clone() } else { trimmed_config(adapter, &cut)? };
    let mut config = config.raw().clone();
    // Of linear modules PEFT warns that it does not count.
    if config.get("fan_in_fan_out") == Some(&Value::Bool(true)) {
        config.insert("fan_in_fan_out".into(), Value::Bool(false));
    }
    if layout == Layout::Mlx {
        config = mlx_config(adapter, &cut)?;
    }
    let tensors = tensors(adapter, &cut, layout)?;
    files::write_folder(out, |folder| {
        write_json(&folder.join(CONFIG_FILE), &config)?;
        let weights_path = folder.join(layout.weights_file());
        write_weights(&weights_path, &tensors)?;
        // What serialises them makes the file private to its owner.
        files::make_readable(&weights_path, 0o644).map_err(Error::write(&weights_path))?;
        write_json(&folder.join(PROVENANCE_FILE), &ProvenanceFile::new(&written, adapter.ends_choice(), card)?)?;
        let readme = folder.join(CARD_FILE);
        fs::write(&readme, model_card(adapter, &cut, &written, card)).map_err(Error::write(&readme))
    })?;
    Ok(written)
}

/// The adapter's config, restricted to the modules that are kept.
fn trimmed_config(adapter: &Adapter, cut: &Cut<'_>) -> Result<AdapterConfig> {
    let config = &adapter.config;
    let problem = |problem| Error::input(adapter.config_path(), problem);
    let kept: BTreeSet<(usize, Projection)> =
        cut.kept.iter().map(|(module, _)| (module.layer, module.projection)).collect();
    let paths: Vec<String> = kept.iter().map(|&(layer, projection)| adapter.path(layer, projection)).collect();
    let layers: BTreeSet<usize> = kept.iter().map(|(layer, _)| *layer).collect();
    let has = |projection: &Projection| kept.iter().any(|(_, kept)| kept == projection);
    let ends: Vec<&str> = cut.ends.iter().map(|end| end.path.as_str()).collect();
    let mut names: Vec<&str> = Projection::ALL.into_iter().filter(has).map(Projection::name).collect();
    names.extend(&ends);
    let container = adapter.stack.rsplit_once('.').map_or(adapter.stack, |(_, name)| name);

    let as_it_is = config.raw().get("target_modules").filter(|_| config.targets().is_list()).cloned();
    let by_layer = [("layers_to_transform", json!(layers)), ("layers_pattern", json!(container))];
    let by_path = [("layers_to_transform", Value::Null), ("layers_pattern", Value::Null)];
    let mut targets: Vec<&str> = paths.iter().map(String::as_str).collect();
    targets.extend(&ends);
    let ways = as_it_is.into_iter().chain([json!(names)]).map(|targets| (targets, &by_layer));
    for (targets, layers) in ways.chain([(json!(targets), &by_path)]) {
        let mut fields = config.patterns_for(&paths).map_err(problem)?;
        fields.push(("target_modules", targets));
        fields.extend(layers.iter().cloned());
        let trimmed = config.with_fields(&fields).map_err(problem)?;
        if says_exactly(&trimmed, adapter, &kept, &cut.ends).map_err(problem)? {
            return Ok(trimmed);
        }
    }
    Err(Error::Internal("the trimmed adapter's config does not name exactly the modules that are kept".to_owned()))
}

/// Whether the config targets the modules `kept`, these ends, and no other module of the adapter's layers.
fn says_exactly(
    config: &AdapterConfig,
    adapter: &Adapter,
    kept: &BTreeSet<(usize, Projection)>,
    ends: &[&EndModule],
) -> Result<bool, AdapterProblem> {
    for end in adapter.end_modules.values() {
        let is_kept = ends.iter().any(|kept| kept.end == end.end);
        if config.adapts(&end.path)? != is_kept {
            return Ok(false);
        }
        if is_kept && config.rank_and_alpha(&end.path)? != adapter.config.rank_and_alpha(&end.path)? {
            return Ok(false);
        }
    }
    // A base has the fused modules or the others: of those that it has not, a config may say what it will.
    let is_fused = |projection: Projection| matches!(projection, Projection::Qkv | Projection::GateUp);
    let has_fused = adapter.modules.keys().any(|(_, projection)| is_fused(*projection));
    let is_there = |projection: &Projection| match projection {
        Projection::O | Projection::Down => true,
        projection => is_fused(*projection) == has_fused || adapter.modules.keys().any(|(_, own)| own == projection),
    };
    for layer in adapter.layers() {
        for projection in Projection::ALL.into_iter().filter(is_there) {
            let is_kept = kept.contains(&(layer, projection));
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

/// mlx-lm's config for what is kept.
fn mlx_config(adapter: &Adapter, cut: &Cut<'_>) -> Result<serde_json::Map<String, Value>> {
    let refused = |reason| Error::input(&adapter.folder, AdapterProblem::NotForMlx(reason));
    let [first, ..] = cut.kept[..] else { return Err(refused("it has no modules")) };
    let (rank, scale) = (first.0.rank, first.0.scale);
    if cut.kept.iter().any(|(module, _)| module.rank != rank || module.scale != scale) {
        return Err(refused("its modules have several ranks or scales"));
    }
    if !cut.ends.is_empty() || !adapter.saved.is_empty() {
        return Err(refused("it changes more than linear modules of layers"));
    }
    let paths = cut.kept.iter().map(|(module, _)| module.projection.path()).collect();
    Ok(mlx::written(adapter.config.base_model(), adapter.config.use_dora(), rank, scale, &paths))
}

/// A tensor as it is written.
struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// The tensors that stay, by their names in the layout: as they lie in the file, turned where the layouts differ, or
/// folded.
fn tensors<'a>(adapter: &'a Adapter, cut: &Cut<'a>, layout: Layout) -> Result<BTreeMap<String, Tensor<'a>>> {
    let as_it_is = |name: &str| -> Result<Tensor<'a>> {
        let bytes = adapter.tensors.bytes(name).ok_or_else(|| lost(name))?;
        let shape = adapter.tensors.shape(name).unwrap_or_default().to_vec();
        Ok(Tensor { dtype: dtype(adapter, name)?, shape, bytes: Cow::Borrowed(bytes) })
    };
    let mut written = BTreeMap::new();
    let mut put = |path: &str, names: &Names, gate: f32, embedding: bool| -> Result<()> {
        let parts = [(Part::A, Some(&names.a)), (Part::B, Some(&names.b)), (Part::Magnitude, names.magnitude.as_ref())];
        for (part, name) in parts {
            let Some(name) = name else { continue };
            let mut tensor = as_it_is(name)?;
            if part == Part::B && gate != 1.0 {
                let values = adapter.tensors.read(name)?;
                let bytes = fold(name, &values, gate, tensor.dtype);
                tensor.bytes = Cow::Owned(bytes.map_err(|problem| Error::input(adapter.weights_path(), problem))?);
            }
            if layout != adapter.layout {
                tensor = turned(tensor);
            }
            let key = match (layout, part) {
                (Layout::Mlx, part) => mlx::key(path, part),
                (Layout::Peft, Part::A) if embedding => format!("{KEY_PREFIX}{path}.lora_embedding_A"),
                (Layout::Peft, Part::B) if embedding => format!("{KEY_PREFIX}{path}.lora_embedding_B"),
                (Layout::Peft, Part::A) => format!("{KEY_PREFIX}{path}.lora_A.weight"),
                (Layout::Peft, Part::B) => format!("{KEY_PREFIX}{path}.lora_B.weight"),
                (Layout::Peft, Part::Magnitude) => format!("{KEY_PREFIX}{path}.lora_magnitude_vector"),
            };
            written.insert(key, tensor);
        }
        Ok(())
    };
    for (module, gate) in &cut.kept {
        put(&adapter.path(module.layer, module.projection), &module.names, *gate, false)?;
    }
    for end in &cut.ends {
        put(&end.path, &end.names, 1.0, end.end == super::End::Embedding)?;
    }
    for Saved { name, path, key } in &adapter.saved {
        // The module of an end that has LoRA is wrapped, so that its own weight lies deeper.
        let is_wrapped = cut.ends.iter().any(|end| end.end.weight() == name);
        let path = match path.strip_suffix(".weight").filter(|_| is_wrapped) {
            Some(module) => format!("{module}.base_layer.weight"),
            None => path.clone(),
        };
        written.insert(format!("{KEY_PREFIX}{path}"), as_it_is(key)?);
    }
    Ok(written)
}

/// The transpose of a matrix; of a vector, itself.
fn turned(tensor: Tensor<'_>) -> Tensor<'_> {
    let &[rows, columns] = &tensor.shape[..] else { return tensor };
    let size = tensor.dtype.bitsize() / 8;
    let at = |row: usize, column: usize| &tensor.bytes[(row * columns + column) * size..][..size];
    let bytes: Vec<u8> =
        (0..columns).flat_map(|column| (0..rows).flat_map(move |row| at(row, column)).copied()).collect();
    Tensor { dtype: tensor.dtype, shape: vec![columns, rows], bytes: Cow::Owned(bytes) }
}

/// The type that a tensor of the adapter is stored in.
fn dtype(adapter: &Adapter, name: &str) -> Result<Dtype> {
    match adapter.tensors.dtype(name) {
        Some("F32") => Ok(Dtype::F32),
        Some("F16") => Ok(Dtype::F16),
        Some("BF16") => Ok(Dtype::BF16),
        _ => Err(lost(name)),
    }
}

fn lost(name: &str) -> Error {
    Error::Internal(format!("tensor {name} is not what it was when the adapter was opened"))
}

fn write_weights(path: &Path, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<()> {
    let mut weights = Vec::with_capacity(tensors.len());
    for (name, Tensor { dtype, shape, bytes }) in tensors {
        weights.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|_| lost(name))?));
    }
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
#[derive(Serialize)]
struct ProvenanceFile<'a> {
    schema: u32,
    gates: &'a str,
    layers_kept: &'a [usize],
    layers_dropped: &'a [usize],
    modules: usize,
    modules_dropped: usize,
    strengths: &'a [f32],
    bytes: u64,
    bytes_before: u64,
    /// What became of LoRA on the ends of the model, where there is such LoRA.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<Ends>,
    #[serde(flatten)]
    card: Value,
}

impl<'a> ProvenanceFile<'a> {
    fn new(written: &'a Written, ends: Option<Ends>, card: &Provenance) -> Result<Self> {
        let mut card = serde_json::to_value(card).map_err(|error| Error::Internal(error.to_string()))?;
        if let Some(fields) = card.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        Ok(Self {
            schema: SCHEMA,
            gates: &written.gates,
            layers_kept: &written.layers_kept,
            layers_dropped: &written.layers_dropped,
            modules: written.modules,
            modules_dropped: written.modules_dropped,
            strengths: &written.strengths,
            bytes: written.bytes,
            bytes_before: written.bytes_before,
            ends,
            card,
        })
    }
}

/// The content of [`CARD_FILE`], in the form that the Hugging Face Hub reads.
fn model_card(adapter: &Adapter, cut: &Cut<'_>, written: &Written, card: &Provenance) -> String {
    let base = adapter.config.base_model();
    let mut text = String::from("---\n");
    // Only a repository's id may stand here: the Hub refuses a card that names somebody's local path.
    if let Some(id) = base.filter(|name| is_repository_id(name)) {
        text += &format!("base_model: {id}\n");
    }
    text += "library_name: peft\ntags:\n- lora\n- plimsoll\n---\n\n# A trimmed LoRA adapter\n\n";
    text += &what_is_kept(cut, written);
    text += &what_is_beside(adapter);
    text += &format!(
        "\n\n| | |\n|---|---|\n| LoRA modules | {} of {} |\n| bytes of tensors | {} of {} |\n| gates | {} |\n",
        written.modules,
        adapter.modules().len(),
        written.bytes,
        written.bytes_before,
        code(&written.gates)
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

/// What a reader of the card should know of the tensors, in sentences.
fn what_is_kept(cut: &Cut<'_>, written: &Written) -> String {
    let Written { layers_kept, layers_dropped, .. } = written;
    let mut text = if layers_dropped.is_empty() {
        format!("All {} layers of the adapter are kept.", layers_kept.len())
    } else {
        let (kept, dropped) = (layers(layers_kept), layers(layers_dropped));
        format!("LoRA is kept in {kept} and dropped in {dropped} (0 is next to the embedding).")
    };
    let in_kept_layers = |module: &&Module| layers_kept.contains(&module.layer);
    let dropped: Vec<&Module> = cut.dropped.iter().copied().filter(in_kept_layers).collect();
    if !dropped.is_empty() {
        text += &format!(" Of the layers that are kept, single modules are dropped: {}.", places(&dropped));
    }
    if written.strengths.is_empty() {
        if !cut.dropped.is_empty() {
            text += " Nothing was retrained: the kept tensors are those of the whole adapter, byte for byte.";
        }
        return text;
    }
    text += " Nothing was retrained, but strengths are multiplied into lora_B, which is rounded to the type that it is \
             stored in:";
    for (index, strength) in written.strengths.iter().enumerate() {
        let of_strength = cut.kept.iter().filter(|(_, gate)| gate == strength).map(|(module, _)| *module);
        let places = places(&of_strength.collect::<Vec<_>>());
        text += &format!("{} {strength} for {places}", if index > 0 { ";" } else { "" });
    }
    text + ". All other tensors are those of the whole adapter."
}

/// What of the adapter belongs to no layer, in sentences.
fn what_is_beside(adapter: &Adapter) -> String {
    let mut text = String::new();
    let ends: Vec<&str> = adapter.ends().map(super::End::name).collect();
    if !ends.is_empty() {
        let what = if adapter.ends == Some(Ends::Keep) { "kept" } else { "dropped" };
        text += &format!(" LoRA on {} is {what}.", ends.join(" and "));
    }
    if !adapter.saved.is_empty() {
        let names: Vec<String> = adapter.saved().map(code).collect();
        text += &format!(" Weights that were trained in full are kept: {}.", names.join(", "));
    }
    text
}

/// Modules, those of the same layers drawn together: `q_proj, k_proj in the layers 0–3; v_proj in layer 2`.
fn places(modules: &[&Module]) -> String {
    let mut by_layers: BTreeMap<Vec<usize>, Vec<&str>> = BTreeMap::new();
    for projection in Projection::ALL {
        let of_it = modules.iter().filter(|module| module.projection == projection);
        by_layers.entry(of_it.map(|module| module.layer).collect()).or_default().push(projection.name());
    }
    by_layers.remove(&Vec::new());
    let told = by_layers.iter().map(|(numbers, names)| format!("{} in {}", names.join(", "), layers(numbers)));
    told.collect::<Vec<_>>().join("; ")
}

/// Layers in a sentence: `layer 7`, `the layers 0–3, 7`.
fn layers(numbers: &[usize]) -> String {
    let word = if numbers.len() == 1 { "layer" } else { "the layers" };
    format!("{word} {}", ranges(numbers))
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
