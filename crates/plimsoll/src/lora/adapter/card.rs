//! The model card of a trimmed adapter. A card can be published: it names no folder of the user's disk.

use std::collections::BTreeMap;

use plimsoll_stats::choose::Interval;

use super::cut::{Cut, TrimSummary};
use super::embeddings::{EmbeddingLora, EmbeddingModule};
use super::file_names::PROVENANCE_FILE;
use super::module::Module;
use super::open::Adapter;
use super::provenance::{Provenance, TrimScores};
use crate::lora::projection::Projection;

/// The content of [`CARD_FILE`](super::CARD_FILE), with the front matter of the Hugging Face Hub.
pub(super) fn model_card(adapter: &Adapter, cut: &Cut<'_>, written: &TrimSummary, card: &Provenance) -> String {
    let base = adapter.config.base_model();
    let mut text = String::from("---\n");
    // The Hub accepts only a repository id here, and no local path.
    if let Some(id) = base.filter(|name| is_repository_id(name)) {
        text += &format!("base_model: {id}\n");
    }
    text += "library_name: peft\ntags:\n- lora\n- plimsoll\n---\n\n# A trimmed LoRA adapter\n\n";
    text += &kept_modules(cut, written);
    text += &other_weights(adapter);
    text += &format!(
        "\n\n| | |\n|---|---|\n| LoRA modules | {} of {} |\n| bytes of tensors | {} of {} |\n| LoRA strengths | {} |\n",
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
    text += "\n## Provenance\n\n";
    text += &format!("- tool: {}\n", code(&card.tool));
    for (what, source) in [("full adapter", &card.adapter), ("base model", &card.model), ("samples", &card.data)] {
        if let Some(source) = source {
            text += &format!("- {what}: {}, SHA-256 {}\n", code(last_component(&source.path)), code(&source.sha256));
        }
    }
    if let Some(seed) = card.seed {
        text += &format!("- seed: {seed}\n");
    }
    let command = if card.command.is_some() { ", and the command that repeats the trim" } else { "" };
    text += &format!("\n`{PROVENANCE_FILE}` has these facts in JSON{command}.\n");
    text
}

/// Sentences on the layers and modules that are kept, and on changed tensors.
fn kept_modules(cut: &Cut<'_>, written: &TrimSummary) -> String {
    let TrimSummary { layers_kept, layers_dropped, .. } = written;
    let mut text = if layers_dropped.is_empty() {
        format!("All {} layers of the adapter are kept.", layers_kept.len())
    } else {
        let (kept, dropped) = (layers(layers_kept), layers(layers_dropped));
        format!("LoRA is kept in {kept} and dropped in {dropped} (layer 0 is next to the embedding).")
    };
    let in_kept_layers = |module: &&Module| layers_kept.contains(&module.layer);
    let dropped: Vec<&Module> = cut.dropped.iter().copied().filter(in_kept_layers).collect();
    if !dropped.is_empty() {
        text += &format!(" In the kept layers, these modules are dropped: {}.", places(&dropped));
    }
    if written.strengths.is_empty() {
        if !cut.dropped.is_empty() {
            text += " Nothing was retrained: the kept tensors are copied from the full adapter byte for byte.";
        }
        return text;
    }
    text += " Nothing was retrained. LoRA strengths are multiplied into lora_B, which is rounded to its dtype:";
    for (index, strength) in written.strengths.iter().enumerate() {
        let of_strength = cut.kept.iter().filter(|(_, own)| own == strength).map(|(module, _)| *module);
        let places = places(&of_strength.collect::<Vec<_>>());
        text += &format!("{} {strength} for {places}", if index > 0 { ";" } else { "" });
    }
    text + ". All other tensors are those of the full adapter."
}

/// Sentences on LoRA on embeddings and on weights trained in full.
fn other_weights(adapter: &Adapter) -> String {
    let mut text = String::new();
    let names: Vec<&str> = adapter.modules_on_embeddings().map(EmbeddingModule::name).collect();
    if !names.is_empty() {
        let what = if adapter.embedding_lora == Some(EmbeddingLora::Keep) { "kept" } else { "dropped" };
        text += &format!(" LoRA on {} is {what}.", names.join(" and "));
    }
    if !adapter.saved.is_empty() {
        let names: Vec<String> = adapter.saved().map(code).collect();
        text += &format!(" Weights trained in full are kept: {}.", names.join(", "));
    }
    text
}

/// Modules grouped by their layers: `q_proj, k_proj in layers 0–3; v_proj in layer 2`.
fn places(modules: &[&Module]) -> String {
    let mut by_layers: BTreeMap<Vec<usize>, Vec<&str>> = BTreeMap::new();
    for projection in Projection::ALL {
        let of_it = modules.iter().filter(|module| module.projection == projection);
        by_layers.entry(of_it.map(|module| module.layer).collect()).or_default().push(projection.name());
    }
    by_layers.remove(&Vec::new());
    let groups = by_layers.iter().map(|(numbers, names)| format!("{} in {}", names.join(", "), layers(numbers)));
    groups.collect::<Vec<_>>().join("; ")
}

/// Layers in a sentence: `layer 7`, `layers 0–3, 7`.
fn layers(numbers: &[usize]) -> String {
    let word = if numbers.len() == 1 { "layer" } else { "layers" };
    format!("{word} {}", ranges(numbers))
}

/// The last component of a path of any operating system, without the user's folders.
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
         | | {unit} |\n|---|---|\n| base model | {base:.4} |\n| full adapter | {full:.4} |\n| this adapter | \
         {trimmed:.4} |\n\nGain over the full adapter: {:.4} {unit} (95 % interval {:.4} to {:.4}; positive is \
         better).",
        gain.value, gain.low, gain.high
    );
    if let Some(Interval { value, low, high }) = retained {
        text += &format!(
            " Retained share of the full adapter's gain over the base model: {:.1} % ({:.1} % to {:.1} %).",
            100.0 * value,
            100.0 * low,
            100.0 * high
        );
    }
    text + "\n"
}

/// Ascending numbers with runs joined: `0–3, 7`.
pub(crate) fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}–{last}"),
        _ => run.iter().map(usize::to_string).collect(),
    };
    runs.map(run).collect::<Vec<String>>().join(", ")
}

/// Untrusted text as a Markdown code span, safe in a table cell or a list.
fn code(text: &str) -> String {
    let harmless = |c: char| match c {
        '`' => '\'',
        '|' => '¦',
        c if c.is_control() => ' ',
        c => c,
    };
    format!("`{}`", text.chars().map(harmless).collect::<String>())
}

/// Whether this is a repository id of the Hub: `organisation/name`, in the characters that the Hub allows.
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
    fn runs_are_joined() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0–3, 7, 9–10");
        assert_eq!(ranges(&[5]), "5");
    }

    #[test]
    fn only_a_repository_id_is_named_as_base_model() {
        assert!(is_repository_id("HuggingFaceTB/SmolLM2-135M-Instruct"));
        for name in ["D:\\models\\x", "/home/me/model", "./model", "a/b/c", "a/b\nlicense: mit", "a b/c", "model", ""] {
            assert!(!is_repository_id(name), "{name}");
        }
    }

    #[test]
    fn a_card_names_no_folder_of_the_users_disk() {
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
    fn untrusted_text_stays_in_its_code_span() {
        assert_eq!(code("a`b|c\nd"), "`a'b¦c d`");
    }
}
