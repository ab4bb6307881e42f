//! Reader of weights: names in GGUF files and Hugging Face folders, shapes, and rows.

use plimsoll_formats::Stored;

use super::config::Config;
use super::opened::{Model, PREFIXES, Source};
use super::problem::ModelProblem;
use super::weights::{Norm, Place, Weight, gguf_name};
use crate::error::Result;
use crate::lora::Projection;
use crate::lora::adapter::{BoundAdapter, LoraWeights};

impl Model {
    /// The rows of a weight in Hugging Face's order, with the changes of an adapter outside the layers.
    /// `model.bind(None)` changes nothing.
    ///
    /// ```
    /// use plimsoll::Model;
    /// use plimsoll::model::Weight;
    ///
    /// let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied"))?;
    /// let unchanged = model.bind(None)?;
    /// let mut row = vec![0.0; model.config().hidden];
    /// model.rows(Weight::Embedding, &unchanged)?.read(7, &mut row)?;
    /// assert!(row.iter().any(|value| *value != 0.0));
    /// # Ok::<(), plimsoll::Error>(())
    /// ```
    ///
    /// # Errors
    /// A tensor that is missing, or of an unsupported dtype.
    pub fn rows<'a>(&'a self, weight: Weight, bound: &'a BoundAdapter) -> Result<WeightRows<'a>> {
        // A tied head is the embedding, plus the adapter's changes of the head.
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
        Ok(WeightRows { model: self, name, stored, first, width: self.width(weight), order, added })
    }

    /// Whether the head differs from the embedding: in the model, or through changes of an adapter.
    pub fn has_own_head(&self, bound: &BoundAdapter) -> bool {
        let is_changed = |weight| bound.patch(&self.public_name(weight)).is_some();
        !self.config.tied_head || is_changed(Weight::Embedding) || is_changed(Weight::Head)
    }

    /// The values of a norm or a bias.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), and a value that is not finite.
    pub fn read(&self, weight: Weight, bound: &BoundAdapter) -> Result<Vec<f32>> {
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
            // An adapter stores norms as Hugging Face models do, also if the model is a GGUF file.
            let offset = if is_replaced { self.config.adapter_norm_offset } else { self.config.norm_offset };
            values.iter_mut().for_each(|value| *value += offset);
        }
        Ok(values)
    }

    /// Number of elements of a weight.
    pub(super) fn len(&self, weight: Weight) -> usize {
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

    /// Number of elements of a row of a weight.
    pub(super) fn width(&self, weight: Weight) -> usize {
        match weight {
            Weight::Embedding | Weight::Head => self.config.hidden,
            Weight::Linear(_, projection) => self.linear_shape(projection).1,
            Weight::FinalNorm | Weight::Norm(..) | Weight::Bias(..) => self.len(weight),
        }
    }

    /// The rows per head of a weight that is stored interleaved; `None` for other weights.
    pub(super) fn order(&self, weight: Weight) -> Option<usize> {
        let is_rotated = |projection| matches!(projection, Projection::Q | Projection::K);
        match (&self.source, weight) {
            (
                Source::Gguf { is_interleaved: true, .. },
                Weight::Linear(_, projection) | Weight::Bias(_, projection),
            ) if is_rotated(projection) => Some(self.config.head_dim),
            _ => None,
        }
    }

    /// All weights that the decoder uses.
    pub(super) fn weights(&self) -> impl Iterator<Item = Weight> {
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

    /// The location of a weight in this model.
    pub(super) fn place(&self, weight: Weight) -> Place {
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

    /// The module of a projection: itself, or the fused module that contains it.
    pub(super) fn module(&self, projection: Projection) -> Projection {
        match projection {
            Projection::Q | Projection::K | Projection::V if self.config.is_fused => Projection::Qkv,
            Projection::Gate | Projection::Up if self.config.is_fused => Projection::GateUp,
            _ => projection,
        }
    }

    /// The name of a weight's tensor in a Hugging Face folder, below `model.`.
    pub(super) fn folder_name(&self, weight: Weight) -> String {
        match weight {
            Weight::Embedding => "embed_tokens.weight".into(),
            Weight::Head => "lm_head.weight".into(),
            Weight::FinalNorm => "norm.weight".into(),
            Weight::Norm(layer, norm) => {
                let name = match norm {
                    Norm::Attention => "input_layernorm",
                    // In models without post-norms, this is the name of the norm before the MLP.
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
}

/// The rows of one weight.
#[derive(Debug)]
pub struct WeightRows<'a> {
    model: &'a Model,
    name: String,
    stored: Stored<'a>,
    /// The weight's first row in the stored tensor.
    first: usize,
    /// Number of elements of a row.
    width: usize,
    /// Rows per head, if they are stored interleaved.
    order: Option<usize>,
    /// LoRA on embeddings.
    added: Option<&'a LoraWeights>,
}

impl WeightRows<'_> {
    /// Reads one row into `out`, which has the width of a row.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let stored = self.order.map_or(row, |head| row / head * head + interleaved(row % head, head));
        self.stored.read_at((self.first + stored) * self.width, out);
        if let Some(lora) = self.added {
            lora.add_to(row, out);
        }
        if out.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(self.model.problem(ModelProblem::NotFinite(self.name.clone())))
        }
    }
}

/// The stored position of a row of a head with `head_dim` rows. The file pairs dimensions `2i` and `2i + 1` for the
/// rotation, Hugging Face pairs `i` and `i + head_dim / 2`.
fn interleaved(row: usize, head_dim: usize) -> usize {
    let half = head_dim / 2;
    row % half * 2 + row / half
}

#[cfg(test)]
mod tests {
    use super::interleaved;

    #[test]
    fn the_halves_of_a_head_are_stored_as_even_and_odd_rows() {
        assert_eq!([0, 1, 2, 3, 4, 5].map(|row| interleaved(row, 6)), [0, 2, 4, 1, 3, 5]);
    }
}
