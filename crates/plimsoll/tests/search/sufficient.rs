//! The rule of sufficient layers, and sequential searches.

use super::*;

/// Layers 0 and 1 have most of the worth, and the upper layers less and less.
const FADING: [f64; LAYERS] = [0.5, 0.3, 0.1, 0.06, 0.03, 0.01];

fn fading() -> Case {
    Case::new(worth(FADING))
}

#[test]
fn each_margin_has_the_fewest_layers_that_hold_it() {
    for validation in [THIRD, Validation::Auto] {
        let findings = fading().with(|settings| settings.validation = validation).run();
        // Without the top layer 1 % is lost, then 4, 10 and 20 %; all samples test.
        assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 5), "{validation:?}");
        assert_eq!((findings.choice.validation, findings.choice.gain.samples), (Judged::All, 60));
        let [list] = &findings.sufficient[..] else { panic!("{:?}", findings.sufficient) };
        let kept: Vec<usize> = list.rows.iter().map(|row| row.answer.layers_kept).collect();
        assert_eq!((list.family, list.samples, &kept[1..]), (Family::BottomK, 60, &[5, 4, 4, 3, 2][..]));
        let bytes: Vec<u64> = list.rows[1..].iter().map(|row| row.bytes).collect();
        assert_eq!(bytes, [84, 68, 68, 52, 36]);
        for share in &list.shares {
            let truth: f64 = FADING[..share.layers_kept].iter().sum();
            assert!(share.retained.low < truth + 1e-3 && truth < share.retained.high + 1e-3, "{share:?}");
        }
        assert_eq!(list.shares.len(), LAYERS - 1);
    }
}

#[test]
fn the_margin_decides_how_many_layers_are_kept() {
    let kept = |margin| {
        let findings = fading().with(|settings| settings.margin = margin).run();
        let row = findings.sufficient[0].row(margin).cloned().unwrap();
        assert_eq!(row.gates, findings.candidate.gates);
        (findings.choice.layers_kept, row.answer.stop)
    };
    assert!(matches!(kept(Margin::Share(0.85)), (3, Stop::LosesMore { layers_kept: 2, .. })));
    assert!(matches!(kept(Margin::Share(0.45)), (1, Stop::NoMoreCuts)));
    // Without layers 3 to 5, 0.1 nats are lost.
    assert!(matches!(kept(Margin::Nats(0.15)), (3, Stop::LosesMore { layers_kept: 2, .. })));
    assert!(matches!(kept(Margin::Nats(10.0)), (1, Stop::NoMoreCuts)));
}

#[test]
fn a_cut_that_is_better_comes_before_one_that_is_sufficient() {
    let findings =
        Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])).with(|settings| settings.validation = THIRD).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4));
    assert_eq!(findings.choice.validation, Judged::Holdout);
    assert!(findings.sufficient[0].rows.iter().all(|row| row.answer.layers_kept <= 4));
}

#[test]
fn a_share_near_the_margin_is_left_open() {
    let nll = |sample: &Sample, variant: &Variant| {
        worth(FADING)(sample, variant) + 0.05 * noise(sample.line, 17) * (1.0 - strength(variant, 5))
    };
    let findings = Case::new(nll).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::NotShown, LAYERS));
    assert!(findings.choice.abstains && findings.choice.power.is_some());
    assert!(matches!(findings.sufficient[0].rows[1].answer.stop, Stop::NotShown { layers_kept: 5, p } if p > 0.025));
    // A wider margin is shown.
    assert_eq!(findings.sufficient[0].rows[2].answer.layers_kept, 5);
}

#[test]
fn families_of_a_fixed_order_are_tested_in_their_own_order() {
    // The lower layers are worth least.
    let mut upside_down = FADING;
    upside_down.reverse();
    let case = Case { table: with_norms(table(LAYERS), upside_down), ..Case::new(worth(upside_down)) };
    let case = case.with_families(&[Family::TopK, Family::MagnitudeK, Family::OutputK], &[]);
    let case = Case { energies: Some(upside_down.to_vec()), ..case };
    let findings = case.with(|settings| settings.margin = Margin::Share(0.95)).run();
    let kept: Vec<_> = findings.sufficient.iter().map(|list| (list.family, list.rows[2].answer.layers_kept)).collect();
    assert_eq!(kept, [(Family::BottomK, 6), (Family::TopK, 4), (Family::MagnitudeK, 4)]);
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 4));
    assert_eq!((findings.candidate.family, findings.candidate.gates.as_str()), (Family::TopK, "0-1=0"));
}

#[test]
fn a_budget_begins_the_tests_at_the_largest_cut_within_it() {
    let budget =
        |share| fading().with(|settings| (settings.budget, settings.margin) = (Some(share), Margin::Share(0.95)));
    let findings = budget(0.7).run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 4));
    let findings = budget(0.4).run();
    assert_eq!(answer(&findings.choice), (Verdict::KeepFull, Reason::AllNeeded, LAYERS));
    assert_eq!(findings.candidate.layers_kept, 2);
}

#[test]
fn other_rules_are_used_if_they_are_asked_for() {
    let kept = |rule| {
        let findings = fading().with(|settings| (settings.rule, settings.validation) = (Some(rule), THIRD)).run();
        assert_eq!((findings.choice.rule, findings.sufficient.len()), (rule, 1));
        findings.candidate.layers_kept
    };
    assert_eq!(kept(Rule::Best), LAYERS);
    assert_eq!(kept(Rule::Sufficient), 5);
    assert!((1..=LAYERS).contains(&kept(Rule::Curve)));
}

/// 24 layers, of which the upper ones are worth less and less.
fn tall(strategy: search::Strategy, margin: f64) -> Case {
    const TALL: usize = 24;
    let worths: [f64; TALL] = std::array::from_fn(|layer| 0.2 * 0.8_f64.powi(layer as i32));
    let case = Case { table: table(TALL), samples: 32, ..Case::new(worth(worths)) };
    case.with(|settings| (settings.strategy, settings.margin) = (strategy, Margin::Share(margin)))
}

#[test]
fn a_sequential_search_finds_what_the_exact_search_finds() {
    for margin in [0.99, 0.95, 0.8, 0.3] {
        let (exact, sequential) = (tall(EXACT, margin).run(), tall(SEQUENTIAL, margin).run());
        assert_eq!(answer(&exact.choice), answer(&sequential.choice), "{margin}");
        assert_eq!((&exact.candidate, exact.choice.gain), (&sequential.candidate, sequential.choice.gain), "{margin}");
        assert_eq!(sequential.choice.validation, Judged::All);
        let rows = |findings: &Findings| {
            let rows = findings.sufficient[0].rows.clone().into_iter();
            rows.take_while(|row| row.answer.margin != Margin::Share(margin)).collect::<Vec<_>>()
        };
        assert_eq!(rows(&exact), rows(&sequential), "{margin}");
    }
}

#[test]
fn a_sequential_search_scores_no_more_than_the_margin_needs() {
    let scored = |margin| {
        let outcome = tall(SEQUENTIAL, margin).try_run().unwrap();
        // Each sample once under each variant.
        assert!(outcome.scored.values().all(|times| *times == 1));
        let boundaries = outcome.findings.variants.iter().filter(|variant| variant.family == Family::BottomK).count();
        // And the adapter at strengths 0.75 and 1.25.
        assert_eq!(outcome.scored.len(), 32 * (boundaries + 2));
        boundaries
    };
    // The base model, the full adapter, and groups of 4, 8 and 11 boundaries.
    assert_eq!([0.999, 0.995, 0.95, 0.3].map(scored), [6, 6, 14, 25]);
    let findings = tall(SEQUENTIAL, 0.995).run();
    let last = findings.sufficient[0].rows.last().unwrap();
    assert_eq!(last.answer.stop, Stop::NotScored { layers_kept: 19 });
    assert!(findings.lens.full.is_empty() && findings.choice.curve.is_none() && findings.controls.is_none());
}

#[test]
fn what_a_sequential_search_cannot_do_is_refused() {
    let refused = |change: fn(&mut SearchSettings)| tall(SEQUENTIAL, 0.9).with(change).refused();
    let text = refused(|settings| settings.validation = THIRD);
    assert!(text.contains("it cannot be used with --holdout or --folds"), "{text}");
    for (change, word) in [
        ((|settings| settings.rule = Some(Rule::Best)) as fn(&mut SearchSettings), "--rule"),
        (|settings| settings.families = vec![Family::TopK], "--families"),
        (|settings| settings.budget = Some(0.5), "--budget"),
        (|settings| settings.effects.places = Some(Places::Layers), "--effects"),
    ] {
        let text = refused(change);
        assert!(text.contains("--search sequential cannot be used with") && text.contains(word), "{text}");
    }
}

#[test]
fn rules_that_cannot_be_used_are_refused() {
    let refused = |change: fn(&mut SearchSettings)| fading().with(change).refused();
    let text = refused(|settings| (settings.rule, settings.strategy) = (Some(Rule::Sufficient), RACING));
    assert!(text.contains("it cannot be used with --search racing"), "{text}");
    let text = refused(|settings| (settings.rule, settings.validation) = (Some(Rule::Curve), Validation::Folds(5)));
    assert!(text.contains("--folds cannot be used with --rule curve"), "{text}");
    let text = refused(|settings| (settings.rule, settings.strategy) = (Some(Rule::Best), RACING));
    assert!(text.contains("--rule best picks among all boundaries"), "{text}");
    let text = refused(|settings| (settings.rule, settings.families) = (Some(Rule::Curve), vec![Family::TopK]));
    assert!(text.contains("--rule curve picks among all boundaries"), "{text}");
}

/// 24 layers of which the upper ones are worth nothing, on many samples.
fn clear(samples: usize, margin: f64) -> Case {
    const TALL: usize = 24;
    let worths: [f64; TALL] = std::array::from_fn(|layer| if layer < 20 { 0.05 } else { 0.0 });
    let case = Case { table: table(TALL), samples, ..Case::new(worth(worths)) };
    case.with(|settings| (settings.strategy, settings.margin) = (SEQUENTIAL, Margin::Share(margin)))
}

#[test]
fn half_of_the_samples_are_enough_if_they_settle_the_answer() {
    let outcome = clear(100, 0.98).try_run().unwrap();
    let findings = &outcome.findings;
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 20));
    assert_eq!((findings.unused, findings.choice.gain.samples, findings.sufficient[0].samples), (50, 50, 50));
    assert_eq!(findings.scores.len(), 50);
    let lines: HashSet<usize> = outcome.scored.keys().map(|(line, _)| *line).collect();
    assert_eq!(lines.len(), 50);
    // The level of the look is low, so the intervals are wide.
    assert!((findings.rules.alpha - 2.0 * 0.001_525).abs() < 1e-5, "{}", findings.rules.alpha);
    // With fewer samples there is no look.
    let few = clear(63, 0.98).run();
    assert_eq!((few.unused, few.choice.gain.samples, few.rules.alpha), (0, 63, 0.05));
}

#[test]
fn all_samples_are_scored_once_if_half_of_them_settle_nothing() {
    let nll = |sample: &Sample, variant: &Variant| {
        worth(FADING)(sample, variant) - 0.07 * noise(sample.line, 17) * (1.0 - strength(variant, 5))
    };
    let case = Case { samples: 80, ..Case::new(nll) };
    let outcome = case.with(|settings| settings.strategy = SEQUENTIAL).try_run().unwrap();
    let findings = &outcome.findings;
    assert_eq!((findings.unused, findings.choice.gain.samples, findings.scores.len()), (0, 80, 80));
    assert!(findings.choice.abstains && outcome.scored.values().all(|times| *times == 1));
    assert!((findings.rules.alpha - 2.0 * 0.024_5).abs() < 1e-5, "{}", findings.rules.alpha);
}
