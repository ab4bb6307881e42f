//! Benchmarks of the kernels on one thread, with the dimensions of a 135M model. Items per second are FLOP/s.
//!
//! `bench_peak` measures the upper limit: multiply-adds in registers, without memory access.

#![allow(missing_docs, reason = "a benchmark has no public API")]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use plimsoll_kernels::{
    Activation, Attention, AttentionRule, AttentionScratch, AttentionShape, Dtype, Isa, KeyValues, Mode, Packed, Rows,
    Threads, attend, gated, linear, peak, rms_norm, score_tokens,
};

const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const RULE: AttentionRule = AttentionRule { scale: 0.125, softcap: None, window: None };
const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

fn main() {
    divan::main();
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn rows(dtype: Dtype, rows: usize, width: usize) -> Rows {
    let mut out = Rows::new(dtype);
    out.resize(rows, width);
    out.write(Isa::best(), 0, &values(rows * width));
    out
}

fn packed(dtype: Dtype, columns: usize, inputs: usize) -> Packed {
    Packed::from_rows(dtype, &values(columns * inputs), inputs)
}

#[divan::bench(args = DTYPES)]
fn bench_peak(bencher: Bencher<'_, '_>, dtype: Dtype) {
    let operations = peak(Isa::best(), dtype, 1000) as usize;
    bencher.counter(ItemsCount::new(operations)).bench(|| peak(Isa::best(), dtype, black_box(1000)));
}

#[divan::bench(args = [1, 8, 64, 256], consts = [0, 1])]
fn bench_linear<const DTYPE: usize>(bencher: Bencher<'_, '_>, count: usize) {
    let dtype = DTYPES[DTYPE];
    let (x, w) = (rows(dtype, count, INTERMEDIATE), packed(dtype, HIDDEN, INTERMEDIATE));
    let mut y = vec![0.0; count * HIDDEN];
    bencher
        .counter(ItemsCount::new(2 * count * HIDDEN * INTERMEDIATE))
        .bench_local(|| linear(Isa::best(), black_box(&mut y), &x, &w, None, Mode::Set, Threads::One));
}

#[divan::bench(args = DTYPES)]
fn bench_gated(bencher: Bencher<'_, '_>, dtype: Dtype) {
    let (x, w) = (rows(dtype, 128, HIDDEN), packed(dtype, 2 * INTERMEDIATE, HIDDEN));
    let mut y = rows(dtype, 128, INTERMEDIATE);
    bencher
        .counter(ItemsCount::new(4 * 128 * HIDDEN * INTERMEDIATE))
        .bench_local(|| gated(Isa::best(), black_box(&mut y), &x, &w, Activation::Silu, None, Threads::One));
}

#[divan::bench(args = DTYPES)]
fn bench_head(bencher: Bencher<'_, '_>, dtype: Dtype) {
    let (x, w, tokens) = (rows(dtype, 128, HIDDEN), packed(dtype, 49_152, HIDDEN), vec![7; 128]);
    bencher
        .counter(ItemsCount::new(2 * 128 * HIDDEN * 49_152))
        .bench_local(|| score_tokens(Isa::best(), black_box(&x), &w, &tokens, None));
}

#[divan::bench(args = [64, 256, 1024], consts = [0, 1])]
fn bench_attention<const DTYPE: usize>(bencher: Bencher<'_, '_>, count: usize) {
    let (isa, dtype) = (Isa::best(), DTYPES[DTYPE]);
    let shape = AttentionShape { heads: 9, kv_heads: 3, head_dim: 64 };
    let qkv = values(count * shape.width());
    let mut keys = KeyValues::new(dtype, shape);
    keys.extend(isa, &qkv);
    let mut out = rows(dtype, count, HIDDEN);
    let attention = [Attention { to: 0, qkv: &qkv, wanted: None, past: None, own: &keys }];
    let mut scratch = AttentionScratch::new(dtype);
    bencher
        .counter(ItemsCount::new(2 * count * (count + 1) * HIDDEN))
        .bench_local(|| attend(isa, black_box(&mut out), RULE, &attention, Threads::One, &mut scratch));
}

#[divan::bench(args = DTYPES)]
fn bench_rms_norm(bencher: Bencher<'_, '_>, dtype: Dtype) {
    let (x, weight) = (values(128 * HIDDEN), values(HIDDEN));
    let mut y = rows(dtype, 128, HIDDEN);
    bencher
        .counter(ItemsCount::new(4 * 128 * HIDDEN))
        .bench_local(|| rms_norm(Isa::best(), black_box(&mut y), &x, &weight, 1e-5));
}
