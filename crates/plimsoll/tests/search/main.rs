//! The whole search on engines whose scores are a function: each verdict, rule and refusal from scores made for it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/fake.rs"]
mod fake;
mod progress;
mod strength;
mod sufficient;

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::ops::{ControlFlow, RangeInclusive};
use std::{fmt, fs};

use common::{adapter_folder, golden};
use fake::{
    BATCH, FakeProbe, FakeScorer, LAYERS, Nll, hardness, near, noise, sample, share, strength, table, with_norms, worth,
};
use plimsoll::choose::sufficient::Stop;
use plimsoll::choose::{Choice, JudgingSamples as Judged, Margin, Part, Reason, Rule, Verdict};
use plimsoll::data::{self, DataOptions, Dataset, Sample, TemplateChoice};
use plimsoll::engine::{Capabilities, CpuOptions, Engines, Probe};
use plimsoll::lora::{Facts, Family, LoraTable, Places, Projection, Variant};
use plimsoll::model::{Dtype, Precision};
use plimsoll::result::{Candidate, DataSource, Depth, EffectKind, FrontPoint, Warning};
use plimsoll::search::{
    ControlScoring, EffectSettings, Findings, OutputFolder, Progress, Search, SearchSettings, StrengthSearch, Study,
    Validation,
};
use plimsoll::{Adapter, Error, Existing, Model, Result, search, stats};
use proptest::prelude::*;

/// Lines of the guard's samples are numbered from here.
const GUARD: usize = 1_000;

const EXACT: search::Strategy = search::Strategy::Exact;
const SEQUENTIAL: search::Strategy = search::Strategy::Sequential;
const RACING: search::Strategy = search::Strategy::RACING;
const THIRD: Validation = Validation::HeldOut(0.33);

/// A search of an adapter on an engine whose scores are a function.
struct Case {
    table: LoraTable,
    samples: usize,
    guard: usize,
    settings: SearchSettings,
    capabilities: Capabilities,
    /// By layer, where there is a probe.
    energies: Option<Vec<f64>>,
    /// Number of calls of the engine after which it fails.
    fails_after: Option<usize>,
    nll: Box<Nll>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, guard, settings, .. } = self;
        write!(f, "{} layers, {samples} samples, {guard} of the guard, {settings:?}", self.table.layers())
    }
}

/// What a search found, and what it asked of the engine.
struct Outcome {
    findings: Findings,
    reports: Vec<Progress>,
    /// How often each sample was scored under each variant, by line and gates.
    scored: HashMap<(usize, String), usize>,
    calls: usize,
}

impl Case {
    /// Of 60 samples and no guard.
    fn new(nll: impl Fn(&Sample, &Variant) -> f64 + 'static) -> Self {
        Self {
            table: table(LAYERS),
            samples: 60,
            guard: 0,
            settings: SearchSettings::default(),
            capabilities: Capabilities::ALL,
            energies: None,
            fails_after: None,
            nll: Box::new(nll),
        }
    }

    /// The same with the one-standard-error rule.
    fn by_one_se(self) -> Self {
        self.with(|settings| settings.rule = Some(Rule::OneSe))
    }

    /// The same with families and gates that compete.
    fn with_families(self, families: &[Family], gates: &[&str]) -> Self {
        let gates = gates.iter().map(|&gates| gates.to_owned()).collect();
        self.with(|settings| (settings.families, settings.gates) = (families.to_vec(), gates))
    }

    fn with(mut self, change: impl FnOnce(&mut SearchSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    fn study(&self) -> Result<Study> {
        let samples = |count: usize, above: usize| (1..=count).map(move |line| sample(above + line)).collect();
        let guard = (self.guard > 0).then(|| samples(self.guard, GUARD));
        Study::new(self.settings.clone(), self.table.clone(), samples(self.samples, 0), guard)
    }

    /// Runs until `is_stop` holds for the number of reports so far, and checks the progress.
    fn run_until(&self, mut is_stop: impl FnMut(usize) -> bool) -> Result<Outcome> {
        let study = self.study()?;
        let scorer = FakeScorer::new(&self.table, &*self.nll).with_capabilities(self.capabilities);
        let scorer = scorer.failing_after(self.fails_after);
        let probe = self.energies.clone().map(FakeProbe);
        let probe = probe.as_ref().map(|probe| probe as &dyn Probe);
        let engines = Engines { scorer: &scorer, generator: None, probe, benchmark: None };
        let mut reports = Vec::new();
        let findings = study.run(&engines, &mut |progress| {
            reports.push(progress);
            if is_stop(reports.len()) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        check_progress(&reports, findings.is_ok());
        Ok(Outcome { findings: findings?, reports, scored: scorer.scored(), calls: scorer.calls() })
    }

    fn try_run(&self) -> Result<Outcome> {
        self.run_until(|_| false)
    }

    fn run(&self) -> Findings {
        self.try_run().unwrap().findings
    }

    /// Why the settings are refused, or leave nothing to choose from.
    fn refused(&self) -> String {
        match self.try_run().map(|outcome| outcome.findings.candidate) {
            Err(Error::Usage(reason)) => reason,
            other => panic!("expected a usage error, found {other:?}"),
        }
    }
}

fn gates(spec: &str) -> Variant {
    Variant::parse(spec, LAYERS).unwrap()
}

/// Lines of the selection samples, where a third of so many samples is held out.
fn selection(samples: usize) -> HashSet<usize> {
    data::split(samples, 0.33, 0).unwrap().selection.into_iter().map(|index| index + 1).collect()
}

/// Checks that progress goes only forward to one total, which grows only for a stage that could not be foreseen, and
/// reaches it only at the end.
fn check_progress(reports: &[Progress], has_ended: bool) {
    let (Some(first), Some(last)) = (reports.first(), reports.last()) else {
        return assert!(!has_ended, "no progress is reported");
    };
    assert!(first.done == 0 && first.spent == 0 && first.total > 0 && first.rate > 0.0, "{first:?}");
    for pair in reports.windows(2) {
        assert!(pair[0].done <= pair[1].done && pair[0].spent <= pair[1].spent, "{pair:?}");
        assert!(pair[0].finished <= pair[1].finished && pair[1].samples <= pair[1].of, "{pair:?}");
        let grows = pair[0].total < pair[1].total && pair[1].stage == "layers at the strength";
        assert!(pair[0].total == pair[1].total || grows, "{pair:?}");
        assert!(pair[0].done < pair[0].total, "{pair:?}");
    }
    assert_eq!(last.done == last.total, has_ended, "{last:?}");
    // The total is a bound of what is computed.
    assert!(last.spent <= last.total, "{last:?}");
}

fn answer(choice: &Choice) -> (Verdict, Reason, usize) {
    assert_eq!(choice.abstains, choice.power.is_some());
    (choice.verdict, choice.reason, choice.layers_kept)
}

// Verdicts and reasons.

#[test]
fn a_cut_that_is_better_is_made_and_judged_by_samples_that_did_not_choose_it() {
    let case = || Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2]));
    let nested = case().run();
    assert_eq!(answer(&nested.choice), (Verdict::Trim, Reason::Better, 4));
    assert_eq!((nested.candidate.gates.as_str(), nested.candidate.family), ("4-5=0", Family::BottomK));
    assert_eq!(nested.choice.gain.samples, 60);
    assert!((nested.choice.gain.mean - 0.4).abs() < 0.05 && nested.choice.gain.p < 0.01);
    assert!(nested.choice.retained.unwrap().low > 1.0);
    let held_out = case().with(|settings| settings.validation = THIRD).run();
    assert_eq!(answer(&held_out.choice), (Verdict::Trim, Reason::Better, 4));
    assert_eq!(held_out.choice.gain.samples, 20);
}

#[test]
fn layers_that_do_nothing_are_cut() {
    let findings = Case::new(worth([0.3, 0.2, 0.2, 0.1, 0.0, 0.0])).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 4));
    assert_eq!((findings.choice.best, findings.choice.one_se), (4, 4));
    assert_eq!((findings.choice.gain.mean, findings.choice.retained.unwrap().value), (0.0, 1.0));
}

#[test]
fn a_cut_of_a_harmful_adapter_is_made_where_it_beats_the_base_model_too() {
    let findings = Case::new(worth([0.3, 0.2, 0.1, 0.0, -0.6, -0.6])).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::BetterThanBase, 3));
    assert!(findings.choice.adapter_gain.high < 0.0 && findings.choice.retained.is_none());
}

#[test]
fn nothing_is_cut_where_every_layer_helps() {
    let findings = Case::new(worth([0.2; LAYERS])).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::AllNeeded, LAYERS));
    assert_eq!(findings.candidate.layers_kept, LAYERS - 1);
    let findings = Case::new(worth([0.2; LAYERS])).by_one_se().run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NoCut, LAYERS));
    assert!(!findings.choice.abstains && findings.choice.bootstrap[LAYERS] == 1.0);
}

#[test]
fn each_variant_of_a_sample_is_counted_once() {
    let findings = Case::new(worth([0.2; LAYERS])).run();
    // Tokens are wanted a second time of some variants, which are known by then.
    let once = findings.variants.len() * LAYERS;
    assert_eq!((findings.cost.layer_passes, findings.cost.layer_passes_naive), (once, once));
}

#[test]
fn a_cut_that_helps_only_the_samples_that_picked_it_is_worse() {
    let chose = selection(60);
    let nll = move |sample: &Sample, variant: &Variant| {
        let late = if chose.contains(&sample.line) { 0.0 } else { 0.3 };
        worth([0.3, 0.2, 0.2, 0.1, late, late])(sample, variant)
    };
    let findings = Case::new(nll).with(|settings| settings.validation = THIRD).by_one_se().run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::Worse, LAYERS));
    assert_eq!((findings.choice.one_se, findings.candidate.layers_kept), (4, 4));
    assert!(findings.choice.gain.high < 0.0 && !findings.choice.abstains);
}

#[test]
fn a_cut_whose_effect_is_within_the_noise_is_not_shown() {
    let nll = |sample: &Sample, variant: &Variant| {
        worth([0.3, 0.2, 0.2, 0.1, 0.0, 0.0])(sample, variant) + 0.5 * noise(sample.line, 17) * strength(variant, 5)
    };
    for validation in [THIRD, Validation::Auto] {
        let findings = Case::new(nll).with(|settings| settings.validation = validation).run();
        assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NotShown, LAYERS), "{validation:?}");
        assert!(findings.choice.abstains && findings.choice.power.unwrap().detectable > 0.1);
    }
}

#[test]
fn nested_validation_calls_no_cut_worse() {
    // Each fold's samples lose by the one boundary that the samples of all other folds pick.
    const DEEP: usize = 12;
    let folds = stats::folds(60, 10, 0);
    let nll = move |sample: &Sample, variant: &Variant| match variant.boundary() {
        Some(0) => hardness(sample),
        Some(kept) if kept == folds[sample.line - 1] + 1 => hardness(sample) - 1.0 + share(sample, kept),
        _ => hardness(sample) - 1.0,
    };
    let findings = Case { table: table(DEEP), ..Case::new(nll) }.by_one_se().run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NotShown, DEEP));
    assert_eq!(findings.choice.one_se, DEEP - 1);
    assert!(findings.choice.gain.high < 0.0 && findings.choice.abstains);
}

#[test]
fn an_adapter_that_is_not_shown_to_help_is_kept() {
    let nll = |sample: &Sample, variant: &Variant| {
        hardness(sample) + noise(sample.line, 7) * (0..LAYERS).map(|layer| strength(variant, layer)).sum::<f64>() / 6.0
    };
    let findings = Case::new(nll).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::AdapterNotShown, LAYERS));
    // No cut was tested, so no gain is reported of one.
    assert_eq!((findings.candidate.layers_kept, findings.choice.gain.mean), (LAYERS, 0.0));
    assert!(findings.choice.abstains);
    assert!(findings.warnings.iter().any(|warning| matches!(warning, Warning::AdapterUnproven { p } if *p > 0.05)));
}

#[test]
fn an_adapter_that_harms_or_does_nothing_is_dropped() {
    for worths in [[-0.2; LAYERS], [0.0; LAYERS]] {
        let findings = Case::new(worth(worths)).run();
        assert_eq!(answer(&findings.choice), (Verdict::UseBase, Reason::AdapterNotBetter, 0), "{worths:?}");
        assert_eq!(findings.candidate.layers_kept, 0);
        assert!((findings.choice.gain.mean + findings.choice.adapter_gain.mean).abs() < 1e-12);
    }
}

#[test]
fn a_boundary_above_all_lora_is_no_cut() {
    let mut case = Case::new(worth([0.2, 0.2, 0.2, 0.2, 0.0, 0.0]));
    for layer in 4..LAYERS {
        case.table.adapted[layer] = [false; Projection::COUNT];
        case.table.bytes[layer] = [0; Projection::COUNT];
        case.table.norms[layer] = [0.0; Projection::COUNT];
    }
    let case = case.by_one_se();
    let findings = case.run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NoCut, LAYERS));
    assert_eq!((findings.choice.one_se, findings.candidate.bytes), (4, case.table.total_bytes()));
    assert!(findings.controls.is_none());
    let layers: HashSet<usize> = findings.effects.measures[0].values.iter().map(|value| value.layer).collect();
    assert_eq!(layers, (0..4).collect());
}

// Racing.

/// 16 layers of which the lower 12 help, and a third of 96 samples held out.
fn deep(strategy: search::Strategy) -> Case {
    const DEEP: usize = 16;
    let worths: [f64; DEEP] = std::array::from_fn(|layer| if layer < 12 { 0.1 } else { 0.0 });
    let case = Case { table: table(DEEP), samples: 96, ..Case::new(worth(worths)) };
    case.with(|settings| (settings.strategy, settings.validation) = (strategy, THIRD)).by_one_se()
}

#[test]
fn a_race_drops_what_is_clearly_worse_and_picks_what_the_exact_search_picks() {
    let (exact, raced) = (deep(EXACT).try_run().unwrap(), deep(RACING).try_run().unwrap());
    let choices = [&exact, &raced].map(|outcome| answer(&outcome.findings.choice));
    assert_eq!(choices, [(Verdict::Trim, Reason::NotWorse, 12); 2]);
    assert_eq!(exact.findings.choice.gain, raced.findings.choice.gain);
    assert_eq!(exact.findings.candidate, raced.findings.candidate);

    let race = raced.findings.race.as_ref().unwrap();
    assert!(exact.findings.race.is_none() && !race.skipped.is_empty());
    let lost = race.dropped.iter().find(|dropped| dropped.layers_kept == 2).unwrap();
    assert!(lost.samples < 64 && lost.deficit > 0.5 && lost.p < 0.05, "{lost:?}");
    for variant in &raced.findings.variants {
        let is_dropped = race.dropped.iter().any(|dropped| dropped.layers_kept == variant.layers_kept);
        assert!(variant.selection.is_none() == is_dropped && !race.skipped.contains(&variant.layers_kept));
    }
    let pairs = |outcome: &Outcome| outcome.scored.len();
    assert!(pairs(&raced) * 2 < pairs(&exact), "{} of {}", pairs(&raced), pairs(&exact));
}

#[test]
fn a_race_with_other_families_scores_base_and_full_on_all_samples() {
    let findings = deep(RACING).with_families(&[Family::TopK, Family::LeaveOneOut], &[]).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 12));
    assert!(findings.race.unwrap().dropped.iter().any(|dropped| dropped.layers_kept == 0));
    let is_base = |gates: &str| gates == "0";
    let base = findings.variants.iter().find(|v| v.family == Family::TopK && is_base(&v.gates)).unwrap();
    assert!(base.selection.is_some());
}

#[test]
fn a_race_on_too_few_samples_is_an_exact_search_with_a_warning() {
    let case = |strategy| {
        let case = Case { samples: 12, ..Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])) };
        case.with(|settings| settings.strategy = strategy)
    };
    let (exact, raced) = (case(EXACT).try_run().unwrap(), case(RACING).try_run().unwrap());
    let warning = Warning::NotRaced { selection: 8, needed: 9 };
    assert_eq!(case(RACING).study().unwrap().forewarnings(), std::slice::from_ref(&warning));
    assert_eq!(raced.findings.warnings[0], warning);
    assert!(raced.findings.race.is_none() && !exact.findings.warnings.contains(&warning));
    assert_eq!(exact.findings.choice, raced.findings.choice);
    assert_eq!(exact.scored, raced.scored);
}

// Families.

/// Norms by which layers 0, 3 and 5 are the largest, and energies by which 1 and 4 are.
const NORMS: [f64; LAYERS] = [5.0, 1.0, 1.5, 4.0, 2.0, 3.0];
const ENERGIES: [f64; LAYERS] = [1.0, 9.0, 4.0, 2.0, 8.0, 3.0];

/// All families that are listed by the user.
fn all_families() -> Vec<Family> {
    Family::ALL.into_iter().filter(|family| family.is_optional() || *family == Family::BottomK).collect()
}

/// All families compete for the gates at which the NLL is lowest.
fn competition(target: Variant, given: &[&str]) -> Case {
    let table = with_norms(table(LAYERS), NORMS);
    let case = Case { table, energies: Some(ENERGIES.to_vec()), ..Case::new(near(target)) };
    case.with_families(&all_families(), given)
}

#[test]
fn the_simplest_family_that_has_the_best_gates_wins() {
    let ramp = Family::Ramp.members(&Facts { adapted: &table(LAYERS).adapted, magnitude: &[], output: &[], seed: 0 });
    let cases = [
        (Family::BottomK, gates("4-5=0"), "4 layers"),
        (Family::TopK, gates("0-1=0"), "highest 4 layers"),
        (Family::GlobalAlpha, gates("0.5"), "strength 0.5"),
        // Greedy finds these too.
        (Family::LeaveOneOut, gates("2=0"), "without layer 2"),
        // A window of one layer is the same.
        (Family::LeaveOneIn, gates("0-2=0,4-5=0"), "layer 3 alone"),
        (Family::PerModule, gates("v_proj=0"), "only q_proj"),
        (Family::Window, gates("0-1=0,4-5=0"), "layers 2–3"),
        (Family::Ramp, ramp[0].variant.clone(), "strength 1 to 0.5"),
        (Family::MagnitudeK, gates("1-2=0,4=0"), "largest 3 layers"),
        (Family::OutputK, gates("0=0,2-3=0,5=0"), "most active 2 layers"),
        (Family::Greedy, gates("1=0,4=0"), "1=0,4=0"),
        (Family::GreedyModules, gates("1.q_proj=0,4.v_proj=0"), "1.q_proj=0,4.v_proj=0"),
        (Family::Strengths, gates("2=1.5"), "2=1.5"),
    ];
    for (family, target, label) in cases {
        let findings = competition(target, &["3=0.25"]).run();
        let candidate = &findings.candidate;
        assert_eq!((candidate.family, candidate.label.as_str()), (family, label), "{:#?}", findings.arbitration);
        let families = &findings.arbitration.as_ref().unwrap().families;
        assert!(families.iter().is_sorted_by_key(|family| family.family.simplicity()));
        let chosen: Vec<_> = families.iter().filter(|family| family.is_chosen).collect();
        assert!(matches!(chosen[..], [chosen] if chosen.pick == *candidate && chosen.deficit <= chosen.se), "{family}");
        assert_eq!(findings.choice.verdict, Verdict::Trim, "{family}");
    }
}

#[test]
fn random_layers_never_win() {
    let facts = table(LAYERS);
    let drawn = Family::RandomK.members(&Facts { adapted: &facts.adapted, magnitude: &[], output: &[], seed: 0 });
    let best = drawn.iter().find(|member| member.variant.spec() == "1=0,3-4=0").unwrap();
    let findings = Case::new(near(best.variant.clone())).with_families(&[Family::RandomK, Family::TopK], &[]).run();
    let means = findings.variants.iter().map(|variant| variant.selection().mean_nll);
    let lowest = means.fold(f64::INFINITY, f64::min);
    let random = findings.variants.iter().find(|variant| variant.selection().mean_nll == lowest).unwrap();
    assert_eq!((random.family, &random.gates), (Family::RandomK, &best.variant.spec()));
    assert_ne!(findings.candidate.gates, random.gates);
    let families: Vec<Family> = findings.arbitration.unwrap().families.iter().map(|family| family.family).collect();
    assert_eq!(families, [Family::BottomK, Family::TopK]);
}

#[test]
fn gates_given_by_the_user_compete() {
    let spec = "1=0.5,3.q_proj=0";
    let findings = Case::new(near(gates(spec))).with_families(&[Family::TopK], &["2=0", spec]).run();
    assert_eq!((findings.candidate.family, findings.candidate.gates.as_str()), (Family::Given, spec));
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, LAYERS));
    assert_eq!(findings.variant, gates(spec));
    assert_eq!(findings.candidate.bytes, table(LAYERS).total_bytes() - 10);
}

#[test]
fn gates_of_places_without_lora_are_refused() {
    let refused = |spec| Case::new(worth([0.2; LAYERS])).with_families(&[], &["2=0", spec]).refused();
    assert!(refused("1.up_proj=0").contains("there is no LoRA on 1.up_proj"));
    assert!(refused("6=0").contains("expected layers from 0 to 5"));
    assert!(refused("1=x").contains("not a finite number"));
}

#[test]
fn more_variants_than_fit_in_a_pass_are_scored_in_several() {
    const DEEP: usize = 70;
    let nll = |sample: &Sample, variant: &Variant| {
        hardness(sample) - 0.01 * (0..DEEP).map(|layer| strength(variant, layer) * share(sample, layer)).sum::<f64>()
    };
    let case = Case { table: table(DEEP), samples: 12, ..Case::new(nll) };
    let case = case.with_families(&[Family::TopK, Family::LeaveOneOut], &[]).by_one_se();
    let outcome = case.try_run().unwrap();
    assert_eq!(answer(&outcome.findings.choice).0, Verdict::KeepFull);
    assert_eq!(case.study().unwrap().plan().variants, 71 + 69 + 68);
    assert!(outcome.scored.values().all(|times| *times == 1));
    let chosen = outcome.reports.iter().filter(|report| report.stage == "choosing");
    assert_eq!(chosen.map(|report| (report.samples, report.of)).max(), Some((8, 8)));
}

// Guard and budget.

/// The two highest layers harm the data's samples; on the guard's samples their worth is given.
fn guarded(on_guard: impl Fn(&Sample) -> f64 + 'static) -> Case {
    let nll = move |sample: &Sample, variant: &Variant| {
        let late = if sample.line > GUARD { on_guard(sample) } else { -0.2 };
        worth([0.3, 0.2, 0.2, 0.1, late, late])(sample, variant)
    };
    Case { guard: 16, ..Case::new(nll) }
}

#[test]
fn a_cut_that_does_not_harm_the_guard_is_made() {
    let findings = guarded(|_| 0.0).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4));
    let [on_guard, judged] = [Part::Selection, Part::Holdout]
        .map(|part| findings.scores.iter().filter(|row| row.source == DataSource::Guard && row.part == part).count());
    assert_eq!((on_guard, judged), (8, 8));
    let boundaries = findings.variants.iter().filter(|variant| variant.family == Family::BottomK);
    assert!(boundaries.map(|variant| variant.guard.unwrap().mean_nll).is_sorted_by(|a, b| a >= b));
}

#[test]
fn a_variant_that_harms_the_guard_is_not_picked() {
    let findings = guarded(|_| 0.2).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NoCut, LAYERS));
    assert_eq!(findings.candidate.label, "full");
    // A loss within the margin is none.
    let findings = guarded(|_| 0.2).with(|settings| settings.guard_margin = 1.0).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4));
    // Neither is the pick of an adaptive family.
    let findings = guarded(|_| 0.2).with_families(&[Family::Greedy], &[]).run();
    assert_eq!(findings.candidate.family, Family::BottomK);
    assert!(findings.arbitration.is_none());
}

#[test]
fn a_cut_that_is_not_shown_to_be_safe_on_the_guard_is_not_made() {
    let findings = guarded(|sample| 0.2 * noise(sample.line, 8)).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::GuardNotHeld, LAYERS));
    assert_eq!((findings.candidate.layers_kept, findings.choice.one_se), (4, 4));
    assert!(findings.choice.gain.low > 0.0);
}

#[test]
fn nothing_above_the_budget_is_picked() {
    let families = [Family::TopK, Family::LeaveOneOut, Family::MagnitudeK, Family::GlobalAlpha, Family::Window];
    let case = |budget, families| {
        let case = Case::new(worth([0.2; LAYERS])).with(|settings| settings.budget = Some(budget)).by_one_se();
        case.with_families(families, &["0-2=0", "5=0"])
    };
    // Of 100 bytes a layer has 16, and 4 are always kept.
    for (budget, kept) in [(0.52, 3), (0.51, 2), (0.99, 5), (1.0, 6), (0.04, 0)] {
        let findings = case(budget, &families).run();
        assert_eq!(findings.candidate.layers_kept, kept, "{budget}");
        let picks = findings.arbitration.unwrap().families.into_iter().map(|family| family.pick);
        assert!(picks.chain([findings.candidate]).all(|pick| pick.bytes as f64 <= budget * 100.0), "{budget}");
    }
    let findings = case(0.52, &[]).with(|settings| settings.gates.clear()).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::Worse, LAYERS));
    assert_eq!(findings.candidate.label, "3 layers");
}

#[test]
fn a_budget_and_a_guard_that_leave_nothing_are_refused() {
    let case = |budget| guarded(|_| 0.2).with(|settings| settings.budget = Some(budget));
    // The guard's scores decide.
    let refused = case(0.9).refused();
    assert!(refused.contains("--guard-margin") && refused.contains("--budget"), "{refused}");
    // These budgets are refused before any score.
    for (budget, words) in [(0.03, "remain"), (-1.0, "between 0 and 1"), (1.5, "between 0 and 1"), (f64::NAN, "NaN")] {
        let Err(Error::Usage(found)) = case(budget).study() else { panic!("{budget} is accepted") };
        assert!(found.starts_with("--budget ") && found.contains(words), "{budget}: {found}");
    }
    for error_rate in [0.0, 1.0, f64::NAN] {
        let racing = |settings: &mut SearchSettings| settings.strategy = search::Strategy::Racing { error_rate };
        let Err(Error::Usage(found)) = Case::new(worth([0.2; LAYERS])).with(racing).study() else {
            panic!("{error_rate} is accepted")
        };
        assert!(found.starts_with("--error-rate "), "{found}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let folds = |settings: &mut SearchSettings| settings.validation = Validation::Folds(5);
    let racing = |settings: &mut SearchSettings| settings.strategy = RACING;
    let budget = |settings: &mut SearchSettings| settings.budget = Some(0.5);
    let case = |guard| Case { guard, ..Case::new(worth([0.2; LAYERS])) };
    let families = |case: Case, family| case.with_families(&[family], &[]);
    let refused = [
        (case(8).with(racing), ["--search racing", "--guard"]),
        (case(0).with(racing).with(budget), ["--search racing", "--budget"]),
        (case(0).with(folds).with(racing), ["--folds", "--search racing"]),
        (families(case(0).with(folds), Family::TopK), ["--folds", "--families"]),
        (case(0).with(folds).with_families(&[], &["1=0"]), ["--folds", "--gates"]),
        (case(8).with(folds), ["--folds", "--guard"]),
        (case(0).with(folds).with(budget), ["--folds", "--budget"]),
        (families(case(0).with(budget), Family::Greedy), ["--budget", "--families greedy"]),
        (families(case(0).with(budget), Family::GreedyModules), ["--budget", "--families greedy-modules"]),
        (families(case(0).with(budget), Family::Strengths), ["--budget", "--families strengths"]),
        (case(3), ["held-out share of 0.5", "3 samples"]),
    ];
    for (case, words) in refused {
        let Err(Error::Usage(found)) = case.study() else { panic!("{words:?} are accepted") };
        assert!(words.iter().all(|word| found.contains(word)), "{words:?}: {found}");
    }
}

#[test]
fn too_few_samples_and_folds_out_of_range_are_refused() {
    let check = |samples, validation, families: &[Family], words: &[&str]| {
        let case = Case { samples, ..Case::new(worth([0.2; LAYERS])) };
        let case = case.with(|settings| settings.validation = validation).with_families(families, &[]);
        let Err(Error::Usage(found)) = case.study() else { panic!("{case:?}") };
        assert!(words.iter().all(|word| found.contains(word)), "{words:?}: {found}");
    };
    for samples in ["0", "3"] {
        let words = [samples, "at least 4 samples"];
        check(samples.parse().unwrap(), Validation::Auto, &[], &words);
        check(samples.parse().unwrap(), Validation::Folds(2), &[], &words);
    }
    for folds in ["0", "1", "25"] {
        check(24, Validation::Folds(folds.parse().unwrap()), &[], &["--folds", folds, "2 to 24"]);
    }
    check(5, THIRD, &[Family::TopK], &["3 selection samples", "at least 4", "families"]);
    check(24, Validation::HeldOut(1.0), &[], &["held-out share", "between 0 and 1"]);
    check(24, Validation::HeldOut(0.01), &[], &["held-out share of 0.01", "24 samples", "0 held out"]);
}

// Which samples judge.

#[test]
fn fewer_than_100_samples_judge_in_folds_and_of_more_a_third_is_held_out() {
    let judged = |samples, validation| {
        let case = Case { samples, ..Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])) };
        let case = case.with(|settings| settings.validation = validation);
        let findings = case.run();
        assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4));
        (findings.choice.validation, findings.choice.gain.samples, case.study().unwrap().split())
    };
    assert_eq!(judged(99, Validation::Auto), (Judged::Nested { folds: 10 }, 99, (99, 0)));
    // With one sample fewer, no p-value is low enough for one of two claims, a better cut and a better strength.
    assert_eq!(judged(8, Validation::Auto), (Judged::Nested { folds: 8 }, 8, (8, 0)));
    assert_eq!(judged(24, Validation::Folds(3)), (Judged::Nested { folds: 3 }, 24, (24, 0)));
    assert_eq!(judged(100, Validation::Auto), (Judged::Holdout, 33, (67, 33)));
    assert_eq!(judged(24, Validation::HeldOut(0.5)), (Judged::Holdout, 12, (12, 12)));
}

#[test]
fn too_few_samples_to_show_anything_are_reported_before_the_search() {
    let case = Case { samples: 6, ..Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])) };
    let warning = Warning::CannotShow { judging: 6, needed: 7, samples: 7 };
    assert_eq!(case.study().unwrap().forewarnings(), std::slice::from_ref(&warning));
    let findings = case.run();
    assert!(findings.warnings.contains(&warning) && findings.choice.abstains);
}

// Controls.

#[test]
fn depth_is_shown_where_the_cut_beats_every_control() {
    for validation in [Validation::Auto, THIRD] {
        let case = Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2]));
        let findings = case.with(|settings| settings.validation = validation).run();
        let controls = findings.controls.unwrap();
        assert_eq!(controls.depth, Depth::Shown);
        let families: Vec<Family> = controls.rows.iter().map(|row| row.family).collect();
        assert_eq!(families, [Family::GlobalAlpha, Family::RandomK, Family::TopK]);
        assert_eq!(controls.rows[2].gates, ["0-1=0"]);
        assert_eq!(controls.rows[1].gates.len(), 8);
        for row in &controls.rows {
            assert!(row.cut_over.p <= row.p_holm && row.p_holm < 0.05 && row.cut_over.low > 0.0, "{row:?}");
        }
    }
}

#[test]
fn depth_is_not_shown_where_a_weaker_adapter_is_as_good() {
    // Only the mean strength matters, and three quarters are best.
    let nll = |sample: &Sample, variant: &Variant| {
        let mean = (0..LAYERS).map(|layer| strength(variant, layer)).sum::<f64>() / LAYERS as f64;
        hardness(sample) + (mean - 0.75) * (mean - 0.75) * share(sample, 0)
    };
    for validation in [Validation::Auto, THIRD] {
        let case = Case::new(nll).with(|settings| settings.validation = validation);
        // The strength would be the candidate.
        let findings = case.with(|settings| settings.strength = StrengthSearch::AsTrained).run();
        assert_eq!((findings.choice.verdict, findings.choice.reason), (Verdict::Trim, Reason::Better));
        let controls = findings.controls.unwrap();
        assert_eq!((controls.depth, controls.rows[0].label.as_str()), (Depth::NotShown, "strength 0.75"));
        assert!(controls.rows[0].cut_over.mean < 0.0 && controls.rows[0].over_full.low > 0.0);
    }
}

#[test]
fn omitted_controls_are_a_warning() {
    let case = |controls| {
        let case = Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2]));
        case.with(|settings| settings.controls = controls).run()
    };
    let (scored, omitted) = (case(ControlScoring::Scored), case(ControlScoring::Omitted));
    assert!(omitted.controls.is_none() && omitted.warnings.contains(&Warning::ControlsOmitted));
    assert!(scored.controls.is_some() && !scored.warnings.contains(&Warning::ControlsOmitted));
    assert_eq!(scored.choice, omitted.choice);
}

#[test]
fn without_a_cut_there_are_no_controls() {
    for worths in [[0.2; LAYERS], [-0.2; LAYERS]] {
        let outcome = Case::new(worth(worths)).try_run().unwrap();
        assert!(outcome.findings.controls.is_none(), "{worths:?}");
        assert!(outcome.reports.iter().all(|report| !report.stage.contains("controls") || report.of == 0));
        let findings = Case::new(worth(worths)).with(|settings| settings.controls = ControlScoring::Omitted).run();
        assert!(!findings.warnings.contains(&Warning::ControlsOmitted));
    }
}

// Effects, tokens and curves.

fn effects_of(findings: &Findings, kind: EffectKind) -> Vec<(usize, Option<&str>, f64)> {
    let measure = findings.effects.measures.iter().find(|measure| measure.kind == kind).unwrap();
    measure.values.iter().map(|value| (value.layer, value.module.as_deref(), value.value)).collect()
}

#[test]
fn effects_of_a_sum_are_its_terms() {
    const WORTHS: [f64; LAYERS] = [0.3, -0.1, 0.2, 0.0, 0.5, 0.1];
    let table = with_norms(table(LAYERS), WORTHS.map(|worth| 3.0 + worth));
    let energies = Some(WORTHS.map(|worth| 1.0 - worth).to_vec());
    let case = Case { table, energies, ..Case::new(worth(WORTHS)) };
    let all = NonZero::new(60).unwrap();
    let effects = EffectSettings { places: Some(Places::Modules), samples: all, order_pairs: 3 };
    let findings = case.with(|settings| settings.effects = effects).run();
    let term = |layer: usize| {
        let shares = (1..=60).map(|line| share(&sample(line), layer)).sum::<f64>() / 60.0;
        WORTHS[layer] * shares
    };
    for kind in [EffectKind::LeaveOneOut, EffectKind::LeaveOneIn, EffectKind::Shapley, EffectKind::Increment] {
        let values = effects_of(&findings, kind);
        let has_modules = matches!(kind, EffectKind::LeaveOneOut | EffectKind::LeaveOneIn);
        assert_eq!(values.len(), if has_modules { 3 * LAYERS } else { LAYERS });
        for (layer, module, value) in values {
            // Both modules of a layer are worth the same.
            let expected = if module.is_some() { term(layer) / 2.0 } else { term(layer) };
            assert!((value - expected).abs() < 1e-12, "{kind:?} of {layer}: {value}, not {expected}");
        }
    }
    let agreement = |proxy, truth| {
        let pairs = &findings.effects.agreement;
        pairs.iter().find(|pair| pair.proxy == proxy && pair.truth == truth).unwrap()
    };
    let by_norm = agreement(EffectKind::Magnitude, EffectKind::Shapley);
    assert_eq!((by_norm.rho, by_norm.layers), (1.0, LAYERS));
    assert!((by_norm.p - 2.0 / 720.0).abs() < 1e-12);
    assert_eq!(agreement(EffectKind::Output, EffectKind::LeaveOneOut).rho, -1.0);
    // The probe returns energies summed over tokens; the measure is their mean.
    let energies: Vec<f64> = effects_of(&findings, EffectKind::Output).iter().map(|(.., value)| *value).collect();
    assert!((energies[0] - 0.7).abs() < 1e-12 && (energies[4] - 0.5).abs() < 1e-12, "{energies:?}");
}

#[test]
fn the_change_point_is_where_the_curve_of_the_full_adapter_bends() {
    let findings =
        Case::new(worth([0.2; LAYERS])).with(|settings| settings.lens_samples = NonZero::new(1).unwrap()).run();
    assert_eq!((findings.lens.samples, findings.lens.base.len(), findings.choice.curve), (1, LAYERS, Some(3)));
    let rises: Vec<f64> = effects_of(&findings, EffectKind::Lens).iter().map(|(.., rise)| *rise).collect();
    assert!(rises[..3].iter().all(|rise| rise.abs() < 1e-12) && rises[3..].iter().all(|rise| *rise > 0.1), "{rises:?}");
}

#[test]
fn tokens_add_up_to_the_score_of_their_sample() {
    for (validation, strategy) in [(Validation::Auto, EXACT), (THIRD, EXACT), (THIRD, RACING)] {
        let case = Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])).with(|settings| {
            (settings.validation, settings.strategy, settings.token_samples) = (validation, strategy, 25);
        });
        let findings = case.run();
        assert_eq!(findings.tokens.len(), 25);
        let held_out = findings.tokens.iter().filter(|tokens| tokens.part == Part::Holdout).count();
        assert_eq!(held_out, case.study().unwrap().split().1);
        for tokens in &findings.tokens {
            let row = findings.scores.iter().find(|row| row.scores.line == tokens.line).unwrap();
            for (gates, values) in [("0", &tokens.base), ("1", &tokens.full), ("4-5=0", &tokens.candidate)] {
                let index = row.gates.iter().position(|of_row| of_row == gates).unwrap();
                let sum: f64 = values.iter().map(|nll| f64::from(*nll)).sum();
                assert!(values.len() == tokens.tokens.len() && (sum - row.scores.variants[index].nll).abs() < 1e-5);
            }
        }
    }
}

// Engines without some capability.

#[test]
fn without_token_nll_the_search_has_no_tokens() {
    let case = || Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2]));
    let capabilities = Capabilities { token_nll: false, ..Capabilities::ALL };
    let without = Case { capabilities, ..case() }.run();
    assert!(without.tokens.is_empty());
    assert_eq!(without.choice, case().run().choice);
}

#[test]
fn without_a_lens_the_search_has_no_curves() {
    let case = || Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2]));
    let capabilities = Capabilities { lens: false, ..Capabilities::ALL };
    for validation in [Validation::Auto, THIRD] {
        let without = Case { capabilities, ..case() }.with(|settings| settings.validation = validation).run();
        assert!(without.lens.full.is_empty() && without.lens.samples == 0);
        let with = case().with(|settings| settings.validation = validation).run();
        assert_eq!(answer(&without.choice), answer(&with.choice));
    }
}

#[test]
fn without_strengths_global_alpha_is_no_control() {
    let capabilities = Capabilities { strengths: false, ..Capabilities::ALL };
    let findings = Case { capabilities, ..Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])) }.run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4));
    let families: Vec<Family> = findings.controls.unwrap().rows.iter().map(|row| row.family).collect();
    assert_eq!(families, [Family::RandomK, Family::TopK]);
}

#[test]
fn without_a_probe_output_k_is_refused() {
    let case = Case::new(worth([0.2; LAYERS])).with_families(&[Family::OutputK], &[]);
    assert!(matches!(case.try_run().map(|_| ()), Err(Error::Engine(_))));
}

#[test]
fn without_strengths_variants_that_need_them_are_refused() {
    let capabilities = Capabilities { strengths: false, ..Capabilities::ALL };
    let case = |families: &[Family], gates: &[&str]| {
        Case { capabilities, ..Case::new(worth([0.2; LAYERS])) }.with_families(families, gates)
    };
    let strengths = [Family::Strengths, Family::GlobalAlpha, Family::Ramp];
    for (case, name) in strengths
        .map(|family| (case(&[family], &[]), family.name()))
        .into_iter()
        .chain([(case(&[], &["1=0.5"]), "--gates")])
    {
        let Err(Error::Engine(found)) = case.try_run().map(|_| ()) else { panic!("{name} is accepted") };
        assert!(found.starts_with(name), "{found}");
    }
    assert!(case(&[Family::TopK, Family::Greedy], &["1=0"]).try_run().is_ok());
}

#[test]
fn the_total_is_an_upper_bound_whatever_the_order_of_norms() {
    // Norms that rise with depth: the plan takes output-k for bottom-k.
    let table = with_norms(table(LAYERS), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let case = Case { table, energies: Some(ENERGIES.to_vec()), ..guarded(|_| 0.0) };
    case.with_families(&[Family::OutputK], &[]).run();
}

// Interruptions and errors.

/// A search with all stages, on few samples.
fn all_stages() -> Case {
    let case = Case { samples: 20, energies: Some(ENERGIES.to_vec()), ..guarded(|_| 0.0) };
    let case = case.with_families(&[Family::OutputK, Family::Greedy, Family::Strengths], &["1=0"]);
    let effects = EffectSettings { places: Some(Places::Layers), ..EffectSettings::default() };
    case.with(|settings| settings.effects = effects)
}

#[test]
fn an_observer_can_stop_the_search_at_any_report() {
    let whole = all_stages().try_run().unwrap();
    let stages: HashSet<&str> = whole.reports.iter().map(|report| report.stage).collect();
    for stage in ["outputs of layers", "choosing", "guard", "greedy", "strengths", "controls", "judging", "effects"] {
        assert!(stages.contains(stage), "{stage}: {stages:?}");
    }
    let reports = whole.reports.len();
    for stop in (1..reports).step_by(reports / 40).chain([reports - 1]) {
        let mut seen = 0;
        let stopped = all_stages().run_until(|count| {
            seen = count;
            count >= stop
        });
        assert!(matches!(stopped.map(|_| ()), Err(Error::Interrupted)), "at {stop} of {reports}");
        assert_eq!(seen, stop);
    }
    // After the last report nothing is left to stop.
    assert_eq!(all_stages().run_until(|count| count == reports).unwrap().findings.choice, whole.findings.choice);
}

#[test]
fn an_error_of_the_engine_is_returned() {
    let calls = all_stages().try_run().unwrap().calls;
    for fails_after in [0, 1, calls / 2, calls - 1] {
        let failed = Case { fails_after: Some(fails_after), ..all_stages() }.try_run().map(|_| ());
        assert!(matches!(&failed, Err(Error::Engine(reason)) if reason == "the server is gone"), "{failed:?}");
    }
}

/// The same search with an NLL that is not finite, of some samples under some gates.
fn broken(case: Case, lines: RangeInclusive<usize>, gates: &'static str, value: f64) -> Case {
    let Case { nll, .. } = case;
    let broken = move |sample: &Sample, variant: &Variant| {
        if lines.contains(&sample.line) && variant.spec() == gates { value } else { nll(sample, variant) }
    };
    Case { nll: Box::new(broken), ..case }
}

#[test]
fn candidates_whose_scores_are_not_finite_give_no_result() {
    for (line, value) in (1..=8).zip([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].into_iter().cycle()) {
        // In either part.
        let case = Case::new(worth([0.2; LAYERS])).with(|settings| settings.validation = THIRD);
        let result = broken(case, line..=line, "3-5=0", value).try_run().map(|_| ());
        assert!(result.is_err(), "{value} of line {line}");
    }
    let case = Case::new(worth([0.2; LAYERS])).with_families(&[Family::TopK], &["1=0.5"]);
    assert!(broken(case, 1..=60, "1=0.5", f64::NAN).try_run().map(|_| ()).is_err());
}

#[test]
fn scores_that_are_not_finite_give_no_result() {
    // Moves of two greedy families, an effect, a control, and variants on the guard's samples.
    for (gates, lines) in [("3=0", 1..=20), ("4=0.5", 1..=20), ("0-4=0", 1..=20), ("0.75", 1..=20)]
        .into_iter()
        .chain(["0", "4-5=0", "1"].map(|gates| (gates, GUARD..=2 * GUARD)))
    {
        let result = broken(all_stages(), lines, gates, f64::NAN).try_run().map(|_| ());
        assert!(matches!(result, Err(Error::Engine(_))), "{gates}: {result:?}");
    }
}

// Journals.

/// A search of the trained adapter of a tiny model.
struct Files {
    model: Model,
    adapter: Adapter,
    data: Dataset,
    output: OutputFolder,
    _folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        const MODEL: &str = "tiny-gqa-tied";
        let folder = tempfile::tempdir().unwrap();
        let adapter = adapter_folder(MODEL, "trained");
        Self {
            model: Model::open(golden().join(MODEL)).unwrap(),
            adapter: Adapter::open(&adapter).unwrap(),
            data: Dataset::from_jsonl(golden().join("data/valid.jsonl")).unwrap(),
            output: OutputFolder::new(folder.path().join("out"), Existing::Refuse, &adapter).unwrap(),
            _folder: folder,
        }
    }

    fn search(&self) -> Search<'_> {
        let effects = EffectSettings { places: Some(Places::Layers), ..EffectSettings::default() };
        let families = vec![Family::TopK, Family::Greedy];
        search(&self.model, &self.adapter, &self.data)
            .settings(SearchSettings { families, effects, ..SearchSettings::default() })
            .data_options(DataOptions { template: TemplateChoice::None, ..DataOptions::default() })
            .cpu_options(CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() })
            .journal(&self.output)
    }

    /// The result without its cost, the scores and the tokens, as JSON.
    fn found(&self) -> [String; 3] {
        let found = self.search().run().unwrap();
        let mut result = serde_json::to_value(found.result()).unwrap();
        result.as_object_mut().unwrap().remove("cost").unwrap();
        let json = |value| serde_json::to_string_pretty(&value).unwrap();
        [result, serde_json::to_value(found.scores()).unwrap(), serde_json::to_value(found.tokens()).unwrap()].map(json)
    }
}

#[test]
fn a_resumed_search_has_the_result_of_an_uninterrupted_one() {
    let whole = Files::new().found();
    for stage in ["choosing", "greedy", "judging", "effects"] {
        let files = Files::new();
        // At the first samples that are finished in the stage.
        let mut before = 0;
        let stopped = files.search().on_step(|progress| {
            let is_within = progress.stage == stage;
            before = if is_within { before } else { progress.finished };
            if is_within && progress.finished > before { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(stopped.run().map(|_| ()), Err(Error::Interrupted)), "{stage}");
        assert!(fs::metadata(files.output.path().join("journal.jsonl")).unwrap().len() > 0);
        assert_eq!(files.found(), whole, "{stage}");
    }
}

#[test]
fn scores_in_the_journal_are_not_computed_again() {
    let files = Files::new();
    let prepared = files.search().prepare().unwrap();
    let table = files.adapter.table(4).unwrap();
    // The highest layer harms, so that there is a cut and its controls.
    let nll = worth([0.3, 0.2, 0.1, -0.2]);
    // What is scored until a stage begins.
    let run = |last: &str| {
        let scorer = FakeScorer::new(&table, &nll);
        let engines = Engines { scorer: &scorer, generator: None, probe: None, benchmark: None };
        let found = prepared.run_on(&engines, &mut |progress| {
            if progress.stage == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(found.is_err(), last != "none");
        scorer.scored()
    };
    let [first, second, third] = [run("controls"), run("effects"), run("none")];
    let pairs = |scored: &HashMap<_, _>| -> HashSet<(usize, String)> { scored.keys().cloned().collect() };
    let (first, second, third) = (pairs(&first), pairs(&second), pairs(&third));
    // The batch that was computed last is lost.
    let again = |a: &HashSet<(usize, String)>, b: &HashSet<(usize, String)>| {
        a.intersection(b).map(|(line, _)| *line).collect::<HashSet<usize>>().len()
    };
    assert!(first.len() > 100 && second.len() > 40 && !third.is_empty());
    assert_eq!((again(&first, &second), again(&second, &third), again(&first, &third)), (BATCH, BATCH, 0));
    assert!(run("none").is_empty());
}

// Invariants.

/// Checks what holds for all findings.
fn check_findings(case: &Case, Outcome { findings, scored, .. }: &Outcome) {
    let Findings { variants, candidate, variant, scores, .. } = findings;
    let (layers, total) = (case.table.layers(), case.table.total_bytes());
    assert!(variants.iter().any(|row| row.gates == candidate.gates), "{candidate:?}");
    assert_eq!((variant.spec(), case.table.bytes_kept(variant)), (candidate.gates.clone(), candidate.bytes));
    assert!(variants.iter().all(|row| row.bytes <= total && row.layers_kept <= layers));
    // If no cut was tested, the candidate is the full adapter.
    let is_untested = findings.choice.validation == Judged::All && candidate.bytes == total;
    assert!(is_untested || case.settings.budget.is_none_or(|share| candidate.bytes as f64 <= share * total as f64));
    // Random layers may be drawn twice.
    let rows = variants.iter().filter(|row| row.family != Family::RandomK);
    let keys: Vec<(Family, &str)> = rows.map(|row| (row.family, row.gates.as_str())).collect();
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len(), "{keys:?}");
    if let Some(arbitration) = &findings.arbitration {
        let chosen: Vec<_> = arbitration.families.iter().filter(|family| family.is_chosen).collect();
        let is_at_strength = candidate.family == Family::BoundaryStrength;
        let is_by_competition = findings.choice.validation != Judged::All && !is_at_strength;
        assert!(matches!(chosen[..], [chosen] if !is_by_competition || chosen.pick == *candidate), "{arbitration:?}");
    }
    assert_eq!(scores.len(), case.samples + case.guard);
    if matches!(case.settings.strategy, EXACT | search::Strategy::Auto) {
        // Once, and the candidate once more for its tokens.
        assert!(scored.values().all(|times| *times <= 2));
        assert_eq!(scored.len(), scores.iter().map(|row| row.gates.len()).sum::<usize>());
    }
    check_choice(&findings.choice, candidate, layers);
    check_front(&findings.front);
}

fn check_choice(choice: &Choice, candidate: &Candidate, layers: usize) {
    let picks = [choice.layers_kept, choice.best, choice.one_se, choice.curve.unwrap_or(0)];
    assert!(picks.iter().all(|k| *k <= layers), "{picks:?}");
    assert!(choice.one_se <= choice.best && choice.bootstrap.len() == layers + 1);
    assert!((choice.bootstrap.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    let kept = match choice.verdict {
        Verdict::Trim => candidate.layers_kept,
        Verdict::KeepFull => layers,
        Verdict::UseBase => 0,
    };
    assert_eq!(answer(choice), (choice.verdict, choice.reason, kept));
    for gain in [choice.gain, choice.adapter_gain, choice.base_gain] {
        assert!(gain.low <= gain.mean + 1e-9 && gain.mean <= gain.high + 1e-9 && (0.0..=1.0).contains(&gain.p));
    }
}

/// Checks that exactly the points that no other dominates are on the Pareto front.
fn check_front(front: &[FrontPoint]) {
    let numbers = |point: &FrontPoint| [point.nll, point.bytes as f64, point.guard.unwrap_or(0.0)];
    for point in front {
        let is_dominated_by = |other: &FrontPoint| {
            let pairs = numbers(other).into_iter().zip(numbers(point));
            pairs.clone().all(|(a, b)| a <= b) && pairs.clone().any(|(a, b)| a < b)
        };
        assert_eq!(point.is_on_front, !front.iter().any(is_dominated_by), "{point:?}");
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let validation = prop_oneof![
        Just(Validation::Auto),
        Just(THIRD),
        (2..8_usize).prop_map(Validation::Folds),
        Just(Validation::HeldOut(0.5)),
    ];
    let strategy = prop_oneof![3 => Just(EXACT), 1 => Just(RACING)];
    let families = prop::sample::subsequence(all_families(), 0..4);
    let gates = prop::sample::subsequence(vec!["1", "0=0", "1=0.5,0.q_proj=0"], 0..2);
    let budget = prop_oneof![3 => Just(None), 1 => (0.0..1.0).prop_map(Some)];
    let guard = prop_oneof![3 => Just(0), 1 => 4..10_usize];
    let shape = (2..=LAYERS, 4..40_usize, guard, any::<u64>(), 0.0..0.5_f64);
    (shape, validation, strategy, families, gates, budget).prop_map(
        |((layers, samples, guard, seed, slope), validation, strategy, families, gates, budget)| {
            let nll = move |sample: &Sample, variant: &Variant| {
                let add = |hash, byte: u8| (hash * 31 + usize::from(byte)) % 9_973;
                let own = variant.spec().bytes().fold(seed as usize % 1_000, add);
                hardness(sample) - slope * strength(variant, 0) + 0.1 * noise(own, 3) + 0.2 * noise(sample.line, own)
            };
            let case = Case { table: with_norms(table(layers), NORMS), samples, guard, ..Case::new(nll) };
            let case = Case { energies: Some(ENERGIES[..layers].to_vec()), ..case };
            let effects = EffectSettings { places: Some(Places::Layers), ..EffectSettings::default() };
            let gates = gates.into_iter().map(str::to_owned).collect();
            let settings = SearchSettings::default();
            let settings = SearchSettings { validation, strategy, families, gates, budget, seed, effects, ..settings };
            Case { settings, ..case }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn findings_hold_together_whatever_the_scores_are(case in any_case()) {
        match case.study() {
            Err(Error::Usage(_)) => {}
            Err(error) => panic!("{error}"),
            Ok(_) => match case.try_run() {
                Ok(outcome) => check_findings(&case, &outcome),
                Err(Error::Usage(_)) => prop_assert!(case.settings.budget.is_some() || case.guard > 0),
                Err(error) => panic!("{error}"),
            },
        }
    }
}
