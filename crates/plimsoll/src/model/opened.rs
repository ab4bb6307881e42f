//! A base model on disk: a GGUF file or a Hugging Face folder.
//!
//! The rest of the library uses Hugging Face's tensor names and row orders. A GGUF file has other names. For Llama it
//! also has another order of the rows of query and key projections: llama.cpp rotates neighbouring dimensions, so the
//! rows are interleaved, while Hugging Face rotates the two halves of a head. Some models store q, k and v in one fused
//! tensor; here they are always separate weights.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use plimsoll_formats::text::shown;
use plimsoll_formats::{Gguf, Problem, Tensors, Value, files};

use super::config::FromTensors;
use super::weights::{Place, Weight, gguf_name};
use super::{Config, ModelProblem};
use crate::error::{Error, Result};
use crate::lora::Projection;
use crate::lora::adapter::{Adapter, BaseShapes, BoundAdapter, OtherBase, other_base};
use crate::result::ModelFacts;
use crate::tokenizer::Tokenizer;

/// A base model that was opened: its configuration is read and its tensors are checked. Weights are read on demand.
#[derive(Debug)]
pub struct Model {
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) source: Source,
}

#[derive(Debug)]
pub(super) enum Source {
    Folder {
        tensors: Tensors,
        /// The prefix of the decoder's tensor names: `model.`, or that of the decoder in a vision model.
        prefix: &'static str,
    },
    Gguf {
        gguf: Box<Gguf>,
        /// Whether the rows of queries and keys are interleaved.
        is_interleaved: bool,
    },
}

/// Prefix of the decoder's tensor names, name of the head's weight, and prefixes of the other parts of such a model.
pub(super) const PREFIXES: [(&str, &str, &[&str]); 3] = [
    ("model.", "lm_head.weight", &[]),
    ("language_model.model.", "language_model.lm_head.weight", &["vision_tower.", "multi_modal_projector."]),
    ("model.language_model.", "lm_head.weight", &["model.vision_tower.", "model.multi_modal_projector."]),
];

impl Model {
    /// Opens a GGUF file, or a Hugging Face folder with `config.json` and safetensors.
    ///
    /// # Errors
    /// Neither of the two, an unreadable file, an unsupported architecture, or tensors that the decoder would ignore.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if may_be_repository_id(path) => Error::input(path, ModelProblem::NoSuchPath),
            _ => Error::read(path)(error),
        })?;
        let model = if metadata.is_dir() {
            let config = path.join("config.json");
            if !config.exists() {
                return Err(Error::input(path, ModelProblem::NotAModel(without_config(path)?)));
            }
            let text = files::read_config(&config)?;
            let config = Config::from_json(&text).map_err(|problem| Error::input(config, problem))?;
            let tensors = Tensors::open(path)?;
            let is_there = |prefix: &str| tensors.shape(&format!("{prefix}embed_tokens.weight")).is_some();
            let prefix = PREFIXES.iter().map(|(prefix, ..)| *prefix).find(|prefix| is_there(prefix));
            let source = Source::Folder { prefix: prefix.unwrap_or("model."), tensors };
            Self { path: path.to_owned(), config, source }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            let found = "a safetensors file: pass its folder".to_owned();
            return Err(Error::input(path, ModelProblem::NotAModel(found)));
        } else {
            let gguf = Gguf::open(path)?;
            let has = |name: &str| gguf.shape(name).is_some();
            let read = |name: &str| has(name).then(|| gguf.read(name)).transpose();
            let (short, long) = (read("rope_factors_short.weight")?, read("rope_factors_long.weight")?);
            let is_biased = |projection: &Projection| has(&format!("blk.0.{}.bias", gguf_name(*projection)));
            let from_tensors = FromTensors {
                tied_head: !has("output.weight"),
                biased: Projection::SINGLE.into_iter().filter(is_biased).collect(),
                divisors: read("rope_freqs.weight")?,
                short_and_long: short.zip(long),
            };
            let of_facts = |problem| Error::input(path, problem);
            let config = Config::from_gguf(gguf.metadata(), from_tensors).map_err(of_facts)?;
            let is_interleaved = Config::is_interleaved(gguf.metadata()).map_err(of_facts)?;
            Self { path: path.to_owned(), config, source: Source::Gguf { gguf: Box::new(gguf), is_interleaved } }
        };
        model.check_tensors()?;
        Ok(model)
    }

    /// The path as the user gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the decoder.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Binds an adapter to this model, see [`Adapter::bind`]. Without an adapter, nothing is changed.
    ///
    /// # Errors
    /// The adapter does not fit.
    pub fn bind(&self, adapter: Option<&Adapter>) -> Result<BoundAdapter> {
        match adapter {
            Some(adapter) => self.as_base(|base| adapter.bind(base)),
            None => Ok(BoundAdapter::none(self.config.layers)),
        }
    }

    /// Checks that an adapter fits this model, see [`Adapter::check`].
    ///
    /// # Errors
    /// The adapter does not fit.
    pub fn check(&self, adapter: &Adapter) -> Result<()> {
        self.as_base(|base| adapter.check(base))
    }

    /// Calls a function with the shapes of this model.
    fn as_base<T>(&self, use_base: impl FnOnce(&BaseShapes<'_>) -> Result<T>) -> Result<T> {
        let layers = self.config.layers;
        let shape = |_, projection| self.module_shape(projection);
        let weights: HashMap<String, Vec<usize>> = self
            .weights()
            .chain([Weight::Head])
            .map(|weight| (self.public_name(weight), self.place(weight).shape))
            .collect();
        let weight = |name: &str| weights.get(name).cloned();
        use_base(&BaseShapes { layers, shape: &shape, weight: &weight })
    }

    /// The Hugging Face name of a weight.
    pub(super) fn public_name(&self, weight: Weight) -> String {
        match weight {
            Weight::Head => "lm_head.weight".to_owned(),
            _ => format!("model.{}", self.folder_name(weight)),
        }
    }

    /// The facts of the model for a result, with this path and hash.
    pub fn facts(&self, path: &Path, sha256: &str) -> ModelFacts {
        ModelFacts {
            path: path.display().to_string(),
            sha256: sha256.to_owned(),
            architecture: self.config.architecture.clone(),
            layers: self.config.layers,
            hidden_size: self.config.hidden,
            vocab_size: self.config.vocabulary,
            parameters: self.parameters(),
            stored_as: self.stored_as(),
        }
    }

    /// Reads the model's tokenizer.
    ///
    /// # Errors
    /// The tokenizer is missing, malformed or not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Gguf { gguf, .. } => Tokenizer::from_gguf(&self.path, gguf.metadata()),
            Source::Folder { .. } => Tokenizer::from_folder(&self.path),
        }
    }

    /// SHA-256 of the GGUF file, or of the folder's weight files and `config.json` together.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sha256(&self) -> Result<String> {
        match &self.source {
            Source::Gguf { .. } => Ok(files::sha256_of_files(std::slice::from_ref(&self.path))?),
            Source::Folder { tensors, .. } => {
                let mut paths = tensors.files().to_vec();
                paths.push(self.path.join("config.json"));
                Ok(files::sha256_of_files(&paths)?)
            }
        }
    }

    /// Compares the name of this model with the base model that an adapter names; `None` if there is no mismatch.
    pub fn other_base(&self, adapter: &Adapter) -> Option<OtherBase> {
        other_base(adapter.config().base_model()?, &self.names())
    }

    /// Names of this model: its path, and the names in a GGUF file's metadata.
    fn names(&self) -> Vec<String> {
        let mut names = vec![self.path.display().to_string()];
        names.extend(self.path.canonicalize().ok().map(|path| path.display().to_string()));
        if let Source::Gguf { gguf, .. } = &self.source {
            let text = |key: &str| gguf.metadata().get(key).and_then(Value::as_str);
            names.extend(text("general.name").map(str::to_owned));
            let parts = ["basename", "size_label", "finetune", "version"].map(|key| text(&format!("general.{key}")));
            names.extend(parts[0].map(|_| parts.into_iter().flatten().collect::<Vec<_>>().join("-")));
        }
        names
    }

    /// The dtype or block type of the stored weights, such as `BF16`. For a mixture, the file type of a GGUF file with
    /// each block type's share of the bytes: `Q4_K_M (Q4_K 71 %, Q6_K 29 %)`. Shares below 1 % are left out.
    pub fn stored_as(&self) -> String {
        let mut bytes: BTreeMap<&str, usize> = BTreeMap::new();
        let file_type = match &self.source {
            Source::Gguf { gguf, .. } => {
                for name in gguf.names() {
                    *bytes.entry(gguf.block_type(name).unwrap_or("unknown")).or_default() += gguf.size(name);
                }
                gguf.metadata().get("general.file_type").and_then(Value::as_u64).and_then(file_type)
            }
            Source::Folder { tensors, .. } => {
                for name in tensors.names() {
                    let size = tensors.bytes(name).map_or(0, <[u8]>::len);
                    *bytes.entry(tensors.dtype(name).unwrap_or("unknown")).or_default() += size;
                }
                None
            }
        };
        stored_as(file_type, &bytes)
    }

    /// Number of parameters, with a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.weights().map(|weight| self.len(weight) as u64).sum()
    }

    /// Shape (outputs, inputs) of a linear module of the layers; `None` if they have no such module.
    pub fn module_shape(&self, projection: Projection) -> Option<(usize, usize)> {
        self.config.modules().contains(&projection).then(|| self.linear_shape(projection))
    }

    /// Shape (outputs, inputs) of a projection, whether it is a module or a part of a fused one.
    pub(super) fn linear_shape(&self, projection: Projection) -> (usize, usize) {
        let Config { hidden, intermediate, heads, kv_heads, head_dim, .. } = self.config;
        match projection {
            Projection::Q => (heads * head_dim, hidden),
            Projection::K | Projection::V => (kv_heads * head_dim, hidden),
            Projection::O => (hidden, heads * head_dim),
            Projection::Gate | Projection::Up => (intermediate, hidden),
            Projection::Down => (hidden, intermediate),
            Projection::Qkv => ((heads + 2 * kv_heads) * head_dim, hidden),
            Projection::GateUp => (2 * intermediate, hidden),
        }
    }

    /// Checks that every tensor of the decoder has the right shape, and that no other tensor exists.
    fn check_tensors(&self) -> Result<()> {
        let mut used = std::collections::HashSet::new();
        for weight in self.weights() {
            let Place { name, shape: expected, .. } = self.place(weight);
            let found = match &self.source {
                Source::Folder { tensors, .. } => tensors.shape(&name),
                Source::Gguf { gguf, .. } => gguf.shape(&name),
            };
            match found {
                None => return Err(self.problem(ModelProblem::MissingTensor(name))),
                Some(found) if *found != *expected => {
                    let found = found.to_vec();
                    return Err(self.problem(ModelProblem::Shape { name, found, expected }));
                }
                Some(_) => {}
            }
            used.insert(name);
        }
        let (names, other_parts): (Box<dyn Iterator<Item = &str>>, &[&str]) = match &self.source {
            Source::Folder { tensors, prefix } => {
                let parts = PREFIXES.iter().find(|(own, ..)| own == prefix).map_or(&[][..], |(.., parts)| parts);
                (Box::new(tensors.names()), parts)
            }
            Source::Gguf { gguf, .. } => (Box::new(gguf.names()), &[]),
        };
        for name in names {
            // These are not needed: rotary tensors follow from the configuration, a tied head is the embedding, and
            // text does not use the vision parts.
            let derived = name.ends_with("rotary_emb.inv_freq")
                || ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"].contains(&name);
            let tied = self.config.tied_head && name.ends_with("lm_head.weight");
            let other_part = other_parts.iter().any(|part| name.starts_with(part));
            if !derived && !tied && !other_part && !used.contains(name) {
                return Err(self.problem(ModelProblem::UnusedTensor(name.to_owned())));
            }
        }
        Ok(())
    }

    pub(super) fn problem(&self, problem: impl Into<Problem>) -> Error {
        Error::input(&self.path, problem)
    }
}

/// Whether a path has the form of a repository id: `owner/name`.
fn may_be_repository_id(path: &Path) -> bool {
    let parts: Vec<Component<'_>> = path.components().collect();
    parts.len() == 2 && parts.iter().all(|part| matches!(part, Component::Normal(_)))
}

/// Describes a folder without `config.json`, with a hint if it has a GGUF file.
fn without_config(folder: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        let name = entry.map_err(Error::read(folder))?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".gguf") {
            names.push(name);
        }
    }
    names.sort();
    Ok(match names.first() {
        None => "a folder without config.json".to_owned(),
        Some(name) => format!("a folder with a GGUF file: pass the file itself, such as {}", shown(name)),
    })
}

/// The file type, and the share of bytes of each block type.
fn stored_as(file_type: Option<&str>, bytes: &BTreeMap<&str, usize>) -> String {
    let all = bytes.values().sum::<usize>().max(1);
    let mut shares: Vec<(&str, usize)> = bytes.iter().map(|(name, bytes)| (*name, *bytes)).collect();
    shares.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    shares.retain(|(_, bytes)| *bytes * 100 >= all);
    let percent = |(name, bytes): &(&str, usize)| format!("{name} {:.0} %", *bytes as f64 / all as f64 * 100.0);
    match (file_type, &shares[..]) {
        (None, []) => "unknown".to_owned(),
        (Some(name), []) => name.to_owned(),
        (None, [(only, _)]) => (*only).to_owned(),
        (Some(name), [(only, _)]) if name == *only => name.to_owned(),
        (name, shares) => {
            let shares = shares.iter().map(percent).collect::<Vec<_>>().join(", ");
            name.map_or_else(|| shares.clone(), |name| format!("{name} ({shares})"))
        }
    }
}

/// llama.cpp's name of a `general.file_type` (`llama_ftype` in `llama.h`); `None` for an unknown number.
fn file_type(number: u64) -> Option<&'static str> {
    /// Flag: llama.cpp guessed the type from the tensors.
    const GUESSED: u64 = 1024;
    Some(match number & !GUESSED {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{file_type, stored_as};

    #[test]
    fn a_mixture_is_named_with_its_shares() {
        let mixture = BTreeMap::from([("F32", 4), ("Q4_K", 700), ("Q6_K", 296)]);
        assert_eq!(stored_as(file_type(15), &mixture), "Q4_K_M (Q4_K 70 %, Q6_K 30 %)");
        assert_eq!(stored_as(file_type(1024 + 15), &mixture), "Q4_K_M (Q4_K 70 %, Q6_K 30 %)");
        assert_eq!(stored_as(file_type(4711), &mixture), "Q4_K 70 %, Q6_K 30 %");
        let plain = BTreeMap::from([("F32", 4), ("Q8_0", 996)]);
        assert_eq!(stored_as(file_type(7), &plain), "Q8_0");
        assert_eq!(stored_as(None, &BTreeMap::from([("BF16", 10)])), "BF16");
        // The stated file type may differ from the content.
        assert_eq!(stored_as(file_type(0), &plain), "F32 (Q8_0 100 %)");
    }
}
