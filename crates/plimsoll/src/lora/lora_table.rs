//! Norms and bytes of an adapter's updates by layer and module: the facts of an adapter that a search needs.

use super::projection::Projection;
use super::variant::{LoraPlaces, Variant};

/// Which modules of an adapter have LoRA, with norms and bytes of their updates. All lists are indexed by layer of the
/// base model, then by `Projection as usize`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoraTable {
    /// Which modules have LoRA.
    pub adapted: Vec<[bool; Projection::COUNT]>,
    /// Frobenius norms `‖s·B·A‖` of the updates; 0 without LoRA.
    pub norms: Vec<[f64; Projection::COUNT]>,
    /// Bytes of the tensors of each module; 0 without LoRA.
    pub bytes: Vec<[u64; Projection::COUNT]>,
    /// Bytes of tensors that every variant keeps: LoRA on embeddings, and weights trained in full.
    pub bytes_kept_always: u64,
    /// Bytes of tensors that every variant drops: LoRA on embeddings that is dropped.
    pub bytes_dropped_always: u64,
}

impl LoraTable {
    /// Number of layers of the base model.
    pub fn layers(&self) -> usize {
        self.adapted.len()
    }

    /// The layers and modules that have LoRA.
    pub fn places(&self) -> LoraPlaces {
        let of_layer = |(layer, modules): (usize, &[bool; Projection::COUNT])| {
            let modules = *modules;
            let has_lora = move |projection: &Projection| modules[*projection as usize];
            Projection::ALL.into_iter().filter(has_lora).map(move |projection| (layer, projection))
        };
        self.adapted.iter().enumerate().flat_map(of_layer).collect()
    }

    /// Number of layers up to the highest with LoRA: this boundary, and every higher one, drops nothing.
    pub fn layers_up_to_highest(&self) -> usize {
        let has_lora = |modules: &[bool; Projection::COUNT]| modules.contains(&true);
        self.adapted.iter().rposition(has_lora).map_or(self.layers(), |highest| highest + 1)
    }

    /// Bytes of all tensors.
    pub fn total_bytes(&self) -> u64 {
        self.bytes.iter().flatten().sum::<u64>() + self.bytes_kept_always + self.bytes_dropped_always
    }

    /// Bytes of the tensors that a variant keeps.
    pub fn bytes_kept(&self, variant: &Variant) -> u64 {
        let modules = self.bytes.iter().zip(&variant.gates).flat_map(|(bytes, gates)| bytes.iter().zip(&gates.0));
        modules.filter(|(_, gate)| **gate != 0.0).map(|(bytes, _)| bytes).sum::<u64>() + self.bytes_kept_always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_keeps_the_bytes_of_its_modules_and_those_of_no_layer() {
        let mut table = LoraTable {
            adapted: vec![[false; Projection::COUNT]; 4],
            bytes: vec![[0; Projection::COUNT]; 4],
            bytes_kept_always: 5,
            bytes_dropped_always: 7,
            ..LoraTable::default()
        };
        for layer in 0..3 {
            table.adapted[layer][Projection::Q as usize] = true;
            table.bytes[layer][Projection::Q as usize] = 10;
        }
        assert_eq!((table.total_bytes(), table.layers_up_to_highest()), (42, 3));
        assert_eq!(table.bytes_kept(&Variant::bottom_k(4, 2)), 25);
        assert_eq!(table.bytes_kept(&Variant::uniform(4, 0.5)), 35);
    }
}
