//! The model card of a trimmed adapter. A card is made to be published: it names no folder of the user's disk.

use std::collections::BTreeMap;

use plimsoll_stats::choose::Interval;

use super::cut::{Cut, Written};
use super::embeddings::{EmbeddingLora, EmbeddingModule};
use super::file_names::PROVENANCE_FILE;
use super::module::Module;
use super::open::Adapter;
use super::provenance::{Provenance, TrimScores};
use crate::lora::projection::Projection;

/// The content of [`CARD_FILE`], in the form that the Hugging Face Hub reads.
pub(super) fn model_card(adapter: &Adapter, cut: &Cut<'_>, written: &Written, card: &Provenance) -> String {
    let base = adapter.config.base_model();
    let mut text = String::from("---\n");
    // Only a repository's id may stand here: the Hub refuses a card that names somebody's local path.
    if let Some(id) = base.filter(|name| is_repository_id(name)) {
        text += &format!("base_model: {id}\n");
    }
    text += "library_name: peft\ntags:\n- lora\n- plimsoll\n---\n\n# A trimmed LoRA adapter\n\n";
    text += &what_is_kept(cut, written);
    text += &what_is_beside(adapter);
    text += &format!(
        "\n\n| | |\n|---|---|\n| LoRA modules | {} of {} |\n| bytes of tensors | {} of {} |\n| gates | {} |\n",
        written.modules,
        adapter.modules().len(),
        written.bytes,
        written.bytes_before,
        code(&written.gates)
    );
    if let Some(base) = base {
        let base = if is_repository_id(base) { base } else { last_component(base) };
        text += &format!("| base model | {} |\n", code(base));
    }
    if let Some(layers) = card.model_layers {
        text += &format!("| layers of the base model | {layers} |\n");
    }
    if let Some(scores) = &card.scores {
        text += &score_section(scores);
    }
    text += "\n## Where it comes from\n\n";
    text += &format!("- made by {}\n", code(&card.tool));
    for (what, source) in [("adapter", &card.adapter), ("measured on", &card.model), ("samples", &card.data)] {
        if let Some(source) = source {
            text += &format!("- {what}: {}, SHA-256 {}\n", code(last_component(&source.path)), code(&source.sha256));
        }
    }
    if let Some(seed) = card.seed {
        text += &format!("- seed: {seed}\n");
    }
    let command = if card.command.is_some() { ", with the command that repeats it" } else { "" };
    text += &format!("\nThe same, for programs{command}: `{PROVENANCE_FILE}`.\n");
    text
}

/// What a reader of the card should know of the tensors, in sentences.
fn what_is_kept(cut: &Cut<'_>, written: &Written) -> String {
    let Written { layers_kept, layers_dropped, .. } = written;
    let mut text = if layers_dropped.is_empty() {
        format!("All {} layers of the adapter are kept.", layers_kept.len())
    } else {
        let (kept, dropped) = (layers(layers_kept), layers(layers_dropped));
        format!("LoRA is kept in {kept} and dropped in {dropped} (0 is next to the embedding).")
    };
    let in_kept_layers = |module: &&Module| layers_kept.contains(&module.layer);
    let dropped: Vec<&Module> = cut.dropped.iter().copied().filter(in_kept_layers).collect();
    if !dropped.is_empty() {
        text += &format!(" Of the layers that are kept, single modules are dropped: {}.", places(&dropped));
    }
    if written.strengths.is_empty() {
        if !cut.dropped.is_empty() {
            text += " Nothing was retrained: the kept tensors are those of the whole adapter, byte for byte.";
        }
        return text;
    }
    text += " Nothing was retrained, but strengths are multiplied into lora_B, which is rounded to the type that it is \
             stored in:";
    for (index, strength) in written.strengths.iter().enumerate() {
        let of_strength = cut.kept.iter().filter(|(_, gate)| gate == strength).map(|(module, _)| *module);
        let places = places(&of_strength.collect::<Vec<_>>());
        text += &format!("{} {strength} for {places}", if index > 0 { ";" } else { "" });
    }
    text + ". All other tensors are those of the whole adapter."
}

/// What of the adapter belongs to no layer, in sentences.
fn what_is_beside(adapter: &Adapter) -> String {
    let mut text = String::new();
    let ends: Vec<&str> = adapter.modules_on_embeddings().map(EmbeddingModule::name).collect();
    if !ends.is_empty() {
        let what = if adapter.embedding_lora == Some(EmbeddingLora::Keep) { "kept" } else { "dropped" };
        text += &format!(" LoRA on {} is {what}.", ends.join(" and "));
    }
    if !adapter.saved.is_empty() {
        let names: Vec<String> = adapter.saved().map(code).collect();
        text += &format!(" Weights that were trained in full are kept: {}.", names.join(", "));
    }
    text
}

/// Modules, those of the same layers drawn together: `q_proj, k_proj in the layers 0–3; v_proj in layer 2`.
fn places(modules: &[&Module]) -> String {
    let mut by_layers: BTreeMap<Vec<usize>, Vec<&str>> = BTreeMap::new();
    for projection in Projection::ALL {
        let of_it = modules.iter().filter(|module| module.projection == projection);
        by_layers.entry(of_it.map(|module| module.layer).collect()).or_default().push(projection.name());
    }
    by_layers.remove(&Vec::new());
    let told = by_layers.iter().map(|(numbers, names)| format!("{} in {}", names.join(", "), layers(numbers)));
    told.collect::<Vec<_>>().join("; ")
}

/// Layers in a sentence: `layer 7`, `the layers 0–3, 7`.
fn layers(numbers: &[usize]) -> String {
    let word = if numbers.len() == 1 { "layer" } else { "the layers" };
    format!("{word} {}", ranges(numbers))
}

/// The last part of a path of any system: a card is made to be published, and where things lay on somebody's disk is
/// nobody else's business.
fn last_component(path: &str) -> &str {
    path.rsplit(['/', '\\']).find(|part| !matches!(*part, "" | "." | "..")).unwrap_or("–")
}

fn score_section(scores: &TrimScores) -> String {
    let TrimScores { metric, samples, base, full, trimmed, gain, retained } = scores;
    let (what, unit, better) = match metric {
        Some(metric) => (format!("{} of generated answers", code(metric)), code(metric), "higher"),
        None => (
            "Mean negative log-likelihood of the answers in nats per token".to_owned(),
            "nats per token".to_owned(),
            "lower",
        ),
    };
    let mut text = format!(
        "\n## Scores\n\n{what}, on {samples} samples that had no part in choosing the layers; {better} is better.\n\n\
         | | {unit} |\n|---|---|\n| base model | {base:.4} |\n| whole adapter | {full:.4} |\n| this adapter | \
         {trimmed:.4} |\n\nAgainst the whole adapter it gains {:.4} {unit} (95 % interval {:.4} to {:.4}; positive is \
         better).",
        gain.value, gain.low, gain.high
    );
    if let Some(Interval { value, low, high }) = retained {
        text += &format!(
            " It retains {:.1} % of what the whole adapter gains over the base model ({:.1} % to {:.1} %).",
            100.0 * value,
            100.0 * low,
            100.0 * high
        );
    }
    text + "\n"
}

/// Ascending numbers, with runs drawn together: `0–3, 7`.
pub(crate) fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}–{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    };
    runs.map(run).collect::<Vec<String>>().join(", ")
}

/// Text from outside as a Markdown code span that it cannot leave, in a table cell or a list.
fn code(text: &str) -> String {
    let harmless = |c: char| match c {
        '`' => '\'',
        '|' => '¦',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", text.chars().map(harmless).collect::<String>())
}

/// Whether this is `name` or `organisation/name` in the characters that the Hub allows.
fn is_repository_id(name: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    name.len() <= 96 && name.split('/').count() == 2 && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_drawn_together() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0–3, 7, 9–10");
        assert_eq!(ranges(&[5]), "5");
    }

    #[test]
    fn only_a_repository_is_named_as_base_model() {
        assert!(is_repository_id("HuggingFaceTB/SmolLM2-135M-Instruct"));
        for name in ["D:\\models\\x", "/home/me/model", "./model", "a/b/c", "a/b\nlicense: mit", "a b/c", "model", ""] {
            assert!(!is_repository_id(name), "{name}");
        }
    }

    #[test]
    fn a_card_names_no_folder_of_somebodys_disk() {
        for (path, expected) in [
            ("/home/me/lora", "lora"),
            ("lora/", "lora"),
            ("C:\\Users\\me\\lora", "lora"),
            ("model.gguf", "model.gguf"),
            ("../lora/.", "lora"),
            ("/", "–"),
            ("..", "–"),
        ] {
            assert_eq!(last_component(path), expected);
        }
    }

    #[test]
    fn outside_text_stays_in_its_code_span() {
        assert_eq!(code("a`b|c\nd"), "`a'b¦c d`");
    }
}
