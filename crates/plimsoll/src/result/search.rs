//! The result of a search: the struct of `result.json`, from which all reports are rendered.
//!
//! New versions may add fields; `schema` counts breaking changes.

use std::path::Path;

use plimsoll_stats::choose::{Choice, ChooseOptions, Margin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::efficiency::Efficiency;
use super::evidence::{Controls, Effects, GuardSummary, LensSummary};
use super::sufficient::{SufficientLayers, TunedStrength};
use super::variants::{Arbitration, Candidate, FrontPoint, MetricSummary, RaceSummary, VariantSummary};
use super::warning::Warning;
use crate::lora::Variant;
use crate::lora::adapter::{Adapter, EmbeddingLora};

/// The result of `plimsoll search`, as `result.json` holds it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// Version of this layout.
    #[schemars(range(min = 1, max = 2))]
    pub schema: u32,
    /// Name and version of the program, such as `plimsoll 0.1.0`.
    pub tool: String,
    /// The command that repeats the search.
    pub command: String,
    /// Seed of sampling, split, bootstrap and randomisation tests.
    pub seed: u64,
    /// The base model.
    pub model: ModelFacts,
    /// The adapter.
    pub adapter: AdapterFacts,
    /// The samples.
    pub data: DataFacts,
    /// All variants that were scored, the boundaries in order of `layers_kept`.
    pub variants: Vec<VariantSummary>,
    /// Boundaries that racing dropped or skipped; absent without a race.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<RaceSummary>,
    /// Logit lens: ground-truth probability after each layer, on the selection samples.
    pub lens: LensSummary,
    /// The verdict, with the gains and tests behind it.
    pub choice: Choice,
    /// The candidate: the variant that was picked and judged, whatever the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// How many layers keep a given share of the adapter's gain, by family: `bottom-k` first. Empty if a race left
    /// scores out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sufficient: Vec<SufficientLayers>,
    /// The LoRA strength of the whole adapter, if other strengths were tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<TunedStrength>,
    /// Comparison of the families; absent if only one was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arbitration: Option<Arbitration>,
    /// Controls that the candidate was compared with; absent if there was nothing to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Controls>,
    /// Effects of layers and modules, and measures that may predict them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
    /// Guard: samples on which the candidate must not get worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardSummary>,
    /// All scored variants by bytes, NLL and the guard's NLL, with the Pareto front.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<FrontPoint>,
    /// The metric of `--metric`; if it chose, gains are in its points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricSummary>,
    /// Size, load time and speed of variants on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Efficiency>,
    /// The rules and settings of the verdict.
    pub rules: Rules,
    /// Warnings, such as few samples or skipped samples.
    pub warnings: Vec<Warning>,
    /// Cost of the search.
    pub cost: Cost,
}

/// The base model of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelFacts {
    /// Path, as the user gave it.
    pub path: String,
    /// SHA-256 of the file, or of the folder's model files taken together.
    pub sha256: String,
    /// Architecture, such as `llama`.
    pub architecture: String,
    /// Number of decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Number of parameters; a tied head is counted once.
    pub parameters: u64,
    /// Storage of the weights in the file, such as `BF16`, or `Q4_K_M (Q4_K 71 %, Q6_K 29 %)` with the share of bytes
    /// of each block type.
    pub stored_as: String,
}

/// The adapter of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AdapterFacts {
    /// Path, as the user gave it.
    pub path: String,
    /// SHA-256 of the adapter's config and weights taken together.
    pub sha256: String,
    /// Distinct ranks, ascending.
    pub ranks: Vec<usize>,
    /// Names of the modules that have LoRA, such as `q_proj`.
    pub modules: Vec<String>,
    /// Number of layers that have LoRA.
    pub layers: usize,
    /// Bytes of all its tensors.
    pub bytes: u64,
    /// Bytes of the tensors that the verdict keeps.
    pub bytes_kept: u64,
    /// Whether LoRA on `embed_tokens` and `lm_head` was kept; absent if there is none.
    #[serde(default, alias = "ends", skip_serializing_if = "Option::is_none")]
    pub embedding_lora: Option<EmbeddingLora>,
}

impl AdapterFacts {
    /// The facts of an adapter, given the path of the user and the variant that is kept.
    pub fn of(adapter: &Adapter, path: &Path, sha256: &str, kept: &Variant) -> Self {
        let mut ranks: Vec<usize> = adapter.modules().map(|module| module.rank).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut projections: Vec<_> = adapter.modules().map(|module| module.projection).collect();
        projections.sort_unstable();
        projections.dedup();
        Self {
            path: path.display().to_string(),
            sha256: sha256.to_owned(),
            ranks,
            modules: projections.into_iter().map(|projection| projection.name().to_owned()).collect(),
            layers: adapter.layers().len(),
            bytes: adapter.bytes(),
            bytes_kept: adapter.bytes_kept(kept),
            embedding_lora: adapter.embedding_lora(),
        }
    }
}

/// The samples of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DataFacts {
    /// Path, as the user gave it.
    pub path: String,
    /// SHA-256 of the file that was read.
    pub sha256: String,
    /// Number of selection samples: they pick the candidate.
    pub selection: usize,
    /// Number of held-out samples: they judge the candidate. 0 in nested cross-validation.
    pub holdout: usize,
    /// Number of samples that were not needed: a sequential search ended after a look at the others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unused: usize,
    /// Number of samples that were left out because they are too long.
    pub skipped: usize,
    /// Number of samples that lost the end of their answer because they are too long.
    #[serde(default)]
    pub cut: usize,
    /// Longest sample that is scored, in tokens.
    #[serde(default)]
    pub max_length: usize,
    /// The tokens that answers end with in the chat template, the most frequent first; empty without a template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endings: Vec<AnswerEnding>,
    /// Number of answer tokens that were scored, in selection and held-out samples.
    pub answer_tokens: usize,
    /// Template of the prompts: `tokenizer`, `none`, or the path of a template.
    pub template: String,
}

/// A token that answers end with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerEnding {
    /// The token that ends generation, as text; null if the answer ends with a token of its text.
    pub token: Option<String>,
    /// Number of samples that end with it.
    pub samples: usize,
}

/// The rules of the verdict: the options of [`choose`](plimsoll_stats::choose::choose), without the seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// Significance level: a p-value below it shows a difference (below half of it with fewer than 20 judging samples).
    pub alpha: f64,
    /// Share of the adapter's gain over the base model that a candidate must retain to count as not worse (lower end
    /// of the 95 % interval). 0 if `margin_nats` is given.
    pub margin: f64,
    /// Margin in nats per answer token: a candidate that loses less counts as not worse (end of the 95 % interval).
    /// Absent if `margin` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_nats: Option<f64>,
    /// An adapter that is shown to gain less than this over the base model counts as useless, in the unit of the gains.
    #[serde(default)]
    pub negligible: f64,
    /// Which boundaries were scored on which samples; absent if unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchKind>,
    /// Number of bootstrap resamples of the pick, for [`Choice::bootstrap`].
    pub choice_resamples: usize,
    /// Number of bootstrap resamples of each interval, and of sign patterns of each randomisation test.
    pub resamples: usize,
}

/// Which boundaries a search scores on which samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SearchKind {
    /// All boundaries on all samples.
    Exact,
    /// Boundaries from the full adapter downward, as far as the margin needs.
    Sequential,
    /// Boundaries that are significantly worse on the samples so far are not scored further.
    Racing,
}

impl Rules {
    /// The margin that was asked for.
    pub fn asked_margin(&self) -> Margin {
        self.margin_nats.map_or(Margin::Share(self.margin), Margin::Nats)
    }
}

impl From<&ChooseOptions> for Rules {
    fn from(options: &ChooseOptions) -> Self {
        let (margin, margin_nats) = match options.margin {
            Margin::Share(share) => (share, None),
            Margin::Nats(nats) => (0.0, Some(nats)),
        };
        Self {
            alpha: options.alpha,
            margin,
            margin_nats,
            negligible: options.negligible,
            search: None,
            choice_resamples: options.choice_resamples.get(),
            resamples: options.resamples.get(),
        }
    }
}

/// The cost of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Layer passes per sample, mean over samples.
    pub layer_passes: usize,
    /// Layer passes per sample that one run per variant would need.
    pub layer_passes_naive: usize,
    /// Wall-clock seconds of scoring.
    pub seconds: f64,
    /// Samples that were scored before an interruption; `seconds` does not include them.
    pub resumed: usize,
    /// Worker threads.
    pub threads: usize,
    /// Dtype of weights and activations: `f32` or `bf16`.
    #[serde(default)]
    pub dtype: String,
    /// Instruction set of the engine, such as `avx512bf16`.
    #[serde(default)]
    pub instructions: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
