//! The logit lens: ground-truth probability after every layer, the curve from which the paper (arXiv:2503.23360) reads
//! its boundary.
//!
//! An engine computes one curve for each sample, the mean over the answer's positions. Here they are averaged to one
//! curve with intervals. All samples have the same weight, whatever the length of their answers, and resampling is by
//! sample.

use std::num::NonZeroUsize;

use plimsoll_stats::{Resampler, Stream, percentile_interval};

use crate::result::{LensCurve, LensPoint};

/// Means over samples, one point for each layer; the probability has a 95 % percentile bootstrap interval.
///
/// All layers share their resamples. If curves differ in length, the result has the layers that all of them have.
/// Without curves it is empty.
pub(super) fn summarise(curves: &[&LensCurve], seed: u64, resamples: NonZeroUsize) -> Vec<LensPoint> {
    let length = |curve: &&LensCurve| curve.probability.len().min(curve.top1.len()).min(curve.rank.len());
    let layers = curves.iter().map(length).min().unwrap_or(0);
    let n = curves.len() as f64;

    let mut resampler = Resampler::new(seed, Stream::Lens, curves.len());
    let mut means = vec![Vec::new(); layers]; // (layers, resamples)
    let mut sums = vec![0.0; layers];
    for _ in 0..resamples.get() {
        sums.fill(0.0);
        for &sample in resampler.draw() {
            for (sum, probability) in sums.iter_mut().zip(&curves[sample].probability) {
                *sum += probability;
            }
        }
        for (means, sum) in means.iter_mut().zip(&sums) {
            means.push(sum / n);
        }
    }

    let mean = |value: fn(&LensCurve) -> &Vec<f64>, layer: usize| {
        curves.iter().map(|curve| value(curve)[layer]).sum::<f64>() / n
    };
    means
        .iter_mut()
        .enumerate()
        .map(|(layer, means)| {
            let (low, high) = percentile_interval(means);
            LensPoint {
                probability: mean(|curve| &curve.probability, layer),
                low,
                high,
                top1: mean(|curve| &curve.top1, layer),
                rank: mean(|curve| &curve.rank, layer),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLES: NonZeroUsize = NonZeroUsize::new(1_000).unwrap();

    /// Curves of two layers: the first has the same values for every sample, the second has not.
    fn curves() -> Vec<LensCurve> {
        (0..40)
            .map(|sample| LensCurve {
                probability: vec![0.25, f64::from(sample % 4) / 4.0],
                top1: vec![0.0, f64::from(sample % 2)],
                rank: vec![100.0, f64::from(sample)],
            })
            .collect()
    }

    #[test]
    fn means_and_intervals_are_by_layer() {
        let curves = curves();
        let points = summarise(&curves.iter().collect::<Vec<_>>(), 3, RESAMPLES);
        let [first, second] = points.as_slice() else { panic!("two layers, not {points:?}") };
        assert_eq!((first.probability, first.low, first.high), (0.25, 0.25, 0.25));
        assert_eq!((first.top1, first.rank), (0.0, 100.0));
        assert_eq!((second.probability, second.top1, second.rank), (0.375, 0.5, 19.5));

        // The same resamples as the mean's own bootstrap, hence the same interval.
        let values: Vec<f64> = curves.iter().map(|curve| curve.probability[1]).collect();
        let alone = plimsoll_stats::bootstrap_mean(&values, RESAMPLES, Resampler::new(3, Stream::Lens, values.len()));
        assert_eq!((second.low, second.high), alone);
        // s = 0.2832 for 0, 1/4, 1/2, 3/4, ten times each; 1.96 · s/√40 = 0.0877. A quantile of 1,000 resamples has an
        // error of about 9 % of the standard error, 0.004; the tolerance is five of those.
        assert!((second.low - (0.375 - 0.0877)).abs() < 0.02 && (second.high - (0.375 + 0.0877)).abs() < 0.02);
    }

    #[test]
    fn without_curves_there_are_no_points() {
        assert!(summarise(&[], 3, RESAMPLES).is_empty());
        let mut curves = curves();
        curves[7].rank.truncate(1);
        assert_eq!(summarise(&curves.iter().collect::<Vec<_>>(), 3, RESAMPLES).len(), 1);
    }
}
