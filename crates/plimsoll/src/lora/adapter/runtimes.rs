//! What each runtime makes of an adapter, and of a trim of it that leaves the upper layers out.
//!
//! Read from the runtimes' own sources in 2026; a later version may differ. A trim as [`super::write_trimmed`] writes it
//! has no tensors at all in the dropped layers.

use serde::Serialize;

use super::open::Adapter;
use crate::lora::Projection;

/// vLLM refuses adapters above this rank unless told otherwise.
const VLLM_MAX_RANK: usize = 16;

/// Projections that vLLM computes as one.
const PACKED: &[&[Projection]] = &[&[Projection::Q, Projection::K, Projection::V], &[Projection::Gate, Projection::Up]];

/// One runtime and an adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuntimeFacts {
    /// The runtime's name.
    pub runtime: &'static str,
    /// Whether it computes with this adapter what PEFT would.
    pub loads: Support,
    /// Whether it would do so with the adapter's upper layers dropped.
    pub loads_trimmed: Support,
    /// Whether a layer without LoRA then costs no LoRA computation; `None` where a trim does not load.
    pub dropped_layer_is_free: Option<bool>,
    /// What to mind, for this adapter.
    pub notes: Vec<String>,
}

/// Whether a runtime can serve an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// As it is.
    Yes,
    /// Once converted to GGUF.
    AfterConversion,
    /// It loads, and computes something else.
    WrongResult,
    /// Not at all, or without parts of it.
    No,
}

/// What each runtime makes of this adapter.
pub(super) fn runtimes(adapter: &Adapter) -> Vec<RuntimeFacts> {
    let facts = |runtime, loads, loads_trimmed, dropped_layer_is_free, notes: Vec<String>| RuntimeFacts {
        runtime,
        loads,
        loads_trimmed,
        dropped_layer_is_free,
        notes,
    };
    // llama.cpp's converter carries one alpha over and divides it by each tensor's own rank.
    let scale_lost = adapter.modules().any(|m| m.scale != adapter.config.alpha() / m.rank as f64);
    let (converted, converted_notes) = if scale_lost {
        let note = "it takes one alpha over rank for every tensor: with rsLoRA or alpha_pattern the scale comes out wrong \
                    unless it is folded into B first";
        (Support::WrongResult, vec![note.to_owned()])
    } else {
        (Support::AfterConversion, Vec::new())
    };

    let patterned = adapter.config.has_patterns();
    let vllm = if patterned { Support::WrongResult } else { Support::Yes };
    let mut vllm_notes = vec!["modules without LoRA stay wrapped: a dropped layer saves no time".to_owned()];
    if patterned {
        vllm_notes.push(
            "rank_pattern and alpha_pattern are not read: fold the scale into B and give all one rank".to_owned(),
        );
    }
    let largest = adapter.modules().map(|module| module.rank).max().unwrap_or(0);
    if largest > VLLM_MAX_RANK {
        vllm_notes.push(format!("start it with --max-lora-rank of at least {largest}"));
    }
    if PACKED.iter().any(|pack| partly_covered(adapter, pack)) {
        vllm_notes
            .push("q, k and v, or gate and up, are partly covered in a layer: some versions crash on that".to_owned());
    }

    let whole = if is_rectangular(adapter) { Support::Yes } else { Support::No };
    let tgi_note = "one layer without a module's LoRA discards that module in every layer: a trim needs zero tensors in \
                    the dropped layers";

    vec![
        facts("PEFT", Support::Yes, Support::Yes, Some(true), Vec::new()),
        facts("vLLM", vllm, vllm, Some(false), vllm_notes),
        facts(
            "SGLang",
            Support::Yes,
            Support::Yes,
            Some(false),
            vec!["dropped layers are filled with zeros".to_owned()],
        ),
        facts("llama.cpp", converted, converted, Some(true), converted_notes.clone()),
        facts(
            "mistral.rs",
            Support::Yes,
            Support::Yes,
            Some(true),
            vec!["it ignores layers_to_transform; every tensor must match target_modules".to_owned()],
        ),
        facts("TGI", whole, Support::No, None, vec![tgi_note.to_owned()]),
        facts("LoRAX", whole, Support::No, None, vec![tgi_note.to_owned()]),
        facts("Ollama", converted, converted, Some(true), {
            let mut notes = vec!["it runs llama.cpp's format".to_owned()];
            notes.extend(converted_notes);
            notes
        }),
    ]
}

/// Whether some layer has LoRA on some of these modules and not on all.
fn partly_covered(adapter: &Adapter, pack: &[Projection]) -> bool {
    adapter.layers().into_iter().any(|layer| {
        let covered = pack.iter().filter(|projection| adapter.modules.contains_key(&(layer, **projection))).count();
        covered != 0 && covered != pack.len()
    })
}

/// Whether every layer from 0 to the highest with LoRA has the same modules; whether the base has layers above is not
/// known here.
fn is_rectangular(adapter: &Adapter) -> bool {
    let layers = adapter.layers();
    let in_first = Projection::ALL.into_iter().filter(|projection| adapter.modules.contains_key(&(0, *projection)));
    let from_0 = layers.iter().enumerate().all(|(index, layer)| index == *layer);
    let first: Vec<_> = in_first.collect();
    from_0
        && adapter.modules.len() == layers.len() * first.len()
        && adapter.modules.keys().all(|(_, projection)| first.contains(projection))
}
