//! What is in an adapter, as a text for the terminal: facts, the norm of every update, and what each runtime does.

use super::words::{NONE, bytes, count, number, tame};
use crate::adapter::{Inspection, ModuleInspection, Support, ranges};

/// The table of an inspection. Ends with a line feed.
pub fn inspection(inspection: &Inspection) -> String {
    let mut out = String::new();
    let list = |numbers: &[f64]| numbers.iter().map(|&value| number(value)).collect::<Vec<_>>().join(", ");
    let ranks: Vec<f64> = inspection.ranks.iter().map(|&rank| rank as f64).collect();
    let formula = if inspection.rank_stabilised { "alpha/√r" } else { "alpha/r" };
    let facts = [
        ("base model", inspection.base_model.as_deref().map_or_else(|| NONE.to_owned(), tame)),
        ("layers", format!("{} with LoRA: {}", inspection.layers.len(), ranges(&inspection.layers))),
        ("modules", inspection.modules.join(", ")),
        ("rank", list(&ranks)),
        ("alpha", list(&inspection.alphas)),
        ("scale", format!("{} ({formula})", list(&inspection.scales))),
        ("weights", format!("{}, {}", count(inspection.parameters), inspection.dtypes.join(", "))),
        ("size", bytes(inspection.bytes)),
    ];
    for (name, value) in facts {
        out.push_str(&format!("{name:<12}{value}\n"));
    }
    out.push_str("\nNorm of each update, ‖s·B·A‖ (Frobenius); layer 0 is next to the embedding\n");
    out.push_str(&norms(inspection));
    if inspection.untrained {
        out.push_str("\nEvery B is zero: this adapter was never trained and changes nothing.\n");
    }
    if inspection.only_upper_layers {
        let text = "LoRA is in the upper layers only: a cut from the top removes what there is of it before it reaches \
                    the layers that a bottom-k search is about.";
        out.push_str(&format!("\n{}\n", wrapped(text, 0)));
    }
    out.push_str("\nRuntimes                 loads      trimmed    a dropped layer is free\n");
    for runtime in &inspection.runtimes {
        let free = match runtime.dropped_layer_is_free {
            Some(true) => "yes",
            Some(false) => "no",
            None => NONE,
        };
        let (loads, trimmed) = (support(runtime.loads), support(runtime.loads_trimmed));
        out.push_str(&format!("{:<25}{loads:<11}{trimmed:<11}{free}\n", runtime.runtime));
        for note in &runtime.notes {
            out.push_str(&format!("    {}\n", wrapped(note, 4)));
        }
    }
    out
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
        Support::WrongResult => "wrongly",
        Support::No => "no",
    }
}

/// Text broken at spaces, further lines indented.
fn wrapped(text: &str, indent: usize) -> String {
    super::table::wrap(text, indent).join(&format!("\n{:indent$}", ""))
}
