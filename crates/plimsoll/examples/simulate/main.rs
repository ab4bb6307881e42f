//! Error rates of `choose`: how often it is right, and how often it makes a false claim, in simulated searches whose
//! truth is known.
//!
//! ```text
//! cargo run --release -p plimsoll --example simulate [RUNS]
//! ```
//!
//! A truth gives the mean effect of each of 30 layers on the NLL, and its distribution over samples. Each run draws
//! samples, divides them as a search does ([`folds_for`]: nested cross-validation below 100 samples, else a third
//! held out), chooses by the one-standard-error rule, and by sufficient layers on all samples. The output are the
//! Markdown tables of `docs/choosing-evidence.md`: shares of runs with their 95 % intervals (Wilson, Journal of the
//! American Statistical Association 22:158, 1927).
//!
//! Intervals and tests use 400 resamples in place of the default 10,000, and the stability of the choice, which does
//! not affect the verdict, uses one. This makes p-values coarser (steps of 0.0025) but not biased.

use std::num::NonZeroUsize;

use plimsoll::choose::sufficient::{Cut, SHARES, Sequence};
use plimsoll::choose::{Choice, ChooseOptions, Input, Margin, Part, Reason, Scores, choose, choose_nested, folds_for};
use plimsoll::stats::normal_quantile;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rayon::prelude::*;

mod claims;
mod truths;

use truths::{LAYERS, Truth, truths};

const SAMPLES: [usize; 6] = [12, 24, 48, 100, 200, 400];
const RUNS: u64 = 2_000;
const RESAMPLES: NonZeroUsize = NonZeroUsize::new(400).unwrap();
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// The title of a false claim, and whether a run made it.
type Claim = (&'static str, fn(&Outcome) -> bool);

/// The result of one run.
struct Outcome {
    choice: Choice,
    /// The verdict is `trim` because the cut is better, but its true mean is not.
    is_false_help: bool,
    /// The verdict is `trim` because the cut is not worse, but it is worse by more than the margin.
    is_false_not_worse: bool,
    /// The verdict is `keep-full` because the cut is worse, but it is not.
    is_false_worse: bool,
    /// The verdict is `use-base`, but the gain of the adapter is not negligible.
    is_false_base: bool,
    /// The number of layers that are called sufficient, for each of [`SHARES`].
    sufficient: [usize; SHARES.len()],
}

fn run(truth: &Truth, samples: usize, seed: u64) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<Vec<f64>> = (0..samples).map(|_| truth.sample(&mut rng)).collect();
    let boundaries: Vec<usize> = (0..=LAYERS).collect();
    let lens: Vec<f64> = (0..LAYERS).map(|layer| layer as f64).collect();
    let options = ChooseOptions { seed, resamples: RESAMPLES, choice_resamples: ONE, ..ChooseOptions::default() };
    let choice = match folds_for(samples) {
        Some(folds) => Scores::new(Part::Selection, &boundaries, &rows)
            .and_then(|scores| choose_nested(&scores, LAYERS, &lens, LAYERS, folds, &options)),
        None => {
            let (holdout, selection) = rows.split_at(samples / 3);
            Input::new(selection, holdout, &lens).and_then(|input| choose(&input, &options))
        }
    }
    .expect("simulated scores are finite");
    let column = |k: usize| rows.iter().map(|row| row[k]).collect::<Vec<f64>>();
    let cuts: Vec<Cut> = (1..LAYERS).rev().map(|k| Cut { layers_kept: k, loss: Some(column(k)) }).collect();
    let (of_base, of_full) = (column(0), column(LAYERS));
    let sequence = Sequence::new(&of_base, &of_full, LAYERS, &cuts, &options);
    let sufficient = SHARES.map(|share| sequence.sufficient(Margin::Share(share)).layers_kept);
    let curve = truth.curve();
    let (base, full, cut) = (curve[0], curve[LAYERS], curve[choice.one_se]);
    let rounding = 1e-12;
    let is_false_help = match choice.reason {
        Reason::Better => full - cut <= rounding,
        Reason::BetterThanBase => base - cut <= rounding || full - cut <= rounding,
        _ => false,
    };
    let is_false_not_worse = choice.reason == Reason::NotWorse
        && match options.margin {
            Margin::Share(share) => base - cut < share * (base - full) - rounding,
            Margin::Nats(nats) => full - cut < -nats,
        };
    let is_false_worse = choice.reason == Reason::Worse && full - cut >= -rounding;
    let is_false_base = choice.reason == Reason::AdapterNotBetter && base - full > options.negligible;
    Outcome { choice, is_false_help, is_false_not_worse, is_false_worse, is_false_base, sufficient }
}

/// Whether a cut is called sufficient for a margin that it does not hold: for this one or a smaller cut.
fn is_false_sufficient(truth: &Truth, outcome: &Outcome, index: usize) -> bool {
    (outcome.sufficient[index]..LAYERS).any(|k| !truth.holds(k, SHARES[index]))
}

/// The layers that are dropped, as a share of those that could be; `None` if none could be.
fn dropped(truth: &Truth, kept: usize, share: f64) -> Option<f64> {
    let fewest = (1..LAYERS).rev().take_while(|&k| truth.holds(k, share)).last()?;
    Some((LAYERS - kept.clamp(fewest, LAYERS)) as f64 / (LAYERS - fewest) as f64)
}

/// The 95 % Wilson interval of a share.
fn wilson(hits: usize, runs: usize) -> [f64; 2] {
    let z = normal_quantile(0.975);
    let (hits, runs) = (hits as f64, runs as f64);
    let centre = (hits + z * z / 2.0) / (runs + z * z);
    let half = z / (runs + z * z) * (hits * (runs - hits) / runs + z * z / 4.0).sqrt();
    [(centre - half).max(0.0), (centre + half).min(1.0)]
}

fn main() {
    if std::env::args().nth(2).is_some() {
        return;
    }
    let runs = std::env::args().nth(1).and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let truths = truths();
    let started = std::time::Instant::now();
    let outcomes: Vec<Vec<Vec<Outcome>>> = (0_u64..)
        .zip(&truths)
        .map(|(number, truth)| {
            let with = |samples: usize| {
                let seed = |run: u64| (number << 40) | ((samples as u64) << 20) | run;
                (0..runs).into_par_iter().map(|number| run(truth, samples, seed(number))).collect()
            };
            SAMPLES.iter().map(|&samples| with(samples)).collect()
        })
        .collect();

    println!("{runs} runs each; shares in %, with their 95 % intervals\n");
    print_errors(&truths, &outcomes);
    print_verdicts(&truths, &outcomes);
    print_sufficient(&truths, &outcomes);
    claims::print_strengths(runs);
    // Many patterns make these slow.
    claims::print_looks(&truths, runs / 4);
    eprintln!("{:.0} seconds", started.elapsed().as_secs_f64());
}

/// The share of outcomes for which `holds` is true, and its 95 % interval, in percent.
fn share(outcomes: &[Outcome], holds: &dyn Fn(&Outcome) -> bool) -> (f64, f64, f64) {
    let hits = outcomes.iter().filter(|outcome| holds(outcome)).count();
    let [low, high] = wilson(hits, outcomes.len()).map(|end| 100.0 * end);
    (100.0 * hits as f64 / outcomes.len() as f64, low, high)
}

/// Prints one table per kind of false claim. `outcomes`: by truth, then by number of samples.
fn print_errors(truths: &[Truth], outcomes: &[Vec<Vec<Outcome>>]) {
    let errors: [Claim; 4] = [
        ("False \"the cut helps\"", |outcome| outcome.is_false_help),
        ("False \"the cut is not worse\"", |outcome| outcome.is_false_not_worse),
        ("False \"the cut is worse\"", |outcome| outcome.is_false_worse),
        ("False \"use the base model\"", |outcome| outcome.is_false_base),
    ];
    for (title, holds) in errors {
        println!("{title} (truths without such a claim are not listed)\n");
        println!("| truth | 12 | 24 | 48 | 100 | 200 | 400 |\n|---|---|---|---|---|---|---|");
        for (truth, outcomes) in truths.iter().zip(outcomes) {
            if !outcomes.iter().flatten().any(&holds) {
                continue;
            }
            let cells = outcomes.iter().map(|outcomes| {
                let (value, low, high) = share(outcomes, &holds);
                format!(" {value:.1} ({low:.1}–{high:.1}) |")
            });
            println!("| {} |{}", truth.name, cells.collect::<String>());
        }
        println!();
    }
}

/// Prints the table of verdicts. `outcomes`: by truth, then by number of samples.
fn print_verdicts(truths: &[Truth], outcomes: &[Vec<Vec<Outcome>>]) {
    let reasons = [
        Reason::Better,
        Reason::BetterThanBase,
        Reason::NotWorse,
        Reason::NoCut,
        Reason::Worse,
        Reason::AdapterNotBetter,
        Reason::NotShown,
        Reason::AdapterNotShown,
    ];
    println!(
        "Verdicts\n\n| truth (its boundary) | samples | trim: better | than base | not worse | keep: no cut | worse \
         | base | open: cut | adapter | abstains | boundary | ±1 |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    for (truth, outcomes) in truths.iter().zip(outcomes) {
        for (samples, outcomes) in SAMPLES.iter().zip(outcomes) {
            let percent = |holds: &dyn Fn(&Outcome) -> bool| format!(" {:.0} |", share(outcomes, holds).0);
            let boundary = truth.boundary();
            let cells: String =
                reasons.iter().map(|&reason| percent(&|outcome| outcome.choice.reason == reason)).collect();
            let abstains = percent(&|outcome| outcome.choice.abstains);
            let exact = percent(&|outcome| outcome.choice.one_se == boundary);
            let near = percent(&|outcome| outcome.choice.one_se.abs_diff(boundary) <= 1);
            println!("| {} ({boundary}) | {samples} |{cells}{abstains}{exact}{near}", truth.name);
        }
    }
}

/// Prints how often layers are called sufficient that are not, and how many of the droppable layers are dropped.
/// `outcomes`: by truth, then by number of samples.
fn print_sufficient(truths: &[Truth], outcomes: &[Vec<Vec<Outcome>>]) {
    println!("\nFalse \"sufficient\": the margin of 99, 98, 95, 90, 80 or 50 % with the highest rate\n");
    println!("| truth | 12 | 24 | 48 | 100 | 200 | 400 |\n|---|---|---|---|---|---|---|");
    for (truth, outcomes) in truths.iter().zip(outcomes) {
        let cell = |outcomes: &Vec<Outcome>| {
            let of = |index: usize| share(outcomes, &|outcome| is_false_sufficient(truth, outcome, index));
            let (value, low, high) =
                (0..SHARES.len()).map(of).max_by(|a, b| a.0.total_cmp(&b.0)).expect("there are margins");
            format!(" {value:.1} ({low:.1}–{high:.1}) |")
        };
        println!("| {} |{}", truth.name, outcomes.iter().map(cell).collect::<String>());
    }
    println!("\nLayers dropped, in % of those that could be: sufficient layers at 98, 95 and 90 %; one-SE at 98 %\n");
    println!("| truth | 12 | 24 | 48 | 100 | 200 | 400 |\n|---|---|---|---|---|---|---|");
    for (truth, outcomes) in truths.iter().zip(outcomes) {
        let mean = |outcomes: &Vec<Outcome>, share: f64, kept: &dyn Fn(&Outcome) -> usize| {
            let shares = outcomes.iter().filter_map(|outcome| dropped(truth, kept(outcome), share));
            let shares: Vec<f64> = shares.collect();
            if shares.is_empty() { "–".to_owned() } else { format!("{:.0}", 100.0 * plimsoll::stats::mean(&shares)) }
        };
        let cell = |outcomes: &Vec<Outcome>| {
            let new = [1, 2, 3].map(|index| mean(outcomes, SHARES[index], &|outcome| outcome.sufficient[index]));
            let trimmed = |outcome: &Outcome| outcome.choice.layers_kept.max(1);
            let old = mean(outcomes, SHARES[1], &trimmed);
            format!(" {}; {old} |", new.join(" "))
        };
        println!("| {} |{}", truth.name, outcomes.iter().map(cell).collect::<String>());
    }
}
