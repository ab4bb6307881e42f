//! Rotary embeddings and their scaling to longer contexts.

use crate::model::problem::{ModelProblem, positive, unsupported};

/// A rotary embedding (Su et al., arXiv:2104.09864).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Scaling to a longer context.
    pub scaling: RopeScaling,
}

/// Scaling of rotary frequencies. Sources: the cited papers, and transformers 5.23 (`modeling_rope_utils.py`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Every frequency divided by a factor (Chen et al., arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Dynamic NTK scaling: the base grows with the length of sequences beyond the original context.
    Dynamic {
        /// Growth of the context.
        factor: f64,
        /// Context before scaling, in tokens.
        original_context: f64,
    },
    /// Low frequencies divided by a factor, high ones unchanged, interpolated between (Llama 3.1).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_context / low` are scaled by the factor.
        low: f64,
        /// Wavelengths below `original_context / high` are unchanged.
        high: f64,
        /// Context before scaling, in tokens.
        original_context: f64,
    },
    /// YaRN: as `Llama3`, interpolated linearly over the dimensions, with scaled attention (Peng et al.,
    /// arXiv:2309.00071).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Dimensions with at least this many rotations within the original context are unchanged; 32 in the paper.
        fast: f64,
        /// Dimensions with at most this many rotations are scaled by the factor; 1 in the paper.
        slow: f64,
        /// Whether the interpolation begins and ends at whole dimensions.
        truncate: bool,
        /// Context before scaling, in tokens.
        original_context: f64,
        /// Factor on rotated queries and keys.
        attention: f64,
    },
    /// LongRoPE as in Phi-3 (Ding et al., arXiv:2402.13753): one divisor for each frequency, with other divisors for
    /// sequences beyond the original context.
    Long {
        /// Divisors for sequences within the original context.
        short: Vec<f32>,
        /// Divisors for longer sequences.
        long: Vec<f32>,
        /// Context before scaling, in tokens.
        original_context: f64,
        /// Factor on rotated queries and keys, for all sequences.
        attention: f64,
    },
    /// One divisor for each frequency, as in GGUF files.
    Divisors(Vec<f32>),
}

impl Rope {
    /// The `dims / 2` rotary frequencies of a sequence of `length` tokens, in radians per position.
    pub fn frequencies(&self, dims: usize, length: usize) -> Vec<f32> {
        let theta = match self.scaling {
            RopeScaling::Dynamic { factor, original_context } => {
                let stretch = (length as f64).max(original_context) / original_context;
                self.theta * (factor * stretch - (factor - 1.0)).powf(dims as f64 / (dims as f64 - 2.0))
            }
            _ => self.theta,
        };
        (0..dims / 2)
            .map(|pair| {
                let frequency = theta.powf(-2.0 * pair as f64 / dims as f64);
                let frequency = match &self.scaling {
                    RopeScaling::None | RopeScaling::Dynamic { .. } => frequency,
                    RopeScaling::Linear { factor } => frequency / factor,
                    RopeScaling::Llama3 { factor, low, high, original_context } => {
                        let turns = original_context * frequency / std::f64::consts::TAU;
                        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                        frequency * (kept + (1.0 - kept) / factor)
                    }
                    RopeScaling::Yarn { factor, fast, slow, truncate, original_context, .. } => {
                        let at = |turns: f64| {
                            let dim = (original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln());
                            dims as f64 * dim
                        };
                        let (low, high) = (at(*fast), at(*slow));
                        let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                        let (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
                        // As in transformers, to avoid a division by 0.
                        let span = if low == high { 0.001 } else { high - low };
                        let scaled = ((pair as f64 - low) / span).clamp(0.0, 1.0);
                        frequency * (scaled / factor + (1.0 - scaled))
                    }
                    RopeScaling::Long { short, long, original_context, .. } => {
                        let divisors = if length as f64 > *original_context { long } else { short };
                        frequency / f64::from(divisors[pair])
                    }
                    RopeScaling::Divisors(divisors) => frequency / f64::from(divisors[pair]),
                };
                frequency as f32
            })
            .collect()
    }

    /// The factor on rotated queries and keys.
    pub fn attention(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } | RopeScaling::Long { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }

    /// The class of a sequence length: lengths of one class have the same frequencies, so that sequences can share
    /// keys.
    pub fn class(&self, length: usize) -> usize {
        match &self.scaling {
            RopeScaling::Dynamic { original_context, .. } if length as f64 > *original_context => length,
            RopeScaling::Long { original_context, .. } if length as f64 > *original_context => {
                *original_context as usize + 1
            }
            _ => 0,
        }
    }

    /// Checks the ranges that the decoder requires; `dims` is the number of rotated dimensions.
    pub(super) fn validate(&self, dims: usize) -> Result<(), ModelProblem> {
        positive("rope_theta", self.theta)?;
        let divisors = |name, divisors: &[f32]| {
            if divisors.len() != dims / 2 {
                return Err(ModelProblem::RopeDivisors { name, found: divisors.len(), expected: dims / 2 });
            }
            divisors.iter().try_for_each(|&divisor| positive(name, f64::from(divisor)))
        };
        match &self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("rope factor", *factor),
            RopeScaling::Dynamic { factor, original_context } => {
                if dims < 4 {
                    return Err(unsupported("rope_type", "dynamic".into(), "at least 4 dimensions that are rotated"));
                }
                // Below 1 the scaled base could be negative.
                positive("rope factor − 1 (dynamic)", factor - 1.0 + f64::EPSILON)?;
                positive("max_position_embeddings", *original_context)
            }
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                positive("rope factor", *factor)?;
                positive("original_max_position_embeddings", *original_context)?;
                positive("high_freq_factor − low_freq_factor", high - low)
            }
            RopeScaling::Yarn { factor, fast, slow, original_context, attention, truncate: _ } => {
                let numbers = [
                    ("rope factor", *factor),
                    ("beta_fast", *fast),
                    ("beta_slow", *slow),
                    ("original_max_position_embeddings", *original_context),
                    ("attention_factor", *attention),
                    ("rope_theta − 1 (yarn)", self.theta - 1.0),
                ];
                numbers.into_iter().try_for_each(|(name, value)| positive(name, value))
            }
            RopeScaling::Long { short, long, original_context, attention } => {
                divisors("short_factor", short)?;
                divisors("long_factor", long)?;
                positive("original_max_position_embeddings", *original_context)?;
                positive("attention_factor", *attention)
            }
            RopeScaling::Divisors(numbers) => divisors("rope_freqs.weight", numbers),
        }
    }
}

/// YaRN's factor on rotated queries and keys, for the growth of the context (eq. 22).
pub(super) fn yarn_attention(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

/// LongRoPE's factor on rotated queries and keys, for the growth of the context.
pub(super) fn long_attention(factor: f64, original_context: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() }
}
