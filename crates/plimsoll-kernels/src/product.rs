//! Matrix products with packed weights: linear layers with LoRA updates, and gated MLP activations.
//!
//! A register tile of rows × 32 columns accumulates over all inputs. It passes its sums to an [`Epilogue`] while they
//! are in registers: the epilogue stores them, adds them to the destination, applies a gated activation, or reduces
//! them to a log-sum-exp. The inputs are not blocked: a panel of 8,192 `bf16` inputs is 512 KiB and stays in the L2
//! cache. The L2 cache has several times the bandwidth that is needed to load two lines for each step of 24
//! multiply-adds.
//!
//! With AMX, `bf16` sums come from blocks of 32 rows in tile registers, and pass through the L1 cache to the same
//! epilogues.
//!
//! Each sum is accumulated in the order of the inputs, by the same instructions for any number of rows, columns or
//! threads. So a row's result depends only on the row and the weights, to the last bit.

use std::ops::Range;

use crate::dtype::Dtype;
use crate::isa::Isa;
use crate::packed::{PANEL, Packed, PackedUpdate};
use crate::simd::{BLOCK_ROWS, Kernel, LANES, Simd, exp};
use crate::threads::{SendPtr, Threads, for_each_range};
use crate::tile::{Bf16, Block, Dot, F32, Operand, dispatch_rows, multiply, multiply_prefetching, tiles};
use crate::words::{Line, Rows};

/// Whether a product overwrites its destination or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `y = x · wᵀ`
    Set,
    /// `y += x · wᵀ`
    Add,
}

/// Activation function of a gated MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Sigmoid linear unit, `x · σ(x)` (Elfwing et al., arXiv:1702.03118).
    Silu,
    /// GELU with the tanh approximation, `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))` (Hendrycks and Gimpel,
    /// arXiv:1606.08415).
    GeluTanh,
}

/// LoRA update `z · bᵀ` that is added to a product, for some of its rows.
///
/// See [`PackedUpdate`] for an example.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Low-rank activations: one row for each row of the product. Values between two modules have to be finite, because
    /// they are multiplied by 0.
    pub z: &'a Rows,
    /// Packed B matrices.
    pub b: &'a PackedUpdate,
    /// Disjoint ranges of rows that have the update, ascending. Rows of `z` outside them are not read.
    pub rows: &'a [Range<usize>],
    /// Column scales of DoRA (arXiv:2402.09353), one row of [`Packed::padded_columns`] values for each range; empty for
    /// no scaling. The product is multiplied by them before the update and the bias are added. A panel of 32 columns
    /// without any module is not scaled.
    pub factors: &'a [f32], // (ranges, padded columns)
}

/// Linear layer: `y (rows, columns) = x (rows, inputs) · wᵀ`, plus the LoRA update and the bias of `w`.
///
/// ```
/// use plimsoll_kernels::{Dtype, Isa, Mode, Packed, Rows, Threads, linear};
///
/// let isa = Isa::best();
/// let w = Packed::from_rows(Dtype::Bf16, &[3.0, 4.0, 5.0, 6.0], 2).with_bias(vec![0.5, 0.0]); // (2 outputs, 2 inputs)
/// let mut x = Rows::new(Dtype::Bf16);
/// x.resize(1, 2);
/// x.write(isa, 0, &[1.0, 2.0]);
/// let mut y = [100.0; 2]; // (1 row, 2 outputs)
/// linear(isa, &mut y, &x, &w, None, Mode::Add, Threads::All);
/// assert_eq!(y, [111.5, 117.0]);
/// ```
///
/// # Panics
/// If dimensions or dtypes do not match.
pub fn linear(isa: Isa, y: &mut [f32], x: &Rows, w: &Packed, update: Option<Update<'_>>, mode: Mode, threads: Threads) {
    linear_rows(isa, y, x, 0..x.rows(), w, update, mode, threads);
}

/// [`linear`] for a range of the rows of `x`: `y` has the shape `(rows.len(), columns)`.
///
/// # Panics
/// If dimensions or dtypes do not match, or there is an update and `rows` are not all rows of `x`.
#[allow(clippy::too_many_arguments, reason = "a product has that many operands")]
pub fn linear_rows(
    isa: Isa,
    y: &mut [f32],
    x: &Rows,
    rows: Range<usize>,
    w: &Packed,
    update: Option<Update<'_>>,
    mode: Mode,
    threads: Threads,
) {
    assert_eq!(
        y.len(),
        rows.len() * w.columns(),
        "shape mismatch: y has to be ({} rows, {} columns)",
        rows.len(),
        w.columns()
    );
    let y = SendPtr(y.as_mut_ptr());
    for_each_range(w.panels(), threads, |panels| {
        // The closure has to capture the wrapper, which is `Send`, and not the pointer in it.
        let SendPtr(y) = { y };
        let epilogue = Store { y, columns: w.columns(), mode };
        isa.run(Product::new(x, rows.clone(), w, panels, update, epilogue));
    });
}

/// Gated MLP activations: `y (rows, columns / 2) = f(gate) · up` (Shazeer, arXiv:2002.05202).
///
/// `gate` and `up` are computed by one product. The columns of `w` are interleaved: 16 of the gate projection, 16 of
/// the up projection, and so on. `y` may be up to 15 columns narrower, which leaves out columns of padding.
///
/// ```
/// use plimsoll_kernels::{Activation, Dtype, Isa, Mode, Packed, Rows, Threads, gated, linear};
///
/// let isa = Isa::best();
/// let w: Vec<f32> = [[2.0; 16], [3.0; 16]].concat(); // 16 outputs of the gate, 16 of the up projection
/// let w = Packed::from_rows(Dtype::F32, &w, 1); // (32 outputs, 1 input)
/// let mut x = Rows::new(Dtype::F32);
/// x.resize(1, 1);
/// x.write(isa, 0, &[1.0]);
/// let mut hidden = Rows::new(Dtype::F32);
/// hidden.resize(1, 16);
/// gated(isa, &mut hidden, &x, &w, Activation::Silu, None, Threads::One);
///
/// let down = Packed::from_rows(Dtype::F32, &[1.0; 16], 16); // (1 output, 16 inputs)
/// let mut y = [0.0];
/// linear(isa, &mut y, &hidden, &down, None, Mode::Set, Threads::One);
/// let silu = |x: f32| x / (1.0 + (-x).exp());
/// assert!((y[0] - 16.0 * silu(2.0) * 3.0).abs() < 1e-4);
/// ```
///
/// # Panics
/// If dimensions or dtypes do not match, or the number of columns is not a multiple of 32.
pub fn gated(
    isa: Isa,
    y: &mut Rows,
    x: &Rows,
    w: &Packed,
    activation: Activation,
    update: Option<Update<'_>>,
    threads: Threads,
) {
    let columns = w.columns();
    assert!(
        columns.is_multiple_of(PANEL),
        "shape mismatch: {columns} columns are not pairs of 16 gate and 16 up columns"
    );
    assert!(
        y.rows() == x.rows() && y.width() <= columns / 2 && y.width() + LANES > columns / 2,
        "shape mismatch: y is ({}, {}), expected ({}, {})",
        y.rows(),
        y.width(),
        x.rows(),
        columns / 2
    );
    let (dtype, stride, width) = (y.dtype, y.stride, y.width());
    let y = SendPtr(y.words.as_mut_slice().as_mut_ptr());
    for_each_range(w.panels(), threads, |panels| {
        let SendPtr(y) = { y };
        let epilogue = Gate { y, dtype, stride, width, activation };
        isa.run(Product::new(x, 0..x.rows(), w, panels, update, epilogue));
    });
}

/// Operation on the sums of a register tile, while they are in registers.
pub(crate) trait Epilogue {
    /// Processes the sums of rows `row..row + R` (counted from the first row of the product) and of the 32 columns of
    /// one panel.
    fn apply<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]);
}

/// A matrix product on one thread: some rows of `x`, some panels of `w`.
pub(crate) struct Product<'a, E> {
    x: Operand,
    rows: usize,
    dtype: Dtype,
    w: &'a Packed,
    panels: Range<usize>,
    update: Option<Update<'a>>,
    epilogue: E,
}

impl<'a, E: Epilogue> Product<'a, E> {
    /// The product of rows `rows` of `x` and panels `panels` of `w`.
    ///
    /// # Panics
    /// If dimensions or dtypes do not match.
    pub(crate) fn new(
        x: &'a Rows,
        rows: Range<usize>,
        w: &'a Packed,
        panels: Range<usize>,
        update: Option<Update<'a>>,
        epilogue: E,
    ) -> Self {
        assert!(rows.start <= rows.end && rows.end <= x.rows(), "rows {rows:?} out of bounds: x has {}", x.rows());
        assert_eq!(x.width(), w.inputs(), "shape mismatch: width of x and inputs of w");
        assert_eq!(x.dtype, w.dtype, "dtype mismatch: x and w");
        assert!(panels.end <= w.panels(), "panels {panels:?} out of bounds: w has {}", w.panels());
        if let Some(update) = update {
            assert_eq!(rows, 0..x.rows(), "a product with an update has to include all rows of x");
            check_update(update, x, w);
        }
        let words = x.words.as_slice()[(rows.start * x.stride).min(x.words.as_slice().len())..].as_ptr();
        let x = Operand { words, stride: x.stride };
        Self { x, rows: rows.len(), dtype: w.dtype, w, panels, update, epilogue }
    }

    #[inline(always)]
    fn run_dtype<S: Simd, D: Dot>(&mut self, s: S) {
        if Block::is_used::<S, D>() {
            return self.run_blocks::<S, D>(s);
        }
        for panel in self.panels.clone() {
            // The tiles of a panel prefetch the next panel, each an equal share of it.
            let next = if panel + 1 < self.panels.end { self.w.panel(panel + 1) } else { &[] };
            let share = next.len().div_ceil(self.rows.div_ceil(S::ROWS).max(1)).next_multiple_of(2);
            let mut next = next.chunks(share.max(2));
            for (row, rows) in tiles(self.rows, S::ROWS) {
                let next = next.next().unwrap_or_default();
                dispatch_rows!(rows, S::ROWS, R => self.tile::<S, D, R>(s, row, panel, next));
            }
        }
    }

    /// The product in blocks of rows.
    #[inline(always)]
    fn run_blocks<S: Simd, D: Dot>(&mut self, s: S) {
        let mut block = Block::new();
        for panel in self.panels.clone() {
            for first in (0..self.rows).step_by(BLOCK_ROWS) {
                let rows = BLOCK_ROWS.min(self.rows - first);
                // SAFETY: as in `tile`, for rows `first..first + rows`.
                #[allow(unsafe_code)]
                unsafe {
                    block.multiply(s, self.operand(first), rows, self.w.panel(panel));
                }
                for (row, rows) in tiles(rows, S::ROWS) {
                    dispatch_rows!(rows, S::ROWS, R => self.block_tile::<S, D, R>(s, &block, first, row, panel));
                }
            }
        }
        s.end_blocks();
    }

    /// Passes rows `row..row + R` of a block to the epilogue. The block begins at row `first`.
    #[inline(always)]
    fn block_tile<S: Simd, D: Dot, const R: usize>(
        &mut self,
        s: S,
        block: &Block,
        first: usize,
        row: usize,
        panel: usize,
    ) {
        // SAFETY: as in `tile`, for rows `first + row..first + row + R`.
        #[allow(unsafe_code)]
        let sums = unsafe { block.sums::<S, D, R>(s, row, self.operand(first + row), self.w.panel(panel)) };
        self.finish::<S, D, R>(s, first + row, panel, sums);
    }

    /// The words of `x` from a row on.
    ///
    /// # Safety
    /// There must be such a row.
    #[inline(always)]
    #[allow(unsafe_code)]
    unsafe fn operand(&self, row: usize) -> Operand {
        // SAFETY: as above.
        Operand { words: unsafe { self.x.words.add(row * self.x.stride) }, stride: self.x.stride }
    }

    #[inline(always)]
    fn tile<S: Simd, D: Dot, const R: usize>(&mut self, s: S, row: usize, panel: usize, next: &[Line]) {
        let mut sums = [[s.splat(0.0); 2]; R];
        // SAFETY: rows `row..row + R` are rows of `x`, as `new` checked. `x` and the panel have the same dtype and
        // number of inputs, so a row has as many words as the panel has pairs of lines.
        #[allow(unsafe_code)]
        unsafe {
            let a = self.operand(row);
            let (prefetching, rest) = self.w.panel(panel).split_at(next.len());
            multiply_prefetching::<S, D, R>(s, &mut sums, a, prefetching, next);
            let a = Operand { words: a.words.add(next.len() / 2), ..a };
            multiply::<S, D, R>(s, &mut sums, a, rest);
        }
        self.finish::<S, D, R>(s, row, panel, sums);
    }

    /// Adds update and bias to the sums of a tile, and passes them to the epilogue.
    #[inline(always)]
    fn finish<S: Simd, D: Dot, const R: usize>(&mut self, s: S, row: usize, panel: usize, mut sums: [[S::F; 2]; R]) {
        if let Some(update) = self.update {
            self.add_update::<S, D, R>(s, &mut sums, row, panel, update);
        }
        if let Some(&[left, right]) = self.w.bias(panel).and_then(<[_]>::first_chunk) {
            let bias = [s.load(&left), s.load(&right)];
            for sum in &mut sums {
                *sum = [s.add(sum[0], bias[0]), s.add(sum[1], bias[1])];
            }
        }
        self.epilogue.apply::<S, R>(s, row, panel, &sums);
    }

    /// Scales the sums of the tile's rows that have an update, and adds the update to them.
    #[inline(always)]
    fn add_update<S: Simd, D: Dot, const R: usize>(
        &self,
        s: S,
        sums: &mut [[S::F; 2]; R],
        row: usize,
        panel: usize,
        Update { z, b, rows: ranges, factors }: Update<'_>,
    ) {
        let (words, b) = b.panel(panel);
        if b.is_empty() {
            return;
        }
        let operand = |row: usize| {
            let words = z.words.as_slice()[row * z.stride + words.start..].as_ptr();
            Operand { words, stride: z.stride }
        };
        let first = ranges.partition_point(|range| range.end <= row);
        for (index, range) in ranges.iter().enumerate().skip(first).take_while(|(_, range)| range.start < row + R) {
            let factors = factors.chunks_exact(self.w.panels() * PANEL).nth(index);
            if let Some(&[left, right]) =
                factors.and_then(|factors| factors[panel * PANEL..].as_chunks().0.first_chunk())
            {
                let factors = [s.load(&left), s.load(&right)];
                for sums in &mut sums[range.start.max(row) - row..range.end.min(row + R) - row] {
                    *sums = [s.mul(sums[0], factors[0]), s.mul(sums[1], factors[1])];
                }
            }
            if range.start <= row && row + R <= range.end {
                // SAFETY: `z` has a row for each row of the product, as `new` checked, and `words` are words of such a
                // row, as `PackedUpdate::new` checked.
                #[allow(unsafe_code)]
                unsafe {
                    multiply::<S, D, R>(s, sums, operand(row), b);
                }
            } else {
                for at in range.start.max(row)..range.end.min(row + R) {
                    let mut one = [sums[at - row]];
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply::<S, D, 1>(s, &mut one, operand(at), b);
                    }
                    [sums[at - row]] = one;
                }
            }
        }
    }
}

impl<E: Epilogue> Kernel for Product<'_, E> {
    type Output = E;
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> E {
        match self.dtype {
            Dtype::F32 => self.run_dtype::<S, F32>(s),
            Dtype::Bf16 => self.run_dtype::<S, Bf16>(s),
        }
        self.epilogue
    }
}

/// Checks that an update matches the product of `x` and `w` in dimensions and dtypes.
///
/// # Panics
/// If it does not.
fn check_update(Update { z, b, rows: ranges, factors }: Update<'_>, x: &Rows, w: &Packed) {
    assert_eq!(z.rows(), x.rows(), "shape mismatch: rows of z and of x");
    assert_eq!(b.panels(), w.panels(), "shape mismatch: panels of the update and of w");
    assert_eq!(z.width(), b.width(), "shape mismatch: width of z and of the update");
    assert!(z.dtype == w.dtype && b.dtype == w.dtype, "dtype mismatch: z, update and w");
    for range in ranges {
        assert!(range.start <= range.end && range.end <= z.rows(), "rows {range:?} out of bounds: z has {}", z.rows());
    }
    assert!(
        factors.is_empty() || factors.len() == ranges.len() * w.padded_columns(),
        "shape mismatch: {} factors, expected ({} ranges, {} padded columns)",
        factors.len(),
        ranges.len(),
        w.padded_columns()
    );
}

/// Epilogue of [`linear`]: stores the sums, or adds them to the destination.
struct Store {
    y: *mut f32,
    columns: usize,
    mode: Mode,
}

impl Epilogue for Store {
    #[inline(always)]
    fn apply<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        for (r, sums) in sums.iter().enumerate() {
            for (vector, &sum) in sums.iter().enumerate() {
                let column = panel * PANEL + vector * LANES;
                let columns = self.columns.saturating_sub(column).min(LANES);
                // SAFETY: `y` has as many rows as the product, of `columns` values each, as `linear_rows` checked. The
                // slice is within one row and one panel, and no other thread writes to this panel.
                #[allow(unsafe_code)]
                let y = unsafe {
                    std::slice::from_raw_parts_mut(
                        self.y.add((row + r) * self.columns + column.min(self.columns)),
                        columns,
                    )
                };
                if let Ok(y) = <&mut [f32; LANES]>::try_from(&mut *y) {
                    let sum = match self.mode {
                        Mode::Set => sum,
                        Mode::Add => s.add(s.load(y), sum),
                    };
                    s.store(y, sum);
                } else {
                    let mut lanes = [0.0; LANES];
                    s.store(&mut lanes, sum);
                    for (y, sum) in y.iter_mut().zip(lanes) {
                        *y = match self.mode {
                            Mode::Set => sum,
                            Mode::Add => *y + sum,
                        };
                    }
                }
            }
        }
    }
}

/// 2 · √(2/π)
const GELU_SLOPE: f32 = 2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// Epilogue of [`gated`]: `f(gate) · up`, where a panel is one vector of the gate and one of the up projection.
struct Gate {
    y: *mut u32,
    dtype: Dtype,
    stride: usize,
    width: usize,
    activation: Activation,
}

impl Epilogue for Gate {
    #[inline(always)]
    fn apply<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        let column = panel * LANES;
        let columns = self.width.saturating_sub(column).min(LANES);
        for (r, &[gate, up]) in sums.iter().enumerate() {
            let one = s.splat(1.0);
            // Both activations are x · σ(t), because (1 + tanh u) / 2 = σ(2u).
            let t = match self.activation {
                Activation::Silu => gate,
                Activation::GeluTanh => {
                    let square = s.mul(gate, gate);
                    s.mul(gate, s.fma(square, s.splat(GELU_SLOPE * 0.044_715), s.splat(GELU_SLOPE)))
                }
            };
            let e = exp(s, s.sub(s.splat(0.0), t));
            let gated = s.mul(s.div(gate, s.add(one, e)), up);
            let (at, words) = (self.dtype.words(column), self.dtype.words(columns));
            // SAFETY: `y` has as many rows as the product, `stride` words apart, of `width` values, as `gated` checked.
            // 16 values are a whole number of words, so no other panel has words of the slice.
            #[allow(unsafe_code)]
            let y = unsafe { std::slice::from_raw_parts_mut(self.y.add((row + r) * self.stride + at), words) };
            let mut lanes = [0.0; LANES];
            match self.dtype {
                Dtype::F32 => {
                    s.store(&mut lanes, gated);
                    for (y, x) in y.iter_mut().zip(lanes) {
                        *y = x.to_bits();
                    }
                }
                Dtype::Bf16 => {
                    for (y, x) in y.iter_mut().zip(s.to_bf16(gated)) {
                        *y = x;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packed::UpdateModule;
    use crate::testing::{assert_close, decode, each_isa, rounded, rows_of, values};

    /// Tolerance for sums of 70 products below 4 in `f32`: their rounding error is below 1e-5 of them.
    const ROUNDING: f64 = 1e-5;

    /// `x · wᵀ` in `f64`, of operands that are rounded to the dtype.
    fn reference(dtype: Dtype, x: &[f32], w: &[f32], inputs: usize) -> Vec<f64> {
        x.chunks(inputs)
            .flat_map(|x| {
                w.chunks(inputs)
                    .map(move |w| x.iter().zip(w).map(|(&x, &w)| rounded(dtype, x) * rounded(dtype, w)).sum())
            })
            .collect()
    }

    /// An update by two modules of odd rank, for the first and the third quarter of the columns, in every third row.
    struct TwoModules {
        z: Vec<f32>,
        b: PackedUpdate,
        rows: Vec<Range<usize>>,
        dense: Vec<f32>,
        factors: Vec<f32>,
    }

    impl TwoModules {
        const RANKS: [usize; 2] = [3, 5];
        const WIDTH: usize = 10;

        fn source(columns: usize, column: usize) -> Option<(usize, usize)> {
            let quarter = columns.div_ceil(4).max(1);
            match column / quarter {
                0 => Some((0, column % quarter)),
                2 => Some((1, column % quarter)),
                _ => None,
            }
        }

        fn new(dtype: Dtype, rows: usize, columns: usize, values: &[f32]) -> Self {
            let value = |i: usize| values[i % values.len()];
            let b = Self::RANKS.map(|rank| (0..columns * rank).map(|i| value(i * 7 + rank)).collect::<Vec<f32>>());
            let modules = [(0, 0), (1, 4)].map(|(i, at)| UpdateModule { b: &b[i], rank: Self::RANKS[i], at });
            let packed =
                PackedUpdate::new(dtype, columns, Self::WIDTH, &modules, |column| Self::source(columns, column));
            let mut z: Vec<f32> = (0..rows * Self::WIDTH).map(|i| value(i * 11)).collect();
            // Rows without an update are not read. The padding between modules is multiplied by 0, so it has to be
            // finite.
            for (row, z) in z.chunks_mut(Self::WIDTH).enumerate() {
                if row % 3 != 0 {
                    z.fill(f32::NAN);
                }
                z[3] = 0.0;
                z[9] = 0.0;
            }
            let mut dense = vec![0.0; rows * columns];
            for (row, dense) in dense.chunks_mut(columns.max(1)).enumerate().filter(|(row, _)| row % 3 == 0) {
                for (column, dense) in dense.iter_mut().enumerate() {
                    if let Some((module, from)) = Self::source(columns, column) {
                        let UpdateModule { b, rank, at } = modules[module];
                        let z = &z[row * Self::WIDTH + at..];
                        let sum: f64 =
                            (0..rank).map(|i| rounded(dtype, z[i]) * rounded(dtype, b[from * rank + i])).sum();
                        *dense = sum as f32;
                    }
                }
            }
            let rows: Vec<Range<usize>> = (0..rows).step_by(3).map(|row| row..row + 1).collect();
            let padded = columns.div_ceil(PANEL) * PANEL;
            let is_used = |panel: usize| !packed.panel(panel).1.is_empty();
            // A panel without a module is not scaled.
            let factor = |i: usize| if is_used(i % padded / PANEL) { value(i * 13) } else { 1.0 };
            let factors = (0..rows.len() * padded).map(factor).collect();
            Self { z, b: packed, rows, dense, factors }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn linear_agrees_with_the_definition(
            (rows, inputs, columns, x, w, y) in (0_usize..40, 1_usize..70, 1_usize..100).prop_flat_map(|(m, k, n)| {
                (Just(m), Just(k), Just(n), values(m * k), values(n * k), values(m * n))
            })
        ) {
            each_isa(|isa, dtype| {
                let (operand, packed) = (rows_of(isa, dtype, &x, rows, inputs), Packed::from_rows(dtype, &w, inputs));
                let expected = reference(dtype, &x, &w, inputs);
                let mut set = vec![f32::NAN; rows * columns];
                linear(isa, &mut set, &operand, &packed, None, Mode::Set, Threads::One);
                assert_close(&set, &expected, ROUNDING);

                let two = TwoModules::new(dtype, rows, columns, &w);
                let z = rows_of(isa, dtype, &two.z, rows, TwoModules::WIDTH);
                let plain_update = Update { z: &z, b: &two.b, rows: &two.rows, factors: &[] };
                let update = Some(plain_update);
                let mut added = y.clone();
                linear(isa, &mut added, &operand, &packed, update, Mode::Add, Threads::One);
                let sum = |i: usize| expected[i] + f64::from(y[i]) + f64::from(two.dense[i]);
                assert_close(&added, &(0..y.len()).map(sum).collect::<Vec<_>>(), ROUNDING);

                let bias: Vec<f32> = w.iter().cycle().take(columns).copied().collect();
                let biased = Packed::from_rows(dtype, &w, inputs).with_bias(bias.clone());
                let update_too = Some(Update { factors: &two.factors, ..plain_update });
                let mut scaled = y.clone();
                linear(isa, &mut scaled, &operand, &biased, update_too, Mode::Add, Threads::One);
                let padded = columns.div_ceil(PANEL) * PANEL;
                let sum = |i: usize| {
                    let (row, column) = (i / columns, i % columns);
                    let factor = if row % 3 == 0 { two.factors[row / 3 * padded + column] } else { 1.0 };
                    let added = f64::from(y[i]) + f64::from(two.dense[i]) + f64::from(bias[column]);
                    f64::from(factor) * expected[i] + added
                };
                assert_close(&scaled, &(0..y.len()).map(sum).collect::<Vec<_>>(), 2.0 * ROUNDING);

                // More threads or fewer rows give the same bits.
                let mut again = y.clone();
                linear(isa, &mut again, &operand, &packed, update, Mode::Add, Threads::All);
                assert_eq!(again, added, "{isa}");
                let some = rows / 3..rows - rows / 5;
                let mut part = vec![0.0; some.len() * columns];
                linear_rows(isa, &mut part, &operand, some.clone(), &packed, None, Mode::Set, Threads::One);
                assert_eq!(part, set[some.start * columns..some.end * columns], "{isa}");
            });
        }

        #[test]
        fn gated_agrees_with_the_definition(
            (rows, inputs, width, x, gate, up) in (0_usize..30, 1_usize..30, 1_usize..50).prop_flat_map(|(m, k, n)| {
                (Just(m), Just(k), Just(n), values(m * k), values(n * k), values(n * k))
            })
        ) {
            each_isa(|isa, dtype| {
                let columns = width.div_ceil(LANES) * PANEL;
                let packed = Packed::new(dtype, columns, inputs, |column, values| {
                    let w = if column % PANEL < LANES { &gate } else { &up };
                    let at = column / PANEL * LANES + column % LANES;
                    values.fill(0.0);
                    if at < width {
                        values.copy_from_slice(&w[at * inputs..][..inputs]);
                    }
                    Ok::<(), ()>(())
                })
                .unwrap();
                let operand = rows_of(isa, dtype, &x, rows, inputs);
                let (gate, up) = (reference(dtype, &x, &gate, inputs), reference(dtype, &x, &up, inputs));
                let silu = |x: f64| x / (1.0 + (-x).exp());
                let gelu = |x: f64| {
                    x / 2.0 * (1.0 + (std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
                };
                let activations: [(Activation, &dyn Fn(f64) -> f64); 2] =
                    [(Activation::Silu, &silu), (Activation::GeluTanh, &gelu)];
                for (activation, f) in activations {
                    let expected: Vec<f64> = gate.iter().zip(&up).map(|(&gate, up)| f(gate) * up).collect();
                    let mut found = Rows::new(dtype);
                    found.resize(rows, width);
                    gated(isa, &mut found, &operand, &packed, activation, None, Threads::All);
                    // The rounding error of the gate is multiplied by `up`, which can be 100.
                    assert_close(&decode(&found), &expected, if dtype == Dtype::F32 { 1e-4 } else { 2.0_f64.powi(-8) });
                }
            });
        }
    }

    #[test]
    fn isas_with_fused_multiply_add_give_the_same_bits() {
        let x: Vec<f32> = (0..37 * 50).map(|i| (i as f32 * 0.37).sin()).collect();
        let w: Vec<f32> = (0..37 * 70).map(|i| (i as f32 * 0.73).cos()).collect();
        let product = |isa: Isa| {
            let mut y = vec![0.0; 50 * 70];
            let (x, w) = (rows_of(isa, Dtype::F32, &x, 50, 37), Packed::from_rows(Dtype::F32, &w, 37));
            linear(isa, &mut y, &x, &w, None, Mode::Set, Threads::One);
            y
        };
        let fused: Vec<Isa> = Isa::available().into_iter().filter(|isa| isa.to_string() != "portable").collect();
        assert!(fused.windows(2).all(|pair| product(pair[0]) == product(pair[1])));
    }

    #[test]
    #[should_panic(expected = "shape mismatch")]
    fn panics_on_shape_mismatch() {
        let isa = Isa::best();
        let (x, w) = (rows_of(isa, Dtype::F32, &[0.0; 4], 2, 2), Packed::from_rows(Dtype::F32, &[0.0; 4], 2));
        linear(isa, &mut [0.0; 3], &x, &w, None, Mode::Set, Threads::One);
    }

    #[test]
    #[should_panic(expected = "dtype mismatch")]
    fn panics_on_dtype_mismatch() {
        let isa = Isa::best();
        let (x, w) = (rows_of(isa, Dtype::F32, &[0.0; 4], 2, 2), Packed::from_rows(Dtype::Bf16, &[0.0; 4], 2));
        linear(isa, &mut [0.0; 4], &x, &w, None, Mode::Set, Threads::One);
    }
}
