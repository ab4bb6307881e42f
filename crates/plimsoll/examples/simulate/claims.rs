//! Rates of two further claims: that another LoRA strength is better, and that half of the samples settle the answer.

use std::num::NonZeroUsize;

use plimsoll::choose::strength::StrengthTuning;
use plimsoll::choose::sufficient::{Cut, SHARES, Sequence, Stop};
use plimsoll::choose::{ChooseOptions, CutKind, Margin, Reason, judge, two_looks};
use plimsoll::stats::folds;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rayon::prelude::*;

use crate::truths::{LAYERS, Noise, Strengths, Truth};
use crate::{RESAMPLES, SAMPLES, wilson};

/// Prints how often another strength is called better.
pub(crate) fn print_strengths(runs: u64) {
    println!(
        "\nA strength is called better than 1\n\n| truth | 12 | 24 | 48 | 100 | 200 | 400 |\n|---|---|---|---|---|---|---|"
    );
    let alike = [
        ("all alike", Noise::Normal),
        ("all alike, Student", Noise::Student),
        ("all alike, rare gains", Noise::RareGains),
        ("all alike, rarer gains", Noise::RarerGains),
        ("all alike, rare losses", Noise::RareLosses),
    ];
    let alike = alike.map(|(name, kind)| (name, Strengths { kind, best: None }));
    let best = [("0.875 is best, so that 0.75 is as good as 1", 0.875), ("0.75 is best", 0.75)];
    let best = best.map(|(name, best)| (name, Strengths { kind: Noise::Normal, best: Some(best) }));
    for (number, (name, truth)) in (0_u64..).zip(alike.into_iter().chain(best)) {
        let cell = |&samples: &usize| {
            let claims = |run: u64| is_claimed(truth, samples, (number << 50) | ((samples as u64) << 20) | run);
            cell((0..runs).into_par_iter().filter(|&run| claims(run)).count(), runs as usize)
        };
        println!("| {name} |{}", SAMPLES.iter().map(cell).collect::<String>());
    }
}

/// Whether a search calls another strength better: one of two claims, so at half the level.
fn is_claimed(truth: Strengths, samples: usize, seed: u64) -> bool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<_> = (0..samples).map(|_| truth.sample(&mut rng)).collect();
    let column = |strength: f64| drawn.iter().map(|sample| sample.at(truth, strength)).collect::<Vec<f64>>();
    let (base, full) = (column(0.0), column(1.0));
    let mut tuning = StrengthTuning::new(base.clone(), full.clone(), folds(samples, 10, seed));
    loop {
        let wanted = tuning.wanted();
        if wanted.is_empty() {
            break;
        }
        wanted.into_iter().for_each(|strength| tuning.record(strength, column(strength)));
    }
    let options = ChooseOptions { seed, resamples: RESAMPLES, ..ChooseOptions::default() };
    let claim = ChooseOptions { alpha: options.alpha / 2.0, ..options };
    let Ok(unseen) = tuning.unseen(|strength| Ok::<_, std::convert::Infallible>(column(strength)));
    let reason = judge(&base, &full, &unseen, CutKind::Changed, &claim).reason;
    matches!(reason, Reason::Better | Reason::BetterThanBase)
}

/// Prints the rates of false "sufficient" with a look at half of the samples and without, and how often half was
/// enough.
pub(crate) fn print_looks(truths: &[Truth], runs: u64) {
    /// The first level is low, so p-values need small steps.
    const PATTERNS: NonZeroUsize = NonZeroUsize::new(2_000).unwrap();
    const FEW: [usize; 3] = [64, 128, 256];
    println!(
        "\nA look at half of the samples: false \"sufficient\" without and with it (highest of the margins), and how often \
         half was enough for 98, 95 and 90 %\n\n| truth | 64 | 128 | 256 |\n|---|---|---|---|"
    );
    let names =
        ["useful everywhere", "declining gains", "useful below 15, quiet", "a little useful", "useful below 15, rarer"];
    let chosen = truths.iter().filter(|truth| names.iter().any(|name| truth.name.starts_with(name)));
    for (number, truth) in (0_u64..).zip(chosen) {
        let of = |&samples: &usize| {
            let results = (0..runs).into_par_iter().map(|run| {
                let seed = (number << 50) | ((samples as u64) << 20) | run;
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let rows: Vec<Vec<f64>> = (0..samples).map(|_| truth.sample(&mut rng)).collect();
                let options = ChooseOptions { seed, resamples: PATTERNS, ..ChooseOptions::default() };
                let levels = two_looks(options.alpha / 2.0, 0.5).map(|level| 2.0 * level);
                let [first, last] = levels.map(|alpha| ChooseOptions { alpha, ..options.clone() });
                let half = of_margins(&rows[..samples / 2], &first);
                let (at_once, at_last) = (of_margins(&rows, &options), of_margins(&rows, &last));
                std::array::from_fn::<_, { SHARES.len() }, _>(|index| {
                    let is_enough = half[index].1;
                    let looked = if is_enough { half[index].0 } else { at_last[index].0 };
                    let is_false = |kept: usize| (kept..LAYERS).any(|k| !truth.holds(k, SHARES[index]));
                    (is_false(at_once[index].0), is_false(looked), is_enough)
                })
            });
            let results: Vec<[(bool, bool, bool); SHARES.len()]> = results.collect();
            let share = |index: usize, holds: fn(&(bool, bool, bool)) -> bool| {
                100.0 * results.iter().filter(|run| holds(&run[index])).count() as f64 / runs as f64
            };
            let highest = |holds: fn(&(bool, bool, bool)) -> bool| {
                (0..SHARES.len()).map(|at| share(at, holds)).fold(0.0, f64::max)
            };
            let enough = [1, 2, 3].map(|index| format!("{:.0}", share(index, |run| run.2)));
            format!(" {:.1}, {:.1}; {} |", highest(|run| run.0), highest(|run| run.1), enough.join(" "))
        };
        println!("| {} |{}", truth.name, FEW.iter().map(of).collect::<String>());
    }
}

/// For each margin of [`SHARES`], the layers that are called sufficient, and whether the answer is settled.
fn of_margins(rows: &[Vec<f64>], options: &ChooseOptions) -> [(usize, bool); SHARES.len()] {
    let column = |k: usize| rows.iter().map(|row| row[k]).collect::<Vec<f64>>();
    let cuts: Vec<Cut> = (1..LAYERS).rev().map(|k| Cut { layers_kept: k, loss: Some(column(k)) }).collect();
    let (base, full) = (column(0), column(LAYERS));
    let sequence = Sequence::new(&base, &full, LAYERS, &cuts, options);
    SHARES.map(|share| {
        let found = sequence.sufficient(Margin::Share(share));
        (found.layers_kept, matches!(found.stop, Stop::LosesMore { .. } | Stop::NoMoreCuts))
    })
}

fn cell(hits: usize, runs: usize) -> String {
    let [low, high] = wilson(hits, runs).map(|end| 100.0 * end);
    format!(" {:.1} ({low:.1}–{high:.1}) |", 100.0 * hits as f64 / runs as f64)
}
