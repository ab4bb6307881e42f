//! Inspection of an adapter: modules, ranks, scales, norms of the updates, and runtimes that can serve it.
//!
//! The size of an update is its Frobenius norm `‖s·B·A‖_F`. It is computed in f64 from the two r×r Gram matrices,
//! without the (out, in) product: `‖BA‖²_F = tr((BᵀB)(AAᵀ)) = Σ_ij (BᵀB)_ij (AAᵀ)_ij`. It is a norm of weights and does
//! not depend on the module's inputs, so it does not measure how useful a layer is.

use std::collections::BTreeSet;

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};
use serde::Serialize;

use super::base_name;
use super::config::Scaling;
use super::embeddings::EmbeddingModule;
use super::module::Module;
use super::open::Adapter;
use super::runtimes::{RuntimeFacts, runtimes};
use super::weights::LoraWeights;
use crate::error::Result;
use crate::lora::Projection;

/// The facts of an adapter that are known without its base model.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The base model that its config names.
    pub base_model: Option<String>,
    /// The `model_type` of that base model, if its name shows an unsupported architecture. Such an adapter cannot be
    /// scored.
    pub unsupported_base: Option<&'static str>,
    /// The layers that have LoRA, ascending.
    pub layers: Vec<usize>,
    /// Names of the modules that have LoRA, such as `q_proj`, in the order of [`Projection::ALL`].
    pub modules: Vec<&'static str>,
    /// Distinct ranks, ascending.
    pub ranks: Vec<usize>,
    /// Distinct alphas, ascending.
    pub alphas: Vec<f64>,
    /// Distinct scales, ascending: alpha/r, or alpha/√r with `rank_stabilised`.
    pub scales: Vec<f64>,
    /// Whether the scale is alpha/√r (`use_rslora`).
    pub rank_stabilised: bool,
    /// Whether modules have trained magnitudes (DoRA).
    pub dora: bool,
    /// Embedding modules that have LoRA: `embed_tokens`, `lm_head`. `--embedding-lora` keeps or drops it.
    pub embedding_modules: Vec<&'static str>,
    /// Weights that were trained in full (`modules_to_save`), by their Hugging Face names.
    pub saved: Vec<String>,
    /// Dtypes of the stored tensors, such as `F32`.
    pub dtypes: Vec<&'static str>,
    /// Number of parameters in A and B of all modules of layers.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Whether every B is zero: the adapter was never trained, and has no effect.
    pub untrained: bool,
    /// Whether LoRA is only in consecutive layers above layer 0, so that a boundary drops most of it.
    pub only_upper_layers: bool,
    /// All LoRA modules, by layer.
    pub per_module: Vec<ModuleInspection>,
    /// Which runtimes can serve the adapter.
    pub runtimes: Vec<RuntimeFacts>,
}

/// The facts of one LoRA module.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModuleInspection {
    /// The layer, 0 next to the embedding.
    pub layer: usize,
    /// The module's name, such as `q_proj`.
    pub module: &'static str,
    /// The rank r.
    pub rank: usize,
    /// The alpha.
    pub alpha: f64,
    /// The scale s.
    pub scale: f64,
    /// Width of its input.
    pub in_features: usize,
    /// Width of its output.
    pub out_features: usize,
    /// Bytes of its tensors in the file.
    pub bytes: u64,
    /// Frobenius norm of the update, `‖s·B·A‖_F`.
    pub norm: f64,
}

/// Inspects an adapter. Reads all weights.
///
/// # Errors
/// The weight file can no longer be read.
pub fn inspect(adapter: &Adapter) -> Result<Inspection> {
    let modules: Vec<_> = adapter.modules.values().collect();
    let measured = |module: &Module| -> Result<(ModuleInspection, Zero)> {
        let weights = adapter.read(module)?;
        let zero = if weights.b.iter().all(|value| *value == 0.0) { Zero::Yes } else { Zero::No };
        let facts = ModuleInspection {
            layer: module.layer,
            module: module.projection.name(),
            rank: module.rank,
            alpha: module.alpha,
            scale: module.scale,
            in_features: module.in_features,
            out_features: module.out_features,
            bytes: module.bytes,
            norm: module.scale.abs() * product_norm(&weights),
        };
        Ok((facts, zero))
    };
    let measured = modules.clone().into_par_iter().map(measured).collect::<Result<Vec<_>>>()?;
    let untrained = measured.iter().all(|(_, zero)| *zero == Zero::Yes);
    let per_module: Vec<ModuleInspection> = measured.into_iter().map(|(facts, _)| facts).collect();
    let layers = adapter.layers();
    let contiguous = layers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let names: BTreeSet<_> = modules.iter().map(|module| module.projection).collect();
    let dtypes: BTreeSet<&'static str> =
        modules.iter().flat_map(|m| m.names.all()).filter_map(|name| adapter.tensors.dtype(name)).collect();
    let ranks: BTreeSet<usize> = modules.iter().map(|module| module.rank).collect();
    Ok(Inspection {
        base_model: adapter.config.base_model().map(str::to_owned),
        unsupported_base: adapter.config.base_model().and_then(base_name::unsupported_by_name),
        only_upper_layers: contiguous && layers.first().is_some_and(|lowest| *lowest > 0),
        layers,
        modules: names.into_iter().map(Projection::name).collect(),
        ranks: ranks.into_iter().collect(),
        alphas: distinct(modules.iter().map(|module| module.alpha)),
        scales: distinct(modules.iter().map(|module| module.scale)),
        rank_stabilised: adapter.config.scaling() == Scaling::RankStabilised,
        dora: adapter.config.use_dora(),
        embedding_modules: adapter.modules_on_embeddings().map(EmbeddingModule::name).collect(),
        saved: adapter.saved().map(str::to_owned).collect(),
        dtypes: dtypes.into_iter().collect(),
        parameters: modules.iter().map(|m| m.rank as u64 * (m.in_features as u64 + m.out_features as u64)).sum(),
        bytes: adapter.bytes(),
        untrained,
        per_module,
        runtimes: runtimes(adapter),
    })
}

/// Whether every value of a B is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zero {
    No,
    Yes,
}

/// `‖B·A‖_F`, without the scale.
fn product_norm(weights: &LoraWeights) -> f64 {
    let rank = weights.rank;
    let (input, out) = (weights.a.len() / rank, weights.b.len() / rank);
    let rows: Vec<&[f32]> = weights.a.chunks_exact(input).collect(); // rank rows of (in)
    let mut transposed = vec![0.0; weights.b.len()]; // (rank, out)
    for (o, row) in weights.b.chunks_exact(rank).enumerate() {
        for (r, value) in row.iter().enumerate() {
            transposed[r * out + o] = *value;
        }
    }
    let columns: Vec<&[f32]> = transposed.chunks_exact(out).collect(); // rank columns of (out)
    let mut sum = 0.0;
    for i in 0..rank {
        // Both Gram matrices are symmetric: each pair off the diagonal counts twice.
        sum += dot(rows[i], rows[i]) * dot(columns[i], columns[i]);
        for j in 0..i {
            sum += 2.0 * dot(rows[i], rows[j]) * dot(columns[i], columns[j]);
        }
    }
    // Rounding can make the sum slightly negative if terms cancel.
    sum.max(0.0).sqrt()
}

/// The inner product in f64, with eight partial sums that the compiler can keep in vector registers.
fn dot(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (x_chunks, y_chunks) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let tail: f64 =
        x_chunks.remainder().iter().zip(y_chunks.remainder()).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    for (x, y) in x_chunks.zip(y_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// The distinct values, ascending.
pub(super) fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gram_norm_is_the_norm_of_the_product() {
        // A = [[1, 2, 3], [0, -1, 1]] and B = [[1, 0], [2, 1]], so BA = [[1, 2, 3], [2, 3, 7]]: 14 + 62 = 76.
        let a = vec![1.0, 2.0, 3.0, 0.0, -1.0, 1.0];
        let b = vec![1.0, 0.0, 2.0, 1.0];
        let norm = product_norm(&LoraWeights { a, b, rank: 2, scale: 1.0, magnitude: None });
        assert!((norm - 76.0_f64.sqrt()).abs() < 1e-12, "{norm}");
    }

    #[test]
    fn a_product_that_cancels_has_norm_zero() {
        // Two equal rows of A and opposite columns of B.
        let weights =
            LoraWeights { a: vec![0.1, 0.7, 0.1, 0.7], b: vec![0.3, -0.3], rank: 2, scale: 1.0, magnitude: None };
        assert!(product_norm(&weights) < 1e-8);
    }

    #[test]
    fn a_long_inner_product_counts_its_tail() {
        let x: Vec<f32> = (0_u8..19).map(f32::from).collect();
        assert_eq!(dot(&x, &x), 2109.0); // 18·19·37/6
    }
}
