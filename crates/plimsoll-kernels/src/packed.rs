//! The right factor of a product, packed once: frozen weights.

use std::ops::Range;

use rayon::prelude::*;

use crate::isa::{LANES, bf16_bits};
use crate::words::{Dtype, Line, Words, words_of_mut};

/// Columns of a panel: two vectors.
pub(crate) const PANEL: usize = 2 * LANES;

/// A weight matrix in panels of 32 outputs: for each word of inputs, the 32 outputs side by side, so that a product
/// walks over it once, from front to back.
///
/// Outputs are called columns here: `y = x · wᵀ` has one column for each. Those that fill up the last panel are zeros.
#[derive(Debug)]
pub struct Packed {
    pub(crate) dtype: Dtype,
    words: Words,
    inputs: usize,
    columns: usize,
    /// What is added to each column, as long as all panels; empty where nothing is.
    bias: Vec<f32>,
}

impl Packed {
    /// Packs `columns` columns of `inputs` numbers. `fill` writes one column's numbers, that is one row of a weight
    /// `(outputs, inputs)`; panels are packed in parallel on the current pool of threads.
    ///
    /// # Errors
    /// The first that `fill` gives.
    ///
    /// # Panics
    /// If `inputs` is 0.
    pub fn new<E: Send>(
        dtype: Dtype,
        columns: usize,
        inputs: usize,
        fill: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        assert!(inputs > 0, "a product over nothing");
        let panel_lines = dtype.words(inputs) * 2;
        let mut words = Words::zeros(columns.div_ceil(PANEL) * panel_lines * LANES);
        words.lines_mut().par_chunks_mut(panel_lines).enumerate().try_for_each_init(
            || vec![0.0; inputs * PANEL],
            |numbers, (panel, lines)| {
                let range = panel * PANEL..columns.min((panel + 1) * PANEL);
                for (column, numbers) in range.clone().zip(numbers.chunks_exact_mut(inputs)) {
                    fill(column, numbers)?;
                }
                numbers[range.len() * inputs..].fill(0.0);
                pack(dtype, words_of_mut(lines), numbers, inputs);
                Ok(())
            },
        )?;
        Ok(Self { dtype, words, inputs, columns, bias: Vec::new() })
    }

    /// Packs a matrix `(columns, inputs)` that lies in memory.
    ///
    /// # Panics
    /// If the length does not fit, or `inputs` is 0.
    pub fn from_rows(dtype: Dtype, w: &[f32], inputs: usize) -> Self {
        assert!(inputs > 0 && w.len().is_multiple_of(inputs), "lengths do not fit");
        let fill = |column: usize, numbers: &mut [f32]| {
            numbers.copy_from_slice(&w[column * inputs..][..inputs]);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(packed) = Self::new(dtype, w.len() / inputs, inputs, fill);
        packed
    }

    /// The same with a number for each column that every product with it adds to that column.
    ///
    /// # Panics
    /// If there is not one for each column.
    #[must_use]
    pub fn with_bias(mut self, mut bias: Vec<f32>) -> Self {
        assert_eq!(bias.len(), self.columns, "lengths do not fit");
        bias.resize(self.panels() * PANEL, 0.0);
        self.bias = bias;
        self
    }

    /// What is added to the columns of a panel, if anything is.
    #[inline(always)]
    pub(crate) fn bias(&self, panel: usize) -> Option<&[[f32; LANES]]> {
        self.bias.get(panel * PANEL..(panel + 1) * PANEL).map(|bias| bias.as_chunks().0)
    }

    /// Numbers of a column.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The same with those that fill up the last panel of 32.
    pub fn padded_columns(&self) -> usize {
        self.panels() * PANEL
    }

    pub(crate) fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Lines of one panel: two for each word of inputs.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> &[Line] {
        let lines = self.dtype.words(self.inputs) * 2;
        &self.words.lines()[panel * lines..][..lines]
    }

    /// Writes the numbers of one column, as they were packed.
    ///
    /// # Panics
    /// If there is no such column, or `out` is not as long as a column.
    pub fn unpack(&self, column: usize, out: &mut [f32]) {
        assert!(column < self.columns && out.len() == self.inputs, "lengths do not fit");
        let panel = self.panel(column / PANEL);
        let (half, lane) = (column % PANEL / LANES, column % LANES);
        let word = |at: usize| panel[2 * at + half].0[lane];
        match self.dtype {
            Dtype::F32 => out.iter_mut().enumerate().for_each(|(i, x)| *x = f32::from_bits(word(i))),
            Dtype::Bf16 => out.iter_mut().enumerate().for_each(|(i, x)| {
                *x = f32::from_bits(word(i / 2) >> (16 * (i % 2)) << 16);
            }),
        }
    }
}

/// Lays `numbers (PANEL, inputs)` out as a panel.
fn pack(dtype: Dtype, words: &mut [u32], numbers: &[f32], inputs: usize) {
    for (column, numbers) in numbers.chunks_exact(inputs).enumerate() {
        let words = words[column..].iter_mut().step_by(PANEL);
        match dtype {
            Dtype::F32 => words.zip(numbers).for_each(|(word, x)| *word = x.to_bits()),
            Dtype::Bf16 => words.zip(numbers.chunks(2)).for_each(|(word, pair)| {
                *word = bf16_bits(pair[0]) | pair.get(1).map_or(0, |x| bf16_bits(*x) << 16);
            }),
        }
    }
}

/// The second factor of low-rank updates, packed: the B of every LoRA module whose output goes into one product.
///
/// The modules' low-rank activations lie side by side in one row `z`; a panel of outputs reads only the stretch of `z`
/// that its own modules have.
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
    /// Its first line.
    line: usize,
}

/// Where a module's B stands in an update.
#[derive(Clone, Copy, Debug)]
pub struct UpdateModule<'a> {
    /// `(outputs, rank)`
    pub b: &'a [f32],
    /// Columns of `b`.
    pub rank: usize,
    /// Where its low-rank activations begin in `z`: an even number.
    pub at: usize,
}

impl PackedUpdate {
    /// Packs the update of a product with `columns` columns: `source` says, for each of them, which module's output it
    /// is and which row of that module's `b`; none where nothing is added to it.
    ///
    /// # Panics
    /// If a module begins at an odd number, or is not inside of `width`, the length of a row `z`.
    pub fn new(
        dtype: Dtype,
        columns: usize,
        width: usize,
        modules: &[UpdateModule<'_>],
        source: impl Fn(usize) -> Option<(usize, usize)>,
    ) -> Self {
        for module in modules {
            assert!(module.at.is_multiple_of(2) && module.at + module.rank <= width, "a module outside of its row");
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

    /// Numbers in a row `z`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The words of `z` that a panel reads, and its lines: two for each.
    #[inline(always)]
    pub(crate) fn panel(&self, panel: usize) -> (Range<usize>, &[Line]) {
        let UpdatePanel { z, line } = &self.panels[panel];
        (z.clone(), &self.words.lines()[*line..][..z.len() * 2])
    }

    pub(crate) fn panels(&self) -> usize {
        self.panels.len()
    }
}
