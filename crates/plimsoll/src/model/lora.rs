//! The one LoRA linear: an adapter's layer packed beside the base weights, and its update of a product.
//!
//! `y = W·x + γ·s·B·(A·x)` (Hu et al., arXiv:2106.09685). Modules with the same input share one product with their A's,
//! stacked; what comes out, scaled by γ·s for each module and sequence, is `z`, and the product with W adds `B·z` to its
//! sums before they leave the registers. Rows whose gates are all 0 cost nothing.
//!
//! DoRA (Liu et al., arXiv:2402.09353) gives every row of `W' = W + s·B·A` a length m of its own: `y = c·W'·x` with
//! `c = m / ‖w'‖`, a bias coming after it. Here a gate blends that with the base model, `(1 − γ)·W·x + γ·c·W'·x`, which
//! is `(1 + γ·(c − 1))·W·x + γ·s·(c·B)·(A·x)`: a factor for each column, and the same low-rank update.

use std::ops::Range;
use std::sync::Arc;

use plimsoll_kernels::{
    Dtype, Isa, Mode, Packed, PackedUpdate, Rows, Threads, Update, UpdateModule, linear, linear_rows,
};
use rayon::prelude::*;

use super::decoder::{Model, sized};
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
    /// For each column, and each that fills up the last 32, the module and its `c − 1`, where it has magnitudes; empty
    /// where none of the modules has.
    excess: Vec<Option<(usize, f32)>>,
}

#[derive(Debug)]
struct Module {
    projection: Projection,
    /// Its numbers in `z`.
    z: Range<usize>,
    scale: f32,
}

impl Lora {
    /// Packs the LoRA of a layer of a model.
    pub fn new(model: &Model, layer: usize, lora: &LayerLora) -> Self {
        Self { groups: Input::ALL.map(|input| Group::new(model, layer, lora, input)) }
    }

    /// The modules with one input, if any.
    pub(super) fn get(&self, input: Input) -> Option<&Group> {
        self.groups[input as usize].as_ref()
    }
}

impl Group {
    fn new(model: &Model, layer: usize, lora: &LayerLora, input: Input) -> Option<Self> {
        let (config, dtype) = (model.config(), model.precision().dtype);
        let present =
            || input.modules(config).iter().filter_map(|&projection| Some((projection, lora.get(projection)?)));
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
        let source = |column| {
            let (projection, row) = input.module_output(config, column)?;
            Some((modules.iter().position(|module| module.projection == projection)?, row))
        };

        let (mut b, mut excess): (Vec<Vec<f32>>, _) = (present().map(|(_, lora)| lora.b.clone()).collect(), Vec::new());
        if present().any(|(_, lora)| lora.magnitude.is_some()) {
            let loras: Vec<&LoraWeights> = present().map(|(_, lora)| lora).collect();
            let w = model.linears(layer, input);
            let factor = |column| {
                let (module, row) = source(column)?;
                let magnitude = loras[module].magnitude.as_ref()?[row];
                Some((module, row, magnitude / length(w, column, loras[module], row)))
            };
            let factors: Vec<_> = (0..w.columns()).into_par_iter().map(factor).collect();
            excess = factors.iter().map(|factor| factor.map(|(module, _, c)| (module, c - 1.0))).collect();
            excess.resize(w.padded_columns(), None);
            for (module, row, c) in factors.into_iter().flatten() {
                let rank = loras[module].rank;
                b[module][row * rank..(row + 1) * rank].iter_mut().for_each(|b| *b *= c);
            }
        }
        let updates: Vec<UpdateModule<'_>> = modules
            .iter()
            .zip(&b)
            .map(|(module, b)| UpdateModule { b, rank: module.z.len(), at: module.z.start })
            .collect();
        let b = PackedUpdate::new(dtype, input.columns(config), width, &updates, source);
        Some(Self { a: Packed::from_rows(dtype, &a, inputs), b, modules, excess })
    }
}

/// `‖w + s·b·A‖` of one row of a module.
fn length(w: &Packed, column: usize, lora: &LoraWeights, row: usize) -> f32 {
    let mut sums = vec![0.0; w.inputs()];
    w.unpack(column, &mut sums);
    let b = &lora.b[row * lora.rank..(row + 1) * lora.rank];
    for (b, a) in b.iter().zip(lora.a.chunks_exact(w.inputs())) {
        sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += lora.scale * b * a);
    }
    sums.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32
}

/// `BᵀB` of each module of a layer, with which the size of an update follows from `z` alone: `‖B·z‖² = zᵀ·(BᵀB)·z`.
#[derive(Clone, Debug)]
pub struct Grams([Option<Arc<[f64]>>; Projection::COUNT]);

impl Grams {
    /// Of a layer's LoRA.
    pub fn new(lora: &LayerLora) -> Self {
        Self(Projection::ALL.map(|projection| {
            // DoRA's update is more than `B·z`: it is measured as it comes.
            let LoraWeights { b, rank, .. } = lora.get(projection).filter(|lora| lora.magnitude.is_none())?;
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
    factors: Vec<f32>, // (runs, columns)
    /// Measures the updates, where that is asked for.
    pub(super) meter: Option<Meter>,
}

impl LowRank {
    pub(super) fn new(dtype: Dtype) -> Self {
        Self { numbers: Vec::new(), z: Rows::new(dtype), rows: Vec::new(), factors: Vec::new(), meter: None }
    }

    /// The update of the rows whose gates are not all 0, if there are any. Runs are in the order of the rows.
    pub(super) fn update<'a>(
        &'a mut self,
        isa: Isa,
        group: Option<&'a Group>,
        x: &Rows,
        w: &Packed,
        runs: Vec<(Range<usize>, LayerGates)>,
        threads: Threads,
    ) -> Option<Update<'a>> {
        let Group { a, b, modules, excess } = group?;
        let width = b.width();
        let is_on = |gates: &LayerGates| modules.iter().any(|module| gates.get(module.projection) != 0.0);
        let mut on = runs.into_iter().filter(|(rows, gates)| !rows.is_empty() && is_on(gates)).peekable();
        on.peek()?;
        self.rows.clear();
        self.factors.clear();
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
            self.factors.extend(excess.iter().map(|excess| match excess {
                Some((module, excess)) => 1.0 + gates.get(modules[*module].projection) * excess,
                None => 1.0,
            }));
            match self.rows.last_mut() {
                Some(last) if last.end == rows.start && excess.is_empty() => last.end = rows.end,
                _ => self.rows.push(rows),
            }
        }
        let update = Update { z: &self.z, b, rows: &self.rows, factors: &self.factors };
        if let Some(meter) = self.meter.as_mut().filter(|_| !excess.is_empty()) {
            let [with, without] = [Some(update), None].map(|update| {
                let mut y = vec![0.0; x.rows() * w.columns()];
                linear(isa, &mut y, x, w, update, Mode::Set, threads);
                y
            });
            for (with, without) in with.chunks_exact(w.columns()).zip(without.chunks_exact(w.columns())) {
                for ((with, without), excess) in with.iter().zip(without).zip(excess) {
                    let Some((module, _)) = *excess else { continue };
                    let change = f64::from(with - without);
                    meter.energy[modules[module].projection as usize] += change * change;
                }
            }
        }
        Some(update)
    }
}
