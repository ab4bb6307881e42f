//! Random numbers that mean the same on every platform.
//!
//! All come from [`ChaCha8Rng`] with the seed as its key. Each use has a [`Stream`] of its own, so that a new use never
//! changes the numbers of the others.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// What random numbers are for. The values are part of what a seed means: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Resamples of the selection samples, for the stability of the choice.
    Choice = 1,
    /// Resamples of the held-out samples. All intervals on them share their resamples, so that they agree.
    Holdout = 2,
    /// Sign patterns of the randomisation test.
    Signs = 3,
    /// Resamples of the samples that the logit lens was drawn on.
    Lens = 4,
    /// Resamples of the samples that generated text is measured on. All metrics and systems share them.
    Metrics = 5,
    /// Which samples two systems swap in the randomisation test of a metric.
    Swaps = 6,
    /// Which samples make up a fold of a cross-validation.
    Folds = 7,
    /// Orders of the permutation test of a rank correlation.
    Orders = 8,
    /// Orders of layers.
    Layers = 9,
    /// Resamples of the samples that effects are measured on. All places share them.
    Effects = 10,
}

/// Draws samples with replacement: the resamples of the bootstrap (Efron, Annals of Statistics 7:1, 1979).
#[derive(Clone, Debug)]
pub struct Resampler {
    rng: ChaCha8Rng,
    drawn: Vec<usize>,
}

impl Resampler {
    /// Resamples of `samples` samples, from the start of a stream.
    pub fn new(seed: u64, stream: Stream, samples: usize) -> Self {
        Self { rng: generator(seed, stream), drawn: vec![0; samples] }
    }

    /// The next resample: as many indices as there are samples, each below their number, repeats allowed.
    ///
    /// An index is the high word of `u·n` for a 64-bit `u` (Lemire, arXiv:1805.10941, without its rejection step): some
    /// indices are likelier than others by at most 2⁻⁶⁴.
    pub fn draw(&mut self) -> &[usize] {
        let samples = self.drawn.len() as u128;
        for index in &mut self.drawn {
            *index = ((u128::from(self.rng.next_u64()) * samples) >> 64) as usize;
        }
        &self.drawn
    }
}

/// In which of `folds` folds each sample is: drawn at random, the folds' sizes equal or one apart.
///
/// Never more folds than samples, nor fewer than two.
pub fn folds(samples: usize, folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.min(samples).max(2);
    let mut fold_of: Vec<usize> = (0..samples).map(|sample| sample % folds).collect();
    shuffle(&mut fold_of, &mut generator(seed, Stream::Folds));
    fold_of
}

/// Fisher and Yates's shuffle (Durstenfeld, Communications of the ACM 7:7, 1964), bounded numbers as in
/// [`Resampler::draw`].
pub fn shuffle<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..values.len()).rev() {
        values.swap(last, ((u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64) as usize);
    }
}

/// One stream of [`ChaCha8Rng`], keyed with the seed in its first eight bytes.
pub fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(stream as u64);
    rng
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| Resampler::new(7, stream, 50).draw().to_vec();
        assert_eq!(draw(Stream::Choice), draw(Stream::Choice));
        assert_ne!(draw(Stream::Choice), draw(Stream::Holdout));
        assert!(draw(Stream::Lens).iter().all(|&index| index < 50));
    }
}
