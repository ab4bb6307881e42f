//! Shared code of the integration tests: the golden fixtures of `reference/make_fixtures.py`.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::data::Sample;
use plimsoll::engine::{CpuEngine, CpuOptions};
use plimsoll::formats::Tensors;
use plimsoll::lora::adapter::{Adapter, BoundAdapter};
use plimsoll::model::{Dtype, Model, Precision};
use serde::Deserialize;

/// The tiny models with their adapters.
pub(crate) const GOLDEN: [(&str, &[&str]); 3] = [
    ("tiny-gqa-tied", &["plain", "rslora", "patterns", "layers", "all_linear"]),
    ("tiny-llama3-untied", &["plain", "attention"]),
    ("tiny-linear", &["plain", "one_layer"]),
];

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub(crate) fn golden() -> PathBuf {
    fixtures().join("golden")
}

/// The path of the real model, which `examples/smollm2-gsm8k/fetch.py` downloads.
pub(crate) fn smollm2() -> PathBuf {
    workspace().join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn adapter_folder(model: &str, adapter: &str) -> PathBuf {
    golden().join(model).join("adapters").join(adapter)
}

pub(crate) fn checkpoint(model: &str) -> Model {
    Model::open(golden().join(model)).unwrap()
}

pub(crate) fn bind(checkpoint: &Model, adapter: &Path) -> BoundAdapter {
    checkpoint.bind(Some(&Adapter::open(adapter).unwrap())).unwrap()
}

/// An engine in `f32`, the dtype of the golden values.
pub(crate) fn engine_of(checkpoint: &Model, lora: &BoundAdapter) -> CpuEngine {
    let options = CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() };
    CpuEngine::load(checkpoint, lora, options).unwrap()
}

pub(crate) fn engine(model: &str, adapter: &str) -> CpuEngine {
    let checkpoint = checkpoint(model);
    let lora = bind(&checkpoint, &adapter_folder(model, adapter));
    engine_of(&checkpoint, &lora)
}

/// `<adapter>.golden.json` of a tiny model.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) layers: usize,
    /// LoRA strengths of one variant that differ by module, in the order of `Projection`.
    pub(crate) gates: Vec<[f32; 7]>,
    pub(crate) sequences: Vec<Sequence>,
}

/// One sequence with the results of PyTorch and PEFT.
#[derive(Deserialize)]
pub(crate) struct Sequence {
    pub(crate) line: usize,
    pub(crate) ids: Vec<u32>,
    pub(crate) answer: Vec<usize>,
    /// The boundaries k = 0..=L.
    pub(crate) variants: Vec<Expected>,
    /// Logit lens of `base` and `full`.
    pub(crate) lens: Vec<ExpectedCurve>,
    pub(crate) gated: Option<Expected>,
}

#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Expected {
    pub(crate) nll: f64,
    pub(crate) probability: f64,
    pub(crate) correct: usize,
}

#[derive(Deserialize)]
pub(crate) struct ExpectedCurve {
    pub(crate) probability: Vec<f64>,
    pub(crate) top1: Vec<f64>,
    pub(crate) rank: Vec<f64>,
}

impl Golden {
    pub(crate) fn read(model: &str, adapter: &str) -> Self {
        let path = golden().join(model).join(format!("{adapter}.golden.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.sequences.iter().map(Sequence::sample).collect()
    }
}

impl Sequence {
    pub(crate) fn sample(&self) -> Sample {
        Sample { line: self.line, tokens: self.ids.clone(), answer: self.answer.clone() }
    }
}

/// `<adapter>.golden.safetensors`, or `base`, of a tiny model.
pub(crate) fn golden_tensors(model: &str, adapter: &str) -> Tensors {
    Tensors::open_file(&golden().join(model).join(format!("{adapter}.golden.safetensors"))).unwrap()
}

/// Largest difference of two slices, relative to the largest expected magnitude.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    // `f32::max` ignores NaN.
    assert!(found.iter().all(|value| value.is_finite()));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}
