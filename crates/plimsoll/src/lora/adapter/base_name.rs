//! Names of base models: whether two names denote the same model, and whether an architecture is unsupported.
//!
//! `base_model_name_or_path` is compared with the names of the opened model: its file or folder, the repository of a
//! cache folder, and the name in a GGUF file. Only the last part of a path counts, without case, quantisation and
//! conversion format. Names are unreliable, so only two differences count:
//! - one model is tuned for chat (`-it`, `-instruct`, `-chat`), and the other is the pretrained model of the same name;
//! - both are of one family, and each has a size or version that the other lacks.
//!
//! `phi3` counts as `phi-3`, and `v1.0` as `v1`.

use std::collections::BTreeSet;
use std::fmt;

use plimsoll_formats::text::shown;

use super::keys::KEY_PREFIX;

/// A mismatch between the base model that an adapter names and the model that was opened. `Display` gives a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherBase {
    /// The base model that the adapter names.
    pub adapter: String,
    /// The name of the model that was opened.
    pub model: String,
}

impl fmt::Display for OtherBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the adapter names {} as its base model, and this one is {}",
            shown(&self.adapter),
            shown(&self.model)
        )
    }
}

/// Compares the base model that an adapter names with the names of a model. `None` if one of them is the same, or if
/// all are inconclusive.
pub(crate) fn other_base(adapter: &str, model: &[String]) -> Option<OtherBase> {
    let expected = Name::of(adapter);
    let comparisons: Vec<Comparison> = model.iter().map(|name| expected.compare(&Name::of(name))).collect();
    if comparisons.contains(&Comparison::Same) {
        return None;
    }
    let other = comparisons.iter().position(|comparison| *comparison == Comparison::Other)?;
    Some(OtherBase { adapter: adapter.to_owned(), model: last_part(&model[other]).to_owned() })
}

/// The `model_type` of an unsupported base model, recognised by the start of its name.
pub(super) fn unsupported_by_name(base: &str) -> Option<&'static str> {
    const STARTS: &[(&str, &str)] = &[
        ("phi-1", "phi"),
        ("phi-2", "phi"),
        ("opt-", "opt"),
        ("gpt2", "gpt2"),
        ("distilgpt2", "gpt2"),
        ("gpt-neo-", "gpt_neo"),
        ("gpt-neox", "gpt_neox"),
        ("pythia-", "gpt_neox"),
        ("gpt-j-", "gptj"),
        ("bloom-", "bloom"),
        ("bloomz-", "bloom"),
        ("falcon-", "falcon"),
        ("mpt-", "mpt"),
        ("mixtral-", "mixtral"),
        ("t5-", "t5"),
        ("flan-t5-", "t5"),
    ];
    let name = last_part(base).to_lowercase();
    STARTS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, model_type)| *model_type)
}

/// The `model_type` of an unsupported base model, and the path of a module that shows it, recognised by tensor names of
/// the adapter. Only modules in a list of decoder layers count: vision and audio towers have modules of the same names.
pub(super) fn unsupported_by_keys(keys: &[&str]) -> Option<(&'static str, String)> {
    // End of the path of a list of layers, start of the path of a module in a layer, `model_type`.
    const MODULES: &[(&str, &str, &str)] = &[
        ("h", "attn.attention.", "gpt_neo"),
        ("h", "self_attention.query_key_value.", "bloom or falcon"),
        ("h", "attn.c_attn.", "gpt2"),
        ("h", "attn.c_proj.", "gpt2"),
        ("h", "mlp.c_fc.", "gpt2"),
        ("h", "mlp.c_proj.", "gpt2"),
        ("encoder.block", "", "t5"),
        ("decoder.block", "", "t5"),
        ("gpt_neox.layers", "", "gpt_neox"),
        ("layers", "block_sparse_moe.", "mixtral"),
        ("layers", "self_attn.dense.", "phi"),
        ("layers", "mlp.fc1.", "phi"),
        ("layers", "mlp.fc2.", "phi"),
        ("decoder.layers", "", "opt"),
    ];
    // BART and Whisper have the same list of layers as OPT, and an encoder besides.
    let has_encoder = keys.iter().any(|key| key.contains("encoder_attn.") || key.contains(".encoder.layers."));
    keys.iter().find_map(|key| {
        let mut path = *key;
        while let Some(rest) = path.strip_prefix(KEY_PREFIX) {
            path = rest;
        }
        let below = path.strip_prefix("model.").or_else(|| path.strip_prefix("transformer.")).unwrap_or(path);
        let is_in = |(stack, module, model_type): &&(&str, &str, &str)| {
            let layer = below.strip_prefix(stack).and_then(|rest| rest.strip_prefix('.')?.split_once('.'));
            let is_layer = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            layer.is_some_and(|(number, rest)| is_layer(number) && rest.starts_with(module))
                && !(*model_type == "opt" && has_encoder)
        };
        let (_, _, model_type) = MODULES.iter().find(is_in)?;
        let module = path.split(".lora_").next().unwrap_or(path);
        Some((*model_type, module.to_owned()))
    })
}

/// Result of comparing two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    Other,
    Inconclusive,
}

/// The kind of training that a name states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tuning {
    Chat,
    Pretrained,
    Unknown,
}

/// The parts of a name.
#[derive(Debug)]
struct Name {
    /// Family, size and version, in lower case.
    words: BTreeSet<String>,
    /// The words, with numbers split from the letters before them.
    pieces: BTreeSet<String>,
    tuning: Tuning,
}

impl Name {
    fn of(text: &str) -> Self {
        let name = last_part(text).to_lowercase();
        let parts = name.split(['-', ' ', ':']).map(|part| match part.rsplit_once('.') {
            Some((before, last)) if is_quantisation(last) => before,
            _ => part,
        });
        let (mut words, mut pieces) = (BTreeSet::new(), BTreeSet::new());
        let mut tuning = Tuning::Unknown;
        for word in parts.filter(|part| !is_quantisation(part)).flat_map(|part| part.split('_')) {
            match word {
                "it" | "instruct" | "chat" => tuning = Tuning::Chat,
                "pt" | "base" => tuning = Tuning::Pretrained,
                "" => {}
                word if NOISE.contains(&word) => {}
                word => {
                    let version = word.strip_prefix('v').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                    let word = version.unwrap_or(word);
                    let word = word.strip_suffix(".0").unwrap_or(word);
                    let (letters, number) =
                        word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len()));
                    words.insert(word.to_owned());
                    pieces.extend([letters, number].into_iter().filter(|piece| !piece.is_empty()).map(str::to_owned));
                }
            }
        }
        Self { words, pieces, tuning }
    }

    fn compare(&self, other: &Self) -> Comparison {
        // In these families the plain name is the model tuned for chat, and `-Base` the pretrained one.
        let has = |piece: &str| self.pieces.contains(piece);
        let is_plain_tuned = || (has("qwen") || has("smollm")) && has("3");
        let is_family = |word: &String| word.starts_with(char::is_alphabetic);
        if self.pieces == other.pieces && self.pieces.iter().any(is_family) {
            return match (self.tuning, other.tuning) {
                (one, two) if one == two => Comparison::Same,
                (Tuning::Chat, Tuning::Unknown) | (Tuning::Unknown, Tuning::Chat) if is_plain_tuned() => {
                    Comparison::Same
                }
                (Tuning::Chat, _) | (_, Tuning::Chat) => Comparison::Other,
                _ if is_plain_tuned() => Comparison::Other,
                _ => Comparison::Same,
            };
        }
        if !self.words.intersection(&other.words).any(is_family) {
            return Comparison::Inconclusive;
        }
        let has_number = |piece: &String| piece.contains(|c: char| c.is_ascii_digit());
        let has_own_number = |one: &Self, two: &Self| one.pieces.difference(&two.pieces).any(has_number);
        if has_own_number(self, other) && has_own_number(other, self) {
            Comparison::Other
        } else {
            Comparison::Inconclusive
        }
    }
}

/// Words that name the converter or the format of a model.
const NOISE: &[&str] = &[
    "hf",
    "gguf",
    "ggml",
    "mlx",
    "gptq",
    "awq",
    "bnb",
    "4bit",
    "6bit",
    "8bit",
    "int4",
    "int8",
    "unsloth",
    "meta",
    "google",
    "imatrix",
    "i1",
    "ud",
    "qat",
    "unquantized",
];

/// Whether a part of a name is a quantisation or a dtype, such as `q4_k_m`, `iq2_xs` or `bf16`.
fn is_quantisation(part: &str) -> bool {
    let starts = ["q", "iq", "tq", "f", "bf", "fp", "mxfp"];
    let is_rest = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.len() <= 7
            && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    starts.iter().any(|start| part.strip_prefix(start).is_some_and(is_rest))
}

/// The last part of a path; of a path in a Hugging Face cache, the repository's name.
fn last_part(path: &str) -> &str {
    let parts = || path.split(['/', '\\']).filter(|part| !part.is_empty());
    let cached = parts().find_map(|part| part.strip_prefix("models--")?.rsplit("--").next());
    let last = cached.or_else(|| parts().next_back()).unwrap_or_default();
    last.strip_suffix(".gguf").unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differ(adapter: &str, model: &str) -> bool {
        other_base(adapter, &[model.to_owned()]).is_some()
    }

    #[test]
    fn a_chat_model_is_not_the_pretrained_one() {
        for (adapter, model) in [
            ("google/gemma-3-270m-it", "models/gemma-3-270m"),
            ("google/gemma-3-270m-it", "/cache/models--google--gemma-3-270m/snapshots/0123abcd"),
            ("google/gemma-3-270m", "Gemma 3 270m It"),
            ("google/gemma-3-1b-pt", "gemma-3-1b-it-Q8_0.gguf"),
            ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M-Instruct-Q4_1.gguf"),
            ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B-v1.0.Q4_K_M.gguf"),
            ("meta-llama/Llama-2-7b-hf", "llama-2-7b-chat"),
            ("Qwen/Qwen3-0.6B-Base", "Qwen3-0.6B-Q8_0.gguf"),
            ("mistralai/Mistral-7B-Instruct-v0.2", "mistral-7b-instruct-v0.3.Q5_K_S.gguf"),
            ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "TinyLlama-1.1B-intermediate-step-1431k-3T"),
            ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b-chat-v0.6.gguf"),
            ("meta-llama/Meta-Llama-3-8B", "llama3-8b-instruct.gguf"),
            ("microsoft/Phi-3-mini-4k-instruct", "phi3-mini-128k-instruct.gguf"),
            ("microsoft/Phi-3-mini-4k-instruct", "phi3.5-mini-instruct.gguf"),
        ] {
            assert!(differ(adapter, model), "{adapter} and {model}");
        }
    }

    #[test]
    fn different_names_of_one_model_and_inconclusive_names_are_no_mismatch() {
        for (adapter, model) in [
            ("google/gemma-3-270m-it", "gemma-3-270m-it-Q4_K_M.gguf"),
            ("unsloth/gemma-3-270m-it-bnb-4bit", "google/gemma-3-270m-it"),
            ("google/gemma-3-1b-pt", "gemma-3-1b"),
            ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b-instruct.IQ4_XS.gguf"),
            ("meta-llama/Llama-2-7b-hf", "LLaMA v2"),
            ("Qwen/Qwen3-0.6B", "qwen3-0.6b-instruct"),
            ("mistralai/Mistral-7B-v0.1", "Mistral v0.1 7B"),
            ("/home/user/runs/checkpoint-500", "gemma-3-270m-it"),
            ("google/gemma-3-270m-it", "model.gguf"),
            ("google/gemma-3-270m-it", "."),
            ("", "gemma-3-270m"),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "Smollm2 135M 8k Lc100K Mix1 Ep2"),
            ("microsoft/Phi-3-mini-4k-instruct", "phi3-mini-4k-instruct.gguf"),
            ("microsoft/Phi-3-mini-4k-instruct", "Phi3 mini 4k instruct 3.8B"),
            ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "tinyllama-1.1b-chat-v1.gguf"),
            ("Qwen/Qwen3-0.6B", "qwen-3-0.6b-instruct"),
            ("/models/run3", "run-4"),
        ] {
            assert!(!differ(adapter, model), "{adapter} and {model}");
        }
        // One name that agrees is enough.
        let names = ["gemma-3-270m", "Gemma 3 270m It"].map(str::to_owned);
        assert_eq!(other_base("google/gemma-3-270m-it", &names), None);
    }

    #[test]
    fn unsupported_models_are_recognised() {
        assert_eq!(unsupported_by_name("microsoft/phi-1_5"), Some("phi"));
        assert_eq!(unsupported_by_name("facebook/opt-125m"), Some("opt"));
        for supported in ["microsoft/Phi-3-mini-4k-instruct", "tiiuae/Falcon3-1B-Base", "google/gemma-3-270m"] {
            assert_eq!(unsupported_by_name(supported), None, "{supported}");
        }
        let found = |modules: &[&str]| {
            let keys: Vec<String> =
                modules.iter().map(|module| format!("base_model.model.{module}.lora_A.weight")).collect();
            let found = unsupported_by_keys(&keys.iter().map(String::as_str).collect::<Vec<_>>());
            if let Some((_, module)) = &found {
                assert!(modules.contains(&module.as_str()), "{module}");
            }
            found.map(|(model_type, _)| model_type)
        };
        for (module, expected) in [
            ("transformer.h.3.attn.c_attn", Some("gpt2")),
            ("h.11.mlp.c_fc", Some("gpt2")),
            ("transformer.h.0.self_attention.query_key_value", Some("bloom or falcon")),
            ("gpt_neox.layers.0.attention.query_key_value", Some("gpt_neox")),
            ("decoder.block.0.layer.0.SelfAttention.q", Some("t5")),
            ("model.decoder.layers.0.self_attn.q_proj", Some("opt")),
            ("model.layers.0.mlp.fc1", Some("phi")),
            ("model.layers.0.block_sparse_moe.gate", Some("mixtral")),
            ("model.layers.0.self_attn.q_proj", None),
            // StarCoder2, and vision towers of Gemma 3, of LLaVA, and of a layout like GPT-2's.
            ("model.layers.0.mlp.c_fc", None),
            ("model.vision_tower.vision_model.encoder.layers.0.mlp.fc1", None),
            ("vision_tower.vision_model.encoder.layers.0.mlp.fc1", None),
            ("model.visual.transformer.h.0.mlp.c_fc", None),
        ] {
            assert_eq!(found(&[module]), expected, "{module}");
        }
        let decoder = "model.decoder.layers.0.self_attn.q_proj";
        assert_eq!(found(&[decoder, "model.decoder.layers.0.encoder_attn.q_proj"]), None);
        assert_eq!(found(&[decoder, "model.encoder.layers.0.self_attn.q_proj"]), None);
    }
}
