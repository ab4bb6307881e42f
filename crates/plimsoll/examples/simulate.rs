//! Error rates of `choose`: how often it is right, and how often it makes a false claim, in simulated searches whose
//! truth is known.
//!
//! ```text
//! cargo run --release -p plimsoll --example simulate [RUNS]
//! ```
//!
//! A truth gives the mean effect of each of 30 layers on the NLL, and its distribution over samples. Each run draws
//! samples, divides them as a search does ([`validation_for`]: nested cross-validation below 100 samples, else a third
//! held out), and chooses. The output are the Markdown tables of `docs/choosing-evidence.md`: shares of runs with their
//! 95 % intervals (Wilson, Journal of the American Statistical Association 22:158, 1927).
//!
//! Intervals and tests use 400 resamples in place of the default 10,000, and the stability of the choice, which does
//! not affect the verdict, uses one. This makes p-values coarser (steps of 0.0025) but not biased.

use std::num::NonZeroUsize;

use plimsoll::choose::{
    Choice, ChooseOptions, Input, JudgingSamples, Margin, Part, Reason, Scores, choose, choose_nested, validation_for,
};
use plimsoll::stats::normal_quantile;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use rayon::prelude::*;

const LAYERS: usize = 30;
const SAMPLES: [usize; 6] = [12, 24, 48, 100, 200, 400];
const RUNS: u64 = 2_000;
const RESAMPLES: NonZeroUsize = NonZeroUsize::new(400).unwrap();
const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// Standard deviation of the effect of a layer over samples, in nats per token.
const NOISE: f64 = 0.02;

/// Distribution of the effect of a layer over samples, with mean 0 and standard deviation 1.
#[derive(Clone, Copy, Debug)]
enum Noise {
    Normal,
    /// Student's t with three degrees of freedom, its scale shared by all layers of a sample: a few samples are far
    /// from the mean.
    Student,
    /// Log-normal (σ = 1): most samples lose a little by a layer, and a few gain much. A skewness of 6.2.
    RareGains,
    /// Log-normal (σ = 1.5): fewer samples gain more. A skewness of 33, for which the tests are not designed.
    RarerGains,
    /// The negative of `RareGains`: most samples gain a little, and a few lose much.
    RareLosses,
}

/// An adapter with known effects.
struct Truth {
    name: &'static str,
    /// By how much each layer lowers the mean NLL, in nats per token.
    effects: [f64; LAYERS],
    /// Standard deviation of the effect of each layer over samples.
    noise: [f64; LAYERS],
    kind: Noise,
}

impl Truth {
    fn new(name: &'static str, kind: Noise, effect: impl Fn(usize) -> f64) -> Self {
        Self { name, effects: std::array::from_fn(effect), noise: [NOISE; LAYERS], kind }
    }

    /// The true mean NLL of each boundary, relative to that of the base model.
    fn curve(&self) -> Vec<f64> {
        let mut nll = 0.0;
        std::iter::once(0.0)
            .chain(self.effects.iter().map(|effect| {
                nll -= effect;
                nll
            }))
            .collect()
    }

    /// The smallest of the best boundaries.
    fn boundary(&self) -> usize {
        let curve = self.curve();
        let least = curve.iter().copied().fold(f64::INFINITY, f64::min);
        // Sums of effects may have rounding errors.
        curve.iter().position(|nll| *nll <= least + 1e-12).unwrap_or(LAYERS)
    }

    /// Draws a sample: its NLL at every boundary. Half of the variance of a layer's effect is shared by all layers of
    /// the sample, and half is the layer's own. So the differences between boundaries are correlated, and grow with
    /// their distance.
    fn sample(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let difficulty = normal(rng);
        let scale = match self.kind {
            // 1/√(χ²₃/3), and the standard deviation of t₃ is √3.
            Noise::Student => (0..3).map(|_| normal(rng).powi(2)).sum::<f64>().sqrt().recip(),
            _ => 1.0,
        };
        let mut unit = || match self.kind {
            Noise::Normal | Noise::Student => scale * normal(rng),
            Noise::RareGains => log_normal(1.0, rng),
            Noise::RarerGains => log_normal(1.5, rng),
            Noise::RareLosses => -log_normal(1.0, rng),
        };
        let shared = unit();
        let mut nll = 2.0 + 0.6 * difficulty;
        let mut row = vec![nll];
        for (effect, noise) in self.effects.iter().zip(&self.noise) {
            nll -= effect + noise * (shared + unit()) * std::f64::consts::FRAC_1_SQRT_2;
            row.push(nll);
        }
        row
    }
}

fn truths() -> Vec<Truth> {
    use Noise::{Normal, RareGains, RareLosses, RarerGains, Student};
    let below = |layer: usize| if layer < 15 { 0.02 } else { 0.0 };
    let above = |layer: usize| if layer < 15 { 0.0 } else { 0.02 };
    let everywhere = |_| 0.02;
    let nowhere = |_| 0.0;
    let slight = |layer: usize| if layer < 20 { 0.02 } else { -0.003 };
    let over_scaled = |layer: usize| if layer < 20 { 0.02 } else { -0.02 };
    let harmful = |_| -0.02;
    let helpful_bottom = |layer: usize| if layer < 8 { 0.03 } else { -0.02 };
    let declining = |layer: usize| 0.05 * 0.8_f64.powi(layer as i32);
    let mut quiet = Truth::new("useful below 15, quiet above", Normal, below);
    quiet.noise[15..].fill(0.000_5);
    let mut nearly_quiet = Truth::new("useful below 15, quiet above, rare gains", RareGains, below);
    nearly_quiet.noise[15..].fill(0.000_5);
    // Without the upper 15 layers 2.2 % of the gain are lost, a little more than the margin, which is hard to show.
    let little = |layer: usize| if layer < 15 { 0.02 } else { 0.000_45 };
    let mut lossy = Truth::new("a little useful from 15 on", Normal, little);
    lossy.noise[15..].fill(0.002);
    let mut lossy_gains = Truth::new("a little useful from 15 on, rare gains", RareGains, little);
    lossy_gains.noise[15..].fill(0.002);
    vec![
        Truth::new("useful below 15", Normal, below),
        Truth::new("useful below 15, Student", Student, below),
        Truth::new("useful below 15, rare gains", RareGains, below),
        Truth::new("useful below 15, rarer gains", RarerGains, below),
        Truth::new("useful below 15, rare losses", RareLosses, below),
        quiet,
        nearly_quiet,
        lossy,
        lossy_gains,
        Truth::new("useful from 15 on", Normal, above),
        Truth::new("useful everywhere", Normal, everywhere),
        Truth::new("useful everywhere, Student", Student, everywhere),
        Truth::new("useful everywhere, rare gains", RareGains, everywhere),
        Truth::new("useful nowhere", Normal, nowhere),
        Truth::new("useful nowhere, Student", Student, nowhere),
        Truth::new("useful nowhere, rare gains", RareGains, nowhere),
        Truth::new("useful nowhere, rare losses", RareLosses, nowhere),
        Truth::new("declining gains", Normal, declining),
        Truth::new("declining gains, Student", Student, declining),
        Truth::new("declining gains, rare gains", RareGains, declining),
        Truth::new("declining gains, rare losses", RareLosses, declining),
        Truth::new("slight harm from 20 on", Normal, slight),
        Truth::new("over-scaled from 20 on", Normal, over_scaled),
        Truth::new("over-scaled from 20 on, Student", Student, over_scaled),
        Truth::new("over-scaled from 20 on, rare gains", RareGains, over_scaled),
        Truth::new("harmful everywhere", Normal, harmful),
        Truth::new("harmful everywhere, rare gains", RareGains, harmful),
        Truth::new("harmful, helpful below 8", Normal, helpful_bottom),
    ]
}

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
}

fn run(truth: &Truth, samples: usize, seed: u64) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<Vec<f64>> = (0..samples).map(|_| truth.sample(&mut rng)).collect();
    let boundaries: Vec<usize> = (0..=LAYERS).collect();
    let lens: Vec<f64> = (0..LAYERS).map(|layer| layer as f64).collect();
    let options = ChooseOptions { seed, resamples: RESAMPLES, choice_resamples: ONE, ..ChooseOptions::default() };
    let choice = match validation_for(samples) {
        JudgingSamples::Nested { folds } => Scores::new(Part::Selection, &boundaries, &rows)
            .and_then(|scores| choose_nested(&scores, LAYERS, &lens, LAYERS, folds, &options)),
        JudgingSamples::Holdout => {
            let (holdout, selection) = rows.split_at(samples / 3);
            Input::new(selection, holdout, &lens).map(|input| choose(&input, &options))
        }
    }
    .expect("simulated scores are finite");
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
    Outcome { choice, is_false_help, is_false_not_worse, is_false_worse, is_false_base }
}

/// A standard normal number, by the inverse of the distribution function.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    normal_quantile(((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64)
}

/// A log-normal number with parameter `sigma`, minus its mean and divided by its standard deviation.
fn log_normal(sigma: f64, rng: &mut ChaCha8Rng) -> f64 {
    let square = sigma * sigma;
    let mean = (square / 2.0).exp();
    ((sigma * normal(rng)).exp() - mean) / (mean * square.exp_m1().sqrt())
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
