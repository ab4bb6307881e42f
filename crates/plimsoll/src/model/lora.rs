//! The LoRA linear: the LoRA of a layer packed for the decoder, and its update of a product.
//!
//! `y = W·x + γ·s·B·(A·x)` (Hu et al., arXiv:2106.09685), with the LoRA strength γ. Modules with the same input share
//! one product with their stacked A's. Its result, scaled by γ·s for each module and sequence, is `z`. The product with
//! W adds `B·z` to its sums in registers. Rows whose strengths are all 0 cost nothing.
//!
//! DoRA (Liu et al., arXiv:2402.09353) gives every row of `W' = W + s·B·A` its own norm m: `y = c·W'·x` with
//! `c = m / ‖w'‖`; a bias is added after it. Here the strength interpolates between this and the base model:
//! `(1 − γ)·W·x + γ·c·W'·x`, which is `(1 + γ·(c − 1))·W·x + γ·s·(c·B)·(A·x)`: a factor for each column, and the same
//! low-rank update.

use std::ops::Range;

use plimsoll_kernels::{Dtype, Isa, Mode, Packed, PackedUpdate, Rows, Threads, Update, UpdateModule, linear_rows};
use rayon::prelude::*;

use super::config::Config;
use super::linears::LinearGroup;
use super::observer::{AdaptedProduct, BlockObserver};
use crate::lora::adapter::{LayerLora, LoraWeights};
use crate::lora::{LayerGates, Projection};

/// The LoRA of one layer, packed for the decoder.
#[derive(Debug)]
pub struct Lora {
    groups: [Option<Group>; LinearGroup::COUNT],
}

/// The LoRA modules that share one input.
#[derive(Debug)]
pub(super) struct Group {
    /// The stacked A's: one column for each element of `z`.
    a: Packed,
    b: PackedUpdate,
    modules: Vec<Module>,
    /// With DoRA, for each column (padded to a multiple of 32) the module and its `c − 1`; `None` for columns without
    /// magnitudes. Empty without DoRA.
    excess: Vec<Option<(usize, f32)>>,
}

#[derive(Debug)]
struct Module {
    projection: Projection,
    /// Its elements of `z`.
    z: Range<usize>,
    scale: f32,
}

impl Lora {
    /// Packs the LoRA of a layer. `weights` are the layer's packed weights, by group.
    pub(super) fn new(config: &Config, dtype: Dtype, weights: &[Packed; LinearGroup::COUNT], lora: &LayerLora) -> Self {
        let group = |group: LinearGroup| Group::new(config, dtype, &weights[group as usize], lora, group);
        Self { groups: LinearGroup::ALL.map(group) }
    }

    /// The LoRA modules with this input; `None` if there are none.
    pub(super) fn get(&self, input: LinearGroup) -> Option<&Group> {
        self.groups[input as usize].as_ref()
    }
}

impl Group {
    fn new(config: &Config, dtype: Dtype, w: &Packed, lora: &LayerLora, input: LinearGroup) -> Option<Self> {
        let present =
            || input.modules(config).iter().filter_map(|&projection| Some((projection, lora.get(projection)?)));
        let inputs = present().next().map(|(_, lora)| lora.a.len() / lora.rank)?;
        let mut modules = Vec::new();
        let mut width = 0;
        for (projection, lora) in present() {
            modules.push(Module { projection, z: width..width + lora.rank, scale: lora.scale });
            // Each module begins at a 32-bit word: two `bf16`.
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
            let factor = |column| {
                let (module, row) = source(column)?;
                let magnitude = loras[module].magnitude.as_ref()?[row];
                Some((module, row, magnitude / norm(w, column, loras[module], row)))
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

/// The norm `‖w + s·b·A‖` of one row of a module.
fn norm(w: &Packed, column: usize, lora: &LoraWeights, row: usize) -> f32 {
    let mut sums = vec![0.0; w.inputs()];
    w.unpack(column, &mut sums);
    let b = &lora.b[row * lora.rank..(row + 1) * lora.rank];
    for (b, a) in b.iter().zip(lora.a.chunks_exact(w.inputs())) {
        sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += lora.scale * b * a);
    }
    sums.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32
}

/// The product of rows and frozen weights that an update is added to.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    pub(super) isa: Isa,
    /// `(rows, inputs)`
    pub(super) x: &'a Rows,
    pub(super) w: &'a Packed,
    pub(super) threads: Threads,
}

/// Buffers for the low-rank activations of a product, reused across products.
#[derive(Debug)]
pub(super) struct LowRank {
    numbers: Vec<f32>,
    z: Rows,
    rows: Vec<Range<usize>>,
    factors: Vec<f32>, // (runs, columns)
}

impl LowRank {
    pub(super) fn new(dtype: Dtype) -> Self {
        Self { numbers: Vec::new(), z: Rows::new(dtype), rows: Vec::new(), factors: Vec::new() }
    }

    /// Computes the update of the rows whose LoRA strengths are not all 0; `None` if there are none. `runs` are in the
    /// order of the rows.
    pub(super) fn update<'a>(
        &'a mut self,
        product: Product<'_>,
        group: Option<&'a Group>,
        runs: Vec<(Range<usize>, LayerGates)>,
        observer: &mut Option<&mut dyn BlockObserver>,
    ) -> Option<Update<'a>> {
        let Product { isa, x, w, threads } = product;
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
                    if let Some(observer) = observer {
                        observer.low_rank(*projection, &z[range.clone()]);
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
        if let Some(observer) = observer {
            let modules = excess.iter().map(|excess| excess.map(|(module, _)| modules[module].projection));
            observer.product(&AdaptedProduct { isa, x, w, update, threads, rescaled: modules.collect() });
        }
        Some(update)
    }
}

/// The first `len` elements of a buffer, which grows as needed.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}
