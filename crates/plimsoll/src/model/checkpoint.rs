//! A model on disk, in either of two forms, under one set of names.
//!
//! Everything above this file speaks Hugging Face's tensor names and row orders. A GGUF file of a Llama differs in
//! both: its tensors have short names, and the rows of its query and key projections are interleaved, because
//! llama.cpp rotates neighbouring dimensions where Hugging Face rotates the two halves of a head.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::blocks::Stored;
use super::gguf::Gguf;
use super::tensors::Tensors;
use super::{Config, ModelProblem};
use crate::adapter::{Adapter, Base, LayerLora};
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
    Folder(Tensors),
    Gguf(Box<Gguf>),
}

/// A tensor of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Embedding,
    Head,
    FinalNorm,
    AttentionNorm(usize),
    MlpNorm(usize),
    Linear(usize, Projection),
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
            Self { path: path.to_owned(), config, source: Source::Folder(Tensors::open(path)?) }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            let found = "a safetensors file: give the folder that it lies in".to_owned();
            return Err(Error::input(path, ModelProblem::NotAModel(found)));
        } else {
            let gguf = Gguf::open(path)?;
            let tied = gguf.shape("output.weight").is_none();
            let mut config = Config::from_gguf(gguf.metadata(), tied).map_err(|problem| Error::input(path, problem))?;
            if gguf.shape("rope_freqs.weight").is_some() {
                let divisors = gguf.read("rope_freqs.weight")?;
                config = config.with_rope_divisors(divisors).map_err(|problem| Error::input(path, problem))?;
            }
            Self { path: path.to_owned(), config, source: Source::Gguf(Box::new(gguf)) }
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

    /// The LoRA of an adapter for this model, layer by layer; without an adapter, none.
    ///
    /// # Errors
    /// The adapter does not fit.
    pub fn bind(&self, adapter: Option<&Adapter>) -> Result<Vec<LayerLora>> {
        let layers = self.config.layers;
        let shape = |_, projection| self.module_shape(projection);
        match adapter {
            Some(adapter) => adapter.bind(&Base { layers, shape: &shape }),
            None => Ok(vec![LayerLora::default(); layers]),
        }
    }

    /// Reads the tokenizer that comes with the model.
    ///
    /// # Errors
    /// It is missing, broken or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Gguf(gguf) => Tokenizer::from_gguf(&self.path, gguf.metadata()),
            Source::Folder(_) => Tokenizer::from_folder(&self.path),
        }
    }

    /// SHA-256 of the GGUF file, or of the folder's configuration and weight files taken together.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn sha256(&self) -> Result<String> {
        match &self.source {
            Source::Gguf(_) => files::sha256_of_files(std::slice::from_ref(&self.path)),
            Source::Folder(tensors) => {
                let mut paths = tensors.files().to_vec();
                paths.push(self.path.join("config.json"));
                files::sha256_of_files(&paths)
            }
        }
    }

    /// The block type or dtype that most of the weights are stored in, such as `Q4_1` or `BF16`.
    pub fn stored_as(&self) -> &'static str {
        let name = self.name(Weight::Linear(0, Projection::Down));
        match &self.source {
            Source::Gguf(gguf) => gguf.block_type(&name),
            Source::Folder(tensors) => tensors.dtype(&name),
        }
        .unwrap_or("unknown")
    }

    /// Number of weights, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.weights().map(|weight| self.shape(weight).iter().product::<usize>() as u64).sum()
    }

    /// A tensor whose rows can be read one by one, in Hugging Face's order.
    pub(super) fn rows(&self, weight: Weight) -> Result<WeightRows<'_>> {
        let Config { heads, kv_heads, .. } = self.config;
        let name = self.name(weight);
        let stored = match &self.source {
            Source::Folder(tensors) => tensors.stored(&name)?,
            Source::Gguf(gguf) => gguf.stored(&name)?,
        };
        let shape = self.shape(weight);
        let rows = if shape.len() == 2 { shape[0] } else { 1 };
        let interleaved_head = match (&self.source, weight) {
            (Source::Gguf(_), Weight::Linear(_, Projection::Q)) => Some(rows / heads),
            (Source::Gguf(_), Weight::Linear(_, Projection::K)) => Some(rows / kv_heads),
            _ => None,
        };
        Ok(WeightRows {
            checkpoint: self,
            name,
            stored,
            width: shape.iter().product::<usize>() / rows,
            interleaved_head,
        })
    }

    /// A tensor of one row.
    pub(super) fn read(&self, weight: Weight) -> Result<Vec<f32>> {
        let rows = self.rows(weight)?;
        let mut values = vec![0.0; rows.width];
        rows.read(0, &mut values)?;
        Ok(values)
    }

    /// Shape of a linear module of any layer, (outputs, inputs); none where the layers have no such module.
    pub fn module_shape(&self, projection: Projection) -> Option<(usize, usize)> {
        match projection {
            Projection::Qkv | Projection::GateUp => None,
            _ => Some(self.linear_shape(projection)),
        }
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

    fn shape(&self, weight: Weight) -> Vec<usize> {
        let Config { hidden, vocabulary, .. } = self.config;
        match weight {
            Weight::Embedding | Weight::Head => vec![vocabulary, hidden],
            Weight::FinalNorm | Weight::AttentionNorm(_) | Weight::MlpNorm(_) => vec![hidden],
            Weight::Linear(_, projection) => {
                let (outputs, inputs) = self.linear_shape(projection);
                vec![outputs, inputs]
            }
        }
    }

    /// Every tensor that the decoder uses.
    fn weights(&self) -> impl Iterator<Item = Weight> + use<> {
        let head = (!self.config.tied_head).then_some(Weight::Head);
        let blocks = (0..self.config.layers).flat_map(|layer| {
            let linears = Projection::ALL.into_iter().take(7).map(move |projection| Weight::Linear(layer, projection));
            [Weight::AttentionNorm(layer), Weight::MlpNorm(layer)].into_iter().chain(linears)
        });
        [Weight::Embedding, Weight::FinalNorm].into_iter().chain(head).chain(blocks)
    }

    /// A tensor's name in this checkpoint.
    fn name(&self, weight: Weight) -> String {
        match (&self.source, weight) {
            (Source::Folder(_), Weight::Embedding) => "model.embed_tokens.weight".into(),
            (Source::Folder(_), Weight::Head) => "lm_head.weight".into(),
            (Source::Folder(_), Weight::FinalNorm) => "model.norm.weight".into(),
            (Source::Folder(_), Weight::AttentionNorm(layer)) => format!("model.layers.{layer}.input_layernorm.weight"),
            (Source::Folder(_), Weight::MlpNorm(layer)) => {
                format!("model.layers.{layer}.post_attention_layernorm.weight")
            }
            (Source::Folder(_), Weight::Linear(layer, projection)) => {
                format!("model.layers.{layer}.{}.weight", projection.path())
            }
            (Source::Gguf(_), Weight::Embedding) => "token_embd.weight".into(),
            (Source::Gguf(_), Weight::Head) => "output.weight".into(),
            (Source::Gguf(_), Weight::FinalNorm) => "output_norm.weight".into(),
            (Source::Gguf(_), Weight::AttentionNorm(layer)) => format!("blk.{layer}.attn_norm.weight"),
            (Source::Gguf(_), Weight::MlpNorm(layer)) => format!("blk.{layer}.ffn_norm.weight"),
            (Source::Gguf(_), Weight::Linear(layer, projection)) => {
                let name = match projection {
                    Projection::Q => "attn_q",
                    Projection::K => "attn_k",
                    Projection::V => "attn_v",
                    Projection::O => "attn_output",
                    Projection::Gate => "ffn_gate",
                    Projection::Up => "ffn_up",
                    Projection::Down => "ffn_down",
                    Projection::Qkv => "attn_qkv",
                    Projection::GateUp => "ffn_up",
                };
                format!("blk.{layer}.{name}.weight")
            }
        }
    }

    /// Every tensor of the decoder is there in the right shape, and no tensor is there that it would ignore.
    fn check_tensors(&self) -> Result<()> {
        let mut used = std::collections::HashSet::new();
        for weight in self.weights() {
            let (name, expected) = (self.name(weight), self.shape(weight));
            let found = match &self.source {
                Source::Folder(tensors) => tensors.shape(&name),
                Source::Gguf(gguf) => gguf.shape(&name),
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
        let names: Box<dyn Iterator<Item = &str>> = match &self.source {
            Source::Folder(tensors) => Box::new(tensors.names()),
            Source::Gguf(gguf) => Box::new(gguf.names()),
        };
        for name in names {
            // Derived from the configuration, or, for a tied head, from the embedding: nothing is lost with them.
            let derived = name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight";
            let tied = self.config.tied_head && name == "lm_head.weight";
            if !derived && !tied && !used.contains(name) {
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

/// The rows of one tensor.
pub(super) struct WeightRows<'a> {
    checkpoint: &'a Checkpoint,
    name: String,
    stored: Stored<'a>,
    /// Numbers of a row.
    width: usize,
    /// Rows of a head, where they are stored interleaved.
    interleaved_head: Option<usize>,
}

impl WeightRows<'_> {
    /// Reads one row, as many numbers as `out` has.
    pub(super) fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let row = self.interleaved_head.map_or(row, |head| row / head * head + interleaved(row % head, head));
        self.stored.read_at(row * self.width, out);
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
    use super::interleaved;

    #[test]
    fn the_halves_of_a_head_are_its_even_and_its_odd_rows() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|row| interleaved(row, 6)), [0, 2, 4, 1, 3, 5]);
    }
}
