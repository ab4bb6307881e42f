//! Variants: which LoRA updates are on, and how strongly.
//!
//! A *gate* γ multiplies one module's update in `y = Wx + γ·s·B(Ax)`. A [`Variant`] is one gate for each layer and
//! module: `full` is all 1, `base` is all 0, and the paper's cut (arXiv:2503.23360) is 1 in layers `0..k`, 0 above.
//! Variants are data. Nothing here knows a tensor, and the decoder knows nothing but the gate it is handed.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    /// The MLP's gate.
    Gate,
    /// The MLP's up projection.
    Up,
    /// The MLP's down projection.
    Down,
}

impl Projection {
    /// How many there are.
    pub const COUNT: usize = 7;

    /// All of them, in the order in which a block applies them.
    pub const ALL: [Self; Self::COUNT] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The module's path below its block in Hugging Face names, such as `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The last part of [`path`](Self::path), such as `q_proj`: what users call the module.
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.rsplit_once('.').map_or(path, |(_, name)| name)
    }

    /// The projection whose [`path`](Self::path) this is.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.path() == path)
    }
}

/// The gates of one layer, indexed by `Projection as usize`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerGates(pub [f32; Projection::COUNT]);

impl LayerGates {
    /// Every update of the layer applied as trained.
    pub const ON: Self = Self([1.0; Projection::COUNT]);
    /// Every update of the layer dropped.
    pub const OFF: Self = Self([0.0; Projection::COUNT]);

    /// The gate of one module.
    pub fn get(&self, projection: Projection) -> f32 {
        self.0[projection as usize]
    }
}

/// A named set of variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// LoRA kept in the layers `0..k` and dropped above: the paper's cut.
    BottomK,
}

/// One choice of gates for the whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The family it belongs to.
    pub family: Family,
    /// How many layers keep their LoRA.
    pub layers_kept: usize,
    /// One entry for each layer, 0 next to the embedding.
    pub gates: Vec<LayerGates>,
}

impl Variant {
    /// LoRA on in layers `0..layers_kept`, off in the rest; `layers_kept` above `layers` counts as `layers`.
    pub fn bottom_k(layers: usize, layers_kept: usize) -> Self {
        let layers_kept = layers_kept.min(layers);
        let gates = (0..layers).map(|l| if l < layers_kept { LayerGates::ON } else { LayerGates::OFF }).collect();
        Self { family: Family::BottomK, layers_kept, gates }
    }

    /// The same with the gates of each layer multiplied by that layer's strength.
    ///
    /// # Panics
    /// If there is not one for each layer.
    #[must_use]
    pub fn with_strengths(mut self, strengths: &[f32]) -> Self {
        assert_eq!(self.gates.len(), strengths.len(), "strengths of another model");
        for (gates, strength) in self.gates.iter_mut().zip(strengths) {
            gates.0.iter_mut().for_each(|gate| *gate *= strength);
        }
        self
    }

    /// What users call it: `base`, `full`, or the number of layers that keep their LoRA.
    pub fn name(&self) -> String {
        match self.layers_kept {
            0 => "base".to_owned(),
            kept if kept == self.gates.len() => "full".to_owned(),
            kept => format!("{kept} layers"),
        }
    }

    /// Every boundary from `base` (k = 0) to `full` (k = `layers`), in that order: `layers + 1` variants.
    pub fn every_boundary(layers: usize) -> Vec<Self> {
        (0..=layers).map(|k| Self::bottom_k(layers, k)).collect()
    }
}

/// Which layers keep their LoRA, as users say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayersKept {
    /// None of them.
    Base,
    /// All of them.
    Full,
    /// So many, from the bottom.
    Some(usize),
}

impl LayersKept {
    /// The variants that are asked for, each once, by the number of layers that keep their LoRA.
    ///
    /// # Errors
    /// More layers than the model has.
    pub fn variants(asked: &[Self], layers: usize) -> Result<Vec<Variant>> {
        let kept = asked.iter().map(|kept| match *kept {
            Self::Base => Ok(0),
            Self::Full => Ok(layers),
            Self::Some(kept) if kept <= layers => Ok(kept),
            Self::Some(kept) => Err(Error::Usage(format!("{kept} layers kept: the model has {layers}"))),
        });
        let mut kept = kept.collect::<Result<Vec<usize>>>()?;
        kept.sort_unstable();
        kept.dedup();
        Ok(kept.into_iter().map(|kept| Variant::bottom_k(layers, kept)).collect())
    }
}

impl std::str::FromStr for LayersKept {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "base" => Ok(Self::Base),
            "full" => Ok(Self::Full),
            number => number.parse().map(Self::Some).map_err(|_| "expected a number of layers, `base` or `full`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_keeps_the_layers_below_it() {
        let variant = Variant::bottom_k(4, 3);
        assert_eq!(variant.gates, [LayerGates::ON, LayerGates::ON, LayerGates::ON, LayerGates::OFF]);
        assert_eq!(Variant::bottom_k(4, 9), Variant::bottom_k(4, 4));
        assert_eq!(Variant::every_boundary(4).len(), 5);
    }

    #[test]
    fn variants_are_asked_for_by_name_or_number() {
        let asked: Vec<LayersKept> = ["full", "2", "0", "base"].iter().map(|text| text.parse().unwrap()).collect();
        let variants = LayersKept::variants(&asked, 4).unwrap();
        assert_eq!(variants.iter().map(Variant::name).collect::<Vec<_>>(), ["base", "2 layers", "full"]);
        assert!(LayersKept::variants(&[LayersKept::Some(5)], 4).is_err());
        assert!("half".parse::<LayersKept>().is_err());
    }

    #[test]
    fn projections_are_found_by_the_path_they_print() {
        for projection in Projection::ALL {
            assert_eq!(Projection::from_path(projection.path()), Some(projection));
        }
        assert_eq!(Projection::Down.name(), "down_proj");
        assert_eq!(Projection::from_path("q_proj"), None);
    }
}
