//! Writing a trimmed adapter: the LoRA that a variant keeps, in a folder that PEFT loads without a warning.
//!
//! A module with LoRA strength 0 is left out. With strength 1 its tensors are copied byte for byte. Any other strength
//! is folded into B (see `fold`), so the scale does not change.
//!
//! Deleting tensors is not enough: PEFT would warn of missing keys and compute with zeros. The config must target
//! exactly the modules that are kept. There are three forms (PEFT 0.21.2, `check_target_module_exists`):
//! 1. `target_modules` unchanged, if it is a list, with `layers_to_transform` and `layers_pattern`;
//! 2. `target_modules` as the names of the modules that are kept, with the same two fields. A regular expression and
//!    `all-linear` need this, because PEFT refuses them together with `layers_to_transform`;
//! 3. `target_modules` as the full path of every module that is kept. This is needed if layers keep different modules,
//!    or if the list has full paths, which `layers_to_transform` does not restrict.
//!
//! The first form that is right is used: the new config is parsed and checked against every module. Entries of
//! `rank_pattern` and `alpha_pattern` that match no kept module are removed, because PEFT warns of them. Every other
//! field stays unchanged. An empty `layers_to_transform` would mean *all* layers, so keeping nothing is an error.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::{fs, io};

use plimsoll_formats::files;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde::Serialize;
use serde_json::{Value, json};

use super::card::model_card;
use super::config::AdapterConfig;
use super::cut::{Cut, TrimSummary};
use super::embeddings::EmbeddingModule;
use super::file_names::{CARD_FILE, CONFIG_FILE, PROVENANCE_FILE};
use super::fold::fold;
use super::keys::{KEY_PREFIX, Part};
use super::layout::AdapterLayout;
use super::mlx;
use super::module::{EmbeddingLoraModule, Names, Saved};
use super::open::Adapter;
use super::problem::AdapterProblem;
use super::provenance::{Provenance, ProvenanceFile};
use crate::error::{Error, Result};
use crate::lora::{Projection, Variant};

/// Writes a trimmed adapter to the new folder `out`, in the adapter's own layout: config, weights, model card,
/// provenance.
///
/// LoRA strengths of places without LoRA are ignored, and the variant may have more layers than the adapter. Weights
/// trained in full are kept. LoRA on embeddings is kept or dropped as set by [`Adapter::with_embedding_lora`].
///
/// # Errors
/// The adapter has LoRA in a layer that the variant does not have; no module is kept; a strength exceeds the range of a
/// tensor's dtype, or is neither 0 nor 1 for DoRA; LoRA on embeddings without a choice; `out` exists; the folder cannot
/// be written.
pub fn write_trimmed(adapter: &Adapter, variant: &Variant, card: &Provenance, out: &Path) -> Result<TrimSummary> {
    write_trimmed_as(adapter, variant, card, adapter.layout, out)
}

/// Writes a trimmed adapter, as [`write_trimmed`] does, in the given layout.
///
/// # Errors
/// As [`write_trimmed`], and content that mlx-lm's layout cannot represent ([`AdapterProblem::NotForMlx`]).
pub fn write_trimmed_as(
    adapter: &Adapter,
    variant: &Variant,
    card: &Provenance,
    layout: AdapterLayout,
    out: &Path,
) -> Result<TrimSummary> {
    let layers = adapter.layers();
    let highest = layers.last().copied().unwrap_or(0);
    let Some(gates) = variant.gates.get(..=highest) else {
        let found = variant.gates.len();
        return Err(Error::Usage(format!(
            "expected a variant of more than {highest} layers, since the adapter has LoRA in layer {highest}, found \
             one of {found}"
        )));
    };
    let on_embeddings = adapter.kept_embedding_modules()?.collect();
    let mut cut = Cut { kept: Vec::new(), dropped: Vec::new(), on_embeddings };
    for module in adapter.modules() {
        match gates[module.layer].get(module.projection) {
            0.0 => cut.dropped.push(module),
            strength => cut.kept.push((module, strength)),
        }
    }
    if cut.kept.is_empty() {
        return Err(Error::Usage(
            "no LoRA is kept: use the base model without an adapter; nothing is written".to_owned(),
        ));
    }
    let mut strengths: Vec<f32> = cut.kept.iter().map(|(_, strength)| *strength).filter(|s| *s != 1.0).collect();
    if let Some(&strength) = strengths.first().filter(|_| adapter.config.use_dora()) {
        return Err(Error::input(&adapter.folder, AdapterProblem::Strength { strength }));
    }
    strengths.sort_by(f32::total_cmp);
    strengths.dedup();
    let (layers_kept, layers_dropped) =
        layers.into_iter().partition(|layer| cut.kept.iter().any(|(module, _)| module.layer == *layer));
    let written = TrimSummary {
        folder: out.to_owned(),
        gates: Variant { gates: gates.to_vec() }.spec(),
        layers_kept,
        layers_dropped,
        modules: cut.kept.len(),
        modules_dropped: cut.dropped.len(),
        strengths,
        bytes: cut
            .kept
            .iter()
            .map(|(module, _)| module.bytes)
            .chain(cut.on_embeddings.iter().map(|module| module.bytes))
            .sum::<u64>()
            + adapter.bytes_saved(),
        bytes_before: adapter.bytes(),
    };
    let everything = cut.dropped.is_empty() && cut.on_embeddings.len() == adapter.embedding_modules.len();
    let config = if everything { adapter.config.clone() } else { trimmed_config(adapter, &cut)? };
    let mut config = config.raw().clone();
    // For linear modules PEFT ignores this setting with a warning.
    if config.get("fan_in_fan_out") == Some(&Value::Bool(true)) {
        config.insert("fan_in_fan_out".into(), Value::Bool(false));
    }
    if layout == AdapterLayout::Mlx {
        config = mlx_config(adapter, &cut)?;
    }
    let tensors = tensors(adapter, &cut, layout)?;
    files::write_folder(out, |folder| {
        write_json(&folder.join(CONFIG_FILE), &config)?;
        let weights_path = folder.join(layout.weights_file());
        write_weights(&weights_path, &tensors)?;
        // The safetensors crate creates the file readable by its owner only.
        files::make_readable(&weights_path, 0o644).map_err(Error::write(&weights_path))?;
        write_json(&folder.join(PROVENANCE_FILE), &ProvenanceFile::new(&written, adapter.embedding_lora(), card)?)?;
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
    let on_embeddings: Vec<&str> = cut.on_embeddings.iter().map(|module| module.path.as_str()).collect();
    let mut names: Vec<&str> = Projection::ALL.into_iter().filter(has).map(Projection::name).collect();
    names.extend(&on_embeddings);
    let container = adapter.stack.rsplit_once('.').map_or(adapter.stack, |(_, name)| name);

    let unchanged = config.raw().get("target_modules").filter(|_| config.targets().is_list()).cloned();
    let by_layer = [("layers_to_transform", json!(layers)), ("layers_pattern", json!(container))];
    let by_path = [("layers_to_transform", Value::Null), ("layers_pattern", Value::Null)];
    let mut targets: Vec<&str> = paths.iter().map(String::as_str).collect();
    targets.extend(&on_embeddings);
    let by_name = unchanged.into_iter().chain([json!(names)]).map(|targets| (targets, &by_layer));
    for (targets, layers) in by_name.chain([(json!(targets), &by_path)]) {
        let mut fields = config.patterns_for(&paths).map_err(problem)?;
        fields.push(("target_modules", targets));
        fields.extend(layers.iter().cloned());
        let trimmed = config.with_fields(&fields).map_err(problem)?;
        if targets_exactly(&trimmed, adapter, &kept, &cut.on_embeddings).map_err(problem)? {
            return Ok(trimmed);
        }
    }
    Err(Error::Internal("the trimmed adapter's config does not target exactly the modules that are kept".to_owned()))
}

/// Whether the config targets exactly the modules that are kept, among those of the adapter's layers and the
/// embeddings.
fn targets_exactly(
    config: &AdapterConfig,
    adapter: &Adapter,
    kept: &BTreeSet<(usize, Projection)>,
    on_embeddings: &[&EmbeddingLoraModule],
) -> Result<bool, AdapterProblem> {
    for EmbeddingLoraModule { module, path, .. } in adapter.embedding_modules.values() {
        let is_kept = on_embeddings.iter().any(|kept| kept.module == *module);
        if config.adapts(path)? != is_kept {
            return Ok(false);
        }
        if is_kept && config.rank_and_alpha(path)? != adapter.config.rank_and_alpha(path)? {
            return Ok(false);
        }
    }
    // A base model has either the fused modules or the separate ones. Targets that it does not have do not matter.
    let is_fused = |projection: Projection| matches!(projection, Projection::Qkv | Projection::GateUp);
    let has_fused = adapter.modules.keys().any(|(_, projection)| is_fused(*projection));
    let is_present = |projection: &Projection| match projection {
        Projection::O | Projection::Down => true,
        projection => is_fused(*projection) == has_fused || adapter.modules.keys().any(|(_, own)| own == projection),
    };
    for layer in adapter.layers() {
        for projection in Projection::ALL.into_iter().filter(is_present) {
            let is_kept = kept.contains(&(layer, projection));
            let path = adapter.path(layer, projection);
            if config.adapts(&path)? != is_kept {
                return Ok(false);
            }
            // The trim must not change the scale of a kept module.
            if is_kept && config.rank_and_alpha(&path)? != adapter.config.rank_and_alpha(&path)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// mlx-lm's config for the modules that are kept.
fn mlx_config(adapter: &Adapter, cut: &Cut<'_>) -> Result<serde_json::Map<String, Value>> {
    let refused = |reason| Error::input(&adapter.folder, AdapterProblem::NotForMlx(reason));
    let [first, ..] = cut.kept[..] else { return Err(refused("it has no modules")) };
    let (rank, scale) = (first.0.rank, first.0.scale);
    if cut.kept.iter().any(|(module, _)| module.rank != rank || module.scale != scale) {
        return Err(refused("its modules have several ranks or scales"));
    }
    if !cut.on_embeddings.is_empty() || !adapter.saved.is_empty() {
        return Err(refused("it has LoRA on embeddings or weights trained in full"));
    }
    let paths = cut.kept.iter().map(|(module, _)| module.projection.path()).collect();
    Ok(mlx::written(adapter.config.base_model(), adapter.config.use_dora(), rank, scale, &paths))
}

/// A tensor to write.
struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// The tensors that are kept, by their names in the layout: copied, transposed if the layouts differ, or folded.
fn tensors<'a>(adapter: &'a Adapter, cut: &Cut<'a>, layout: AdapterLayout) -> Result<BTreeMap<String, Tensor<'a>>> {
    let unchanged = |name: &str| -> Result<Tensor<'a>> {
        let bytes = adapter.tensors.bytes(name).ok_or_else(|| changed(name))?;
        let shape = adapter.tensors.shape(name).unwrap_or_default().to_vec();
        Ok(Tensor { dtype: dtype(adapter, name)?, shape, bytes: Cow::Borrowed(bytes) })
    };
    let mut written = BTreeMap::new();
    let mut put = |path: &str, names: &Names, strength: f32, embedding: bool| -> Result<()> {
        let parts = [(Part::A, Some(&names.a)), (Part::B, Some(&names.b)), (Part::Magnitude, names.magnitude.as_ref())];
        for (part, name) in parts {
            let Some(name) = name else { continue };
            let mut tensor = unchanged(name)?;
            if part == Part::B && strength != 1.0 {
                let values = adapter.tensors.read(name)?;
                let bytes = fold(name, &values, strength, tensor.dtype);
                tensor.bytes = Cow::Owned(bytes.map_err(|problem| Error::input(adapter.weights_path(), problem))?);
            }
            if layout.is_transposed() != adapter.layout.is_transposed() {
                tensor = transposed(tensor);
            }
            let key = match (layout, part) {
                (AdapterLayout::Mlx, part) => mlx::key(path, part),
                (AdapterLayout::Peft, Part::A) if embedding => format!("{KEY_PREFIX}{path}.lora_embedding_A"),
                (AdapterLayout::Peft, Part::B) if embedding => format!("{KEY_PREFIX}{path}.lora_embedding_B"),
                (AdapterLayout::Peft, Part::A) => format!("{KEY_PREFIX}{path}.lora_A.weight"),
                (AdapterLayout::Peft, Part::B) => format!("{KEY_PREFIX}{path}.lora_B.weight"),
                (AdapterLayout::Peft, Part::Magnitude) => format!("{KEY_PREFIX}{path}.lora_magnitude_vector"),
            };
            written.insert(key, tensor);
        }
        Ok(())
    };
    for (module, strength) in &cut.kept {
        put(&adapter.path(module.layer, module.projection), &module.names, *strength, false)?;
    }
    for EmbeddingLoraModule { module, path, names, .. } in &cut.on_embeddings {
        put(path, names, 1.0, *module == EmbeddingModule::EmbedTokens)?;
    }
    for Saved { name, path, key } in &adapter.saved {
        // PEFT wraps a module that has LoRA, so that its own weight is `base_layer.weight`.
        let is_wrapped = cut.on_embeddings.iter().any(|lora| lora.module.weight() == name);
        let path = match path.strip_suffix(".weight").filter(|_| is_wrapped) {
            Some(module) => format!("{module}.base_layer.weight"),
            None => path.clone(),
        };
        written.insert(format!("{KEY_PREFIX}{path}"), unchanged(key)?);
    }
    Ok(written)
}

/// The transpose of a matrix; a vector is returned unchanged.
fn transposed(tensor: Tensor<'_>) -> Tensor<'_> {
    let &[rows, columns] = &tensor.shape[..] else { return tensor };
    let size = tensor.dtype.bitsize() / 8;
    let at = |row: usize, column: usize| &tensor.bytes[(row * columns + column) * size..][..size];
    let bytes: Vec<u8> =
        (0..columns).flat_map(|column| (0..rows).flat_map(move |row| at(row, column)).copied()).collect();
    Tensor { dtype: tensor.dtype, shape: vec![columns, rows], bytes: Cow::Owned(bytes) }
}

/// The dtype of a tensor of the adapter.
fn dtype(adapter: &Adapter, name: &str) -> Result<Dtype> {
    match adapter.tensors.dtype(name) {
        Some("F32") => Ok(Dtype::F32),
        Some("F16") => Ok(Dtype::F16),
        Some("BF16") => Ok(Dtype::BF16),
        _ => Err(changed(name)),
    }
}

fn changed(name: &str) -> Error {
    Error::Internal(format!("tensor {name} changed after the adapter was opened"))
}

fn write_weights(path: &Path, tensors: &BTreeMap<String, Tensor<'_>>) -> Result<()> {
    let mut weights = Vec::with_capacity(tensors.len());
    for (name, Tensor { dtype, shape, bytes }) in tensors {
        weights.push((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(|_| changed(name))?));
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
