//! The one LoRA linear: an adapter's layer packed beside the base weights, and its update of a product.
//!
//! `y = W·x + γ·s·B·(A·x)` (Hu et al., arXiv:2106.09685). Modules with the same input share one product with their A's,
//! stacked; what comes out, scaled by γ·s for each module and sequence, is `z`, and the product with W adds `B·z` to its
//! sums before they leave the registers. Rows whose gates are all 0 cost nothing.

use std::ops::Range;
use std::sync::Arc;

use plimsoll_kernels::{Dtype, Isa, Mode, Packed, PackedUpdate, Rows, Threads, Update, UpdateModule, linear_rows};

use super::config::Config;
use super::decoder::sized;
use super::linears::Input;
use crate::adapter::{LayerLora, LoraWeights};
use crate::gates::{LayerGates, Projection};

/// The LoRA of one layer, packed for one model.
#[derive(Debug)]
pub struct Lora {
    groups: [Option<Group>; Input::COUNT],
}

/// The modules with one input.
#[derive(Debug)]
pub(super) struct Group {
    /// All A's: a column for each number of `z`.
    a: Packed,
    b: PackedUpdate,
    modules: Vec<Module>,
}

#[derive(Debug)]
struct Module {
    projection: Projection,
    /// Its numbers in `z`.
    z: Range<usize>,
    scale: f32,
}

impl Lora {
    /// Packs a layer's LoRA.
    pub fn new(config: &Config, dtype: Dtype, lora: &LayerLora) -> Self {
        Self { groups: Input::ALL.map(|input| Group::new(config, dtype, lora, input)) }
    }

    /// The modules with one input, if any.
    pub(super) fn get(&self, input: Input) -> Option<&Group> {
        self.groups[input as usize].as_ref()
    }
}

impl Group {
    fn new(config: &Config, dtype: Dtype, lora: &LayerLora, input: Input) -> Option<Self> {
        let present = || input.projections().iter().filter_map(|&projection| Some((projection, lora.get(projection)?)));
        let inputs = present().next().map(|(_, lora)| lora.a.len() / lora.rank)?;
        let mut modules = Vec::new();
        let mut width = 0;
        for (projection, lora) in present() {
            modules.push(Module { projection, z: width..width + lora.rank, scale: lora.scale });
            // Each begins with a word.
            width = (width + lora.rank).next_multiple_of(2);
        }
        let mut a = vec![0.0; width * inputs];
        for (module, (_, lora)) in modules.iter().zip(present()) {
            a[module.z.start * inputs..module.z.end * inputs].copy_from_slice(&lora.a);
        }
        let updates: Vec<UpdateModule<'_>> = modules
            .iter()
            .zip(present())
            .map(|(module, (_, lora))| UpdateModule { b: &lora.b, rank: lora.rank, at: module.z.start })
            .collect();
        let index = |projection| modules.iter().position(|module| module.projection == projection);
        let b = PackedUpdate::new(dtype, input.columns(config), width, &updates, |column| {
            let (projection, row) = input.source(config, column)?;
            Some((index(projection)?, row))
        });
        Some(Self { a: Packed::from_rows(dtype, &a, inputs), b, modules })
    }
}

/// `BᵀB` of each module of a layer, with which the size of an update follows from `z` alone: `‖B·z‖² = zᵀ·(BᵀB)·z`.
#[derive(Clone, Debug)]
pub struct Grams([Option<Arc<[f64]>>; Projection::COUNT]);

impl Grams {
    /// Of a layer's LoRA.
    pub fn new(lora: &LayerLora) -> Self {
        Self(Projection::ALL.map(|projection| {
            let LoraWeights { b, rank, .. } = lora.get(projection)?;
            let mut gram = vec![0.0; rank * rank];
            for row in b.chunks_exact(*rank) {
                for (sums, x) in gram.chunks_exact_mut(*rank).zip(row) {
                    sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += f64::from(*x) * f64::from(*y));
                }
            }
            Some(gram.into())
        }))
    }
}

/// Adds up the energy of updates while they are made.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) grams: Grams,
    pub(super) energy: [f64; Projection::COUNT],
}

impl Meter {
    /// Takes in the scaled `z` of one row of a module.
    fn add(&mut self, projection: Projection, z: &[f32]) {
        let Some(gram) = &self.grams.0[projection as usize] else { return };
        let along = |row: &[f64]| row.iter().zip(z).map(|(g, z)| g * f64::from(*z)).sum::<f64>();
        let energy: f64 = gram.chunks_exact(z.len()).zip(z).map(|(row, z)| f64::from(*z) * along(row)).sum();
        self.energy[projection as usize] += energy;
    }
}

/// The low-rank activations of a product; memory that is meant to be used again.
#[derive(Debug)]
pub(super) struct LowRank {
    numbers: Vec<f32>,
    z: Rows,
    rows: Vec<Range<usize>>,
    /// Measures the updates, where that is asked for.
    pub(super) meter: Option<Meter>,
}

impl LowRank {
    pub(super) fn new(dtype: Dtype) -> Self {
        Self { numbers: Vec::new(), z: Rows::new(dtype), rows: Vec::new(), meter: None }
    }

    /// The update of the rows whose gates are not all 0, if there are any. Runs are in the order of the rows.
    pub(super) fn update<'a>(
        &'a mut self,
        isa: Isa,
        group: Option<&'a Group>,
        x: &Rows,
        runs: Vec<(Range<usize>, LayerGates)>,
        threads: Threads,
    ) -> Option<Update<'a>> {
        let Group { a, b, modules } = group?;
        let width = b.width();
        let is_on = |gates: &LayerGates| modules.iter().any(|module| gates.get(module.projection) != 0.0);
        let mut on = runs.into_iter().filter(|(rows, gates)| !rows.is_empty() && is_on(gates)).peekable();
        on.peek()?;
        self.rows.clear();
        self.z.resize(x.rows(), width);
        for (rows, gates) in on {
            let numbers = sized(&mut self.numbers, rows.len() * width);
            linear_rows(isa, numbers, x, rows.clone(), a, None, Mode::Set, threads); // (rows, width)
            for z in numbers.chunks_exact_mut(width) {
                for Module { projection, z: range, scale } in modules {
                    let factor = gates.get(*projection) * scale;
                    z[range.clone()].iter_mut().for_each(|z| *z *= factor);
                    if let Some(meter) = &mut self.meter {
                        meter.add(*projection, &z[range.clone()]);
                    }
                }
            }
            self.z.write(isa, rows.start, numbers);
            match self.rows.last_mut() {
                Some(last) if last.end == rows.start => last.end = rows.end,
                _ => self.rows.push(rows),
            }
        }
        Some(Update { z: &self.z, b, rows: &self.rows })
    }
}
