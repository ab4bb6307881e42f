//! Packing of the projections of a block: projections that share an input are one product.

use super::config::Config;
use crate::lora::Projection;

/// Columns of the gate and up projections are interleaved in groups of this size, so that the kernel can apply the gate
/// to its own sums.
const INTERLEAVE: usize = 16;

/// The projections of a block that share an input, packed as one product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinearGroup {
    /// Input: the normed hidden state before attention. Columns: q, k, v.
    Qkv,
    /// Input: the output of attention. Columns: o.
    AttentionOut,
    /// Input: the normed hidden state before the MLP. Columns: gate and up, interleaved.
    GateUp,
    /// Input: the gated activations. Columns: down.
    Down,
}

impl LinearGroup {
    /// Number of groups.
    pub(super) const COUNT: usize = 4;

    /// All groups, in the order in which a block computes them.
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Qkv, Self::AttentionOut, Self::GateUp, Self::Down];

    /// The projections of the group.
    pub(super) fn projections(self) -> &'static [Projection] {
        match self {
            Self::Qkv => &[Projection::Q, Projection::K, Projection::V],
            Self::AttentionOut => &[Projection::O],
            Self::GateUp => &[Projection::Gate, Projection::Up],
            Self::Down => &[Projection::Down],
        }
    }

    /// The modules of the group: each projection, or one fused module.
    pub(super) fn modules(self, config: &Config) -> &'static [Projection] {
        match self {
            Self::Qkv if config.is_fused => &[Projection::Qkv],
            Self::GateUp if config.is_fused => &[Projection::GateUp],
            _ => self.projections(),
        }
    }

    /// The module and its output at a column; `None` for padding.
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

    /// Width of the input.
    pub(super) fn width(self, config: &Config) -> usize {
        match self {
            Self::Qkv | Self::GateUp => config.hidden,
            Self::AttentionOut => config.heads * config.head_dim,
            Self::Down => config.intermediate,
        }
    }

    /// Number of columns of the product.
    pub(super) fn columns(self, config: &Config) -> usize {
        match self {
            Self::Qkv => (config.heads + 2 * config.kv_heads) * config.head_dim,
            Self::AttentionOut | Self::Down => config.hidden,
            Self::GateUp => config.intermediate.div_ceil(INTERLEAVE) * 2 * INTERLEAVE,
        }
    }

    /// The projection and its output at a column; `None` for padding.
    pub(super) fn source(self, config: &Config, column: usize) -> Option<(Projection, usize)> {
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Qkv if column < q => Some((Projection::Q, column)),
            Self::Qkv if column < q + kv => Some((Projection::K, column - q)),
            Self::Qkv => Some((Projection::V, column - q - kv)),
            Self::AttentionOut => Some((Projection::O, column)),
            Self::Down => Some((Projection::Down, column)),
            Self::GateUp => {
                let is_gate = column % (2 * INTERLEAVE) < INTERLEAVE;
                let projection = if is_gate { Projection::Gate } else { Projection::Up };
                let output = column / (2 * INTERLEAVE) * INTERLEAVE + column % INTERLEAVE;
                (output < config.intermediate).then_some((projection, output))
            }
        }
    }
}
