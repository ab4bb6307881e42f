//! Observers of the low-rank updates in a block.

use plimsoll_kernels::{Isa, Mode, Packed, Rows, Threads, Update, linear};

use crate::lora::Projection;

/// An observer that is called during the computation of a block. It does not change the result.
pub trait BlockObserver {
    /// Receives the low-rank activations `γ·s·A·x` of one row in one module: `(rank)`.
    fn low_rank(&mut self, projection: Projection, z: &[f32]);

    /// Receives a product of modules that share an input, after all of its low-rank activations.
    fn product(&mut self, product: &AdaptedProduct<'_>);
}

/// A product `W·x` with a LoRA update, of modules that share an input.
#[derive(Debug)]
pub struct AdaptedProduct<'a> {
    pub(super) isa: Isa,
    pub(super) x: &'a Rows,
    pub(super) w: &'a Packed,
    pub(super) update: Update<'a>,
    pub(super) threads: Threads,
    /// For each column, the module whose magnitudes (DoRA) rescale it; empty without DoRA.
    pub(super) rescaled: Vec<Option<Projection>>,
}

impl AdaptedProduct<'_> {
    /// Whether a module has magnitudes (DoRA), so that the update is more than `B·z`.
    pub fn is_rescaled(&self) -> bool {
        !self.rescaled.is_empty()
    }

    /// The change by the update of each element of the columns that magnitudes rescale, with the column's module.
    /// Computes two more products.
    pub fn changes(&self) -> impl Iterator<Item = (Projection, f32)> {
        let columns = self.w.columns();
        let [with, without] = [Some(self.update), None].map(|update| {
            let mut y = vec![0.0; self.x.rows() * columns];
            linear(self.isa, &mut y, self.x, self.w, update, Mode::Set, self.threads);
            y
        });
        let rescaled = (0..self.x.rows()).flat_map(move |_| self.rescaled.iter().take(columns));
        let numbers = with.into_iter().zip(without).zip(rescaled);
        numbers.filter_map(|((with, without), module)| module.map(|module| (module, with - without)))
    }
}
