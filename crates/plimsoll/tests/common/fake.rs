//! Engines without a model: scores come from a function, so that a whole search takes milliseconds.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::ControlFlow;

use plimsoll::data::Sample;
use plimsoll::engine::{Capabilities, EngineIdentity, Probe, Request, ScoreEvent, Scorer};
use plimsoll::lora::{LoraTable, Projection, Variant};
use plimsoll::result::{LensCurve, SampleScores, VariantScore};
use plimsoll::{Error, Result};

/// Samples that are finished together.
const BATCH: usize = 3;

/// Mean NLL of a sample's answer under a variant, in nats per token.
pub(crate) type Nll = dyn Fn(&Sample, &Variant) -> f64;

/// A scorer whose scores are a function of sample and variant. A unit of its work is one sample under one variant.
pub(crate) struct FakeScorer<'a> {
    table: &'a LoraTable,
    capabilities: Capabilities,
    nll: &'a Nll,
    /// The layer from which on the full adapter's curve is steeper.
    bend: usize,
    /// Calls after which the engine fails.
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

    /// Fails at the call after so many.
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

    /// Refuses what the engine cannot do, as a real one would.
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
        // The first token is as hard as all others together.
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

    /// Straight for the base model; for every other variant with a bend.
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

    fn measure_rate(&self, _: &[u32]) -> f64 {
        1.0
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
        let of_layer = |energy: &f64| {
            let mut modules = [0.0; Projection::COUNT];
            modules[Projection::Q as usize] = energy * tokens as f64;
            modules
        };
        Ok(self.0.iter().map(of_layer).collect())
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

/// A number that is the same for the same sample and purpose: nearly normal, with mean 0 and standard deviation 1.
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
