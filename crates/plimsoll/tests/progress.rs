//! What a search reports of itself: before it begins, and how far it is.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::collections::HashSet;
use std::fs;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::Path;

use common::{adapter_folder, golden};
use plimsoll::choose::Margin;
use plimsoll::data::{TemplateChoice, Turns};
use plimsoll::engine::EngineOptions;
use plimsoll::gates::{Family, Places};
use plimsoll::model::{Dtype, Precision};
use plimsoll::report::{Warning, forewarning};
use plimsoll::search::{Controls, Existing, Judges, Progress, Search, SearchOptions, Strategy};
use serde_json::Value;

const MODEL: &str = "tiny-gqa-tied";

const RACING: Strategy = Strategy::Racing { error_rate: 0.05 };

/// A search of the trained adapter on the first `samples` lines of the data, repeated as often as it takes.
fn options(folder: &Path, samples: usize) -> SearchOptions {
    let lines = fs::read_to_string(golden().join("data/valid.jsonl")).unwrap();
    let lines: Vec<&str> = lines.lines().cycle().take(samples).collect();
    let data = folder.join("data.jsonl");
    fs::write(&data, lines.join("\n")).unwrap();
    SearchOptions {
        model: golden().join(MODEL),
        adapter: adapter_folder(MODEL, "trained"),
        ends: None,
        data,
        out: folder.join("out"),
        template: TemplateChoice::None,
        turns: Turns::Last,
        max_samples: None,
        max_length: None,
        long: plimsoll::data::LongSamples::Skip,
        judges: Judges::Suitable,
        strategy: Strategy::Exact,
        metric: None,
        metric_candidates: 3,
        families: Vec::new(),
        given: Vec::new(),
        controls: Controls::Scored,
        effects: None,
        effect_samples: NonZero::new(4).unwrap(),
        order_pairs: 1,
        guard: None,
        guard_margin: 0.01,
        margin: Margin::Share(0.98),
        budget: None,
        token_samples: 4,
        lens_samples: NonZero::new(4).unwrap(),
        seed: 0,
        engine: EngineOptions { precision: Precision::new(Dtype::F32), ..EngineOptions::default() },
        scratch: folder.to_owned(),
        existing: Existing::Refuse,
        command: String::new(),
    }
}

/// All reports of a search, and its journal.
fn reports(options: SearchOptions) -> (Vec<Progress>, Vec<Value>) {
    let journal = options.out.join("journal.jsonl");
    let mut reports = Vec::new();
    let search = Search::open(options).unwrap();
    let scored = search.score(&mut |progress| {
        reports.push(progress);
        ControlFlow::Continue(())
    });
    scored.unwrap();
    let journal = fs::read_to_string(journal).unwrap();
    (reports, journal.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Whether progress goes only forward to one total, and is all only at the end.
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

/// How many scores each sample got under each variant, but for those that have the NLL of single tokens too.
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
fn progress_of_boundaries_goes_forward_to_one_total() {
    for judges in [Judges::Folds(8), Judges::HeldOut(0.33)] {
        let folder = tempfile::tempdir().unwrap();
        let (reports, journal) = reports(SearchOptions { judges, ..options(folder.path(), 24) });
        check(&reports);
        check_once(&journal);
        assert!(stages(&reports).contains(&"controls"), "{:?}", stages(&reports));
        // Where nothing is left out, the bounds are the work.
        let spent = reports.last().unwrap().spent;
        assert!(spent * 100 >= reports[0].total * 50, "{spent} of {}", reports[0].total);
    }
}

#[test]
fn controls_are_scored_in_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (reports, _) = reports(SearchOptions { judges: Judges::Folds(8), ..options(folder.path(), 24) });
    let samples: Vec<usize> =
        reports.iter().filter(|progress| progress.stage == "controls").map(|progress| progress.samples).collect();
    assert!(samples.is_sorted() && samples.last() == Some(&24), "{samples:?}");
}

#[test]
fn progress_of_a_race_goes_forward_to_one_total() {
    let folder = tempfile::tempdir().unwrap();
    let options = SearchOptions { strategy: RACING, families: vec![Family::TopK], ..options(folder.path(), 96) };
    check(&reports(options).0);
}

#[test]
fn progress_of_everything_at_once_goes_forward_to_one_total() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 24);
    let families = vec![Family::OutputK, Family::MagnitudeK, Family::GlobalAlpha, Family::Greedy, Family::Strengths];
    let guard = Some(options.data.clone());
    let options = SearchOptions { families, guard, effects: Some(Places::Modules), ..options };
    let (reports, _) = reports(options);
    check(&reports);
    let stages = stages(&reports);
    for stage in ["outputs of layers", "choosing", "guard", "greedy", "strengths", "judging", "effects", "efficiency"] {
        assert!(stages.contains(&stage), "{stage}: {stages:?}");
    }
}

#[test]
fn progress_of_a_metric_goes_forward_to_one_total() {
    let folder = tempfile::tempdir().unwrap();
    let task = folder.path().join("ship.toml");
    let text =
        "name = \"ship\"\nprompt = \"-\"\nreferences = [\"-\"]\nmax_tokens = 40\n[[metrics]]\nkind = \"squad-f1\"\n";
    fs::write(&task, text).unwrap();
    let metric = Some(task.display().to_string());
    let (reports, _) = reports(SearchOptions { metric, ..options(folder.path(), 24) });
    check(&reports);
    assert!(reports.iter().any(|progress| progress.answers.is_some_and(|(done, of)| 0 < done && done == of)));
}

#[test]
fn a_resumed_search_has_less_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 24);
    let mut whole = 0;
    let search = Search::open(options.clone()).unwrap();
    let stopped = search.score(&mut |progress| {
        whole = progress.total;
        if progress.stage == "judging" || progress.stage == "controls" {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(stopped.is_err());
    let (reports, _) = reports(options);
    check(&reports);
    assert!(reports[0].total < whole, "{} of {whole}", reports[0].total);
}

fn warnings(options: SearchOptions) -> Vec<Warning> {
    Search::open(options).unwrap().forewarnings().to_vec()
}

#[test]
fn too_few_samples_to_show_anything_are_reported_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let at = |samples, judges| warnings(SearchOptions { judges, ..options(folder.path(), samples) });
    assert_eq!(at(6, Judges::Suitable), [Warning::CannotShow { judging: 6, needed: 7, samples: 7 }]);
    assert_eq!(at(7, Judges::Suitable), []);
    assert_eq!(at(19, Judges::HeldOut(0.33)), [Warning::CannotShow { judging: 6, needed: 7, samples: 20 }]);
    assert_eq!(at(20, Judges::HeldOut(0.33)), []);
    assert_eq!(
        forewarning(&at(19, Judges::HeldOut(0.33))[0]).unwrap(),
        "Too few samples to show anything: 6 samples to judge by, and the tests need at least 7 (20 samples in all). Add \
         samples: with so few the verdict can only be to keep the full adapter. An exact search of the boundaries, without \
         --holdout, lets all samples judge."
    );
}

#[test]
fn a_race_that_can_drop_nothing_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |samples| SearchOptions { strategy: RACING, ..options(folder.path(), samples) };
    assert_eq!(warnings(at(12)), [Warning::NotRaced { selection: 8, needed: 9 }]);
    assert_eq!(warnings(at(14)), [Warning::CannotShow { judging: 5, needed: 7, samples: 20 }]);
    let search = Search::open(at(12)).unwrap();
    let scored = search.score(&mut |_| ControlFlow::Continue(())).unwrap();
    let result = search.finish(&scored).unwrap().result;
    assert!(result.race.is_none());
    assert_eq!(result.warnings[0], Warning::NotRaced { selection: 8, needed: 9 });
    // All samples judge, as without `--search racing`.
    assert_eq!((result.data.selection, result.choice.gain.samples), (12, 12));
}
