//! Rotary embeddings: the frequencies that a model's scaling makes of its base.

use crate::model::problem::{ModelProblem, positive, unsupported};

/// A rotary embedding (Su et al., arXiv:2104.09864), of which a model has one, or one for each kind of its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to reach a longer context.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are stretched. Sources: the papers named, and transformers 5.23 (`modeling_rope_utils.py`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by a factor (Chen et al., arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// The base raised for sequences beyond the original context, by their length: dynamic NTK scaling.
    Dynamic {
        /// By which the context grows.
        factor: f64,
        /// Context before stretching, in tokens.
        original_context: f64,
    },
    /// Low frequencies divided by a factor, high ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// What the low frequencies are divided by.
        factor: f64,
        /// Wavelengths above `original_context / low` are stretched in full.
        low: f64,
        /// Wavelengths below `original_context / high` are left alone.
        high: f64,
        /// Context before stretching, in tokens.
        original_context: f64,
    },
    /// The same with the ramp along the dimensions, and attention sharpened (YaRN, Peng et al., arXiv:2309.00071).
    Yarn {
        /// What the low frequencies are divided by.
        factor: f64,
        /// Turns within the original context from which on a dimension is left alone; 32 in the paper.
        fast: f64,
        /// Turns up to which it is stretched in full; 1 in the paper.
        slow: f64,
        /// Whether the ends of the ramp are whole dimensions.
        truncate: bool,
        /// Context before stretching, in tokens.
        original_context: f64,
        /// What the rotated queries and keys are multiplied by.
        attention: f64,
    },
    /// One divisor for each frequency, one set of them for sequences within the original context and one for longer ones
    /// (LongRoPE, Ding et al., arXiv:2402.13753, as Phi-3 has it).
    Long {
        /// For sequences within the original context.
        short: Vec<f32>,
        /// For longer ones.
        long: Vec<f32>,
        /// Context before stretching, in tokens.
        original_context: f64,
        /// What the rotated queries and keys are multiplied by, in both.
        attention: f64,
    },
    /// One divisor for each frequency, as GGUF files carry them.
    Divisors(Vec<f32>),
}

impl Rope {
    /// Rotary frequencies, `dims / 2` of them, in radians for each position of a sequence of `length` tokens.
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
                        // What transformers adds where the ramp has no length.
                        let length = if low == high { 0.001 } else { high - low };
                        let stretched = ((pair as f64 - low) / length).clamp(0.0, 1.0);
                        frequency * (stretched / factor + (1.0 - stretched))
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

    /// What rotated queries and keys are multiplied by.
    pub fn attention(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } | RopeScaling::Long { attention, .. } => attention as f32,
            _ => 1.0,
        }
    }

    /// The shortest length with the frequencies of this one: sequences of equal class can share keys.
    pub fn class(&self, length: usize) -> usize {
        match &self.scaling {
            RopeScaling::Dynamic { original_context, .. } if length as f64 > *original_context => length,
            RopeScaling::Long { original_context, .. } if length as f64 > *original_context => {
                *original_context as usize + 1
            }
            _ => 0,
        }
    }

    /// Checks what the decoder relies on; `dims` dimensions are rotated.
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
                // Below 1 the new base could become negative.
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

/// What YaRN multiplies rotated queries and keys by, for a factor by which the context grows (eq. 22).
pub(super) fn yarn_attention(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

/// What LongRoPE multiplies rotated queries and keys by.
pub(super) fn long_attention(factor: f64, original_context: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() }
}
