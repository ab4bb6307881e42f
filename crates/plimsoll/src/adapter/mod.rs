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

mod base_name;
mod config;
mod fold;
mod inspect;
mod keys;
mod mlx;
mod patch;
mod runtimes;
mod targets;
mod write;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result, shown};
use crate::files;
use crate::gates::{LoraPlaces, Projection, Variant};
use crate::model::{Tensors, supported_families};

pub use base_name::OtherBase;
pub(crate) use base_name::other_base;
pub use config::{AdapterConfig, Scaling};
pub use inspect::{Inspection, ModuleInspection, inspect};
use keys::{Key, Part, STACKS};
pub(crate) use patch::Patch;
pub use patch::{Bound, End, Ends};
pub use runtimes::{RuntimeFacts, Support};
pub(crate) use write::ranges;
pub use write::{
    CARD_FILE, Estimate, PROVENANCE_FILE, Provenance, Source, TrimScores, Written, write_trimmed, write_trimmed_as,
};

/// The name of PEFT's config file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// The name of PEFT's weight file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

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
    /// LoRA on an end of the model, and nobody has said what is to become of it.
    #[error(
        "has LoRA on {modules}, which is no layer's: say `--ends keep` to apply it in every variant, or `--ends drop`"
    )]
    Ends {
        /// The modules' names.
        modules: String,
    },
    /// A strength that a DoRA adapter cannot be written with.
    #[error(
        "it is a DoRA adapter: a strength of {strength} cannot be written into its tensors; keep modules as they are, or \
         drop them"
    )]
    Strength {
        /// The gate.
        strength: f32,
    },
    /// A layout that the adapter cannot be written in.
    #[error("cannot be written in mlx-lm's layout: {0}")]
    NotForMlx(&'static str),
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
    /// An adapter of a model that is not supported.
    #[error(
        "it has modules such as {}, which models of {model_type} have: that architecture is not supported, expected {}",
        shown(.module),
        supported_families()
    )]
    Architecture {
        /// The `model_type` of such models.
        model_type: &'static str,
        /// The path of a module that such models have.
        module: String,
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
    layout: Layout,
    config: AdapterConfig,
    tensors: Arc<Tensors>,
    /// The base model's path of its list of blocks, such as `model.layers`.
    stack: &'static str,
    modules: BTreeMap<(usize, Projection), Module>,
    end_modules: BTreeMap<End, EndModule>,
    saved: Vec<Saved>,
    ends: Option<Ends>,
}

/// Whose way it is in which an adapter lies in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// PEFT's: `adapter_config.json` and `adapter_model.safetensors`.
    Peft,
    /// mlx-lm's: `adapter_config.json` of other fields, and `adapters.safetensors` with A and B transposed.
    Mlx,
}

impl Layout {
    fn weights_file(self) -> &'static str {
        match self {
            Self::Peft => WEIGHTS_FILE,
            Self::Mlx => mlx::WEIGHTS_FILE,
        }
    }
}

/// LoRA on an end of the model.
#[derive(Clone, Debug)]
struct EndModule {
    end: End,
    /// Its path below the base model.
    path: String,
    rank: usize,
    scale: f64,
    in_features: usize,
    out_features: usize,
    names: Names,
    bytes: u64,
}

/// A weight that was trained in full.
#[derive(Clone, Debug)]
struct Saved {
    /// The weight's name in Hugging Face's decoders.
    name: String,
    /// Its name below the base model that the adapter was made for.
    path: String,
    /// The tensor's name in the file.
    key: String,
}

/// The names of a module's tensors in the file.
#[derive(Clone, Debug, PartialEq)]
struct Names {
    a: String,
    b: String,
    magnitude: Option<String>,
}

impl Names {
    fn all(&self) -> impl Iterator<Item = &String> {
        [&self.a, &self.b].into_iter().chain(&self.magnitude)
    }
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
    /// Bytes of its tensors in the file.
    pub bytes: u64,
    names: Names,
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

impl LoraWeights {
    /// Makes a row `w` of the base weight one of `W + s·B·A`, of the length of its magnitude where there is one.
    pub(crate) fn add_to(&self, row: usize, w: &mut [f32]) {
        let b = &self.b[row * self.rank..(row + 1) * self.rank];
        for (b, a) in b.iter().zip(self.a.chunks_exact(w.len())) {
            w.iter_mut().zip(a).for_each(|(w, a)| *w += self.scale * b * a);
        }
        if let Some(magnitude) = &self.magnitude {
            let length = w.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            w.iter_mut().for_each(|w| *w *= (f64::from(magnitude[row]) / length) as f32);
        }
    }
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
    /// The shape of a weight, given by its name in Hugging Face's decoders; none where the base has no such weight.
    pub weight: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

impl Adapter {
    /// Opens an adapter folder and checks that its config and its tensors agree.
    ///
    /// # Errors
    /// A folder of another kind, a config that is refused (see [`AdapterConfig::from_json`]), or tensors that are not
    /// parts of LoRA modules, are not targeted by the config, have another rank than it says, or hold values that are
    /// not finite. The first five faults are named, the rest counted.
    pub fn open(folder: &Path) -> Result<Self> {
        let config_path = folder.join(CONFIG_FILE);
        let layout = layout(folder)?;
        let weights_path = folder.join(layout.weights_file());
        let text = files::read_config(&config_path)?;
        let tensors = Tensors::open_file(&weights_path)?;
        let keys: Vec<&str> = tensors.names().collect();
        if let Some((model_type, module)) = base_name::unsupported_by_keys(&keys) {
            return Err(Error::input(&weights_path, AdapterProblem::Architecture { model_type, module }));
        }
        let config = match layout {
            Layout::Peft => AdapterConfig::from_json(&text),
            Layout::Mlx => mlx::config(&text, &tensors),
        };
        let config = config.map_err(|problem| Error::input(&config_path, problem))?;
        let Sorted { stack, modules, ends, saved } = sort(&config, layout, &tensors, &weights_path)?;
        let adapter = Self {
            folder: folder.to_owned(),
            layout,
            config,
            tensors: Arc::new(tensors),
            stack,
            modules,
            end_modules: ends,
            saved,
            ends: None,
        };
        let mut faults = Faults::default();
        let names = adapter.modules.values().flat_map(|module| module.names.all());
        let names = names.chain(adapter.end_modules.values().flat_map(|module| module.names.all()));
        for name in names {
            let values = adapter.tensors.read(name)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                faults.push(format_args!("{}: value {index} is not a finite number", shown(name)));
            }
        }
        faults.into_result(&weights_path)?;
        Ok(adapter)
    }

    /// The same with a choice of what becomes of LoRA on the ends of the model. An adapter that has such LoRA is neither
    /// bound nor trimmed without one.
    #[must_use]
    pub fn with_ends(mut self, ends: Option<Ends>) -> Self {
        self.ends = ends;
        self
    }

    /// The ends of the model that have LoRA.
    pub fn ends(&self) -> impl Iterator<Item = End> {
        self.end_modules.keys().copied()
    }

    /// The names of the weights that were trained in full, as Hugging Face's decoders have them.
    pub fn saved(&self) -> impl Iterator<Item = &str> {
        self.saved.iter().map(|saved| saved.name.as_str())
    }

    /// Whose way it is in which it lies in its folder.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The choice of what becomes of them, where there is anything that it decides on.
    pub fn ends_choice(&self) -> Option<Ends> {
        self.ends.filter(|_| !self.end_modules.is_empty())
    }

    /// LoRA on the ends of the model that is applied and written.
    fn kept_ends(&self) -> Result<impl Iterator<Item = &EndModule>> {
        if self.ends.is_none() && !self.end_modules.is_empty() {
            let names: Vec<&str> = self.end_modules.keys().map(|end| end.name()).collect();
            return Err(Error::input(&self.folder, AdapterProblem::Ends { modules: names.join(" and ") }));
        }
        Ok(self.end_modules.values().filter(|_| self.ends == Some(Ends::Keep)))
    }

    /// Checks the adapter against a base model and reads its weights: one entry for each layer of the base, and what it
    /// changes besides.
    ///
    /// # Errors
    /// A tensor for a layer that the base does not have, or of another shape than the base's module; a module of the
    /// base that the config targets and the file has no tensors for; LoRA on an end of the model without a word on what
    /// becomes of it. The first five faults are named, the rest counted.
    pub fn bind(&self, base: &Base<'_>) -> Result<Bound> {
        self.check(base)?;
        let mut layers = vec![LayerLora::default(); base.layers];
        for module in self.modules.values() {
            layers[module.layer].0[module.projection as usize] = Some(self.read(module)?);
        }
        let mut patches: BTreeMap<String, Patch> = BTreeMap::new();
        for module in self.kept_ends()? {
            let mut weights = self.read_weights(&module.names, module.rank, module.scale)?;
            if module.end == End::Embedding {
                // A of an embedding is (rank, vocabulary) and B (hidden, rank): the weight gains (s·B·A)ᵀ.
                let (a, b) = (transposed(&weights.a, module.rank), transposed(&weights.b, module.in_features));
                (weights.a, weights.b) = (b, a);
            }
            patches.entry(module.end.weight().to_owned()).or_default().added = Some(weights);
        }
        for Saved { name, key, .. } in &self.saved {
            patches.entry(name.clone()).or_default().replaced = Some((Arc::clone(&self.tensors), key.clone()));
        }
        Ok(Bound { layers, patches })
    }

    /// Checks the adapter against a base model.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), but for what concerns the ends of the model.
    pub fn check(&self, base: &Base<'_>) -> Result<()> {
        let (mut faults, mut fitting) = (Faults::default(), 0);
        for module in self.modules.values() {
            let before = faults.count;
            self.check_base(module, base, &mut faults);
            fitting += usize::from(faults.count == before);
        }
        if fitting == 0 {
            faults.first.insert(0, "none of its modules fits the base model".to_owned());
            faults.count += 1;
        }
        let of_config = |problem| Error::input(self.config_path(), problem);
        for layer in 0..base.layers {
            for projection in Projection::ALL {
                if (base.shape)(layer, projection).is_none() {
                    continue;
                }
                let path = self.path(layer, projection);
                let adapts = self.config.adapts(&path).map_err(of_config)?;
                let is_saved = self.saved.iter().any(|saved| saved.path == format!("{path}.weight"));
                if adapts && !is_saved && !self.modules.contains_key(&(layer, projection)) {
                    faults.push(format_args!("{path}: adapter_config.json targets it, but its tensors are missing"));
                }
            }
        }
        let another = "this adapter was trained on another base model";
        for EndModule { end, path, in_features, out_features, .. } in self.end_modules.values() {
            let found = vec![*out_features, *in_features];
            match (base.weight)(end.weight()) {
                Some(shape) if shape == found => {}
                shape => faults.push(format_args!(
                    "{path}: its LoRA is for a weight of {found:?}, the base model has {:?} there: {another}",
                    shape.unwrap_or_default()
                )),
            }
        }
        for Saved { name, path, key } in &self.saved {
            let found = self.tensors.shape(key).unwrap_or_default();
            match (base.weight)(name) {
                Some(shape) if shape == found => {}
                Some(shape) => {
                    faults.push(format_args!("{path} is {found:?}, the base model has {shape:?} there: {another}"));
                }
                None => faults.push(format_args!("{path}: the base model has no such weight: {another}")),
            }
        }
        faults.into_result(&self.weights_path())
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

    /// The places that have LoRA.
    pub fn places(&self) -> LoraPlaces {
        self.modules.keys().copied().collect()
    }

    /// Bytes of all its tensors.
    pub fn bytes(&self) -> u64 {
        let ends = self.end_modules.values().map(|module| module.bytes);
        self.modules.values().map(|module| module.bytes).chain(ends).sum::<u64>() + self.bytes_saved()
    }

    /// Bytes of the weights that were trained in full.
    fn bytes_saved(&self) -> u64 {
        self.saved.iter().filter_map(|saved| self.tensors.bytes(&saved.key)).map(|bytes| bytes.len() as u64).sum()
    }

    /// Bytes of the tensors that a variant leaves: those of modules whose gates are not 0, and what no variant drops.
    pub fn bytes_kept(&self, variant: &Variant) -> u64 {
        let is_kept =
            |module: &&Module| variant.gates.get(module.layer).is_some_and(|gates| gates.get(module.projection) != 0.0);
        let ends = self.end_modules.values().filter(|_| self.ends != Some(Ends::Drop)).map(|module| module.bytes);
        let modules = self.modules.values().filter(is_kept).map(|module| module.bytes);
        modules.chain(ends).sum::<u64>() + self.bytes_saved()
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
        self.folder.join(self.layout.weights_file())
    }

    fn read(&self, module: &Module) -> Result<LoraWeights> {
        self.read_weights(&module.names, module.rank, module.scale)
    }

    fn read_weights(&self, names: &Names, rank: usize, scale: f64) -> Result<LoraWeights> {
        let (mut a, mut b) = (self.tensors.read(&names.a)?, self.tensors.read(&names.b)?);
        if self.layout == Layout::Mlx {
            (a, b) = (transposed(&a, a.len() / rank), transposed(&b, rank));
        }
        let magnitude = names.magnitude.as_ref().map(|name| self.tensors.read(name)).transpose()?;
        Ok(LoraWeights { a, b, rank, scale: scale as f32, magnitude })
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

/// The transpose of a matrix of so many rows.
fn transposed(x: &[f32], rows: usize) -> Vec<f32> {
    let columns = x.len() / rows.max(1);
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns).copied()).collect()
}

/// Tells a folder's layout, or what kind of folder it is, by what lies in it.
fn layout(folder: &Path) -> Result<Layout> {
    if !fs::metadata(folder).map_err(Error::read(folder))?.is_dir() {
        return Err(Error::input(folder, AdapterProblem::NotAFolder));
    }
    let has = |name: &str| folder.join(name).exists();
    if has(CONFIG_FILE) && has(mlx::WEIGHTS_FILE) && !has(WEIGHTS_FILE) {
        return Ok(Layout::Mlx);
    }
    let problem = match [CONFIG_FILE, WEIGHTS_FILE].into_iter().find(|name| !has(name)) {
        None => return Ok(Layout::Peft),
        Some(_) if has("adapter_model.bin") && !has(WEIGHTS_FILE) => AdapterProblem::Pickle,
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

/// The tensors that were found for one module.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    magnitude: Option<String>,
}

impl Parts {
    fn put(&mut self, part: Part, name: &str) -> Result<(), &'static str> {
        let place = match part {
            Part::A => &mut self.a,
            Part::B => &mut self.b,
            Part::Magnitude => &mut self.magnitude,
        };
        match place.replace(name.to_owned()) {
            None => Ok(()),
            Some(_) => Err("another tensor of the file says the same: two adapters in one file are not supported"),
        }
    }
}

/// All that is in an adapter's file.
struct Sorted {
    stack: &'static str,
    modules: BTreeMap<(usize, Projection), Module>,
    ends: BTreeMap<End, EndModule>,
    saved: Vec<Saved>,
}

/// Sorts every tensor into its module and holds it against the config.
fn sort(config: &AdapterConfig, layout: Layout, tensors: &Tensors, weights_path: &Path) -> Result<Sorted> {
    let mut faults = Faults::default();
    let mut found: BTreeMap<(usize, Projection), Parts> = BTreeMap::new();
    let mut found_ends: BTreeMap<End, (String, Parts)> = BTreeMap::new();
    let mut saved: Vec<Saved> = Vec::new();
    let mut stack = None;
    let names: Vec<&str> = tensors.names().collect();
    if names.len() > MAX_TENSORS {
        let problem = AdapterProblem::TooMany { key: "tensors", found: names.len(), limit: MAX_TENSORS };
        return Err(Error::input(weights_path, problem));
    }
    for name in names {
        match Key::of(name, layout) {
            Err(reason) => faults.push(format_args!("{}: {reason}", shown(name))),
            Ok(Key::Layer { stack: own, .. }) if *stack.get_or_insert(own) != own => {
                faults.push(format_args!("{}: other tensors are for another stack of layers", shown(name)));
            }
            Ok(Key::Layer { layer, projection, part, .. }) => {
                if let Err(fault) = found.entry((layer, projection)).or_default().put(part, name) {
                    faults.push(format_args!("{}: {fault}", shown(name)));
                }
            }
            Ok(Key::End { end, path, part }) => {
                if let Err(fault) = found_ends.entry(end).or_insert((path, Parts::default())).1.put(part, name) {
                    faults.push(format_args!("{}: {fault}", shown(name)));
                }
            }
            Ok(Key::Saved { name: weight, path }) => {
                if saved.iter().any(|saved| saved.name == weight) {
                    faults.push(format_args!("{}: another tensor of the file says the same", shown(name)));
                }
                saved.push(Saved { name: weight, path, key: name.to_owned() });
            }
        }
    }
    let config_problem = |problem| Error::input(weights_path.with_file_name(CONFIG_FILE), problem);
    let adapted = |path: &str, kind: Kind, parts, faults: &mut Faults| -> Result<_> {
        if !config.adapts(path).map_err(config_problem)? {
            faults.push(format_args!("unused tensor: {path}: adapter_config.json does not target it"));
            return Ok(None);
        }
        let (rank, alpha) = config.rank_and_alpha(path).map_err(config_problem)?;
        match fit(tensors, parts, rank, config.use_dora(), kind) {
            Ok(fitted) => Ok(Some((fitted, rank, alpha, config.scaling().scale(rank, alpha)))),
            Err(fault) => {
                faults.push(format_args!("{path}{fault}"));
                Ok(None)
            }
        }
    };
    let (mut modules, mut ends) = (BTreeMap::new(), BTreeMap::new());
    let stack = stack.unwrap_or(STACKS[0]);
    for ((layer, projection), parts) in found {
        let path = format!("{stack}.{layer}.{}", projection.path());
        if let Some((Fitted { names, in_features, out_features, bytes }, rank, alpha, scale)) =
            adapted(&path, layout.into(), parts, &mut faults)?
        {
            let module = Module { layer, projection, rank, alpha, scale, in_features, out_features, bytes, names };
            modules.insert((layer, projection), module);
        }
    }
    for (end, (path, parts)) in found_ends {
        let kind = if end == End::Embedding { Kind::Embedding } else { layout.into() };
        if let Some((Fitted { names, in_features, out_features, bytes }, rank, _, scale)) =
            adapted(&path, kind, parts, &mut faults)?
        {
            ends.insert(end, EndModule { end, path, rank, scale, in_features, out_features, names, bytes });
        }
    }
    for Saved { path, .. } in &saved {
        if let Some(fault) = config.why_not_saved(path) {
            faults.push(format_args!("{path}: {fault}"));
        }
    }
    for entry in config.modules_to_save() {
        if !saved.iter().any(|saved| config::is_saved_as(&saved.path, entry)) {
            faults.push(format_args!("{}: modules_to_save names it, but its tensors are missing", shown(entry)));
        }
    }
    if modules.is_empty() && faults.count == 0 {
        faults.push("it holds no LoRA tensors of decoder layers");
    }
    faults.into_result(weights_path)?;
    Ok(Sorted { stack, modules, ends, saved })
}

/// How the factors of a module lie in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A (rank, in), B (out, rank).
    Linear,
    /// The same for tokens in place of inputs and hidden dimensions in place of outputs: A (rank, vocabulary), B
    /// (hidden, rank).
    Embedding,
    /// mlx-lm's: A (in, rank), B (rank, out).
    Transposed,
}

impl From<Layout> for Kind {
    fn from(layout: Layout) -> Self {
        match layout {
            Layout::Peft => Self::Linear,
            Layout::Mlx => Self::Transposed,
        }
    }
}

/// The parts of a module, which fit each other.
struct Fitted {
    names: Names,
    in_features: usize,
    out_features: usize,
    bytes: u64,
}

/// Checks the parts of a module; the fault is worded to follow the module's path.
fn fit(tensors: &Tensors, parts: Parts, rank: usize, use_dora: bool, kind: Kind) -> Result<Fitted, String> {
    let [a_name, b_name] = match kind {
        Kind::Linear => [".lora_A.weight", ".lora_B.weight"],
        Kind::Embedding => [".lora_embedding_A", ".lora_embedding_B"],
        Kind::Transposed => [".lora_a", ".lora_b"],
    };
    let (a, b) = match (parts.a, parts.b) {
        (Some(a), Some(b)) => (a, b),
        (None, Some(_)) => return Err(format!("{a_name} is missing, there is a {}", &b_name[1..])),
        (Some(_), None) => return Err(format!("{b_name} is missing, there is a {}", &a_name[1..])),
        (None, None) => return Err(format!("{a_name} and {} are missing", &b_name[1..])),
    };
    let shape = |name: &str| match (tensors.shape(name).unwrap_or_default(), kind) {
        (&[x, y], Kind::Transposed) => vec![y, x],
        (shape, _) => shape.to_vec(),
    };
    let (in_rank, out_rank) = if kind == Kind::Transposed {
        (format!("[in, {rank}]"), format!("[{rank}, out]"))
    } else {
        (format!("[{rank}, in]"), format!("[out, {rank}]"))
    };
    let in_features = match shape(&a)[..] {
        [r, input] if r == rank && input > 0 => input,
        _ => {
            let found = tensors.shape(&a).unwrap_or_default();
            return Err(format!("{a_name} has shape {found:?}: adapter_config.json makes it {in_rank}"));
        }
    };
    let out_features = match shape(&b)[..] {
        [out, r] if r == rank && out > 0 => out,
        _ => {
            let found = tensors.shape(&b).unwrap_or_default();
            return Err(format!("{b_name} has shape {found:?}: adapter_config.json makes it {out_rank}"));
        }
    };
    match (&parts.magnitude, use_dora) {
        (Some(_), false) => return Err(": it has a DoRA magnitude, and use_dora is not set".to_owned()),
        (Some(_), true) if kind == Kind::Embedding => return Err(": DoRA on embeddings is not supported".to_owned()),
        (None, true) => return Err(".lora_magnitude_vector is missing, and use_dora is set".to_owned()),
        (Some(name), true) if tensors.shape(name) != Some(&[out_features]) => {
            let found = tensors.shape(name).unwrap_or_default();
            return Err(format!(".lora_magnitude_vector has shape {found:?}: lora_B makes it [{out_features}]"));
        }
        _ => {}
    }
    // The weight of an embedding has a row for each token: what A reads are its outputs.
    let (in_features, out_features) =
        if kind == Kind::Embedding { (out_features, in_features) } else { (in_features, out_features) };
    let names = Names { a, b, magnitude: parts.magnitude };
    let bytes = names.all().filter_map(|name| tensors.bytes(name)).map(|bytes| bytes.len() as u64).sum();
    Ok(Fitted { names, in_features, out_features, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_faults_are_counted() {
        let mut faults = Faults::default();
        (0..9).for_each(|n| faults.push(n));
        assert_eq!(faults.to_string(), "0\n  1\n  2\n  3\n  4\n  and 4 more");
    }

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
