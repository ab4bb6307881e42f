//! The table, Markdown and HTML of a result, on an example of 30 layers and on results that no search would write.
#![allow(clippy::unwrap_used)]

use std::fs;

use plimsoll::choose::sufficient::{Cut, RetainedShare, SHARES, Sequence, Stop, Sufficient};
use plimsoll::choose::{
    self, ChooseOptions, Gain, Input, Interval, JudgingSamples, Margin, Part, Power, Reason, Verdict,
};
use plimsoll::lora::{Facts, Family, Member, Place, Places, Position, Projection, Variant};
use plimsoll::report::{Style, html, markdown, sentence, table};
use plimsoll::result::{
    AdapterFacts, Agreement, AnswerEnding, Arbitration, Candidate, Control, Controls, Cost, DataFacts, Depth,
    DroppedBoundary, EffectKind, EffectMeasure, EffectValue, Effects, FamilySummary, FrontPoint, GuardSummary,
    LensPoint, LensSummary, ModelFacts, RaceSummary, Rules, SampleTokens, ScoreSummary, SearchResult, StrengthScore,
    SufficientLayers, SufficientRow, Token, TunedStrength, VariantSummary, Warning,
};
use plimsoll::stats::mean_and_se;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/result.json");
const TOKENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens.jsonl");
/// The script of the page: the last element of its body.
const SCRIPT: &str = include_str!("../src/report/report.js");

#[test]
fn the_example_is_the_committed_fixture() {
    let example = json(&filled(example(30, 64, 32)));
    let lines: String = tokens(12, 40).iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        fs::write(FIXTURE, &example).unwrap();
        fs::write(TOKENS, &lines).unwrap();
    }
    let committed = fs::read_to_string(FIXTURE).unwrap();
    assert!(committed == example, "run with INSTA_UPDATE=always if meant");
    assert!(fs::read_to_string(TOKENS).unwrap() == lines, "run with INSTA_UPDATE=always if meant");
    let parsed: SearchResult = serde_json::from_str(&committed).unwrap();
    assert_eq!(json(&parsed), committed);
}

#[test]
fn the_table_is_the_snapshot() {
    let plain = table(&committed(), Style::Plain);
    insta::assert_snapshot!("table", plain);
    assert!(!plain.contains('\u{1b}'));
    assert_eq!(without_escapes(&table(&committed(), Style::Colour)), plain);
}

#[test]
fn no_table_is_wider_than_100_columns() {
    for result in odd_results() {
        let text = table(&result, Style::Plain);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{} columns: {line}", line.chars().count());
        }
    }
}

#[test]
fn every_verdict_has_a_sentence_with_its_tests() {
    let mut result = committed();
    let mut sentence_of = |verdict, reason, one_se: usize| {
        result.choice.verdict = verdict;
        result.choice.reason = reason;
        result.choice.one_se = one_se;
        result.candidate.as_mut().unwrap().layers_kept = one_se;
        result.choice.layers_kept = match verdict {
            Verdict::Trim => one_se,
            Verdict::KeepFull => 30,
            Verdict::UseBase => 0,
        };
        let gain = |mean, low, high, p| Gain { mean, low, high, p, samples: 32 };
        result.choice.gain = match reason {
            Reason::Better => gain(0.0123, 0.0041, 0.0207, 0.0031),
            Reason::BetterThanBase => gain(0.0622, 0.0231, 0.1012, 0.0021),
            Reason::Worse => gain(-0.0123, -0.0207, -0.0041, 0.0031),
            _ => gain(-0.0021, -0.0062, 0.0019, 0.31),
        };
        result.choice.adapter_gain = match reason {
            Reason::AdapterNotBetter => gain(-0.062, -0.112, -0.011, 0.012),
            Reason::BetterThanBase => gain(-0.031, -0.082, 0.021, 0.24),
            Reason::AdapterNotShown => gain(0.012, -0.041, 0.064, 0.66),
            _ => gain(0.2134, 0.1511, 0.2761, 0.0001),
        };
        result.choice.base_gain = match reason {
            Reason::AdapterNotBetter => gain(0.0112, -0.0104, 0.0327, 0.29),
            _ => gain(0.0312, 0.0104, 0.0527, 0.004),
        };
        let is_useful = !matches!(reason, Reason::BetterThanBase | Reason::AdapterNotBetter | Reason::AdapterNotShown);
        let (value, low, high) = match reason {
            Reason::NotShown => (0.971, 0.925, 1.018),
            Reason::Worse => (0.942, 0.903, 0.981),
            _ => (1.004, 0.983, 1.026),
        };
        result.choice.retained = is_useful.then_some(Interval { value, low, high });
        result.choice.power = match reason {
            Reason::NotShown => Some(Power { detectable: 0.005_812, samples: None }),
            Reason::AdapterNotShown => Some(Power { detectable: 0.074_12, samples: Some(1_234) }),
            _ => None,
        };
        result.choice.abstains = result.choice.power.is_some();
        sentence(&result)
    };
    let sentences = [
        sentence_of(Verdict::Trim, Reason::Better, 18),
        sentence_of(Verdict::Trim, Reason::NotWorse, 18),
        sentence_of(Verdict::Trim, Reason::BetterThanBase, 1),
        sentence_of(Verdict::KeepFull, Reason::NoCut, 30),
        sentence_of(Verdict::KeepFull, Reason::Worse, 18),
        sentence_of(Verdict::KeepFull, Reason::NotShown, 18),
        sentence_of(Verdict::KeepFull, Reason::AdapterNotShown, 18),
        sentence_of(Verdict::UseBase, Reason::AdapterNotBetter, 18),
        sentence_of(Verdict::UseBase, Reason::AdapterNotBetter, 0),
    ];
    insta::assert_snapshot!("sentences", sentences.join("\n\n"));
}

#[test]
fn an_adapter_that_is_worse_than_the_base_is_reported() {
    let mut result = committed();
    result.warnings = vec![Warning::AdapterUnproven { p: 0.0001 }];
    result.choice.verdict = Verdict::UseBase;
    result.choice.reason = Reason::AdapterNotBetter;
    result.choice.one_se = 0;
    result.candidate.as_mut().unwrap().layers_kept = 0;
    let mut answer = |mean, low, high, p| {
        result.choice.adapter_gain = Gain { mean, low, high, p, samples: 32 };
        // From the verdict on.
        let text = table(&result, Style::Plain).replace('\n', " ");
        text.rsplit_once("Use the base model").unwrap().1.to_owned()
    };
    let worse = answer(-0.2, -0.3, -0.1, 0.0001);
    assert!(worse.contains("the full adapter is worse than the base model"), "{worse}");
    assert!(worse.contains("On the held-out samples the adapter is worse than the base model"), "{worse}");
    assert!(!worse.contains("show"), "{worse}");
    let little = answer(0.001, -0.002, 0.004, 0.3);
    assert!(little.contains("gains less than 0.01 nats per answer token over the base model"), "{little}");
    assert!(little.contains("do not show that the adapter is better"), "{little}");
}

#[test]
fn an_adapter_without_gain_is_reported_first() {
    let mut result = committed();
    result.choice.reason = Reason::AdapterNotShown;
    let mut first = |verdict, reason, mean, low, high, p| {
        (result.choice.verdict, result.choice.reason) = (verdict, reason);
        result.choice.adapter_gain = Gain { mean, low, high, p, samples: 32 };
        sentence(&result).split_once('.').unwrap().0.to_owned()
    };
    let nothing = first(Verdict::UseBase, Reason::AdapterNotBetter, 0.0, 0.0, 0.0, 1.0);
    assert_eq!(nothing, "The full adapter gains nothing over the base model");
    let open = first(Verdict::KeepFull, Reason::AdapterNotShown, 0.01, -0.01, 0.03, 0.4);
    assert_eq!(open, "The full adapter is not shown to be better than the base model");
    let by_test = first(Verdict::KeepFull, Reason::AdapterNotShown, 0.02, 0.001, 0.03, 0.11);
    assert_eq!(by_test, "The full adapter is not shown to be better than the base model");
    let little = first(Verdict::UseBase, Reason::AdapterNotBetter, 0.002, 0.001, 0.003, 0.001);
    assert_eq!(little, "The gain of the full adapter over the base model is negligible");
    let worse = first(Verdict::UseBase, Reason::AdapterNotBetter, -0.2, -0.3, -0.1, 0.001);
    assert_eq!(worse, "The full adapter is worse than the base model");
    let useful = first(Verdict::KeepFull, Reason::NoCut, 0.2, 0.1, 0.3, 0.001);
    assert_eq!(useful, "Keep the full adapter");
}

#[test]
fn an_interval_and_a_test_that_disagree_are_explained() {
    let mut result = committed();
    result.choice.reason = Reason::NotShown;
    result.choice.gain = Gain { mean: 0.02, low: 0.004, high: 0.037, p: 0.11, samples: 32 };
    let text = sentence(&result);
    let why = "p = 0.11; the bootstrap interval excludes 0, but the tests, which correct for few and skewed samples, \
               give a p not below 0.05)";
    assert!(text.contains(why), "{text}");
    assert!(html(&result, &[]).contains("give a p not below 0.05</dd>"), "no explanation beside the number");
    // With fewer than 20 samples the level is half of that.
    result.choice.gain = Gain { p: 0.03, samples: 14, ..result.choice.gain };
    assert!(sentence(&result).contains("a p not below 0.025"), "{}", sentence(&result));
    result.choice.gain.p = 0.01;
    assert!(!sentence(&result).contains("the bootstrap interval excludes"), "{}", sentence(&result));
}

#[test]
fn shares_of_a_small_gain_are_not_given() {
    let mut result = committed();
    result.choice.reason = Reason::NotShown;
    result.choice.adapter_gain = Gain { mean: 0.012, low: 0.002, high: 0.022, p: 0.02, samples: 32 };
    result.choice.retained = Some(Interval { value: 1.48, low: 0.98, high: 6.47 });
    for text in [sentence(&result), table(&result, Style::Plain), markdown(&result), html(&result, &[])] {
        let text = text.replace(['\n', '\u{a0}'], " ");
        assert!(text.contains("too small or too uncertain to compute a share"), "{text}");
        assert!(!text.contains("148 %") && !text.contains("647 %"), "{text}");
    }
    // The lower end is given if the verdict depends on it.
    result.choice.reason = Reason::NotWorse;
    let text = sentence(&result);
    assert!(text.contains("retains at least 98.0 % of the adapter's gain over the base model"), "{text}");
}

#[test]
fn warnings_and_interruptions_are_in_every_form() {
    let mut result = committed();
    let other = Warning::OtherBase { adapter: "b-it".to_owned(), model: "b".to_owned() };
    result.warnings = vec![Warning::ControlsOmitted, other, Warning::FewSamples { selection: 14, holdout: 14 }];
    result.choice.validation = JudgingSamples::Nested { folds: 10 };
    result.cost.resumed = 5;
    for text in [table(&result, Style::Plain), markdown(&result), html(&result, &[])] {
        let text = text.replace("\n         ", " ").replace('\\', "");
        assert!(text.contains("not compared with controls (--no-controls)"), "{text}");
        assert!(text.contains("The adapter names b-it as its base model, and this one is b."), "{text}");
        assert!(text.contains("Check that this is the base model that the adapter was trained on."), "{text}");
        assert!(text.contains("Few samples: 14 in nested cross-validation."), "{text}");
    }
    for text in [markdown(&result), html(&result, &[])] {
        assert!(text.contains("48.37 s, without 5 samples scored before an interruption"), "{text}");
    }
}

#[test]
fn sufficient_layers_have_a_sentence_with_their_tests() {
    let mut result = committed();
    result.choice.gain.samples = 96;
    let mut sentence_of = |verdict, reason, kept: usize| {
        (result.choice.verdict, result.choice.reason, result.choice.validation) =
            (verdict, reason, JudgingSamples::All);
        result.choice.layers_kept = if verdict == Verdict::Trim { kept } else { 30 };
        result.choice.power = Some(Power { detectable: 0.003, samples: Some(1_234) });
        result.choice.retained = Some(result.sufficient[0].share(kept).unwrap().retained);
        result.candidate.as_mut().unwrap().layers_kept = kept;
        sentence(&result)
    };
    let text = sentence_of(Verdict::Trim, Reason::NotWorse, 14);
    assert!(
        text.starts_with("Trim: keep LoRA in layers 0–13 (14 of 30). On 96 samples, 14 of 30 layers retain 100.8 % ")
    );
    assert!(text.contains("which is shown to be more than 98 % (p < 0.001)."), "{text}");
    assert!(text.contains("For fewer this is not shown: 13 of 30 layers retain 96.7 % (95 % interval "), "{text}");
    let text = sentence_of(Verdict::KeepFull, Reason::AllNeeded, 13);
    assert!(text.contains("which is shown not to be more than 98 %. For more than 99 %, 14 of 30 layers"), "{text}");
    let text = sentence_of(Verdict::KeepFull, Reason::NotShown, 13);
    assert!(
        text.contains("Whether this is more than 98 % is not shown. The full adapter is the safe choice."),
        "{text}"
    );
    assert!(text.contains("; to show the observed share takes about 1,300 samples."), "{text}");
}

#[test]
fn a_tuned_strength_is_called_a_strength_and_not_a_cut() {
    let mut result = committed();
    let tried = [(0.5, 1.2), (0.75, 1.25), (1.0, 1.3)].map(|(strength, mean_nll)| StrengthScore { strength, mean_nll });
    let margin = Margin::Share(0.98);
    let stop = Stop::NotShown { layers_kept: 29, p: 0.2 };
    result.strength = Some(TunedStrength {
        strength: 0.5,
        tried: tried.to_vec(),
        folds: 10,
        gain: Gain { mean: 0.1, low: 0.08, high: 0.12, p: 0.001, samples: 96 },
        is_better: true,
        sufficient: Some(Sufficient { margin, layers_kept: 30, p: None, stop }),
    });
    let candidate = result.candidate.as_mut().unwrap();
    (candidate.family, candidate.layers_kept, candidate.bytes) = (Family::BoundaryStrength, 30, result.adapter.bytes);
    (candidate.label, candidate.gates) = ("strength 0.5".into(), "0.5".into());
    (result.choice.verdict, result.choice.reason) = (Verdict::Trim, Reason::Better);
    let text = sentence(&result);
    assert!(text.starts_with("Change the LoRA strength: use the whole adapter at strength 0.5. On "), "{text}");
    let fewer = "Fewer layers are not shown to keep more than 98 % of the gain at this strength (29 layers: p = 0.20).";
    assert!(text.ends_with(fewer), "{text}");
    let table = unwrapped(&table(&result, Style::Plain));
    let tried = "Other LoRA strengths of the whole adapter (0.5, 0.75): at strength 0.5 the whole adapter is shown to be \
                 better, by 0.1000 nats per answer token (95 % interval 0.0800 to 0.1200, p = 0.001).";
    assert!(table.contains(tried));

    let candidate = result.candidate.as_mut().unwrap();
    (candidate.layers_kept, candidate.bytes) = (20, 1_000_000);
    result.choice.layers_kept = 20;
    let text = sentence(&result);
    assert!(text.starts_with("Trim: keep LoRA in layers 0–19 (20 of 30), at strength 0.5. On "), "{text}");

    let strength = result.strength.as_mut().unwrap();
    (strength.is_better, strength.gain.low) = (false, -0.01);
    let table = unwrapped(&self::table(&result, Style::Plain));
    assert!(table.contains("(0.5, 0.75): strength 0.5 is not shown to be better: its gain is 0.10"));
    result.strength.as_mut().unwrap().strength = 1.0;
    let table = unwrapped(&self::table(&result, Style::Plain));
    assert!(table.contains("(0.5, 0.75): none has a lower NLL."));
}

/// A text without its line breaks.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn nested_validation_and_a_margin_in_nats_are_reported() {
    let mut result = committed();
    result.choice.validation = JudgingSamples::Nested { folds: 10 };
    result.choice.reason = Reason::NotWorse;
    result.rules.margin_nats = Some(0.02);
    let text = sentence(&result);
    let smaller = "On 32 samples (nested cross-validation, 10 folds), the candidate is smaller than the full adapter \
                   and counts as not worse: it loses less than 0.02 nats per answer token (95 % interval), and it \
                   retains";
    assert!(text.contains(smaller), "{text}");
    result.choice.reason = Reason::NotShown;
    result.choice.power = Some(Power { detectable: 0.0123, samples: Some(101) });
    let text = sentence(&result);
    assert!(
        text.contains("With 32 samples, a gain of 0.012 nats per answer token or more would be shown in 8 of 10"),
        "{text}"
    );
    assert!(text.contains("to show a gain of the observed size takes about 110 samples."), "{text}");
    result.choice.gain = Gain { mean: -0.03, low: -0.05, high: -0.01, p: 0.01, samples: 32 };
    let text = sentence(&result);
    assert!(text.contains("the rule's pick on the other folds was worse on average than the full adapter"), "{text}");
}

#[test]
fn the_page_is_self_contained() {
    let page = html(&committed(), &tokens(12, 40));
    for outside in ["<link", "<img", "<iframe", "<object", "@import", "url(", "src=", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The only address is the link to the paper.
    assert_eq!(page.matches("http").count() - page.matches("http-equiv").count(), 1);
    assert!(page.len() < 900_000, "{} bytes", page.len());
}

#[test]
fn the_page_allows_only_its_own_script() {
    use sha2::{Digest, Sha256};
    let page = html(&committed(), &tokens(12, 40));
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("<script").count(), 2, "the other is data");
    assert_eq!(page.matches("<script type=\"application/json\"").count(), 1);
    // Event handlers in attributes would be scripts too.
    assert!(!page.contains(" onclick=") && !page.contains(" onload=") && !page.contains(" onerror="));

    // The policy forbids everything by default and allows the hash of the page's script.
    let script = page.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    assert_eq!(script, SCRIPT);
    let policy = page.split_once("Content-Security-Policy\" content=\"").unwrap().1.split_once('"').unwrap().0;
    let hash = policy.split_once("script-src 'sha256-").unwrap().1.split_once('\'').unwrap().0;
    assert_eq!(from_base64(hash), Sha256::digest(script.as_bytes()).as_slice());
    assert_eq!(policy.split(';').next(), Some("default-src 'none'"));
    assert_eq!(policy.matches("unsafe").count(), 1, "inline styles only: {policy}");
}

#[test]
fn the_script_parses_no_string_as_markup() {
    let forbidden = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "fetch(",
        "import",
        "http",
    ];
    for word in forbidden {
        assert!(!SCRIPT.contains(word), "{word}");
    }
    assert!(SCRIPT.contains("\"use strict\""));
}

/// Decodes base64.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |c: char| match c {
        'A'..='Z' => c as u32 - 65,
        'a'..='z' => c as u32 - 71,
        '0'..='9' => c as u32 + 4,
        '+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.trim_end_matches('=').chars().map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().enumerate().fold(0, |bits, (place, digit)| bits | digit << (18 - 6 * place));
        [16, 8, 0].map(|shift| (bits >> shift & 255) as u8).into_iter().take(chunk.len() - 1)
    });
    bytes.collect()
}

#[test]
fn a_page_of_many_samples_stays_small() {
    let page = html(&filled(example(30, 171, 85)), &tokens(256, 130));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    let data = page.split_once("id=\"sample-data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["samples"].as_array().unwrap().len(), 256);
    assert_eq!(data["samples"][0]["b"].as_array().unwrap().len(), 130);
}

#[test]
fn every_figure_has_a_caption_limitations_and_values() {
    let result = committed();
    let page = html(&result, &[]);
    let figures = ["needed", "ablation", "controls", "stability", "lens", "modules", "layers", "effects", "front"];
    assert_eq!(page.matches("<figure ").count(), figures.len());
    for id in figures {
        let section = page.split_once(&format!("<h2 id=\"{id}\">")).unwrap().1.split_once("</section>").unwrap().0;
        for part in ["<figcaption>", "Limitations.", "<details>", "<table", "role=\"img\" aria-label=\""] {
            assert!(section.contains(part), "{id}: {part}");
        }
    }
    // A search of boundaries only.
    let page_of_boundaries = html(&example(30, 64, 32), &[]);
    assert_eq!(page_of_boundaries.matches("<figure ").count(), 4);
    for variant in &result.variants {
        assert!(page.contains(&format!("<th scope=\"row\">{}</th>", variant.layers_kept)));
    }
    assert!(page.contains(&result.adapter.sha256) && page.contains(&result.data.sha256));
}

#[test]
fn the_page_reports_what_is_not_shown() {
    let note = |result: &SearchResult| {
        let page = html(result, &[]);
        let notes = page.split("<p class=\"note\">").skip(1).map(|rest| rest.split_once("</p>").unwrap().0);
        notes.collect::<Vec<&str>>().join("\n").replace('\u{a0}', " ")
    };
    let mut result = committed();
    let depth = note(&result);
    assert!(depth.starts_with("It is not shown that the choice of layers matters."), "{depth}");
    assert!(depth.contains("random-k") && !depth.contains("global-alpha"), "only controls that are not worse: {depth}");
    result.controls.as_mut().unwrap().depth = Depth::Shown;
    assert_eq!(note(&result), "");

    (result.choice.verdict, result.choice.reason) = (Verdict::KeepFull, Reason::NotShown);
    result.choice.abstains = true;
    result.choice.power = Some(Power { detectable: 0.031, samples: Some(212) });
    let open = html(&result, &[]).replace('\u{a0}', " ");
    assert!(open.contains("the samples do not decide") && open.contains("gain of 0.031 nats"), "{open}");
    assert_eq!(open.matches("takes about 220").count(), 1);
    result.choice.validation = JudgingSamples::Nested { folds: 5 };
    let page = html(&result, &[]);
    assert!(page.contains("by nested cross-validation in 5 folds"));
    assert!(page.contains("(nested cross-validation, 5 folds)"));
}

#[test]
fn untrusted_text_is_escaped() {
    const EVIL: &str = "</code></script><script>alert('1')</script><!--\"&\u{202e}\u{1b}[2J";
    let mut result = committed();
    let candidate = result.candidate.as_mut().unwrap();
    candidate.family = Family::Given;
    let guard = result.guard.as_mut().unwrap();
    for text in [
        &mut result.tool,
        &mut result.command,
        &mut result.model.path,
        &mut result.model.sha256,
        &mut result.model.architecture,
        &mut result.model.stored_as,
        &mut result.adapter.path,
        &mut result.adapter.sha256,
        &mut result.data.path,
        &mut result.data.sha256,
        &mut result.data.template,
        &mut guard.path,
        &mut guard.sha256,
        &mut candidate.label,
        &mut candidate.gates,
    ] {
        EVIL.clone_into(text);
    }
    result.adapter.modules = vec![EVIL.to_owned()];
    for variant in &mut result.variants {
        (variant.label, variant.gates) = (EVIL.to_owned(), EVIL.to_owned());
    }
    for point in &mut result.front {
        (point.label, point.gates) = (EVIL.to_owned(), EVIL.to_owned());
    }
    for control in &mut result.controls.as_mut().unwrap().rows {
        control.label = EVIL.to_owned();
    }
    for family in &mut result.arbitration.as_mut().unwrap().families {
        family.pick.label = EVIL.to_owned();
    }
    for measure in &mut result.effects.as_mut().unwrap().measures {
        for value in measure.values.iter_mut().filter(|value| value.module.is_some()) {
            value.module = Some(EVIL.to_owned());
        }
    }
    let mut samples = tokens(2, 3);
    samples[0].prompt = EVIL.to_owned();
    samples[0].tokens[1] = EVIL.to_owned();
    samples[0].sequence[1].text = EVIL.to_owned();
    let page = html(&result, &samples);
    // The data and the script.
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
    assert!(!page.contains("<!--") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    assert!(page.matches("&lt;script&gt;").count() >= 20);
    let data = page.split_once("id=\"sample-data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&data["samples"][0]["q"], &data["samples"][0]["t"][1]), (&EVIL.into(), &EVIL.into()));
    balanced(&page);
    let text = table(&result, Style::Plain);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
}

#[test]
fn odd_results_are_rendered() {
    for result in odd_results() {
        let page = html(&result, &odd_tokens());
        balanced(&page);
        let page = page.replace(SCRIPT, "");
        let text = format!("{page}\n{}\n{}", table(&result, Style::Colour), sentence(&result));
        for word in ["NaN", "inf ", "inf\"", ">inf", "-0.0<"] {
            assert!(!text.contains(word), "{word} with {} layers", result.model.layers);
        }
    }
}

/// The committed fixture.
fn committed() -> SearchResult {
    serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap()
}

fn json(result: &SearchResult) -> String {
    serde_json::to_string_pretty(result).unwrap() + "\n"
}

/// Edge cases: one and two layers, equal samples, nothing measured, extreme numbers.
fn odd_results() -> Vec<SearchResult> {
    let mut flat = example(2, 4, 4);
    for variant in &mut flat.variants {
        let score = ScoreSummary { mean_nll: 0.0, se: 0.0, mean_probability: 1.0, token_accuracy: 1.0 };
        (variant.selection, variant.holdout) = (Some(score), Some(score));
    }
    flat.cost.resumed = 5;
    flat.warnings = vec![
        Warning::FewSamples { selection: 4, holdout: 4 },
        Warning::Skipped { samples: 1, context: 2048 },
        Warning::Unstable { share: 0.31 },
        Warning::AdapterUnproven { p: 0.25 },
    ];
    let mut empty = example(1, 2, 2);
    empty.variants.clear();
    empty.lens = LensSummary { base: vec![], full: vec![], samples: 0 };
    empty.choice.bootstrap.clear();
    empty.adapter.bytes = 0;
    empty.cost.layer_passes_naive = 0;
    let mut wild = example(3, 2, 2);
    (wild.model.layers, wild.choice.layers_kept, wild.choice.curve) = (usize::MAX, usize::MAX, Some(usize::MAX));
    (wild.data.selection, wild.data.holdout, wild.data.answer_tokens) = (usize::MAX, usize::MAX, usize::MAX);
    wild.choice.bootstrap = vec![f64::NAN, f64::INFINITY, -1.0];
    wild.choice.gain.low = f64::NEG_INFINITY;
    wild.choice.retained = Some(Interval { value: f64::NAN, low: f64::NEG_INFINITY, high: 1e300 });
    for (variant, mean_nll) in wild.variants.iter_mut().zip([f64::MAX, f64::MIN, f64::NAN, 1e-300]) {
        variant.layers_kept = variant.layers_kept.wrapping_mul(usize::MAX / 3);
        let score = ScoreSummary { mean_nll, se: f64::MAX, mean_probability: -1e99, token_accuracy: f64::NAN };
        variant.selection = Some(score);
        variant.holdout = Some(ScoreSummary { mean_nll: f64::INFINITY, ..score });
    }
    wild.lens.full[0].high = f64::NAN;
    let mut hollow = filled(example(2, 4, 4));
    for measure in &mut hollow.effects.as_mut().unwrap().measures {
        for value in &mut measure.values {
            (value.value, value.interval, value.layer) = (f64::NAN, Some([f64::INFINITY; 2]), usize::MAX);
        }
    }
    for point in &mut hollow.front {
        (point.nll, point.bytes, point.guard) = (f64::NAN, u64::MAX, None);
    }
    for control in &mut hollow.controls.as_mut().unwrap().rows {
        (control.over_full.mean, control.cut_over.low, control.p_holm) = (f64::NAN, f64::INFINITY, f64::NAN);
    }
    let mut bare = filled(example(2, 4, 4));
    bare.effects = Some(Effects { measures: vec![], agreement: vec![] });
    bare.controls.as_mut().unwrap().rows.clear();
    bare.arbitration.as_mut().unwrap().families.clear();
    let mut large = filled(example(80, 20, 10));
    let candidate = large.candidate.as_mut().unwrap();
    (candidate.family, candidate.gates) = (Family::Greedy, "3=0,40-50=0.5,7.q_proj=0".to_owned());
    vec![
        example(1, 2, 2),
        example(2, 3, 2),
        filled(example(1, 2, 2)),
        large,
        flat,
        empty,
        wild,
        hollow,
        bare,
        raced(),
        filled(raced()),
    ]
}

/// Edge cases of samples: no tokens, lists of different lengths, values that are not finite.
fn odd_tokens() -> Vec<SampleTokens> {
    let mut samples = tokens(3, 2);
    samples[0].tokens.clear();
    samples[1].base.push(1.0);
    samples[1].candidate = vec![f32::NAN, f32::NEG_INFINITY];
    samples[2].full.clear();
    samples
}

/// The result of a search on an adapter whose upper layers are slightly harmful.
///
/// The NLL of every sample falls with k to two thirds of the layers and rises slightly above, with an offset, a slope
/// and noise of its own. Only sums, products and quotients are used, so that all platforms compute the same values.
fn example(layers: usize, selection: usize, holdout: usize) -> SearchResult {
    let mut noise = Noise(2503);
    let bend = layers as f64 * 2.0 / 3.0;
    let mut sample = || -> Vec<f64> {
        let (offset, slope) = (1.6 + 1.5 * noise.next(), 0.35 + 0.3 * noise.next());
        let point = |k: usize, noise: f64| {
            let depth = k as f64 / bend;
            let fall =
                if depth < 1.0 { slope * depth * (2.0 - depth) } else { slope - 0.12 * (depth - 1.0) * (depth - 1.0) };
            rounded(offset - fall + 0.06 * noise)
        };
        (0..=layers).map(|k| point(k, noise.next())).collect()
    };
    let parts: [Vec<Vec<f64>>; 2] = [selection, holdout].map(|samples| (0..samples).map(|_| sample()).collect());

    let score = |part: &[Vec<f64>], k: usize| {
        let column: Vec<f64> = part.iter().map(|row| row[k]).collect();
        let (mean_nll, se) = mean_and_se(&column);
        let mean_probability = rounded(1.0 / (1.0 + mean_nll));
        let token_accuracy = rounded(0.9 - 0.22 * mean_nll);
        ScoreSummary { mean_nll: rounded(mean_nll), se: rounded(se), mean_probability, token_accuracy }
    };
    let variant = |k| VariantSummary {
        family: Family::BottomK,
        label: Variant::bottom_k(layers, k).name(),
        at: k as f64,
        gates: Variant::bottom_k(layers, k).spec(),
        layers_kept: k,
        bytes: 327_680 * k as u64,
        selection: Some(score(&parts[0], k)),
        holdout: Some(score(&parts[1], k)),
        guard: None,
    };
    let lens = |gain: f64| {
        let point = |layer: usize| {
            let depth = (layer + 1) as f64 / layers as f64;
            let late = (depth - 0.6).max(0.0) / 0.4;
            let probability = 0.004 + 0.03 * depth + gain * late * (2.0 - late);
            let width = 0.15 * probability;
            let (low, high) = (rounded(probability - width), rounded(probability + width));
            let rank = rounded(4000.0 * (1.0 - depth) * (1.0 - depth) + 3.0);
            LensPoint { probability: rounded(probability), low, high, top1: rounded(1.1 * probability), rank }
        };
        (0..layers).map(point).collect::<Vec<LensPoint>>()
    };
    let lens = LensSummary { base: lens(0.34), full: lens(0.43), samples: selection.min(16) };

    let options = ChooseOptions { seed: 7, ..ChooseOptions::default() };
    let curve: Vec<f64> = lens.full.iter().map(|point| point.probability).collect();
    let choice = choose::choose(&Input::new(&parts[0], &parts[1], &curve).unwrap(), &options).unwrap();
    let bytes_kept = 327_680 * choice.layers_kept as u64;
    let share = choice.bootstrap[choice.one_se];
    let digest = |digits: &str| digits.repeat(32);
    SearchResult {
        candidate: None,
        sufficient: vec![sufficient(&parts, layers, &options)],
        strength: None,
        arbitration: None,
        controls: None,
        effects: None,
        guard: None,
        front: Vec::new(),
        metric: None,
        efficiency: None,
        schema: 2,
        tool: "plimsoll 0.1.0".to_owned(),
        command:
            "plimsoll search --model models/Example-135M.gguf --adapter adapters/example --data valid.jsonl --seed 7"
                .to_owned(),
        seed: 7,
        model: ModelFacts {
            path: "models/Example-135M.gguf".to_owned(),
            sha256: digest("a1"),
            architecture: "llama".to_owned(),
            layers,
            hidden_size: 576,
            vocab_size: 49_152,
            parameters: 134_515_008,
            stored_as: "Q4_1".to_owned(),
        },
        adapter: AdapterFacts {
            embedding_lora: None,
            path: "adapters/example".to_owned(),
            sha256: digest("b2"),
            ranks: vec![8, 16],
            modules: ["q_proj", "k_proj", "v_proj", "o_proj"].map(str::to_owned).to_vec(),
            layers,
            bytes: 327_680 * layers as u64,
            bytes_kept,
        },
        data: DataFacts {
            path: "valid.jsonl".to_owned(),
            sha256: digest("c3"),
            selection,
            holdout,
            unused: 0,
            skipped: 3,
            cut: 0,
            max_length: 2048,
            endings: vec![AnswerEnding { token: Some("<|im_end|>".to_owned()), samples: 24 }],
            answer_tokens: 41 * (selection + holdout),
            template: "tokenizer".to_owned(),
        },
        variants: (0..=layers).map(variant).collect(),
        race: None,
        lens,
        choice,
        rules: Rules::from(&options),
        warnings: vec![Warning::Skipped { samples: 3, context: 2048 }, Warning::Unstable { share }],
        cost: Cost {
            layer_passes: layers + layers * (layers + 1) / 2,
            layer_passes_naive: layers * (layers + 1),
            seconds: 48.37,
            resumed: 0,
            threads: 2,
            dtype: "bf16".to_owned(),
            instructions: "avx512bf16".to_owned(),
        },
    }
}

/// The sufficient layers of the boundaries.
fn sufficient(parts: &[Vec<Vec<f64>>; 2], layers: usize, options: &ChooseOptions) -> SufficientLayers {
    let column = |k: usize| parts.iter().flatten().map(|row| row[k]).collect::<Vec<f64>>();
    let cuts: Vec<Cut> = (1..layers).rev().map(|k| Cut { layers_kept: k, loss: Some(column(k)) }).collect();
    let (base, full) = (column(0), column(layers));
    let sequence = Sequence::new(&base, &full, layers, &cuts, options);
    let row = |share| {
        let answer = sequence.sufficient(Margin::Share(share));
        let gates = Variant::bottom_k(layers, answer.layers_kept).spec();
        let answer = Sufficient { p: answer.p.map(rounded), ..answer };
        SufficientRow { bytes: 327_680 * answer.layers_kept as u64, gates, answer }
    };
    let share = |share: RetainedShare| {
        let Interval { value, low, high } = share.retained;
        let retained = Interval { value: rounded(value), low: rounded(low), high: rounded(high) };
        RetainedShare { retained, ..share }
    };
    SufficientLayers {
        metric: None,
        family: Family::BottomK,
        samples: full.len(),
        rows: SHARES.into_iter().map(row).collect(),
        shares: sequence.shares().into_iter().map(share).collect(),
    }
}

/// Bytes of the LoRA of one module.
const BYTES: u64 = 81_920;

/// Which modules have LoRA, and norms and energies of the layers.
fn facts(layers: usize) -> (Vec<[bool; Projection::COUNT]>, [Vec<f64>; 2]) {
    let mut adapted = [false; Projection::COUNT];
    for projection in [Projection::Q, Projection::K, Projection::V, Projection::O] {
        adapted[projection as usize] = true;
    }
    let sizes = [7, 11].map(|step| (0..layers).map(|layer| ((layer * step) % layers) as f64).collect());
    (vec![adapted; layers], sizes)
}

/// Scores of a variant with this NLL.
fn score(nll: f64) -> ScoreSummary {
    ScoreSummary {
        mean_nll: rounded(nll),
        se: 0.061,
        mean_probability: rounded(1.0 / (1.0 + nll)),
        token_accuracy: rounded(0.9 - 0.22 * nll),
    }
}

/// The same search with everything else that a search can measure.
fn filled(mut result: SearchResult) -> SearchResult {
    let layers = result.model.layers;
    let mut noise = Noise(15_404);
    let boundary = |k| result.variants.iter().find(|variant| variant.layers_kept == k).unwrap().clone();
    let [base, full] = [0, layers].map(boundary);
    // A race may have dropped them.
    let nll = |variant: &VariantSummary, otherwise| variant.selection.map_or(otherwise, |score| score.mean_nll);
    let [base_nll, full_nll] = [nll(&base, 1.6), nll(&full, 1.27)];
    let gain = base_nll - full_nll;
    let effects = effects(layers, result.data.selection);
    let effect = |kind, layer: usize| {
        let of_kind = effects.measures.iter().find(|measure| measure.kind == kind).unwrap();
        of_kind.values.iter().find(|value| value.layer == layer && value.module.is_none()).unwrap().value
    };
    let (adapted, sizes) = facts(layers);
    let facts = Facts { adapted: &adapted, magnitude: &sizes[0], output: &sizes[1], seed: 7 };
    let bytes = |variant: &Variant| {
        let kept = |place: &Place| variant.gates[place.layer].get(place.module.unwrap()) != 0.0;
        BYTES * facts.places(Places::Modules).filter(kept).count() as u64
    };
    let mut variant = |member: &Member, nll: f64| {
        let Member { family, position, label, variant } = member;
        let is_named = |named: &&VariantSummary| named.gates == variant.spec();
        let known = [&base, &full].into_iter().find(is_named);
        let score = |noise: f64| match known {
            Some(_) => None,
            None => Some(score(nll + noise)),
        };
        VariantSummary {
            family: *family,
            label: label.clone(),
            at: position.number(),
            gates: variant.spec(),
            layers_kept: variant.layers_kept(),
            bytes: bytes(variant),
            selection: score(0.01 * noise.next()).or(known.and_then(|known| known.selection)),
            holdout: (*family != Family::RandomK)
                .then(|| score(0.03 * noise.next()).or(known.and_then(|known| known.holdout)))
                .flatten(),
            guard: (*family == Family::GlobalAlpha).then(|| self::score(nll + 0.4)),
        }
    };
    let share = |member: &Member| member.variant.layers_kept() as f64 / layers as f64;
    let curved = |height: f64, share: f64| base_nll - gain * height * share * (2.0 - share);
    for family in [
        Family::TopK,
        Family::RandomK,
        Family::MagnitudeK,
        Family::OutputK,
        Family::LeaveOneOut,
        Family::LeaveOneIn,
        Family::GlobalAlpha,
        Family::PerModule,
        Family::Ramp,
    ] {
        for member in family.members(&facts) {
            let (share, at) = (share(&member), member.position.number());
            let nll = match family {
                Family::TopK => base_nll - gain * share * share,
                Family::RandomK => base_nll - gain * (0.85 * share + 0.15 * share * share),
                Family::MagnitudeK => curved(0.93, share),
                Family::OutputK => curved(0.98, share),
                Family::LeaveOneOut => full_nll + effect(EffectKind::LeaveOneOut, at as usize),
                Family::LeaveOneIn => base_nll - effect(EffectKind::LeaveOneIn, at as usize),
                Family::GlobalAlpha => full_nll + 0.3 * (at - 0.9) * (at - 0.9),
                Family::PerModule => full_nll + 0.05,
                _ => full_nll + 0.01,
            };
            result.variants.push(variant(&member, nll));
        }
    }
    let dropped = [layers / 2, layers - 1].into_iter();
    let dropped = dropped.fold(Variant::uniform(layers, 1.0), |variant, layer| variant.with(layer, None, 0.0));
    let (label, position) = (dropped.name(), Position::Moves(2));
    let greedy = Member { family: Family::Greedy, position, label, variant: dropped };
    result.variants.push(variant(&greedy, full_nll - 0.01));

    let kept = result.choice.one_se;
    let candidate = Candidate {
        family: Family::BottomK,
        label: format!("{kept} layers"),
        gates: Variant::bottom_k(layers, kept).spec(),
        layers_kept: kept,
        bytes: 327_680 * kept as u64,
    };
    let pick = |family, label: &str| {
        let picked = result.variants.iter().find(|variant| variant.family == family && variant.label == label).unwrap();
        let VariantSummary { label, gates, layers_kept, bytes, .. } = picked.clone();
        Candidate { family, label, gates, layers_kept, bytes }
    };
    let picks = [
        (candidate.clone(), 1.2713, 0.0),
        (pick(Family::GlobalAlpha, "strength 0.75"), 1.2841, 0.0128),
        (pick(Family::Greedy, &greedy.label), 1.2722, 0.0009),
    ];
    result.arbitration = Some(Arbitration {
        folds: 5,
        families: picks
            .into_iter()
            .map(|(pick, mean_nll, deficit)| FamilySummary {
                family: pick.family,
                members: result.variants.iter().filter(|variant| variant.family == pick.family).count(),
                is_chosen: pick.family == Family::BottomK,
                pick,
                mean_nll,
                deficit,
                se: 0.0041,
            })
            .collect(),
    });
    let samples = result.data.holdout;
    let gain =
        |mean: f64, half: f64, p| Gain { mean, low: rounded(mean - half), high: rounded(mean + half), p, samples };
    let control = |family, label: String, over_full, cut_over, p_holm| Control {
        family,
        label,
        gates: vec![Variant::bottom_k(layers, layers / 2).spec()],
        over_full,
        cut_over,
        p_holm,
    };
    result.controls = Some(Controls {
        rows: vec![
            control(
                Family::GlobalAlpha,
                "strength 0.75".to_owned(),
                gain(-0.004, 0.009, 0.4),
                gain(0.021, 0.011, 0.0004),
                0.0012,
            ),
            control(
                Family::RandomK,
                format!("{kept} random layers, 8 draws"),
                gain(0.011, 0.016, 0.21),
                gain(0.006, 0.015, 0.44),
                0.44,
            ),
            control(
                Family::TopK,
                format!("highest {kept} layers"),
                gain(-0.082, 0.021, 0.0001),
                gain(0.099, 0.024, 0.0001),
                0.0003,
            ),
        ],
        depth: Depth::NotShown,
    });
    result.effects = Some(effects);
    result.guard = Some(GuardSummary {
        path: "guard.jsonl".to_owned(),
        sha256: "d4".repeat(32),
        selection: 40,
        holdout: 20,
        skipped: 0,
        cut: 0,
        margin: 0.02,
        excluded: 3,
        gain: Gain { samples: 20, ..gain(0.004, 0.009, 0.38) },
        adapter_gain: Gain { samples: 20, ..gain(-0.051, 0.02, 0.0004) },
        is_held: true,
    });
    let scored = result.variants.iter().filter(|variant| variant.selection.is_some());
    let mut front: Vec<FrontPoint> = scored
        .map(|variant| FrontPoint {
            family: variant.family,
            label: variant.label.clone(),
            gates: variant.gates.clone(),
            nll: variant.selection.unwrap().mean_nll,
            guard: None,
            bytes: variant.bytes,
            is_on_front: false,
        })
        .collect();
    for index in 0..front.len() {
        let (nll, bytes) = (front[index].nll, front[index].bytes);
        let is_beaten =
            |other: &FrontPoint| (other.nll < nll && other.bytes <= bytes) || (other.nll <= nll && other.bytes < bytes);
        front[index].is_on_front = !front.iter().any(is_beaten);
    }
    result.front = front;
    result.candidate = Some(candidate);
    result
}

/// Effects of layers and modules: the middle layers help most, the top layers harm slightly.
fn effects(layers: usize, samples: usize) -> Effects {
    const MODULES: [&str; 4] = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let mut noise = Noise(77);
    let mut measure = |kind, scale: f64, offset: f64, width: Option<f64>, has_modules: bool| {
        let mut values = Vec::new();
        for layer in 0..layers {
            let depth = (layer as f64 + 0.5) / layers as f64;
            let height = scale * (3.2 * depth * (1.0 - depth) - 0.25 + 0.3 * noise.next()) + offset;
            let of = |module: Option<&str>, value: f64| EffectValue {
                layer,
                module: module.map(str::to_owned),
                value: rounded(value),
                interval: width.map(|width| [rounded(value - width), rounded(value + 1.2 * width)]),
            };
            values.push(of(None, height));
            if has_modules {
                values.extend(
                    MODULES.map(|module| of(Some(module), (height - offset) * (0.25 + 0.4 * noise.next()) + offset)),
                );
            }
        }
        let permutations = if kind == EffectKind::Shapley { 64 } else { 0 };
        let samples = match kind {
            EffectKind::Magnitude => 0,
            EffectKind::Lens => samples.min(16),
            _ => samples,
        };
        EffectMeasure { kind, samples, permutations, values }
    };
    let measures = vec![
        measure(EffectKind::LeaveOneOut, 0.02, 0.0, Some(0.004), true),
        measure(EffectKind::LeaveOneIn, 0.06, 0.0, Some(0.009), true),
        measure(EffectKind::Shapley, 0.03, 0.0, Some(0.005), false),
        measure(EffectKind::Magnitude, 1.1, 2.4, None, true),
        measure(EffectKind::Output, 14.0, 21.0, None, true),
        measure(EffectKind::Lens, 0.3, 0.0, None, false),
    ];
    let row = |proxy, truth, rho, p| Agreement { proxy, truth, rho, p, layers };
    let agreement = vec![
        row(EffectKind::Magnitude, EffectKind::LeaveOneOut, 0.41, 0.021),
        row(EffectKind::Output, EffectKind::LeaveOneOut, 0.68, 0.0001),
        row(EffectKind::Lens, EffectKind::LeaveOneOut, -0.12, 0.53),
        row(EffectKind::Magnitude, EffectKind::Shapley, 0.37, 0.044),
        row(EffectKind::Output, EffectKind::Shapley, 0.71, 0.0001),
        row(EffectKind::Lens, EffectKind::Shapley, 0.05, 0.79),
    ];
    Effects { measures, agreement }
}

/// Tokens of the samples of a search with a candidate.
fn tokens(samples: usize, length: usize) -> Vec<SampleTokens> {
    const WORDS: [&str; 16] = [
        "Nat",
        "alia",
        " sold",
        " ",
        "48",
        "/",
        "2",
        " =",
        " 24",
        " clips",
        " in",
        " May",
        ".\n",
        "####",
        " 72",
        "<|im_end|>",
    ];
    let mut noise = Noise(13);
    let mut sample = |index: usize| {
        let mut row = |fall: f64| -> Vec<f32> {
            let nll = |noise: f64| (4.0 * (noise + 0.5) * (noise + 0.5) * (1.0 - fall) * 1e4).round() / 1e4;
            (0..length).map(|_| nll(noise.next()) as f32).collect()
        };
        let prompt = ["<|im_start|>", "assistant", "\n"].into_iter().map(|text| (text, false));
        let answer = (0..length).map(|at| (WORDS[at % WORDS.len()], true));
        let tokens = prompt.chain(answer).zip(100..);
        let token = |((text, scored), id): ((&str, bool), u32)| Token { id, text: text.to_owned(), scored };
        SampleTokens {
            line: index + 1,
            part: if index % 3 == 2 { Part::Holdout } else { Part::Selection },
            prompt: format!(
                "<|im_start|>user\nQuestion {}: Natalia sold clips to 48 of her friends in April, and then half as \
                 many in May. How many clips did she sell altogether in April and \
                 May?<|im_end|>\n<|im_start|>assistant\n",
                index + 1
            ),
            sequence: tokens.map(token).collect(),
            tokens: (0..length).map(|at| WORDS[at % WORDS.len()].to_owned()).collect(),
            base: row(0.1 * (index % 5) as f64),
            full: row(0.3),
            candidate: row(0.35),
        }
    };
    (0..samples).map(&mut sample).collect()
}

/// The same search as a race that drops most boundaries early.
fn raced() -> SearchResult {
    let mut result = example(12, 24, 12);
    let left = [result.choice.one_se, result.choice.best];
    let dropped = |layers_kept| DroppedBoundary { layers_kept, samples: 8, leader: left[1], deficit: 0.2, p: 2e-5 };
    result.race = Some(RaceSummary {
        error_rate: 0.05,
        dropped: [0, 2, 4, 12].into_iter().filter(|k| !left.contains(k)).map(dropped).collect(),
        skipped: vec![1, 3],
    });
    result.variants.retain(|variant| ![1, 3].contains(&variant.layers_kept));
    for variant in &mut result.variants {
        let judged = [0, left[0], 12].contains(&variant.layers_kept);
        variant.selection = variant.selection.filter(|_| left.contains(&variant.layers_kept));
        variant.holdout = variant.holdout.filter(|_| judged);
    }
    result
}

#[test]
fn a_race_reports_dropped_and_skipped_boundaries() {
    let result = raced();
    // Line breaks may be anywhere.
    let text = table(&result, Style::Plain).replace('\n', " ");
    assert!(text.contains("dropped after 8") && text.contains("k = 1, 3. --search exact scores all"), "{text}");
    assert!(!text.contains("NaN"), "{text}");
    let mut none_left = result.clone();
    none_left.race.as_mut().unwrap().dropped.clear();
    let text = table(&none_left, Style::Plain).replace('\n', " ");
    let racing = "Racing: no boundary was dropped before all samples were scored. Not scored, because both";
    assert!(text.contains(racing), "{text}");
    assert!(!text.contains("0 boundaries"), "{text}");
    let page = html(&result, &[]);
    balanced(&page);
    assert!(page.contains("dropped after 8") && page.contains("--search exact") && !page.contains("NaN"));
    // Missing scores stay missing in JSON.
    let read: SearchResult = serde_json::from_str(&plimsoll::report::json(&result).unwrap()).unwrap();
    assert_eq!(read.race, result.race);
    assert!(read.variants.iter().any(|variant| variant.selection.is_none() && variant.holdout.is_some()));
}

/// A number rounded to six decimals.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Pseudorandom numbers from −0.5 to 0.5, equal on all platforms (Knuth's 64-bit linear congruential generator, MMIX).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1_u32 << 24) - 0.5
    }
}

fn without_escapes(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

/// Checks that every open element is closed, in order.
fn balanced(page: &str) {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let mut open = Vec::new();
    // Scripts contain no elements.
    let (page, scripts) = (page.replace(SCRIPT, ""), page.matches("<script").count());
    assert!((1..=2).contains(&scripts));
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.split([' ', '/', '\n']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}
