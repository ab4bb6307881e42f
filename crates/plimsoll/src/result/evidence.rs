//! Evidence for the verdict: controls, effects of layers, guard samples and logit-lens curves.

use plimsoll_stats::choose::Gain;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lora::Family;

/// Controls that the candidate is compared with: if one of them does as well, the choice of layers may not matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Controls {
    /// The controls.
    pub rows: Vec<Control>,
    /// The result of the comparison.
    pub depth: Depth,
}

/// Whether it is shown that the choice of layers matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// The candidate is shown to be better than every control.
    Shown,
    /// At least one control is not shown to be worse than the candidate.
    NotShown,
}

/// One control and its gains on the judging samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Control {
    /// `global-alpha`: one LoRA strength for the whole adapter, tuned on the selection samples. `random-k`: as many
    /// random layers as the candidate keeps, mean over draws. `top-k`: as many of the highest layers.
    pub family: Family,
    /// Its label, such as `strength 0.75` or `18 random layers, 8 draws`.
    pub label: String,
    /// The LoRA strengths of each draw, in the syntax of `trim --gates`; one entry for a control without draws.
    pub gates: Vec<String>,
    /// Gain of the control over the full adapter. Positive is better.
    pub over_full: Gain,
    /// Gain of the candidate over the control. Positive: the candidate is better.
    pub cut_over: Gain,
    /// The p-value of `cut_over`, adjusted for all controls (Holm).
    pub p_holm: f64,
}

/// Effects of layers and modules: measured effects, and cheaper measures that may predict them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effects {
    /// The measures, with one value for each layer or module.
    pub measures: Vec<EffectMeasure>,
    /// Rank correlations of the measures over the layers.
    pub agreement: Vec<Agreement>,
}

/// One measure of layers and modules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectMeasure {
    /// The kind of measure.
    pub kind: EffectKind,
    /// Number of samples that it was measured on; 0 if it needs none.
    pub samples: usize,
    /// Number of permutations of a Shapley estimate; 0 for other measures.
    #[serde(default)]
    pub permutations: usize,
    /// The values, by layer, then by module. Values of whole layers have no module.
    pub values: Vec<EffectValue>,
}

/// A measure of a layer or a module. Effects are in nats per answer token, and positive if its LoRA helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EffectKind {
    /// NLL of the full adapter without it, minus NLL of the full adapter.
    LeaveOneOut,
    /// NLL of the base model, minus NLL of the base model with it alone.
    #[serde(alias = "one-in")]
    LeaveOneIn,
    /// NLL with all lower layers, minus NLL with it added on top of them: a step of the ablation curve.
    Increment,
    /// Shapley value (Shapley, 1953): mean gain of adding it to the layers before it, over orders of the layers.
    Shapley,
    /// Frobenius norm of the update, `‖s·B·A‖`.
    Magnitude,
    /// Activation energy of the update on samples: mean over tokens of `‖s·B·A·x‖²` (LoRA-drop, arXiv:2402.07721).
    Output,
    /// Rise of the ground truth's probability over the layer (logit lens), full adapter minus base model.
    Lens,
}

/// One value of a measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EffectValue {
    /// The layer, 0 next to the embedding.
    pub layer: usize,
    /// The module, such as `q_proj`; null for the whole layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The value.
    pub value: f64,
    /// Ends of its 95 % interval; absent for a value that is not an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
}

/// Rank correlation of two measures over the layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agreement {
    /// The cheaper measure.
    pub proxy: EffectKind,
    /// The measured effect.
    pub truth: EffectKind,
    /// Spearman's ρ, from −1 to 1.
    pub rho: f64,
    /// Two-sided p-value of a permutation test of no correlation.
    pub p: f64,
    /// Number of layers.
    pub layers: usize,
}

/// The guard: samples on which the candidate must not get worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GuardSummary {
    /// Path of the file, as the user gave it.
    pub path: String,
    /// SHA-256 of the file that was read.
    pub sha256: String,
    /// Number of samples that exclude variants before the pick.
    pub selection: usize,
    /// Number of samples that judge the candidate.
    pub holdout: usize,
    /// Number of samples that were left out because they are too long.
    #[serde(default)]
    pub skipped: usize,
    /// Number of samples that lost the end of their answer because they are too long.
    #[serde(default)]
    pub cut: usize,
    /// The margin: a smaller loss counts as not worse, in nats per answer token.
    pub margin: f64,
    /// Number of variants that were excluded because a loss above the margin was shown on the selection samples.
    pub excluded: usize,
    /// Gain of the candidate over the full adapter on the guard's held-out samples. Positive is better.
    pub gain: Gain,
    /// Gain of the full adapter over the base model on these samples.
    pub adapter_gain: Gain,
    /// Whether the candidate is shown to lose less than the margin.
    pub is_held: bool,
}

/// Logit-lens curves of the base model and the full adapter: one entry for each layer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LensSummary {
    /// The base model: every LoRA update dropped.
    pub base: Vec<LensPoint>,
    /// The full adapter.
    pub full: Vec<LensPoint>,
    /// Number of selection samples that the curves are measured on.
    #[serde(default)]
    pub samples: usize,
}

/// The logit lens after one layer.
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
