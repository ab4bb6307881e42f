//! What a cut saves at inference, measured and not assumed: bytes of the adapter, time to load it, speed of decoding.
//!
//! An adapter that is applied beside the frozen weights costs time in every layer that it is in. One that is merged into
//! them costs none, whatever its boundary: its speed is that of the base model, which is what is measured for it.
//! Variants are timed in turns, several rounds of them, since a machine has other things to do; the median is given with
//! the slowest and the fastest round. Loading takes milliseconds: it is repeated until that adds up to enough to measure,
//! and the median is given.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::adapter::{self, Adapter, Provenance};
use crate::engine::{Decoding, Embedded, Engine as _, Prefix, Turn};
use crate::error::{Error, Result};
use crate::gates::Variant;
use crate::generate::most_probable;
use crate::model::{Checkpoint, Lora};

/// Sequences side by side: what a small server has in flight.
const BATCH: usize = 8;
/// Tokens that each of them grows by, timed together.
const TOKENS: usize = 12;
/// Prompt tokens of each at most.
const PROMPT: usize = 128;
/// Variants at most.
const VARIANTS: usize = 5;
/// Rounds at most, and at least however slow they are.
const ROUNDS: (usize, usize) = (7, 3);
/// No further round begins after this.
const ENOUGH: Duration = Duration::from_secs(10);

/// Loads of an adapter that are timed at least and at most, after one that is not.
const LOADS: (usize, usize) = (5, 100);
/// Between these, they are repeated until they took so long together.
const ENOUGH_LOADS: Duration = Duration::from_millis(300);

/// What was measured of some variants on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Efficiency {
    /// Sequences that were decoded side by side.
    pub batch: usize,
    /// Worker threads.
    pub threads: usize,
    /// Type of number of weights.
    pub dtype: String,
    /// The adapter merged first, then what was asked for.
    pub variants: Vec<VariantEfficiency>,
}

/// What was measured of one variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VariantEfficiency {
    /// `merged`, `full`, or the number of layers.
    pub name: String,
    /// Layers that keep their LoRA; null for a merged adapter, whose boundary makes no difference.
    pub layers_kept: Option<usize>,
    /// Bytes of the adapter's weight file.
    pub adapter_bytes: u64,
    /// Seconds to read, check and pack the adapter, the files being in the system's cache: the median of several loads; none
    /// where there is none to load.
    pub load_seconds: Option<f64>,
    /// Decoding speed of all sequences together.
    pub tokens_per_second: Speed,
}

/// A speed that was measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Speed {
    /// The median round.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
    /// How many rounds there were.
    pub rounds: usize,
}

/// What is measured, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The engine, which holds the whole adapter.
    pub engine: &'a Embedded,
    /// Its model.
    pub checkpoint: &'a Checkpoint,
    /// The adapter.
    pub adapter: &'a Adapter,
    /// A folder in which trimmed adapters are written for a moment.
    pub scratch: &'a Path,
}

/// Measures the variants that keep any LoRA, a few of them where they are many, and the merged adapter beside them, on some
/// prompts. `go_on` is asked between pieces of work.
///
/// # Errors
/// A scratch folder that cannot be written, or [`Error::Interrupted`] where `go_on` broke.
pub fn measure(
    subject: &Subject<'_>,
    variants: &[Variant],
    prompts: &[&[u32]],
    go_on: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Efficiency> {
    let Subject { engine, adapter, scratch, .. } = *subject;
    let layers = engine.layers();
    let mut some: Vec<&Variant> = variants.iter().filter(|variant| variant.layers_kept() > 0).collect();
    some.sort_by_key(|variant| variant.layers_kept());
    if some.len() > VARIANTS {
        some = (0..VARIANTS).map(|place| some[place * (some.len() - 1) / (VARIANTS - 1)]).collect();
    }
    let mut check = || if go_on().is_break() { Err(Error::Interrupted) } else { Ok(()) };

    let base = Variant::uniform(layers, 0.0);
    let variants: Vec<Variant> = std::iter::once(&base).chain(some).cloned().collect();
    let prompts: Vec<&[u32]> =
        prompts.iter().map(|prompt| &prompt[..prompt.len().min(PROMPT)]).filter(|prompt| !prompt.is_empty()).collect();
    let mut decoding = engine.decoding(PROMPT + TOKENS + 1);
    let mut begun = Vec::with_capacity(variants.len());
    for variant in &variants {
        check()?;
        begun.push(begin(&mut decoding, variant, &prompts)?);
    }
    let mut speeds = vec![Vec::new(); variants.len()];
    let clock = Instant::now();
    for round in 0..ROUNDS.0 {
        if round >= ROUNDS.1 && clock.elapsed() > ENOUGH {
            break;
        }
        for (begun, speeds) in begun.iter().zip(&mut speeds) {
            check()?;
            speeds.push(decode(&mut decoding, begun));
        }
    }

    let mut measured = Vec::with_capacity(variants.len());
    for (variant, speeds) in variants.iter().zip(speeds) {
        check()?;
        let kept = variant.layers_kept();
        let bytes = adapter.bytes_kept(variant);
        let loaded = if bytes == 0 {
            None
        } else if *variant == Variant::uniform(layers, 1.0) {
            Some(load(subject, adapter)?)
        } else {
            let folder = tempfile::tempdir_in(scratch).map_err(Error::write(scratch))?;
            let path = folder.path().join("adapter");
            adapter::write_trimmed(adapter, variant, &Provenance::default(), &path)?;
            Some(load(subject, &Adapter::open(&path)?.with_ends(adapter.ends_choice()))?)
        };
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

/// A prompt that was read, and the token that follows it.
type Begun = (Arc<Prefix>, u32);

/// Reads as many prompts as sequences are decoded side by side.
fn begin(decoding: &mut Decoding<'_>, variant: &Variant, prompts: &[&[u32]]) -> Result<Vec<Begun>> {
    let prompts = if prompts.is_empty() { &[&[0][..]] } else { prompts };
    let mut begun = Vec::with_capacity(BATCH);
    for tokens in prompts.iter().cycle().take(BATCH) {
        let mut sequence = decoding.begin(variant)?;
        let logits = decoding.feed(&mut [Turn { sequence: &mut sequence, tokens }]);
        begun.push((sequence.into_prefix(), most_probable(&logits)));
    }
    Ok(begun)
}

/// Tokens per second of all sequences together.
fn decode(decoding: &mut Decoding<'_>, begun: &[Begun]) -> f64 {
    let mut sequences: Vec<_> = begun.iter().map(|(prefix, _)| decoding.follow(prefix)).collect();
    let mut next: Vec<u32> = begun.iter().map(|(_, token)| *token).collect();
    let clock = Instant::now();
    for _ in 0..TOKENS {
        let turns = sequences.iter_mut().zip(next.chunks(1));
        let mut turns: Vec<Turn<'_>> = turns.map(|(sequence, tokens)| Turn { sequence, tokens }).collect();
        let logits = decoding.feed(&mut turns);
        next = logits.chunks_exact(logits.len() / begun.len()).map(most_probable).collect();
    }
    let speed = (begun.len() * TOKENS) as f64 / clock.elapsed().as_secs_f64();
    sequences.into_iter().for_each(|sequence| decoding.end(sequence));
    speed
}

/// Bytes of an adapter's weight file, and the median of the seconds that it takes to read, check and pack it.
fn load(subject: &Subject<'_>, adapter: &Adapter) -> Result<(u64, f64)> {
    let Subject { engine, checkpoint, .. } = *subject;
    let once = || -> Result<Duration> {
        let clock = Instant::now();
        let opened = Adapter::open(adapter.folder())?.with_ends(adapter.ends_choice());
        let lora = checkpoint.bind(Some(&opened))?;
        let pack = |(layer, lora)| Lora::new(engine.model(), layer, lora);
        let packed: Vec<Lora> = engine.pool().install(|| lora.iter().enumerate().map(pack).collect());
        let seconds = clock.elapsed();
        drop(packed);
        Ok(seconds)
    };
    // The first one reads the files into the system's cache.
    once()?;
    let seconds = repeated(once)?;
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let files = adapter.files();
    let weights = files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    Ok((weights.map(size).sum(), Speed::of(seconds).median))
}

/// The seconds of something that is repeated until it took long enough together.
fn repeated(mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<f64>> {
    let mut times: Vec<Duration> = Vec::new();
    while times.len() < LOADS.0 || (times.len() < LOADS.1 && times.iter().sum::<Duration>() < ENOUGH_LOADS) {
        times.push(once()?);
    }
    Ok(times.iter().map(Duration::as_secs_f64).collect())
}

impl Speed {
    fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        let at = |index: usize| rounds.get(index).copied().unwrap_or(0.0);
        let last = rounds.len().saturating_sub(1);
        Self { median: at(rounds.len() / 2), low: at(0), high: at(last), rounds: rounds.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quick_is_repeated_until_it_adds_up() {
        let loads = |milliseconds: u64| repeated(|| Ok(Duration::from_millis(milliseconds))).unwrap().len();
        assert_eq!([1000, 60, 15, 6, 0].map(loads), [5, 5, 20, 50, 100]);
    }

    #[test]
    fn the_median_round_stands_between_the_slowest_and_the_fastest() {
        assert_eq!(Speed::of(vec![3.0, 1.0, 2.0]), Speed { median: 2.0, low: 1.0, high: 3.0, rounds: 3 });
        assert_eq!(Speed::of(Vec::new()).rounds, 0);
    }
}
