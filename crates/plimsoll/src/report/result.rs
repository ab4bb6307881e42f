//! What a search found: the one struct that the terminal's table, `result.json` and the HTML report render.
//!
//! Fields are added over time and never renamed or taken away; `schema` counts breaking changes.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adapter::{Adapter, Ends};
use crate::choose::{Choice, Gain, Margin, Options, Part};
use crate::efficiency::Efficiency;
use crate::gates::{Family, Variant};
use crate::metrics::compare::Estimate;
use crate::model::Checkpoint;

/// The whole result of `search`. Written as `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SearchResult {
    /// Version of this layout.
    #[schemars(range(min = 1, max = 1))]
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

impl ModelFacts {
    /// Of a model that was opened, with the path that the user gave.
    pub fn of(checkpoint: &Checkpoint, path: &Path, sha256: &str) -> Self {
        let config = checkpoint.config();
        Self {
            path: path.display().to_string(),
            sha256: sha256.to_owned(),
            architecture: config.architecture.clone(),
            layers: config.layers,
            hidden_size: config.hidden,
            vocab_size: config.vocabulary,
            parameters: checkpoint.parameters(),
            stored_as: checkpoint.stored_as(),
        }
    }
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
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
            ends: adapter.ends_choice(),
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

/// One variant's scores.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VariantSummary {
    /// The family it belongs to. A variant that several families have stands here once for each.
    pub family: Family,
    /// What users call it: `18 layers`, `without layer 7`, `strength 0.75`.
    #[serde(default)]
    pub label: String,
    /// Its place in the family: the number of layers, the layer, or the strength.
    #[serde(default)]
    pub at: f64,
    /// Its gates, as `trim --gates` takes them.
    #[serde(default)]
    pub gates: String,
    /// Layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that it keeps.
    #[serde(default)]
    pub bytes: u64,
    /// On the samples that chose; null where racing did not score it on all of them.
    pub selection: Option<ScoreSummary>,
    /// On the samples that were held out; null where racing did not score it on them.
    pub holdout: Option<ScoreSummary>,
    /// On the guard's samples that keep variants from being picked; null where there is no guard or it was not scored on them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<ScoreSummary>,
}

/// Gates that were picked and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The family that they are of.
    pub family: Family,
    /// What users call them.
    pub label: String,
    /// The gates, as `trim --gates` takes them.
    pub gates: String,
    /// Layers that keep any LoRA.
    pub layers_kept: usize,
    /// Bytes of the tensors that they keep.
    pub bytes: u64,
}

/// How families of candidates competed, on the selection samples.
///
/// Each family's rule picks on the other folds and is scored on the one left out. The simplest family whose mean deficit to
/// the best is within one paired standard error of it is taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Arbitration {
    /// Folds of the cross-validation.
    pub folds: usize,
    /// The families, from the simplest.
    pub families: Vec<FamilySummary>,
}

/// One family in the competition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamilySummary {
    /// The family.
    pub family: Family,
    /// What its rule picks on all selection samples.
    pub pick: Candidate,
    /// Members that it picked from.
    pub members: usize,
    /// Mean NLL of its picks on samples that did not pick, in nats per answer token.
    pub mean_nll: f64,
    /// How much that is above the best family's.
    pub deficit: f64,
    /// Paired standard error of the deficit.
    pub se: f64,
    /// Whether its pick is the candidate.
    pub is_chosen: bool,
}

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
    OneIn,
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

/// One variant among what is best at its price.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FrontPoint {
    /// Its family.
    pub family: Family,
    /// What users call it.
    pub label: String,
    /// Its gates, as `trim --gates` takes them.
    pub gates: String,
    /// Mean NLL on the selection samples.
    pub nll: f64,
    /// Mean NLL on the guard's samples, where there is a guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<f64>,
    /// Bytes of the tensors that it keeps.
    pub bytes: u64,
    /// Whether no other variant is better in one of these and as good in the others.
    pub is_on_front: bool,
}

/// Token by token, what one sample's answer got: a line of `tokens.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SampleTokens {
    /// The sample's line in its file, from 1.
    pub line: usize,
    /// The part that it belongs to.
    pub part: Part,
    /// The end of its prompt.
    pub prompt: String,
    /// Its tokens, from the end of the prompt on; empty where an earlier version wrote the file.
    #[serde(default)]
    pub sequence: Vec<Token>,
    /// The scored tokens as text, in order.
    pub tokens: Vec<String>,
    /// Negative log-likelihood of each with the base model, in nats.
    pub base: Vec<f32>,
    /// The same with the full adapter.
    pub full: Vec<f32>,
    /// The same with the candidate, where that is neither of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidate: Vec<f32>,
}

/// A token of a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Whether it is scored, as a part of an answer.
    pub scored: bool,
}

/// A metric of generated answers, on the boundaries that the NLL left.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricSummary {
    /// Task and metric, such as `gsm8k flexible`.
    pub name: String,
    /// Which program's number this equals, and with which options.
    pub signature: String,
    /// The boundaries that answered, ascending.
    pub variants: Vec<MetricVariant>,
    /// Whether it chose. It does not where it cannot tell the full adapter from the base model on the held-out samples:
    /// then the answer is the NLL's.
    pub decided: bool,
    /// What the NLL alone would have chosen.
    pub choice_by_nll: Choice,
}

/// One boundary's answers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MetricVariant {
    /// Layers that keep their LoRA.
    pub layers_kept: usize,
    /// On the samples that chose; null where it did not take part.
    pub selection: Option<Estimate>,
    /// On the samples that were held out; null where it was not judged.
    pub holdout: Option<Estimate>,
}

/// What racing left out, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RaceSummary {
    /// The most probable that the best of the boundaries that were raced was dropped.
    pub error_rate: f64,
    /// Boundaries that were significantly worse than the leader of the time.
    pub dropped: Vec<DroppedBoundary>,
    /// Boundaries that were never scored on the selection samples: their neighbours on the first grid were dropped.
    pub skipped: Vec<usize>,
}

/// A boundary that left a race.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DroppedBoundary {
    /// Layers that keep their LoRA.
    pub layers_kept: usize,
    /// Selection samples that it had been scored on.
    pub samples: usize,
    /// The boundary that led on them.
    pub leader: usize,
    /// By so many nats per answer token, mean over these samples.
    pub deficit: f64,
    /// One-sided p-value of the paired t-test.
    pub p: f64,
}

/// Means over samples; the number of samples stands in [`DataFacts`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ScoreSummary {
    /// Mean over samples of the sample's nats per answer token.
    pub mean_nll: f64,
    /// Standard error of `mean_nll`.
    pub se: f64,
    /// Mean over samples of the sample's mean probability of the right token.
    pub mean_probability: f64,
    /// Mean over samples of the share of answer tokens that were the most probable ones.
    pub token_accuracy: f64,
}

impl VariantSummary {
    /// The selection scores; [`ScoreSummary::MISSING`] where there are none.
    pub fn selection(&self) -> ScoreSummary {
        self.selection.unwrap_or(ScoreSummary::MISSING)
    }

    /// The held-out scores; [`ScoreSummary::MISSING`] where there are none.
    pub fn holdout(&self) -> ScoreSummary {
        self.holdout.unwrap_or(ScoreSummary::MISSING)
    }
}

impl ScoreSummary {
    /// Stands for scores that were not measured: no number of it is one.
    pub const MISSING: Self =
        Self { mean_nll: f64::NAN, se: f64::NAN, mean_probability: f64::NAN, token_accuracy: f64::NAN };
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

/// What the answer was decided by: the options of [`choose`](crate::choose::choose), but for the seed.
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

/// Something the reader should know before trusting the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Warning {
    /// Too few samples for intervals to mean much.
    FewSamples {
        /// On which the boundary was chosen.
        selection: usize,
        /// On which the gain was measured.
        holdout: usize,
    },
    /// So few samples judge that the tests can show nothing, whatever the scores are.
    CannotShow {
        /// Samples that judge.
        judging: usize,
        /// Samples that have to judge, at least.
        needed: usize,
        /// How many samples that takes in all, judged in the same way.
        samples: usize,
    },
    /// A race was asked for, but drops nothing on so few samples: the search was exact.
    NotRaced {
        /// Samples that a race would have chosen on.
        selection: usize,
        /// Samples to choose on that a race needs, at least.
        needed: usize,
    },
    /// Samples that are too long, and were left out.
    Skipped {
        /// How many.
        samples: usize,
        /// The longest that is scored, in tokens.
        context: usize,
    },
    /// Samples that are too long, and whose answer was cut.
    Cut {
        /// How many.
        samples: usize,
        /// The longest that is scored, in tokens.
        max_length: usize,
    },
    /// Answers that end with no token that ends generation.
    OpenEnding {
        /// How many.
        samples: usize,
    },
    /// One token makes up much of what the adapter gains.
    TokenShare {
        /// The token, as text.
        token: String,
        /// Its id.
        id: u32,
        /// Its share of the gain.
        share: f64,
        /// How often it stands in the answers that this was measured on.
        count: usize,
        /// On how many samples it was measured.
        samples: usize,
    },
    /// The bootstrap does not agree on one boundary.
    Unstable {
        /// Share of resamples that chose the reported boundary.
        share: f64,
    },
    /// The cut was not compared with controls, because that was asked for.
    ControlsOmitted,
    /// The base model has another name than the one that the adapter was trained on.
    OtherBase {
        /// The base model that the adapter names.
        adapter: String,
        /// What the base model of this search is called.
        model: String,
    },
    /// The metric cannot tell the full adapter from the base model on the held-out samples, so the NLL chose.
    MetricUndecided,
    /// The held-out samples do not show that the adapter beats the base.
    AdapterUnproven {
        /// p-value of the adapter's own gain.
        p: f64,
    },
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
