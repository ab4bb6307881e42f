//! Random numbers that are the same on every platform.
//!
//! All come from [`ChaCha8Rng`] with the seed as its key. Each use has its own [`Stream`], so that a new use does not
//! change the numbers of the others.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A random stream: what the random numbers are for. Results of a seed depend on the values, so they must not be
/// changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Resamples of the selection samples, for the stability of the choice.
    Choice = 1,
    /// Resamples of the held-out samples. All intervals share them, so that they are consistent.
    Holdout = 2,
    /// Sign patterns of the randomisation test.
    Signs = 3,
    /// Resamples of the samples of the logit lens.
    Lens = 4,
    /// Resamples of the samples of a metric. All metrics and systems share them.
    Metrics = 5,
    /// Samples whose answers are exchanged in the randomisation test of a metric.
    Swaps = 6,
    /// The folds of a cross-validation.
    Folds = 7,
    /// Permutations of the test of a rank correlation.
    Orders = 8,
    /// Orders of layers.
    Layers = 9,
    /// Resamples of the samples of effects. All places share them.
    Effects = 10,
}

/// Resamples with replacement, for the bootstrap (Efron, Annals of Statistics 7:1, 1979).
#[derive(Clone, Debug)]
pub struct Resampler {
    rng: ChaCha8Rng,
    drawn: Vec<usize>,
}

impl Resampler {
    /// A resampler of `samples` samples, at the start of a stream.
    pub fn new(seed: u64, stream: Stream, samples: usize) -> Self {
        Self { rng: generator(seed, stream), drawn: vec![0; samples] }
    }

    /// The next resample: as many indices as there are samples, with repeats.
    ///
    /// An index is the high word of `u·n` for a 64-bit `u` (Lemire, arXiv:1805.10941, without its rejection step). The
    /// probabilities of indices differ by at most 2⁻⁶⁴.
    pub fn draw(&mut self) -> &[usize] {
        let samples = self.drawn.len() as u128;
        for index in &mut self.drawn {
            *index = ((u128::from(self.rng.next_u64()) * samples) >> 64) as usize;
        }
        &self.drawn
    }
}

/// The fold of each sample, at random. Sizes of folds differ by at most one.
///
/// There are at most as many folds as samples, and at least two.
pub fn folds(samples: usize, folds: usize, seed: u64) -> Vec<usize> {
    let folds = folds.min(samples).max(2);
    let mut fold_of: Vec<usize> = (0..samples).map(|sample| sample % folds).collect();
    shuffle(&mut fold_of, &mut generator(seed, Stream::Folds));
    fold_of
}

/// Shuffles values: Fisher and Yates's algorithm (Durstenfeld, Communications of the ACM 7:7, 1964), with bounded
/// random numbers as in [`Resampler::draw`].
pub fn shuffle<T>(values: &mut [T], rng: &mut ChaCha8Rng) {
    for last in (1..values.len()).rev() {
        values.swap(last, ((u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64) as usize);
    }
}

/// The random number generator of a stream: [`ChaCha8Rng`] with the seed in the first eight bytes of the key.
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
