//! PEFT LoRA folders: read, refuse, trim, write, inspect.
//!
//! An adapter is `adapter_config.json` and `adapter_model.safetensors`. Each tensor's key is
//! `base_model.model.<module path>.lora_A.weight` of shape (rank, in), or `.lora_B.weight` of shape (out, rank), and
//! the update it stands for is `s·B(Ax)`. Source: PEFT 0.21.2. Departures, on purpose: PEFT loads an adapter whose
//! tensors do not fit the config or the base model with a warning, or none; here every tensor must be used, and every
//! module that the config targets must have its tensors, or the adapter is refused with the names of those at fault.
//!
//! - [`Adapter::open`] checks all that can be checked without the base model, [`Adapter::bind`] the rest;
//! - [`write_trimmed`] writes what a variant leaves of the LoRA to a folder that PEFT loads without a warning;
//! - [`inspect()`] says what is in an adapter, and what each runtime makes of it.

mod config;
mod fold;
mod inspect;
mod runtimes;
mod targets;
mod write;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, shown};
use crate::files;
use crate::gates::{Projection, Variant};
use crate::model::{MAX_LAYERS, Tensors};

pub use config::{AdapterConfig, Scaling};
pub use inspect::{Inspection, ModuleInspection, inspect};
pub use runtimes::{RuntimeFacts, Support};
pub(crate) use write::ranges;
pub use write::{CARD_FILE, Estimate, PROVENANCE_FILE, Provenance, Source, TrimScores, Written, write_trimmed};

/// The name of PEFT's config file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The name of PEFT's weight file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// What PEFT puts in front of the base model's own names.
const KEY_PREFIX: &str = "base_model.model.";

/// Where decoder blocks are found. A vision or audio tower has blocks of the same names elsewhere: those are refused.
const STACKS: &[&str] = &[
    "model.layers",
    "layers",
    "model.language_model.layers",
    "language_model.model.layers",
    "language_model.layers",
    "transformer.h",
    "h",
];

/// More tensors than this are refused; the largest models have some two thousand LoRA halves.
const MAX_TENSORS: usize = 1 << 15;

/// How many faults are told apart in one message; the rest are counted.
const FAULTS_TOLD: usize = 5;

/// What is wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterProblem {
    /// The path is not a folder.
    #[error("expected an adapter folder with adapter_config.json and adapter_model.safetensors, found a file")]
    NotAFolder,
    /// One of the two files is not there.
    #[error("{file} is missing: expected an adapter folder with {CONFIG_FILE} and {WEIGHTS_FILE}, found {found}")]
    NoFile {
        /// The file that is missing.
        file: &'static str,
        /// What is there, and what may have been meant.
        found: String,
    },
    /// The weights are a Python pickle.
    #[error(
        "has adapter_model.bin only, which is a Python pickle and is not read: save it again with PEFT's \
         `save_pretrained(..., safe_serialization=True)`"
    )]
    Pickle,
    /// The folder was written by mlx-lm.
    #[error("has adapters.safetensors, mlx-lm's layout: only PEFT's (adapter_model.safetensors) is read")]
    Mlx,
    /// `adapter_config.json` is not what it should be.
    #[error("not an adapter configuration: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A setting without which the adapter cannot be applied.
    #[error("{key} is missing")]
    Missing {
        /// The setting.
        key: &'static str,
    },
    /// A setting of a wrong type or out of range.
    #[error("{key}: expected {expected}, found {found}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A setting that asks for something this project does not do.
    #[error("{key} is {value}: {reason}")]
    Unsupported {
        /// The setting.
        key: String,
        /// What it is.
        value: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// A list or table that is absurdly long.
    #[error("{key} has {found} entries: at most {limit} are read")]
    TooMany {
        /// The setting, or `tensors`.
        key: &'static str,
        /// How many there are.
        found: usize,
        /// How many are read.
        limit: usize,
    },
    /// `layers_pattern` on its own.
    #[error("layers_pattern is set and layers_to_transform is not: PEFT refuses this too")]
    PatternWithoutLayers,
    /// A regular expression as target together with a restriction to layers.
    #[error("target_modules is a text and {key} is set: PEFT refuses this too; give target_modules as a list")]
    StringTargets {
        /// The setting.
        key: &'static str,
    },
    /// A regular expression that is not one, or is not supported.
    #[error("{key}: cannot use the regular expression {pattern:?}: {reason}")]
    Regex {
        /// The setting.
        key: &'static str,
        /// The expression.
        pattern: String,
        /// Why not.
        reason: String,
    },
    /// A regular expression that backtracks without end.
    #[error("{key}: a regular expression takes too many steps on {path}")]
    RegexTooHard {
        /// The setting.
        key: &'static str,
        /// The module's path.
        path: String,
    },
    /// Tensors that do not fit.
    #[error("{0}")]
    Faults(Faults),
    /// A tensor that cannot be multiplied by its gate and keep its type.
    #[error(
        "{}: its largest value, {value:?}, times the gate {gate} is {product:?}, and {dtype} holds {limit:?} at most: give a \
         gate nearer to 0, or convert the adapter to a type that holds more",
        shown(tensor)
    )]
    Overflow {
        /// The tensor's name in the file.
        tensor: String,
        /// Its largest value.
        value: f32,
        /// The gate.
        gate: f32,
        /// What becomes of the value.
        product: f64,
        /// The type that it is stored in.
        dtype: &'static str,
        /// The largest number of that type.
        limit: f64,
    },
}

/// Tensors that fit neither the config nor each other nor the base model: the first few, and how many there are.
#[derive(Debug, Default)]
pub struct Faults {
    first: Vec<String>,
    count: usize,
}

impl Faults {
    fn push(&mut self, fault: impl Display) {
        if self.count < FAULTS_TOLD {
            self.first.push(fault.to_string());
        }
        self.count += 1;
    }

    fn into_result(self, path: &Path) -> Result<()> {
        if self.count == 0 { Ok(()) } else { Err(Error::input(path, AdapterProblem::Faults(self))) }
    }
}

impl Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("\n  "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// A PEFT LoRA adapter whose config and tensors agree with each other.
#[derive(Debug)]
pub struct Adapter {
    folder: PathBuf,
    config: AdapterConfig,
    tensors: Tensors,
    /// The base model's path of its list of blocks, such as `model.layers`.
    stack: &'static str,
    modules: BTreeMap<(usize, Projection), Module>,
}

/// One LoRA module: its place, its scale and its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The decoder block, 0 next to the embedding.
    pub layer: usize,
    /// The linear module in that block.
    pub projection: Projection,
    /// The rank r.
    pub rank: usize,
    /// The alpha that the config gives it.
    pub alpha: f64,
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub scale: f64,
    /// Length of the module's input.
    pub in_features: usize,
    /// Length of the module's output.
    pub out_features: usize,
    /// Bytes of A and B in the file.
    pub bytes: u64,
    /// A's name in the file.
    a: String,
    /// B's name in the file.
    b: String,
}

/// The weights of one LoRA module, ready to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraWeights {
    /// The down projection A, row by row.
    pub a: Vec<f32>, // (rank, in)
    /// The up projection B, row by row.
    pub b: Vec<f32>, // (out, rank)
    /// The rank r.
    pub rank: usize,
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub scale: f32,
    /// The magnitudes m of DoRA (arXiv:2402.09353), where the module has them: the row `w` of `W + s·BA` with the
    /// magnitude `m` is applied as `m·w/‖w‖`.
    pub magnitude: Option<Vec<f32>>, // (out)
}

/// The LoRA of one decoder block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerLora(pub [Option<LoraWeights>; Projection::COUNT]);

impl LayerLora {
    /// The LoRA of one module, if it has any.
    pub fn get(&self, projection: Projection) -> Option<&LoraWeights> {
        self.0[projection as usize].as_ref()
    }
}

/// What an adapter must know of a base model to be held against it.
pub struct Base<'a> {
    /// How many decoder layers it has.
    pub layers: usize,
    /// The shape (out, in) of a linear module of a layer below `layers`; none where its layers have no such module.
    pub shape: &'a dyn Fn(usize, Projection) -> Option<(usize, usize)>,
}

impl Adapter {
    /// Opens a PEFT adapter folder and checks that its config and its tensors agree.
    ///
    /// # Errors
    /// A folder of another kind, a config that is refused (see [`AdapterConfig::from_json`]), or tensors that are not
    /// halves of LoRA modules, are not targeted by the config, have another rank than it says, or hold values that are
    /// not finite. The first five faults are named, the rest counted.
    pub fn open(folder: &Path) -> Result<Self> {
        let config_path = folder.join(CONFIG_FILE);
        let weights_path = folder.join(WEIGHTS_FILE);
        check_layout(folder)?;
        let text = files::read_config(&config_path)?;
        let config = AdapterConfig::from_json(&text).map_err(|problem| Error::input(&config_path, problem))?;
        let tensors = Tensors::open_file(&weights_path)?;
        let (stack, modules) = sort(&config, &tensors, &weights_path)?;
        let adapter = Self { folder: folder.to_owned(), config, tensors, stack, modules };
        let mut faults = Faults::default();
        for name in adapter.modules.values().flat_map(|module| [&module.a, &module.b]) {
            if let Some(index) = adapter.tensors.read(name)?.iter().position(|value| !value.is_finite()) {
                faults.push(format_args!("{}: value {index} is not a finite number", shown(name)));
            }
        }
        faults.into_result(&weights_path)?;
        Ok(adapter)
    }

    /// Checks the adapter against a base model and reads its weights: one entry for each layer of the base.
    ///
    /// # Errors
    /// A tensor for a layer that the base does not have, or of another shape than the base's module; a module of the
    /// base that the config targets and the file has no tensors for. The first five faults are named, the rest counted.
    pub fn bind(&self, base: &Base<'_>) -> Result<Vec<LayerLora>> {
        let mut faults = Faults::default();
        for module in self.modules.values() {
            self.check_base(module, base, &mut faults);
        }
        for layer in 0..base.layers {
            for projection in Projection::ALL {
                if (base.shape)(layer, projection).is_none() {
                    continue;
                }
                let path = self.path(layer, projection);
                let adapts = self.config.adapts(&path).map_err(|problem| Error::input(self.config_path(), problem))?;
                if adapts && !self.modules.contains_key(&(layer, projection)) {
                    faults.push(format_args!("{path}: adapter_config.json targets it, but its tensors are missing"));
                }
            }
        }
        faults.into_result(&self.weights_path())?;
        let mut layers = vec![LayerLora::default(); base.layers];
        for module in self.modules.values() {
            layers[module.layer].0[module.projection as usize] = Some(self.read(module)?);
        }
        Ok(layers)
    }

    /// The weights of one module, `None` where it has no LoRA.
    ///
    /// # Errors
    /// The weight file can no longer be read.
    pub fn module(&self, layer: usize, projection: Projection) -> Result<Option<LoraWeights>> {
        self.modules.get(&(layer, projection)).map(|module| self.read(module)).transpose()
    }

    /// Every LoRA module, by layer and then in the order in which a block applies them. Never empty.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = &Module> {
        self.modules.values()
    }

    /// The layers that have LoRA, ascending. Never empty.
    pub fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.modules.keys().map(|(layer, _)| *layer).collect();
        layers.dedup();
        layers
    }

    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        self.modules.values().map(|module| module.bytes).sum()
    }

    /// Bytes of the tensors whose gates in a variant are not 0.
    pub fn bytes_kept(&self, variant: &Variant) -> u64 {
        let is_kept =
            |module: &&Module| variant.gates.get(module.layer).is_some_and(|gates| gates.get(module.projection) != 0.0);
        self.modules.values().filter(is_kept).map(|module| module.bytes).sum()
    }

    /// The validated config.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The folder it was read from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files that make the adapter, for hashing.
    pub fn files(&self) -> Vec<PathBuf> {
        vec![self.config_path(), self.weights_path()]
    }

    /// The module's full path below the base model.
    fn path(&self, layer: usize, projection: Projection) -> String {
        format!("{}.{layer}.{}", self.stack, projection.path())
    }

    fn config_path(&self) -> PathBuf {
        self.folder.join(CONFIG_FILE)
    }

    fn weights_path(&self) -> PathBuf {
        self.folder.join(WEIGHTS_FILE)
    }

    fn read(&self, module: &Module) -> Result<LoraWeights> {
        let (a, b) = (self.tensors.read(&module.a)?, self.tensors.read(&module.b)?);
        Ok(LoraWeights { a, b, rank: module.rank, scale: module.scale as f32, magnitude: None })
    }

    fn check_base(&self, module: &Module, base: &Base<'_>, faults: &mut Faults) {
        let path = self.path(module.layer, module.projection);
        if module.layer >= base.layers {
            return faults.push(format_args!(
                "{path}: the base model has {} layers: this adapter was trained on another base model",
                base.layers
            ));
        }
        let another = "this adapter was trained on another base model";
        let Some((out, input)) = (base.shape)(module.layer, module.projection) else {
            return faults.push(format_args!("{path}: the base model has no such module: {another}"));
        };
        if module.in_features != input {
            faults.push(format_args!(
                "{path}.lora_A.weight is ({}, {}), the base model has ({out}, {input}) there: {another}",
                module.rank, module.in_features
            ));
        }
        if module.out_features != out {
            faults.push(format_args!(
                "{path}.lora_B.weight is ({}, {}), the base model has ({out}, {input}) there: {another}",
                module.out_features, module.rank
            ));
        }
    }
}

/// Tells a folder of another kind by what lies in it.
fn check_layout(folder: &Path) -> Result<()> {
    if !fs::metadata(folder).map_err(Error::read(folder))?.is_dir() {
        return Err(Error::input(folder, AdapterProblem::NotAFolder));
    }
    let has = |name: &str| folder.join(name).exists();
    let problem = match [CONFIG_FILE, WEIGHTS_FILE].into_iter().find(|name| !has(name)) {
        None => return Ok(()),
        Some(_) if has("adapter_model.bin") && !has(WEIGHTS_FILE) => AdapterProblem::Pickle,
        Some(_) if has("adapters.safetensors") && !has(WEIGHTS_FILE) => AdapterProblem::Mlx,
        Some(file) => AdapterProblem::NoFile { file, found: contents(folder)? },
    };
    Err(Error::input(folder, problem))
}

/// Some names in a folder, and a hint where a trainer left its checkpoints there.
fn contents(folder: &Path) -> Result<String> {
    const NAMES_TOLD: usize = 5;
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        names.push(entry.map_err(Error::read(folder))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let checkpoint =
        names.iter().find(|name| name.starts_with("checkpoint-") && folder.join(name).join(CONFIG_FILE).exists());
    let mut text = match names.len() {
        0 => "an empty folder".to_owned(),
        _ => names.iter().take(NAMES_TOLD).map(|name| shown(name)).collect::<Vec<_>>().join(", "),
    };
    if names.len() > NAMES_TOLD {
        text.push_str(&format!(" and {} more", names.len() - NAMES_TOLD));
    }
    if let Some(checkpoint) = checkpoint {
        text.push_str(&format!("; give the folder of a checkpoint, such as {}", shown(checkpoint)));
    }
    Ok(text)
}

/// Which half of a LoRA module a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    A,
    B,
}

/// The tensors that were found for one module.
#[derive(Default)]
struct Halves {
    a: Option<String>,
    b: Option<String>,
}

type Modules = BTreeMap<(usize, Projection), Module>;

/// Sorts every tensor into its module and holds it against the config.
fn sort(config: &AdapterConfig, tensors: &Tensors, weights_path: &Path) -> Result<(&'static str, Modules)> {
    let mut faults = Faults::default();
    let mut found: BTreeMap<(usize, Projection), Halves> = BTreeMap::new();
    let mut stack = None;
    let names: Vec<&str> = tensors.names().collect();
    if names.len() > MAX_TENSORS {
        let problem = AdapterProblem::TooMany { key: "tensors", found: names.len(), limit: MAX_TENSORS };
        return Err(Error::input(weights_path, problem));
    }
    for name in names {
        match Place::of(name) {
            Err(reason) => faults.push(format_args!("{}: {reason}", shown(name))),
            Ok(place) if *stack.get_or_insert(place.stack) != place.stack => {
                faults.push(format_args!("{}: other tensors are for another stack of layers", shown(name)));
            }
            Ok(place) => {
                let halves = found.entry((place.layer, place.projection)).or_default();
                let half = match place.half {
                    Half::A => &mut halves.a,
                    Half::B => &mut halves.b,
                };
                *half = Some(name.to_owned());
            }
        }
    }
    let mut modules = BTreeMap::new();
    let stack = stack.unwrap_or(STACKS[0]);
    for ((layer, projection), halves) in found {
        let path = format!("{stack}.{layer}.{}", projection.path());
        let config_problem = |problem| Error::input(weights_path.with_file_name(CONFIG_FILE), problem);
        if !config.adapts(&path).map_err(config_problem)? {
            faults.push(format_args!("unused tensor: {path}: adapter_config.json does not target it"));
            continue;
        }
        let (rank, alpha) = config.rank_and_alpha(&path).map_err(config_problem)?;
        let scale = config.scaling().scale(rank, alpha);
        match pair(tensors, halves, rank) {
            Err(fault) => faults.push(format_args!("{path}{fault}")),
            Ok(pair) => {
                let Pair { a, b, in_features, out_features, bytes } = pair;
                let module = Module { layer, projection, rank, alpha, scale, in_features, out_features, bytes, a, b };
                modules.insert((layer, projection), module);
            }
        }
    }
    if modules.is_empty() && faults.count == 0 {
        faults.push("it holds no LoRA tensors");
    }
    faults.into_result(weights_path)?;
    Ok((stack, modules))
}

/// Two halves that fit each other.
struct Pair {
    a: String,
    b: String,
    in_features: usize,
    out_features: usize,
    bytes: u64,
}

/// Checks the two halves of a module; the fault is worded to follow the module's path.
fn pair(tensors: &Tensors, halves: Halves, rank: usize) -> Result<Pair, String> {
    let (a, b) = match (halves.a, halves.b) {
        (Some(a), Some(b)) => (a, b),
        (None, _) => return Err(".lora_A.weight is missing, there is a lora_B.weight".to_owned()),
        (_, None) => return Err(".lora_B.weight is missing, there is a lora_A.weight".to_owned()),
    };
    let shape = |name| tensors.shape(name).unwrap_or_default();
    let in_features = match *shape(&a) {
        [r, input] if r == rank && input > 0 => input,
        ref found => {
            return Err(format!(".lora_A.weight has shape {found:?}: adapter_config.json makes it [{rank}, in]"));
        }
    };
    let out_features = match *shape(&b) {
        [out, r] if r == rank && out > 0 => out,
        ref found => {
            return Err(format!(".lora_B.weight has shape {found:?}: adapter_config.json makes it [out, {rank}]"));
        }
    };
    let length = |name| tensors.bytes(name).map_or(0, <[u8]>::len) as u64;
    let bytes = length(&a) + length(&b);
    Ok(Pair { a, b, in_features, out_features, bytes })
}

/// What a tensor's key says.
#[derive(Debug, PartialEq)]
struct Place {
    stack: &'static str,
    layer: usize,
    projection: Projection,
    half: Half,
}

impl Place {
    /// Reads a key, or says why it is none that can be used.
    fn of(key: &str) -> Result<Self, &'static str> {
        let Some(path) = key.strip_prefix(KEY_PREFIX) else {
            return Err("unknown tensor: expected a key that begins with base_model.model.");
        };
        let (path, half) = if let Some(path) = path.strip_suffix(".lora_A.weight") {
            (path, Half::A)
        } else if let Some(path) = path.strip_suffix(".lora_B.weight") {
            (path, Half::B)
        } else {
            return Err(why_no_half(path));
        };
        // A tensor of a wrapper that PEFT puts around a module, not of the module itself.
        if path.contains("base_layer") || path.contains("modules_to_save") {
            return Err(why_no_half(path));
        }
        for stack in STACKS {
            let Some(rest) = path.strip_prefix(stack).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let Some((number, module)) = rest.split_once('.') else { continue };
            let layer = number.parse::<usize>().ok().filter(|layer| layer.to_string() == number);
            if let (Some(layer), Some(projection)) = (layer, Projection::from_path(module)) {
                if layer >= MAX_LAYERS {
                    return Err("a layer so high is not supported: no model has so many");
                }
                return Ok(Self { stack, layer, projection, half });
            }
        }
        Err("LoRA on this module is not supported: only on q, k, v, o, gate, up and down_proj of the decoder's layers")
    }
}

/// Why a tensor is not half of a LoRA module.
fn why_no_half(path: &str) -> &'static str {
    const REASONS: &[(&str, &str)] = &[
        ("lora_magnitude_vector", "DoRA is not supported"),
        ("lora_embedding_", "LoRA on embeddings is not supported"),
        ("modules_to_save", "modules trained in full beside LoRA are not supported"),
        ("base_layer", "the file holds weights of the base model"),
        ("lora_B.bias", "a trained bias on B is not supported"),
        (".lora_A.", "the adapter's name stands in the key: PEFT saves without it"),
        (".lora_B.", "the adapter's name stands in the key: PEFT saves without it"),
    ];
    let known = REASONS.iter().find(|(part, _)| path.contains(part));
    known.map_or("unknown tensor: not half of a LoRA module", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_and_refused_by_name() {
        let place = Place::of("base_model.model.model.layers.12.mlp.down_proj.lora_B.weight").unwrap();
        let expected = Place { stack: "model.layers", layer: 12, projection: Projection::Down, half: Half::B };
        assert_eq!(place, expected);
        for (key, word) in [
            ("model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model."),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "adapter's name"),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA"),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "bias"),
            ("base_model.model.model.embed_tokens.lora_embedding_A", "embeddings"),
            ("base_model.model.lm_head.base_layer.weight", "base model"),
            ("base_model.model.lm_head.modules_to_save.weight", "trained in full"),
            ("base_model.model.lm_head.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.99999999999999999999.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.1024.self_attn.q_proj.lora_A.weight", "no model has so many"),
            ("base_model.model.model.vision_tower.layers.0.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.0.input_layernorm.weight", "unknown tensor"),
        ] {
            let reason = Place::of(key).unwrap_err();
            assert!(reason.contains(word), "{key}: {reason}");
        }
    }

    #[test]
    fn many_faults_are_counted() {
        let mut faults = Faults::default();
        (0..9).for_each(|n| faults.push(n));
        assert_eq!(faults.to_string(), "0\n  1\n  2\n  3\n  4\n  and 4 more");
    }
}
