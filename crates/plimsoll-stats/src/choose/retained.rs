//! The share of the adapter's gain that a cut retains: tests of it, and its interval by inversion of the tests.
//!
//! A share R is `mean(base − cut) / mean(base − full)`. "R is above m" is a statement about the mean of one contrast
//! per sample, `(base − cut) − m·(base − full)`, if the adapter gains (Fieller's method for ratios, Journal of the
//! Royal Statistical Society B 16:2, 1954). It is tested like every mean: by the randomisation test and by the t-test
//! corrected for skewness, and it is *shown* if the larger p-value is below the level. The interval holds the shares
//! that neither "R is above" nor "R is below" is shown for, so it never contradicts a test.
//!
//! A contrast is linear in m. The randomisation test flips the signs of some samples; with the sums of both terms over
//! the flipped samples, found once, the test for any other m needs no sample.

use super::choice::{ChooseOptions, Interval};
use super::judge::{differences, level};
use crate::{self as stats, Seen, Stream};

/// The tests of `mean(part) − m·mean(whole)` for any m.
#[derive(Clone, Debug)]
pub(super) struct Contrast {
    part: Vec<f64>,
    whole: Vec<f64>,
    /// By sign pattern: the sums of both terms over the flipped samples.
    flipped: Vec<[f64; 2]>,
    seen: Seen,
}

/// The level of a one-sided test.
pub(super) fn one_sided_level(samples: usize, options: &ChooseOptions) -> f64 {
    level(samples, options.alpha) / 2.0
}

/// The side of 0 on which the mean of a contrast is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Above,
    Below,
}

impl Contrast {
    /// The contrast whose `m` is a share of the adapter's gain. Each list has one loss per sample.
    pub(super) fn of_share(base: &[f64], full: &[f64], cut: &[f64], options: &ChooseOptions) -> Self {
        Self::new(differences(base, cut), differences(base, full), options)
    }

    /// The contrast whose `m` is a loss against the full adapter: `full − cut + m`.
    pub(super) fn of_loss(full: &[f64], cut: &[f64], options: &ChooseOptions) -> Self {
        Self::new(differences(full, cut), vec![-1.0; full.len()], options)
    }

    fn new(part: Vec<f64>, whole: Vec<f64>, options: &ChooseOptions) -> Self {
        let sums = |values: &[f64]| stats::sums_of_flipped(values, options.resamples, (options.seed, Stream::Signs));
        let ((of_part, seen), (of_whole, _)) = (sums(&part), sums(&whole));
        let flipped = of_part.into_iter().zip(of_whole).map(|(part, whole)| [part, whole]).collect();
        Self { part, whole, flipped, seen }
    }

    /// The contrast of every sample at m.
    pub(super) fn at(&self, m: f64) -> Vec<f64> {
        self.part.iter().zip(&self.whole).map(|(part, whole)| part - m * whole).collect()
    }

    /// The p-value of the hypothesis that the mean of the contrast at m is not on this side of 0: the larger of both
    /// tests.
    pub(super) fn p(&self, m: f64, side: Side) -> f64 {
        let sign = if side == Side::Above { 1.0 } else { -1.0 };
        let values: Vec<f64> = self.at(m).iter().map(|value| sign * value).collect();
        let size: f64 = values.iter().map(|value| value.abs()).sum();
        let rounding = values.len() as f64 * f64::EPSILON * size;
        // Flipped samples lower the sum by twice theirs, so a pattern reaches the observed sum if theirs is 0 or less.
        let is_hit = |[part, whole]: &&[f64; 2]| 2.0 * sign * (part - m * whole) <= rounding;
        let by_signs = self.seen.share(self.flipped.iter().filter(is_hit).count());
        by_signs.max(stats::skewed_t_above(&values))
    }

    /// The ratio of the means, and the values of m for which neither side is shown at a one-sided level; `None` if one
    /// end is infinite.
    pub(super) fn interval(&self, level: f64) -> Option<Interval> {
        let value = stats::mean(&self.part) / stats::mean(&self.whole);
        let low = self.end(value, level, Side::Above)?;
        let high = self.end(value, level, Side::Below)?;
        value.is_finite().then_some(Interval { value, low, high })
    }

    /// The end of the interval at which a side begins to be shown.
    fn end(&self, value: f64, level: f64, side: Side) -> Option<f64> {
        const FARTHEST: f64 = 1e6;
        /// Ends are found to a ten-thousandth of a share (or nat).
        const PRECISION: f64 = 1e-4;
        let away = if side == Side::Above { -1.0 } else { 1.0 };
        let is_shown = |distance: f64| self.p(value + away * distance, side) < level;
        let (mut inside, mut outside) = (0.0, PRECISION);
        while !is_shown(outside) {
            inside = outside;
            outside *= 2.0;
            if outside > FARTHEST {
                return None;
            }
        }
        while outside - inside > PRECISION {
            let middle = f64::midpoint(inside, outside);
            *if is_shown(middle) { &mut outside } else { &mut inside } = middle;
        }
        Some(value + away * outside)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn options(seed: u64) -> ChooseOptions {
        ChooseOptions { seed, resamples: std::num::NonZeroUsize::new(500).unwrap(), ..ChooseOptions::default() }
    }

    proptest! {
        #[test]
        fn p_values_are_those_of_the_single_tests(
            losses in prop::collection::vec((1.0..4.0_f64, 0.5..1.5_f64, -0.5..1.5_f64), 3..80),
            m in -1.0..2.0_f64,
            seed: u64,
        ) {
            let options = options(seed);
            let base: Vec<f64> = losses.iter().map(|(base, ..)| *base).collect();
            let full: Vec<f64> = losses.iter().map(|(base, gain, _)| base - gain).collect();
            let cut: Vec<f64> = losses.iter().map(|(base, _, gain)| base - gain).collect();
            let contrast = Contrast::of_share(&base, &full, &cut, &options);
            for (side, sign) in [(Side::Above, 1.0), (Side::Below, -1.0)] {
                let values: Vec<f64> = contrast.at(m).iter().map(|value| sign * value).collect();
                let by_signs = stats::sign_flip_above(&values, options.resamples, seed);
                prop_assert_eq!(contrast.p(m, side), by_signs.max(stats::skewed_t_above(&values)));
            }
            let lost = Contrast::of_loss(&full, &cut, &options);
            let values: Vec<f64> = full.iter().zip(&cut).map(|(full, cut)| full - cut + m).collect();
            prop_assert!(lost.at(m).iter().zip(&values).all(|(ours, value)| (ours - value).abs() < 1e-12));
        }

        #[test]
        fn the_interval_ends_where_a_side_begins_to_be_shown(
            losses in prop::collection::vec((1.0..4.0_f64, 0.5..1.5_f64, 0.0..1.5_f64), 20..60),
        ) {
            let options = options(3);
            let base: Vec<f64> = losses.iter().map(|(base, ..)| *base).collect();
            let full: Vec<f64> = losses.iter().map(|(base, gain, _)| base - gain).collect();
            let cut: Vec<f64> = losses.iter().map(|(base, _, gain)| base - gain).collect();
            let contrast = Contrast::of_share(&base, &full, &cut, &options);
            let Interval { value, low, high } = contrast.interval(0.025).unwrap();
            prop_assert!(low < value && value < high);
            prop_assert!(contrast.p(low, Side::Above) < 0.025 && contrast.p(low + 2e-4, Side::Above) >= 0.025);
            prop_assert!(contrast.p(high, Side::Below) < 0.025 && contrast.p(high - 2e-4, Side::Below) >= 0.025);
        }
    }

    #[test]
    fn without_a_gain_of_the_adapter_there_is_no_interval() {
        let (base, cut) = (vec![2.0; 30], vec![1.0; 30]);
        assert!(Contrast::of_share(&base, &base, &cut, &options(1)).interval(0.025).is_none());
    }
}
