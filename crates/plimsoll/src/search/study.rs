//! A search without files: samples and their split, the adapter's table, and checked settings.

use std::collections::HashSet;

use plimsoll_stats as stats;
use plimsoll_stats::choose::race::{self, Fate};
use plimsoll_stats::choose::{self, Margin, Part, Rule};

use super::metric::Chooser;
use super::settings::{ControlScoring, HOLDOUT, SearchSettings, Strategy, StrengthSearch, Validation};
use crate::data::{self, Sample, Split};
use crate::error::{Error, Result};
use crate::lora::{Facts, Family, LoraTable, Member, Position, Variant};
use crate::result::Warning;

/// Minimum number of samples for folds, and for families to compete.
const FEWEST: usize = 4;

/// Number of folds in which families compete.
pub(super) const COMPETITION_FOLDS: usize = 10;

/// A search without files: samples and their split, the adapter's table, and checked settings.
#[derive(Debug)]
pub struct Study {
    /// The settings.
    pub(super) settings: SearchSettings,
    /// Which modules of the adapter have LoRA, with norms and bytes.
    pub(super) table: LoraTable,
    /// Members of the family `given`.
    pub(super) given: Vec<Member>,
    /// All samples, in the order of their lines.
    pub(super) samples: Vec<Sample>,
    pub(super) split: Split,
    /// Number of folds if all samples judge; `None` if a part is held out.
    pub(super) folds: Option<usize>,
    /// Samples on which the candidate must not get worse.
    pub(super) guard: Option<(Vec<Sample>, Split)>,
    /// The metric, if a metric chooses.
    pub(super) metric: Option<Chooser>,
    /// Warnings that depend on the number of samples only.
    pub(super) forewarnings: Vec<Warning>,
    /// The two-sided level of the tests.
    alpha: f64,
}

/// Minimum number of samples of a sequential search that looks at the first half of them.
const FEWEST_FOR_LOOKS: usize = 64;

/// The samples of a search, by purpose.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    pub(super) selection: Vec<&'a Sample>,
    pub(super) holdout: Vec<&'a Sample>,
    /// The guard's samples that exclude variants, and those that judge.
    pub(super) guard: [Vec<&'a Sample>; 2],
    /// The selection samples in random order. The order of the lines may have a meaning; a race, and measurements on
    /// some of the samples, must not depend on it.
    pub(super) raced: Vec<&'a Sample>,
    /// The samples for effects.
    pub(super) effects: Vec<&'a Sample>,
}

impl Study {
    /// Checks the settings and the number of samples, and splits the samples.
    ///
    /// # Errors
    /// Settings that exclude each other, or too few samples for them.
    pub fn new(
        settings: SearchSettings,
        table: LoraTable,
        samples: Vec<Sample>,
        guard: Option<Vec<Sample>>,
    ) -> Result<Self> {
        Self::with_metric(settings, table, samples, guard, None)
    }

    /// A study in which a metric of generated answers chooses.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(super) fn with_metric(
        settings: SearchSettings,
        table: LoraTable,
        samples: Vec<Sample>,
        guard: Option<Vec<Sample>>,
        metric: Option<Chooser>,
    ) -> Result<Self> {
        let layers = table.layers();
        let places = table.places();
        let given = |spec: &String| {
            let variant = Variant::parse_for(spec, layers, &places)?;
            Ok(Member { family: Family::Given, position: Position::None, label: variant.name(), variant })
        };
        check_budget(settings.budget, &table)?;
        let given = settings.gates.iter().map(given).collect::<Result<Vec<Member>>>()?;
        let strategy = match settings.strategy {
            Strategy::Auto => Strategy::Exact,
            strategy => strategy,
        };
        let settings = SearchSettings { strategy, ..settings };
        let rules = Rules { settings: &settings, has_guard: guard.is_some(), has_metric: metric.is_some() };
        let (mut split, mut folds) = rules.validation(samples.len())?;
        let mut forewarnings = Vec::new();
        let mut strategy = settings.strategy;
        if let Strategy::Racing { .. } = strategy
            && split.selection.len() < race::FEWEST
        {
            forewarnings.push(Warning::NotRaced { selection: split.selection.len(), needed: race::FEWEST });
            strategy = Strategy::Exact;
            let exact = SearchSettings { strategy, ..settings.clone() };
            (split, folds) = Rules { settings: &exact, ..rules }.validation(samples.len())?;
        }
        forewarnings.extend(rules.cannot_show(&split, folds));
        let halved = |samples: Vec<Sample>| -> Result<(Vec<Sample>, Split)> {
            let split = data::split(samples.len(), 0.5, settings.seed)?;
            Ok((samples, split))
        };
        let guard = guard.map(halved).transpose()?;
        let settings = SearchSettings { strategy, ..settings };
        let alpha = choose::ChooseOptions::default().alpha;
        let study = Self { settings, table, given, samples, split, folds, guard, metric, forewarnings, alpha };
        let alpha = study.levels_of_looks().map_or(alpha, |[_, last]| last);
        Ok(Self { alpha, ..study })
    }

    /// The two-sided levels of the tests after the first half of the samples and after all, if the search may stop
    /// after the first half.
    fn levels_of_looks(&self) -> Option<[f64; 2]> {
        let is_sequential = self.settings.strategy == Strategy::Sequential && self.metric.is_none();
        let samples = self.samples.len();
        (is_sequential && samples >= FEWEST_FOR_LOOKS).then(|| {
            let share = (samples / 2) as f64 / samples as f64;
            choose::two_looks(choose::ChooseOptions::default().alpha / 2.0, share).map(|level| 2.0 * level)
        })
    }

    /// The search on the first half of the samples, in random order, if it may end the search.
    pub(super) fn first_look(&self) -> Option<Self> {
        let [first, _] = self.levels_of_looks()?;
        let samples = self.samples.len();
        let mut half = data::race_order(samples, self.settings.seed);
        half.truncate(samples / 2);
        half.sort_unstable();
        Some(Self {
            settings: self.settings.clone(),
            table: self.table.clone(),
            given: Vec::new(),
            samples: half.iter().map(|&index| self.samples[index].clone()).collect(),
            split: Split { selection: (0..half.len()).collect(), holdout: Vec::new() },
            folds: None,
            guard: None,
            metric: None,
            forewarnings: self.forewarnings.clone(),
            alpha: first,
        })
    }

    /// The samples that a first look leaves, for planning.
    pub(super) fn after_first_look(&self, look: &Self) -> Parts<'_> {
        let seen: HashSet<usize> = look.samples.iter().map(|sample| sample.line).collect();
        let mut parts = self.parts();
        parts.selection.retain(|sample| !seen.contains(&sample.line));
        parts
    }

    /// Warnings that depend on the number of samples only, so that they are known before scoring.
    pub fn forewarnings(&self) -> &[Warning] {
        &self.forewarnings
    }

    /// The number of selection samples, and of held-out samples.
    pub fn split(&self) -> (usize, usize) {
        (self.split.selection.len(), self.split.holdout.len())
    }

    pub(super) fn layers(&self) -> usize {
        self.table.layers()
    }

    /// The base model and the full adapter.
    pub(super) fn base_and_full(&self) -> [Variant; 2] {
        [0.0, 1.0].map(|strength| Variant::uniform(self.layers(), strength))
    }

    pub(super) fn part(&self, part: Part) -> impl Iterator<Item = &Sample> {
        let indices = match part {
            Part::Selection => &self.split.selection,
            Part::Holdout => &self.split.holdout,
        };
        indices.iter().map(|&index| &self.samples[index])
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let selection: Vec<&Sample> = self.part(Part::Selection).collect();
        let order = data::race_order(selection.len(), self.settings.seed);
        let raced: Vec<&Sample> = order.iter().map(|&index| selection[index]).collect();
        let effects = raced.iter().copied().take(self.settings.effects.samples.get()).collect();
        let guard = match &self.guard {
            Some((samples, split)) => [&split.selection, &split.holdout]
                .map(|part| part.iter().map(|&index| &samples[index]).collect::<Vec<&Sample>>()),
            None => [Vec::new(), Vec::new()],
        };
        Parts { selection, holdout: self.part(Part::Holdout).collect(), guard, raced, effects }
    }

    /// The families of the search, from the simplest.
    pub(super) fn families(&self) -> Vec<Family> {
        let mut families = self.settings.families.clone();
        families.push(Family::BottomK);
        if !self.given.is_empty() {
            families.push(Family::Given);
        }
        families.sort_by_key(|family| family.simplicity());
        families.dedup();
        families
    }

    /// Members of all families that do not depend on scores.
    pub(super) fn members(&self, facts: &Facts<'_>) -> Vec<Member> {
        let listed = self.families().into_iter().flat_map(|family| family.members(facts));
        listed.chain(self.given.iter().cloned()).collect()
    }

    pub(super) fn facts<'a>(&'a self, magnitude: &'a [f64], output: &'a [f64]) -> Facts<'a> {
        Facts { adapted: &self.table.adapted, magnitude, output, seed: self.settings.seed }
    }

    /// Whether controls are scored. A sequential search makes no claim about depth. With a metric they are not: its
    /// gains cannot be compared with a control's NLL.
    pub(super) fn wants_controls(&self) -> bool {
        let is_sequential = self.settings.strategy == Strategy::Sequential;
        self.settings.controls == ControlScoring::Scored && self.metric.is_none() && !is_sequential
    }

    /// Whether other LoRA strengths of the whole adapter are tried, on an engine that has them or not.
    pub(super) fn tunes_strength(&self, has_strengths: bool) -> bool {
        let is_sufficient = self.metric.is_none() && self.settings.rule() == Rule::Sufficient;
        has_strengths && is_sufficient && self.settings.strength == StrengthSearch::Tuned
    }

    /// The number of claims of *better* that share the error rate: the pick among the cuts, and the strength. A
    /// sequential search makes no such claim about cuts.
    pub(super) fn claims(&self, has_strengths: bool) -> usize {
        let of_cuts = usize::from(self.settings.strategy != Strategy::Sequential);
        (of_cuts + usize::from(self.tunes_strength(has_strengths))).max(1)
    }

    /// The fold of each selection sample in the competition of families.
    pub(super) fn competition_folds(&self) -> Vec<usize> {
        let folds = self.folds.unwrap_or(COMPETITION_FOLDS);
        stats::folds(self.split.selection.len(), folds, self.settings.seed)
    }

    /// Whether a variant may be picked: it is within the budget, and the guard's samples do not exclude it.
    pub(super) fn is_allowed(&self, excluded: &HashSet<String>, variant: &Variant) -> bool {
        let most = |share: f64| share * self.table.total_bytes() as f64;
        let is_within = self.settings.budget.is_none_or(|share| self.table.bytes_kept(variant) as f64 <= most(share));
        is_within && !excluded.contains(&variant.spec())
    }

    /// The boundaries that can be picked: allowed, and not dropped in a race.
    pub(super) fn allowed_boundaries(&self, fates: Option<&[Fate]>, excluded: &HashSet<String>) -> Vec<usize> {
        let layers = self.layers();
        let is_raced = |k: usize| fates.is_none_or(|fates| fates[k] == Fate::Raced);
        (0..=layers).filter(|&k| is_raced(k) && self.is_allowed(excluded, &Variant::bottom_k(layers, k))).collect()
    }

    /// Options of the statistics.
    pub(super) fn choose_options(&self) -> choose::ChooseOptions {
        choose::ChooseOptions {
            seed: self.settings.seed,
            alpha: self.alpha,
            rule: self.settings.rule(),
            // Points of a metric are not nats.
            margin: match self.settings.margin {
                Margin::Nats(_) if self.metric.is_some() => choose::ChooseOptions::default().margin,
                margin => margin,
            },
            ..choose::ChooseOptions::default()
        }
    }

    /// Options of the statistics of the metric.
    pub(super) fn metric_options(&self) -> choose::ChooseOptions {
        choose::ChooseOptions { margin: self.settings.margin, ..self.choose_options() }
    }
}

/// The strategy of a search that scores all boundaries with this number of multiply-adds.
pub(super) fn affordable(
    settings: &SearchSettings,
    samples: usize,
    has_guard: bool,
    has_metric: bool,
    multiply_adds: f64,
) -> Strategy {
    /// Some minutes on a desktop computer.
    const MOST: f64 = 1e14;
    if settings.strategy != Strategy::Auto {
        return settings.strategy;
    }
    let sequential = SearchSettings { strategy: Strategy::Sequential, ..settings.clone() };
    let rules = Rules { settings: &sequential, has_guard, has_metric };
    let is_sequential = multiply_adds > MOST && rules.validation(samples).is_ok();
    if is_sequential { Strategy::Sequential } else { Strategy::Exact }
}

/// Refuses a budget that excludes every variant.
fn check_budget(budget: Option<f64>, table: &LoraTable) -> Result<()> {
    let Some(share) = budget else { return Ok(()) };
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::Usage(format!("--budget {share}: expected a share between 0 and 1")));
    }
    let least = table.bytes_kept(&Variant::uniform(table.layers(), 0.0)) as f64 / table.total_bytes() as f64;
    if least > share {
        return Err(Error::Usage(format!(
            "--budget {share}: without LoRA in any layer, {least:.3} of the adapter's bytes remain; give a larger share"
        )));
    }
    Ok(())
}

/// The rules that check settings, and decide which samples judge.
#[derive(Clone, Copy)]
struct Rules<'a> {
    settings: &'a SearchSettings,
    has_guard: bool,
    has_metric: bool,
}

impl Rules<'_> {
    /// The split of the samples, and the number of folds if all samples judge.
    fn validation(&self, samples: usize) -> Result<(Split, Option<usize>)> {
        let Self { settings, has_guard, has_metric } = *self;
        let is_rich = settings.families.iter().any(|family| *family != Family::BottomK) || !settings.gates.is_empty();
        self.check(is_rich)?;
        if settings.strategy == Strategy::Sequential {
            if settings.validation != Validation::Auto {
                return Err(Error::Usage(
                    "--search sequential tests on all samples: it cannot be used with --holdout or --folds".into(),
                ));
            }
            return match samples {
                0..FEWEST => Err(Error::Usage(format!("samples: {samples}, expected at least {FEWEST} samples"))),
                _ => Ok((Split { selection: (0..samples).collect(), holdout: Vec::new() }, None)),
            };
        }
        let is_by_metric = has_metric && settings.rule() != Rule::Sufficient;
        if has_metric && !is_by_metric && matches!(settings.validation, Validation::HeldOut(_)) {
            return Err(Error::Usage(
                "--metric with --rule sufficient tests on all samples: use --rule one-se with --holdout".into(),
            ));
        }
        // Folds repeat the pick with the NLL of boundaries on all samples, and with nothing else.
        let needs_holdout = [
            (matches!(settings.strategy, Strategy::Racing { .. }), "--search racing"),
            (is_by_metric, "--metric with --rule one-se"),
            (settings.families.iter().any(|family| *family != Family::BottomK), "--families other than bottom-k"),
            (!settings.gates.is_empty(), "--gates"),
            (has_guard, "--guard"),
            (settings.budget.is_some(), "--budget"),
            (settings.rule() == Rule::Curve, "--rule curve"),
        ];
        let needs_holdout = needs_holdout.iter().find(|(needs, _)| *needs).map(|(_, what)| *what);
        let folds = match (settings.validation, needs_holdout) {
            (Validation::HeldOut(_), _) | (Validation::Auto, Some(_)) => None,
            // A metric needs the answers of all samples.
            (Validation::Auto, None) if has_metric => Some(COMPETITION_FOLDS.min(samples)),
            (Validation::Auto, None) => choose::folds_for(samples),
            (Validation::Folds(_), Some(what)) => {
                return Err(Error::Usage(format!("--folds cannot be used with {what}: use --holdout")));
            }
            (Validation::Folds(folds), None) => Some(folds),
        };
        match folds {
            None => {
                let split = data::split(samples, self.holdout(), settings.seed)?;
                match split.selection.len() {
                    selection if is_rich && selection < FEWEST => Err(Error::Usage(format!(
                        "{selection} selection samples: expected at least {FEWEST}, on which families compete"
                    ))),
                    _ => Ok((split, None)),
                }
            }
            Some(_) if samples < FEWEST => {
                Err(Error::Usage(format!("samples: {samples}, expected at least {FEWEST} samples")))
            }
            Some(folds) if folds < 2 || folds > samples => {
                Err(Error::Usage(format!("--folds {folds}: expected 2 to {samples}, one for each sample")))
            }
            Some(folds) => Ok((Split { selection: (0..samples).collect(), holdout: Vec::new() }, Some(folds))),
        }
    }

    /// Refuses settings that exclude each other.
    fn check(&self, is_rich: bool) -> Result<()> {
        let Self { settings, has_guard, has_metric } = *self;
        let is_bounded = has_guard || settings.budget.is_some();
        if let Strategy::Racing { error_rate } = settings.strategy
            && !(error_rate > 0.0 && error_rate < 1.0)
        {
            return Err(Error::Usage(format!("--error-rate {error_rate}: expected a number between 0 and 1")));
        }
        if settings.families.contains(&Family::BoundaryStrength) {
            return Err(Error::Usage(
                "--families boundary-strength: the strength is tuned in every search by sufficient layers; leave it out"
                    .into(),
            ));
        }
        if settings.strategy == Strategy::Sequential {
            let refused = [
                (settings.rule() != Rule::Sufficient, "a --rule other than sufficient"),
                (is_rich, "--families or --gates"),
                (is_bounded, "--guard or --budget"),
                (settings.effects.places.is_some(), "--effects"),
            ];
            return match refused.iter().find(|(is_set, _)| *is_set) {
                Some((_, what)) => Err(Error::Usage(format!("--search sequential cannot be used with {what}"))),
                None => Ok(()),
            };
        }
        let (rule, is_racing) = (settings.rule(), matches!(settings.strategy, Strategy::Racing { .. }));
        if has_metric && matches!(rule, Rule::Best | Rule::Curve) {
            return Err(Error::Usage(format!(
                "--metric chooses by --rule sufficient or one-se: it cannot be used with --rule {}",
                rule.name()
            )));
        }
        if matches!(rule, Rule::Best | Rule::Curve) && (is_rich || is_racing) {
            return Err(Error::Usage(format!(
                "--rule {} picks among all boundaries: it cannot be used with --families, --gates or --search racing",
                rule.name()
            )));
        }
        if rule == Rule::Sufficient && is_racing {
            return Err(Error::Usage(
                "--rule sufficient needs all samples in each test: it cannot be used with --search racing".into(),
            ));
        }
        if has_metric && (is_rich || is_bounded) {
            return Err(Error::Usage(
                "--metric chooses among boundaries: it cannot be used with --families, --gates, --guard or --budget"
                    .into(),
            ));
        }
        // The race might drop all boundaries that are allowed.
        if is_racing && is_bounded {
            return Err(Error::Usage("--search racing cannot be used with --guard or --budget".into()));
        }
        // Greedy families stop where the NLL rises, long before most of the adapter is gone.
        let adaptive = settings.families.iter().find(|family| family.is_adaptive());
        if let (Some(_), Some(family)) = (settings.budget, adaptive) {
            return Err(Error::Usage(format!(
                "--budget cannot be used with --families {family}: use a family that is not greedy, such as magnitude-k"
            )));
        }
        Ok(())
    }

    /// A warning if too few samples judge for the tests to show anything, whatever the scores are.
    fn cannot_show(&self, split: &Split, folds: Option<usize>) -> Option<Warning> {
        let needed = choose::fewest_to_show(choose::ChooseOptions::default().alpha);
        let (judging, samples) = match folds {
            Some(_) => (split.selection.len(), needed),
            None if split.holdout.is_empty() => (split.selection.len(), needed),
            None => (split.holdout.len(), data::fewest(needed, self.holdout())),
        };
        (judging < needed).then_some(Warning::CannotShow { judging, needed, samples })
    }

    /// The share of the samples that is held out, if any is.
    fn holdout(&self) -> f64 {
        if let Validation::HeldOut(share) = self.settings.validation { share } else { HOLDOUT }
    }
}
