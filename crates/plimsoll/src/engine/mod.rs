//! Engines: traits for scoring samples, generating answers and measuring, and the CPU engine.
//!
//! A [`Scorer`] scores samples under variants. A [`Generator`] answers prompts. A [`Probe`] observes a forward pass,
//! and a [`Benchmark`] measures speeds. Code above these traits (families, statistics, reports) handles no tensors;
//! code below them handles no statistics. [`CpuEngine`] implements all of them on the CPU. Two of its parts serve other
//! engines too: the trie of variants (`trie`), and the plan that keeps a request within a memory limit (`plan`).
//!
//! ```
//! # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/golden/tiny-gqa-tied");
//! use std::ops::ControlFlow;
//!
//! use plimsoll::data::Sample;
//! use plimsoll::engine::{CpuEngine, CpuOptions, Request, Scorer as _};
//! use plimsoll::lora::Variant;
//! use plimsoll::{Adapter, Model};
//!
//! let model = Model::open(folder)?;
//! let adapter = Adapter::open(format!("{folder}/adapters/plain"))?;
//! let lora = model.bind(Some(&adapter))?;
//! let engine = CpuEngine::load(&model, &lora, CpuOptions::default())?;
//! // The tokens at positions 2 and 3 are the answer.
//! let samples = [Sample { line: 1, tokens: vec![30, 31, 32, 33], answer: vec![2, 3] }];
//! let request = Request { variants: Variant::every_boundary(engine.layers()), ..Request::default() };
//! let scores = engine.score(&samples, &request, &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(scores[0].variants.len(), engine.layers() + 1);
//! # Ok::<(), plimsoll::Error>(())
//! ```

mod batch;
mod cpu;
mod generator;
mod plan;
mod probe;
mod scorer;
mod trie;

pub use cpu::{CpuBenchmark, CpuDecoder, CpuEngine, CpuOptions, CpuProbe, MAX_THREADS, Prefix, Sequence};
pub use generator::Generator;
pub use probe::{Benchmark, Probe};
pub use scorer::{Capabilities, EngineIdentity, Request, ScoreEvent, Scorer, layer_passes};

/// The engines of one model and one adapter that a search or an evaluation runs on.
#[derive(Clone, Copy)]
pub struct Engines<'a> {
    /// Scores samples.
    pub scorer: &'a dyn Scorer,
    /// Answers prompts.
    pub generator: Option<&'a dyn Generator>,
    /// Observes forward passes.
    pub probe: Option<&'a dyn Probe>,
    /// Measures speed and size of variants.
    pub benchmark: Option<&'a dyn Benchmark>,
}
