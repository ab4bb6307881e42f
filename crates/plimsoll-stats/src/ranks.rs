//! Spearman's rank correlation, and the Pareto front.

use std::num::NonZeroUsize;

use super::random::{Stream, generator, shuffle};

/// Up to this number of values a permutation test counts all `n!` orders, at most 40,320.
const EXACT_ORDERS: usize = 8;

/// Spearman's rank correlation ρ of two lists, with the two-sided p-value of its permutation test.
///
/// ρ is Pearson's correlation of the ranks; equal values have the mean of their ranks (Spearman, American Journal of
/// Psychology 15:1, 1904). The p-value is the share of orders of `y` whose |ρ| is at least the observed one: of all
/// orders up to 8 values, above that of random `orders` and the observed one (Phipson & Smyth, arXiv:1603.05766). If
/// all values of a list are equal, ρ is 0 and p is 1.
///
/// # Panics
/// If the lists differ in length.
pub fn spearman(x: &[f64], y: &[f64], orders: NonZeroUsize, seed: u64) -> (f64, f64) {
    assert_eq!(x.len(), y.len(), "lists of different lengths");
    let (x, mut y) = (centred_ranks(x), centred_ranks(y));
    // Doubled centred ranks are whole numbers, and so are their products, so sums and comparisons are exact.
    let product = |y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let size = |ranks: &[f64]| ranks.iter().map(|rank| rank * rank).sum::<f64>().sqrt();
    let scale = size(&x) * size(&y);
    let observed = product(&y);
    if scale == 0.0 {
        return (0.0, 1.0);
    }
    let is_hit = |y: &[f64]| product(y).abs() >= observed.abs();
    let p = if y.len() <= EXACT_ORDERS {
        let (mut hits, mut all) = (0_usize, 0_usize);
        every_order(&mut y, &mut |y| {
            all += 1;
            hits += usize::from(is_hit(y));
        });
        hits as f64 / all as f64
    } else {
        let mut rng = generator(seed, Stream::Orders);
        let mut hits = 0;
        for _ in 0..orders.get() {
            shuffle(&mut y, &mut rng);
            hits += usize::from(is_hit(&y));
        }
        (hits + 1) as f64 / (orders.get() + 1) as f64
    };
    ((observed / scale).clamp(-1.0, 1.0), p)
}

/// Twice the difference between each value's rank and the mean rank; equal values have the mean of their ranks.
fn centred_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let last = first + equal.len() - 1;
        // Ranks count from 0: twice the mean of first..=last, minus twice the mean of all.
        equal.iter().for_each(|&index| ranks[index] = (first + last) as f64 - (values.len() as f64 - 1.0));
        first = last + 1;
    }
    ranks
}

/// Calls `visit` with every order of the values (Heap, The Computer Journal 6:3, 1963).
fn every_order(values: &mut [f64], visit: &mut impl FnMut(&[f64])) {
    fn heap(values: &mut [f64], free: usize, visit: &mut impl FnMut(&[f64])) {
        if free <= 1 {
            return visit(values);
        }
        for i in 0..free {
            heap(values, free - 1, visit);
            if i + 1 < free {
                values.swap(if free.is_multiple_of(2) { i } else { 0 }, free - 1);
            }
        }
    }
    heap(values, values.len(), visit);
}

/// Which points are on the Pareto front: no other point is at most as large in all coordinates and smaller in one.
/// Smaller is better; equal points are all on the front.
///
/// # Panics
/// If the points differ in their number of coordinates.
pub fn pareto(points: &[Vec<f64>]) -> Vec<bool> {
    let dominates = |a: &[f64], b: &[f64]| {
        assert_eq!(a.len(), b.len(), "points of different dimensions");
        let pairs = || a.iter().zip(b);
        pairs().all(|(a, b)| a <= b) && pairs().any(|(a, b)| a < b)
    };
    points.iter().map(|point| !points.iter().any(|other| dominates(other, point))).collect()
}
