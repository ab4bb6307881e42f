//! Searches with families, controls, effects, a guard and a budget, on a tiny model whose adapter is damaged at known
//! places.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::path::{Path, PathBuf};

use common::{adapter, data, json, json_lines, model, run, search};
use serde_json::Value;

const ALL: &str = "top-k,global-alpha,leave-one-out,leave-one-in,per-module,window,ramp,magnitude-k,output-k,random-k,\
                   greedy,greedy-modules,strengths";

/// Searches, and reads the result. The dtype is always f32: with eight samples the verdict can depend on the last
/// digits.
fn found(adapter: &Path, out: &Path, more: &[&str]) -> (Value, String) {
    let run = search(&model(), adapter, &data(), out, &[&["--template", "none", "--dtype", "f32"], more].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    (json(&out.join("result.json")), run.stderr)
}

/// The trained adapter with LoRA strengths folded into it.
fn damaged(folder: &Path, gates: &str) -> PathBuf {
    let out = folder.join("damaged");
    let whole = adapter("trained");
    let run = run(["trim", "--gates", gates, "--adapter", whole.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    out
}

fn effects<'a>(result: &'a Value, kind: &str) -> &'a Vec<Value> {
    let measures = result["effects"]["measures"].as_array().unwrap();
    measures.iter().find(|measure| measure["kind"] == kind).unwrap()["values"].as_array().unwrap()
}

/// Effects of whole layers, in their order.
fn of_layers(result: &Value, kind: &str) -> Vec<f64> {
    let of_layer = |value: &&Value| value.get("module").is_none();
    effects(result, kind).iter().filter(of_layer).map(|value| value["value"].as_f64().unwrap()).collect()
}

#[test]
fn all_families_are_scored_and_compete() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let data = data();
    let guard = data.to_str().unwrap();
    let more = [
        &["--families", ALL, "--gates", "1=0.5,2.q_proj=0", "--effects", "modules"][..],
        &["--guard", guard, "--seed", "3", "--rule", "one-se"],
    ]
    .concat();
    let (result, stderr) = found(&adapter("trained"), &out, &more);
    assert!(stderr.contains("bottom-k (5), top-k (5)") && stderr.contains("layer passes per sample"), "{stderr}");
    assert!(stderr.contains("greedy (adaptive)"), "{stderr}");

    let variants = result["variants"].as_array().unwrap();
    for family in ALL.split(',').chain(["bottom-k", "given"]) {
        let members: Vec<&Value> = variants.iter().filter(|variant| variant["family"] == family).collect();
        assert!(!members.is_empty(), "{family}");
        assert!(members.iter().all(|member| member["selection"]["mean_nll"].is_number()), "{family}");
    }
    // A variant has one score, whichever family it belongs to.
    let nll = |label: &str, family: &str| {
        let is_it = |variant: &&Value| variant["label"] == label && variant["family"] == family;
        variants.iter().find(is_it).unwrap()["selection"]["mean_nll"].as_f64().unwrap()
    };
    assert_eq!(nll("full", "bottom-k"), nll("full", "top-k"));
    assert_eq!(nll("full", "bottom-k"), nll("strength 1", "global-alpha"));
    assert_eq!(nll("3 layers", "bottom-k"), nll("without layer 3", "leave-one-out"));

    // The simplest within one standard error of the best is chosen.
    let families = result["arbitration"]["families"].as_array().unwrap();
    let number = |family: &Value, name: &str| family[name].as_f64().unwrap();
    let chosen = families.iter().position(|family| family["is_chosen"] == true).unwrap();
    assert!(families.iter().any(|family| number(family, "deficit") == 0.0));
    let is_near = |family: &Value| number(family, "deficit") <= number(family, "se") * (1.0 + 1e-9);
    assert!(is_near(&families[chosen]) && !families[..chosen].iter().any(is_near));
    assert_eq!(families[chosen]["pick"], result["candidate"]);
    // Random layers are only compared.
    assert!(families.iter().all(|family| family["family"] != "random-k"));

    // The increments sum to the adapter's gain, and so do the Shapley values.
    assert!(json_lines(&out.join("scores.jsonl")).iter().any(|row| row["source"] == "guard"));
    assert_eq!(effects(&result, "leave-one-out").len(), 4 + 4 * 7);
    let total = |kind| of_layers(&result, kind).iter().sum::<f64>();
    assert!((total("shapley") - total("increment")).abs() < 1e-9, "{} {}", total("shapley"), total("increment"));
    // For the lowest layer, leave-one-in and the increment are the same effect.
    let [alone, step] = ["leave-one-in", "increment"].map(|kind| of_layers(&result, kind)[0]);
    // The sums are over the same samples in another order.
    assert!((alone - step).abs() < 1e-12, "{alone} {step}");
    assert_eq!(result["guard"]["selection"], 12);
    let is_best = |point: &&Value| point["is_on_front"] == true;
    assert!(result["front"].as_array().unwrap().iter().filter(is_best).count() >= 2);
    assert_eq!(json_lines(&out.join("tokens.jsonl")).len(), 24);

    // `trim --from` writes the candidate.
    let (out, cut) = (out.to_str().unwrap(), folder.path().join("cut"));
    let whole = adapter("trained");
    let trimmed = run(["trim", "--from", out, "--adapter", whole.to_str().unwrap(), "--out", cut.to_str().unwrap()]);
    assert_eq!(trimmed.code, Some(0), "{}", trimmed.stderr);
    assert_eq!(json(&cut.join("plimsoll.json"))["gates"], result["candidate"]["gates"]);
}

#[test]
fn a_harmful_layer_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = damaged(folder.path(), "3=5");
    let more = ["--families", "leave-one-out,strengths", "--effects", "layers", "--orders", "0", "--rule", "one-se"];
    let (result, _) = found(&damaged, &folder.path().join("out"), &more);
    let effects = of_layers(&result, "leave-one-out");
    let lowest = (0..4).min_by(|&a, &b| effects[a].total_cmp(&effects[b])).unwrap();
    assert!(lowest == 3 && effects[3] < -1.0, "{effects:?}");
    assert_eq!(result["candidate"]["gates"], "3=0");
    let families = result["arbitration"]["families"].as_array().unwrap();
    let strengths = families.iter().find(|family| family["family"] == "strengths").unwrap();
    assert!(strengths["pick"]["gates"].as_str().unwrap().ends_with("3=0"), "{strengths}");
}

#[test]
fn a_cut_is_compared_with_controls() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = damaged(folder.path(), "2=-3");
    let out = folder.path().join("out");
    let (result, _) = found(&damaged, &out, &["--holdout", "0.33", "--no-strength"]);
    assert_eq!((&result["choice"]["reason"], &result["candidate"]["gates"]), (&"better".into(), &"2-3=0".into()));
    let rows = result["controls"]["rows"].as_array().unwrap();
    let families: Vec<&str> = rows.iter().map(|row| row["family"].as_str().unwrap()).collect();
    assert_eq!(families, ["global-alpha", "random-k", "top-k"]);
    assert_eq!(rows[2]["gates"], serde_json::json!(["0-1=0"]));
    for row in rows {
        let (p, holm) = (row["cut_over"]["p"].as_f64().unwrap(), row["p_holm"].as_f64().unwrap());
        assert!(p <= holm && holm <= 1.0);
    }
    let shown = rows.iter().all(|row| row["p_holm"].as_f64().unwrap() < 0.025);
    assert!(shown || result["controls"]["depth"] == "not-shown");
    let (without, _) = found(&damaged, &out, &["--holdout", "0.33", "--no-strength", "--no-controls", "--force"]);
    assert!(without.get("controls").is_none());
    assert_eq!(without["choice"], result["choice"]);
}

#[test]
fn few_samples_judge_in_folds_and_a_budget_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (nested, _) = found(&adapter("trained"), &folder.path().join("nested"), &["--rule", "one-se"]);
    assert_eq!(nested["choice"]["validation"], serde_json::json!({ "kind": "nested", "folds": 10 }));
    assert_eq!((&nested["data"]["holdout"], &nested["choice"]["gain"]["samples"]), (&0.into(), &24.into()));

    let out = folder.path().join("budget");
    let (result, _) = found(&adapter("trained"), &out, &["--budget", "0.3", "--families", "leave-one-out,top-k"]);
    let most = 0.3 * result["adapter"]["bytes"].as_f64().unwrap();
    for family in result["arbitration"]["families"].as_array().unwrap() {
        assert!(family["pick"]["bytes"].as_f64().unwrap() <= most, "{family}");
    }
    assert!(result["candidate"]["bytes"].as_f64().unwrap() <= most);
}

#[test]
fn a_sequential_search_writes_the_adapter_of_the_exact_search() {
    let folder = tempfile::tempdir().unwrap();
    let search = |name: &str, strategy: &str| {
        let out = folder.path().join(name);
        let (result, _) = found(&adapter("trained"), &out, &["--search", strategy, "--margin", "60%"]);
        (result, std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap())
    };
    let ((exact, one), (sequential, other)) = (search("exact", "exact"), search("sequential", "sequential"));
    assert_eq!((&exact["choice"]["reason"], &exact["candidate"]), (&"not-worse".into(), &sequential["candidate"]));
    assert!(one == other && sequential["lens"]["full"].as_array().unwrap().is_empty());
    assert_eq!(sequential["choice"]["gain"], exact["choice"]["gain"]);
}

#[test]
fn an_adapter_that_is_too_strong_is_written_at_a_lower_strength() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = damaged(folder.path(), "1.7");
    for strategy in ["exact", "sequential"] {
        let out = folder.path().join(strategy);
        let (result, _) = found(&damaged, &out, &["--search", strategy]);
        let strength = result["strength"].as_object().unwrap();
        assert_eq!(strength["is_better"], true);
        assert_eq!(result["candidate"]["family"], "boundary-strength");
        let tuned = strength["strength"].as_f64().unwrap();
        assert!((0.25..=0.75).contains(&tuned), "{tuned}");
        assert!(result["choice"]["gain"]["low"].as_f64().unwrap() > 0.0);
        // Boundaries at the strength have a list of their own.
        let to = folder.path().join(format!("half-{strategy}"));
        let [from, adapter, trimmed] = [&out, &damaged, &to].map(|path| path.to_str().unwrap());
        let trim = ["trim", "--from", from, "--adapter", adapter, "--out", trimmed, "--margin", "50%"];
        let run = run(trim.into_iter().chain(["--family", "boundary-strength"]));
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(to.join("adapter_model.safetensors").exists());
        assert!(out.join("adapter/adapter_model.safetensors").exists());
    }
}

/// The candidate may be of another family than the boundaries that were raced.
#[test]
fn a_race_with_other_families_has_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = damaged(folder.path(), "0-3=3");
    let many = folder.path().join("many.jsonl");
    std::fs::write(&many, std::fs::read_to_string(data()).unwrap().repeat(4)).unwrap();
    let out = folder.path().join("out");
    let more = ["--template", "none", "--search", "racing", "--families", "global-alpha,top-k"];
    let run = search(&model(), &damaged, &many, &out, &more);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let result = json(&out.join("result.json"));
    assert_eq!(
        (&result["candidate"]["family"], &result["candidate"]["gates"]),
        (&"global-alpha".into(), &"0.25".into())
    );
    assert_eq!(result["choice"]["reason"], "better");
    // Line breaks may be anywhere.
    let text = run.stdout.replace('\n', " ");
    assert!(text.contains("Change the LoRA strengths: strength 0.25 (global-alpha)."), "{}", run.stdout);
    assert!(result["race"].is_object());
    // The trimmed adapter at strength 1 is the candidate that was judged.
    assert_eq!(json(&out.join("adapter/plimsoll.json"))["strengths"], serde_json::json!([0.25]));
}
