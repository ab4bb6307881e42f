//! Engines: what scores samples, generates answers and measures, behind three traits.
//!
//! A [`Scorer`] takes samples and variants and gives one score for each pair; a [`Generator`] answers prompts; a
//! [`Probe`] observes a pass. What is above them (families, statistics, reports) knows no tensors; what is below knows no
//! statistics. [`CpuEngine`] is all of them on this machine's CPU. Its parts serve other engines too: the trie of shared
//! gates (`trie`), and how a request is kept within a bound on memory (`plan`).

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

/// What a search or an evaluation runs on: engines of one model and one adapter.
#[derive(Clone, Copy)]
pub struct Engines<'a> {
    /// Scores samples.
    pub scorer: &'a dyn Scorer,
    /// Answers prompts.
    pub generator: Option<&'a dyn Generator>,
    /// Observes passes.
    pub probe: Option<&'a dyn Probe>,
    /// Measures what variants cost.
    pub benchmark: Option<&'a dyn Benchmark>,
}
