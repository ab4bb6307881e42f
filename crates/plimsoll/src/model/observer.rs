//! An observer of a pass through a block: it sees low-rank updates, and changes nothing.

use plimsoll_kernels::{Isa, Mode, Packed, Rows, Threads, Update, linear};

use crate::lora::Projection;

/// Called while a block is computed.
pub trait BlockObserver {
    /// The low-rank activations `γ·s·A·x` of one row in one module: `(rank)`.
    fn low_rank(&mut self, projection: Projection, z: &[f32]);

    /// A product of the modules with one input, after all its low-rank activations.
    fn product(&mut self, product: &AdaptedProduct<'_>);
}

/// A product `W·x` with an update, of modules that share their input.
#[derive(Debug)]
pub struct AdaptedProduct<'a> {
    pub(super) isa: Isa,
    pub(super) x: &'a Rows,
    pub(super) w: &'a Packed,
    pub(super) update: Update<'a>,
    pub(super) threads: Threads,
    /// For each column, the module whose magnitudes (DoRA) rescale it; empty where none has magnitudes.
    pub(super) rescaled: Vec<Option<Projection>>,
}

impl AdaptedProduct<'_> {
    /// Whether any module has magnitudes, so that the update is more than `B·z`.
    pub fn is_rescaled(&self) -> bool {
        !self.rescaled.is_empty()
    }

    /// By how much the update changes each number of the columns that magnitudes rescale, with the column's module. It
    /// takes two products of its own.
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
