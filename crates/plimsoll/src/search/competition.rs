//! Competition of families for the candidate.
//!
//! The rule of a family is the paired one-standard-error rule over its members, the most preferred one first. A family
//! with more members fits the samples that pick better. So families are compared by their picks on samples that did not
//! pick (cross-validation), and the simplest family within one paired standard error of the best wins. The held-out
//! samples have no part in this.
//!
//! Adaptive families ask for scores step by step. Each fold has its own path, on the samples of the other folds.

use plimsoll_stats::choose::greedy::{Greedy, GreedyOptions, GreedyStep, Preference};
use plimsoll_stats::choose::{Part, Scores, Standing, arbitrate, cross_validate};

use crate::error::{Error, Result};
use crate::lora::{Facts, Family, LoraTable, Member, Place, Places, Position, Variant};
use crate::result::{Arbitration, Candidate, FamilySummary};

/// Maximum number of rounds of a greedy family.
const ROUNDS: usize = 8;

/// Number of moves that a greedy family tries in each round after the first.
const BREADTH: usize = 8;

/// LoRA strengths that the family `strengths` tries in a layer.
const STRENGTHS: [f32; 3] = [0.0, 0.5, 1.5];

/// A competing family: its members with their NLL on the selection samples.
pub(super) struct Class {
    family: Family,
    members: Vec<Member>,
    scores: Scores,
    /// Number of variants that the family picked from.
    tried: usize,
    /// NLL of the family's picks on samples that did not pick.
    unseen: Vec<f64>,
}

/// The mean NLL of the selection samples under a variant; `None` if one of them was not scored.
pub(super) type Nll<'a> = &'a dyn Fn(&Variant) -> Option<Vec<f64>>;

impl Class {
    /// The family with its members that are scored; `None` if there are none.
    pub(super) fn new(family: Family, members: Vec<Member>, nll: Nll<'_>, folds: &[usize]) -> Result<Option<Self>> {
        let (mut scored, mut columns) = (Vec::new(), Vec::new());
        for member in members {
            if let Some(column) = nll(&member.variant) {
                scored.push(member);
                columns.push(column);
            }
        }
        if scored.is_empty() {
            return Ok(None);
        }
        let rows: Vec<Vec<f64>> =
            (0..columns[0].len()).map(|sample| columns.iter().map(|column| column[sample]).collect()).collect();
        let places: Vec<usize> = (0..scored.len()).collect();
        let scores = Scores::new(Part::Selection, &places, &rows);
        let scores = scores.map_err(|problem| Error::Internal(problem.to_string()))?;
        let unseen = cross_validate(&scores, folds);
        let tried = scored.len();
        Ok(Some(Self { family, members: scored, scores, tried, unseen }))
    }

    /// The member that the family's rule picks on all selection samples.
    pub(super) fn pick(&self) -> &Member {
        &self.members[self.scores.pick()]
    }
}

/// The members of a family that may be picked, the most preferred first: those that `is_allowed` accepts, and the full
/// adapter if it is accepted.
pub(super) fn allowed(
    family: Family,
    members: impl Iterator<Item = Member>,
    table: &LoraTable,
    layers: usize,
    is_allowed: &dyn Fn(&Variant) -> bool,
) -> Vec<Member> {
    let full = Variant::uniform(layers, 1.0);
    let mut members: Vec<Member> = members.collect();
    if !members.iter().any(|member| member.variant == full) {
        let position = Position::LayersKept(layers);
        members.push(Member { family, position, label: "full".to_owned(), variant: full.clone() });
    }
    members.retain(|member| is_allowed(&member.variant));
    match family {
        // These save no bytes: the adapter as trained comes first.
        Family::GlobalAlpha | Family::Ramp | Family::Strengths => {
            members.sort_by_key(|member| member.variant != full);
        }
        _ => members.sort_by_key(|member| table.bytes_kept(&member.variant)),
    }
    members
}

/// Runs the competition. Returns the index of the winner, and the summaries of all families.
pub(super) fn decide(classes: &[Class], folds: usize, table: &LoraTable) -> (usize, Arbitration) {
    let unseen: Vec<Vec<f64>> = classes.iter().map(|class| class.unseen.clone()).collect();
    let (winner, standings) = arbitrate(&unseen);
    let summary = |(index, (class, standing)): (usize, (&Class, Standing))| {
        let Standing { mean, deficit, se } = standing;
        FamilySummary {
            family: class.family,
            pick: candidate(class.pick(), table),
            members: class.tried,
            mean_nll: mean,
            deficit,
            se,
            is_chosen: index == winner,
        }
    };
    let families = classes.iter().zip(standings).enumerate().map(summary).collect();
    (winner, Arbitration { folds, families })
}

/// A member as a candidate of the result.
pub(super) fn candidate(member: &Member, table: &LoraTable) -> Candidate {
    Candidate {
        family: member.family,
        label: member.label.clone(),
        gates: member.variant.spec(),
        layers_kept: member.variant.layers_kept(),
        bytes: table.bytes_kept(&member.variant),
    }
}

/// A move of an adaptive family: it sets the LoRA strength of one place.
#[derive(Clone, Copy, Debug)]
struct Move {
    place: Place,
    gate: f32,
}

/// An adaptive family: a greedy selection of moves, applied to the full adapter.
pub(super) struct Adaptive {
    family: Family,
    layers: usize,
    moves: Vec<Move>,
    greedy: Greedy,
}

impl Adaptive {
    /// Starts with the full adapter.
    pub(super) fn new(family: Family, facts: &Facts<'_>, folds: &[usize]) -> Self {
        let places = if family == Family::GreedyModules { Places::Modules } else { Places::Layers };
        let gates: &[f32] = if family == Family::Strengths { &STRENGTHS } else { &[0.0] };
        let moves: Vec<Move> =
            facts.places(places).flat_map(|place| gates.iter().map(move |&gate| Move { place, gate })).collect();
        let preference = match family {
            Family::Strengths => Preference::FewestMoves,
            _ => Preference::MostMoves,
        };
        let place_of: Vec<usize> = (0..moves.len()).map(|index| index / gates.len()).collect();
        let greedy = Greedy::new(&place_of, folds, GreedyOptions { rounds: ROUNDS, breadth: BREADTH, preference });
        Self { family, layers: facts.layers(), moves, greedy }
    }

    /// Maximum number of variants that are scored.
    pub(super) fn most(&self) -> usize {
        self.greedy.most()
    }

    /// Maximum number of variants that are still scored.
    pub(super) fn most_left(&self) -> usize {
        self.greedy.most_left()
    }

    /// The variants to score next, with their sets of moves; `None` at the end.
    pub(super) fn step(&mut self) -> Option<(Vec<Vec<usize>>, Vec<Variant>)> {
        match self.greedy.step() {
            GreedyStep::Score(sets) => {
                let variants = sets.iter().map(|set| self.variant(set)).collect();
                Some((sets, variants))
            }
            GreedyStep::Done => None,
        }
    }

    /// Records the NLL of every selection sample under the sets of moves of a step.
    pub(super) fn record(&mut self, sets: &[Vec<usize>], rows: &[Vec<f64>]) {
        self.greedy.record(sets, rows);
    }

    /// The family for the competition, with the pick of its rule.
    pub(super) fn class(&self, nll: Nll<'_>) -> Result<Option<Class>> {
        let pick = self.member(self.greedy.picked());
        let class = Class::new(self.family, vec![pick], nll, &vec![0; self.samples()])?;
        Ok(class.map(|class| Class { unseen: self.greedy.cross_validated(), tried: self.greedy.scored(), ..class }))
    }

    /// The sets of moves on the path, as members of the family.
    pub(super) fn members(&self) -> Vec<Member> {
        self.greedy.path().iter().map(|stop| self.member(&stop.moves)).collect()
    }

    fn member(&self, moves: &[usize]) -> Member {
        let variant = self.variant(moves);
        Member { family: self.family, position: Position::Moves(moves.len()), label: variant.name(), variant }
    }

    fn samples(&self) -> usize {
        self.greedy.cross_validated().len()
    }

    fn variant(&self, moves: &[usize]) -> Variant {
        let full = Variant::uniform(self.layers, 1.0);
        moves.iter().fold(full, |variant, &index| {
            let Move { place, gate } = self.moves[index];
            place.set(variant, gate)
        })
    }
}
