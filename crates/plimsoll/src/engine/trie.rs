//! A trie of variants: variants with the same LoRA strengths up to a layer share the hidden states up to that layer.
//!
//! A node is one hidden state after one layer. It is computed once, from its parent's. All boundaries of a model with L
//! layers then cost L + L(L+1)/2 layer passes instead of L(L+1), and the scores are the same as with one run per
//! variant.

use std::collections::HashMap;

use crate::lora::{LayerGates, Projection, Variant};

/// A trie of variants: the nodes of every layer, and the path of each variant.
#[derive(Debug)]
pub(super) struct Trie {
    /// The nodes of each layer.
    levels: Vec<Vec<Node>>,
    /// `[variant][layer]`: the index of the variant's node in the layer.
    paths: Vec<Vec<usize>>,
}

/// A node of the trie: one hidden state after one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Node {
    /// Index of the parent in the layer before; 0 (the embedding) in the first layer.
    pub(super) parent: usize,
    /// The LoRA strengths of the layer.
    pub(super) gates: LayerGates,
}

impl Trie {
    /// Builds the trie. `adapted[layer]` says which modules have LoRA; strengths of other modules make no difference.
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
                // Adding 0 turns −0 into 0.
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

    /// The number of variants.
    pub(super) fn variants(&self) -> usize {
        self.paths.len()
    }

    /// The largest number of nodes of a layer.
    pub(super) fn width(&self) -> usize {
        self.levels.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The number of layer passes for each sample.
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
