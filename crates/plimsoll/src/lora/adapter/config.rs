//! `adapter_config.json`: parsing, validation, and the scale of each module.
//!
//! PEFT 0.21.2 (`tuners/lora/config.py`) defines the fields and their meaning. Departures: PEFT warns about an unknown
//! key and continues. Here an unknown key that is *switched on* is refused, because it may change the meaning of the
//! tensors. Methods that assume other base weights than those on disk (`pissa`, `olora`, `corda`, `loftq`, `lora_ga`),
//! and methods beyond `y = Wx + s·B(Ax)` and DoRA, are refused by name.

use plimsoll_formats::text::shown;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::problem::AdapterProblem;
use super::targets::{MAX_ENTRIES, OneOrMany, Patterns, Targets};

/// The largest rank that is read.
const MAX_RANK: u64 = 1 << 14;

/// Keys that have no effect at inference, whatever their value.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",        // read only if init_lora_weights is "corda", which is refused
    "ensure_weight_tying", // if it took effect, both weights are in the file
    "eva_config",          // chose the initial A and does not change the base weights
    "fan_in_fan_out",      // for Conv1D only: PEFT switches it off for linear modules
    "inference_mode",
    "lora_dropout",
    "lora_ga_config", // read only if init_lora_weights is "lora_ga", which is refused
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// Keys that are refused if switched on, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("alora_invocation_tokens", "aLoRA applies the update only after an invocation sequence"),
    ("arrow_config", "Arrow routes between several adapters"),
    ("kasa_config", "KaSA truncates the base weights and puts a diagonal between A and B"),
    ("layer_replication", "it repeats layers of the base model"),
    ("loftq_config", "LoftQ replaces the base weights by quantised ones"),
    ("lora_bias", "a trained bias on B is not supported"),
    ("megatron_config", "Megatron's parallel layers are not supported"),
    ("monteclora_config", "MonteCLoRA samples its update"),
    ("target_parameters", "LoRA on parameters without a linear module (mixture of experts) is not supported"),
    ("trainable_token_indices", "retrained token embeddings are not supported"),
    ("use_bdlora", "block-diagonal LoRA is not supported"),
    ("use_qalora", "QA-LoRA pools the input of A"),
    ("velora_config", "VeLoRA saves further tensors"),
];

/// A validated `adapter_config.json`.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// The rank of modules that match no `rank_pattern`.
    rank: usize,
    /// The alpha of modules that match no `alpha_pattern`.
    alpha: f64,
    scaling: Scaling,
    use_dora: bool,
    modules_to_save: Vec<String>,
    targets: Targets,
    rank_pattern: Patterns<usize>,
    alpha_pattern: Patterns<f64>,
    base_model: Option<String>,
    raw: Map<String, Value>,
}

/// The formula of the scale s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scaling {
    /// `alpha / r`.
    Standard,
    /// `alpha / √r`: rank-stabilised LoRA, `use_rslora` (arXiv:2312.03732).
    RankStabilised,
}

impl Scaling {
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub fn scale(self, rank: usize, alpha: f64) -> f64 {
        match self {
            Self::Standard => alpha / rank as f64,
            Self::RankStabilised => alpha / (rank as f64).sqrt(),
        }
    }
}

impl AdapterConfig {
    /// Parses and validates the text of an `adapter_config.json`.
    ///
    /// # Errors
    /// Not JSON, a field of the wrong type or out of range, or a setting that is not supported.
    pub fn from_json(text: &str) -> Result<Self, AdapterProblem> {
        let fields: RawConfig = serde_json::from_str(text).map_err(AdapterProblem::Json)?;
        let raw: Map<String, Value> = serde_json::from_str(text).map_err(AdapterProblem::Json)?;
        Self::try_from((fields, raw))
    }

    /// The config with these fields replaced.
    pub(super) fn with_fields(&self, fields: &[(&str, Value)]) -> Result<Self, AdapterProblem> {
        let mut raw = self.raw.clone();
        for (key, value) in fields {
            raw.insert((*key).to_owned(), value.clone());
        }
        let again = RawConfig::deserialize(Value::Object(raw.clone())).map_err(AdapterProblem::Json)?;
        Self::try_from((again, raw))
    }

    /// Whether PEFT puts LoRA on a linear module, given by its full path in the base model, such as
    /// `model.layers.3.self_attn.q_proj`.
    ///
    /// # Errors
    /// [`AdapterProblem::RegexTooHard`].
    pub fn adapts(&self, module_path: &str) -> Result<bool, AdapterProblem> {
        self.targets.adapts(module_path)
    }

    /// The rank and the alpha that PEFT gives to a module.
    ///
    /// # Errors
    /// [`AdapterProblem::RegexTooHard`].
    pub fn rank_and_alpha(&self, module_path: &str) -> Result<(usize, f64), AdapterProblem> {
        let rank = self.rank_pattern.get(module_path)?.unwrap_or(self.rank);
        let alpha = self.alpha_pattern.get(module_path)?.unwrap_or(self.alpha);
        Ok((rank, alpha))
    }

    /// The formula of the scale.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// Whether modules have magnitudes (DoRA, arXiv:2402.09353).
    pub fn use_dora(&self) -> bool {
        self.use_dora
    }

    /// The modules that were trained in full, as suffixes of their paths.
    pub fn modules_to_save(&self) -> &[String] {
        &self.modules_to_save
    }

    /// The fault of a weight that should not be in the file, given by its full path in the base model.
    pub(super) fn saved_fault(&self, path: &str) -> Option<&'static str> {
        // PEFT saves embeddings and head without a request if the vocabulary was resized (`save_embedding_layers`).
        let is_embedding = ["embed_tokens.weight", "lm_head.weight"].iter().any(|end| path.ends_with(end));
        let is_named = is_embedding || self.modules_to_save.iter().any(|entry| is_saved_as(path, entry));
        (!is_named).then_some("weight without LoRA that modules_to_save does not name")
    }

    /// The alpha of modules that match no `alpha_pattern`.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Whether `rank_pattern` or `alpha_pattern` has entries.
    pub fn has_patterns(&self) -> bool {
        !self.rank_pattern.is_empty() || !self.alpha_pattern.is_empty()
    }

    /// The base model that the adapter names (`base_model_name_or_path`): a repository id or a path, unchecked.
    pub fn base_model(&self) -> Option<&str> {
        self.base_model.as_deref()
    }

    /// All fields of the file, in their order.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// `rank_pattern` and `alpha_pattern` without the entries that match none of these modules. PEFT warns of such
    /// entries.
    pub(super) fn patterns_for(&self, paths: &[String]) -> Result<Vec<(&'static str, Value)>, AdapterProblem> {
        let used =
            [("rank_pattern", self.rank_pattern.used(paths)?), ("alpha_pattern", self.alpha_pattern.used(paths)?)];
        let kept = used.into_iter().filter_map(|(key, used)| {
            let table = self.raw.get(key)?.as_object()?;
            let kept = table.iter().zip(used).filter(|(_, used)| *used).map(|((k, v), _)| (k.clone(), v.clone()));
            Some((key, Value::Object(kept.collect())))
        });
        Ok(kept.collect())
    }

    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }
}

/// The fields that are read, unvalidated. All others are in `rest` and are checked by name.
#[derive(Deserialize)]
struct RawConfig {
    peft_type: Option<String>,
    r: Option<u64>,
    lora_alpha: Option<f64>,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
    modules_to_save: Option<Vec<String>>,
    bias: Option<String>,
    init_lora_weights: Option<Value>,
    target_modules: Option<OneOrMany<String>>,
    exclude_modules: Option<OneOrMany<String>>,
    layers_to_transform: Option<OneOrMany<usize>>,
    layers_pattern: Option<OneOrMany<String>>,
    rank_pattern: Option<Map<String, Value>>,
    alpha_pattern: Option<Map<String, Value>>,
    base_model_name_or_path: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl TryFrom<(RawConfig, Map<String, Value>)> for AdapterConfig {
    type Error = AdapterProblem;

    fn try_from((fields, raw): (RawConfig, Map<String, Value>)) -> Result<Self, AdapterProblem> {
        let peft_type = fields.peft_type.ok_or(AdapterProblem::Missing { key: "peft_type" })?;
        if !peft_type.eq_ignore_ascii_case("lora") {
            return Err(unsupported("peft_type", &peft_type, "only LORA is supported"));
        }
        if let Some(bias) = fields.bias.filter(|bias| bias != "none") {
            return Err(unsupported("bias", &bias, "trained biases are not supported"));
        }
        match &fields.init_lora_weights {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(method)) => check_initialisation(method)?,
            Some(other) => {
                return Err(wrong_type("init_lora_weights", "true, false or the name of a method", other));
            }
        }
        check_rest(&fields.rest)?;

        let rank = check_rank("r", fields.r.ok_or(AdapterProblem::Missing { key: "r" })?)?;
        let alpha = fields.lora_alpha.ok_or(AdapterProblem::Missing { key: "lora_alpha" })?;
        let alpha = check_alpha("lora_alpha", alpha)?;
        let scaling = if fields.use_rslora.unwrap_or(false) { Scaling::RankStabilised } else { Scaling::Standard };
        let rank_pattern = Patterns::new("rank_pattern", &fields.rank_pattern.unwrap_or_default(), |value| {
            let rank = value.as_u64().ok_or_else(|| wrong_type("rank_pattern", "whole numbers", value))?;
            check_rank("rank_pattern", rank)
        })?;
        let alpha_pattern = Patterns::new("alpha_pattern", &fields.alpha_pattern.unwrap_or_default(), |value| {
            let alpha = value.as_f64().ok_or_else(|| wrong_type("alpha_pattern", "numbers", value))?;
            check_alpha("alpha_pattern", alpha)
        })?;
        let targets = Targets::new(
            fields.target_modules.ok_or(AdapterProblem::Missing { key: "target_modules" })?,
            fields.exclude_modules,
            fields.layers_to_transform,
            fields.layers_pattern,
        )?;
        let modules_to_save = fields.modules_to_save.unwrap_or_default();
        if modules_to_save.len() > MAX_ENTRIES {
            let found = modules_to_save.len();
            return Err(AdapterProblem::TooMany { key: "modules_to_save", found, limit: MAX_ENTRIES });
        }
        let use_dora = fields.use_dora.unwrap_or(false);
        let base_model = fields.base_model_name_or_path.filter(|name| !name.is_empty());
        Ok(Self {
            rank,
            alpha,
            scaling,
            use_dora,
            modules_to_save,
            targets,
            rank_pattern,
            alpha_pattern,
            base_model,
            raw,
        })
    }
}

/// Whether an entry of `modules_to_save` names a weight's module or one that contains it: by suffix, as in PEFT.
pub(super) fn is_saved_as(path: &str, entry: &str) -> bool {
    path.match_indices('.').any(|(at, _)| path[..at].ends_with(entry))
}

/// Refuses initialisations that change the base weights. Others have no effect after training.
fn check_initialisation(method: &str) -> Result<(), AdapterProblem> {
    let lower = method.to_lowercase();
    if matches!(lower.as_str(), "gaussian" | "eva" | "orthogonal" | "mica") {
        return Ok(());
    }
    let changes_base = ["pissa", "olora", "corda", "loftq", "lora_ga"].iter().any(|name| lower.starts_with(name));
    let reason = if changes_base {
        "it changes the base weights before training, so the tensors do not fit the base model on disk; convert the \
         adapter with PEFT's `path_initial_model_for_weight_conversion` first"
    } else {
        "not a known initialisation: it may assume other base weights"
    };
    Err(unsupported("init_lora_weights", method, reason))
}

/// Checks the keys that are not fields of [`RawConfig`].
fn check_rest(rest: &Map<String, Value>) -> Result<(), AdapterProblem> {
    for (key, value) in rest {
        if HARMLESS.contains(&key.as_str()) || is_off(value) {
            continue;
        }
        let reason = REFUSED
            .iter()
            .find(|(name, _)| name == key)
            .map_or("not a known setting, and switched on: it may change what the tensors mean", |(_, reason)| reason);
        return Err(unsupported(key, &short(value), reason));
    }
    Ok(())
}

/// Whether a feature is switched off: null, false, zero or empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn check_rank(key: &'static str, rank: u64) -> Result<usize, AdapterProblem> {
    match usize::try_from(rank) {
        Ok(small) if (1..=MAX_RANK).contains(&rank) => Ok(small),
        _ => Err(AdapterProblem::Value {
            key,
            expected: format!("a rank from 1 to {MAX_RANK}"),
            found: rank.to_string(),
        }),
    }
}

fn check_alpha(key: &'static str, alpha: f64) -> Result<f64, AdapterProblem> {
    // The engine computes in f32.
    if (alpha as f32).is_finite() {
        return Ok(alpha);
    }
    Err(AdapterProblem::Value { key, expected: "a finite number".to_owned(), found: format!("{alpha:?}") })
}

fn wrong_type(key: &'static str, expected: &str, found: &Value) -> AdapterProblem {
    AdapterProblem::Value { key, expected: expected.to_owned(), found: short(found) }
}

fn unsupported(key: &str, value: &str, reason: &'static str) -> AdapterProblem {
    AdapterProblem::Unsupported { key: shown(key), value: shown(value), reason }
}

/// A value as text for a message.
fn short(value: &Value) -> String {
    shown(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Result<AdapterConfig, AdapterProblem> {
        let comma = if extra.is_empty() { "" } else { "," };
        AdapterConfig::from_json(&format!(
            r#"{{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q_proj"]{comma}{extra}}}"#
        ))
    }

    fn refusal(extra: &str) -> String {
        config(extra).expect_err("should be refused").to_string()
    }

    #[test]
    fn a_switched_on_feature_is_refused_by_name() {
        for (key, _) in REFUSED {
            let message = refusal(&format!(r#""{key}":{{"x":1}}"#));
            assert!(message.contains(key), "{message}");
            assert!(!message.contains("not a known setting"), "{message}");
            assert!(config(&format!(r#""{key}":null"#)).is_ok(), "{key}");
        }
        assert!(refusal(r#""brand_new":{"a":1}"#).contains("brand_new"));
        assert!(refusal(r#""bias":"all""#).contains("bias"));
        for off in ["null", "false", "0", "0.0", "\"\"", "[]", "{}"] {
            assert!(config(&format!(r#""brand_new":{off}"#)).is_ok(), "{off}");
        }
    }

    #[test]
    fn initialisations_that_change_the_base_are_refused() {
        for method in ["pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga", "novel"] {
            assert!(refusal(&format!(r#""init_lora_weights":"{method}""#)).contains(method));
        }
        for method in ["true", "false", "null", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "\"mica\""] {
            assert!(config(&format!(r#""init_lora_weights":{method}"#)).is_ok(), "{method}");
        }
    }

    #[test]
    fn ranks_and_alphas_are_checked() {
        let text = |r: &str, alpha: &str| {
            let text = format!(r#"{{"peft_type":"LORA","r":{r},"lora_alpha":{alpha},"target_modules":["q_proj"]}}"#);
            AdapterConfig::from_json(&text)
        };
        assert!(text("1", "0.5").is_ok());
        for (r, alpha) in [("0", "1"), ("-1", "1"), ("16385", "1"), ("8.5", "1"), ("8", "1e39"), ("8", "null")] {
            assert!(text(r, alpha).is_err(), "r {r}, alpha {alpha}");
        }
        assert!(config(r#""rank_pattern":{"q_proj":0}"#).is_err());
        assert!(config(r#""alpha_pattern":{"q_proj":"x"}"#).is_err());
    }

    #[test]
    fn the_scale_follows_rslora() {
        assert_eq!(config("").unwrap().scaling().scale(4, 16.0), 4.0);
        assert_eq!(config(r#""use_rslora":true"#).unwrap().scaling().scale(4, 16.0), 8.0);
    }
}
