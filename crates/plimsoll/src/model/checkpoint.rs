//! A model on disk, in either of two forms, under one set of names.
//!
//! Everything above this file speaks Hugging Face's tensor names and row orders. A GGUF file differs in its names, and
//! that of a Llama in its rows, too: those of its query and key projections are interleaved, because llama.cpp rotates
//! neighbouring dimensions there, where Hugging Face rotates the two halves of a head. Both forms keep some models' q, k
//! and v in one tensor: what is asked for here is always a part of its own.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::blocks::Stored;
use super::config::FromTensors;
use super::gguf::{Gguf, Value};
use super::tensors::Tensors;
use super::{Config, ModelProblem};
use crate::adapter::{Adapter, Base, Bound, LoraWeights, OtherBase, other_base};
use crate::error::{Error, Problem, Result, shown};
use crate::files;
use crate::gates::Projection;
use crate::tokenizer::Tokenizer;

/// A base model that was opened and whose facts are known; its weights are read on demand.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Folder {
        tensors: Tensors,
        /// What stands before `layers.0`: `model.`, but where a vision model has its decoder elsewhere.
        prefix: &'static str,
    },
    Gguf {
        gguf: Box<Gguf>,
        /// Whether the rows of queries and keys are in llama.cpp's own order.
        is_interleaved: bool,
    },
}

/// Where folders keep the decoder, with where they keep its head, and the other parts of such a model.
const PREFIXES: [(&str, &str, &[&str]); 3] = [
    ("model.", "lm_head.weight", &[]),
    ("language_model.model.", "language_model.lm_head.weight", &["vision_tower.", "multi_modal_projector."]),
    ("model.language_model.", "lm_head.weight", &["model.vision_tower.", "model.multi_modal_projector."]),
];

/// A tensor of the decoder, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Embedding,
    Head,
    FinalNorm,
    Norm(usize, Norm),
    /// Never a fused one.
    Linear(usize, Projection),
    /// Never a fused one.
    Bias(usize, Projection),
}

/// A norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norm {
    Attention,
    PostAttention,
    Mlp,
    PostMlp,
    Query,
    Key,
}

/// Where a weight lies.
#[derive(Debug)]
struct Place {
    /// The tensor's name.
    name: String,
    /// The tensor's shape.
    shape: Vec<usize>,
    /// The weight's first row in it.
    first: usize,
}

impl Checkpoint {
    /// Opens a GGUF file, or a folder with `config.json` and safetensors.
    ///
    /// # Errors
    /// Neither of the two, unreadable, not a supported architecture, or with tensors that the decoder would ignore.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if reads_like_an_id(path) => Error::input(path, ModelProblem::NoSuchPath),
            _ => Error::input(path, error),
        })?;
        let checkpoint = if metadata.is_dir() {
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
            let found = "a safetensors file: give the folder that it lies in".to_owned();
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
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// Where it lies, as the user gave it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What kind of model it is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What an adapter makes of this model: the LoRA of each layer, and what it changes besides; without an adapter,
    /// nothing.
    ///
    /// # Errors
    /// The adapter does not fit.
    pub fn bind(&self, adapter: Option<&Adapter>) -> Result<Bound> {
        match adapter {
            Some(adapter) => self.as_base(|base| adapter.bind(base)),
            None => Ok(Bound::none(self.config.layers)),
        }
    }

    /// Whether an adapter fits this model, whatever becomes of LoRA on the ends of the model.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, adapter: &Adapter) -> Result<()> {
        self.as_base(|base| adapter.check(base))
    }

    /// What an adapter must know of this model.
    fn as_base<T>(&self, use_base: impl FnOnce(&Base<'_>) -> Result<T>) -> Result<T> {
        let layers = self.config.layers;
        let shape = |_, projection| self.module_shape(projection);
        let weights: HashMap<String, Vec<usize>> = self
            .weights()
            .chain([Weight::Head])
            .map(|weight| (self.public_name(weight), self.place(weight).shape))
            .collect();
        let weight = |name: &str| weights.get(name).cloned();
        use_base(&Base { layers, shape: &shape, weight: &weight })
    }

    /// A weight's name in Hugging Face's decoders.
    fn public_name(&self, weight: Weight) -> String {
        match weight {
            Weight::Head => "lm_head.weight".to_owned(),
            _ => format!("model.{}", self.folder_name(weight)),
        }
    }

    /// Reads the tokenizer that comes with the model.
    ///
    /// # Errors
    /// It is missing, broken or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Gguf { gguf, .. } => Tokenizer::from_gguf(&self.path, gguf.metadata()),
            Source::Folder { .. } => Tokenizer::from_folder(&self.path),
        }
    }

    /// SHA-256 of the GGUF file, or of the folder's configuration and weight files taken together.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sha256(&self) -> Result<String> {
        match &self.source {
            Source::Gguf { .. } => files::sha256_of_files(std::slice::from_ref(&self.path)),
            Source::Folder { tensors, .. } => {
                let mut paths = tensors.files().to_vec();
                paths.push(self.path.join("config.json"));
                files::sha256_of_files(&paths)
            }
        }
    }

    /// Whether the name of the base model that an adapter was trained on says that this is another one.
    pub fn other_base(&self, adapter: &Adapter) -> Option<OtherBase> {
        other_base(adapter.config().base_model()?, &self.names())
    }

    /// What this model is called: by where it lies, and by a GGUF file's metadata.
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

    /// What the weights are stored in, such as `BF16`; of a mixture each block type's share of the bytes, behind the file
    /// type of a GGUF file: `Q4_K_M (Q4_K 71 %, Q6_K 29 %)`. Shares below 1 % are left out.
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

    /// Number of weights, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.weights().map(|weight| self.len(weight) as u64).sum()
    }

    /// A weight whose rows can be read one by one, in Hugging Face's order.
    pub(super) fn rows<'a>(&'a self, weight: Weight, bound: &'a Bound) -> Result<WeightRows<'a>> {
        // A tied head is the embedding, but for what an adapter changes in it alone.
        let place = match weight {
            Weight::Head if self.config.tied_head => self.place(Weight::Embedding),
            _ => self.place(weight),
        };
        let Place { mut name, first, .. } = place;
        let mut order = self.order(weight);
        let patch = bound.patch(&self.public_name(weight));
        let stored = match (patch.and_then(|patch| patch.replaced.as_ref()), &self.source) {
            (Some((tensors, key)), _) => {
                (name, order) = (key.clone(), None);
                tensors.stored(key)?
            }
            (None, Source::Folder { tensors, .. }) => tensors.stored(&name)?,
            (None, Source::Gguf { gguf, .. }) => gguf.stored(&name)?,
        };
        let added = patch.and_then(|patch| patch.added.as_ref());
        Ok(WeightRows { checkpoint: self, name, stored, first, width: self.width(weight), order, added })
    }

    /// Whether the head has weights of its own: those of the model, or those that an adapter makes of the embedding's.
    pub(super) fn has_own_head(&self, bound: &Bound) -> bool {
        let is_changed = |weight| bound.patch(&self.public_name(weight)).is_some();
        !self.config.tied_head || is_changed(Weight::Embedding) || is_changed(Weight::Head)
    }

    /// A weight of one row.
    pub(super) fn read(&self, weight: Weight, bound: &Bound) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.len(weight)];
        let rows = self.rows(weight, bound)?;
        let is_replaced = bound.patch(&self.public_name(weight)).is_some_and(|patch| patch.replaced.is_some());
        let order = rows.order;
        WeightRows { order: None, ..rows }.read(0, &mut values)?;
        if let Some(head) = order {
            let stored = values.clone();
            let at = |row: usize| row / head * head + interleaved(row % head, head);
            values.iter_mut().enumerate().for_each(|(row, value)| *value = stored[at(row)]);
        }
        if matches!(weight, Weight::FinalNorm | Weight::Norm(..)) {
            // An adapter has it as Hugging Face has it, whatever form the model comes in.
            let offset = if is_replaced { self.config.adapter_norm_offset } else { self.config.norm_offset };
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(values)
    }

    /// Shape of a linear module of any layer, (outputs, inputs); none where the layers have no such module.
    pub fn module_shape(&self, projection: Projection) -> Option<(usize, usize)> {
        self.config.modules().contains(&projection).then(|| self.linear_shape(projection))
    }

    /// Shape of a linear map of any layer, whether it is a module of its own or a part of a fused one: (outputs, inputs).
    fn linear_shape(&self, projection: Projection) -> (usize, usize) {
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

    /// Numbers of a weight.
    fn len(&self, weight: Weight) -> usize {
        let Config { hidden, vocabulary, head_dim, .. } = self.config;
        match weight {
            Weight::Embedding | Weight::Head => vocabulary * hidden,
            Weight::FinalNorm => hidden,
            Weight::Norm(_, Norm::Query | Norm::Key) => head_dim,
            Weight::Norm(..) => hidden,
            Weight::Linear(_, projection) => {
                let (outputs, inputs) = self.linear_shape(projection);
                outputs * inputs
            }
            Weight::Bias(_, projection) => self.linear_shape(projection).0,
        }
    }

    /// Numbers of a weight's row.
    fn width(&self, weight: Weight) -> usize {
        match weight {
            Weight::Embedding | Weight::Head => self.config.hidden,
            Weight::Linear(_, projection) => self.linear_shape(projection).1,
            Weight::FinalNorm | Weight::Norm(..) | Weight::Bias(..) => self.len(weight),
        }
    }

    /// Rows of a head of a weight that is stored interleaved.
    fn order(&self, weight: Weight) -> Option<usize> {
        let is_turned = |projection| matches!(projection, Projection::Q | Projection::K);
        match (&self.source, weight) {
            (
                Source::Gguf { is_interleaved: true, .. },
                Weight::Linear(_, projection) | Weight::Bias(_, projection),
            ) if is_turned(projection) => Some(self.config.head_dim),
            _ => None,
        }
    }

    /// Every weight that the decoder uses.
    fn weights(&self) -> impl Iterator<Item = Weight> {
        let Config { layers, tied_head, query_key_norm, post_norms, ref biased, .. } = self.config;
        let head = (!tied_head).then_some(Weight::Head);
        let blocks = (0..layers).flat_map(move |layer| {
            let norms = [Norm::Attention, Norm::Mlp].into_iter();
            let norms = norms.chain(query_key_norm.then_some([Norm::Query, Norm::Key]).into_iter().flatten());
            let norms = norms.chain(post_norms.then_some([Norm::PostAttention, Norm::PostMlp]).into_iter().flatten());
            let linears = Projection::SINGLE.into_iter().map(move |projection| Weight::Linear(layer, projection));
            let biases = biased.iter().map(move |&projection| Weight::Bias(layer, projection));
            norms.map(move |norm| Weight::Norm(layer, norm)).chain(linears).chain(biases)
        });
        [Weight::Embedding, Weight::FinalNorm].into_iter().chain(head).chain(blocks)
    }

    /// Where a weight lies in this checkpoint.
    fn place(&self, weight: Weight) -> Place {
        let name = match &self.source {
            Source::Folder { prefix, .. } => {
                let head =
                    PREFIXES.iter().find(|(own, ..)| own == prefix).map_or("lm_head.weight", |(_, head, _)| head);
                match weight {
                    Weight::Head => head.to_owned(),
                    _ => format!("{prefix}{}", self.folder_name(weight)),
                }
            }
            Source::Gguf { .. } => match weight {
                Weight::Embedding => "token_embd.weight".into(),
                Weight::Head => "output.weight".into(),
                Weight::FinalNorm => "output_norm.weight".into(),
                Weight::Norm(layer, norm) => {
                    let name = match norm {
                        Norm::Attention => "attn_norm",
                        Norm::PostAttention => "post_attention_norm",
                        Norm::Mlp => "ffn_norm",
                        Norm::PostMlp => "post_ffw_norm",
                        Norm::Query => "attn_q_norm",
                        Norm::Key => "attn_k_norm",
                    };
                    format!("blk.{layer}.{name}.weight")
                }
                Weight::Linear(layer, projection) => {
                    format!("blk.{layer}.{}.weight", gguf_name(self.module(projection)))
                }
                Weight::Bias(layer, projection) => format!("blk.{layer}.{}.bias", gguf_name(self.module(projection))),
            },
        };
        let (rows, first) = match weight {
            Weight::Linear(_, projection) => {
                let before = match projection {
                    Projection::K if self.config.is_fused => &[Projection::Q][..],
                    Projection::V if self.config.is_fused => &[Projection::Q, Projection::K],
                    Projection::Up if self.config.is_fused => &[Projection::Gate],
                    _ => &[],
                };
                let rows = self.linear_shape(self.module(projection)).0;
                (rows, before.iter().map(|&part| self.linear_shape(part).0).sum())
            }
            _ => (self.len(weight) / self.width(weight), 0),
        };
        let shape = match weight {
            Weight::FinalNorm | Weight::Norm(..) | Weight::Bias(..) => vec![self.len(weight)],
            _ => vec![rows, self.width(weight)],
        };
        Place { name, shape, first }
    }

    /// The module that a linear map is, or is a part of.
    fn module(&self, projection: Projection) -> Projection {
        match projection {
            Projection::Q | Projection::K | Projection::V if self.config.is_fused => Projection::Qkv,
            Projection::Gate | Projection::Up if self.config.is_fused => Projection::GateUp,
            _ => projection,
        }
    }

    /// The name of a weight's tensor in Hugging Face's folders, below `model.`.
    fn folder_name(&self, weight: Weight) -> String {
        match weight {
            Weight::Embedding => "embed_tokens.weight".into(),
            Weight::Head => "lm_head.weight".into(),
            Weight::FinalNorm => "norm.weight".into(),
            Weight::Norm(layer, norm) => {
                let name = match norm {
                    Norm::Attention => "input_layernorm",
                    // The name that other models have for the norm before the MLP.
                    Norm::PostAttention => "post_attention_layernorm",
                    Norm::Mlp if self.config.post_norms => "pre_feedforward_layernorm",
                    Norm::Mlp => "post_attention_layernorm",
                    Norm::PostMlp => "post_feedforward_layernorm",
                    Norm::Query => "self_attn.q_norm",
                    Norm::Key => "self_attn.k_norm",
                };
                format!("layers.{layer}.{name}.weight")
            }
            Weight::Linear(layer, projection) => format!("layers.{layer}.{}.weight", self.module(projection).path()),
            Weight::Bias(layer, projection) => format!("layers.{layer}.{}.bias", self.module(projection).path()),
        }
    }

    /// Every tensor of the decoder is there in the right shape, and no tensor is there that it would ignore.
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
        let (names, apart): (Box<dyn Iterator<Item = &str>>, &[&str]) = match &self.source {
            Source::Folder { tensors, prefix } => {
                let apart = PREFIXES.iter().find(|(own, ..)| own == prefix).map_or(&[][..], |(.., apart)| apart);
                (Box::new(tensors.names()), apart)
            }
            Source::Gguf { gguf, .. } => (Box::new(gguf.names()), &[]),
        };
        for name in names {
            // Derived from the configuration, or, for a tied head, from the embedding: nothing is lost with them. Nor is
            // with what sees pictures: text does not pass through it.
            let derived = name.ends_with("rotary_emb.inv_freq")
                || ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"].contains(&name);
            let tied = self.config.tied_head && name.ends_with("lm_head.weight");
            let apart = apart.iter().any(|part| name.starts_with(part));
            if !derived && !tied && !apart && !used.contains(name) {
                return Err(self.problem(ModelProblem::UnusedTensor(name.to_owned())));
            }
        }
        Ok(())
    }

    fn problem(&self, problem: impl Into<Problem>) -> Error {
        Error::input(&self.path, problem)
    }
}

/// Whether a path could be the id of a repository, such as `owner/name`.
fn reads_like_an_id(path: &Path) -> bool {
    let parts: Vec<Component<'_>> = path.components().collect();
    parts.len() == 2 && parts.iter().all(|part| matches!(part, Component::Normal(_)))
}

/// A folder without `config.json`, and what in it may have been meant.
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
        Some(name) => format!("a folder with a GGUF file in it: give the file itself, such as {}", shown(name)),
    })
}

/// The file type of a mixture, and each block type's share of the bytes.
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

/// llama.cpp's name of a `general.file_type` (`llama_ftype` in `llama.h`); none of a number that it has no name for.
fn file_type(number: u64) -> Option<&'static str> {
    /// Set where llama.cpp guessed the type from the tensors.
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

/// The name of a module's tensors in a GGUF file.
fn gguf_name(projection: Projection) -> &'static str {
    match projection {
        Projection::Q => "attn_q",
        Projection::K => "attn_k",
        Projection::V => "attn_v",
        Projection::O => "attn_output",
        Projection::Gate => "ffn_gate",
        // Where gate and up are one module, llama.cpp calls it so.
        Projection::Up | Projection::GateUp => "ffn_up",
        Projection::Down => "ffn_down",
        Projection::Qkv => "attn_qkv",
    }
}

/// The rows of one weight.
pub(super) struct WeightRows<'a> {
    checkpoint: &'a Checkpoint,
    name: String,
    stored: Stored<'a>,
    /// The weight's first row in what is stored.
    first: usize,
    /// Numbers of a row.
    width: usize,
    /// Rows of a head, where they are stored interleaved.
    order: Option<usize>,
    /// LoRA that an adapter adds in every variant.
    added: Option<&'a LoraWeights>,
}

impl WeightRows<'_> {
    /// Reads one row, as many numbers as `out` has.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let stored = self.order.map_or(row, |head| row / head * head + interleaved(row % head, head));
        self.stored.read_at((self.first + stored) * self.width, out);
        if let Some(lora) = self.added {
            lora.add_to(row, out);
        }
        if out.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(self.checkpoint.problem(ModelProblem::NotFinite(self.name.clone())))
        }
    }
}

/// Where a row of a head of `head_dim` rows is stored, when the rotation there pairs dimensions `2i` and `2i + 1` and here
/// `i` and `i + head_dim / 2`.
fn interleaved(row: usize, head_dim: usize) -> usize {
    let half = head_dim / 2;
    row % half * 2 + row / half
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{file_type, interleaved, stored_as};

    #[test]
    fn a_mixture_is_named_with_its_shares() {
        let mixture = BTreeMap::from([("F32", 4), ("Q4_K", 700), ("Q6_K", 296)]);
        assert_eq!(stored_as(file_type(15), &mixture), "Q4_K_M (Q4_K 70 %, Q6_K 30 %)");
        assert_eq!(stored_as(file_type(1024 + 15), &mixture), "Q4_K_M (Q4_K 70 %, Q6_K 30 %)");
        assert_eq!(stored_as(file_type(4711), &mixture), "Q4_K 70 %, Q6_K 30 %");
        let plain = BTreeMap::from([("F32", 4), ("Q8_0", 996)]);
        assert_eq!(stored_as(file_type(7), &plain), "Q8_0");
        assert_eq!(stored_as(None, &BTreeMap::from([("BF16", 10)])), "BF16");
        // What the file says and what is in it may differ.
        assert_eq!(stored_as(file_type(0), &plain), "F32 (Q8_0 100 %)");
    }

    #[test]
    fn the_halves_of_a_head_are_its_even_and_its_odd_rows() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|row| interleaved(row, 6)), [0, 2, 4, 1, 3, 5]);
    }
}
