//! Sampling of the next token from logits.
//!
//! Filters come in the order of transformers' `generate`: repetition penalty (Keskar et al., arXiv:1909.05858),
//! temperature, top-k (Fan et al., arXiv:1805.04833), top-p (Holtzman et al., arXiv:1904.09751), min-p (Nguyen et al.,
//! arXiv:2407.01082). The token is sampled from the remaining ones in proportion to their probabilities. One departure:
//! of equal logits the lower id comes first, while in transformers the order depends on the sort.
//!
//! Random numbers depend only on the seed and the prompt's number. So an answer is the same in any batch, and all
//! variants of an adapter answer a prompt with the same random numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::error::{Error, Result};
use crate::result::Sampling;

/// Number of candidates that top-p sorts first, before it sorts more.
const FIRST_SORTED: usize = 256;

impl Sampling {
    /// Checks that all numbers are in their ranges.
    ///
    /// # Errors
    /// The first number out of range, with the expected range.
    pub fn check(&self) -> Result<()> {
        let Self { temperature, top_p, min_p, repetition_penalty, .. } = *self;
        let problem = |name: &str, value: f32, expected: &str| {
            Err(Error::Usage(format!("{name} is {value}: expected {expected}")))
        };
        if !(temperature.is_finite() && temperature >= 0.0) {
            return problem("the temperature", temperature, "a number of at least 0");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return problem("top-p", top_p, "a number above 0 and up to 1");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return problem("min-p", min_p, "a number from 0 to 1");
        }
        if !(0.01..=100.0).contains(&repetition_penalty) {
            return problem("the repetition penalty", repetition_penalty, "a number from 0.01 to 100");
        }
        Ok(())
    }

    /// The candidates for the next token with their probabilities, the most probable first; one at temperature 0.
    ///
    /// The repetition penalty applies to the tokens in `history`: all tokens so far, with those of the prompt. `logits`
    /// is modified.
    pub fn candidates(&self, logits: &mut [f32], history: &[u32]) -> Vec<(u32, f32)> {
        if self.repetition_penalty != 1.0 {
            let mut seen: Vec<usize> = history.iter().map(|&token| token as usize).collect();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                if let Some(logit) = logits.get_mut(token) {
                    *logit =
                        if *logit < 0.0 { *logit * self.repetition_penalty } else { *logit / self.repetition_penalty };
                }
            }
        }
        if self.temperature == 0.0 {
            return vec![(most_probable(logits), 1.0)];
        }
        // The largest logit becomes 0 first: after the division, others may be −∞, but none +∞.
        let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
        logits.iter_mut().for_each(|logit| *logit = (*logit - largest) / self.temperature);
        let mut candidates: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();

        if self.top_k > 0 && self.top_k < candidates.len() {
            let (_, &mut (_, least), _) = candidates.select_nth_unstable_by(self.top_k - 1, before);
            candidates.retain(|&(_, logit)| logit >= least);
        }
        candidates.iter_mut().for_each(|(_, logit)| *logit = logit.exp());
        if self.top_p < 1.0 {
            keep_share(&mut candidates, self.top_p);
        }
        // The weight of the most probable token is e⁰ = 1.
        candidates.retain(|&(_, weight)| weight >= self.min_p);
        candidates.sort_unstable_by(before);
        let total: f32 = candidates.iter().map(|(_, weight)| weight).sum();
        candidates.iter_mut().for_each(|(_, weight)| *weight /= total);
        candidates
    }
}

/// The order of candidates: by falling probability, then by id.
fn before(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keeps the first candidates that together have at least this share of the weight.
fn keep_share(candidates: &mut Vec<(u32, f32)>, share: f32) {
    let total: f64 = candidates.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let wanted = f64::from(share) * total;
    let mut sorted = FIRST_SORTED;
    loop {
        // Usually few candidates are enough, and the rest need not be sorted.
        if sorted < candidates.len() {
            candidates.select_nth_unstable_by(sorted, before);
        }
        let end = sorted.min(candidates.len());
        candidates[..end].sort_unstable_by(before);
        let mut sum = 0.0;
        let enough = candidates[..end].iter().position(|&(_, weight)| {
            sum += f64::from(weight);
            sum >= wanted
        });
        match enough {
            Some(last) => return candidates.truncate(last + 1),
            None if end == candidates.len() => return,
            None => sorted *= 8,
        }
    }
}

/// The token with the highest logit; of equal ones the lowest; 0 for an empty slice.
pub fn most_probable(logits: &[f32]) -> u32 {
    // Two passes, of which the compiler vectorises the first.
    let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
    logits.iter().position(|&logit| logit == largest).map_or(0, |token| token as u32)
}

/// The random stream of one prompt.
#[derive(Debug)]
pub(super) struct RandomStream(ChaCha8Rng);

impl RandomStream {
    /// The stream of a prompt's number.
    pub(super) fn new(seed: u64, prompt: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        // Without this, the streams would be those of `plimsoll_stats::Stream`.
        key[8] = 1;
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(prompt);
        Self(rng)
    }

    /// Samples one of the candidates by their probabilities.
    pub(super) fn pick(&mut self, candidates: &[(u32, f32)]) -> u32 {
        // Uniform in [0, 1): a multiple of 2⁻⁵³.
        let uniform = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        let mut sum = 0.0;
        let found = candidates.iter().find(|(_, probability)| {
            sum += f64::from(*probability);
            uniform < sum
        });
        found.or(candidates.last()).map_or(0, |&(token, _)| token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARM: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

    fn tokens(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        sampling.candidates(&mut logits.to_vec(), &[]).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_highest() {
        assert_eq!(tokens(Sampling::GREEDY, &[0.5, 2.0, -1.0, 2.0]), [1]);
        assert_eq!(most_probable(&[]), 0);
    }

    #[test]
    fn filters_keep_the_right_tokens() {
        let logits = [0.0, 2.0, 1.0, 2.0, -3.0];
        assert_eq!(tokens(WARM, &logits), [1, 3, 2, 0, 4]);
        assert_eq!(tokens(Sampling { top_k: 1, ..WARM }, &logits), [1, 3]); // two equal logits
        assert_eq!(tokens(Sampling { top_k: 3, ..WARM }, &logits), [1, 3, 2]);
        assert_eq!(tokens(Sampling { top_p: 0.1, ..WARM }, &logits), [1]);
        assert_eq!(tokens(Sampling { top_p: 0.5, ..WARM }, &logits), [1, 3]);
        assert_eq!(tokens(Sampling { min_p: 0.3, ..WARM }, &logits), [1, 3, 2]); // e⁻¹ = 0.37
    }

    #[test]
    fn top_p_sorts_more_candidates_if_needed() {
        let logits = vec![0.0; 10_000];
        assert_eq!(tokens(Sampling { top_p: 0.5, ..WARM }, &logits), (0..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn the_repetition_penalty_lowers_positive_and_negative_logits() {
        let penalised = Sampling { repetition_penalty: 2.0, ..Sampling::GREEDY };
        let mut logits = [3.0, 2.0, -1.0];
        assert_eq!(penalised.candidates(&mut logits, &[0, 2, 0, 9]), [(1, 1.0)]);
        assert_eq!(logits, [1.5, 2.0, -2.0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let candidates = [(7, 0.75), (3, 0.25)];
        let mut random = RandomStream::new(1, 0);
        let sevens = (0..10_000).filter(|_| random.pick(&candidates) == 7).count();
        // Four standard deviations are 173.
        assert!((7_327..=7_673).contains(&sevens), "{sevens}");
        assert_eq!(tokens(Sampling { temperature: 1e-38, ..WARM }, &[1.0, 3.0, 2.0])[0], 1);
        let first = |prompt| RandomStream::new(1, prompt).0.next_u64();
        assert_ne!(first(0), first(1));
    }
}
