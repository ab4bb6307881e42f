//! Random choices that are the same on every machine: which samples choose the boundary, and which are held out.
//!
//! The generator is [`ChaCha8Rng`], and the shuffle is written out here (Fisher–Yates, bounded numbers by rejection),
//! because the shuffles of libraries may change between versions and with them every published split.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::error::{Error, Result};

/// Fewer samples than this in a part have no standard error.
const MIN_PART: usize = 2;

/// Which samples choose, and which measure the gain. Indices ascend; together they are all samples, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The samples that choose the boundary.
    pub selection: Vec<usize>,
    /// The samples that are held out.
    pub holdout: Vec<usize>,
}

/// Splits `samples` samples at random; `holdout` is the share that is held out, rounded to whole samples.
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
            "a held-out share of {holdout} of {samples} samples gives {selected} to choose on and {held_out} held out: \
             expected at least {MIN_PART} in each"
        )));
    }
    let mut selection = shuffled(samples, seed, Stream::Split);
    let mut holdout = selection.split_off(selected);
    selection.sort_unstable();
    holdout.sort_unstable();
    Ok(Split { selection, holdout })
}

/// The fewest samples of which a share holds out so many.
pub(crate) fn fewest(holdout: usize, share: f64) -> usize {
    // The share is rounded to whole samples, half of one upwards.
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

/// The numbers `0..len` in the order in which samples take part in a race.
pub fn race_order(len: usize, seed: u64) -> Vec<usize> {
    shuffled(len, seed, Stream::Race)
}

/// The numbers `0..len` in the order in which samples are taken: at random where only some are, by their lines otherwise.
pub(crate) fn draw_order(len: usize, wanted: Option<usize>, seed: u64) -> Vec<usize> {
    match wanted {
        Some(_) => shuffled(len, seed, Stream::Subset),
        None => (0..len).collect(),
    }
}

/// What a random order is for: orders of one seed for different purposes are independent.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Split,
    Subset,
    Race,
}

/// The numbers `0..len` in a random order.
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

/// A uniform number in `0..bound`: numbers from the incomplete last stretch of the 64 bits are drawn again.
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
    fn a_split_is_a_partition_and_follows_its_seed() {
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
    fn the_fewest_samples_hold_out_what_is_needed() {
        for (needed, share) in [(7, 0.33), (7, 0.5), (2, 0.01), (7, 0.9)] {
            let samples = fewest(needed, share);
            assert!(split(samples, share, 0).unwrap().holdout.len() >= needed, "{needed} at {share}");
            let fewer = split(samples - 1, share, 0).map_or(0, |split| split.holdout.len());
            assert!(fewer < needed, "{needed} at {share}: {samples}");
        }
        assert_eq!((fewest(7, 0.33), fewest(7, 0.5)), (20, 13));
    }

    #[test]
    fn the_split_of_a_seed_stays_what_it_was_published_as() {
        // Written down once; a change of these numbers changes every result that names its seed.
        assert_eq!(split(10, 0.3, 0).unwrap().holdout, [2, 3, 6]);
    }

    #[test]
    fn the_draw_and_the_split_of_one_seed_differ() {
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
