//! What a search found: the one struct that the terminal's table, `result.json` and the HTML report render.
//!
//! Fields are added over time and never renamed or taken away; `schema` counts breaking changes.

use std::path::Path;

use plimsoll_stats::choose::{Choice, Margin, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::efficiency::Efficiency;
use super::evidence::{Controls, Effects, GuardSummary, LensSummary};
use super::variants::{Arbitration, Candidate, FrontPoint, MetricSummary, RaceSummary, VariantSummary};
use super::warning::Warning;
use crate::lora::Variant;
use crate::lora::adapter::{Adapter, EmbeddingLora};

/// The whole result of `search`. Written as `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// Version of this layout.
    #[schemars(range(min = 1, max = 2))]
    pub schema: u32,
    /// Name and version of the program, such as `plimsoll 0.1.0`.
    pub tool: String,
    /// The command that repeats the search.
    pub command: String,
    /// Seed of the split, of the bootstrap and of the randomisation test.
    pub seed: u64,
    /// The base model.
    pub model: ModelFacts,
    /// The adapter.
    pub adapter: AdapterFacts,
    /// The samples.
    pub data: DataFacts,
    /// Every variant that was scored, in order of `layers_kept`.
    pub variants: Vec<VariantSummary>,
    /// What racing left out; none where every boundary was scored on every sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub race: Option<RaceSummary>,
    /// Ground-truth probability after each layer, on the selection samples.
    pub lens: LensSummary,
    /// The answer.
    pub choice: Choice,
    /// What was judged: the gates that the rule picked, whatever the verdict on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Candidate>,
    /// How the candidate's family was picked, where several competed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arbitration: Option<Arbitration>,
    /// What else could explain what the candidate gains; none where there was no cut to explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controls: Option<Controls>,
    /// What each layer and module contributes, and what predicts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<Effects>,
    /// Samples of another kind, on which the cut must not be worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardSummary>,
    /// What is best at its price: NLL, the guard's NLL and bytes of everything that was scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<FrontPoint>,
    /// The metric that was to choose, where that is not the NLL: where it decided, gains are in its points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<MetricSummary>,
    /// What a cut saves on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<Efficiency>,
    /// What the answer was decided by.
    pub rules: Rules,
    /// What the reader should know before trusting the answer: few samples, skipped lines and the like.
    pub warnings: Vec<Warning>,
    /// What the search cost.
    pub cost: Cost,
}

/// The base model of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ModelFacts {
    /// As the user gave it.
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
    /// Number of weights, a tied head counted once.
    pub parameters: u64,
    /// How the weights are stored in the file, such as `BF16`, or `Q4_K_M (Q4_K 71 %, Q6_K 29 %)` with each block type's
    /// share of the bytes.
    pub stored_as: String,
}

/// The adapter of a search.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AdapterFacts {
    /// As the user gave it.
    pub path: String,
    /// SHA-256 of the adapter's config and weights taken together.
    pub sha256: String,
    /// Ranks that occur, ascending.
    pub ranks: Vec<usize>,
    /// Names of the modules that have LoRA, such as `q_proj`.
    pub modules: Vec<String>,
    /// Number of layers that have LoRA.
    pub layers: usize,
    /// Bytes of all its tensors.
    pub bytes: u64,
    /// Bytes of the tensors that the answer keeps.
    pub bytes_kept: u64,
    /// What became of LoRA on `embed_tokens` and `lm_head`, where there is such LoRA.
    #[serde(default, alias = "ends", skip_serializing_if = "Option::is_none")]
    pub embedding_lora: Option<EmbeddingLora>,
}

impl AdapterFacts {
    /// Of an adapter of which a variant is kept, with the path that the user gave.
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
    /// As the user gave it.
    pub path: String,
    /// SHA-256 of the file that was read.
    pub sha256: String,
    /// How many samples the boundary was chosen on.
    pub selection: usize,
    /// How many samples were held out for the gain.
    pub holdout: usize,
    /// How many samples were left out because they are too long.
    pub skipped: usize,
    /// How many samples lost the end of their answer because they are too long.
    #[serde(default)]
    pub cut: usize,
    /// Longest sample that is scored, in tokens.
    #[serde(default)]
    pub max_length: usize,
    /// The tokens that answers end with, as a chat template wrote them, the most frequent first; empty without a template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endings: Vec<AnswerEnding>,
    /// Answer tokens that were scored, selection and held-out together.
    pub answer_tokens: usize,
    /// How prompts were rendered: `tokenizer`, `none`, or the path of a template.
    pub template: String,
}

/// How answers end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerEnding {
    /// The token that ends generation, as text; null where an answer ends with a token of its text.
    pub token: Option<String>,
    /// How many samples end so.
    pub samples: usize,
}

/// What the answer was decided by: the options of [`choose`](plimsoll_stats::choose::choose), but for the seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// A p-value below this shows a difference.
    pub alpha: f64,
    /// Share of the adapter's gain over the base that a cut must surely keep to count as not worse. Where `margin_nats` is
    /// given, the share that it stands for is not a fixed one, and this is 0.
    pub margin: f64,
    /// What a cut must surely lose less than to count as not worse, in nats per answer token, where that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin_nats: Option<f64>,
    /// An adapter that surely gains less than this over the base model gains nothing that matters.
    #[serde(default)]
    pub negligible: f64,
    /// Bootstrap resamples behind the shares of [`Choice::bootstrap`].
    pub choice_resamples: usize,
    /// Bootstrap resamples behind each interval, and sign patterns behind each p-value.
    pub resamples: usize,
}

impl From<&Options> for Rules {
    fn from(options: &Options) -> Self {
        let (margin, margin_nats) = match options.margin {
            Margin::Share(share) => (share, None),
            Margin::Nats(nats) => (0.0, Some(nats)),
        };
        Self {
            alpha: options.alpha,
            margin,
            margin_nats,
            negligible: options.negligible,
            choice_resamples: options.choice_resamples.get(),
            resamples: options.resamples.get(),
        }
    }
}

/// What the search cost.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// Layers computed for a sample, mean over the samples.
    pub layer_passes: usize,
    /// Layers that one run per variant would have computed.
    pub layer_passes_naive: usize,
    /// Wall-clock seconds of scoring.
    pub seconds: f64,
    /// Samples whose scores an interrupted run had left: their share is not in `seconds`.
    pub resumed: usize,
    /// Worker threads.
    pub threads: usize,
    /// What weights and their factors were held as: `f32` or `bf16`.
    #[serde(default)]
    pub dtype: String,
    /// Instruction set that was used.
    #[serde(default)]
    pub instructions: String,
}
