//! The probe of the CPU engine: energies of updates, and hidden states.

use std::ops::ControlFlow;

use plimsoll_kernels::Threads;
use rayon::prelude::*;

use super::load::{CpuEngine, Workspace};
use crate::data::Sample;
use crate::engine::probe::Probe;
use crate::engine::scorer::stop_if;
use crate::error::Result;
use crate::lora::adapter::{LayerLora, LoraWeights};
use crate::lora::{LayerGates, Projection, Variant};
use crate::model::{AdaptedProduct, BlockObserver, BlockPass, Lora, Segment};

/// The probe of a CPU engine, with the adapter that the engine was loaded with.
#[derive(Clone, Copy, Debug)]
pub struct CpuProbe<'a> {
    /// The engine.
    pub engine: &'a CpuEngine,
    /// The adapter, layer by layer.
    pub lora: &'a [LayerLora],
}

impl Probe for CpuProbe<'_> {
    fn output_energy(
        &self,
        samples: &[Sample],
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<[f64; Projection::COUNT]>> {
        let engine = self.engine;
        let grams: Vec<Grams> = engine.pool.install(|| self.lora.par_iter().map(Grams::new).collect());
        let full = Variant::uniform(engine.lora.len(), 1.0);
        let ropes = engine.model.ropes(samples.iter().map(|sample| sample.tokens.len()));
        let mut energy = vec![[0.0; Projection::COUNT]; engine.lora.len()];
        // A few samples at a time, so that the caller can stop the work. Sums stay in the order of the samples.
        for samples in samples.chunks(4 * engine.threads()) {
            let of_sample = |sample: &Sample| {
                let Workspace { x, scratch } = &mut *engine.workspace();
                *x = engine.model.embed(&sample.tokens);
                let of_layer = |(layer, lora): (usize, &Lora)| {
                    let rows = 0..sample.tokens.len();
                    let gates = full.gates[layer];
                    let length = rows.len();
                    let mut segments = [Segment { rows, gates, length, past: None, cache: None, wanted: None }];
                    let mut sum = EnergySum { grams: &grams[layer], energy: [0.0; Projection::COUNT] };
                    let observer = Some(&mut sum as &mut dyn BlockObserver);
                    let pass = BlockPass { ropes: &ropes, threads: Threads::One, scratch, observer };
                    engine.model.block(layer, lora, &mut segments, x, pass);
                    sum.energy
                };
                engine.lora.iter().enumerate().map(of_layer).collect::<Vec<_>>()
            };
            let measured: Vec<_> = engine.pool.install(|| samples.par_iter().map(of_sample).collect());
            for layers in &measured {
                for (sum, energy) in energy.iter_mut().zip(layers) {
                    sum.iter_mut().zip(energy).for_each(|(sum, energy)| *sum += energy);
                }
            }
            stop_if(go_on(self.energy_work(samples)))?;
        }
        Ok(energy)
    }

    fn energy_work(&self, samples: &[Sample]) -> u64 {
        let of_layer = |layer: usize, rows: usize| self.engine.layer_work(layer, &LayerGates::ON, 0, rows, None);
        let layers = 0..self.engine.lora.len();
        samples.iter().flat_map(|sample| layers.clone().map(|layer| of_layer(layer, sample.tokens.len()))).sum()
    }

    fn hidden_states(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<Vec<f32>>> {
        self.engine.hidden_states(tokens, variant)
    }
}

impl CpuEngine {
    /// Logits `(tokens, vocabulary)` of one sequence under one variant.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn logits(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<f32>> {
        let states = self.hidden_states(tokens, variant)?.pop().unwrap_or_default();
        Ok(self.pool.install(|| self.model.logits(&states, Threads::All, &mut self.model.scratch())))
    }

    /// Hidden states of one sequence under one variant after each layer, each `(tokens, hidden)`.
    ///
    /// # Errors
    /// A variant of another model.
    pub fn hidden_states(&self, tokens: &[u32], variant: &Variant) -> Result<Vec<Vec<f32>>> {
        self.check(std::slice::from_ref(variant))?;
        let ropes = self.model.ropes([tokens.len()]);
        let mut x = self.model.embed(tokens);
        let mut scratch = self.model.scratch();
        let states = self.lora.iter().zip(&variant.gates).enumerate().map(|(layer, (lora, &gates))| {
            let (rows, length) = (0..tokens.len(), tokens.len());
            let segment = Segment { rows, gates, length, past: None, cache: None, wanted: None };
            let mut segments = [segment];
            self.pool.install(|| {
                let pass = BlockPass { ropes: &ropes, threads: Threads::All, scratch: &mut scratch, observer: None };
                self.model.block(layer, lora, &mut segments, &mut x, pass);
            });
            x.clone()
        });
        Ok(states.collect())
    }
}

/// Gram matrices `BᵀB` of a layer's modules. The energy of an update then follows from `z`: `‖B·z‖² = zᵀ·(BᵀB)·z`.
#[derive(Debug)]
struct Grams([Option<Vec<f64>>; Projection::COUNT]);

impl Grams {
    /// The matrices of a layer's LoRA.
    fn new(lora: &LayerLora) -> Self {
        Self(Projection::ALL.map(|projection| {
            // DoRA's update is more than `B·z`: `product` measures it.
            let LoraWeights { b, rank, .. } = lora.get(projection).filter(|lora| lora.magnitude.is_none())?;
            let mut gram = vec![0.0; rank * rank];
            for row in b.chunks_exact(*rank) {
                for (sums, x) in gram.chunks_exact_mut(*rank).zip(row) {
                    sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += f64::from(*x) * f64::from(*y));
                }
            }
            Some(gram)
        }))
    }
}

/// Sums the energies of the updates in a block.
struct EnergySum<'a> {
    grams: &'a Grams,
    energy: [f64; Projection::COUNT],
}

impl BlockObserver for EnergySum<'_> {
    fn low_rank(&mut self, projection: Projection, z: &[f32]) {
        let Some(gram) = &self.grams.0[projection as usize] else { return };
        let along = |row: &[f64]| row.iter().zip(z).map(|(g, z)| g * f64::from(*z)).sum::<f64>();
        let energy: f64 = gram.chunks_exact(z.len()).zip(z).map(|(row, z)| f64::from(*z) * along(row)).sum();
        self.energy[projection as usize] += energy;
    }

    fn product(&mut self, product: &AdaptedProduct<'_>) {
        // DoRA's update is the change of the whole product.
        if product.is_rescaled() {
            for (projection, change) in product.changes() {
                self.energy[projection as usize] += f64::from(change) * f64::from(change);
            }
        }
    }
}
