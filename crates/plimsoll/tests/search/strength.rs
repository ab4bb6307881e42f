//! The LoRA strength of the whole adapter, and boundaries at it.

use super::*;

/// Every layer is worth something, and most at the strength `best`: its part of the loss is a parabola.
fn at_best(best: f64, worths: [f64; LAYERS]) -> impl Fn(&Sample, &Variant) -> f64 {
    move |sample, variant| {
        let gain = |layer: usize| {
            let strength = strength(variant, layer);
            worths[layer] * share(sample, layer) * strength * (2.0 * best - strength) / (best * best)
        };
        hardness(sample) - (0..LAYERS).map(gain).sum::<f64>()
    }
}

const EVEN: [f64; LAYERS] = [0.2; LAYERS];

#[test]
fn an_adapter_that_was_trained_too_long_is_used_at_a_lower_strength() {
    for (strategy, validation) in [(EXACT, Validation::Auto), (EXACT, THIRD), (SEQUENTIAL, Validation::Auto)] {
        let case = Case::new(at_best(0.5, EVEN));
        let case = case.with(|settings| (settings.strategy, settings.validation) = (strategy, validation));
        let outcome = case.try_run().unwrap();
        let findings = outcome.findings;
        assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::BetterThanBase, LAYERS), "{strategy:?}");
        let candidate = &findings.candidate;
        assert_eq!((candidate.family, candidate.gates.as_str()), (Family::BoundaryStrength, "0.5"));
        assert_eq!(candidate.bytes, case.table.total_bytes());
        // At strength 1 the adapter gains nothing, so there are no shares of its gain.
        assert_eq!((findings.sufficient.len(), findings.controls.is_none()), (1, true));
        let tuned = findings.strength.unwrap();
        assert_eq!((tuned.strength, tuned.is_better, tuned.folds), (0.5, true, 10));
        let tried: Vec<f64> = tuned.tried.iter().map(|tried| tried.strength).collect();
        assert_eq!(tried, [0.25, 0.5, 0.75, 1.0]);
        assert!(tuned.gain == findings.choice.gain && tuned.gain.low > 0.0 && tuned.gain.samples == 60);
        assert!(outcome.scored.values().all(|times| *times <= 2));
    }
}

#[test]
fn at_the_strength_the_layers_that_hold_the_margin_are_kept() {
    let worths = [0.5, 0.3, 0.2, 0.1, 0.002, 0.001];
    for (strategy, validation) in [(EXACT, Validation::Auto), (EXACT, THIRD), (SEQUENTIAL, Validation::Auto)] {
        let case = Case::new(at_best(0.75, worths));
        let case = case.with(|settings| (settings.strategy, settings.validation) = (strategy, validation));
        let findings = case.run();
        assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::Better, 4), "{strategy:?}");
        assert_eq!(findings.choice.validation, Judged::Nested { folds: 10 });
        let candidate = &findings.candidate;
        assert_eq!((candidate.label.as_str(), candidate.bytes), ("layers 0–3 at strength 0.75", 68));
        assert_eq!(candidate.gates, "0-3=0.75,4-5=0");
        let held = findings.strength.unwrap().sufficient.unwrap();
        assert!(held.layers_kept == 4 && matches!(held.stop, Stop::LosesMore { layers_kept: 3, .. }), "{held:?}");
        // A gain of 2·0.75 − 1 of 0.75² as trained: 8 of 9.
        let list = &findings.sufficient[1];
        assert_eq!((list.family, list.rows[0].answer.margin), (Family::BoundaryStrength, Margin::Share(1.0)));
        let share = list.share(4).unwrap().retained;
        let truth = 9.0 / 8.0 * 1.1 / 1.103;
        assert!(share.low < truth && truth < share.high, "{share:?}");
        assert_eq!((list.shares[0].layers_kept, list.rows[0].answer.layers_kept), (LAYERS, 3));
        // Sets of layers are compared at the strength of the cut.
        if strategy == EXACT {
            let controls = findings.controls.unwrap();
            assert_eq!(controls.rows[2].gates, ["0-1=0,2-5=0.75"]);
            let samples = if validation == THIRD { 20 } else { 60 };
            assert!(controls.rows.iter().all(|row| row.cut_over.samples == samples));
        }
    }
}

#[test]
fn an_adapter_that_was_trained_well_keeps_its_strength() {
    let case = Case::new(at_best(1.0, [0.5, 0.3, 0.2, 0.1, 0.0, 0.0]));
    let findings = case.run();
    assert_eq!(answer(&findings.choice), (Verdict::Trim, Reason::NotWorse, 4));
    let tuned = findings.strength.unwrap();
    let tried: Vec<f64> = tuned.tried.iter().map(|tried| tried.strength).collect();
    assert_eq!((tuned.strength, tuned.is_better, tried), (1.0, false, vec![0.75, 1.0]));
    assert_eq!((tuned.gain.mean, tuned.sufficient), (0.0, None));
    assert_eq!(findings.sufficient.len(), 1);
}

#[test]
fn an_adapter_that_was_trained_too_briefly_is_used_at_a_higher_strength() {
    let findings = Case::new(at_best(1.25, EVEN)).run();
    assert_eq!((findings.choice.reason, findings.candidate.gates.as_str()), (Reason::Better, "1.25"));
    let tried: Vec<f64> = findings.strength.unwrap().tried.iter().map(|tried| tried.strength).collect();
    assert_eq!(tried, [0.75, 1.0, 1.25, 1.5]);
}

#[test]
fn a_cut_that_gains_more_than_a_strength_comes_first() {
    // Without the upper layers the loss falls by 0.4, at the best strength by less.
    let findings = Case::new(worth([0.3, 0.2, 0.2, 0.1, -0.2, -0.2])).run();
    assert_eq!((findings.choice.reason, findings.candidate.family), (Reason::Better, Family::BottomK));
}

#[test]
fn the_strength_is_tuned_only_where_it_can_be() {
    let case = || Case::new(at_best(0.75, EVEN));
    let capabilities = Capabilities { strengths: false, ..Capabilities::ALL };
    let without = Case { capabilities, ..case() };
    let omitted = case().with(|settings| settings.strength = StrengthSearch::AsTrained);
    let other_rule = case().with(|settings| settings.rule = Some(Rule::OneSe));
    for case in [without, omitted, other_rule] {
        let Outcome { findings, scored, .. } = case.try_run().unwrap();
        assert!(findings.strength.is_none() && findings.candidate.family == Family::BottomK);
        let is_wanted = |gates: &str| gates.contains("0.75") && case.settings.rule.is_none();
        assert!(!scored.keys().any(|(_, gates)| is_wanted(gates)), "{:?}", scored.keys());
    }
    let refused = case().with_families(&[Family::BoundaryStrength], &[]).refused();
    assert!(refused.contains("the strength is tuned in every search"), "{refused}");
}

#[test]
fn a_budget_holds_at_the_strength_too() {
    let findings = Case::new(at_best(0.75, EVEN)).with(|settings| settings.budget = Some(0.9)).run();
    assert!(findings.candidate.bytes as f64 <= 0.9 * 100.0, "{:?}", findings.candidate);
}
