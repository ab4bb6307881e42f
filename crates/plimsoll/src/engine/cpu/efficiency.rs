//! Benchmark of variants at inference: bytes of the adapter, time to load it, decoding speed.
//!
//! An unmerged adapter costs time in every layer that has LoRA. A merged adapter has the speed of the base model at
//! every boundary, so its speed is measured as that. Each round decodes with every variant; the median over rounds is
//! reported with the slowest and the fastest one, because other processes disturb single rounds. Loading takes
//! milliseconds: it is repeated until the total is long enough to measure, and the median is reported.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decoding::{CpuDecoder, Prefix, Sequence};
use super::load::CpuEngine;
use crate::engine::probe::Benchmark;
use crate::engine::scorer::Scorer as _;
use crate::error::{Error, Result};
use crate::generate::{Decoder as _, Step, most_probable};
use crate::lora::Variant;
use crate::lora::adapter::{self, Adapter, Provenance};
use crate::model::{Lora, Model};
use crate::result::{Efficiency, Speed, VariantEfficiency};

/// Number of sequences that are decoded together, as in a small server.
const BATCH: usize = 8;
/// Tokens that are decoded for each sequence in a round.
const TOKENS: usize = 4;
/// Maximum length of a prompt, in tokens.
const PROMPT: usize = 128;
/// Maximum number of variants with LoRA.
const VARIANTS: usize = 5;
/// Maximum and minimum number of rounds.
const ROUNDS: (usize, usize) = (7, 3);
/// No round beyond the minimum begins after this time.
const ENOUGH: Duration = Duration::from_secs(3);

/// Minimum and maximum number of timed loads of an adapter; a first one is not timed.
const LOADS: (usize, usize) = (5, 100);
/// Loads beyond the minimum end when they have taken this time in total.
const ENOUGH_LOADS: Duration = Duration::from_millis(300);

/// The benchmark of a CPU engine, with the model and the adapter that it was loaded from.
#[derive(Clone, Copy, Debug)]
pub struct CpuBenchmark<'a> {
    /// The engine, with the full adapter.
    pub engine: &'a CpuEngine,
    /// The engine's model.
    pub model: &'a Model,
    /// The engine's adapter.
    pub adapter: &'a Adapter,
    /// A folder for temporary trimmed adapters.
    pub scratch: &'a Path,
}

impl Benchmark for CpuBenchmark<'_> {
    fn efficiency(
        &self,
        variants: &[Variant],
        prompts: &[&[u32]],
        go_on: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Efficiency> {
        let Self { engine, .. } = *self;
        let mut check = || if go_on().is_break() { Err(Error::Interrupted) } else { Ok(()) };
        let base = Variant::uniform(engine.layers(), 0.0);
        let variants: Vec<Variant> = std::iter::once(&base).chain(some_with_lora(variants)).cloned().collect();
        let speeds = decoding_speeds(engine, &variants, prompts, &mut check)?;
        let mut measured = Vec::with_capacity(variants.len());
        for (variant, speeds) in variants.iter().zip(speeds) {
            check()?;
            let kept = variant.layers_kept();
            let loaded = self.load_variant(variant)?;
            measured.push(VariantEfficiency {
                name: if kept == 0 { "merged".to_owned() } else { variant.name() },
                layers_kept: (kept > 0).then_some(kept),
                adapter_bytes: loaded.map_or(0, |(bytes, _)| bytes),
                load_seconds: loaded.map(|(_, seconds)| seconds),
                tokens_per_second: Speed::of(speeds),
            });
        }
        let dtype = engine.model().precision().dtype.to_string();
        Ok(Efficiency { batch: BATCH, threads: engine.threads(), dtype, variants: measured })
    }
}

impl CpuBenchmark<'_> {
    /// Bytes and load time of a variant's adapter; `None` for a variant without LoRA.
    fn load_variant(&self, variant: &Variant) -> Result<Option<(u64, f64)>> {
        let Self { engine, adapter, scratch, .. } = *self;
        // Tensors that every variant keeps (LoRA on embeddings, weights trained in full) do not count as LoRA.
        if adapter.modules().all(|module| variant.gates[module.layer].get(module.projection) == 0.0) {
            return Ok(None);
        }
        if *variant == Variant::uniform(engine.layers(), 1.0) {
            return load(self, adapter).map(Some);
        }
        let folder = tempfile::tempdir_in(scratch).map_err(Error::write(scratch))?;
        let path = folder.path().join("adapter");
        adapter::write_trimmed(adapter, variant, &Provenance::default(), &path)?;
        load(self, &Adapter::open(&path)?.with_embedding_lora(adapter.embedding_lora())).map(Some)
    }
}

/// Variants that keep any LoRA, by the number of layers that they keep; of many, an even selection.
fn some_with_lora(variants: &[Variant]) -> Vec<&Variant> {
    let mut some: Vec<&Variant> = variants.iter().filter(|variant| variant.layers_kept() > 0).collect();
    some.sort_by_key(|variant| variant.layers_kept());
    if some.len() > VARIANTS {
        some = (0..VARIANTS).map(|place| some[place * (some.len() - 1) / (VARIANTS - 1)]).collect();
    }
    some
}

/// Tokens per second of each variant, one number for each round. `check` is called between pieces of work.
fn decoding_speeds(
    engine: &CpuEngine,
    variants: &[Variant],
    prompts: &[&[u32]],
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<Vec<f64>>> {
    let prompts: Vec<&[u32]> =
        prompts.iter().map(|prompt| &prompt[..prompt.len().min(PROMPT)]).filter(|prompt| !prompt.is_empty()).collect();
    let mut decoder = engine.decoder(PROMPT + TOKENS + 1);
    let mut begun = Vec::with_capacity(variants.len());
    for variant in variants {
        check()?;
        begun.push(begin(&mut decoder, variant, &prompts)?);
    }
    let mut speeds = vec![Vec::new(); variants.len()];
    let clock = Instant::now();
    for round in 0..ROUNDS.0 {
        if round >= ROUNDS.1 && clock.elapsed() > ENOUGH {
            break;
        }
        for (begun, speeds) in begun.iter().zip(&mut speeds) {
            check()?;
            speeds.push(decode(&mut decoder, begun));
        }
    }
    Ok(speeds)
}

/// A prompt that was processed, and the token that follows it.
type Begun = (Arc<Prefix>, u32);

/// Processes the prompts of all sequences of a batch.
fn begin(decoder: &mut CpuDecoder<'_>, variant: &Variant, prompts: &[&[u32]]) -> Result<Vec<Begun>> {
    let prompts = if prompts.is_empty() { &[&[0][..]] } else { prompts };
    let mut begun = Vec::with_capacity(BATCH);
    for tokens in prompts.iter().cycle().take(BATCH) {
        let mut sequence = decoder.begin(variant)?;
        let logits = decoder.forward(&mut [Step { sequence: &mut sequence, tokens }]);
        begun.push((decoder.share(sequence), most_probable(&logits)));
    }
    Ok(begun)
}

/// Tokens per second of all sequences together.
fn decode(decoder: &mut CpuDecoder<'_>, begun: &[Begun]) -> f64 {
    let mut sequences: Vec<_> = begun.iter().map(|(prefix, _)| decoder.fork(prefix)).collect();
    let mut next: Vec<u32> = begun.iter().map(|(_, token)| *token).collect();
    let clock = Instant::now();
    for _ in 0..TOKENS {
        let steps = sequences.iter_mut().zip(next.chunks(1));
        let mut steps: Vec<Step<'_, Sequence>> = steps.map(|(sequence, tokens)| Step { sequence, tokens }).collect();
        let logits = decoder.forward(&mut steps);
        next = logits.chunks_exact(logits.len() / begun.len()).map(most_probable).collect();
    }
    let speed = (begun.len() * TOKENS) as f64 / clock.elapsed().as_secs_f64();
    sequences.into_iter().for_each(|sequence| decoder.end(sequence));
    speed
}

/// Bytes of an adapter's weight files, and the median time to read, check and pack it, in seconds.
fn load(subject: &CpuBenchmark<'_>, adapter: &Adapter) -> Result<(u64, f64)> {
    let CpuBenchmark { engine, model, .. } = *subject;
    let once = || -> Result<Duration> {
        let clock = Instant::now();
        let opened = Adapter::open(adapter.folder())?.with_embedding_lora(adapter.embedding_lora());
        let lora = model.bind(Some(&opened))?;
        let pack = |(layer, lora)| engine.model().pack_lora(layer, lora);
        let packed: Vec<Lora> = engine.pool().install(|| lora.iter().enumerate().map(pack).collect());
        let seconds = clock.elapsed();
        drop(packed);
        Ok(seconds)
    };
    // The first load reads the files into the system's cache.
    once()?;
    let seconds = repeated(once)?;
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let files = adapter.files();
    let weights = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    Ok((weights.map(size).sum(), Speed::of(seconds).median))
}

/// The times of work that is repeated until it has taken long enough in total, in seconds.
fn repeated(mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < LOADS.0 || (times.len() < LOADS.1 && times.iter().sum::<Duration>() < ENOUGH_LOADS) {
        times.push(once()?);
    }
    Ok(times.iter().map(Duration::as_secs_f64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_loads_are_repeated_more_often() {
        let loads = |milliseconds: u64| repeated(|| Ok(Duration::from_millis(milliseconds))).unwrap().len();
        assert_eq!([1000, 60, 15, 6, 0].map(loads), [5, 5, 20, 50, 100]);
    }

    #[test]
    fn the_median_round_is_between_the_slowest_and_the_fastest() {
        assert_eq!(Speed::of(vec![3.0, 1.0, 2.0]), Speed { median: 2.0, low: 1.0, high: 3.0, rounds: 3 });
        assert_eq!(Speed::of(Vec::new()).rounds, 0);
    }
}
