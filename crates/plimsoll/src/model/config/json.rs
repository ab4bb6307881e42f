//! Parser of a Hugging Face `config.json`, with the rules and defaults of transformers 5.23.

use plimsoll_kernels::Activation;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::facts::{Config, LayerAttention};
use super::family::{FAMILIES, Family, Windows, supported_families};
use super::rope::{Rope, RopeScaling, long_attention, yarn_attention};
use crate::lora::{MAX_LAYERS, Projection};
use crate::model::problem::{ModelProblem, unsupported};

impl Config {
    /// Parses a Hugging Face `config.json`.
    ///
    /// # Errors
    /// Not JSON, a field that is missing or out of range, or a setting that is not supported.
    pub fn from_json(text: &str) -> Result<Self, ModelProblem> {
        RawConfig::read(text)?.try_into()
    }
}

/// The fields of `config.json` that determine the decoder, unvalidated.
#[derive(Deserialize)]
pub(super) struct RawConfig {
    model_type: String,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: Option<usize>,
    original_max_position_embeddings: Option<f64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Map<String, Value>>,
    /// All rotary parameters in transformers 5.
    rope_parameters: Option<Map<String, Value>>,
    partial_rotary_factor: Option<f64>,
    tie_word_embeddings: Option<bool>,
    hidden_act: Option<String>,
    /// Gemma's name of `hidden_act`.
    hidden_activation: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    query_pre_attn_scalar: Option<f64>,
    /// Null differs from a missing field.
    #[serde(default, deserialize_with = "given")]
    attn_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "given")]
    final_logit_softcapping: Option<Option<f64>>,
    #[serde(default, deserialize_with = "given")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    use_bidirectional_attention: Option<Value>,
    pretraining_tp: Option<usize>,
    quantization_config: Option<Value>,
}

impl RawConfig {
    /// Parses the text. For a vision model, the fields are those of its decoder.
    ///
    /// # Errors
    /// Not a configuration, or an unsupported family. The family is checked first, since other families have other
    /// fields.
    pub(super) fn read(text: &str) -> Result<Self, ModelProblem> {
        let mut config: Map<String, Value> = serde_json::from_str(text).map_err(ModelProblem::Config)?;
        if config.get("model_type").and_then(Value::as_str) == Some("gemma3")
            && let Some(Value::Object(mut decoder)) = config.remove("text_config")
        {
            // Defaults of Gemma3TextConfig.
            for (key, value) in [
                ("vocab_size", 262_208),
                ("hidden_size", 2304),
                ("intermediate_size", 9216),
                ("num_hidden_layers", 26),
                ("num_attention_heads", 8),
                ("num_key_value_heads", 4),
            ] {
                decoder.entry(key).or_insert(value.into());
            }
            decoder.insert("model_type".into(), "gemma3_text".into());
            for key in ["quantization_config", "tie_word_embeddings"] {
                if let Some(value) = config.remove(key) {
                    decoder.insert(key.into(), value);
                }
            }
            config = decoder;
        }
        if let Some(model_type) = config.get("model_type").and_then(Value::as_str) {
            family(model_type)?;
        }
        Self::deserialize(Value::Object(config)).map_err(ModelProblem::Config)
    }
}

/// The family of a `model_type`.
fn family(model_type: &str) -> Result<&'static Family, ModelProblem> {
    let found = FAMILIES.iter().find(|family| family.model_type == model_type);
    found.ok_or_else(|| unsupported("model_type", model_type.to_owned(), supported_families()))
}

/// Deserialises a field that is present, so that null is `Some(None)`.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A table of rotary parameters.
#[derive(Clone, Debug, Default, Deserialize)]
struct RawRope {
    /// Name of the table for messages, such as `rope_scaling`.
    #[serde(skip)]
    place: &'static str,
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name of `rope_type`; some files have both.
    r#type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Rotary parameters outside the tables, and defaults of those in the tables.
struct RopeDefaults {
    theta: f64,
    context: f64,
    original_context: Option<f64>,
    partial: Option<f64>,
    is_phi: bool,
}

impl TryFrom<RawConfig> for Config {
    type Error = ModelProblem;

    fn try_from(raw: RawConfig) -> Result<Self, ModelProblem> {
        let family = family(&raw.model_type)?;
        let activation = activation(family, &raw)?;
        refuse_unsupported(&raw)?;
        let layers = raw.num_hidden_layers;
        if layers > MAX_LAYERS {
            return Err(ModelProblem::OutOfRange { name: "layers", value: layers, limit: MAX_LAYERS });
        }
        let context = raw.max_position_embeddings.unwrap_or(family.context);
        let head_dim = match raw.head_dim.or(family.head_dim) {
            Some(head_dim) => head_dim,
            None => raw.hidden_size.checked_div(raw.num_attention_heads).unwrap_or(0),
        };

        let defaults = RopeDefaults {
            theta: raw.rope_theta.unwrap_or(family.theta),
            context: context as f64,
            original_context: raw.original_max_position_embeddings.or(family.original_context),
            partial: raw.partial_rotary_factor,
            is_phi: family.is_fused,
        };
        let tables = tables(family, raw.rope_scaling.clone(), raw.rope_parameters.clone(), raw.rope_local_base_freq)?;
        let mut ropes = Vec::new();
        let mut rotary_dim = head_dim;
        for table in tables {
            let (rope, part) = defaults.rope(table)?;
            rotary_dim = (head_dim as f64 * part) as usize;
            ropes.push(rope);
        }

        let windows = windows(family, &raw, layers)?;
        let local = ropes.len() - 1;
        let attention = windows.into_iter().map(|window| {
            let rope = if window.is_some() { local } else { 0 };
            LayerAttention { window, rope }
        });
        let scale = raw.query_pre_attn_scalar.filter(|_| family.is_gemma);
        let biased = biased(family, &raw)?;
        let (attention_softcap, logit_softcap) = family.softcaps;
        Self {
            layers,
            hidden: raw.hidden_size,
            intermediate: raw.intermediate_size,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim,
            vocabulary: raw.vocab_size,
            context,
            norm_epsilon: raw.rms_norm_eps.unwrap_or(if family.is_fused { 1e-5 } else { 1e-6 }) as f32,
            rotary_dim,
            ropes,
            attention: attention.collect(),
            attention_scale: match scale.or(family.is_gemma.then_some(256.0)) {
                Some(scalar) => scalar.powf(-0.5) as f32,
                None => 1.0 / (head_dim as f32).sqrt(),
            },
            attention_softcap: raw.attn_logit_softcapping.unwrap_or(attention_softcap).map(|cap| cap as f32),
            logit_softcap: raw.final_logit_softcapping.unwrap_or(logit_softcap).map(|cap| cap as f32),
            embedding_scale: if family.is_gemma { (raw.hidden_size as f64).sqrt() as f32 } else { 1.0 },
            activation,
            biased,
            query_key_norm: family.query_key_norm,
            post_norms: family.is_gemma,
            norm_offset: if family.is_gemma { 1.0 } else { 0.0 },
            adapter_norm_offset: if family.is_gemma { 1.0 } else { 0.0 },
            is_fused: family.is_fused,
            tied_head: raw.tie_word_embeddings.unwrap_or(family.tied_head),
            architecture: raw.model_type,
        }
        .validate()
    }
}

/// The activation function of the MLP.
fn activation(family: &Family, raw: &RawConfig) -> Result<Activation, ModelProblem> {
    let name = raw.hidden_activation.as_deref().or(raw.hidden_act.as_deref());
    match name.unwrap_or(if family.is_gemma { "gelu_pytorch_tanh" } else { "silu" }) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        // Gemma 2's files name the exact GELU in `hidden_act`, but the model was trained with the approximation. As in
        // transformers, only `hidden_activation` counts, and without it the approximation is used.
        "gelu" if family.is_gemma && raw.hidden_activation.is_none() => Ok(Activation::GeluTanh),
        other => Err(unsupported("hidden_act", other.into(), "silu or gelu_pytorch_tanh")),
    }
}

/// The projections that have a bias.
fn biased(family: &Family, raw: &RawConfig) -> Result<Vec<Projection>, ModelProblem> {
    let mut biased = family.biased.to_vec();
    if raw.attention_bias == Some(true) && !family.is_fused {
        biased = vec![Projection::Q, Projection::K, Projection::V, Projection::O];
    }
    if raw.mlp_bias == Some(true) {
        match family.model_type {
            "llama" => biased.extend([Projection::Gate, Projection::Up, Projection::Down]),
            _ => return Err(unsupported("mlp_bias", "true".into(), "false")),
        }
    }
    Ok(biased)
}

/// Refuses settings that are not supported in any family.
fn refuse_unsupported(raw: &RawConfig) -> Result<(), ModelProblem> {
    if let Some(parts) = raw.pretraining_tp.filter(|&parts| parts > 1) {
        return Err(unsupported("pretraining_tp", parts.to_string(), "1"));
    }
    if raw.quantization_config.as_ref().is_some_and(|config| !config.is_null()) {
        return Err(unsupported("quantization_config", "present".into(), "unquantised weights, or a GGUF file"));
    }
    let is_off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
    if let Some(on) = raw.use_bidirectional_attention.as_ref().filter(|value| !is_off(value)) {
        return Err(unsupported("use_bidirectional_attention", on.to_string(), "false"));
    }
    Ok(())
}

/// The rotary tables: one for all layers, or, with `local_theta`, one for layers without a window and one for those
/// with.
///
/// As in transformers 5.23 (`convert_rope_params_to_dict`), the older table (`rope_scaling`) replaces the newer one.
/// For Gemma 3, its entries override those of layers with full attention.
fn tables(
    family: &Family,
    scaling: Option<Map<String, Value>>,
    parameters: Option<Map<String, Value>>,
    local_theta: Option<f64>,
) -> Result<Vec<RawRope>, ModelProblem> {
    let read = |place: &'static str, table: Map<String, Value>| -> Result<RawRope, ModelProblem> {
        let is_set = |(_, value): &(String, Value)| !value.is_null();
        let table = table.into_iter().filter(is_set).collect();
        let raw = RawRope::deserialize(Value::Object(table)).map_err(ModelProblem::Config)?;
        Ok(RawRope { place, ..raw })
    };
    let scaling = scaling.filter(|table| table.values().any(|value| !value.is_null()));
    let Some(own_theta) = family.local_theta else {
        return Ok(vec![match (scaling, parameters) {
            (None, Some(parameters)) => read("rope_parameters", parameters)?,
            (scaling, _) => read("rope_scaling", scaling.unwrap_or_default())?,
        }]);
    };
    let of_kind = |kind: &str| match parameters.as_ref().and_then(|parameters| parameters.get(kind)) {
        Some(Value::Object(table)) => table.clone(),
        _ => Map::new(),
    };
    let (mut global, mut local) = (of_kind("full_attention"), of_kind("sliding_attention"));
    let place = if scaling.is_some() { "rope_scaling" } else { "rope_parameters.full_attention" };
    global.extend(scaling.unwrap_or_default());
    let theta = Value::from(local_theta.unwrap_or(own_theta));
    local.entry("rope_theta").or_insert(theta);
    Ok(vec![read(place, global)?, read("rope_parameters.sliding_attention", local)?])
}

impl RopeDefaults {
    /// The rotary embedding of a table, and the share of the head that it rotates.
    fn rope(&self, raw: RawRope) -> Result<(Rope, f64), ModelProblem> {
        let place = raw.place;
        let missing = |name: &str| ModelProblem::MissingKey(format!("{place}.{name}"));
        let need = |name: &str, value: Option<f64>| value.ok_or_else(|| missing(name));
        if let Some((key, value)) = raw.rest.iter().next() {
            let expected = "a rotary parameter that is implemented";
            return Err(unsupported(&format!("{place}.{key}"), value.to_string(), expected));
        }
        let part = raw.partial_rotary_factor.or(self.partial).unwrap_or(1.0);
        if !(part > 0.0 && part <= 1.0) {
            return Err(unsupported("partial_rotary_factor", format!("{part:?}"), "more than 0, at most 1"));
        }
        let original_context = self.original_context.or(raw.original_max_position_embeddings).unwrap_or(self.context);
        let growth = self.context / original_context;
        let kind = raw.rope_type.as_deref().or(raw.r#type.as_deref()).unwrap_or("default");
        // Early files of Phi-3 use these names.
        let kind = if self.is_phi && matches!(kind, "su" | "yarn") { "longrope" } else { kind };
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor", raw.factor)? },
            "dynamic" => RopeScaling::Dynamic { factor: need("factor", raw.factor)?, original_context: self.context },
            "llama3" => RopeScaling::Llama3 {
                factor: need("factor", raw.factor)?,
                low: need("low_freq_factor", raw.low_freq_factor)?,
                high: need("high_freq_factor", raw.high_freq_factor)?,
                original_context,
            },
            "yarn" => {
                let factor = raw.factor.unwrap_or(growth);
                let inferred = match (raw.mscale.filter(|m| *m != 0.0), raw.mscale_all_dim.filter(|m| *m != 0.0)) {
                    (Some(scale), Some(all)) => yarn_attention(factor, scale) / yarn_attention(factor, all),
                    _ => yarn_attention(factor, 1.0),
                };
                RopeScaling::Yarn {
                    factor,
                    fast: raw.beta_fast.filter(|beta| *beta != 0.0).unwrap_or(32.0),
                    slow: raw.beta_slow.filter(|beta| *beta != 0.0).unwrap_or(1.0),
                    truncate: raw.truncate.unwrap_or(true),
                    original_context,
                    attention: raw.attention_factor.unwrap_or(inferred),
                }
            }
            "longrope" => {
                let inferred = long_attention(raw.factor.unwrap_or(growth), original_context);
                RopeScaling::Long {
                    short: raw.short_factor.ok_or_else(|| missing("short_factor"))?,
                    long: raw.long_factor.ok_or_else(|| missing("long_factor"))?,
                    original_context,
                    attention: raw.attention_factor.unwrap_or(inferred),
                }
            }
            other => {
                let supported = "default, linear, dynamic, llama3, yarn or longrope";
                let key = if raw.rope_type.is_some() { "rope_type" } else { "type" };
                return Err(unsupported(&format!("{place}.{key}"), other.into(), supported));
            }
        };
        Ok((Rope { theta: raw.rope_theta.unwrap_or(self.theta), scaling }, part))
    }
}

/// The attention window of each layer.
fn windows(family: &Family, raw: &RawConfig, layers: usize) -> Result<Vec<Option<usize>>, ModelProblem> {
    let window = raw.sliding_window.unwrap_or(family.default_window);
    let window = match family.windows {
        Windows::Upper => window.filter(|_| raw.use_sliding_window == Some(true)),
        _ => window,
    };
    // transformers ignores the list in families in which all layers, or none, have a window.
    let listed = raw.layer_types.as_ref().filter(|_| matches!(family.windows, Windows::Upper | Windows::AllBut { .. }));
    if let Some(types) = listed {
        if types.len() != layers {
            let found = format!("a list of {}", types.len());
            return Err(unsupported("layer_types", found, "one entry for each layer"));
        }
        let of_type = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => match window {
                Some(window) => Ok(Some(window)),
                None => Err(ModelProblem::MissingKey("sliding_window".into())),
            },
            other => Err(unsupported("layer_types", other.into(), "full_attention or sliding_attention")),
        };
        return types.iter().map(of_type).collect();
    }
    let windows = match (family.windows, raw.sliding_window_pattern) {
        // Gemma 2's pattern is fixed: transformers ignores the key.
        (Windows::AllBut { .. }, Some(every)) if family.local_theta.is_some() && every > 0 => Windows::AllBut { every },
        (windows, _) => windows,
    };
    Ok(windows.of(layers, window, raw.max_window_layers.unwrap_or(28)))
}
