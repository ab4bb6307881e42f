//! Parser of a GGUF file's metadata, with the rules and defaults of llama.cpp.

use plimsoll_formats::{Metadata, Value};
use plimsoll_kernels::Activation;

use super::facts::{Config, LayerAttention};
use super::family::{FAMILIES, Family, Windows};
use super::rope::{Rope, RopeScaling, yarn_attention};
use crate::lora::{MAX_LAYERS, Projection};
use crate::model::problem::{ModelProblem, listed, unsupported};

/// The metadata key of a GGUF file's vocabulary.
const TOKENS: &str = "tokenizer.ggml.tokens";

/// Architecture and number of layers of Gemma 2 27B and Gemma 3 27B. Their attention scale is that of `hidden / heads`
/// in place of the head's width. No metadata key states it.
const SCALED_BY_HIDDEN: [(&str, usize); 2] = [("gemma2", 46), ("gemma3", 62)];

/// Facts that are known only from the tensors of a GGUF file.
#[derive(Default)]
pub(in crate::model) struct FromTensors {
    /// Whether the head uses the embedding's weights.
    pub(in crate::model) tied_head: bool,
    /// The projections that have a bias.
    pub(in crate::model) biased: Vec<Projection>,
    /// `rope_freqs.weight`
    pub(in crate::model) divisors: Option<Vec<f32>>,
    /// `rope_factors_short.weight` and `rope_factors_long.weight`
    pub(in crate::model) short_and_long: Option<(Vec<f32>, Vec<f32>)>,
}

/// The metadata keys of one architecture.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn optional(&self, name: &str) -> Result<Option<usize>, ModelProblem> {
        let key = self.name(name);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let number = value.as_u64().and_then(|value| usize::try_from(value).ok());
        number.map(Some).ok_or(ModelProblem::BadKey { key, expected: "a whole number" })
    }

    fn required(&self, name: &str) -> Result<usize, ModelProblem> {
        self.optional(name)?.ok_or_else(|| ModelProblem::MissingKey(self.name(name)))
    }

    fn float(&self, name: &str) -> Result<Option<f64>, ModelProblem> {
        let key = self.name(name);
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or(ModelProblem::BadKey { key, expected: "a floating-point number" })
    }

    fn float_or_whole(&self, name: &str) -> Result<Option<f64>, ModelProblem> {
        let whole = self.metadata.get(&self.name(name)).and_then(Value::as_u64);
        match whole {
            Some(whole) => Ok(Some(whole as f64)),
            None => self.float(name),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, ModelProblem> {
        text(self.metadata, &self.name(name))
    }
}

/// A string in the metadata; `None` if the key is missing.
fn text<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a str>, ModelProblem> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| ModelProblem::BadKey { key: key.into(), expected: "a string" })?;
    Ok(Some(text))
}

/// The family of a GGUF file.
pub(super) fn family(metadata: &Metadata) -> Result<&'static Family, ModelProblem> {
    let architecture = text(metadata, "general.architecture")?
        .ok_or_else(|| ModelProblem::MissingKey("general.architecture".into()))?;
    FAMILIES.iter().find(|family| family.architecture == architecture).ok_or_else(|| {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.architecture).collect();
        names.dedup();
        unsupported("general.architecture", architecture.to_owned(), listed(names))
    })
}

impl Config {
    /// Reads the configuration from the metadata of a GGUF file, and facts from its tensors.
    ///
    /// # Errors
    /// A key that is missing or out of range, or a setting that is not supported.
    pub(in crate::model) fn from_gguf(metadata: &Metadata, tensors: FromTensors) -> Result<Self, ModelProblem> {
        read(metadata, tensors)
    }

    /// Whether a GGUF file stores the rows of queries and keys interleaved, as llama.cpp rotates them.
    ///
    /// # Errors
    /// An architecture that is not supported.
    pub(in crate::model) fn is_interleaved(metadata: &Metadata) -> Result<bool, ModelProblem> {
        family(metadata).map(|family| family.is_interleaved)
    }
}

fn read(metadata: &Metadata, tensors: FromTensors) -> Result<Config, ModelProblem> {
    let family = family(metadata)?;
    let keys = Keys { metadata, architecture: family.architecture };
    if let Some(experts) = keys.optional("expert_count")?.filter(|&experts| experts > 0) {
        return Err(unsupported(&keys.name("expert_count"), experts.to_string(), "0, a dense model"));
    }
    let (hidden, heads, layers) =
        (keys.required("embedding_length")?, keys.required("attention.head_count")?, keys.required("block_count")?);
    if layers > MAX_LAYERS {
        return Err(ModelProblem::OutOfRange { name: "layers", value: layers, limit: MAX_LAYERS });
    }
    let head_dim = match keys.optional("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    if let Some(length) = keys.optional("attention.value_length")?.filter(|&length| length != head_dim) {
        let key = keys.name("attention.value_length");
        return Err(unsupported(&key, length.to_string(), format!("{head_dim}, the width of keys")));
    }
    let context = keys.required("context_length")?;
    let vocabulary = match metadata.get(TOKENS) {
        Some(tokens) => match tokens.as_array() {
            Some(tokens) => tokens.len(),
            None => return Err(ModelProblem::BadKey { key: TOKENS.into(), expected: "an array" }),
        },
        None => keys.required("vocab_size")?,
    };

    let theta = keys.float("rope.freq_base")?.unwrap_or(10_000.0);
    let mut ropes = vec![Rope { theta, scaling: scaling(&keys, tensors.divisors, tensors.short_and_long, context)? }];
    if let Some(local) = family.local_theta {
        let theta = keys.float("rope.freq_base_swa")?.unwrap_or(local);
        ropes.push(Rope { theta, scaling: RopeScaling::None });
    }
    let local = ropes.len() - 1;
    let attention = windows(&keys, family, layers)?.into_iter().map(|window| {
        let rope = if window.is_some() { local } else { 0 };
        LayerAttention { window, rope }
    });
    let softcap = |name: &str, default: Option<f64>| -> Result<Option<f32>, ModelProblem> {
        Ok(keys.float(name)?.or(default).map(|cap| cap as f32))
    };
    let by_hidden = SCALED_BY_HIDDEN.contains(&(family.architecture, layers));
    let scaled_by = if by_hidden { hidden.checked_div(heads).unwrap_or(0) } else { head_dim };
    Config {
        layers,
        hidden,
        intermediate: keys.required("feed_forward_length")?,
        heads,
        kv_heads: keys.optional("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocabulary,
        context,
        norm_epsilon: keys.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-5) as f32,
        rotary_dim: keys.optional("rope.dimension_count")?.unwrap_or(head_dim),
        ropes,
        attention: attention.collect(),
        attention_scale: (scaled_by as f64).powf(-0.5) as f32,
        attention_softcap: softcap("attn_logit_softcapping", family.softcaps.0)?,
        logit_softcap: softcap("final_logit_softcapping", family.softcaps.1)?,
        embedding_scale: if family.is_gemma { (hidden as f64).sqrt() as f32 } else { 1.0 },
        activation: if family.is_gemma { Activation::GeluTanh } else { Activation::Silu },
        biased: tensors.biased,
        query_key_norm: family.query_key_norm,
        post_norms: family.is_gemma,
        // The converter of llama.cpp adds the offset to the weights.
        norm_offset: 0.0,
        adapter_norm_offset: if family.is_gemma { 1.0 } else { 0.0 },
        is_fused: family.is_fused,
        tied_head: tensors.tied_head,
        architecture: family.architecture.to_owned(),
    }
    .validate()
}

/// The attention window of each layer.
fn windows(keys: &Keys<'_>, family: &Family, layers: usize) -> Result<Vec<Option<usize>>, ModelProblem> {
    let window = keys.optional("attention.sliding_window")?.filter(|&window| window > 0);
    Ok(match family.windows {
        // If the file has a window, all layers have it.
        Windows::None | Windows::Upper | Windows::All => Windows::All.of(layers, window, 0),
        Windows::AllBut { every } => {
            let every = keys.optional("attention.sliding_window_pattern")?.filter(|&every| every > 0).unwrap_or(every);
            Windows::AllBut { every }.of(layers, window.or(family.default_window), 0)
        }
    })
}

/// The scaling of rotary frequencies, from the metadata and the tensors of rotary factors.
fn scaling(
    keys: &Keys<'_>,
    divisors: Option<Vec<f32>>,
    short_and_long: Option<(Vec<f32>, Vec<f32>)>,
    context: usize,
) -> Result<RopeScaling, ModelProblem> {
    let original = keys.float_or_whole("rope.scaling.original_context_length")?;
    let attention = keys.float("rope.scaling.attn_factor")?;
    if let Some((short, long)) = short_and_long {
        let original_context = original.unwrap_or(context as f64);
        return Ok(RopeScaling::Long { short, long, original_context, attention: attention.unwrap_or(1.0) });
    }
    if let Some(divisors) = divisors {
        return Ok(RopeScaling::Divisors(divisors));
    }
    let need = |name: &str| keys.float(name)?.ok_or_else(|| ModelProblem::MissingKey(keys.name(name)));
    Ok(match keys.text("rope.scaling.type")? {
        None | Some("none") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: keys.float("rope.scaling.factor")?.unwrap_or(1.0) },
        Some("yarn") => {
            let factor = need("rope.scaling.factor")?;
            RopeScaling::Yarn {
                factor,
                fast: keys.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                slow: keys.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                original_context: original.unwrap_or(context as f64),
                attention: attention.unwrap_or(1.0) * yarn_attention(factor, 1.0),
            }
        }
        Some(other) => {
            let supported = "none, linear, yarn, or tensors with factors";
            return Err(unsupported(&keys.name("rope.scaling.type"), other.into(), supported));
        }
    })
}
