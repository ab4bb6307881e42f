//! Tensors of an adapter's file, sorted into modules and compared with the config.

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

/// More tensors than this are refused; the largest models have some two thousand LoRA halves.
const MAX_TENSORS: usize = 1 << 15;

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
pub(super) struct Sorted {
    pub(super) stack: &'static str,
    pub(super) modules: BTreeMap<(usize, Projection), Module>,
    pub(super) embedding_modules: BTreeMap<EmbeddingModule, EmbeddingLoraModule>,
    pub(super) saved: Vec<Saved>,
}

/// Sorts every tensor into its module and holds it against the config.
pub(super) fn sort(
    config: &AdapterConfig,
    layout: AdapterLayout,
    tensors: &Tensors,
    weights_path: &Path,
) -> Result<Sorted> {
    let mut faults = Faults::default();
    let mut found: BTreeMap<(usize, Projection), Parts> = BTreeMap::new();
    let mut found_ends: BTreeMap<EmbeddingModule, (String, Parts)> = BTreeMap::new();
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
        let kind = if end == EmbeddingModule::EmbedTokens { Kind::Embedding } else { layout.into() };
        if let Some((Fitted { names, in_features, out_features, bytes }, rank, _, scale)) =
            adapted(&path, kind, parts, &mut faults)?
        {
            ends.insert(
                end,
                EmbeddingLoraModule { module: end, path, rank, scale, in_features, out_features, names, bytes },
            );
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
    Ok(Sorted { stack, modules, embedding_modules: ends, saved })
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

impl From<AdapterLayout> for Kind {
    fn from(layout: AdapterLayout) -> Self {
        match layout {
            AdapterLayout::Peft => Self::Linear,
            AdapterLayout::Mlx => Self::Transposed,
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
