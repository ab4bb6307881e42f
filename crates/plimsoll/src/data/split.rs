//! Reproducible random choices of samples: the split into selection and held-out samples, subsets, and race orders.
//!
//! The generator is [`ChaCha8Rng`]. The shuffle is implemented here (Fisher–Yates, bounded numbers by rejection),
//! because the shuffles of libraries can change between versions, which would change published splits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::error::{Error, Result};

/// Fewest samples of a part: one sample has no standard error.
const MIN_PART: usize = 2;

/// A split of samples into selection and held-out samples, as ascending indices. Every sample is in one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The samples that pick the candidate.
    pub selection: Vec<usize>,
    /// The samples that judge the candidate.
    pub holdout: Vec<usize>,
}

/// Splits a number of samples at random. `holdout` is the held-out share, rounded to whole samples.
///
/// # Errors
/// [`Error::Usage`]: a share that is not between 0 and 1, or a part with fewer than two samples.
pub fn split(samples: usize, holdout: f64, seed: u64) -> Result<Split> {
    if !(holdout > 0.0 && holdout < 1.0) {
        return Err(Error::Usage(format!("held-out share: expected a number between 0 and 1, found {holdout}")));
    }
    let held_out = held_out(samples, holdout);
    let selected = samples.saturating_sub(held_out);
    if held_out < MIN_PART || selected < MIN_PART {
        return Err(Error::Usage(format!(
            "a held-out share of {holdout} of {samples} samples gives {selected} for selection and {held_out} held \
             out: expected at least {MIN_PART} of each"
        )));
    }
    let mut selection = shuffled(samples, seed, Stream::Split);
    let mut holdout = selection.split_off(selected);
    selection.sort_unstable();
    holdout.sort_unstable();
    Ok(Split { selection, holdout })
}

/// The smallest number of samples of which this share is at least `holdout` samples.
pub(crate) fn fewest(holdout: usize, share: f64) -> usize {
    // The share is rounded to whole samples, halves upwards.
    let below = ((holdout as f64 - 0.5) / share) as usize;
    let is_enough = |samples: &usize| {
        let held_out = held_out(*samples, share);
        held_out >= holdout && *samples >= held_out + MIN_PART
    };
    (below..).find(is_enough).unwrap_or(usize::MAX)
}

fn held_out(samples: usize, share: f64) -> usize {
    (samples as f64 * share).round() as usize
}

/// The indices `0..len` in the random order in which a race scores samples.
pub fn race_order(len: usize, seed: u64) -> Vec<usize> {
    shuffled(len, seed, Stream::Race)
}

/// The indices `0..len` in the order in which samples are taken: random for a subset, else ascending.
pub(crate) fn draw_order(len: usize, wanted: Option<usize>, seed: u64) -> Vec<usize> {
    match wanted {
        Some(_) => shuffled(len, seed, Stream::Subset),
        None => (0..len).collect(),
    }
}

/// The random stream of an order. Streams of one seed are independent.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Split,
    Subset,
    Race,
}

/// The indices `0..len` in random order.
fn shuffled(len: usize, seed: u64, stream: Stream) -> Vec<usize> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(match stream {
        Stream::Split => 0,
        Stream::Subset => 1,
        Stream::Race => 2,
    });
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut generator, last as u64 + 1) as usize);
    }
    order
}

/// A uniform random number in `0..bound`, by rejection of numbers above the largest multiple of `bound`.
fn below(generator: &mut ChaCha8Rng, bound: u64) -> u64 {
    let complete = u64::MAX - u64::MAX % bound;
    loop {
        let number = generator.next_u64();
        if number < complete {
            return number % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_a_partition_and_depends_on_its_seed() {
        let split_96 = split(96, 0.5, 7).unwrap();
        assert_eq!((split_96.selection.len(), split_96.holdout.len()), (48, 48));
        let mut all = [&split_96.selection[..], &split_96.holdout].concat();
        assert!(split_96.selection.is_sorted() && split_96.holdout.is_sorted());
        all.sort_unstable();
        assert_eq!(all, (0..96).collect::<Vec<_>>());
        assert_eq!(split(96, 0.5, 7).unwrap(), split_96);
        assert_ne!(split(96, 0.5, 8).unwrap(), split_96);
    }

    #[test]
    fn fewest_is_the_smallest_number_with_enough_held_out_samples() {
        for (needed, share) in [(7, 0.33), (7, 0.5), (2, 0.01), (7, 0.9)] {
            let samples = fewest(needed, share);
            assert!(split(samples, share, 0).unwrap().holdout.len() >= needed, "{needed} at {share}");
            let fewer = split(samples - 1, share, 0).map_or(0, |split| split.holdout.len());
            assert!(fewer < needed, "{needed} at {share}: {samples}");
        }
        assert_eq!((fewest(7, 0.33), fewest(7, 0.5)), (20, 13));
    }

    #[test]
    fn the_split_of_a_seed_does_not_change() {
        // If these numbers change, published results can no longer be reproduced from their seed.
        assert_eq!(split(10, 0.3, 0).unwrap().holdout, [2, 3, 6]);
    }

    #[test]
    fn subset_and_split_of_one_seed_differ() {
        assert_ne!(shuffled(50, 3, Stream::Split), shuffled(50, 3, Stream::Subset));
    }

    #[test]
    fn every_order_is_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        for seed in 0..6000 {
            *counts.entry(shuffled(3, seed, Stream::Split)).or_insert(0) += 1;
        }
        // Six orders, 1000 expected each; five standard deviations are 144.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (856..=1144).contains(count)), "{counts:?}");
    }

    #[test]
    fn parts_too_small_for_a_standard_error_are_refused() {
        for (samples, share) in [(3, 0.5), (96, 0.01), (96, 0.99), (96, 0.0), (96, 1.0), (96, f64::NAN), (0, 0.5)] {
            assert!(matches!(split(samples, share, 0), Err(Error::Usage(_))), "{samples} {share}");
        }
        assert!(split(4, 0.5, 0).is_ok());
    }
}
