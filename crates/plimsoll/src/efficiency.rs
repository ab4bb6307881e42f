//! What a cut saves at inference, measured and not assumed: bytes of the adapter, time to load it, speed of decoding.
//!
//! An adapter that is applied beside the frozen weights costs time in every layer that it is in. One that is merged into
//! them costs none, whatever its boundary: its speed is that of the base model, which is what is measured for it.
//! Variants are timed in turns, several rounds of them, since a machine has other things to do; the median is given with
//! the slowest and the fastest round.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::adapter::{self, Adapter, Base, Provenance};
use crate::engine::{Decoding, Embedded, Engine as _, Turn};
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
/// Rounds at most, and at least however slow they are.
const ROUNDS: (usize, usize) = (7, 3);
/// No further round begins after this.
const ENOUGH: Duration = Duration::from_secs(10);

/// What was measured of some variants on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VariantEfficiency {
    /// `merged`, `full`, or the number of layers.
    pub name: String,
    /// Layers that keep their LoRA; null for a merged adapter, whose boundary makes no difference.
    pub layers_kept: Option<usize>,
    /// Bytes of the adapter's weight file.
    pub adapter_bytes: u64,
    /// Seconds to read, check and pack the adapter, the files being in the system's cache; none where there is none to load.
    pub load_seconds: Option<f64>,
    /// Decoding speed of all sequences together.
    pub tokens_per_second: Speed,
}

/// A speed that was measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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

/// Measures the boundaries that keep any LoRA, and the merged adapter beside them, on some prompts.
///
/// # Errors
/// A temporary folder that cannot be written.
pub fn measure(
    engine: &Embedded,
    checkpoint: &Checkpoint,
    adapter: &Adapter,
    boundaries: &[usize],
    prompts: &[&[u32]],
) -> Result<Efficiency> {
    let layers = engine.layers();
    let mut boundaries: Vec<usize> = boundaries.iter().copied().filter(|&k| k > 0 && k <= layers).collect();
    boundaries.sort_unstable();
    boundaries.dedup();

    let variants: Vec<Variant> =
        std::iter::once(0).chain(boundaries.iter().copied()).map(|k| Variant::bottom_k(layers, k)).collect();
    let mut speeds = vec![Vec::new(); variants.len()];
    let mut decoding = engine.decoding(PROMPT + TOKENS + 1);
    let begun = Instant::now();
    for round in 0..ROUNDS.0 {
        if round >= ROUNDS.1 && begun.elapsed() > ENOUGH {
            break;
        }
        for (variant, speeds) in variants.iter().zip(&mut speeds) {
            speeds.push(decode(&mut decoding, variant, prompts)?);
        }
    }

    let mut measured = Vec::with_capacity(variants.len());
    for (variant, speeds) in variants.iter().zip(speeds) {
        let kept = variant.layers_kept;
        let (adapter_bytes, load_seconds) = match kept {
            0 => (0, None),
            kept if kept == layers => {
                load(engine, checkpoint, adapter).map(|(bytes, seconds)| (bytes, Some(seconds)))?
            }
            kept => {
                let folder = tempfile::tempdir().map_err(|error| Error::Internal(error.to_string()))?;
                let keep: Vec<usize> = adapter.layers().into_iter().filter(|&layer| layer < kept).collect();
                if keep.is_empty() {
                    (0, None)
                } else {
                    let path = folder.path().join("adapter");
                    adapter::write_trimmed(adapter, &keep, &Provenance::default(), &path)?;
                    let (bytes, seconds) = load(engine, checkpoint, &Adapter::open(&path)?)?;
                    (bytes, Some(seconds))
                }
            }
        };
        measured.push(VariantEfficiency {
            name: if kept == 0 { "merged".to_owned() } else { variant.name() },
            layers_kept: (kept > 0).then_some(kept),
            adapter_bytes,
            load_seconds,
            tokens_per_second: Speed::of(speeds),
        });
    }
    let dtype = engine.model().precision().dtype.to_string();
    Ok(Efficiency { batch: BATCH, threads: engine.threads(), dtype, variants: measured })
}

/// Tokens per second of all sequences together, the prompts' not counted.
fn decode(decoding: &mut Decoding<'_>, variant: &Variant, prompts: &[&[u32]]) -> Result<f64> {
    let mut sequences = Vec::with_capacity(BATCH);
    for _ in 0..BATCH {
        sequences.push(decoding.begin(variant)?);
    }
    let prompts = prompts.iter().map(|prompt| &prompt[..prompt.len().min(PROMPT)]).filter(|prompt| !prompt.is_empty());
    let prompts = prompts.chain(std::iter::once(&[0][..])).collect::<Vec<&[u32]>>();
    let turns = sequences.iter_mut().zip(prompts.iter().cycle());
    let mut turns: Vec<Turn<'_>> = turns.map(|(sequence, tokens)| Turn { sequence, tokens }).collect();
    let mut logits = decoding.feed(&mut turns);
    let vocabulary = logits.len() / BATCH;
    let begun = Instant::now();
    for _ in 0..TOKENS {
        let next: Vec<u32> = logits.chunks_exact(vocabulary).map(most_probable).collect();
        let turns = sequences.iter_mut().zip(next.chunks(1));
        let mut turns: Vec<Turn<'_>> = turns.map(|(sequence, tokens)| Turn { sequence, tokens }).collect();
        logits = decoding.feed(&mut turns);
    }
    let speed = (BATCH * TOKENS) as f64 / begun.elapsed().as_secs_f64();
    sequences.into_iter().for_each(|sequence| decoding.end(sequence));
    Ok(speed)
}

/// Bytes of an adapter's weight file, and seconds to read, check and pack it: the fastest of three times.
fn load(engine: &Embedded, checkpoint: &Checkpoint, adapter: &Adapter) -> Result<(u64, f64)> {
    let config = checkpoint.config();
    let shape = |_, projection| checkpoint.linear_shape(projection);
    let mut fastest = f64::INFINITY;
    for _ in 0..3 {
        let begun = Instant::now();
        let lora = Adapter::open(adapter.folder())?.bind(&Base { layers: config.layers, shape: &shape })?;
        let dtype = engine.model().precision().dtype;
        let packed: Vec<Lora> = lora.iter().map(|layer| Lora::new(config, dtype, layer)).collect();
        fastest = fastest.min(begun.elapsed().as_secs_f64());
        drop(packed);
    }
    let size = |path: &std::path::PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let weights =
        adapter.files().iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors")).map(size).sum();
    Ok((weights, fastest))
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
    fn the_median_round_stands_between_the_slowest_and_the_fastest() {
        assert_eq!(Speed::of(vec![3.0, 1.0, 2.0]), Speed { median: 2.0, low: 1.0, high: 3.0, rounds: 3 });
        assert_eq!(Speed::of(Vec::new()).rounds, 0);
    }
}
