//! The configuration of a decoder, read from `config.json` or from the metadata of a GGUF file.
//!
//! A model family is a set of facts here and never a branch in the forward pass. Unsupported settings are refused by
//! name when the configuration is read.
//!
//! - `family.rs` has the facts of each family; `json.rs` and `gguf.rs` read all others from a file.
//! - `rope.rs` computes the frequencies of rotary embeddings.

mod facts;
mod family;
mod gguf;
mod json;
mod rope;

pub use facts::{Config, LayerAttention};
pub use family::supported_families;
pub(super) use gguf::FromTensors;
pub use rope::{Rope, RopeScaling};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::problem::ModelProblem;
    use plimsoll_formats::Value;

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
    fn missing_keys_take_the_defaults_of_transformers() {
        let config = with(&json!({})).unwrap();
        assert_eq!((config.kv_heads, config.head_dim, config.ropes[0].theta), (4, 16, 10_000.0));
        assert_eq!((config.norm_epsilon, config.tied_head), (1e-6, false));
    }

    #[test]
    fn both_places_of_the_rotary_base_are_read() {
        assert_eq!(with(&json!({"rope_theta": 5e5})).unwrap().ropes[0].theta, 5e5);
        let nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
        assert_eq!(with(&nested).unwrap().ropes[0].theta, 1e6);
    }

    #[test]
    fn the_rotary_table_that_transformers_uses_takes_precedence() {
        let both = |scaling: serde_json::Value| {
            let parameters = json!({"rope_theta": 5e5, "rope_type": "default"});
            with(&json!({"rope_parameters": parameters, "rope_scaling": scaling, "rope_theta": 7e4})).unwrap()
        };
        // LlamaConfig.from_dict of transformers 5.23: rope_theta 70000, rope_type linear, factor 2.
        let config = both(json!({"rope_type": "linear", "type": "linear", "factor": 2.0}));
        assert_eq!(config.ropes, [Rope { theta: 7e4, scaling: RopeScaling::Linear { factor: 2.0 } }]);
        // And 500000, default, if rope_scaling is empty or null.
        for nothing in [json!({}), json!(null)] {
            let config = both(nothing);
            assert_eq!(config.ropes, [Rope { theta: 5e5, scaling: RopeScaling::None }]);
        }
        assert_eq!(with(&json!({"partial_rotary_factor": 0.5})).unwrap().rotary_dim, 8);
    }

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let rope = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32});
        let plain = with(&json!({})).unwrap().ropes[0].frequencies(16, 0);
        let scaled = with(&json!({"rope_scaling": rope})).unwrap().ropes[0].frequencies(16, 0);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[7], plain[7] / 8.0);
        // Pair 1: 32 · 10000^(−1/8) / 2π = 1.61052 turns, so a share (1.61052 − 1) / 3 of it is kept.
        assert!((scaled[1] / plain[1] - (0.203_507 + 0.796_493 / 8.0)).abs() < 1e-5, "{}", scaled[1] / plain[1]);
    }

    #[test]
    fn unsupported_json_settings_are_refused_by_name() {
        for (changes, name) in [
            (json!({"model_type": "mamba"}), "mamba"),
            (json!({"hidden_act": "gelu"}), "gelu"),
            (json!({"rope_scaling": {"type": "proportional", "factor": 4.0}}), "rope_scaling.type is proportional"),
            (json!({"rope_parameters": {"rope_type": "linear"}}), "rope_parameters.factor"),
            (
                json!({"model_type": "gemma3_text", "rope_parameters": {"sliding_attention": {"rope_type": "spiral"}}}),
                "rope_parameters.sliding_attention.rope_type is spiral",
            ),
            (json!({"rope_scaling": {"type": "dynamic", "factor": 4.0, "alpha": 100.0}}), "rope_scaling.alpha"),
            (json!({"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}), "rope_scaling.short_factor"),
            (
                json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}),
                "short_factor",
            ),
            (json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": -1.0}}), "attention_factor"),
            (json!({"rope_scaling": {"type": "dynamic", "factor": 0.5}}), "dynamic"),
            (json!({"partial_rotary_factor": 1.5}), "partial_rotary_factor"),
            (json!({"model_type": "gemma2", "attn_logit_softcapping": 0.0}), "attn_logit_softcapping"),
            (
                json!({"model_type": "gemma2", "layer_types": ["full_attention", "chunked_attention"]}),
                "chunked_attention",
            ),
            (json!({"model_type": "gemma2", "layer_types": ["full_attention"]}), "layer_types"),
            (json!({"model_type": "gemma2", "sliding_window": 0}), "sliding_window"),
            (json!({"model_type": "gemma3_text", "use_bidirectional_attention": true}), "use_bidirectional_attention"),
            (json!({"model_type": "qwen2", "mlp_bias": true}), "mlp_bias"),
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

    /// The metadata of a small Llama with some keys changed.
    fn gguf_with(architecture: &str, changes: &[(&str, Value)]) -> Result<Config, ModelProblem> {
        let numbers = [
            ("block_count", 2),
            ("embedding_length", 64),
            ("feed_forward_length", 128),
            ("attention.head_count", 4),
            ("context_length", 512),
            ("vocab_size", 100),
        ];
        let mut entries: Vec<(String, Value)> =
            numbers.map(|(name, value)| (format!("{architecture}.{name}"), Value::Unsigned(value))).into();
        entries.push(("general.architecture".into(), Value::String(architecture.into())));
        for (key, value) in changes {
            let key = format!("{architecture}.{key}");
            entries.retain(|(name, _)| *name != key);
            entries.push((key, value.clone()));
        }
        Config::from_gguf(&entries.into_iter().collect(), FromTensors::default())
    }

    #[test]
    fn unsupported_gguf_settings_are_refused_by_name() {
        let text = |text: &str| Value::String(text.into());
        for (architecture, changes, words) in [
            ("mamba", vec![], &["general.architecture", "mamba", "gemma3"][..]),
            ("llama", vec![("expert_count", Value::Unsigned(8))], &["expert_count is 8", "a dense model"]),
            ("llama", vec![("rope.scaling.type", text("longrope"))], &["rope.scaling.type", "longrope", "yarn"]),
            ("llama", vec![("rope.scaling.type", text("yarn"))], &["rope.scaling.factor", "missing"]),
            ("llama", vec![("attention.value_length", Value::Unsigned(8))], &["attention.value_length is 8"]),
            ("llama", vec![("rope.dimension_count", Value::Unsigned(17))], &["rotary dimensions", "1 to 16"]),
            ("qwen2", vec![("block_count", Value::Unsigned(1 << 40))], &["layers", "1099511627776"]),
            ("gemma2", vec![("attn_logit_softcapping", Value::Float(0.0))], &["attn_logit_softcapping"]),
        ] {
            let message = gguf_with(architecture, &changes).unwrap_err().to_string();
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn facts_without_a_gguf_key_are_those_of_llama_cpp() {
        let gemma = gguf_with("gemma2", &[]).unwrap();
        assert_eq!((gemma.attention_softcap, gemma.logit_softcap), (Some(50.0), Some(30.0)));
        assert_eq!(gemma.attention.iter().map(|layer| layer.window).collect::<Vec<_>>(), [Some(4096), None]);
        assert_eq!((gemma.embedding_scale, gemma.norm_offset, gemma.adapter_norm_offset), (8.0, 0.0, 1.0));
        // Only in the models with 27 billion parameters, the attention scale differs from the head's width.
        let large =
            gguf_with("gemma2", &[("block_count", Value::Unsigned(46)), ("attention.key_length", Value::Unsigned(32))]);
        assert_eq!(large.unwrap().attention_scale, 0.25);
        let gemma = gguf_with("gemma3", &[("block_count", Value::Unsigned(6))]).unwrap();
        let ropes: Vec<usize> = gemma.attention.iter().map(|layer| layer.rope).collect();
        assert_eq!((ropes, gemma.ropes[1].theta), (vec![1, 1, 1, 1, 1, 0], 10_000.0));
    }

    #[test]
    fn the_decoder_of_a_vision_model_is_read() {
        let text = json!({
            "model_type": "gemma3",
            "text_config": { "model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
                "intermediate_size": 10_240, "sliding_window": 1024,
                "rope_scaling": { "rope_type": "linear", "factor": 8.0 } },
            "vision_config": { "hidden_size": 1152 },
        });
        // The decoder of Gemma3ForConditionalGeneration; its files state only what differs from the defaults.
        let config = Config::from_json(&text.to_string()).unwrap();
        assert_eq!((config.layers, config.heads, config.kv_heads, config.head_dim), (34, 8, 4, 256));
        assert_eq!((config.vocabulary, config.tied_head), (262_208, true));
        assert_eq!(config.ropes[0], Rope { theta: 1e6, scaling: RopeScaling::Linear { factor: 8.0 } });
        assert_eq!(config.ropes[1], Rope { theta: 1e4, scaling: RopeScaling::None });
        assert_eq!(config.attention[5], LayerAttention { window: None, rope: 0 });
        assert_eq!(config.attention[6], LayerAttention { window: Some(1024), rope: 1 });
    }

    proptest::proptest! {
        /// No configuration causes a panic, and one that is accepted has valid rotary frequencies.
        #[test]
        fn any_configuration_is_read_or_refused(
            family in 0..family::FAMILIES.len(),
            changes in proptest::collection::vec((0..KEYS.len(), 0..VALUES.len(), 0..2_usize), 0..6),
        ) {
            let values: Vec<serde_json::Value> =
                VALUES.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
            let mut config = json!({
                "model_type": family::FAMILIES[family].model_type, "num_hidden_layers": 2, "hidden_size": 64,
                "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
                "rope_scaling": { "rope_type": "yarn", "factor": 4.0 },
            });
            for (key, value, place) in changes {
                match place {
                    0 => config[KEYS[key]] = values[value].clone(),
                    _ => {
                        if let Some(table) = config["rope_scaling"].as_object_mut() {
                            table.insert(KEYS[key].to_owned(), values[value].clone());
                        }
                    }
                }
            }
            if let Ok(config) = Config::from_json(&config.to_string()) {
                assert_eq!(config.attention.len(), config.layers);
                for rope in &config.ropes {
                    assert_eq!(rope.frequencies(config.rotary_dim, 100_000).len(), config.rotary_dim / 2);
                }
            }
        }
    }

    const KEYS: &[&str] = &[
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "head_dim",
        "rope_theta",
        "rope_type",
        "factor",
        "short_factor",
        "long_factor",
        "original_max_position_embeddings",
        "max_position_embeddings",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "partial_rotary_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "attention_factor",
        "query_pre_attn_scalar",
        "final_logit_softcapping",
        "rope_parameters",
        "sliding_window_pattern",
        "low_freq_factor",
        "high_freq_factor",
    ];
    const VALUES: &[&str] = &[
        "null",
        "true",
        "0",
        "1",
        "-1",
        "2",
        "8",
        "1e300",
        "1e-300",
        "0.5",
        "18446744073709551615",
        "\"longrope\"",
        "\"dynamic\"",
        "\"llama3\"",
        "\"linear\"",
        "[]",
        "[1.0]",
        "[0.0, -1.0]",
        "{}",
        "[\"full_attention\"]",
        "[1,1,1,1,1,1,1,1]",
        "{\"full_attention\": {\"rope_type\": \"linear\"}}",
    ];

    #[test]
    fn a_gguf_value_of_the_wrong_type_is_refused() {
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
            let error = Config::from_gguf(&entries.into_iter().collect(), FromTensors::default()).unwrap_err();
            assert!(matches!(&error, ModelProblem::BadKey { key: found, .. } if found == key), "{key}: {error}");
        }
    }
}
