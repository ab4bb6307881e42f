//! What a search is about: the samples by what they are for, the adapter's table, and the settings. It knows no files.

use std::collections::HashSet;

use plimsoll_stats as stats;
use plimsoll_stats::choose::race::{self, Fate};
use plimsoll_stats::choose::{self, Part};

use super::metric::Chooser;
use super::settings::{ControlScoring, HOLDOUT, SearchSettings, Strategy, Validation};
use crate::data::{self, Sample, Split};
use crate::error::{Error, Result};
use crate::lora::{Facts, Family, LoraTable, Member, Position, Variant};
use crate::result::Warning;

/// Fewest samples that are judged in folds.
const FEWEST: usize = 4;

/// Folds in which families compete.
const COMPETITION_FOLDS: usize = 10;

/// What a search is about.
#[derive(Debug)]
pub struct Study {
    /// How it is searched.
    pub(super) settings: SearchSettings,
    /// The adapter.
    pub(super) table: LoraTable,
    /// Members of the family `given`.
    pub(super) given: Vec<Member>,
    /// All samples, in the order of their lines.
    pub(super) samples: Vec<Sample>,
    pub(super) split: Split,
    /// Folds in which all samples judge, in place of a part that is held out.
    pub(super) folds: Option<usize>,
    /// Samples on which the cut must not be worse.
    pub(super) guard: Option<(Vec<Sample>, Split)>,
    /// What answers are measured by, where that chooses.
    pub(super) metric: Option<Chooser>,
    /// What follows from the number of samples alone.
    pub(super) forewarnings: Vec<Warning>,
}

/// The samples of a search, by what they are for.
#[derive(Clone, Debug)]
pub(super) struct Parts<'a> {
    pub(super) selection: Vec<&'a Sample>,
    pub(super) holdout: Vec<&'a Sample>,
    /// The guard's samples that choose, and those that judge.
    pub(super) guard: [Vec<&'a Sample>; 2],
    /// The selection samples in the order of a race. The order of the lines may mean something; a race, and what is measured
    /// on some samples only, must not depend on it.
    pub(super) raced: Vec<&'a Sample>,
    /// Those that effects are measured on.
    pub(super) effects: Vec<&'a Sample>,
}

impl Study {
    /// Checks the settings against the samples, and splits these.
    ///
    /// # Errors
    /// Settings that do not go together, or too few samples for them.
    pub fn new(
        settings: SearchSettings,
        table: LoraTable,
        samples: Vec<Sample>,
        guard: Option<Vec<Sample>>,
    ) -> Result<Self> {
        Self::with_metric(settings, table, samples, guard, None)
    }

    /// The same with a metric of generated answers that chooses.
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
        let given = settings.gates.iter().map(given).collect::<Result<Vec<Member>>>()?;
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
        Ok(Self { settings, table, given, samples, split, folds, guard, metric, forewarnings })
    }

    /// Warnings that follow from the number of samples alone, and so are known before anything is scored.
    pub fn forewarnings(&self) -> &[Warning] {
        &self.forewarnings
    }

    /// How many samples choose, and how many are held out.
    pub fn split(&self) -> (usize, usize) {
        (self.split.selection.len(), self.split.holdout.len())
    }

    pub(super) fn layers(&self) -> usize {
        self.table.layers()
    }

    /// The base model and the full adapter.
    pub(super) fn ends(&self) -> [Variant; 2] {
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

    /// The families whose members are scored, from the simplest.
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

    /// Whether controls are scored: gains of a metric cannot be compared with a control's NLL.
    pub(super) fn wants_controls(&self) -> bool {
        self.settings.controls == ControlScoring::Scored && self.metric.is_none()
    }

    /// The fold of each selection sample in the competition of families.
    pub(super) fn competition_folds(&self) -> Vec<usize> {
        let folds = self.folds.unwrap_or(COMPETITION_FOLDS);
        stats::folds(self.split.selection.len(), folds, self.settings.seed)
    }

    /// Whether a variant may be picked: within the budget, and not shown to be worse on the guard's samples.
    pub(super) fn is_allowed(&self, excluded: &HashSet<String>, variant: &Variant) -> bool {
        let most = |share: f64| share * self.table.total_bytes() as f64;
        let is_within = self.settings.budget.is_none_or(|share| self.table.bytes_kept(variant) as f64 <= most(share));
        is_within && !excluded.contains(&variant.spec())
    }

    /// The boundaries that can be picked: raced to the end, where there was a race, and allowed.
    pub(super) fn allowed_boundaries(&self, fates: Option<&[Fate]>, excluded: &HashSet<String>) -> Vec<usize> {
        let layers = self.layers();
        let is_raced = |k: usize| fates.is_none_or(|fates| fates[k] == Fate::Raced);
        (0..=layers).filter(|&k| is_raced(k) && self.is_allowed(excluded, &Variant::bottom_k(layers, k))).collect()
    }

    /// Options of the statistics.
    pub(super) fn choose_options(&self) -> choose::Options {
        choose::Options { seed: self.settings.seed, margin: self.settings.margin, ..choose::Options::default() }
    }
}

/// Which settings go together, and which samples judge.
#[derive(Clone, Copy)]
struct Rules<'a> {
    settings: &'a SearchSettings,
    has_guard: bool,
    has_metric: bool,
}

impl Rules<'_> {
    /// A part that is held out, or folds of all samples.
    fn validation(&self, samples: usize) -> Result<(Split, Option<usize>)> {
        let Self { settings, has_guard, has_metric } = *self;
        let is_rich = settings.families.iter().any(|family| *family != Family::BottomK) || !settings.gates.is_empty();
        self.check(is_rich)?;
        // What is picked by more than the NLL of boundaries on all samples has no fold to be picked on again.
        let needs_holdout = [
            (settings.strategy != Strategy::Exact, "--search racing"),
            (has_metric, "--metric"),
            (settings.families.iter().any(|family| *family != Family::BottomK), "--families other than bottom-k"),
            (!settings.gates.is_empty(), "--gates"),
            (has_guard, "--guard"),
            (settings.budget.is_some(), "--budget"),
        ];
        let needs_holdout = needs_holdout.iter().find(|(needs, _)| *needs).map(|(_, what)| *what);
        let folds = match (settings.validation, needs_holdout) {
            (Validation::HeldOut(_), _) | (Validation::Auto, Some(_)) => None,
            (Validation::Auto, None) => match choose::validation_for(samples) {
                choose::Validation::Nested { folds } => Some(folds),
                choose::Validation::Holdout => None,
            },
            (Validation::Folds(_), Some(what)) => {
                return Err(Error::Usage(format!("--folds does not go with {what}: hold a part out with --holdout")));
            }
            (Validation::Folds(folds), None) => Some(folds),
        };
        match folds {
            None => {
                let split = data::split(samples, self.holdout(), settings.seed)?;
                match split.selection.len() {
                    selection if is_rich && selection < FEWEST => Err(Error::Usage(format!(
                        "{selection} samples to choose on: families compete on {FEWEST} or more"
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

    /// Whether the settings go together.
    fn check(&self, is_rich: bool) -> Result<()> {
        let Self { settings, has_guard, has_metric } = *self;
        let is_bounded = has_guard || settings.budget.is_some();
        if has_metric && (is_rich || is_bounded) {
            return Err(Error::Usage(
                "--metric chooses among boundaries: it does not go with --families, --gates, --guard or --budget"
                    .into(),
            ));
        }
        // What the race drops may be all that is allowed.
        if settings.strategy != Strategy::Exact && is_bounded {
            return Err(Error::Usage("--search racing does not go with --guard or --budget".into()));
        }
        // Greedy families stop where the NLL rises, long before most of the adapter is gone.
        let adaptive = settings.families.iter().find(|family| family.is_adaptive());
        if let (Some(_), Some(family)) = (settings.budget, adaptive) {
            return Err(Error::Usage(format!(
                "--budget does not go with --families {family}: use families that are listed beforehand, such as \
                 magnitude-k"
            )));
        }
        Ok(())
    }

    /// Whether so few samples judge that the tests can show nothing, whatever the scores are.
    fn cannot_show(&self, split: &Split, folds: Option<usize>) -> Option<Warning> {
        let needed = choose::fewest_to_show(choose::Options::default().alpha);
        let (judging, samples) = match folds {
            Some(_) => (split.selection.len(), needed),
            None => (split.holdout.len(), data::fewest(needed, self.holdout())),
        };
        (judging < needed).then_some(Warning::CannotShow { judging, needed, samples })
    }

    /// The share of the samples that is held out, where any is.
    fn holdout(&self) -> f64 {
        if let Validation::HeldOut(share) = self.settings.validation { share } else { HOLDOUT }
    }
}
