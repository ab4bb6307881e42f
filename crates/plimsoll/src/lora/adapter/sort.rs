//! Tensors of an adapter's file, grouped by module and checked against the config.

use std::collections::BTreeMap;
use std::path::Path;

use plimsoll_formats::Tensors;
use plimsoll_formats::text::shown;

use super::config::{self, AdapterConfig};
use super::embeddings::EmbeddingModule;
use super::file_names::CONFIG_FILE;
use super::keys::{Key, Part, STACKS};
use super::layout::AdapterLayout;
use super::module::{EmbeddingLoraModule, Module, Names, Saved};
use super::problem::{AdapterProblem, Faults};
use crate::error::{Error, Result};
use crate::lora::projection::Projection;

/// Most tensors of a file that are read. Adapters of the largest models have about two thousand.
const MAX_TENSORS: usize = 1 << 15;

/// Tensor names of the parts of one module.
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
            Some(_) => Err("duplicate tensor: two adapters in one file are not supported"),
        }
    }
}

/// The content of an adapter's file.
pub(super) struct Sorted {
    pub(super) stack: &'static str,
    pub(super) modules: BTreeMap<(usize, Projection), Module>,
    pub(super) embedding_modules: BTreeMap<EmbeddingModule, EmbeddingLoraModule>,
    pub(super) saved: Vec<Saved>,
}

/// Groups the tensors by module and checks them against the config.
pub(super) fn sort(
    config: &AdapterConfig,
    layout: AdapterLayout,
    tensors: &Tensors,
    weights_path: &Path,
) -> Result<Sorted> {
    let names: Vec<&str> = tensors.names().collect();
    if names.len() > MAX_TENSORS {
        let problem = AdapterProblem::TooMany { key: "tensors", found: names.len(), limit: MAX_TENSORS };
        return Err(Error::input(weights_path, problem));
    }
    let mut faults = Faults::default();
    let Grouped { stack, modules: parts_of_modules, embedding_modules: parts_of_embeddings, saved } =
        group(&names, layout, &mut faults);
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
    let (mut modules, mut embedding_modules) = (BTreeMap::new(), BTreeMap::new());
    for ((layer, projection), parts) in parts_of_modules {
        let path = format!("{stack}.{layer}.{}", projection.path());
        if let Some((Fitted { names, in_features, out_features, bytes }, rank, alpha, scale)) =
            adapted(&path, layout.into(), parts, &mut faults)?
        {
            let module = Module { layer, projection, rank, alpha, scale, in_features, out_features, bytes, names };
            modules.insert((layer, projection), module);
        }
    }
    for (module, (path, parts)) in parts_of_embeddings {
        let kind = if module == EmbeddingModule::EmbedTokens { Kind::Embedding } else { layout.into() };
        if let Some((Fitted { names, in_features, out_features, bytes }, rank, _, scale)) =
            adapted(&path, kind, parts, &mut faults)?
        {
            let lora = EmbeddingLoraModule { module, path, rank, scale, in_features, out_features, names, bytes };
            embedding_modules.insert(module, lora);
        }
    }
    for Saved { path, .. } in &saved {
        if let Some(fault) = config.saved_fault(path) {
            faults.push(format_args!("{path}: {fault}"));
        }
    }
    for entry in config.modules_to_save() {
        if !saved.iter().any(|saved| config::is_saved_as(&saved.path, entry)) {
            faults.push(format_args!("{}: modules_to_save names it, but its tensors are missing", shown(entry)));
        }
    }
    if modules.is_empty() && faults.count == 0 {
        faults.push("no LoRA tensors of decoder layers");
    }
    faults.into_result(weights_path)?;
    Ok(Sorted { stack, modules, embedding_modules, saved })
}

/// Tensor names by module.
struct Grouped {
    stack: &'static str,
    modules: BTreeMap<(usize, Projection), Parts>,
    /// With the path of each module.
    embedding_modules: BTreeMap<EmbeddingModule, (String, Parts)>,
    saved: Vec<Saved>,
}

/// Groups tensor names by module.
fn group(names: &[&str], layout: AdapterLayout, faults: &mut Faults) -> Grouped {
    let mut modules: BTreeMap<(usize, Projection), Parts> = BTreeMap::new();
    let mut embedding_modules: BTreeMap<EmbeddingModule, (String, Parts)> = BTreeMap::new();
    let mut saved: Vec<Saved> = Vec::new();
    let mut stack = None;
    for &name in names {
        match Key::of(name, layout) {
            Err(reason) => faults.push(format_args!("{}: {reason}", shown(name))),
            Ok(Key::Layer { stack: own, .. }) if *stack.get_or_insert(own) != own => {
                faults.push(format_args!("{}: other tensors are for another stack of layers", shown(name)));
            }
            Ok(Key::Layer { layer, projection, part, .. }) => {
                if let Err(fault) = modules.entry((layer, projection)).or_default().put(part, name) {
                    faults.push(format_args!("{}: {fault}", shown(name)));
                }
            }
            Ok(Key::Embedding { module, path, part }) => {
                let (_, parts) = embedding_modules.entry(module).or_insert((path, Parts::default()));
                if let Err(fault) = parts.put(part, name) {
                    faults.push(format_args!("{}: {fault}", shown(name)));
                }
            }
            Ok(Key::Saved { name: weight, path }) => {
                if saved.iter().any(|saved| saved.name == weight) {
                    faults.push(format_args!("{}: duplicate tensor", shown(name)));
                }
                saved.push(Saved { name: weight, path, key: name.to_owned() });
            }
        }
    }
    Grouped { stack: stack.unwrap_or(STACKS[0]), modules, embedding_modules, saved }
}

/// The orientation of a module's factors in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A (rank, in), B (out, rank).
    Linear,
    /// A (rank, vocabulary), B (hidden, rank).
    Embedding,
    /// mlx-lm's: A (in, rank), B (rank, out).
    Transposed,
}

impl From<AdapterLayout> for Kind {
    fn from(layout: AdapterLayout) -> Self {
        match layout {
            AdapterLayout::Peft => Self::Linear,
            AdapterLayout::Mlx => Self::Transposed,
        }
    }
}

/// The parts of a module after their shapes were checked.
struct Fitted {
    names: Names,
    in_features: usize,
    out_features: usize,
    bytes: u64,
}

/// Checks the shapes of a module's parts. The text of a fault continues the module's path.
fn fit(tensors: &Tensors, parts: Parts, rank: usize, use_dora: bool, kind: Kind) -> Result<Fitted, String> {
    let [a_name, b_name] = match kind {
        Kind::Linear => [".lora_A.weight", ".lora_B.weight"],
        Kind::Embedding => [".lora_embedding_A", ".lora_embedding_B"],
        Kind::Transposed => [".lora_a", ".lora_b"],
    };
    let (a, b) = match (parts.a, parts.b) {
        (Some(a), Some(b)) => (a, b),
        (None, Some(_)) => return Err(format!("{a_name} is missing, {} is present", &b_name[1..])),
        (Some(_), None) => return Err(format!("{b_name} is missing, {} is present", &a_name[1..])),
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
            return Err(format!("{a_name} has shape {found:?}: adapter_config.json requires {in_rank}"));
        }
    };
    let out_features = match shape(&b)[..] {
        [out, r] if r == rank && out > 0 => out,
        _ => {
            let found = tensors.shape(&b).unwrap_or_default();
            return Err(format!("{b_name} has shape {found:?}: adapter_config.json requires {out_rank}"));
        }
    };
    match (&parts.magnitude, use_dora) {
        (Some(_), false) => return Err(": has a DoRA magnitude, but use_dora is not set".to_owned()),
        (Some(_), true) if kind == Kind::Embedding => return Err(": DoRA on embeddings is not supported".to_owned()),
        (None, true) => return Err(".lora_magnitude_vector is missing, but use_dora is set".to_owned()),
        (Some(name), true) if tensors.shape(name) != Some(&[out_features]) => {
            let found = tensors.shape(name).unwrap_or_default();
            return Err(format!(".lora_magnitude_vector has shape {found:?}: lora_B requires [{out_features}]"));
        }
        _ => {}
    }
    // An embedding's weight has one row for each token, so the inputs of A are the rows of the weight.
    let (in_features, out_features) =
        if kind == Kind::Embedding { (out_features, in_features) } else { (in_features, out_features) };
    let names = Names { a, b, magnitude: parts.magnitude };
    let bytes = names.all().filter_map(|name| tensors.bytes(name)).map(|bytes| bytes.len() as u64).sum();
    Ok(Fitted { names, in_features, out_features, bytes })
}
