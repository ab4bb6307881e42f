//! The three tellings of a result, on an example of 30 layers and on results that no search would give.
#![allow(clippy::unwrap_used)]

use std::fs;

use plimsoll::choose::{self, Gain, Input, Interval, Options, Power, Reason, Validation, Verdict};
use plimsoll::gates::{Family, Variant};
use plimsoll::report::{
    AdapterFacts, Cost, DataFacts, DroppedBoundary, LensPoint, LensSummary, ModelFacts, RaceSummary, Rules,
    ScoreSummary, SearchResult, Style, VariantSummary, Warning, html, sentence, table,
};
use plimsoll::stats::mean_and_se;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/result.json");

#[test]
fn the_example_stands_as_it_was_committed() {
    let example = json(&example(30, 64, 32));
    if std::env::var_os("INSTA_UPDATE").is_some_and(|value| value == "always") {
        fs::write(FIXTURE, &example).unwrap();
    }
    let committed = fs::read_to_string(FIXTURE).unwrap();
    assert_eq!(committed, example, "run with INSTA_UPDATE=always if meant");
    let parsed: SearchResult = serde_json::from_str(&committed).unwrap();
    assert_eq!(json(&parsed), committed);
}

#[test]
fn the_table_reads_well_and_fits() {
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
fn every_answer_says_what_was_tested() {
    let mut result = committed();
    let mut tell = |verdict, reason, one_se: usize| {
        result.choice.verdict = verdict;
        result.choice.reason = reason;
        result.choice.one_se = one_se;
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
        tell(Verdict::Trim, Reason::Better, 18),
        tell(Verdict::Trim, Reason::NotWorse, 18),
        tell(Verdict::Trim, Reason::BetterThanBase, 1),
        tell(Verdict::KeepFull, Reason::NoCut, 30),
        tell(Verdict::KeepFull, Reason::Worse, 18),
        tell(Verdict::KeepFull, Reason::NotShown, 18),
        tell(Verdict::KeepFull, Reason::AdapterNotShown, 18),
        tell(Verdict::UseBase, Reason::AdapterNotBetter, 18),
        tell(Verdict::UseBase, Reason::AdapterNotBetter, 0),
    ];
    insta::assert_snapshot!("sentences", sentences.join("\n\n"));
}

#[test]
fn an_adapter_that_is_worse_than_the_base_is_said_to_be() {
    let mut result = committed();
    result.warnings = vec![Warning::AdapterUnproven { p: 0.0001 }];
    result.choice.verdict = Verdict::UseBase;
    result.choice.reason = Reason::AdapterNotBetter;
    result.choice.one_se = 0;
    let mut told = |mean, low, high, p| {
        result.choice.adapter_gain = Gain { mean, low, high, p, samples: 32 };
        table(&result, Style::Plain).replace('\n', " ")
    };
    let worse = told(-0.2, -0.3, -0.1, 0.0001);
    assert!(worse.contains("the full adapter is worse than the base model"), "{worse}");
    assert!(worse.contains("On the held-out samples the adapter is worse than the base model"), "{worse}");
    assert!(!worse.contains("show"), "{worse}");
    let little = told(0.001, -0.002, 0.004, 0.3);
    assert!(little.contains("gains less over the base model than the 0.01 nats"), "{little}");
    assert!(little.contains("do not show that the adapter beats"), "{little}");
}

#[test]
fn judging_in_turn_and_a_margin_in_nats_are_said() {
    let mut result = committed();
    result.choice.validation = Validation::Nested { folds: 10 };
    result.choice.reason = Reason::NotWorse;
    result.rules.margin_nats = Some(0.02);
    let told = sentence(&result);
    assert!(told.contains("On 32 samples, each held out in turn (10 folds), the cut counts as not worse"), "{told}");
    assert!(told.contains(": it surely loses less than 0.02 nats per answer token, and it retains"), "{told}");
    result.choice.reason = Reason::NotShown;
    result.choice.power = Some(Power { detectable: 0.0123, samples: Some(101) });
    let told = sentence(&result);
    assert!(
        told.contains("With 32 samples a gain of 0.012 nats per answer token or more would be shown in 8 of 10"),
        "{told}"
    );
    assert!(told.contains("to show one of the size seen takes about 110."), "{told}");
    result.choice.gain = Gain { mean: -0.03, low: -0.05, high: -0.01, p: 0.01, samples: 32 };
    let told = sentence(&result);
    assert!(told.contains("what the rule picked on the others was worse than the full adapter"), "{told}");
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let page = html(&committed());
    for outside in ["<script", "<link", "<img", "@import", "url(", "src=", "javascript:"] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The one address is the paper's, as a link to follow.
    assert_eq!(page.matches("http").count() - page.matches("http-equiv").count(), 1);
    assert!(page.contains("default-src 'none'"));
    assert!(page.len() < 200_000, "{} bytes", page.len());
}

#[test]
fn every_figure_has_a_caption_its_limits_and_its_numbers() {
    let page = html(&committed());
    assert_eq!(page.matches("<figure>").count(), 3);
    for part in ["<figcaption>", "What it does not show.", "<details>"] {
        assert_eq!(page.matches(part).count(), 3, "{part}");
    }
    // Three figures and the strip of layers.
    assert_eq!(page.matches("role=\"img\" aria-label=\"").count(), 4);
    let result = committed();
    for variant in &result.variants {
        assert!(page.contains(&format!("<th scope=\"row\">{}</th>", variant.layers_kept)));
    }
    assert!(page.contains(&result.adapter.sha256) && page.contains(&result.data.sha256));
}

#[test]
fn what_strangers_wrote_is_escaped() {
    const EVIL: &str = "</code><script>alert('1')</script>\"&\u{202e}\u{1b}[2J";
    let mut result = committed();
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
    ] {
        EVIL.clone_into(text);
    }
    result.adapter.modules = vec![EVIL.to_owned()];
    let page = html(&result);
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    assert!(page.matches("&lt;script&gt;").count() >= 11);
    balanced(&page);
    assert!(!table(&result, Style::Plain).contains("script"));
}

#[test]
fn odd_results_are_still_told() {
    for result in odd_results() {
        let page = html(&result);
        balanced(&page);
        let text = format!("{page}\n{}\n{}", table(&result, Style::Colour), sentence(&result));
        for word in ["NaN", "inf ", "inf\"", ">inf", "-0.0<"] {
            assert!(!text.contains(word), "{word} with {} layers", result.model.layers);
        }
    }
}

/// The example as it is committed.
fn committed() -> SearchResult {
    serde_json::from_str(&fs::read_to_string(FIXTURE).unwrap()).unwrap()
}

fn json(result: &SearchResult) -> String {
    serde_json::to_string_pretty(result).unwrap() + "\n"
}

/// Results at the edges: one and two layers, all samples alike, nothing measured, numbers beyond reason.
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
    (wild.model.layers, wild.choice.layers_kept, wild.choice.curve) = (usize::MAX, usize::MAX, usize::MAX);
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
    vec![example(1, 2, 2), example(2, 3, 2), example(80, 20, 10), flat, empty, wild, raced()]
}

/// What a search could have found on an adapter whose upper layers do some harm.
///
/// Every sample's likelihood is a bend in k: it falls to two thirds of the layers and rises a little above, with an
/// offset, a slope and some noise of its own. Only sums, products and quotients, so that every platform computes the
/// same.
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
        label: format!("{k} layers"),
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

    let options = Options { seed: 7, ..Options::default() };
    let curve: Vec<f64> = lens.full.iter().map(|point| point.probability).collect();
    let choice = choose::choose(&Input::new(&parts[0], &parts[1], &curve).unwrap(), &options);
    let bytes_kept = 327_680 * choice.layers_kept as u64;
    let share = choice.bootstrap[choice.one_se];
    let digest = |digits: &str| digits.repeat(32);
    SearchResult {
        candidate: None,
        arbitration: None,
        controls: None,
        effects: None,
        guard: None,
        front: Vec::new(),
        metric: None,
        efficiency: None,
        schema: 1,
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
            skipped: 3,
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

/// The same search as a race, in which all but a few boundaries left early.
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
fn a_race_says_what_was_not_scored_and_why() {
    let result = raced();
    // Wherever the lines break.
    let text = table(&result, Style::Plain).replace('\n', " ");
    assert!(text.contains("worse after 8") && text.contains("k = 1, 3. --search exact scores all."), "{text}");
    assert!(!text.contains("NaN"), "{text}");
    let page = html(&result);
    balanced(&page);
    assert!(page.contains("worse after 8") && page.contains("--search exact") && !page.contains("NaN"));
    // What is not a number in the result is none in its JSON either.
    let read: SearchResult = serde_json::from_str(&plimsoll::report::json(&result).unwrap()).unwrap();
    assert_eq!(read.race, result.race);
    assert!(read.variants.iter().any(|variant| variant.selection.is_none() && variant.holdout.is_some()));
}

/// Six decimals: what a reader of the example sees of a number.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// Numbers from −0.5 to 0.5, the same everywhere (Knuth's 64-bit linear congruential generator, MMIX).
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

/// Checks that every element that is opened is closed, in order.
fn balanced(page: &str) {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let mut open = Vec::new();
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
