//! Parser of tensor names (keys) of an adapter: the module that a tensor belongs to, and which part of it it is.
//!
//! PEFT 0.21.2 writes `base_model.model.<path>.lora_A.weight`. Keys of older versions and other trainers can have the
//! adapter's name (`lora_A.default.weight`), wrappers of compilation, sharding and checkpointing, and the prefix twice
//! or not at all. mlx-lm writes `<path>.lora_a`. All of these are read. Only the forms of PEFT 0.21.2 and mlx-lm are
//! written.

use super::embeddings::EmbeddingModule;
use super::layout::AdapterLayout;
use crate::lora::Projection;
use crate::lora::variant::MAX_LAYERS;

/// The prefix that PEFT adds to the base model's tensor names.
pub(super) const KEY_PREFIX: &str = "base_model.model.";

/// Paths of the list of decoder layers. Layers elsewhere, such as those of vision and audio towers, are refused.
pub(super) const STACKS: &[&str] = &[
    "model.layers",
    "layers",
    "model.language_model.layers",
    "language_model.model.layers",
    "language_model.layers",
    "transformer.h",
    "h",
];

/// Path components that wrappers add: `torch.compile`, FSDP, activation checkpointing.
const WRAPPERS: &[&str] = &["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Paths of the modules that contain the embedding, the final norm and the head.
const ROOTS: &[&str] = &["model.language_model.", "language_model.model.", "language_model.", "model.", ""];

/// The part of a LoRA module that a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
    /// The magnitudes of DoRA.
    Magnitude,
}

/// A parsed key.
#[derive(Debug, PartialEq)]
pub(super) enum Key {
    /// A part of the LoRA of a layer; `stack` is the path of the list of layers.
    Layer { stack: &'static str, layer: usize, projection: Projection, part: Part },
    /// A part of LoRA on an embedding module, with the module's path.
    Embedding { module: EmbeddingModule, path: String, part: Part },
    /// A weight that was trained in full: its Hugging Face name, and its path in the adapter's own base model.
    Saved { name: String, path: String },
}

/// The suffix of a key, which follows the module's path.
enum Suffix {
    Part(Part),
    /// LoRA on an embedding, which has transposed factors.
    Embedding(Part),
    Saved(&'static str),
}

impl Key {
    /// Parses a key. The error is the reason why the tensor is refused.
    pub(super) fn of(key: &str, layout: AdapterLayout) -> Result<Self, &'static str> {
        let parts: Vec<&str> = key.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
        let (parts, suffix) = match layout {
            AdapterLayout::Peft => suffix(&parts)?,
            AdapterLayout::Mlx => mlx_suffix(&parts)?,
        };
        let path = parts.join(".");
        let mut path = path.strip_prefix("module.").unwrap_or(&path);
        while let Some(rest) = path.strip_prefix(KEY_PREFIX) {
            path = rest;
        }
        // PEFT saves the base weight of an embedding module beside its LoRA.
        let wrapped = path
            .strip_suffix(".base_layer")
            .filter(|path| is_in_root(path, "embed_tokens") || is_in_root(path, "lm_head"));
        let path = wrapped.unwrap_or(path);
        if path.contains("base_layer") {
            return Err("the file holds weights of the base model");
        }
        match suffix {
            Suffix::Saved(kind) => {
                let name = canonical(path).ok_or(UNSUPPORTED)?;
                Ok(Self::Saved { name: format!("{name}.{kind}"), path: format!("{path}.{kind}") })
            }
            Suffix::Embedding(part) if is_in_root(path, "embed_tokens") => {
                Ok(Self::Embedding { module: EmbeddingModule::EmbedTokens, path: path.to_owned(), part })
            }
            Suffix::Part(part) if is_in_root(path, "lm_head") => {
                Ok(Self::Embedding { module: EmbeddingModule::LmHead, path: path.to_owned(), part })
            }
            Suffix::Embedding(_) => Err(UNSUPPORTED),
            Suffix::Part(part) => {
                let (stack, layer, module) = in_stack(path).ok_or(UNSUPPORTED)?;
                let projection = Projection::from_path(module).ok_or(UNSUPPORTED)?;
                if layer >= MAX_LAYERS {
                    return Err("layers above 1023 are not supported");
                }
                Ok(Self::Layer { stack, layer, projection, part })
            }
        }
    }
}

const UNSUPPORTED: &str = "LoRA on this module is not supported: expected a linear module of a decoder layer, \
                           embed_tokens or lm_head";

/// Splits a PEFT key into the module's path and the suffix.
fn suffix<'a>(parts: &'a [&'a str]) -> Result<(&'a [&'a str], Suffix), &'static str> {
    let marks =
        ["lora_A", "lora_B", "lora_magnitude_vector", "lora_embedding_A", "lora_embedding_B", "modules_to_save"];
    let Some(at) = parts.iter().position(|part| marks.contains(part)) else {
        return match parts.split_last() {
            Some((&"weight", path)) => Ok((path, Suffix::Saved("weight"))),
            Some((&"bias", path)) => Ok((path, Suffix::Saved("bias"))),
            _ => Err("unknown tensor: not a part of a LoRA module"),
        };
    };
    let (path, rest) = (&parts[..at], &parts[at + 1..]);
    // Before the last component there may be the adapter's name.
    let suffix = match (parts[at], rest) {
        ("lora_A", ["weight"] | [_, "weight"]) => Suffix::Part(Part::A),
        ("lora_B", ["weight"] | [_, "weight"]) => Suffix::Part(Part::B),
        ("lora_B", ["bias"] | [_, "bias"]) => return Err("a trained bias on B is not supported"),
        ("lora_magnitude_vector", [] | [_] | [_, "weight"]) => Suffix::Part(Part::Magnitude),
        ("lora_embedding_A", [] | [_]) => Suffix::Embedding(Part::A),
        ("lora_embedding_B", [] | [_]) => Suffix::Embedding(Part::B),
        ("modules_to_save", ["weight"] | [_, "weight"]) => Suffix::Saved("weight"),
        ("modules_to_save", ["bias"] | [_, "bias"]) => Suffix::Saved("bias"),
        _ => return Err("unknown tensor: not a part of a LoRA module"),
    };
    Ok((path, suffix))
}

/// Splits an mlx-lm key into the module's path and the suffix.
fn mlx_suffix<'a>(parts: &'a [&'a str]) -> Result<(&'a [&'a str], Suffix), &'static str> {
    let Some((last, path)) = parts.split_last() else { return Err("unknown tensor") };
    let part = match *last {
        "lora_a" => Part::A,
        "lora_b" => Part::B,
        "m" => Part::Magnitude,
        _ => return Err("unknown tensor: expected lora_a, lora_b or m, as mlx-lm writes them"),
    };
    if path.last() == Some(&"embed_tokens") {
        return Err("LoRA on embeddings is not supported in mlx-lm's layout");
    }
    Ok((path, Suffix::Part(part)))
}

/// The path of the list of layers, the layer and the module of a module in a layer.
fn in_stack(path: &str) -> Option<(&'static str, usize, &str)> {
    STACKS.iter().find_map(|&stack| {
        let rest = path.strip_prefix(stack)?.strip_prefix('.')?;
        let (number, module) = rest.split_once('.')?;
        let layer = number.parse::<usize>().ok().filter(|layer| layer.to_string() == number)?;
        Some((stack, layer, module))
    })
}

/// Whether the path is that of a module outside the layers with this name.
fn is_in_root(path: &str, name: &str) -> bool {
    ROOTS.iter().any(|root| path.strip_prefix(root) == Some(name))
}

/// The path of a module in Hugging Face decoders: `model.layers.…`, `model.embed_tokens`, `lm_head`.
fn canonical(path: &str) -> Option<String> {
    if let Some((_, layer, module)) = in_stack(path) {
        return Some(format!("model.layers.{layer}.{module}"));
    }
    ["embed_tokens", "norm"]
        .into_iter()
        .find(|name| is_in_root(path, name))
        .map(|name| format!("model.{name}"))
        .or_else(|| is_in_root(path, "lm_head").then(|| "lm_head".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_trainer_are_read() {
        let module = "layers.12.mlp.down_proj";
        for (key, part, stack) in [
            (format!("base_model.model.model.{module}.lora_B.weight"), Part::B, "model.layers"),
            (format!("base_model.model.model.{module}.lora_B.default.weight"), Part::B, "model.layers"),
            (format!("base_model.model.base_model.model.model.{module}.lora_A.weight"), Part::A, "model.layers"),
            (format!("model.{module}.lora_A.weight"), Part::A, "model.layers"),
            (format!("{module}.lora_A.weight"), Part::A, "layers"),
            (format!("_orig_mod.base_model.model.model.{module}.lora_A.weight"), Part::A, "model.layers"),
            (format!("module.base_model.model.model.{module}.lora_A.weight"), Part::A, "model.layers"),
            (
                "base_model.model.model.layers.12._checkpoint_wrapped_module.mlp.down_proj.lora_A.weight".to_owned(),
                Part::A,
                "model.layers",
            ),
            (
                format!("_fsdp_wrapped_module.base_model.model.model.{module}.lora_A.default.weight"),
                Part::A,
                "model.layers",
            ),
            (
                format!("base_model.model.model.language_model.{module}.lora_A.weight"),
                Part::A,
                "model.language_model.layers",
            ),
            (format!("base_model.model.model.{module}.lora_magnitude_vector"), Part::Magnitude, "model.layers"),
            (format!("base_model.model.model.{module}.lora_magnitude_vector.weight"), Part::Magnitude, "model.layers"),
            (
                format!("base_model.model.model.{module}.lora_magnitude_vector.default.weight"),
                Part::Magnitude,
                "model.layers",
            ),
        ] {
            let expected = Key::Layer { stack, layer: 12, projection: Projection::Down, part };
            assert_eq!(Key::of(&key, AdapterLayout::Peft), Ok(expected), "{key}");
        }
        let expected = Key::Layer { stack: "model.layers", layer: 12, projection: Projection::Down, part: Part::A };
        assert_eq!(Key::of(&format!("model.{module}.lora_a"), AdapterLayout::Mlx), Ok(expected));
    }

    #[test]
    fn embedding_lora_and_saved_weights_are_distinguished() {
        let lora = |module, path: &str, part| Ok(Key::Embedding { module, path: path.into(), part });
        let saved = |name: &str, path: &str| Ok(Key::Saved { name: name.into(), path: path.into() });
        for (key, expected) in [
            ("base_model.model.lm_head.lora_A.weight", lora(EmbeddingModule::LmHead, "lm_head", Part::A)),
            (
                "base_model.model.model.embed_tokens.lora_embedding_B",
                lora(EmbeddingModule::EmbedTokens, "model.embed_tokens", Part::B),
            ),
            (
                "base_model.model.model.embed_tokens.lora_embedding_A.default",
                lora(EmbeddingModule::EmbedTokens, "model.embed_tokens", Part::A),
            ),
            ("base_model.model.lm_head.weight", saved("lm_head.weight", "lm_head.weight")),
            ("base_model.model.lm_head.modules_to_save.default.weight", saved("lm_head.weight", "lm_head.weight")),
            ("base_model.model.lm_head.base_layer.weight", saved("lm_head.weight", "lm_head.weight")),
            (
                "base_model.model.model.language_model.norm.weight",
                saved("model.norm.weight", "model.language_model.norm.weight"),
            ),
            (
                "base_model.model.model.layers.3.input_layernorm.weight",
                saved("model.layers.3.input_layernorm.weight", "model.layers.3.input_layernorm.weight"),
            ),
        ] {
            assert_eq!(Key::of(key, AdapterLayout::Peft), expected, "{key}");
        }
    }

    #[test]
    fn unusable_keys_are_refused_with_a_reason() {
        for (key, word) in [
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "bias"),
            ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight", "base model"),
            ("base_model.model.model.layers.0.self_attn.rotary.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.01.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.99999999999999999999.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.model.layers.1024.self_attn.q_proj.lora_A.weight", "layers above 1023"),
            ("base_model.model.model.vision_tower.layers.0.self_attn.q_proj.lora_A.weight", "not supported"),
            ("base_model.model.classifier.weight", "not supported"),
            ("base_model.model.model.layers.0.self_attn.q_proj.lora_C", "unknown tensor"),
            ("", "unknown tensor"),
        ] {
            let reason = Key::of(key, AdapterLayout::Peft).unwrap_err();
            assert!(reason.contains(word), "{key}: {reason}");
        }
        for (key, word) in
            [("model.embed_tokens.lora_a", "embeddings"), ("model.layers.0.self_attn.q_proj.weight", "mlx")]
        {
            let reason = Key::of(key, AdapterLayout::Mlx).unwrap_err();
            assert!(reason.contains(word), "{key}: {reason}");
        }
    }

    proptest::proptest! {
        /// No key causes a panic.
        #[test]
        fn any_key_is_read_or_refused(parts in proptest::collection::vec(0..PARTS.len(), 0..9), text in ".{0,12}") {
            let mut key: Vec<&str> = parts.iter().map(|&part| PARTS[part]).collect();
            key.push(&text);
            for layout in [AdapterLayout::Peft, AdapterLayout::Mlx] {
                let _ = Key::of(&key.join("."), layout);
                let _ = Key::of(&key[..key.len() - 1].join("."), layout);
            }
        }
    }

    const PARTS: &[&str] = &[
        "base_model",
        "model",
        "module",
        "_orig_mod",
        "layers",
        "0",
        "1023",
        "99999999999999999999",
        "self_attn",
        "q_proj",
        "mlp",
        "lora_A",
        "lora_B",
        "lora_magnitude_vector",
        "lora_embedding_A",
        "modules_to_save",
        "default",
        "weight",
        "bias",
        "lm_head",
        "embed_tokens",
        "base_layer",
        "lora_a",
        "m",
        "",
    ];
}
