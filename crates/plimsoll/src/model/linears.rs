//! How the linear modules of a block are packed: those with the same input in one product.

use super::config::Config;
use crate::lora::Projection;

/// Gate and up projections come in turns of so many columns, so that the product can gate its own sums.
const TURN: usize = 16;

/// What a linear module of a block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinearGroup {
    /// The normed hidden state before attention: q, k, v, one after the other.
    Qkv,
    /// What attention mixed: o.
    AttentionOut,
    /// The normed hidden state before the MLP: gate and up, in turns.
    GateUp,
    /// The gated activations: down.
    Down,
}

impl LinearGroup {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    /// All of them, in the order in which a block comes to them.
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Qkv, Self::AttentionOut, Self::GateUp, Self::Down];

    /// The linear maps of it.
    pub(super) fn projections(self) -> &'static [Projection] {
        match self {
            Self::Qkv => &[Projection::Q, Projection::K, Projection::V],
            Self::AttentionOut => &[Projection::O],
            Self::GateUp => &[Projection::Gate, Projection::Up],
            Self::Down => &[Projection::Down],
        }
    }

    /// The modules that read it: each of these maps, or all of them in one.
    pub(super) fn modules(self, config: &Config) -> &'static [Projection] {
        match self {
            Self::Qkv if config.is_fused => &[Projection::Qkv],
            Self::GateUp if config.is_fused => &[Projection::GateUp],
            _ => self.projections(),
        }
    }

    /// Which output of which module a column is; none where it only fills up a turn.
    pub(super) fn module_output(self, config: &Config, column: usize) -> Option<(Projection, usize)> {
        let (projection, row) = self.source(config, column)?;
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        Some(match projection {
            Projection::Q if config.is_fused => (Projection::Qkv, row),
            Projection::K if config.is_fused => (Projection::Qkv, q + row),
            Projection::V if config.is_fused => (Projection::Qkv, q + kv + row),
            Projection::Gate if config.is_fused => (Projection::GateUp, row),
            Projection::Up if config.is_fused => (Projection::GateUp, config.intermediate + row),
            _ => (projection, row),
        })
    }

    /// Its width.
    pub(super) fn width(self, config: &Config) -> usize {
        match self {
            Self::Qkv | Self::GateUp => config.hidden,
            Self::AttentionOut => config.heads * config.head_dim,
            Self::Down => config.intermediate,
        }
    }

    /// Columns of its product.
    pub(super) fn columns(self, config: &Config) -> usize {
        match self {
            Self::Qkv => (config.heads + 2 * config.kv_heads) * config.head_dim,
            Self::AttentionOut | Self::Down => config.hidden,
            Self::GateUp => config.intermediate.div_ceil(TURN) * 2 * TURN,
        }
    }

    /// Which output of which linear map a column is; none where it only fills up a turn.
    pub(super) fn source(self, config: &Config, column: usize) -> Option<(Projection, usize)> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Qkv if column < q => Some((Projection::Q, column)),
            Self::Qkv if column < q + kv => Some((Projection::K, column - q)),
            Self::Qkv => Some((Projection::V, column - q - kv)),
            Self::AttentionOut => Some((Projection::O, column)),
            Self::Down => Some((Projection::Down, column)),
            Self::GateUp => {
                let projection = if column % (2 * TURN) < TURN { Projection::Gate } else { Projection::Up };
                let output = column / (2 * TURN) * TURN + column % TURN;
                (output < config.intermediate).then_some((projection, output))
            }
        }
    }
}
