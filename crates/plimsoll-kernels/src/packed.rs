//! Packed right operands of a matrix product: frozen weights, and the B matrices of LoRA updates.

use std::ops::Range;

use rayon::prelude::*;

use crate::dtype::{Dtype, bf16_bits, bf16_word};
use crate::simd::LANES;
use crate::words::{Line, Words, words_of_mut};

/// Columns of a panel: two vectors.
pub(crate) const PANEL: usize = 2 * LANES;

/// Weight matrix packed into panels of 32 outputs, with an optional bias.
///
/// A panel stores, for each word of inputs, its 32 outputs contiguously, so that a product reads it once and in order.
/// The outputs are called columns: `y = x · wᵀ` has one column for each. The columns that pad the last panel are 0.
///
/// ```
/// use plimsoll_kernels::{Dtype, Packed};
///
/// let w = Packed::from_rows(Dtype::Bf16, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3); // (2 outputs, 3 inputs)
/// assert_eq!((w.columns(), w.inputs(), w.padded_columns()), (2, 3, 32));
/// let mut row = [0.0; 3];
/// w.unpack(1, &mut row);
/// assert_eq!(row, [4.0, 5.0, 6.0]);
/// ```
#[derive(Debug)]
pub struct Packed {
    pub(crate) dtype: Dtype,
    words: Words,
    inputs: usize,
    columns: usize,
    /// Bias of each column, padded to whole panels; empty without a bias.
    bias: Vec<f32>,
}

impl Packed {
    /// Packs a weight of shape `(columns, inputs)`, read row by row.
    ///
    /// `fill` writes one column of the packed matrix, which is one row of the weight: `inputs` values. Panels are
    /// packed in parallel on the current rayon pool.
    ///
    /// # Errors
    /// The first error of `fill`.
    ///
    /// # Panics
    /// If `inputs` is 0.
    pub fn new<E: Send>(
        dtype: Dtype,
        columns: usize,
        inputs: usize,
        fill: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        assert!(inputs > 0, "shape mismatch: a weight with {columns} outputs has 0 inputs");
        let panel_lines = dtype.words(inputs) * 2;
        let mut words = Words::zeros(columns.div_ceil(PANEL) * panel_lines * LANES);
        words.lines_mut().par_chunks_mut(panel_lines).enumerate().try_for_each_init(
            || vec![0.0; inputs * PANEL],
            |values, (panel, lines)| {
                let range = panel * PANEL..columns.min((panel + 1) * PANEL);
                for (column, values) in range.clone().zip(values.chunks_exact_mut(inputs)) {
                    fill(column, values)?;
                }
                values[range.len() * inputs..].fill(0.0);
                pack(dtype, words_of_mut(lines), values, inputs);
                Ok(())
            },
        )?;
        Ok(Self { dtype, words, inputs, columns, bias: Vec::new() })
    }

    /// Packs a weight of shape `(columns, inputs)` from memory.
    ///
    /// # Panics
    /// If `inputs` is 0, or the length of `w` is not a multiple of it.
    pub fn from_rows(dtype: Dtype, w: &[f32], inputs: usize) -> Self {
        assert!(
            inputs > 0 && w.len().is_multiple_of(inputs),
            "shape mismatch: {} weights are not whole rows of {inputs} inputs",
            w.len()
        );
        let fill = |column: usize, values: &mut [f32]| {
            values.copy_from_slice(&w[column * inputs..][..inputs]);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(packed) = Self::new(dtype, w.len() / inputs, inputs, fill);
        packed
    }

    /// Sets a bias `(columns)`, which every product with this weight adds to its columns.
    ///
    /// # Panics
    /// If the length of `bias` is not the number of columns.
    #[must_use]
    pub fn with_bias(mut self, mut bias: Vec<f32>) -> Self {
        assert_eq!(bias.len(), self.columns, "shape mismatch: bias and columns of the weight");
        bias.resize(self.panels() * PANEL, 0.0);
        self.bias = bias;
        self
    }

    /// The bias of the columns of a panel, if there is one.
    #[inline(always)]
    pub(crate) fn bias(&self, panel: usize) -> Option<&[[f32; LANES]]> {
        self.bias.get(panel * PANEL..(panel + 1) * PANEL).map(|bias| bias.as_chunks().0)
    }

    /// Number of inputs: values of a column.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Number of columns, which are the outputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of columns including those that pad the last panel: a multiple of 32.
    pub fn padded_columns(&self) -> usize {
        self.panels() * PANEL
    }

    pub(crate) fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// The lines of one panel: two for each word of inputs.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        let lines = self.dtype.words(self.inputs) * 2;
        &self.words.lines()[panel * lines..][..lines]
    }

    /// Reads one column back, `(inputs)`, as rounded to the dtype.
    ///
    /// # Panics
    /// If `column` is out of bounds, or the length of `out` is not the number of inputs.
    pub fn unpack(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.columns, "column {column} out of bounds: the weight has {}", self.columns);
        assert_eq!(out.len(), self.inputs, "shape mismatch: output and inputs of the weight");
        let panel = self.panel(column / PANEL);
        let (vector, lane) = (column % PANEL / LANES, column % LANES);
        let word = |at: usize| panel[2 * at + vector].0[lane];
        match self.dtype {
            Dtype::F32 => out.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from_bits(word(i))),
            Dtype::Bf16 => out.iter_mut().enumerate().for_each(|(i, x)| {
                *x = f32::from_bits(word(i / 2) >> (16 * (i % 2)) << 16);
            }),
        }
    }
}

/// Packs `values (PANEL, inputs)` into the words of a panel.
fn pack(dtype: Dtype, words: &mut [u32], values: &[f32], inputs: usize) {
    for (column, values) in values.chunks_exact(inputs).enumerate() {
        let words = words[column..].iter_mut().step_by(PANEL);
        match dtype {
            Dtype::F32 => words.zip(values).for_each(|(word, x)| *word = x.to_bits()),
            Dtype::Bf16 => words.zip(values.chunks(2)).for_each(|(word, pair)| *word = bf16_word(pair)),
        }
    }
}

/// Packed B matrices of all LoRA modules whose outputs are columns of one product.
///
/// A row of `z` holds the low-rank activations `A · x` of all these modules, one after the other. A panel of outputs
/// reads only the part of `z` that belongs to its own modules.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, Mode, Packed, PackedUpdate, Rows, Threads, Update, UpdateModule, linear};
///
/// let isa = Isa::best();
/// let rows_of = |x: &[f32], width: usize| {
///     let mut rows = Rows::new(Dtype::F32);
///     rows.resize(x.len() / width, width);
///     rows.write(isa, 0, x);
///     rows
/// };
/// let module = UpdateModule { b: &[10.0, 20.0], rank: 1, at: 0 }; // (2 outputs, rank 1)
/// let b = PackedUpdate::new(Dtype::F32, 2, 1, &[module], |column| Some((0, column)));
/// let z = rows_of(&[0.5, 0.0], 1); // (2 rows, rank 1)
///
/// let w = Packed::from_rows(Dtype::F32, &[3.0, 4.0], 1); // (2 outputs, 1 input)
/// let x = rows_of(&[1.0, 1.0], 1); // (2 rows, 1 input)
/// let mut y = [0.0; 4];
/// let update = Update { z: &z, b: &b, rows: &[0..1], factors: &[] }; // for the first row only
/// linear(isa, &mut y, &x, &w, Some(update), Mode::Set, Threads::One);
/// assert_eq!(y, [8.0, 14.0, 3.0, 4.0]);
/// ```
#[derive(Debug)]
pub struct PackedUpdate {
    pub(crate) dtype: Dtype,
    words: Words,
    panels: Vec<UpdatePanel>,
    width: usize,
}

#[derive(Clone, Debug)]
struct UpdatePanel {
    /// Words of `z` that the panel reads.
    z: Range<usize>,
    /// Index of its first line.
    line: usize,
}

/// The B matrix of one LoRA module, and the position of the module's activations in a row of `z`.
#[derive(Clone, Copy, Debug)]
pub struct UpdateModule<'a> {
    /// B, `(outputs, rank)`.
    pub b: &'a [f32],
    /// Rank of the module.
    pub rank: usize,
    /// Index in a row of `z` where the module's low-rank activations begin. Even, because a word holds two `bf16`.
    pub at: usize,
}

impl PackedUpdate {
    /// Packs the update of a product with `columns` columns. `width` is the length of a row of `z`.
    ///
    /// `source` maps a column to the module that it is an output of, and to the row of that module's `b`. It returns
    /// `None` for a column without an update.
    ///
    /// # Panics
    /// If a module begins at an odd index or does not end within `width`, or `source` returns a module or row that does
    /// not exist.
    pub fn new(
        dtype: Dtype,
        columns: usize,
        width: usize,
        modules: &[UpdateModule<'_>],
        source: impl Fn(usize) -> Option<(usize, usize)>,
    ) -> Self {
        for UpdateModule { at, rank, .. } in modules {
            assert!(
                at.is_multiple_of(2) && at + rank <= width,
                "a module of rank {rank} at {at} of z: expected an even index, and an end within the width {width}"
            );
        }
        let mut words = Words::default();
        let mut panels = Vec::with_capacity(columns.div_ceil(PANEL));
        for panel in 0..columns.div_ceil(PANEL) {
            let columns = panel * PANEL..columns.min((panel + 1) * PANEL);
            let sources: Vec<_> = columns.map(&source).collect();
            let used = || sources.iter().flatten().map(|&(module, _)| modules[module]);
            let start = used().map(|module| dtype.words(module.at)).min().unwrap_or(0);
            let end = used().map(|module| dtype.words(module.at + module.rank)).max().unwrap_or(0);
            let line = words.lines().len();
            words.grow((line + (end - start) * 2) * LANES);
            let words = words_of_mut(&mut words.lines_mut()[line..]);
            for (column, source) in sources.iter().enumerate() {
                let Some((module, row)) = *source else { continue };
                let UpdateModule { b, rank, at } = modules[module];
                for (i, x) in b[row * rank..][..rank].iter().enumerate() {
                    let at = at + i;
                    match dtype {
                        Dtype::F32 => words[(at - start) * PANEL + column] = x.to_bits(),
                        Dtype::Bf16 => words[(at / 2 - start) * PANEL + column] |= bf16_bits(*x) << (16 * (at % 2)),
                    }
                }
            }
            panels.push(UpdatePanel { z: start..end, line });
        }
        Self { dtype, words, panels, width }
    }

    /// Number of values in a row of `z`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The words of `z` that a panel reads, and the lines of the panel: two for each of these words.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> (Range<usize>, &[Line]) {
        let UpdatePanel { z, line } = &self.panels[panel];
        (z.clone(), &self.words.lines()[*line..][..z.len() * 2])
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{rounded, values};

    fn weights() -> impl Strategy<Value = (usize, Vec<f32>)> {
        (1_usize..20, 1_usize..80).prop_flat_map(|(inputs, columns)| (Just(inputs), values(inputs * columns)))
    }

    proptest! {
        #[test]
        fn unpack_returns_what_was_packed((inputs, w) in weights()) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let packed = Packed::from_rows(dtype, &w, inputs);
                let mut column = vec![0.0; inputs];
                for (at, w) in w.chunks(inputs).enumerate() {
                    packed.unpack(at, &mut column);
                    assert!(column.iter().zip(w).all(|(&found, &w)| f64::from(found) == rounded(dtype, w)));
                }
            }
        }
    }
}
