//! Schema, Markdown, table and comparison of results with everything that a search can measure.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use plimsoll::choose::{Gain, JudgingSamples};
use plimsoll::lora::Family;
use plimsoll::metrics::compare::Estimate;
use plimsoll::report::{Form, Sort, Style, compare, comparison, comparison_html, markdown, table, unique_names};
use plimsoll::result::{
    Agreement, Arbitration, Candidate, Comparison, Control, Controls, Depth, Document, DroppedBoundary, EffectKind,
    EffectMeasure, EffectValue, Effects, Efficiency, FamilySummary, FrontPoint, GuardSummary, MetricSummary,
    MetricVariant, RaceSummary, ScoreSummary, SearchResult, Speed, VariantEfficiency, VariantSummary, schema,
};
use serde_json::{Map, Value, json};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/result.json");
const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

// Schema

#[test]
fn the_published_schemas_match_the_code() {
    let written = [
        ("result", schema(Document::Result)),
        ("tokens", schema(Document::Tokens)),
        ("scores", schema(Document::Scores)),
        ("comparison", schema(Document::Comparison)),
    ];
    for (name, text) in written {
        let path = format!("{DOCS}/{name}.schema.json");
        if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
            fs::write(&path, &text).unwrap();
        }
        assert!(fs::read_to_string(&path).unwrap() == text, "{path}: run with INSTA_UPDATE=always if meant");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(!text.contains("[`"), "{name} contains a rustdoc link");
    }
}

#[test]
fn everything_in_a_schema_is_described() {
    let value: Value = serde_json::from_str(&schema(Document::Result)).unwrap();
    let all = value["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.as_str(), schema));
    for (name, schema) in all.chain([("result", &value)]) {
        assert!(schema["description"].is_string(), "{name}");
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let is_tag = schema.get("const").is_some();
            assert!(is_tag || schema["description"].is_string(), "{name}.{field}");
        }
    }
}

#[test]
fn results_match_the_schema() {
    let schema: Value = serde_json::from_str(&schema(Document::Result)).unwrap();
    let fixture: SearchResult = serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap();
    for result in [fixture, committed(), whole(), raced(), empty()] {
        let value = serde_json::to_value(&result).unwrap();
        assert_eq!(faults(&schema, &schema, &value, "result"), [""; 0]);
        // A value that matches the schema can be read.
        serde_json::from_value::<SearchResult>(value).unwrap();
    }
    // Unknown fields of a later version are allowed, and fields that an earlier version lacks are optional.
    let mut other = serde_json::to_value(committed()).unwrap();
    other["later"] = json!([1]);
    for variant in other["variants"].as_array_mut().unwrap() {
        for name in ["label", "at", "gates", "bytes"] {
            variant.as_object_mut().unwrap().remove(name);
        }
    }
    assert_eq!(faults(&schema, &schema, &other, "result"), [""; 0]);

    for (pointer, wrong, fault) in [
        ("/schema", json!(3), "result.schema: 3 is above 2"),
        ("/seed", json!(-1), "result.seed: -1 is below 0"),
        ("/choice/verdict", json!("cut"), "result.choice.verdict: none of the alternatives"),
        ("/variants/0/family", json!(7), "result.variants[0].family: none of the alternatives"),
        ("/adapter/ranks", json!("8"), "result.adapter.ranks: expected array"),
        ("/choice/gain/mean", Value::Null, "result.choice.gain.mean: expected number"),
    ] {
        let mut value = serde_json::to_value(committed()).unwrap();
        *value.pointer_mut(pointer).unwrap() = wrong;
        assert_eq!(faults(&schema, &schema, &value, "result"), [fault]);
        assert!(pointer == "/schema" || serde_json::from_value::<SearchResult>(value).is_err(), "{pointer}");
    }
    let mut value = serde_json::to_value(committed()).unwrap();
    value.as_object_mut().unwrap().remove("choice");
    assert_eq!(faults(&schema, &schema, &value, "result"), ["result: `choice` is missing"]);

    let schema: Value = serde_json::from_str(&plimsoll::result::schema(Document::Comparison)).unwrap();
    let value = serde_json::to_value(compared()).unwrap();
    assert_eq!(faults(&schema, &schema, &value, "comparison"), [""; 0]);
}

/// Violations of a schema by a value. Implements only the keywords of our schemas, and panics at others, so that none
/// is ignored. `reference/check_schema.py` uses a complete validator.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(schema) = schema.as_object() else { panic!("{at}: a schema that is not an object") };
    let mut found = Vec::new();
    let fits = |schema: &Value| faults(root, schema, value, at).is_empty();
    for (word, says) in schema {
        match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => {}
            "$ref" => {
                let target = root.pointer(says.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
                found.extend(faults(root, target, value, at));
            }
            "anyOf" | "oneOf" => {
                let fitting = says.as_array().unwrap().iter().filter(|schema| fits(schema)).count();
                if fitting == 0 || (word == "oneOf" && fitting > 1) {
                    found.push(format!("{at}: none of the alternatives"));
                }
            }
            "const" if value != says => found.push(format!("{at}: expected {says}")),
            "enum" if !says.as_array().unwrap().contains(value) => found.push(format!("{at}: none of {says}")),
            "const" | "enum" => {}
            "type" => {
                let names = says.as_array().map_or_else(|| vec![says], |names| names.iter().collect());
                if !names.iter().any(|name| is_of_type(value, name.as_str().unwrap())) {
                    found.push(format!("{at}: expected {}", names[0].as_str().unwrap()));
                }
            }
            "minimum" if value.as_f64() < says.as_f64() && value.is_number() => {
                found.push(format!("{at}: {value} is below {says}"));
            }
            "maximum" if value.as_f64() > says.as_f64() => found.push(format!("{at}: {value} is above {says}")),
            "minItems" | "maxItems" | "minimum" | "maximum" => {}
            "required" => {
                let names = says.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                found.extend(missing.map(|name| format!("{at}: `{name}` is missing")));
            }
            "properties" => {
                let properties: &Map<String, Value> = says.as_object().unwrap();
                for (name, schema) in properties {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(root, schema, value, &format!("{at}.{name}")));
                    }
                }
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(root, says, value, &format!("{at}[{index}]")));
                }
            }
            "additionalProperties" => {
                assert_eq!(says, &Value::Bool(false), "{at}");
                let unknown =
                    value.as_object().into_iter().flatten().filter(|(name, _)| schema["properties"][*name].is_null());
                found.extend(unknown.map(|(name, _)| format!("{at}.{name}: not in the schema")));
            }
            other => panic!("{at}: an unknown keyword: {other}"),
        }
    }
    found
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("an unknown type: {other}"),
    }
}

// Markdown

#[test]
fn markdown_is_the_snapshot() {
    insta::assert_snapshot!("markdown", markdown(&committed()));
    insta::assert_snapshot!("markdown_whole", markdown(&whole()));
}

#[test]
fn untrusted_text_is_not_markup() {
    const EVIL: &str = "`|</summary><script>alert(1)</script>\n# [a](http://b) @c **d** \u{202e}\u{1b}[2J ```";
    let text = markdown(&evil(EVIL));
    assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'));
    // Outside the fence around the command, no markup is left.
    let (before, command) = text.split_once("\n````sh\n").unwrap();
    let (_, after) = command.split_once("\n````\n").unwrap();
    for part in [before, after] {
        let part = without_escaped(part);
        for markup in ["<script", "</summary><", "[a]", "\n# ", " @c", " **d", "http:"] {
            assert!(!part.contains(markup), "{markup}: {part}");
        }
    }
    // All rows of a table have equally many cells.
    let mut columns = None;
    for line in text.lines() {
        let cells = line.starts_with('|').then(|| without_escaped(line).matches('|').count());
        assert!(columns.is_none() || cells.is_none() || cells == columns, "{line}");
        columns = cells;
    }
}

// Table

#[test]
fn the_table_has_a_section_for_each_measurement() {
    let plain = table(&whole(), Style::Plain);
    insta::assert_snapshot!("table_whole", plain);
    let coloured = table(&whole(), Style::Colour);
    assert_eq!(without_escapes(&coloured), plain);
    assert!(coloured.contains("\u{1b}[1;36m▶  global-alpha"), "{coloured}");
    // No section without data.
    let bare = table(&committed(), Style::Plain);
    for title in ["Other families", "Controls", "Effect of each layer", "Guard", "Pareto front"] {
        assert!(plain.contains(title) && !bare.contains(title), "{title}");
    }
}

#[test]
fn no_form_is_wider_than_100_columns() {
    let long = "a very long name of nothing in particular ".repeat(9);
    for result in [committed(), whole(), raced(), empty(), wild(), evil(&long), evil("\u{1b}[31mred\u{202e}\n")] {
        let pair = [("a".repeat(90), result.clone()), ("b".to_owned(), wild())];
        let side_by_side = comparison(&compare(&pair, Sort::Gain), Form::Text(Style::Plain));
        for text in [table(&result, Style::Plain), side_by_side] {
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
                assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line}");
            }
        }
    }
}

#[test]
fn odd_results_are_rendered_in_every_form() {
    for result in [whole(), raced(), empty(), wild(), evil("<b>|`")] {
        let both = compare(&[("one".to_owned(), result.clone()), ("two".to_owned(), wild())], Sort::Name);
        let forms = [
            markdown(&result),
            table(&result, Style::Colour),
            comparison(&both, Form::Markdown),
            comparison_html(&both),
        ];
        for text in forms {
            for word in ["NaN", "inf ", "inf\"", ">inf", "-0.0<"] {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
    }
}

// Comparison

#[test]
fn runs_are_compared() {
    let compared = compared();
    insta::assert_snapshot!("comparison", comparison(&compared, Form::Text(Style::Plain)));
    insta::assert_snapshot!("comparison_markdown", comparison(&compared, Form::Markdown));
    let names: Vec<&str> = compared.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["rank-8", "rank-16", "other"]);
    let points = &compared.runs[0].curve;
    assert_eq!((points.len(), points[15].depth, points[30].over_full), (31, 0.5, 0.0));
    let read: Comparison = serde_json::from_str(&plimsoll::report::json(&compared).unwrap()).unwrap();
    assert_eq!(read, compared);
}

#[test]
fn what_cannot_be_compared_is_reported() {
    let compared = |change: fn(&mut SearchResult)| {
        let mut other = committed();
        change(&mut other);
        let runs = [("a".to_owned(), committed()), ("b".to_owned(), other)];
        let both = compare(&runs, Sort::Given);
        (both.same, comparison(&both, Form::Text(Style::Plain)).replace('\n', " "), comparison_html(&both))
    };
    let (same, text, page) = compared(|_| {});
    assert!(same.model && same.adapter && same.data && same.samples && same.metric);
    assert!(text.contains("The same in all runs: base model, adapter and data.") && !text.contains("split"), "{text}");
    assert!(!page.contains("class=\"warning\""));
    let (same, text, page) = compared(|other| other.data.sha256 = "d4".repeat(32));
    assert!(!same.data && !same.samples && same.model);
    for text in [text, page] {
        assert!(text.contains("The runs are on different data"), "{text}");
        assert!(text.contains("Not the same: data."), "{text}");
    }
    let (_, text, page) = compared(|other| other.cost.resumed = 3);
    assert!(
        text.contains("48.37 s †")
            && text.contains("† Interrupted: without the time of samples that were scored before"),
        "{text}"
    );
    assert!(page.contains("48.37 s †") && page.contains("† Interrupted"), "{page}");
    let (same, text, _) = compared(|other| other.seed = 8);
    assert!(same.data && !same.samples);
    assert!(text.contains("split the same data differently"), "{text}");
    let (same, text, _) = compared(|other| other.metric = whole().metric);
    assert!(!same.metric && text.contains("different units"), "{text}");
}

#[test]
fn the_page_of_a_comparison_is_self_contained() {
    let mut three = vec![("</bdi><script>".to_owned(), committed()), ("b".to_owned(), whole())];
    let two = comparison_html(&compare(&three, Sort::Given));
    three.push(("c".to_owned(), evil("<script>alert(1)</script>")));
    let page = comparison_html(&compare(&three, Sort::Given));
    // Up to six runs share a figure.
    assert_eq!((two.matches("<svg").count(), page.matches("<svg").count()), (1, 1));
    assert!(page.contains("tone-c") && !two.contains("class=\"line tone-c"));
    for page in [two, page] {
        for outside in ["<script", "<link", "<img", "@import", "url(", "src=", "javascript:", "http:"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'") && page.contains("color-scheme: light dark"));
    }
}

#[test]
fn names_are_short_and_distinct() {
    let names = |files: &[&str]| unique_names(&files.iter().map(Path::new).collect::<Vec<_>>());
    assert_eq!(names(&["/r/a/result.json", "/r/b/result.json"]), ["a", "b"]);
    assert_eq!(names(&["/r/a/out/result.json", "/r/b/out/result.json", "/c.json"]), ["a/out", "b/out", "c"]);
    assert_eq!(names(&["/r/a/result.json", "/r/a/result.json"]), ["r/a", "r/a (2)"]);
}

// Results

/// The boundaries of the committed fixture, without other measurements.
fn committed() -> SearchResult {
    let mut result: SearchResult = serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap();
    result.variants.retain(|variant| variant.family == Family::BottomK);
    result.front.clear();
    (result.candidate, result.arbitration, result.controls, result.effects) = (None, None, None, None);
    (result.guard, result.metric, result.efficiency) = (None, None, None);
    result
}

fn compared() -> Comparison {
    let [mut small, mut other] = [committed(), committed()];
    small.adapter.path = "adapters/rank-8".to_owned();
    small.adapter.sha256 = "e5".repeat(32);
    small.choice.gain.mean = 0.05;
    other.choice.gain.mean = -0.2;
    other.choice.retained = None;
    let runs = [("other", other), ("rank-8", small), ("rank-16", whole())];
    compare(&runs.map(|(name, result)| (name.to_owned(), result)), Sort::Gain)
}

fn gain(mean: f64, low: f64, high: f64, p: f64) -> Gain {
    Gain { mean, low, high, p, samples: 32 }
}

fn score(mean_nll: f64) -> Option<ScoreSummary> {
    Some(ScoreSummary { mean_nll, se: 0.0551, mean_probability: 0.44, token_accuracy: 0.62 })
}

/// The fixture with everything that a search can measure.
fn whole() -> SearchResult {
    let mut result = committed();
    let candidate = Candidate {
        family: Family::GlobalAlpha,
        label: "strength 0.75".to_owned(),
        gates: "0-29=0.75".to_owned(),
        layers_kept: 30,
        bytes: 9_830_400,
    };
    let mut add = |family, label: String, at: f64, gates: String, layers_kept: usize, nll: f64| {
        let (selection, holdout, guard) = (score(nll), score(nll - 0.06), score(nll + 0.8));
        let bytes = 327_680 * layers_kept as u64;
        let variant = VariantSummary { family, label, at, gates, layers_kept, bytes, selection, holdout, guard };
        result.variants.push(variant);
    };
    for (at, nll) in [(0.25, 1.4912), (0.5, 1.3471), (0.75, 1.2702), (1.0, 1.3019), (1.25, 1.3513)] {
        add(Family::GlobalAlpha, format!("strength {at}"), at, format!("0-29={at}"), 30, nll);
    }
    for k in 0..=30 {
        let (at, upper) = (k as f64, 30 - k);
        let gates = if k == 0 { "0-29=0".to_owned() } else { format!("{upper}-29=1") };
        add(Family::TopK, format!("{k} layers"), at, gates, k, 1.6148 - 0.01 * at);
    }
    let effect = |layer: usize| {
        let depth = layer as f64 / 29.0;
        (0.031 - 0.045 * depth * depth) * if layer.is_multiple_of(3) { 1.0 } else { 0.4 }
    };
    let of_layers = |factor: f64, width: Option<f64>| {
        let value = |layer: usize| {
            let value = (effect(layer) * factor * 1e6).round() / 1e6;
            let interval = width.map(|width| [value - width, value + width]);
            EffectValue { layer, module: None, value, interval }
        };
        (0..30).map(value).collect::<Vec<_>>()
    };
    let mut leave_one_out = of_layers(1.0, Some(0.0042));
    let module =
        |module: &str| EffectValue { layer: 3, module: Some(module.to_owned()), value: 0.0071, interval: None };
    leave_one_out.extend(["q_proj", "v_proj"].map(module));
    let measure = |kind, samples, values| EffectMeasure { kind, samples, permutations: 0, values };
    let agree = |proxy, rho, p| Agreement { proxy, truth: EffectKind::LeaveOneOut, rho, p, layers: 30 };
    result.effects = Some(Effects {
        measures: vec![
            measure(EffectKind::LeaveOneOut, 64, leave_one_out),
            measure(EffectKind::LeaveOneIn, 64, of_layers(0.7, None)),
            measure(EffectKind::Magnitude, 0, of_layers(100.0, None)),
        ],
        agreement: vec![agree(EffectKind::Magnitude, 0.61, 0.0004), agree(EffectKind::Lens, -0.12, 0.53)],
    });
    let pick = |family, label: &str, layers_kept: usize| Candidate {
        family,
        label: label.to_owned(),
        gates: "0-19=1".to_owned(),
        layers_kept,
        bytes: 327_680 * layers_kept as u64,
    };
    let summary = |family, pick, members, mean_nll: f64, is_chosen| FamilySummary {
        family,
        pick,
        members,
        mean_nll,
        deficit: ((mean_nll - 1.2702) * 1e4).round() / 1e4,
        se: 0.0031,
        is_chosen,
    };
    result.arbitration = Some(Arbitration {
        folds: 5,
        families: vec![
            summary(Family::BottomK, pick(Family::BottomK, "20 layers", 20), 31, 1.2761, false),
            summary(Family::GlobalAlpha, candidate.clone(), 5, 1.2702, true),
            summary(Family::TopK, pick(Family::TopK, "30 layers", 30), 31, 1.3049, false),
        ],
    });
    let control = |family, label: &str, over_full, cut_over, p_holm| Control {
        family,
        label: label.to_owned(),
        gates: vec!["0-29=0.75".to_owned()],
        over_full,
        cut_over,
        p_holm,
    };
    result.controls = Some(Controls {
        rows: vec![
            control(
                Family::GlobalAlpha,
                "strength 0.75",
                gain(0.0301, 0.0222, 0.0381, 0.0001),
                gain(0.0045, -0.0021, 0.0112, 0.18),
                0.18,
            ),
            control(
                Family::RandomK,
                "20 random layers, 8 draws",
                gain(-0.041, -0.055, -0.028, 0.0001),
                gain(0.0756, 0.0612, 0.0901, 0.0001),
                0.0003,
            ),
        ],
        depth: Depth::NotShown,
    });
    result.guard = Some(GuardSummary {
        path: "general.jsonl".to_owned(),
        sha256: "f6".repeat(32),
        selection: 64,
        holdout: 32,
        skipped: 0,
        cut: 0,
        margin: 0.01,
        excluded: 3,
        gain: gain(0.0021, -0.0034, 0.0075, 0.44),
        adapter_gain: gain(-0.021, -0.034, -0.0075, 0.0044),
        is_held: true,
    });
    let point = |family, label: &str, gates: &str, nll, bytes, is_on_front| FrontPoint {
        family,
        label: label.to_owned(),
        gates: gates.to_owned(),
        nll,
        guard: Some(nll + 0.8),
        bytes,
        is_on_front,
    };
    result.front = vec![
        point(Family::BottomK, "0 layers", "0-29=0", 1.6148, 0, true),
        point(Family::BottomK, "10 layers", "0-9=1", 1.356, 3_276_800, true),
        point(Family::TopK, "10 layers", "20-29=1", 1.5148, 3_276_800, false),
        point(Family::BottomK, "20 layers", "0-19=1", 1.2658, 6_553_600, true),
        point(Family::GlobalAlpha, "strength 0.75", "0-29=0.75", 1.2652, 9_830_400, true),
    ];
    result.candidate = Some(candidate);
    let estimate = |value| Some(Estimate { value, low: value - 4.0, high: value + 4.0, samples: 32 });
    result.metric = Some(MetricSummary {
        name: "gsm8k flexible".to_owned(),
        signature: "lm-evaluation-harness 0.4.9 flexible-extract".to_owned(),
        variants: vec![
            MetricVariant { layers_kept: 0, selection: None, holdout: estimate(12.0) },
            MetricVariant { layers_kept: 20, selection: estimate(31.0), holdout: estimate(30.0) },
            MetricVariant { layers_kept: 30, selection: estimate(29.0), holdout: estimate(28.0) },
        ],
        decided: true,
        choice_by_nll: result.choice.clone(),
    });
    let variant = |name: &str, layers_kept, adapter_bytes, median| VariantEfficiency {
        name: name.to_owned(),
        layers_kept,
        adapter_bytes,
        load_seconds: layers_kept.map(|_| 0.0123),
        tokens_per_second: Speed { median, low: median - 5.0, high: median + 5.0, rounds: 5 },
    };
    result.efficiency = Some(Efficiency {
        batch: 8,
        threads: 2,
        dtype: "bf16".to_owned(),
        variants: vec![
            variant("merged", None, 0, 500.0),
            variant("20 layers", Some(20), 6_553_600, 490.0),
            variant("full", Some(30), 9_830_400, 480.0),
        ],
    });
    result.choice.validation = JudgingSamples::Nested { folds: 5 };
    result
}

fn raced() -> SearchResult {
    let mut result = committed();
    let dropped = |layers_kept| DroppedBoundary { layers_kept, samples: 8, leader: 20, deficit: 0.2, p: 2e-5 };
    result.race = Some(RaceSummary { error_rate: 0.05, dropped: vec![dropped(0), dropped(30)], skipped: vec![1] });
    result.variants.remove(1);
    for variant in result.variants.iter_mut().filter(|variant| [0, 30].contains(&variant.layers_kept)) {
        variant.selection = None;
    }
    result
}

fn empty() -> SearchResult {
    let mut result = committed();
    result.variants.clear();
    result.choice.bootstrap.clear();
    result.choice.retained = None;
    result.warnings.clear();
    result.adapter.bytes = 0;
    result.model.layers = 0;
    result.effects = Some(Effects { measures: Vec::new(), agreement: Vec::new() });
    result.controls = Some(Controls { rows: Vec::new(), depth: Depth::Shown });
    result.arbitration = Some(Arbitration { folds: 0, families: Vec::new() });
    result
}

/// Extreme numbers that no search writes.
fn wild() -> SearchResult {
    let mut result = whole();
    result.model.layers = usize::MAX;
    result.choice.one_se = usize::MAX - 1;
    result.choice.layers_kept = usize::MAX;
    result.choice.gain.low = f64::NEG_INFINITY;
    (result.data.selection, result.data.holdout) = (usize::MAX, usize::MAX);
    result.adapter.bytes = u64::MAX;
    result.cost.seconds = 1e300;
    for (index, variant) in result.variants.iter_mut().enumerate() {
        variant.selection = score([f64::MAX, f64::MIN, f64::NAN, 1e-300][index % 4]);
        variant.bytes = u64::MAX;
    }
    let effects = result.effects.as_mut().unwrap();
    effects.agreement[0].rho = f64::NAN;
    for (index, value) in effects.measures[0].values.iter_mut().enumerate() {
        value.layer = usize::MAX - index;
        value.value = [f64::MAX, f64::MIN, f64::NAN, 1e-300][index % 4];
        value.interval = Some([f64::NEG_INFINITY, f64::INFINITY]);
    }
    for family in &mut result.arbitration.as_mut().unwrap().families {
        (family.mean_nll, family.deficit, family.se) = (f64::MAX, f64::INFINITY, f64::NAN);
    }
    result.controls.as_mut().unwrap().rows[0].cut_over = gain(f64::NAN, f64::NAN, f64::NAN, f64::NAN);
    result.guard.as_mut().unwrap().gain = gain(f64::MAX, f64::MIN, f64::MAX, 2.0);
    for point in &mut result.front {
        (point.nll, point.bytes) = (f64::NAN, u64::MAX);
    }
    result
}

/// A result in which every text is replaced.
fn evil(text: &str) -> SearchResult {
    fn replace(value: &mut Value, key: &str, text: &str) {
        // Values of enums.
        const OURS: [&str; 8] = ["family", "kind", "verdict", "reason", "rule", "depth", "proxy", "truth"];
        match value {
            Value::String(old) if !OURS.contains(&key) => text.clone_into(old),
            Value::Array(values) => values.iter_mut().for_each(|value| replace(value, key, text)),
            Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| replace(value, key, text)),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(whole()).unwrap();
    replace(&mut value, "", text);
    serde_json::from_value(value).unwrap()
}

/// Markdown without escaped characters.
fn without_escaped(text: &str) -> String {
    let mut left = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        if c != '\\' {
            left.push(c);
        } else if characters.next().is_none() {
            break;
        }
    }
    left
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}
