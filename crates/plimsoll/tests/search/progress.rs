//! Reports of a search: warnings before it starts, and progress.

use std::collections::HashSet;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use plimsoll::choose::Rule;
use plimsoll::data::{DataOptions, Dataset, TemplateChoice};
use plimsoll::engine::CpuOptions;
use plimsoll::lora::{Family, Places};
use plimsoll::model::{Dtype, Precision};
use plimsoll::report::forewarning;
use plimsoll::result::Warning;
use plimsoll::search::{EffectSettings, OutputFolder, Progress, Search, SearchSettings, Strategy, Validation};
use plimsoll::{Adapter, Error, Existing, Model};
use serde_json::Value;

use crate::common::{adapter_folder, golden};

const MODEL: &str = "tiny-gqa-tied";

/// The inputs of a search: the trained adapter, and the first `samples` lines of the data, repeated if there are fewer.
struct Case {
    model: Model,
    adapter: Adapter,
    data: Dataset,
    output: OutputFolder,
    scratch: PathBuf,
}

impl Case {
    fn new(folder: &Path, samples: usize) -> Self {
        let lines = fs::read_to_string(golden().join("data/valid.jsonl")).unwrap();
        let lines: Vec<&str> = lines.lines().cycle().take(samples).collect();
        let data = folder.join("data.jsonl");
        fs::write(&data, lines.join("\n")).unwrap();
        let adapter = adapter_folder(MODEL, "trained");
        Self {
            model: Model::open(golden().join(MODEL)).unwrap(),
            adapter: Adapter::open(&adapter).unwrap(),
            data: Dataset::from_jsonl(data).unwrap(),
            output: OutputFolder::new(folder.join("out"), Existing::Refuse, &adapter).unwrap(),
            scratch: folder.to_owned(),
        }
    }

    fn search(&self, settings: SearchSettings) -> Search<'_> {
        plimsoll::search(&self.model, &self.adapter, &self.data)
            .settings(settings)
            .data_options(DataOptions { template: TemplateChoice::None, ..DataOptions::default() })
            .cpu_options(CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() })
            .journal(&self.output)
            .measure_efficiency(&self.scratch)
    }

    fn warnings(&self, settings: SearchSettings) -> Vec<Warning> {
        self.search(settings).prepare().unwrap().forewarnings().to_vec()
    }
}

/// Settings of a short search.
fn settings() -> SearchSettings {
    SearchSettings {
        metric_candidates: 3,
        effects: EffectSettings { samples: NonZero::new(4).unwrap(), order_pairs: 1, ..EffectSettings::default() },
        token_samples: 4,
        lens_samples: NonZero::new(4).unwrap(),
        // Its candidate is a cut, which is compared with controls.
        rule: Some(Rule::OneSe),
        ..SearchSettings::default()
    }
}

/// Runs a search. Returns its progress reports and the rows of its journal.
fn reports(search: Search<'_>, output: &OutputFolder) -> (Vec<Progress>, Vec<Value>) {
    let mut reports = Vec::new();
    search.on_progress(|progress| reports.push(progress)).run().unwrap();
    let journal = fs::read_to_string(output.path().join("journal.jsonl")).unwrap();
    (reports, journal.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Asserts that progress does not decrease, that the total does not change, and that only the last report reaches it.
fn check(reports: &[Progress]) {
    let [first, .., last] = reports else { panic!("{reports:?}") };
    assert!(first.done == 0 && first.total > 0 && first.rate > 0.0, "{first:?}");
    for pair in reports.windows(2) {
        assert!(pair[0].done <= pair[1].done && pair[0].spent <= pair[1].spent, "{pair:?}");
        assert_eq!(pair[0].total, pair[1].total, "{pair:?}");
        assert!(pair[0].done < pair[0].total, "{pair:?}");
        assert!(pair[1].samples <= pair[1].of, "{pair:?}");
    }
    assert_eq!(last.done, last.total, "{last:?}");
}

/// Asserts that each sample was scored once under each variant, and at most once more with the NLL of its tokens.
fn check_once(journal: &[Value]) {
    let mut seen = HashSet::new();
    for row in journal {
        let is_of_tokens = row.get("token_nll").is_some();
        for gates in row["gates"].as_array().unwrap() {
            let key = format!("{} {} {} {gates} {is_of_tokens}", row["source"], row["part"], row["line"]);
            assert!(seen.insert(key.clone()), "scored twice: {key}");
        }
    }
    assert!(!seen.is_empty());
}

fn stages(reports: &[Progress]) -> Vec<&'static str> {
    let mut stages: Vec<_> = reports.iter().map(|progress| progress.stage).collect();
    stages.dedup();
    stages
}

#[test]
fn progress_of_boundaries_reaches_a_constant_total() {
    for validation in [Validation::Folds(8), Validation::HeldOut(0.33)] {
        let folder = tempfile::tempdir().unwrap();
        let case = Case::new(folder.path(), 24);
        let (reports, journal) = reports(case.search(SearchSettings { validation, ..settings() }), &case.output);
        check(&reports);
        check_once(&journal);
        assert!(stages(&reports).contains(&"controls"), "{:?}", stages(&reports));
        // No stage is skipped, so the work done is at least half of the bound.
        let spent = reports.last().unwrap().spent;
        assert!(spent * 100 >= reports[0].total * 50, "{spent} of {}", reports[0].total);
    }
}

#[test]
fn controls_are_scored_in_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path(), 24);
    let settings = SearchSettings { validation: Validation::Folds(8), ..settings() };
    let (reports, _) = reports(case.search(settings), &case.output);
    let samples: Vec<usize> =
        reports.iter().filter(|progress| progress.stage == "controls").map(|progress| progress.samples).collect();
    assert!(samples.is_sorted() && samples.last() == Some(&24), "{samples:?}");
}

#[test]
fn progress_of_a_race_reaches_a_constant_total() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path(), 96);
    let settings = SearchSettings { strategy: Strategy::RACING, families: vec![Family::TopK], ..settings() };
    check(&reports(case.search(settings), &case.output).0);
}

#[test]
fn progress_of_all_stages_reaches_a_constant_total() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path(), 24);
    let families = vec![Family::OutputK, Family::MagnitudeK, Family::GlobalAlpha, Family::Greedy, Family::Strengths];
    let effects = EffectSettings { places: Some(Places::Modules), ..settings().effects };
    let settings = SearchSettings { families, effects, ..settings() };
    let (reports, _) = reports(case.search(settings).guard(&case.data), &case.output);
    check(&reports);
    let stages = stages(&reports);
    for stage in ["outputs of layers", "choosing", "guard", "greedy", "strengths", "judging", "effects", "efficiency"] {
        assert!(stages.contains(&stage), "{stage}: {stages:?}");
    }
}

#[test]
fn progress_of_a_metric_reaches_a_constant_total() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("ship.toml");
    let text =
        "name = \"ship\"\nprompt = \"-\"\nreferences = [\"-\"]\nmax_tokens = 40\n[[metrics]]\nkind = \"squad-f1\"\n";
    fs::write(&task, text).unwrap();
    let case = Case::new(folder.path(), 24);
    let (reports, _) = reports(case.search(settings()).metric(task.display().to_string()), &case.output);
    check(&reports);
    assert!(reports.iter().any(|progress| progress.answers.is_some_and(|(done, of)| 0 < done && done == of)));
}

#[test]
fn a_resumed_search_has_less_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(folder.path(), 24);
    let mut total = 0;
    let stopped = case.search(settings()).on_step(|progress| {
        total = progress.total;
        if progress.stage == "judging" || progress.stage == "controls" {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(stopped.run(), Err(Error::Interrupted)));
    let (reports, _) = reports(case.search(settings()), &case.output);
    check(&reports);
    assert!(reports[0].total < total, "{} of {total}", reports[0].total);
}

#[test]
fn too_few_samples_to_show_anything_are_reported_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let warnings =
        |samples, validation| Case::new(folder.path(), samples).warnings(SearchSettings { validation, ..settings() });
    assert_eq!(warnings(6, Validation::Auto), [Warning::CannotShow { judging: 6, needed: 7, samples: 7 }]);
    assert_eq!(warnings(7, Validation::Auto), []);
    assert_eq!(warnings(19, Validation::HeldOut(0.33)), [Warning::CannotShow { judging: 6, needed: 7, samples: 20 }]);
    assert_eq!(warnings(20, Validation::HeldOut(0.33)), []);
    assert_eq!(
        forewarning(&warnings(19, Validation::HeldOut(0.33))[0]).unwrap(),
        "Too few samples to show anything: 6 samples to judge by, and the tests need at least 7 (20 samples in all). \
         Add samples: with so few the verdict can only be to keep the full adapter. An exact search of the \
         boundaries, without --holdout, lets all samples judge."
    );
}

#[test]
fn a_race_that_can_drop_no_boundary_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || SearchSettings { strategy: Strategy::RACING, ..settings() };
    let case = Case::new(folder.path(), 12);
    assert_eq!(case.warnings(settings()), [Warning::NotRaced { selection: 8, needed: 9 }]);
    let more = Case::new(folder.path(), 14);
    assert_eq!(more.warnings(settings()), [Warning::CannotShow { judging: 5, needed: 7, samples: 20 }]);
    let found = case.search(settings()).run().unwrap();
    let result = found.result();
    assert!(result.race.is_none());
    assert_eq!(result.warnings[0], Warning::NotRaced { selection: 8, needed: 9 });
    // All samples are judging samples, as without `--search racing`.
    assert_eq!((result.data.selection, result.choice.gain.samples), (12, 12));
}
