//! What the integration tests share: the golden fixtures that `reference/make_fixtures.py` writes.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::adapter::{Adapter, Base, LayerLora};
use plimsoll::data::Sample;
use plimsoll::engine::{Embedded, EngineOptions};
use plimsoll::model::{Checkpoint, Model, Tensors};
use serde::Deserialize;

/// Every tiny model with its adapters.
pub const GOLDEN: [(&str, &[&str]); 3] = [
    ("tiny-gqa-tied", &["plain", "rslora", "patterns", "layers", "all_linear"]),
    ("tiny-llama3-untied", &["plain", "attention"]),
    ("tiny-linear", &["plain", "one_layer"]),
];

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

pub fn golden() -> PathBuf {
    fixtures().join("golden")
}

/// Where `examples/smollm2-gsm8k/fetch.py` puts the real model.
pub fn smollm2() -> PathBuf {
    workspace().join("models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn adapter_folder(model: &str, adapter: &str) -> PathBuf {
    golden().join(model).join("adapters").join(adapter)
}

pub fn checkpoint(model: &str) -> Checkpoint {
    Checkpoint::open(&golden().join(model)).unwrap()
}

pub fn bind(checkpoint: &Checkpoint, adapter: &Path) -> Vec<LayerLora> {
    let shape = |_, projection| checkpoint.linear_shape(projection);
    Adapter::open(adapter).unwrap().bind(&Base { layers: checkpoint.config().layers, shape: &shape }).unwrap()
}

pub fn engine_of(checkpoint: &Checkpoint, lora: Vec<LayerLora>) -> Embedded {
    Embedded::new(Model::load(checkpoint).unwrap(), lora, EngineOptions::default()).unwrap()
}

pub fn engine(model: &str, adapter: &str) -> Embedded {
    let checkpoint = checkpoint(model);
    let lora = bind(&checkpoint, &adapter_folder(model, adapter));
    engine_of(&checkpoint, lora)
}

/// `<adapter>.golden.json` of a tiny model.
#[derive(Deserialize)]
pub struct Golden {
    pub layers: usize,
    /// Gates of one odd variant, in the order of `Projection`.
    pub gates: Vec<[f32; 7]>,
    pub sequences: Vec<Sequence>,
}

/// What PyTorch and PEFT say of one sequence.
#[derive(Deserialize)]
pub struct Sequence {
    pub line: usize,
    pub ids: Vec<u32>,
    pub answer: Vec<usize>,
    /// k = 0..=L
    pub variants: Vec<Expected>,
    /// base, full
    pub lens: Vec<ExpectedCurve>,
    pub gated: Option<Expected>,
}

#[derive(Clone, Copy, Deserialize)]
pub struct Expected {
    pub nll: f64,
    pub probability: f64,
    pub correct: usize,
}

#[derive(Deserialize)]
pub struct ExpectedCurve {
    pub probability: Vec<f64>,
    pub top1: Vec<f64>,
    pub rank: Vec<f64>,
}

impl Golden {
    pub fn read(model: &str, adapter: &str) -> Self {
        let path = golden().join(model).join(format!("{adapter}.golden.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    pub fn samples(&self) -> Vec<Sample> {
        self.sequences.iter().map(Sequence::sample).collect()
    }
}

impl Sequence {
    pub fn sample(&self) -> Sample {
        Sample { line: self.line, tokens: self.ids.clone(), answer: self.answer.clone() }
    }
}

/// `<adapter>.golden.safetensors`, or `base`, of a tiny model.
pub fn golden_tensors(model: &str, adapter: &str) -> Tensors {
    Tensors::open_file(&golden().join(model).join(format!("{adapter}.golden.safetensors"))).unwrap()
}

/// Largest difference of two slices, relative to the largest expected magnitude.
pub fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    found.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}
