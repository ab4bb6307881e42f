//! Tests with a look at a part of the samples: levels that keep the error rate.
//!
//! A test that may stop after a part of the samples rejects too often if it has the same level at both looks. An
//! alpha-spending function says how much of the level each look may use; here it is the one of O'Brien–Fleming type,
//! `α(t) = 2·(1 − Φ(z_{1−α/2}/√t))` for a share t of the samples (Lan and `DeMets`, Biometrika 70:3, 1983). It spends
//! almost nothing early, so the last look loses almost no power. The levels are those of normal test statistics; each
//! test uses them with its own p-values.
//!
//! In a fixed sequence each test has these levels of its own, and the rate of the sequence is kept (Glimm, Maurer and
//! Bretz, Statistics in Medicine 29:2, 2010).

use crate::{normal_above, normal_quantile};

/// The one-sided levels of the p-values at two looks, after a `share` of the samples and after all, that together keep
/// `alpha`.
///
/// # Panics
/// If `alpha` or `share` is not between 0 and 1.
pub fn two_looks(alpha: f64, share: f64) -> [f64; 2] {
    assert!(0.0 < alpha && alpha < 1.0 && 0.0 < share && share < 1.0, "alpha {alpha}, share {share}");
    let first = 2.0 * normal_above(normal_quantile(1.0 - alpha / 2.0) / share.sqrt());
    // The level of the last look is at most alpha, and at least what is left.
    let (mut low, mut high) = (alpha - first, alpha);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        *if above_only_last(first, middle, share) > alpha - first { &mut high } else { &mut low } = middle;
    }
    [first, low]
}

/// The probability that the first look does not reject at level `first` and the last one does at level `last`. The two
/// normal statistics have the correlation √share.
fn above_only_last(first: f64, last: f64, share: f64) -> f64 {
    const STEPS: usize = 2_000;
    const LOWEST: f64 = -9.0;
    let [first, last] = [first, last].map(|level| normal_quantile(1.0 - level));
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let of = |z: f64| density(z) * normal_above((last - share.sqrt() * z) / (1.0 - share).sqrt());
    // Simpson's rule.
    let step = (first - LOWEST) / STEPS as f64;
    let inner: f64 = (1..STEPS).map(|at| f64::from(2 + 2 * (at % 2) as u8) * of(LOWEST + at as f64 * step)).sum();
    (of(LOWEST) + inner + of(first)) * step / 3.0
}
