//! Arguments that several verbs share.

use std::num::NonZero;

use anyhow::Result;
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::adapter::{Adapter, Base, LayerLora};
use plimsoll::data::TemplateChoice;
use plimsoll::engine::{EngineOptions, MAX_THREADS};
use plimsoll::gates::Variant;
use plimsoll::model::{Checkpoint, Dtype, Precision};

/// How the engine computes.
#[derive(Debug, Args)]
pub(super) struct EngineArguments {
    /// Arithmetic of the engine, whatever the weights are stored as [default: bf16 where the processor has it, f32
    /// elsewhere]
    #[arg(long, value_enum)]
    dtype: Option<DtypeArgument>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = threads)]
    threads: Option<NonZero<usize>>,
    /// Memory for everything but the weights, such as 512MiB or 2GiB [default: 1GiB, or more where one sample
    /// needs it]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeArgument {
    /// Weights and what they are multiplied with in half as many bytes; sums in single precision
    Bf16,
    /// Single precision
    F32,
}

impl EngineArguments {
    /// As the engine wants them.
    pub(super) fn options(&self) -> EngineOptions {
        EngineOptions {
            threads: self.threads,
            precision: match self.dtype {
                None => Precision::default(),
                Some(DtypeArgument::Bf16) => Precision::new(Dtype::Bf16),
                Some(DtypeArgument::F32) => Precision::new(Dtype::F32),
            },
            memory: self.memory,
        }
    }
}

/// The template that `--template` asks for.
pub(super) fn template(argument: &str) -> Result<TemplateChoice> {
    Ok(match argument {
        "tokenizer" => TemplateChoice::Tokenizer,
        "none" => TemplateChoice::None,
        file => TemplateChoice::from_file(file.as_ref())?,
    })
}

/// The LoRA of an adapter for a model, layer by layer; without an adapter, none.
pub(super) fn lora(checkpoint: &Checkpoint, adapter: Option<&Adapter>) -> Result<Vec<LayerLora>> {
    let layers = checkpoint.config().layers;
    let shape = |_, projection| checkpoint.linear_shape(projection);
    Ok(match adapter {
        Some(adapter) => adapter.bind(&Base { layers, shape: &shape })?,
        None => std::iter::repeat_with(LayerLora::default).take(layers).collect(),
    })
}

/// Which layers keep their LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayersKept {
    /// None of them.
    Base,
    /// All of them.
    Full,
    /// So many, from the bottom.
    Some(usize),
}

impl std::str::FromStr for LayersKept {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "base" => Ok(Self::Base),
            "full" => Ok(Self::Full),
            number => number.parse().map(Self::Some).map_err(|_| "expected a number of layers, `base` or `full`"),
        }
    }
}

/// The variants that are asked for, each once.
///
/// # Errors
/// More layers than the model has.
pub(super) fn variants(asked: &[LayersKept], layers: usize) -> Result<Vec<Variant>> {
    let mut variants = Vec::new();
    for kept in asked {
        let kept = match *kept {
            LayersKept::Base => 0,
            LayersKept::Full => layers,
            LayersKept::Some(kept) if kept <= layers => kept,
            LayersKept::Some(kept) => {
                return Err(Error::Usage(format!("--layers-kept {kept}: the model has {layers} layers")).into());
            }
        };
        let variant = Variant::bottom_k(layers, kept);
        if !variants.contains(&variant) {
            variants.push(variant);
        }
    }
    Ok(variants)
}

/// Strengths of layers: one number for all, or `0-9=1,10-19=0.5`.
///
/// # Errors
/// Something else, or layers that the model has not.
pub(super) fn strengths(text: &str, layers: usize) -> Result<Vec<f32>> {
    let problem = |what: String| Error::Usage(format!("--strength {text}: {what}"));
    let number = |text: &str| {
        let number = text.parse::<f32>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| problem(format!("`{text}` is no finite number")))
    };
    let mut strengths = vec![1.0; layers];
    for part in text.split(',') {
        let Some((range, strength)) = part.split_once('=') else {
            strengths.fill(number(part)?);
            continue;
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
            return Err(problem(format!("`{range}`: expected layers, such as 3 or 0-9")).into());
        };
        let Some(range) = strengths.get_mut(first..last.saturating_add(1)) else {
            return Err(problem(format!("layers {first} to {last}: the model's are 0 to {}", layers - 1)).into());
        };
        range.fill(number(strength)?);
    }
    Ok(strengths)
}

/// A whole number of at least 1.
pub(super) fn at_least_one(text: &str) -> Result<NonZero<usize>, &'static str> {
    text.parse().map_err(|_| "expected a whole number, at least 1")
}

fn threads(text: &str) -> Result<NonZero<usize>, String> {
    let threads = text.parse::<NonZero<usize>>().ok().filter(|threads| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("expected a whole number from 1 to {MAX_THREADS}"))
}

/// Bytes: a whole number with a unit.
fn size(text: &str) -> Result<u64, &'static str> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let split = units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let bytes = split.and_then(|(number, shift)| number.trim().parse::<u64>().ok()?.checked_mul(1 << shift));
    bytes.filter(|&bytes| bytes > 0).ok_or("expected a whole number with a unit, such as 512MiB or 2GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_numbers_or_ranges() {
        assert_eq!(strengths("0.5", 3).unwrap(), [0.5; 3]);
        assert_eq!(strengths("0-1=2,3=0", 4).unwrap(), [2.0, 2.0, 1.0, 0.0]);
        for wrong in ["", "x", "0-9=1", "2-1=1", "1=nan", "a-b=1"] {
            assert!(strengths(wrong, 4).is_err(), "{wrong}");
        }
    }

    #[test]
    fn variants_are_named_once() {
        let asked = ["base", "2", "0", "full"].map(|text| text.parse().unwrap());
        let kept: Vec<usize> = variants(&asked, 4).unwrap().iter().map(|variant| variant.layers_kept).collect();
        assert_eq!(kept, [0, 2, 4]);
        assert!(variants(&[LayersKept::Some(5)], 4).is_err());
    }
}
