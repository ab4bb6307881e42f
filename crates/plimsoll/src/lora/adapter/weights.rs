//! Weights of LoRA modules in `f32`.

use crate::lora::projection::Projection;

/// The weights of one LoRA module in `f32`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraWeights {
    /// The factor A.
    pub a: Vec<f32>, // (rank, in)
    /// The factor B.
    pub b: Vec<f32>, // (out, rank)
    /// The rank r.
    pub rank: usize,
    /// The scale s in `y = Wx + s·B(Ax)`.
    pub scale: f32,
    /// The magnitudes m of DoRA (arXiv:2402.09353): a row `w` of `W + s·BA` is applied as `m·w/‖w‖`. `None` without
    /// DoRA.
    pub magnitude: Option<Vec<f32>>, // (out)
}

impl LoraWeights {
    /// Turns a row `w` of the base weight into the row of `W + s·B·A`; with DoRA, rescaled to its magnitude.
    pub(crate) fn add_to(&self, row: usize, w: &mut [f32]) {
        let b = &self.b[row * self.rank..(row + 1) * self.rank];
        for (b, a) in b.iter().zip(self.a.chunks_exact(w.len())) {
            w.iter_mut().zip(a).for_each(|(w, a)| *w += self.scale * b * a);
        }
        if let Some(magnitude) = &self.magnitude {
            let norm = w.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
            w.iter_mut().for_each(|w| *w *= (f64::from(magnitude[row]) / norm) as f32);
        }
    }
}

/// The LoRA of one layer, indexed by `Projection as usize`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerLora(pub [Option<LoraWeights>; Projection::COUNT]);

impl LayerLora {
    /// The LoRA of one module; `None` if it has none.
    pub fn get(&self, projection: Projection) -> Option<&LoraWeights> {
        self.0[projection as usize].as_ref()
    }
}

/// The transpose of a row-major matrix with this number of rows.
pub(super) fn transposed(x: &[f32], rows: usize) -> Vec<f32> {
    let columns = x.len() / rows.max(1);
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_transposed() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
