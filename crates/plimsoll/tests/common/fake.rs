//! Engines whose scores are a function, so that a whole search takes milliseconds; adapters, samples and functions for
//! them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::ControlFlow;

use plimsoll::data::Sample;
use plimsoll::engine::{Capabilities, EngineIdentity, Probe, Request, ScoreEvent, Scorer};
use plimsoll::lora::{LoraTable, Projection, Variant};
use plimsoll::result::{LensCurve, SampleScores, VariantScore};
use plimsoll::{Error, Result};

/// Number of samples that are finished together.
pub(crate) const BATCH: usize = 3;

/// Number of variants that the engine scores at once.
const PASS: usize = 128;

/// Number of layers in most tests.
pub(crate) const LAYERS: usize = 6;

/// The modules that have LoRA.
const MODULES: [Projection; 2] = [Projection::Q, Projection::V];

/// Mean NLL of a sample's answer under a variant, in nats per token.
pub(crate) type Nll = dyn Fn(&Sample, &Variant) -> f64;

/// A scorer whose scores are a function of sample and variant. The unit of its work is one sample under one variant.
pub(crate) struct FakeScorer<'a> {
    table: &'a LoraTable,
    capabilities: Capabilities,
    nll: &'a Nll,
    /// The layer from which on the full adapter's curve is steeper.
    bend: usize,
    /// Number of calls after which the engine fails.
    fails_after: Option<usize>,
    calls: Cell<usize>,
    /// How often each sample was scored under each variant, by line and gates.
    scored: RefCell<HashMap<(usize, String), usize>>,
}

impl<'a> FakeScorer<'a> {
    pub(crate) fn new(table: &'a LoraTable, nll: &'a Nll) -> Self {
        Self {
            table,
            capabilities: Capabilities::ALL,
            nll,
            bend: table.layers() / 2,
            fails_after: None,
            calls: Cell::new(0),
            scored: RefCell::default(),
        }
    }

    pub(crate) fn with_capabilities(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }

    /// The same engine, failing after this number of calls.
    pub(crate) fn failing_after(self, calls: Option<usize>) -> Self {
        Self { fails_after: calls, ..self }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.get()
    }

    /// How often each sample was scored under each variant, by line and gates.
    pub(crate) fn scored(&self) -> HashMap<(usize, String), usize> {
        self.scored.borrow().clone()
    }

    /// Refuses a request beyond the engine's capabilities.
    fn check(&self, request: &Request) -> Result<()> {
        let Request { variants, lens, token_nll } = request;
        let is_strength = |gate: &f32| *gate != 0.0 && *gate != 1.0;
        let has_strengths = |variant: &Variant| variant.gates.iter().flat_map(|gates| &gates.0).any(is_strength);
        let Capabilities { lens: can_draw, token_nll: can_split, strengths } = self.capabilities;
        let refused = [
            (!can_draw && !lens.is_empty(), "no lens"),
            (!can_split && *token_nll, "no NLL of tokens"),
            (!strengths && variants.iter().any(has_strengths), "no strengths but 0 and 1"),
            (variants.iter().any(|variant| variant.gates.len() != self.layers()), "a variant of another model"),
            (variants.len() > PASS, "more variants than fit in a pass"),
            (self.fails_after.is_some_and(|calls| self.calls() > calls), "the server is gone"),
        ];
        match refused.into_iter().find(|(is_refused, _)| *is_refused) {
            Some((_, reason)) => Err(Error::Engine(reason.into())),
            None => Ok(()),
        }
    }

    fn sample(&self, sample: &Sample, request: &Request) -> SampleScores {
        let tokens = sample.answer.len();
        let means: Vec<f64> = request.variants.iter().map(|variant| (self.nll)(sample, variant)).collect();
        let score = |mean: &f64| VariantScore {
            nll: mean * tokens as f64,
            probability: (-mean).exp().clamp(0.0, 1.0),
            correct: if *mean < 1.0 { tokens } else { 0 },
        };
        // The first token has half of the NLL.
        let weight = |at: usize| match (at, tokens) {
            (_, 1) => 1.0,
            (0, _) => 0.5,
            (_, tokens) => 0.5 / (tokens - 1) as f64,
        };
        let split = |mean: &f64| (0..tokens).map(|at| (mean * tokens as f64 * weight(at)) as f32).collect();
        SampleScores {
            line: sample.line,
            tokens,
            variants: means.iter().map(score).collect(),
            lens: request.lens.iter().map(|&index| self.curve(&request.variants[index])).collect(),
            token_nll: if request.token_nll { means.iter().map(split).collect() } else { Vec::new() },
        }
    }

    /// A straight line for the base model, and a line with a bend for every other variant.
    fn curve(&self, variant: &Variant) -> LensCurve {
        let layers = self.layers();
        let has_lora = variant.layers_kept() > 0;
        let probability = |layer: usize| {
            let above = if has_lora { (layer + 1).saturating_sub(self.bend) } else { 0 };
            (0.1 * (layer + 1) as f64 + 0.8 * above as f64) / layers as f64
        };
        LensCurve {
            probability: (0..layers).map(probability).collect(),
            top1: vec![0.5; layers],
            rank: (0..layers).rev().map(|left| left as f64).collect(),
        }
    }
}

impl Scorer for FakeScorer<'_> {
    fn layers(&self) -> usize {
        self.table.layers()
    }

    fn adapted(&self) -> &[[bool; Projection::COUNT]] {
        &self.table.adapted
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn identity(&self) -> EngineIdentity {
        EngineIdentity { dtype: "f64".into(), instructions: "a function".into(), threads: 1 }
    }

    fn work(&self, samples: &[Sample], request: &Request) -> u64 {
        (samples.len() * request.variants.len()) as u64
    }

    fn measure_rate(&self, _: &[u32]) -> Result<f64> {
        Ok(1.0)
    }

    fn score(
        &self,
        samples: &[Sample],
        request: &Request,
        observe: &mut dyn FnMut(ScoreEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<SampleScores>> {
        self.calls.set(self.calls() + 1);
        self.check(request)?;
        let mut all = Vec::new();
        for batch in samples.chunks(BATCH) {
            for (sample, variant) in batch.iter().flat_map(|sample| request.variants.iter().map(move |v| (sample, v))) {
                *self.scored.borrow_mut().entry((sample.line, variant.spec())).or_default() += 1;
            }
            stop_if(observe(ScoreEvent::Work(self.work(batch, request))))?;
            let finished: Vec<SampleScores> = batch.iter().map(|sample| self.sample(sample, request)).collect();
            let flow = observe(ScoreEvent::Scored(&finished));
            all.extend(finished);
            stop_if(flow)?;
        }
        Ok(all)
    }
}

/// A probe whose energies are given, by layer and token.
pub(crate) struct FakeProbe(pub(crate) Vec<f64>);

impl Probe for FakeProbe {
    fn output_energy(
        &self,
        samples: &[Sample],
        go_on: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Vec<[f64; Projection::COUNT]>> {
        stop_if(go_on(self.energy_work(samples)))?;
        let tokens: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
        Ok(self.0.iter().map(|energy| modules(energy * tokens as f64, 0.0)).collect())
    }

    fn energy_work(&self, samples: &[Sample]) -> u64 {
        samples.len() as u64
    }

    fn hidden_states(&self, _: &[u32], _: &Variant) -> Result<Vec<Vec<f32>>> {
        Err(Error::Engine("no hidden states".into()))
    }
}

fn stop_if(flow: ControlFlow<()>) -> Result<()> {
    if flow.is_break() { Err(Error::Interrupted) } else { Ok(()) }
}

/// A reproducible random number for a sample and a purpose: nearly normal, with mean 0 and standard deviation 1.
pub(crate) fn noise(line: usize, purpose: usize) -> f64 {
    let mut state = ((line as u64) << 32) ^ purpose as u64;
    // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    // The sum of twelve uniform numbers has a variance of 1.
    (0..12).map(|_| uniform()).sum::<f64>() - 6.0
}

/// An adapter with LoRA on all layers' queries and values: 10 and 6 bytes, and 4 bytes that are always kept.
pub(crate) fn table(layers: usize) -> LoraTable {
    LoraTable {
        adapted: vec![modules(true, true); layers],
        norms: vec![modules(1.0, 1.0); layers],
        bytes: vec![modules(10, 6); layers],
        bytes_kept_always: 4,
        bytes_dropped_always: 0,
    }
}

fn modules<T: Copy + Default>(query: T, value: T) -> [T; Projection::COUNT] {
    let mut modules = [T::default(); Projection::COUNT];
    (modules[Projection::Q as usize], modules[Projection::V as usize]) = (query, value);
    modules
}

/// The same with other norms of the queries' updates.
pub(crate) fn with_norms(mut table: LoraTable, norms: [f64; LAYERS]) -> LoraTable {
    for (modules, norm) in table.norms.iter_mut().zip(norms) {
        modules[Projection::Q as usize] = norm;
    }
    table
}

pub(crate) fn sample(line: usize) -> Sample {
    let answer: Vec<usize> = (3..5 + line % 3).collect();
    Sample { line, tokens: (0..5 + line % 3).map(|at| (line + at) as u32 % 50).collect(), answer }
}

/// The part of a sample's NLL that no variant changes.
pub(crate) fn hardness(sample: &Sample) -> f64 {
    3.0 + 0.4 * noise(sample.line, 100)
}

/// A layer's worth to one sample, relative to its mean worth.
pub(crate) fn share(sample: &Sample, layer: usize) -> f64 {
    1.0 + 0.2 * noise(sample.line, layer)
}

/// The mean LoRA strength of a layer.
pub(crate) fn strength(variant: &Variant, layer: usize) -> f64 {
    MODULES.iter().map(|&module| f64::from(variant.gates[layer].get(module))).sum::<f64>() / MODULES.len() as f64
}

/// The NLL falls by each layer's worth, in proportion to its strength up to 1.
pub(crate) fn worth<const N: usize>(worths: [f64; N]) -> impl Fn(&Sample, &Variant) -> f64 {
    move |sample, variant| {
        let of_layer = |layer: usize| worths[layer] * share(sample, layer) * strength(variant, layer).min(1.0);
        hardness(sample) - (0..N).map(of_layer).sum::<f64>()
    }
}

/// The NLL is lowest at the target, and rises with each place's squared distance from it.
pub(crate) fn near(target: Variant) -> impl Fn(&Sample, &Variant) -> f64 {
    move |sample, variant| {
        let of_place = |(layer, module): (usize, &Projection)| {
            let distance = variant.gates[layer].get(*module) - target.gates[layer].get(*module);
            0.1 * f64::from(distance * distance) * share(sample, 10 * layer + *module as usize)
        };
        let places = (0..variant.gates.len()).flat_map(|layer| MODULES.iter().map(move |module| (layer, module)));
        hardness(sample) + places.map(of_place).sum::<f64>()
    }
}
