//! The fixtures of `reference/make_families.py`, and the errors of the engine on them.

#![allow(clippy::unwrap_used, reason = "a fixture that cannot be read is a failed test")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use plimsoll::data::Sample;
use plimsoll::engine::{CpuEngine, CpuOptions, Request, Scorer as _};
use plimsoll::formats::Tensors;
use plimsoll::lora::Variant;
use plimsoll::lora::adapter::{Adapter, EmbeddingLora};
use plimsoll::model::{Dtype, Model, Precision};
use serde::Deserialize;

/// The adapters of every family.
const ADAPTERS: [&str; 3] = ["lora", "rslora", "dora"];
/// Further adapters of some families: LoRA on embeddings, and weights trained in full.
const MORE: [&str; 2] = ["ends", "saved"];

/// `golden.json`
#[derive(Deserialize)]
struct Golden {
    single_precision: BTreeMap<String, f64>,
    sequences: Vec<Sequence>,
    /// By adapter, sequence and layers kept.
    nll: BTreeMap<String, Vec<Vec<f64>>>,
}

#[derive(Deserialize)]
struct Sequence {
    ids: Vec<u32>,
    answer: Vec<usize>,
    /// Positions with known hidden states and logits.
    positions: Vec<usize>,
}

/// One line of the table: the largest errors of a family in one form with one adapter, each relative to the largest
/// magnitude of the expected values.
pub(crate) struct Line {
    pub(crate) family: String,
    pub(crate) form: &'static str,
    pub(crate) adapter: &'static str,
    /// Error of hidden states after each layer, of the base model and of the full adapter.
    pub(crate) hidden: f64,
    /// Error of logits, of the base model and of the full adapter.
    pub(crate) logits: f64,
    /// Relative error of the NLL, of every boundary.
    pub(crate) nll: f64,
    /// Error of hidden states and logits of PyTorch in single precision, from the same reference in double precision.
    pub(crate) pytorch: f64,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, form, adapter, hidden, logits, nll, pytorch } = self;
        write!(f, "{family:<18} {form:<12} {adapter:<7} {hidden:>8.1e} {logits:>8.1e} {nll:>8.1e} {pytorch:>8.1e}")
    }
}

/// The header of the table.
pub(crate) const HEADER: &str = "family             weights      adapter   hidden   logits      NLL  PyTorch f32";

/// Every family in every form with every adapter.
pub(crate) fn table() -> Vec<Line> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut lines = Vec::new();
    for folder in folders {
        for (form, path) in [("safetensors", folder.clone()), ("GGUF", folder.join("model.gguf"))] {
            if path.exists() {
                let has = |adapter: &&str| folder.join("adapters").join(adapter).exists();
                let adapters = ADAPTERS.into_iter().chain(MORE.into_iter().filter(has));
                lines.extend(adapters.map(|adapter| line(&folder, form, &path, adapter)));
            }
        }
    }
    lines
}

fn line(folder: &Path, form: &'static str, path: &Path, adapter: &'static str) -> Line {
    let golden: Golden = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let tensors = Tensors::open_file(&folder.join("golden.safetensors")).unwrap();
    let checkpoint = Model::open(path).unwrap();
    let opened =
        Adapter::open(folder.join("adapters").join(adapter)).unwrap().with_embedding_lora(Some(EmbeddingLora::Keep));
    let lora = checkpoint.bind(Some(&opened)).unwrap();
    let options = CpuOptions { precision: Precision::new(Dtype::F32), ..CpuOptions::default() };
    let engine = CpuEngine::load(&checkpoint, &lora, options).unwrap();
    let layers = lora.len();
    let rows = |values: &[f32], count: usize, positions: &[usize]| -> Vec<f32> {
        let width = values.len() / count;
        positions.iter().flat_map(|&at| &values[at * width..(at + 1) * width]).copied().collect()
    };

    let (mut hidden, mut logits): (f64, f64) = (0.0, 0.0);
    for (number, Sequence { ids, positions, .. }) in golden.sequences.iter().enumerate() {
        // Weights outside the layers are changed in every variant.
        let base = if ADAPTERS.contains(&adapter) { "base".to_owned() } else { format!("{adapter}.base") };
        for (name, kept) in [(base.as_str(), 0), (adapter, layers)] {
            let variant = Variant::bottom_k(layers, kept);
            let expected = tensors.read(&format!("{name}.hidden.{number}")).unwrap(); // (layers, positions, hidden)
            let states = engine.hidden_states(ids, &variant).unwrap();
            for (state, expected) in states.iter().zip(expected.chunks(expected.len() / layers)) {
                hidden = hidden.max(distance(&rows(state, ids.len(), positions), expected));
            }
            let expected = tensors.read(&format!("{name}.logits.{number}")).unwrap();
            let found = rows(&engine.logits(ids, &variant).unwrap(), ids.len(), positions);
            logits = logits.max(distance(&found, &expected));
        }
    }
    let sample = |(line, sequence): (usize, &Sequence)| {
        let Sequence { ids, answer, .. } = sequence;
        Sample { line, tokens: ids.clone(), answer: answer.clone() }
    };
    let samples: Vec<Sample> = golden.sequences.iter().enumerate().map(sample).collect();
    let request = Request { variants: Variant::every_boundary(layers), ..Request::default() };
    let scores = engine.score(&samples, &request, &mut |_| ControlFlow::Continue(())).unwrap();
    let mut nll: f64 = 0.0;
    for (scores, expected) in scores.iter().zip(&golden.nll[adapter]) {
        assert_eq!(scores.variants.len(), expected.len());
        for (found, expected) in scores.variants.iter().zip(expected) {
            assert!(found.nll.is_finite(), "{}", found.nll);
            nll = nll.max((found.nll / expected - 1.0).abs());
        }
    }
    let family = folder.file_name().unwrap().to_string_lossy().into_owned();
    Line { family, form, adapter, hidden, logits, nll, pytorch: golden.single_precision[adapter] }
}

/// Largest difference, relative to the largest expected magnitude.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    // `f32::max` ignores NaN.
    assert!(found.iter().all(|value| value.is_finite()));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    f64::from(found.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest)
}
