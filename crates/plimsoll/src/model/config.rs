//! The facts of a decoder: what `config.json`, or the metadata of a GGUF file, says about the model.
//!
//! A family of models is a set of facts here and never a branch in the forward pass. What is not implemented is
//! refused by name when the facts are read, so that the decoder never meets it.

use plimsoll_kernels::MAX_HEAD_DIM;
use serde::Deserialize;

use super::ModelProblem;
use super::gguf::{Metadata, Value};

/// Model dimensions above these are refused; the largest dense models published stay an order of magnitude below.
pub(crate) const MAX_LAYERS: usize = 1_024;
const MAX_WIDTH: usize = 1 << 20;
const MAX_VOCABULARY: usize = 1 << 24;

/// The metadata key of a GGUF file's vocabulary.
const TOKENS: &str = "tokenizer.ggml.tokens";

/// The facts of a decoder. All numbers are positive, and `heads` is a multiple of `kv_heads`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the architecture, such as `llama`.
    pub architecture: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Added to the mean square in every norm.
    pub norm_epsilon: f32,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f64,
    /// What the rotary embedding does to reach a longer context.
    pub rope_scaling: RopeScaling,
    /// Whether the head uses the embedding's weights.
    pub tied_head: bool,
}

/// How rotary frequencies are stretched.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by a factor (Chen et al., arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided by a factor, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// What the low frequencies are divided by.
        factor: f64,
        /// Wavelengths above `original_context / low` are stretched in full.
        low: f64,
        /// Wavelengths below `original_context / high` are left alone.
        high: f64,
        /// Context before stretching, in tokens.
        original_context: f64,
    },
    /// One divisor for each frequency, as GGUF files carry them.
    Divisors(Vec<f32>),
}

impl Config {
    /// Rotary frequencies, `head_dim / 2` of them, in radians for each position.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        (0..self.head_dim / 2)
            .map(|pair| {
                let frequency = self.rope_theta.powf(-2.0 * pair as f64 / self.head_dim as f64);
                let frequency = match &self.rope_scaling {
                    RopeScaling::None => frequency,
                    RopeScaling::Linear { factor } => frequency / factor,
                    RopeScaling::Llama3 { factor, low, high, original_context } => {
                        let turns = original_context * frequency / std::f64::consts::TAU;
                        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                        frequency * (kept + (1.0 - kept) / factor)
                    }
                    RopeScaling::Divisors(divisors) => frequency / f64::from(divisors[pair]),
                };
                frequency as f32
            })
            .collect()
    }

    /// Reads the text of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// Not JSON, a field missing or out of range, or something that is not implemented, by name.
    pub fn from_json(text: &str) -> Result<Self, ModelProblem> {
        let raw: RawConfig = serde_json::from_str(text).map_err(ModelProblem::Config)?;
        Self::try_from(raw)
    }

    /// Reads the metadata of a GGUF file; `tied_head` is for whoever knows the tensors to say.
    ///
    /// # Errors
    /// A key missing or out of range, or something that is not implemented, by name.
    pub fn from_gguf(metadata: &Metadata, tied_head: bool) -> Result<Self, ModelProblem> {
        let architecture = string_at(metadata, "general.architecture")?
            .ok_or_else(|| ModelProblem::MissingKey("general.architecture".into()))?
            .to_owned();
        if architecture != "llama" {
            return Err(unsupported("general.architecture", architecture, "llama"));
        }
        let key = |name: &str| format!("{architecture}.{name}");
        let optional = |name: &str| {
            let key = key(name);
            match metadata.get(&key) {
                None => Ok(None),
                Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
                    Some(value) => Ok(Some(value)),
                    None => Err(ModelProblem::BadKey { key, expected: "a whole number" }),
                },
            }
        };
        let required = |name: &str| optional(name)?.ok_or_else(|| ModelProblem::MissingKey(key(name)));
        let float = |name: &str, default: f64| {
            let key = key(name);
            let value = metadata.get(&key).map_or(Some(default), Value::as_f64);
            value.ok_or(ModelProblem::BadKey { key, expected: "a floating-point number" })
        };

        if optional("expert_count")?.unwrap_or(0) > 0 {
            return Err(unsupported(&key("expert_count"), "experts".into(), "a dense model"));
        }
        let (hidden, heads) = (required("embedding_length")?, required("attention.head_count")?);
        let head_dim = match optional("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        if optional("attention.value_length")?.is_some_and(|length| length != head_dim) {
            return Err(unsupported(&key("attention.value_length"), "another width".into(), "the keys' width"));
        }
        if optional("rope.dimension_count")?.is_some_and(|count| count != head_dim) {
            return Err(unsupported(&key("rope.dimension_count"), "a part of the head".into(), "the whole head"));
        }
        let rope_scaling = match string_at(metadata, &key("rope.scaling.type"))? {
            None | Some("none") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: float("rope.scaling.factor", 1.0)? },
            Some(other) => return Err(unsupported(&key("rope.scaling.type"), other.into(), "none or linear")),
        };
        let vocabulary = match metadata.get(TOKENS) {
            Some(tokens) => match tokens.as_array() {
                Some(tokens) => tokens.len(),
                None => return Err(ModelProblem::BadKey { key: TOKENS.into(), expected: "an array" }),
            },
            None => required("vocab_size")?,
        };
        Self {
            layers: required("block_count")?,
            hidden,
            intermediate: required("feed_forward_length")?,
            heads,
            kv_heads: optional("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocabulary,
            context: required("context_length")?,
            norm_epsilon: float("attention.layer_norm_rms_epsilon", 1e-5)? as f32,
            rope_theta: float("rope.freq_base", 10_000.0)?,
            rope_scaling,
            tied_head,
            architecture,
        }
        .validate()
    }

    /// Checks what the fields' documentation promises.
    fn validate(self) -> Result<Self, ModelProblem> {
        let within = |name: &'static str, value: usize, limit: usize| {
            if (1..=limit).contains(&value) { Ok(()) } else { Err(ModelProblem::OutOfRange { name, value, limit }) }
        };
        within("layers", self.layers, MAX_LAYERS)?;
        within("hidden_size", self.hidden, MAX_WIDTH)?;
        within("intermediate_size", self.intermediate, MAX_WIDTH)?;
        within("num_attention_heads", self.heads, MAX_WIDTH)?;
        within("num_key_value_heads", self.kv_heads, self.heads)?;
        within("head_dim", self.head_dim, MAX_HEAD_DIM)?;
        within("num_attention_heads × head_dim", self.heads * self.head_dim, MAX_WIDTH)?;
        within("vocab_size", self.vocabulary, MAX_VOCABULARY)?;
        within("max_position_embeddings", self.context, MAX_VOCABULARY)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ModelProblem::Heads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(unsupported("head_dim", self.head_dim.to_string(), "an even number"));
        }
        let positive = |name: &'static str, value: f64| {
            if value.is_finite() && value > 0.0 { Ok(()) } else { Err(ModelProblem::NotPositive { name, value }) }
        };
        positive("rms_norm_eps", f64::from(self.norm_epsilon))?;
        positive("rope_theta", self.rope_theta)?;
        match &self.rope_scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => positive("rope factor", *factor)?,
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                positive("rope factor", *factor)?;
                positive("original_max_position_embeddings", *original_context)?;
                positive("high_freq_factor − low_freq_factor", high - low)?;
            }
            RopeScaling::Divisors(divisors) => {
                if divisors.len() != self.head_dim / 2 {
                    let (found, expected) = (divisors.len(), self.head_dim / 2);
                    return Err(ModelProblem::RopeDivisors { found, expected });
                }
                divisors.iter().try_for_each(|&divisor| positive("rope divisor", f64::from(divisor)))?;
            }
        }
        Ok(self)
    }

    /// The same facts with one divisor for each rotary frequency.
    ///
    /// # Errors
    /// Their number is not `head_dim / 2`, or one is not positive.
    pub(super) fn with_rope_divisors(mut self, divisors: Vec<f32>) -> Result<Self, ModelProblem> {
        self.rope_scaling = RopeScaling::Divisors(divisors);
        self.validate()
    }
}

/// A text in a GGUF file's metadata, if it is there.
fn string_at<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a str>, ModelProblem> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| ModelProblem::BadKey { key: key.into(), expected: "a text" })?;
    Ok(Some(text))
}

fn unsupported(key: &str, found: String, supported: &'static str) -> ModelProblem {
    ModelProblem::Unsupported { key: key.into(), found, supported }
}

/// `config.json` as it stands, of the fields that decide what a Llama computes.
#[derive(Deserialize)]
struct RawConfig {
    model_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    /// Where transformers 5 keeps both of the above.
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    pretraining_tp: Option<usize>,
    quantization_config: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name of `rope_type`; some files have both.
    r#type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

impl RawRope {
    /// Whether nothing stands in it: to transformers it is then as if it were not there.
    fn is_empty(&self) -> bool {
        let numbers = [
            self.rope_theta,
            self.factor,
            self.low_freq_factor,
            self.high_freq_factor,
            self.original_max_position_embeddings,
            self.partial_rotary_factor,
        ];
        numbers.iter().all(Option::is_none) && self.rope_type.is_none() && self.r#type.is_none() && self.rest.is_empty()
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ModelProblem;

    fn try_from(raw: RawConfig) -> Result<Self, ModelProblem> {
        if raw.model_type != "llama" {
            return Err(unsupported("model_type", raw.model_type, "llama"));
        }
        if let Some(activation) = raw.hidden_act.filter(|activation| activation != "silu") {
            return Err(unsupported("hidden_act", activation, "silu"));
        }
        for (key, on) in [("attention_bias", raw.attention_bias), ("mlp_bias", raw.mlp_bias)] {
            if on == Some(true) {
                return Err(unsupported(key, "true".into(), "false"));
            }
        }
        if let Some(parts) = raw.pretraining_tp.filter(|&parts| parts > 1) {
            return Err(unsupported("pretraining_tp", parts.to_string(), "1"));
        }
        if raw.quantization_config.is_some_and(|config| !config.is_null()) {
            return Err(unsupported("quantization_config", "present".into(), "unquantised weights, or a GGUF file"));
        }
        check_rotary_part(raw.partial_rotary_factor)?;
        // As transformers 5.23 does (`convert_rope_params_to_dict`): the older table replaces the newer one, and the base
        // is looked for in the table that is left before it is looked for beside it.
        let rope = raw.rope_scaling.filter(|rope| !rope.is_empty()).or(raw.rope_parameters);
        let rope_theta = rope.as_ref().and_then(|rope| rope.rope_theta).or(raw.rope_theta).unwrap_or(10_000.0);
        Self {
            layers: raw.num_hidden_layers,
            hidden: raw.hidden_size,
            intermediate: raw.intermediate_size,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: match raw.head_dim {
                Some(head_dim) => head_dim,
                None => raw.hidden_size.checked_div(raw.num_attention_heads).unwrap_or(0),
            },
            vocabulary: raw.vocab_size,
            context: raw.max_position_embeddings.unwrap_or(2048),
            norm_epsilon: raw.rms_norm_eps.unwrap_or(1e-6) as f32,
            rope_theta,
            rope_scaling: rope.map_or(Ok(RopeScaling::None), RopeScaling::try_from)?,
            tied_head: raw.tie_word_embeddings.unwrap_or(false),
            architecture: raw.model_type,
        }
        .validate()
    }
}

fn check_rotary_part(factor: Option<f64>) -> Result<(), ModelProblem> {
    match factor.filter(|&factor| factor != 1.0) {
        Some(factor) => Err(unsupported("partial_rotary_factor", format!("{factor:?}"), "1")),
        None => Ok(()),
    }
}

impl TryFrom<RawRope> for RopeScaling {
    type Error = ModelProblem;

    fn try_from(raw: RawRope) -> Result<Self, ModelProblem> {
        check_rotary_part(raw.partial_rotary_factor)?;
        let need = |name: &str, value: Option<f64>| {
            value.ok_or_else(|| ModelProblem::MissingKey(format!("rope_scaling.{name}")))
        };
        match raw.rope_type.or(raw.r#type).as_deref() {
            None | Some("default") => Ok(Self::None),
            Some("linear") => Ok(Self::Linear { factor: need("factor", raw.factor)? }),
            Some("llama3") => Ok(Self::Llama3 {
                factor: need("factor", raw.factor)?,
                low: need("low_freq_factor", raw.low_freq_factor)?,
                high: need("high_freq_factor", raw.high_freq_factor)?,
                original_context: need("original_max_position_embeddings", raw.original_max_position_embeddings)?,
            }),
            Some(other) => Err(unsupported("rope_scaling.rope_type", other.into(), "default, linear or llama3")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(changes: &serde_json::Value) -> Result<Config, ModelProblem> {
        let mut config = json!({
            "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "vocab_size": 100, "max_position_embeddings": 512,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        Config::from_json(&config.to_string())
    }

    #[test]
    fn what_is_left_out_takes_the_defaults_of_transformers() {
        let config = with(&json!({})).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.rope_theta), (4, 16, 10_000.0));
        assert_eq!((config.norm_epsilon, config.tied_head), (1e-6, false));
    }

    #[test]
    fn both_places_of_the_rotary_base_are_read() {
        assert_eq!(with(&json!({"rope_theta": 5e5})).unwrap().rope_theta, 5e5);
        let nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
        assert_eq!(with(&nested).unwrap().rope_theta, 1e6);
    }

    #[test]
    fn of_two_rotary_tables_the_one_counts_that_transformers_takes() {
        let both = |scaling: serde_json::Value| {
            let parameters = json!({"rope_theta": 5e5, "rope_type": "default"});
            with(&json!({"rope_parameters": parameters, "rope_scaling": scaling, "rope_theta": 7e4})).unwrap()
        };
        // LlamaConfig.from_dict of transformers 5.23: rope_theta 70000, rope_type linear, factor 2.
        let config = both(json!({"rope_type": "linear", "type": "linear", "factor": 2.0}));
        assert_eq!((config.rope_theta, config.rope_scaling), (7e4, RopeScaling::Linear { factor: 2.0 }));
        // And 500000, default, where rope_scaling is empty or null.
        for nothing in [json!({}), json!(null)] {
            let config = both(nothing);
            assert_eq!((config.rope_theta, config.rope_scaling), (5e5, RopeScaling::None));
        }
        assert!(with(&json!({"partial_rotary_factor": 0.5})).is_err());
    }

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32});
        let plain = with(&json!({})).unwrap().rope_frequencies();
        let scaled = with(&json!({"rope_scaling": rope})).unwrap().rope_frequencies();
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[7], plain[7] / 8.0);
        // Pair 1: 32 · 10000^(−1/8) / 2π = 1.61052 turns, so a share (1.61052 − 1) / 3 of it is kept.
        assert!((scaled[1] / plain[1] - (0.203_507 + 0.796_493 / 8.0)).abs() < 1e-5, "{}", scaled[1] / plain[1]);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        for (changes, name) in [
            (json!({"model_type": "mamba"}), "mamba"),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (json!({"attention_bias": true}), "attention_bias"),
            (json!({"rope_scaling": {"type": "yarn", "factor": 4.0}}), "yarn"),
            (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor"),
            (json!({"quantization_config": {"bits": 4}}), "quantization_config"),
            (json!({"num_key_value_heads": 3}), "multiple"),
            (json!({"num_hidden_layers": 0}), "layers"),
            (json!({"hidden_size": 100_000_000}), "hidden_size"),
            (json!({"head_dim": 3}), "head_dim"),
            (json!({"rope_theta": -1.0}), "rope_theta"),
        ] {
            let message = with(&changes).unwrap_err().to_string();
            assert!(message.contains(name), "{changes}: {message}");
        }
    }

    #[test]
    fn a_value_of_a_gguf_file_of_another_type_is_no_default() {
        for (key, value) in [
            ("llama.rope.freq_base", Value::Unsigned(500_000)),
            ("llama.rope.freq_base", Value::String("5e5".into())),
            ("llama.attention.layer_norm_rms_epsilon", Value::Bool(true)),
            ("llama.rope.scaling.type", Value::Unsigned(1)),
            ("tokenizer.ggml.tokens", Value::Unsigned(1)),
            ("general.architecture", Value::Unsigned(1)),
        ] {
            let numbers = ["embedding_length", "attention.head_count", "feed_forward_length", "block_count"];
            let mut entries: Vec<(String, Value)> =
                numbers.iter().map(|name| (format!("llama.{name}"), Value::Unsigned(8))).collect();
            entries.push(("general.architecture".into(), Value::String("llama".into())));
            entries.extend(["vocab_size", "context_length"].map(|name| (format!("llama.{name}"), Value::Unsigned(64))));
            entries.push((key.into(), value));
            let error = Config::from_gguf(&entries.into_iter().collect(), true).unwrap_err();
            assert!(matches!(&error, ModelProblem::BadKey { key: found, .. } if found == key), "{key}: {error}");
        }
    }
}
