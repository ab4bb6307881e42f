//! The inspection of an adapter, and the result of a trim, as text for the terminal.

use std::collections::BTreeSet;

use super::words::{NONE, bytes, count, number, plain, printable};
use crate::lora::adapter::{Inspection, ModuleInspection, Support, TrimSummary, ranges};

/// The table of an inspection: facts of the adapter, norms of the updates, and runtimes. `supported` lists the
/// architectures that can be scored. Ends with a line feed.
pub fn inspection(inspection: &Inspection, supported: &str) -> String {
    let mut out = String::new();
    let ranks: Vec<f64> = inspection.ranks.iter().map(|&rank| rank as f64).collect();
    let scales = by_value(inspection, &inspection.scales, |module| module.scale);
    let formula = if inspection.rank_stabilised { "alpha/√r" } else { "alpha/r" };
    let equals = if inspection.scales.len() > 1 { ":\n" } else { " = " };
    let facts = [
        ("base model", inspection.base_model.as_deref().map_or_else(|| NONE.to_owned(), printable)),
        ("layers", format!("{} with LoRA: {}", inspection.layers.len(), ranges(&inspection.layers))),
        ("modules", inspection.modules.join(", ")),
        ("rank", by_value(inspection, &ranks, |module| module.rank as f64)),
        ("alpha", by_value(inspection, &inspection.alphas, |module| module.alpha)),
        ("scale", format!("{formula}{equals}{scales}")),
        ("weights", format!("{}, {}", count(inspection.parameters), inspection.dtypes.join(", "))),
        ("size", bytes(inspection.bytes)),
    ];
    if let Some(model_type) = inspection.unsupported_base {
        let text = format!(
            "No base model of this adapter can be scored: its name indicates architecture {model_type}, which is not \
             supported. Supported architectures: {supported}."
        );
        out.push_str(&format!("{}\n\n", wrapped(&text, 0)));
    }
    for (name, value) in facts {
        let value = value.split('\n').map(|line| wrapped(line, 12)).collect::<Vec<_>>().join(&format!("\n{:12}", ""));
        out.push_str(&format!("{name:<12}{value}\n"));
    }
    let mut more = Vec::new();
    if inspection.dora {
        more.push("DoRA: each module has a trained magnitude, which is dropped with its LoRA".to_owned());
    }
    if !inspection.embedding_modules.is_empty() {
        more.push(format!(
            "LoRA on {}: needs --embedding-lora keep or --embedding-lora drop",
            inspection.embedding_modules.join(" and ")
        ));
    }
    if !inspection.saved.is_empty() {
        let names: Vec<String> = inspection.saved.iter().map(|name| printable(name)).collect();
        more.push(format!("trained in full, kept in every variant: {}", names.join(", ")));
    }
    for line in more {
        out.push_str(&format!("{:12}{}\n", "also", wrapped(&line, 12)));
    }
    out.push_str("\nFrobenius norm of each update, ‖s·B·A‖; layer 0 is next to the embedding\n");
    out.push_str(&norms(inspection));
    if inspection.untrained {
        out.push_str("\nEvery B is zero: this adapter was never trained and has no effect.\n");
    }
    if inspection.only_upper_layers {
        let text = "LoRA is in the upper layers only. A boundary drops LoRA from the top, so low boundaries keep no \
                    LoRA at all.";
        out.push_str(&format!("\n{}\n", wrapped(text, 0)));
    }
    let text = "Which runtimes load the adapter, full and trimmed; \"as GGUF\" means after conversion. \"Dropped \
                layer is free\": a dropped layer costs no LoRA computation; elsewhere trimming saves bytes only.";
    out.push_str(&format!("\n{}\n", wrapped(text, 0)));
    out.push_str("\nruntime                  full          trimmed       dropped layer is free\n");
    for runtime in &inspection.runtimes {
        let free = match runtime.dropped_layer_is_free {
            Some(true) => "yes",
            Some(false) => "no",
            None => NONE,
        };
        let (loads, trimmed) = (support(runtime.loads), support(runtime.loads_trimmed));
        out.push_str(&format!("{:<25}{loads:<14}{trimmed:<14}{free}\n", runtime.runtime));
        for note in &runtime.notes {
            out.push_str(&format!("    {}\n", wrapped(note, 4)));
        }
    }
    out
}

/// The result of a trim in one line for the terminal: layers, modules and bytes kept. Ends with a line feed.
pub fn trimmed(written: &TrimSummary) -> String {
    let (kept, dropped) = (written.layers_kept.len(), written.layers_dropped.len());
    let strengths: Vec<String> = written.strengths.iter().map(f32::to_string).collect();
    let more = if !strengths.is_empty() {
        let word = if strengths.len() == 1 { "strength" } else { "strengths" };
        format!("; {word} {} folded into lora_B", strengths.join(", "))
    } else if written.modules_dropped == 0 {
        let layers = if kept == 1 { "layer" } else { "layers" };
        format!("; nothing is dropped: the adapter has LoRA in {layers} {} only", ranges(&written.layers_kept))
    } else {
        String::new()
    };
    format!(
        "{}: kept {kept} of {} layers with LoRA, {} of {} modules, {} of {}{more}\n",
        written.folder.display(),
        kept + dropped,
        written.modules,
        written.modules + written.modules_dropped,
        bytes(written.bytes),
        bytes(written.bytes_before),
    )
}

/// The distinct values; if there are several, one line for each with the modules that have it.
fn by_value(inspection: &Inspection, values: &[f64], of: fn(&ModuleInspection) -> f64) -> String {
    if let [value] = values {
        return plain(*value);
    }
    // `values` holds exact copies, so equality finds the modules.
    let lines = values.iter().map(|value| format!("{} in {}", plain(*value), places(inspection, |m| of(m) == *value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules that match, with their layers unless the module matches in all of its layers.
fn places(inspection: &Inspection, matches: impl Fn(&ModuleInspection) -> bool) -> String {
    let mut places = Vec::new();
    for &name in &inspection.modules {
        let named = || inspection.per_module.iter().filter(|module| module.module == name);
        let layers: BTreeSet<usize> = named().filter(|module| matches(module)).map(|module| module.layer).collect();
        if layers.len() == named().count() {
            places.push(name.to_owned());
        } else if !layers.is_empty() {
            let word = if layers.len() == 1 { "layer" } else { "layers" };
            places.push(format!("{name} ({word} {})", ranges(&layers.into_iter().collect::<Vec<_>>())));
        }
    }
    places.join(", ")
}

/// One row for each layer, one column for each module.
fn norms(inspection: &Inspection) -> String {
    let mut out = String::from("layer");
    for module in &inspection.modules {
        out.push_str(&format!("{module:>11}"));
    }
    out.push('\n');
    for &layer in &inspection.layers {
        out.push_str(&format!("{layer:>5}"));
        for &name in &inspection.modules {
            let here = |module: &&ModuleInspection| module.layer == layer && module.module == name;
            let norm = inspection.per_module.iter().find(here).map_or_else(|| NONE.to_owned(), |m| number(m.norm));
            out.push_str(&format!("{norm:>11}"));
        }
        out.push('\n');
    }
    out
}

fn support(support: Support) -> &'static str {
    match support {
        Support::Yes => "yes",
        Support::AfterConversion => "as GGUF",
        Support::WrongResult => "wrong result",
        Support::No => "no",
    }
}

/// Text broken at spaces, further lines indented.
fn wrapped(text: &str, indent: usize) -> String {
    super::terminal::wrap(text, indent).join(&format!("\n{:indent$}", ""))
}
