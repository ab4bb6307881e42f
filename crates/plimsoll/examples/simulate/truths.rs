//! Simulated adapters whose truth is known: the mean effect of each of 30 layers, and its distribution over samples.

use plimsoll::stats::normal_quantile;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng as _;

pub(crate) const LAYERS: usize = 30;

/// Standard deviation of the effect of a layer over samples, in nats per token.
const NOISE: f64 = 0.02;

/// Distribution of the effect of a layer over samples, with mean 0 and standard deviation 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Noise {
    Normal,
    /// Student's t with three degrees of freedom, its scale shared by all layers of a sample: a few samples are far
    /// from the mean.
    Student,
    /// Log-normal (σ = 1): most samples lose a little by a layer, and a few gain much. A skewness of 6.2.
    RareGains,
    /// Log-normal (σ = 1.5): fewer samples gain more. A skewness of 33, for which the tests are not designed.
    RarerGains,
    /// The negative of `RareGains`: most samples gain a little, and a few lose much.
    RareLosses,
}

impl Noise {
    /// The scale of all numbers of a sample.
    fn scale(self, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            // 1/√(χ²₃/3), and the standard deviation of t₃ is √3.
            Self::Student => (0..3).map(|_| normal(rng).powi(2)).sum::<f64>().sqrt().recip(),
            _ => 1.0,
        }
    }

    /// A number of the distribution.
    fn unit(self, scale: f64, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::Normal | Self::Student => scale * normal(rng),
            Self::RareGains => log_normal(1.0, rng),
            Self::RarerGains => log_normal(1.5, rng),
            Self::RareLosses => -log_normal(1.0, rng),
        }
    }
}

/// The NLL of an adapter at other LoRA strengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strengths {
    pub(crate) kind: Noise,
    /// The strength with the lowest mean; `None` if the mean is the same at all strengths but 0.
    pub(crate) best: Option<f64>,
}

/// A sample at all strengths: what it gains by the adapter, and how it differs from others at other strengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StrengthSample {
    base: f64,
    gain: f64,
    own: f64,
}

impl Strengths {
    pub(crate) fn sample(self, rng: &mut ChaCha8Rng) -> StrengthSample {
        let scale = self.kind.scale(rng);
        let base = 2.0 + 0.6 * normal(rng);
        StrengthSample { base, gain: 0.4 + 0.2 * normal(rng), own: self.kind.unit(scale, rng) }
    }
}

impl StrengthSample {
    /// The NLL at a strength.
    pub(crate) fn at(self, truth: Strengths, strength: f64) -> f64 {
        if strength == 0.0 {
            return self.base;
        }
        // A parabola with its lowest point at `best`, 1 at strength 1.
        let share = truth.best.map_or(1.0, |best| strength * (2.0 * best - strength) / (2.0 * best - 1.0));
        self.base - self.gain * share - 0.3 * (1.0 - strength) * self.own
    }
}

/// An adapter with known effects.
pub(crate) struct Truth {
    pub(crate) name: &'static str,
    /// By how much each layer lowers the mean NLL, in nats per token.
    effects: [f64; LAYERS],
    /// Standard deviation of the effect of each layer over samples.
    noise: [f64; LAYERS],
    kind: Noise,
}

impl Truth {
    fn new(name: &'static str, kind: Noise, effect: impl Fn(usize) -> f64) -> Self {
        Self { name, effects: std::array::from_fn(effect), noise: [NOISE; LAYERS], kind }
    }

    /// The true mean NLL of each boundary, relative to that of the base model.
    pub(crate) fn curve(&self) -> Vec<f64> {
        let mut nll = 0.0;
        std::iter::once(0.0)
            .chain(self.effects.iter().map(|effect| {
                nll -= effect;
                nll
            }))
            .collect()
    }

    /// Whether a boundary retains more than a share of the adapter's gain.
    pub(crate) fn holds(&self, boundary: usize, share: f64) -> bool {
        let curve = self.curve();
        let (base, full) = (curve[0], curve[LAYERS]);
        // Sums of effects may have rounding errors.
        let rounding = 1e-12;
        base - full > rounding && base - curve[boundary] > share * (base - full) + rounding
    }

    /// The smallest of the best boundaries.
    pub(crate) fn boundary(&self) -> usize {
        let curve = self.curve();
        let least = curve.iter().copied().fold(f64::INFINITY, f64::min);
        // Sums of effects may have rounding errors.
        curve.iter().position(|nll| *nll <= least + 1e-12).unwrap_or(LAYERS)
    }

    /// Draws a sample: its NLL at every boundary. Half of the variance of a layer's effect is shared by all layers of
    /// the sample, and half is the layer's own. So the differences between boundaries are correlated, and grow with
    /// their distance.
    pub(crate) fn sample(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        let difficulty = normal(rng);
        let scale = self.kind.scale(rng);
        let mut unit = || self.kind.unit(scale, rng);
        let shared = unit();
        let mut nll = 2.0 + 0.6 * difficulty;
        let mut row = vec![nll];
        for (effect, noise) in self.effects.iter().zip(&self.noise) {
            nll -= effect + noise * (shared + unit()) * std::f64::consts::FRAC_1_SQRT_2;
            row.push(nll);
        }
        row
    }
}

/// All truths.
pub(crate) fn truths() -> Vec<Truth> {
    use Noise::{Normal, RareGains, RareLosses, RarerGains, Student};
    let below = |layer: usize| if layer < 15 { 0.02 } else { 0.0 };
    let above = |layer: usize| if layer < 15 { 0.0 } else { 0.02 };
    let everywhere = |_| 0.02;
    let nowhere = |_| 0.0;
    let slight = |layer: usize| if layer < 20 { 0.02 } else { -0.003 };
    let over_scaled = |layer: usize| if layer < 20 { 0.02 } else { -0.02 };
    let harmful = |_| -0.02;
    let helpful_bottom = |layer: usize| if layer < 8 { 0.03 } else { -0.02 };
    let declining = |layer: usize| 0.05 * 0.8_f64.powi(layer as i32);
    let mut quiet = Truth::new("useful below 15, quiet above", Normal, below);
    quiet.noise[15..].fill(0.000_5);
    let mut nearly_quiet = Truth::new("useful below 15, quiet above, rare gains", RareGains, below);
    nearly_quiet.noise[15..].fill(0.000_5);
    // Without the upper 15 layers 2.2 % of the gain are lost, a little more than the margin, which is hard to show.
    let little = |layer: usize| if layer < 15 { 0.02 } else { 0.000_45 };
    let mut lossy = Truth::new("a little useful from 15 on", Normal, little);
    lossy.noise[15..].fill(0.002);
    let mut lossy_gains = Truth::new("a little useful from 15 on, rare gains", RareGains, little);
    lossy_gains.noise[15..].fill(0.002);
    vec![
        Truth::new("useful below 15", Normal, below),
        Truth::new("useful below 15, Student", Student, below),
        Truth::new("useful below 15, rare gains", RareGains, below),
        Truth::new("useful below 15, rarer gains", RarerGains, below),
        Truth::new("useful below 15, rare losses", RareLosses, below),
        quiet,
        nearly_quiet,
        lossy,
        lossy_gains,
        Truth::new("useful from 15 on", Normal, above),
        Truth::new("useful everywhere", Normal, everywhere),
        Truth::new("useful everywhere, Student", Student, everywhere),
        Truth::new("useful everywhere, rare gains", RareGains, everywhere),
        Truth::new("useful nowhere", Normal, nowhere),
        Truth::new("useful nowhere, Student", Student, nowhere),
        Truth::new("useful nowhere, rare gains", RareGains, nowhere),
        Truth::new("useful nowhere, rare losses", RareLosses, nowhere),
        Truth::new("declining gains", Normal, declining),
        Truth::new("declining gains, Student", Student, declining),
        Truth::new("declining gains, rare gains", RareGains, declining),
        Truth::new("declining gains, rare losses", RareLosses, declining),
        Truth::new("slight harm from 20 on", Normal, slight),
        Truth::new("over-scaled from 20 on", Normal, over_scaled),
        Truth::new("over-scaled from 20 on, Student", Student, over_scaled),
        Truth::new("over-scaled from 20 on, rare gains", RareGains, over_scaled),
        Truth::new("harmful everywhere", Normal, harmful),
        Truth::new("harmful everywhere, rare gains", RareGains, harmful),
        Truth::new("harmful, helpful below 8", Normal, helpful_bottom),
    ]
}

/// A standard normal number, by the inverse of the distribution function.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    normal_quantile(((rng.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64)
}

/// A log-normal number with parameter `sigma`, minus its mean and divided by its standard deviation.
fn log_normal(sigma: f64, rng: &mut ChaCha8Rng) -> f64 {
    let square = sigma * sigma;
    let mean = (square / 2.0).exp();
    ((sigma * normal(rng)).exp() - mean) / (mean * square.exp_m1().sqrt())
}
