//! The linear modules of a decoder block that LoRA can adapt.

/// A linear module of a decoder block that LoRA can adapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// Attention queries.
    Q,
    /// Attention keys.
    K,
    /// Attention values.
    V,
    /// Attention output.
    O,
    /// The MLP's gate projection.
    Gate,
    /// The MLP's up projection.
    Up,
    /// The MLP's down projection.
    Down,
    /// Attention queries, keys and values in one fused module, as in Phi-3.
    Qkv,
    /// The MLP's gate and up projections in one fused module, as in Phi-3.
    GateUp,
}

impl Projection {
    /// Number of projections.
    pub const COUNT: usize = 9;

    /// All projections, in the order in which a block applies them. The fused ones, of which a model has none or both,
    /// come last.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down, Self::Qkv, Self::GateUp];

    /// The projections that are not fused.
    pub const SINGLE: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The module's path below its block, as in Hugging Face models: `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
            Self::Qkv => "self_attn.qkv_proj",
            Self::GateUp => "mlp.gate_up_proj",
        }
    }

    /// The module's name, the last part of [`path`](Self::path): `q_proj`.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.rsplit_once('.').map_or(path, |(_, name)| name)
    }

    /// The projection with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }

    /// The projection with this [`path`](Self::path).
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.path() == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projections_are_found_by_their_path() {
        for projection in Projection::ALL {
            assert_eq!(Projection::from_path(projection.path()), Some(projection));
        }
        assert_eq!(Projection::Down.name(), "down_proj");
        assert_eq!(Projection::from_path("q_proj"), None);
    }
}
