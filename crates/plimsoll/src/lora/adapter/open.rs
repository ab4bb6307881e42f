//! The adapter: opening and checking a folder, binding it to a base model, and its facts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_formats::text::shown;
use plimsoll_formats::{Tensors, files};

use super::config::AdapterConfig;
use super::embeddings::{BoundAdapter, EmbeddingLora, EmbeddingModule, Patch};
use super::file_names::CONFIG_FILE;
use super::layout::{AdapterLayout, layout};
use super::module::{EmbeddingLoraModule, Module, Names, Saved};
use super::problem::{AdapterProblem, Faults};
use super::sort::{Sorted, sort};
use super::weights::{LayerLora, LoraWeights, transposed};
use super::{base_name, mlx};
use crate::error::{Error, Result};
use crate::lora::projection::Projection;
use crate::lora::variant::{LoraPlaces, Variant};

/// A LoRA adapter whose config and tensors agree with each other.
#[derive(Debug)]
pub struct Adapter {
    pub(super) folder: PathBuf,
    pub(super) layout: AdapterLayout,
    pub(super) config: AdapterConfig,
    pub(super) tensors: Arc<Tensors>,
    /// Path of the list of decoder layers in the base model, such as `model.layers`.
    pub(super) stack: &'static str,
    pub(super) modules: BTreeMap<(usize, Projection), Module>,
    pub(super) embedding_modules: BTreeMap<EmbeddingModule, EmbeddingLoraModule>,
    pub(super) saved: Vec<Saved>,
    pub(super) embedding_lora: Option<EmbeddingLora>,
}

/// The shapes of a base model that an adapter is checked against.
pub struct BaseShapes<'a> {
    /// Number of decoder layers.
    pub layers: usize,
    /// Shape (out, in) of a linear module of a layer below `layers`; `None` if the model has no such module.
    pub shape: &'a dyn Fn(usize, Projection) -> Option<(usize, usize)>,
    /// Shape of a weight, given by its Hugging Face name; `None` if the model has no such weight.
    pub weight: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

/// Ends the message of every fault that another base model explains.
const ANOTHER: &str = "this adapter was trained on another base model";

impl Adapter {
    /// Opens an adapter folder and checks that its config and tensors agree.
    ///
    /// # Errors
    /// A folder that is not an adapter; a config that is refused (see [`AdapterConfig::from_json`]); tensors that
    /// belong to no LoRA module, that the config does not target, or whose rank differs from the config; values that
    /// are not finite. The message lists the first five faults and counts the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
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
            AdapterLayout::Peft => AdapterConfig::from_json(&text),
            AdapterLayout::Mlx => mlx::config(&text, &tensors),
        };
        let config = config.map_err(|problem| Error::input(&config_path, problem))?;
        let Sorted { stack, modules, embedding_modules, saved } = sort(&config, layout, &tensors, &weights_path)?;
        let adapter = Self {
            folder: folder.to_owned(),
            layout,
            config,
            tensors: Arc::new(tensors),
            stack,
            modules,
            embedding_modules,
            saved,
            embedding_lora: None,
        };
        let mut faults = Faults::default();
        let names = adapter.modules.values().flat_map(|module| module.names.all());
        let names = names.chain(adapter.embedding_modules.values().flat_map(|module| module.names.all()));
        for name in names {
            let values = adapter.tensors.read(name)?;
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                faults.push(format_args!("{}: value {index} is not a finite number", shown(name)));
            }
        }
        faults.into_result(&weights_path)?;
        Ok(adapter)
    }

    /// The adapter with LoRA on embeddings kept or dropped. An adapter with such LoRA can be bound or trimmed only
    /// after this choice.
    #[must_use]
    pub fn with_embedding_lora(mut self, choice: Option<EmbeddingLora>) -> Self {
        self.embedding_lora = choice;
        self
    }

    /// The embedding modules that have LoRA.
    pub fn modules_on_embeddings(&self) -> impl Iterator<Item = EmbeddingModule> {
        self.embedding_modules.keys().copied()
    }

    /// Hugging Face names of the weights that were trained in full (`modules_to_save`).
    pub fn saved(&self) -> impl Iterator<Item = &str> {
        self.saved.iter().map(|saved| saved.name.as_str())
    }

    /// The layout of the folder: PEFT's or mlx-lm's.
    pub fn layout(&self) -> AdapterLayout {
        self.layout
    }

    /// Whether LoRA on embeddings is kept or dropped; `None` if there is none, or if nothing was chosen.
    pub fn embedding_lora(&self) -> Option<EmbeddingLora> {
        self.embedding_lora.filter(|_| !self.embedding_modules.is_empty())
    }

    /// LoRA on embeddings that is applied and written.
    pub(super) fn kept_embedding_modules(&self) -> Result<impl Iterator<Item = &EmbeddingLoraModule>> {
        if self.embedding_lora.is_none() && !self.embedding_modules.is_empty() {
            let names: Vec<&str> = self.embedding_modules.keys().map(|module| module.name()).collect();
            return Err(Error::input(&self.folder, AdapterProblem::EmbeddingLora { modules: names.join(" and ") }));
        }
        Ok(self.embedding_modules.values().filter(|_| self.embedding_lora == Some(EmbeddingLora::Keep)))
    }

    /// Checks the adapter against a base model and reads its weights: the LoRA of each layer, and the changes of other
    /// weights.
    ///
    /// # Errors
    /// LoRA in a layer that the base model does not have; another shape than the base model's; a module that the config
    /// targets and that has no tensors; LoRA on embeddings without a choice
    /// ([`with_embedding_lora`](Self::with_embedding_lora)). The message lists the first five faults and counts the
    /// others.
    pub fn bind(&self, base: &BaseShapes<'_>) -> Result<BoundAdapter> {
        self.check(base)?;
        let mut layers = vec![LayerLora::default(); base.layers];
        for module in self.modules.values() {
            layers[module.layer].0[module.projection as usize] = Some(self.read(module)?);
        }
        let mut patches: BTreeMap<String, Patch> = BTreeMap::new();
        for module in self.kept_embedding_modules()? {
            let mut weights = self.read_weights(&module.names, module.rank, module.scale)?;
            if module.module == EmbeddingModule::EmbedTokens {
                // A of an embedding is (rank, vocabulary) and B is (hidden, rank): the weight's update is (s·B·A)ᵀ.
                let (a, b) = (transposed(&weights.a, module.rank), transposed(&weights.b, module.in_features));
                (weights.a, weights.b) = (b, a);
            }
            patches.entry(module.module.weight().to_owned()).or_default().added = Some(weights);
        }
        for Saved { name, key, .. } in &self.saved {
            patches.entry(name.clone()).or_default().replaced = Some((Arc::clone(&self.tensors), key.clone()));
        }
        Ok(BoundAdapter { layers, patches })
    }

    /// Checks the adapter against a base model.
    ///
    /// # Errors
    /// As [`bind`](Self::bind), except that no choice about LoRA on embeddings is needed.
    pub fn check(&self, base: &BaseShapes<'_>) -> Result<()> {
        let (mut faults, mut fitting) = (Faults::default(), 0);
        for module in self.modules.values() {
            let before = faults.count;
            self.check_module(module, base, &mut faults);
            fitting += usize::from(faults.count == before);
        }
        if fitting == 0 {
            faults.first.insert(0, "none of its modules fits the base model".to_owned());
            faults.count += 1;
        }
        self.check_targets(base, &mut faults)?;
        self.check_other_weights(base, &mut faults);
        faults.into_result(&self.weights_path())
    }

    /// Every module of the base model that the config targets has tensors.
    fn check_targets(&self, base: &BaseShapes<'_>, faults: &mut Faults) -> Result<()> {
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
        Ok(())
    }

    /// LoRA on embeddings, and weights trained in full, have the shapes of the base model's weights.
    fn check_other_weights(&self, base: &BaseShapes<'_>, faults: &mut Faults) {
        for EmbeddingLoraModule { module, path, in_features, out_features, .. } in self.embedding_modules.values() {
            let found = vec![*out_features, *in_features];
            match (base.weight)(module.weight()) {
                Some(shape) if shape == found => {}
                shape => faults.push(format_args!(
                    "{path}: the LoRA is for a weight of shape {found:?}, the base model's has shape {:?}: {ANOTHER}",
                    shape.unwrap_or_default()
                )),
            }
        }
        for Saved { name, path, key } in &self.saved {
            let found = self.tensors.shape(key).unwrap_or_default();
            match (base.weight)(name) {
                Some(shape) if shape == found => {}
                Some(shape) => faults
                    .push(format_args!("{path} has shape {found:?}, the base model's has shape {shape:?}: {ANOTHER}")),
                None => faults.push(format_args!("{path}: the base model has no such weight: {ANOTHER}")),
            }
        }
    }

    /// The LoRA weights of one module; `None` if it has no LoRA.
    ///
    /// # Errors
    /// The weight file can no longer be read.
    pub fn module(&self, layer: usize, projection: Projection) -> Result<Option<LoraWeights>> {
        self.modules.get(&(layer, projection)).map(|module| self.read(module)).transpose()
    }

    /// All LoRA modules, by layer and then in the order of [`Projection::ALL`]. Never empty.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = &Module> {
        self.modules.values()
    }

    /// The layers that have LoRA, ascending. Never empty.
    pub fn layers(&self) -> Vec<usize> {
        let mut layers: Vec<usize> = self.modules.keys().map(|(layer, _)| *layer).collect();
        layers.dedup();
        layers
    }

    /// The layers and modules that have LoRA.
    pub fn places(&self) -> LoraPlaces {
        self.modules.keys().copied().collect()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        let on_embeddings = self.embedding_modules.values().map(|module| module.bytes);
        self.modules.values().map(|module| module.bytes).chain(on_embeddings).sum::<u64>() + self.bytes_saved()
    }

    /// Bytes of the weights that were trained in full.
    pub(super) fn bytes_saved(&self) -> u64 {
        self.saved.iter().filter_map(|saved| self.tensors.bytes(&saved.key)).map(|bytes| bytes.len() as u64).sum()
    }

    /// Bytes of the tensors that a variant keeps: modules with a LoRA strength other than 0, and what every variant
    /// keeps.
    pub fn bytes_kept(&self, variant: &Variant) -> u64 {
        let is_kept =
            |module: &&Module| variant.gates.get(module.layer).is_some_and(|gates| gates.get(module.projection) != 0.0);
        let on_embeddings = self
            .embedding_modules
            .values()
            .filter(|_| self.embedding_lora != Some(EmbeddingLora::Drop))
            .map(|module| module.bytes);
        let modules = self.modules.values().filter(is_kept).map(|module| module.bytes);
        modules.chain(on_embeddings).sum::<u64>() + self.bytes_saved()
    }

    /// The validated config.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// The folder that was read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Paths of the config and weight files.
    pub fn files(&self) -> Vec<PathBuf> {
        vec![self.config_path(), self.weights_path()]
    }

    /// The module's full path below the base model.
    pub(super) fn path(&self, layer: usize, projection: Projection) -> String {
        format!("{}.{layer}.{}", self.stack, projection.path())
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.folder.join(CONFIG_FILE)
    }

    pub(super) fn weights_path(&self) -> PathBuf {
        self.folder.join(self.layout.weights_file())
    }

    pub(super) fn read(&self, module: &Module) -> Result<LoraWeights> {
        self.read_weights(&module.names, module.rank, module.scale)
    }

    pub(super) fn read_weights(&self, names: &Names, rank: usize, scale: f64) -> Result<LoraWeights> {
        let (mut a, mut b) = (self.tensors.read(&names.a)?, self.tensors.read(&names.b)?);
        if self.layout == AdapterLayout::Mlx {
            (a, b) = (transposed(&a, a.len() / rank), transposed(&b, rank));
        }
        let magnitude = names.magnitude.as_ref().map(|name| self.tensors.read(name)).transpose()?;
        Ok(LoraWeights { a, b, rank, scale: scale as f32, magnitude })
    }

    /// A LoRA module has the shape of the base model's module.
    fn check_module(&self, module: &Module, base: &BaseShapes<'_>, faults: &mut Faults) {
        let path = self.path(module.layer, module.projection);
        if module.layer >= base.layers {
            return faults.push(format_args!("{path}: the base model has {} layers: {ANOTHER}", base.layers));
        }
        let Some((out, input)) = (base.shape)(module.layer, module.projection) else {
            return faults.push(format_args!("{path}: the base model has no such module: {ANOTHER}"));
        };
        let Module { rank, in_features, out_features, .. } = module;
        if *in_features != input {
            faults.push(format_args!(
                "{path}.lora_A.weight has shape ({rank}, {in_features}), the base model's weight has shape \
                 ({out}, {input}): {ANOTHER}"
            ));
        }
        if *out_features != out {
            faults.push(format_args!(
                "{path}.lora_B.weight has shape ({out_features}, {rank}), the base model's weight has shape \
                 ({out}, {input}): {ANOTHER}"
            ));
        }
    }
}
