//! Evidence beside the choice: controls, effects of layers, guard samples and probability curves.

use plimsoll_stats::choose::Gain;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// Controls beside a cut: if one of them does as well, it is not depth that helped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Controls {
    /// The controls.
    pub rows: Vec<Control>,
    /// What they say.
    pub depth: Depth,
}

/// Whether it is which layers are kept that makes the cut as good as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// The cut is shown to be better than every control.
    Shown,
    /// Some control is not shown to be worse than the cut.
    NotShown,
}

/// One control, on the held-out samples (or those left out in turn).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// `global-alpha`: a factor on the whole adapter, tuned on the selection samples. `random-k`: as many layers as the cut
    /// keeps, drawn; the mean over the draws. `top-k`: as many of the highest layers.
    pub family: Family,
    /// What users call it: `strength 0.75`, `18 random layers, 8 draws`.
    pub label: String,
    /// The gates of each draw; one where nothing is drawn.
    pub gates: Vec<String>,
    /// What the control gains over the full adapter. Positive is better.
    pub over_full: Gain,
    /// What the cut gains over the control. Positive means that the cut is better.
    pub cut_over: Gain,
    /// The p-value of `cut_over`, adjusted for all controls (Holm).
    pub p_holm: f64,
}

/// What layers and modules contribute: measured effects, and numbers that are cheaper and may predict them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effects {
    /// Every measure, one value for each place.
    pub measures: Vec<EffectMeasure>,
    /// How well the order of the layers by one measure agrees with that by another.
    pub agreement: Vec<Agreement>,
}

/// One measure of all places.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectMeasure {
    /// What is measured.
    pub kind: EffectKind,
    /// Samples that it was measured on; 0 where it needs none.
    pub samples: usize,
    /// Permutations behind a Shapley estimate; 0 elsewhere.
    #[serde(default)]
    pub permutations: usize,
    /// By layer, then by module: layers as a whole have no module.
    pub values: Vec<EffectValue>,
}

/// What is measured of a layer or a module. Effects are in nats per answer token, and positive where it helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EffectKind {
    /// NLL without it, less NLL of the full adapter.
    LeaveOneOut,
    /// NLL of the base model, less NLL with it alone.
    #[serde(alias = "one-in")]
    LeaveOneIn,
    /// NLL with the layers below it, less NLL with it on top of them: a step of the ablation curve.
    Increment,
    /// Mean over orders of the layers of what it adds to those before it (Shapley, 1953).
    Shapley,
    /// Frobenius norm of its update, `‖s·B·A‖`.
    Magnitude,
    /// Energy of its update on samples: mean over tokens of `‖s·B·A·x‖²`.
    Output,
    /// By how much the ground truth's probability rises over the layer, full adapter less base model (logit lens).
    Lens,
}

/// One number of one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectValue {
    /// The layer, 0 next to the embedding.
    pub layer: usize,
    /// The module, such as `q_proj`; null for the whole layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The number.
    pub value: f64,
    /// Ends of its 95 % interval, where it is an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// A rank correlation of two measures over layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// The cheaper measure.
    pub proxy: EffectKind,
    /// The measured effect.
    pub truth: EffectKind,
    /// Spearman's ρ.
    pub rho: f64,
    /// Two-sided p-value of the permutation test that there is no relation.
    pub p: f64,
    /// How many layers were ranked.
    pub layers: usize,
}

/// Samples of another kind, and what the candidate does to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardSummary {
    /// As the user gave it.
    pub path: String,
    /// SHA-256 of the file that was read.
    pub sha256: String,
    /// Samples that kept variants from being picked.
    pub selection: usize,
    /// Samples that judged the candidate.
    pub holdout: usize,
    /// How many samples were left out because they are too long.
    #[serde(default)]
    pub skipped: usize,
    /// How many samples lost the end of their answer because they are too long.
    #[serde(default)]
    pub cut: usize,
    /// What counts as not worse: a loss of less than this, in nats per answer token.
    pub margin: f64,
    /// Variants that were shown to be worse than the margin on the selection samples, and could not be picked.
    pub excluded: usize,
    /// What the candidate gains over the full adapter on the guard's held-out samples. Positive is better.
    pub gain: Gain,
    /// What the full adapter gains over the base model there.
    pub adapter_gain: Gain,
    /// Whether the candidate is shown not to be worse than the margin.
    pub is_held: bool,
}

/// The ground-truth probability curves: one entry for each layer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LensSummary {
    /// With every LoRA update dropped.
    pub base: Vec<LensPoint>,
    /// With the whole adapter.
    pub full: Vec<LensPoint>,
    /// How many of the selection samples the curves are drawn from.
    #[serde(default)]
    pub samples: usize,
}

/// What the model would say after one layer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LensPoint {
    /// Mean over samples of the mean probability of the ground truth.
    pub probability: f64,
    /// Lower end of its 95 % bootstrap interval.
    pub low: f64,
    /// Upper end of its 95 % bootstrap interval.
    pub high: f64,
    /// Share of answer positions where the ground truth is the most probable token.
    pub top1: f64,
    /// Mean number of tokens ranked above the ground truth.
    pub rank: f64,
}
