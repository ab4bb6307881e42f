//! Which runtimes can serve an adapter, and a trimmed adapter without its upper layers.
//!
//! Source: the runtimes' source code in 2026; later versions may differ. An adapter trimmed by [`super::write_trimmed`]
//! has no tensors in dropped layers.

use serde::Serialize;

use super::open::Adapter;
use crate::lora::Projection;

/// vLLM's default of `--max-lora-rank`.
const VLLM_MAX_RANK: usize = 16;

/// Projections that vLLM computes in one product.
const PACKED: &[&[Projection]] = &[&[Projection::Q, Projection::K, Projection::V], &[Projection::Gate, Projection::Up]];

/// How one runtime supports an adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RuntimeFacts {
    /// The runtime's name.
    pub runtime: &'static str,
    /// Whether it gives PEFT's result with this adapter.
    pub loads: Support,
    /// Whether it gives PEFT's result with this adapter after its upper layers are dropped.
    pub loads_trimmed: Support,
    /// Whether a dropped layer costs no LoRA computation; `None` if the trimmed adapter does not load.
    pub dropped_layer_is_free: Option<bool>,
    /// Known problems and required settings.
    pub notes: Vec<String>,
}

/// Whether a runtime can serve an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Support {
    /// Yes, without changes.
    Yes,
    /// After conversion to GGUF.
    AfterConversion,
    /// It loads, but the result is wrong.
    WrongResult,
    /// It does not load, or only in part.
    No,
}

/// How each runtime supports this adapter.
pub(super) fn runtimes(adapter: &Adapter) -> Vec<RuntimeFacts> {
    let facts = |runtime, loads, loads_trimmed, dropped_layer_is_free, notes: Vec<String>| RuntimeFacts {
        runtime,
        loads,
        loads_trimmed,
        dropped_layer_is_free,
        notes,
    };
    // llama.cpp's converter keeps one alpha and divides it by each tensor's own rank.
    let scale_lost = adapter.modules().any(|m| m.scale != adapter.config.alpha() / m.rank as f64);
    let (converted, converted_notes) = if scale_lost {
        let note = "uses the scale alpha/rank with one alpha: with rsLoRA or alpha_pattern the result is wrong unless \
                    the scale is folded into B before the conversion";
        (Support::WrongResult, vec![note.to_owned()])
    } else {
        (Support::AfterConversion, Vec::new())
    };

    let patterned = adapter.config.has_patterns();
    let vllm = if patterned { Support::WrongResult } else { Support::Yes };
    let mut vllm_notes = vec!["computes LoRA in every layer: a dropped layer saves no time".to_owned()];
    if patterned {
        vllm_notes.push(
            "ignores rank_pattern and alpha_pattern: fold the scale into B and use one rank for all modules".to_owned(),
        );
    }
    let largest = adapter.modules().map(|module| module.rank).max().unwrap_or(0);
    if largest > VLLM_MAX_RANK {
        vllm_notes.push(format!("needs --max-lora-rank {largest} or more"));
    }
    if PACKED.iter().any(|pack| partly_covered(adapter, pack)) {
        vllm_notes.push(
            "some versions crash, because a layer has LoRA on only a part of q, k and v, or of gate and up".to_owned(),
        );
    }

    let whole = if is_rectangular(adapter) { Support::Yes } else { Support::No };
    let tgi_note = "drops a module in every layer if one layer has no LoRA on it: a trimmed adapter needs zero tensors \
                    in the dropped layers";

    vec![
        facts("PEFT", Support::Yes, Support::Yes, Some(true), Vec::new()),
        facts("vLLM", vllm, vllm, Some(false), vllm_notes),
        facts("SGLang", Support::Yes, Support::Yes, Some(false), vec!["fills dropped layers with zeros".to_owned()]),
        facts("llama.cpp", converted, converted, Some(true), converted_notes.clone()),
        facts(
            "mistral.rs",
            Support::Yes,
            Support::Yes,
            Some(true),
            vec!["ignores layers_to_transform; every tensor must match target_modules".to_owned()],
        ),
        facts("TGI", whole, Support::No, None, vec![tgi_note.to_owned()]),
        facts("LoRAX", whole, Support::No, None, vec![tgi_note.to_owned()]),
        facts("Ollama", converted, converted, Some(true), {
            let mut notes = vec!["uses llama.cpp's format".to_owned()];
            notes.extend(converted_notes);
            notes
        }),
    ]
}

/// Whether a layer has LoRA on some but not all of these modules.
fn partly_covered(adapter: &Adapter, pack: &[Projection]) -> bool {
    adapter.layers().into_iter().any(|layer| {
        let covered = pack.iter().filter(|projection| adapter.modules.contains_key(&(layer, **projection))).count();
        covered != 0 && covered != pack.len()
    })
}

/// Whether every layer from 0 to the highest with LoRA has the same modules. The base model may have more layers.
fn is_rectangular(adapter: &Adapter) -> bool {
    let layers = adapter.layers();
    let in_first = Projection::ALL.into_iter().filter(|projection| adapter.modules.contains_key(&(0, *projection)));
    let from_0 = layers.iter().enumerate().all(|(index, layer)| index == *layer);
    let first: Vec<_> = in_first.collect();
    from_0
        && adapter.modules.len() == layers.len() * first.len()
        && adapter.modules.keys().all(|(_, projection)| first.contains(projection))
}
