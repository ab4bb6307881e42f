//! Matrix products with packed weights.
//!
//! One register tile of rows × 32 columns walks over the words of its rows and of one panel, and hands its sums to an
//! *epilogue* while they are still in registers: stored, added, gated, or folded into a log-sum-exp. Nothing is blocked
//! along the inputs: a panel of 8,192 `bf16` inputs is 512 KiB and stays in a second-level cache, which delivers the two
//! lines that a step of 24 products needs several times over.
//!
//! Each sum is taken in the order of the inputs, by the same instructions whatever the number of rows, of columns or of
//! threads. So a row's result depends on nothing but the row and the weights, to the last bit.

use std::ops::Range;

use crate::isa::{Isa, Kernel, LANES, Simd, exp};
use crate::packed::{PANEL, Packed, PackedUpdate};
use crate::words::{Dtype, Line, Rows};

/// What a product does to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `y = x · wᵀ`
    Set,
    /// `y += x · wᵀ`
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread.
    One,
    /// The threads of the current pool, each some of the columns.
    All,
}

/// What a gated MLP applies to its gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)` (Elfwing et al., arXiv:1702.03118).
    Silu,
    /// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, GELU's approximation (Hendrycks and Gimpel, arXiv:1606.08415).
    GeluTanh,
}

/// A low-rank update that is added to a product: `z · bᵀ`.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// One row for each row of the product.
    pub z: &'a Rows,
    /// The packed second factors.
    pub b: &'a PackedUpdate,
    /// Runs of rows, in order, to which anything is added; the rows of `z` beside them are not read.
    pub rows: &'a [Range<usize>],
    /// What the product is multiplied by before the update is added, one number for each column and for each that fills
    /// up the last 32, run after run; nothing where this is empty. It is how DoRA (arXiv:2402.09353) changes a length.
    pub factors: &'a [f32], // (runs, panels · 32)
}

/// `y (rows, columns) = x (rows, inputs) · wᵀ`, plus the update's rows and the bias of `w`. Rows of `y` are `w.columns()` long.
///
/// # Panics
/// If the dimensions do not fit together.
pub fn linear(isa: Isa, y: &mut [f32], x: &Rows, w: &Packed, update: Option<Update<'_>>, mode: Mode, threads: Threads) {
    linear_rows(isa, y, x, 0..x.rows(), w, update, mode, threads);
}

/// [`linear`] for some rows of `x`: `y` has `rows.len()` rows.
///
/// # Panics
/// If the dimensions do not fit together, or an update comes with another range than all rows.
#[allow(clippy::too_many_arguments, reason = "a product has that many parts")]
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
    assert_eq!(y.len(), rows.len() * w.columns(), "lengths do not fit");
    let y = Destination(y.as_mut_ptr());
    over_panels(w.panels(), threads, |panels| {
        // The whole of the wrapper, not the pointer in it, has to travel to the other thread.
        let Destination(y) = { y };
        let epilogue = Store { y, columns: w.columns(), mode };
        isa.run(Product::new(x, rows.clone(), w, panels, update, epilogue));
    });
}

/// A gated MLP's activations: `y (rows, columns / 2) = f(gate) · up` (Shazeer, arXiv:2002.05202), where `gate` and `up`
/// come from one product whose columns are 16 of the gate, 16 of the up projection, and so on in turn.
///
/// # Panics
/// If the dimensions do not fit together.
pub fn gated(
    isa: Isa,
    y: &mut Rows,
    x: &Rows,
    w: &Packed,
    activation: Activation,
    update: Option<Update<'_>>,
    threads: Threads,
) {
    assert!(w.columns().is_multiple_of(PANEL), "gate and up do not come in pairs of 16");
    assert!(
        y.rows() == x.rows() && y.width() <= w.columns() / 2 && y.width() + LANES > w.columns() / 2,
        "lengths do not fit"
    );
    let (dtype, stride, width) = (y.dtype, y.stride, y.width());
    let y = Destination(y.words.as_mut_slice().as_mut_ptr());
    over_panels(w.panels(), threads, |panels| {
        let Destination(y) = { y };
        let epilogue = Gate { y, dtype, stride, width, activation };
        isa.run(Product::new(x, 0..x.rows(), w, panels, update, epilogue));
    });
}

/// Multiplies and adds in registers, without touching memory, and returns how many floating-point operations that were:
/// the most that a thread could do. For benchmarks.
pub fn peak(isa: Isa, dtype: Dtype, steps: usize) -> f64 {
    isa.run(Peak { dtype, steps })
}

struct Peak {
    dtype: Dtype,
    steps: usize,
}

impl Peak {
    #[inline(always)]
    fn with<S: Simd, D: Step>(&self, s: S, operations: usize) -> f64 {
        let word = s.splat_word(std::hint::black_box(0x3f80_3f80));
        let mut sums = [s.splat(0.0); 16];
        for _ in 0..self.steps {
            for sum in &mut sums {
                *sum = D::step(s, *sum, word, word);
            }
        }
        std::hint::black_box(s.sum(sums.into_iter().fold(s.splat(0.0), |total, sum| s.add(total, sum))));
        (self.steps * sums.len() * LANES * operations) as f64
    }
}

impl Kernel for Peak {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        match self.dtype {
            Dtype::F32 => self.with::<S, Single>(s, 2),
            Dtype::Bf16 => self.with::<S, Half>(s, 4),
        }
    }
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Destination<T>(pub(crate) *mut T);

// SAFETY: the functions that make one hand it to threads that write to different places (panels of a product, heads and
// rows of an attention), and they return only when all of these are done; nothing reads in between.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Destination<T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Destination<T> {}

/// Cuts the panels into one range for each thread.
fn over_panels(panels: usize, threads: Threads, work: impl Fn(Range<usize>) + Sync) {
    fn halve(range: Range<usize>, parts: usize, work: &(impl Fn(Range<usize>) + Sync)) {
        if parts < 2 || range.len() < 2 {
            return work(range);
        }
        let middle = range.start + range.len() * (parts / 2) / parts;
        rayon::join(
            || halve(range.start..middle, parts / 2, work),
            || halve(middle..range.end, parts - parts / 2, work),
        );
    }
    match threads {
        Threads::One => work(0..panels),
        Threads::All => halve(0..panels, rayon::current_num_threads(), &work),
    }
}

/// Does some work with each of a few things, on as many threads of the current pool.
pub(crate) fn on_each<T: Send>(things: &mut [T], work: &(impl Fn(&mut T) + Sync)) {
    match things {
        [] => {}
        [one] => work(one),
        many => {
            let (left, right) = many.split_at_mut(many.len() / 2);
            rayon::join(|| on_each(left, work), || on_each(right, work));
        }
    }
}

/// What becomes of the sums of a tile.
pub(crate) trait Epilogue {
    /// Takes the sums of rows `row..row + R` of the product (counted from its first) and the 32 columns of one panel.
    fn take<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]);
}

/// Rows of words that a product reads, unchecked: who makes one answers for what it says.
#[derive(Clone, Copy)]
pub(crate) struct Factor {
    pub(crate) words: *const u32,
    /// Words from a row to the next.
    pub(crate) stride: usize,
}

/// `acc + a · b` on words, for one type of number.
pub(crate) trait Step {
    fn step<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F;
}

pub(crate) struct Single;
pub(crate) struct Half;

impl Step for Single {
    #[inline(always)]
    fn step<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F {
        s.step_f32(acc, a, b)
    }
}

impl Step for Half {
    #[inline(always)]
    fn step<S: Simd>(s: S, acc: S::F, a: S::W, b: S::W) -> S::F {
        s.step_bf16(acc, a, b)
    }
}

/// The register tile: adds the products of `R` rows with the 32 columns of `b`, two lines for each word.
///
/// # Safety
/// `a.words` must point to `R` rows, `a.stride` words apart, of `b.len() / 2` words each.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply<S: Simd, D: Step, const R: usize>(
    s: S,
    sums: &mut [[S::F; 2]; R],
    a: Factor,
    b: &[Line],
) {
    let mut acc = *sums;
    for (k, b) in b.chunks_exact(2).enumerate() {
        let (left, right) = (s.load_words(&b[0].0), s.load_words(&b[1].0));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `r < R` and `k` is below the words of a row, by the contract above.
            let x = s.splat_word(unsafe { *a.words.add(r * a.stride + k) });
            acc[0] = D::step(s, acc[0], x, left);
            acc[1] = D::step(s, acc[1], x, right);
        }
    }
    *sums = acc;
}

/// [`multiply`] that asks for the lines of `next` on its way, two for each step; it has as many as `b`.
///
/// # Safety
/// As of [`multiply`].
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn multiply_fetching<S: Simd, D: Step, const R: usize>(
    s: S,
    sums: &mut [[S::F; 2]; R],
    a: Factor,
    b: &[Line],
    next: &[Line],
) {
    let mut acc = *sums;
    for (k, (b, next)) in b.chunks_exact(2).zip(next.chunks_exact(2)).enumerate() {
        s.prefetch(&next[0]);
        s.prefetch(&next[1]);
        let (left, right) = (s.load_words(&b[0].0), s.load_words(&b[1].0));
        for (r, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `r < R` and `k` is below the words of a row, by the contract above.
            let x = s.splat_word(unsafe { *a.words.add(r * a.stride + k) });
            acc[0] = D::step(s, acc[0], x, left);
            acc[1] = D::step(s, acc[1], x, right);
        }
    }
    *sums = acc;
}

/// Cuts `rows` into tiles of at most `most`, as equal as can be: (first row, rows).
#[inline(always)]
pub(crate) fn tiles(rows: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = rows.div_ceil(most);
    (0..count).map(move |index| {
        let first = rows * index / count;
        (first, rows * (index + 1) / count - first)
    })
}

/// `$call` with `$R` as a constant for a number of rows from 1 to `$most`, which is 2, 3 or 12.
macro_rules! with_rows {
    ($rows:expr, $most:expr, $R:ident => $call:expr) => {{
        macro_rules! arm {
            ($n:literal) => {{
                const $R: usize = $n;
                $call
            }};
        }
        match $rows {
            1 => arm!(1),
            2 => arm!(2),
            3 if $most > 2 => arm!(3),
            4 if $most > 3 => arm!(4),
            5 if $most > 3 => arm!(5),
            6 if $most > 3 => arm!(6),
            7 if $most > 3 => arm!(7),
            8 if $most > 3 => arm!(8),
            9 if $most > 3 => arm!(9),
            10 if $most > 3 => arm!(10),
            11 if $most > 3 => arm!(11),
            12 if $most > 3 => arm!(12),
            rows => unreachable!("a tile of {rows} rows"),
        }
    }};
}
pub(crate) use with_rows;

/// One product on one thread.
pub(crate) struct Product<'a, E> {
    x: Factor,
    rows: usize,
    dtype: Dtype,
    w: &'a Packed,
    panels: Range<usize>,
    update: Option<Update<'a>>,
    epilogue: E,
}

impl<'a, E: Epilogue> Product<'a, E> {
    /// # Panics
    /// If the dimensions do not fit together.
    pub(crate) fn new(
        x: &'a Rows,
        rows: Range<usize>,
        w: &'a Packed,
        panels: Range<usize>,
        update: Option<Update<'a>>,
        epilogue: E,
    ) -> Self {
        assert!(rows.start <= rows.end && rows.end <= x.rows(), "rows outside of the factor");
        assert!(x.width() == w.inputs() && x.dtype == w.dtype, "factors do not fit");
        assert!(panels.end <= w.panels(), "panels outside of the weight");
        if let Some(Update { z, b, rows: runs, factors }) = update {
            assert!(rows == (0..x.rows()) && z.rows() == x.rows() && b.panels() == w.panels(), "update does not fit");
            assert!(z.width() == b.width() && z.dtype == w.dtype && b.dtype == w.dtype, "update does not fit");
            assert!(runs.iter().all(|run| run.start <= run.end && run.end <= z.rows()), "update does not fit");
            assert!(factors.is_empty() || factors.len() == runs.len() * w.panels() * PANEL, "update does not fit");
        }
        let words = x.words.as_slice()[(rows.start * x.stride).min(x.words.as_slice().len())..].as_ptr();
        let x = Factor { words, stride: x.stride };
        Self { x, rows: rows.len(), dtype: w.dtype, w, panels, update, epilogue }
    }

    #[inline(always)]
    fn with<S: Simd, D: Step>(&mut self, s: S) {
        for panel in self.panels.clone() {
            // While a panel is worked on, the next one is on its way: each tile asks for its share of it.
            let next = if panel + 1 < self.panels.end { self.w.panel(panel + 1) } else { &[] };
            let share = next.len().div_ceil(self.rows.div_ceil(S::ROWS).max(1)).next_multiple_of(2);
            let mut next = next.chunks(share.max(2));
            for (row, rows) in tiles(self.rows, S::ROWS) {
                let next = next.next().unwrap_or_default();
                with_rows!(rows, S::ROWS, R => self.tile::<S, D, R>(s, row, panel, next));
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, D: Step, const R: usize>(&mut self, s: S, row: usize, panel: usize, next: &[Line]) {
        let mut sums = [[s.splat(0.0); 2]; R];
        // SAFETY: rows `row..row + R` lie inside of the factor, which `new` checked, and its rows have as many words as
        // the panel has pairs of lines, since the two have as many numbers of the same type.
        #[allow(unsafe_code)]
        unsafe {
            let a = Factor { words: self.x.words.add(row * self.x.stride), stride: self.x.stride };
            let (fetching, rest) = self.w.panel(panel).split_at(next.len());
            multiply_fetching::<S, D, R>(s, &mut sums, a, fetching, next);
            let a = Factor { words: a.words.add(next.len() / 2), ..a };
            multiply::<S, D, R>(s, &mut sums, a, rest);
        }
        if let Some(update) = self.update {
            self.add::<S, D, R>(s, &mut sums, row, panel, update);
        }
        if let Some(&[left, right]) = self.w.bias(panel).and_then(<[_]>::first_chunk) {
            let bias = [s.load(&left), s.load(&right)];
            for sum in &mut sums {
                *sum = [s.add(sum[0], bias[0]), s.add(sum[1], bias[1])];
            }
        }
        self.epilogue.take::<S, R>(s, row, panel, &sums);
    }

    /// Adds the update to the rows of a tile that have one.
    #[inline(always)]
    fn add<S: Simd, D: Step, const R: usize>(
        &self,
        s: S,
        sums: &mut [[S::F; 2]; R],
        row: usize,
        panel: usize,
        Update { z, b, rows: runs, factors }: Update<'_>,
    ) {
        let (words, b) = b.panel(panel);
        if b.is_empty() {
            return;
        }
        let factor = |row: usize| {
            let words = z.words.as_slice()[row * z.stride + words.start..].as_ptr();
            Factor { words, stride: z.stride }
        };
        let first = runs.partition_point(|run| run.end <= row);
        for (at, run) in runs.iter().enumerate().skip(first).take_while(|(_, run)| run.start < row + R) {
            let factors = factors.chunks_exact(self.w.panels() * PANEL).nth(at);
            if let Some(&[left, right]) =
                factors.and_then(|factors| factors[panel * PANEL..].as_chunks().0.first_chunk())
            {
                let factors = [s.load(&left), s.load(&right)];
                for sums in &mut sums[run.start.max(row) - row..run.end.min(row + R) - row] {
                    *sums = [s.mul(sums[0], factors[0]), s.mul(sums[1], factors[1])];
                }
            }
            if run.start <= row && row + R <= run.end {
                // SAFETY: rows of `z` are those of the product, and `words` is inside of each of them: both were checked
                // when the product and the update were made.
                #[allow(unsafe_code)]
                unsafe {
                    multiply::<S, D, R>(s, sums, factor(row), b);
                }
            } else {
                for at in run.start.max(row)..run.end.min(row + R) {
                    let mut one = [sums[at - row]];
                    // SAFETY: as above.
                    #[allow(unsafe_code)]
                    unsafe {
                        multiply::<S, D, 1>(s, &mut one, factor(at), b);
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
            Dtype::F32 => self.with::<S, Single>(s),
            Dtype::Bf16 => self.with::<S, Half>(s),
        }
        self.epilogue
    }
}

/// Stores or adds sums.
struct Store {
    y: *mut f32,
    columns: usize,
    mode: Mode,
}

impl Epilogue for Store {
    #[inline(always)]
    fn take<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        for (r, sums) in sums.iter().enumerate() {
            for (half, &sum) in sums.iter().enumerate() {
                let column = panel * PANEL + half * LANES;
                let columns = self.columns.saturating_sub(column).min(LANES);
                // SAFETY: `y` has as many rows as the product, each `columns` long: `linear` checked it. The slice lies
                // inside of one row and of one panel, which no other thread writes to.
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
const TWICE_ROOT: f32 = 2.0 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// Gates the second vector of a panel by the first.
struct Gate {
    y: *mut u32,
    dtype: Dtype,
    stride: usize,
    width: usize,
    activation: Activation,
}

impl Epilogue for Gate {
    #[inline(always)]
    fn take<S: Simd, const R: usize>(&mut self, s: S, row: usize, panel: usize, sums: &[[S::F; 2]; R]) {
        let column = panel * LANES;
        let columns = self.width.saturating_sub(column).min(LANES);
        for (r, &[gate, up]) in sums.iter().enumerate() {
            let one = s.splat(1.0);
            // Both are x · σ(t): (1 + tanh u) / 2 = σ(2u).
            let t = match self.activation {
                Activation::Silu => gate,
                Activation::GeluTanh => {
                    let square = s.mul(gate, gate);
                    s.mul(gate, s.fma(square, s.splat(TWICE_ROOT * 0.044_715), s.splat(TWICE_ROOT)))
                }
            };
            let e = exp(s, s.sub(s.splat(0.0), t));
            let gated = s.mul(s.div(gate, s.add(one, e)), up);
            let (at, words) = (self.dtype.words(column), self.dtype.words(columns));
            // SAFETY: `y` has as many rows as the product, `stride` words apart, of `width` numbers: `gated` checked it.
            // 16 numbers are a whole number of words, so that the slice belongs to this panel alone.
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
    use crate::testing::{assert_close, decode, each_isa, rounded, values};

    /// Sums of 70 products of numbers below 4, taken in `f32`: rounding stays below 1e-5 of them.
    const ROUNDING: f64 = 1e-5;

    fn rows_of(isa: Isa, dtype: Dtype, x: &[f32], rows: usize, width: usize) -> Rows {
        let mut out = Rows::new(dtype);
        out.resize(rows, width);
        out.write(isa, 0, x);
        out
    }

    fn plain(dtype: Dtype, x: &[f32], w: &[f32], inputs: usize) -> Vec<f64> {
        x.chunks(inputs)
            .flat_map(|x| {
                w.chunks(inputs)
                    .map(move |w| x.iter().zip(w).map(|(&x, &w)| rounded(dtype, x) * rounded(dtype, w)).sum())
            })
            .collect()
    }

    /// An update by two modules of odd ranks on the first and on the third quarter of the columns, for every third row.
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

        fn new(dtype: Dtype, rows: usize, columns: usize, numbers: &[f32]) -> Self {
            let number = |i: usize| numbers[i % numbers.len()];
            let b = Self::RANKS.map(|rank| (0..columns * rank).map(|i| number(i * 7 + rank)).collect::<Vec<f32>>());
            let modules = [(0, 0), (1, 4)].map(|(i, at)| UpdateModule { b: &b[i], rank: Self::RANKS[i], at });
            let packed =
                PackedUpdate::new(dtype, columns, Self::WIDTH, &modules, |column| Self::source(columns, column));
            let mut z: Vec<f32> = (0..rows * Self::WIDTH).map(|i| number(i * 11)).collect();
            // What lies in rows without an update, or between modules, is not read as a number.
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
            // Where a panel has no module, nothing is rescaled.
            let factor = |i: usize| if is_used(i % padded / PANEL) { number(i * 13) } else { 1.0 };
            let factors = (0..rows.len() * padded).map(factor).collect();
            Self { z, b: packed, rows, dense, factors }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn agrees_with_the_definition(
            (rows, inputs, columns, x, w, y) in (0_usize..40, 1_usize..70, 1_usize..100).prop_flat_map(|(m, k, n)| {
                (Just(m), Just(k), Just(n), values(m * k), values(n * k), values(m * n))
            })
        ) {
            each_isa(|isa, dtype| {
                let (factor, packed) = (rows_of(isa, dtype, &x, rows, inputs), Packed::from_rows(dtype, &w, inputs));
                let expected = plain(dtype, &x, &w, inputs);
                let mut set = vec![f32::NAN; rows * columns];
                linear(isa, &mut set, &factor, &packed, None, Mode::Set, Threads::One);
                assert_close(&set, &expected, ROUNDING);

                let two = TwoModules::new(dtype, rows, columns, &w);
                let z = rows_of(isa, dtype, &two.z, rows, TwoModules::WIDTH);
                let plain_update = Update { z: &z, b: &two.b, rows: &two.rows, factors: &[] };
                let update = Some(plain_update);
                let mut added = y.clone();
                linear(isa, &mut added, &factor, &packed, update, Mode::Add, Threads::One);
                let sum = |i: usize| expected[i] + f64::from(y[i]) + f64::from(two.dense[i]);
                assert_close(&added, &(0..y.len()).map(sum).collect::<Vec<_>>(), ROUNDING);

                let bias: Vec<f32> = w.iter().cycle().take(columns).copied().collect();
                let biased = Packed::from_rows(dtype, &w, inputs).with_bias(bias.clone());
                let update_too = Some(Update { factors: &two.factors, ..plain_update });
                let mut scaled = y.clone();
                linear(isa, &mut scaled, &factor, &biased, update_too, Mode::Add, Threads::One);
                let padded = columns.div_ceil(PANEL) * PANEL;
                let sum = |i: usize| {
                    let (row, column) = (i / columns, i % columns);
                    let factor = if row % 3 == 0 { two.factors[row / 3 * padded + column] } else { 1.0 };
                    f64::from(factor) * expected[i] + f64::from(y[i]) + f64::from(two.dense[i]) + f64::from(bias[column])
                };
                assert_close(&scaled, &(0..y.len()).map(sum).collect::<Vec<_>>(), 2.0 * ROUNDING);

                // More threads, or fewer rows, and not a bit is another.
                let mut again = y.clone();
                linear(isa, &mut again, &factor, &packed, update, Mode::Add, Threads::All);
                assert_eq!(again, added, "{isa}");
                let some = rows / 3..rows - rows / 5;
                let mut part = vec![0.0; some.len() * columns];
                linear_rows(isa, &mut part, &factor, some.clone(), &packed, None, Mode::Set, Threads::One);
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
                let packed = Packed::new(dtype, columns, inputs, |column, numbers| {
                    let (w, at) = (if column % PANEL < LANES { &gate } else { &up }, column / PANEL * LANES + column % LANES);
                    numbers.fill(0.0);
                    if at < width {
                        numbers.copy_from_slice(&w[at * inputs..][..inputs]);
                    }
                    Ok::<(), ()>(())
                })
                .unwrap();
                let factor = rows_of(isa, dtype, &x, rows, inputs);
                let (gate, up) = (plain(dtype, &x, &gate, inputs), plain(dtype, &x, &up, inputs));
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
                    gated(isa, &mut found, &factor, &packed, activation, None, Threads::All);
                    // The rounding of the gate's sum counts as often as `up` is large, and that may be a hundred times.
                    assert_close(&decode(&found), &expected, if dtype == Dtype::F32 { 1e-4 } else { 2.0_f64.powi(-8) });
                }
            });
        }

        #[test]
        fn columns_come_out_as_they_were_packed((inputs, w) in (1_usize..20, 1_usize..80).prop_flat_map(|(k, n)| (Just(k), values(k * n)))) {
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

    #[test]
    fn sets_with_fused_multiply_add_give_the_same_bits() {
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
    #[should_panic(expected = "lengths do not fit")]
    fn refuses_lengths_that_do_not_fit() {
        let isa = Isa::best();
        let (x, w) = (rows_of(isa, Dtype::F32, &[0.0; 4], 2, 2), Packed::from_rows(Dtype::F32, &[0.0; 4], 2));
        linear(isa, &mut [0.0; 3], &x, &w, None, Mode::Set, Threads::One);
    }

    #[test]
    #[should_panic(expected = "factors do not fit")]
    fn refuses_factors_that_do_not_fit() {
        let isa = Isa::best();
        let (x, w) = (rows_of(isa, Dtype::F32, &[0.0; 4], 2, 2), Packed::from_rows(Dtype::Bf16, &[0.0; 4], 2));
        linear(isa, &mut [0.0; 4], &x, &w, None, Mode::Set, Threads::One);
    }
}
