//! The gate trie: variants with the same gates up to a layer share their hidden states up to that layer.
//!
//! Each node stands for one hidden state after one layer and is computed once, from its parent's. Every boundary of a
//! model with L layers then costs L + L(L+1)/2 layer passes in place of L(L+1), and the scores are those of one run for
//! each variant.

use std::collections::HashMap;

use crate::lora::{LayerGates, Projection, Variant};

/// The nodes of every layer, and where each variant passes.
#[derive(Debug)]
pub(super) struct Trie {
    /// For each layer, its nodes.
    levels: Vec<Vec<Node>>,
    /// For each variant and layer, the variant's node among the layer's.
    paths: Vec<Vec<usize>>,
}

/// One hidden state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    /// Its node of the layer before; 0, the embedding, for those of the first layer.
    pub(super) parent: usize,
    /// How the layer's LoRA is applied on the way.
    pub(super) gates: LayerGates,
}

impl Trie {
    /// `adapted[layer]` says which modules have LoRA: a gate on a module without it makes no difference and no node.
    ///
    /// # Panics
    /// If a variant has another number of layers than `adapted`.
    pub(super) fn new(variants: &[Variant], adapted: &[[bool; Projection::COUNT]]) -> Self {
        let mut levels = vec![(Vec::<Node>::new(), HashMap::new()); adapted.len()];
        let mut paths = Vec::with_capacity(variants.len());
        for variant in variants {
            assert_eq!(variant.gates.len(), adapted.len(), "a variant of another model");
            let mut parent = 0;
            let path = levels.iter_mut().zip(&variant.gates).zip(adapted).map(|(((level, known), gates), adapted)| {
                // Adding 0 makes −0 the same gate as 0.
                let gates = LayerGates(std::array::from_fn(|i| if adapted[i] { gates.0[i] + 0.0 } else { 0.0 }));
                parent = *known.entry((parent, gates.0.map(f32::to_bits))).or_insert_with(|| {
                    level.push(Node { parent, gates });
                    level.len() - 1
                });
                parent
            });
            paths.push(path.collect());
        }
        Self { levels: levels.into_iter().map(|(level, _)| level).collect(), paths }
    }

    /// The nodes of a layer.
    pub(super) fn level(&self, layer: usize) -> &[Node] {
        &self.levels[layer]
    }

    /// The node of a variant after a layer.
    pub(super) fn node(&self, variant: usize, layer: usize) -> usize {
        self.paths[variant][layer]
    }

    /// How many variants there are.
    pub(super) fn variants(&self) -> usize {
        self.paths.len()
    }

    /// Most nodes of a layer.
    pub(super) fn width(&self) -> usize {
        self.levels.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Layers computed for each sample.
    pub(super) fn passes(&self) -> usize {
        self.levels.iter().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [bool; Projection::COUNT] = [true; Projection::COUNT];

    #[test]
    fn every_boundary_costs_what_the_formula_says() {
        for layers in 1..=32 {
            let trie = Trie::new(&Variant::every_boundary(layers), &vec![ALL; layers]);
            assert_eq!(trie.passes(), layers + layers * (layers + 1) / 2, "{layers} layers");
        }
    }

    #[test]
    fn layers_without_lora_are_shared() {
        let mut adapted = vec![[false; Projection::COUNT]; 6];
        adapted[4][Projection::V as usize] = true;
        let trie = Trie::new(&Variant::every_boundary(6), &adapted);
        assert_eq!((0..6).map(|layer| trie.level(layer).len()).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2]);
        assert_eq!(trie.node(4, 5), trie.node(0, 5));
        assert_ne!(trie.node(5, 5), trie.node(0, 5));
    }

    #[test]
    fn paths_lead_through_parents() {
        let variants = Variant::every_boundary(5);
        let trie = Trie::new(&variants, &[ALL; 5]);
        for (index, variant) in variants.iter().enumerate() {
            for layer in 0..5 {
                let node = trie.level(layer)[trie.node(index, layer)];
                assert_eq!(node.gates, variant.gates[layer]);
                assert_eq!(node.parent, if layer == 0 { 0 } else { trie.node(index, layer - 1) });
            }
        }
    }
}
