//! The page's tables of scored variants: all boundaries, and the members of every other family.

use super::evidence::family_note;
use super::figures::nll_decimals;
use super::page::{Extra, Folded, Row, Table};
use super::words::{self, NONE, Sign, count, counted, fixed, percent, plus_minus, printable};
use super::{boundaries, chosen, full, marks, race_status};
use crate::lora::Family;
use crate::result::{ScoreSummary, SearchResult, VariantSummary};

/// All boundaries, with the rules that picked them.
pub(super) fn every_boundary(result: &SearchResult) -> Extra {
    let rows: Vec<&VariantSummary> = boundaries(result).collect();
    let digits = nll_decimals(rows.iter().copied());
    let nats = |value| fixed(value, digits, Sign::Minus);
    let full = full(result);
    let row = |row: &&VariantSummary| {
        let k = row.layers_kept;
        let (selection, holdout) = (row.selection(), row.holdout());
        let delta = full.map_or(f64::NAN, |full| selection.mean_nll - full.selection().mean_nll);
        Row {
            cells: vec![
                k.to_string(),
                plus_minus(nats(selection.mean_nll), &nats(selection.se)),
                fixed(delta, digits, Sign::Both),
                fixed(selection.mean_probability, 4, Sign::Minus),
                percent(selection.token_accuracy),
                plus_minus(nats(holdout.mean_nll), &nats(holdout.se)),
                fixed(holdout.mean_probability, 4, Sign::Minus),
                percent(holdout.token_accuracy),
                picked_by(result, k),
            ],
            is_chosen: Some(k) == chosen(result),
        }
    };
    let caption = format!(
        "NLL: nats per answer token, mean ± standard error. Δ: difference to the full adapter; below 0 is better. \
         prob.: mean probability of the right token. accuracy: share of tokens for which the right token is the most \
         probable one. {} selection samples, {} held-out samples.",
        result.data.selection, result.data.holdout
    );
    let head = ["k", "NLL", "Δ to full", "prob.", "accuracy", "NLL", "prob.", "accuracy", "picked by"];
    let table = Table::new(&caption, head, rows.iter().map(row).collect());
    let table = table.under([("", 1), ("selection", 4), ("held out", 3), ("", 1)]);
    Extra { id: "boundaries", title: "All boundaries", text: Vec::new(), tables: vec![table], folded: Vec::new() }
}

/// All scored variants by family; none if only boundaries were scored.
pub(super) fn everything(result: &SearchResult) -> Option<Extra> {
    let mut families: Vec<Family> = result.variants.iter().map(|variant| variant.family).collect();
    families.sort_unstable();
    families.dedup();
    if families.iter().all(|name| *name == Family::BottomK) {
        return None;
    }
    let digits = nll_decimals(&result.variants);
    let nats = |value| fixed(value, digits, Sign::Minus);
    let members =
        |name: Family| result.variants.iter().filter(move |variant| variant.family == name).collect::<Vec<_>>();
    let overview = families.iter().map(|&name| {
        let members = members(name);
        let scored = members.iter().filter(|variant| variant.selection().mean_nll.is_finite());
        let best = scored.min_by(|a, b| a.selection().mean_nll.total_cmp(&b.selection().mean_nll));
        Row::plain(vec![
            name.to_string(),
            family_note(name).to_owned(),
            count(members.len() as u64),
            best.map_or_else(|| NONE.to_owned(), |best| label(best)),
            best.map_or_else(|| NONE.to_owned(), |best| nats(best.selection().mean_nll)),
        ])
    });
    let caption = format!(
        "Lowest: the variant with the lowest mean NLL of its family, in nats per answer token on {}. The lowest of \
         many looks better there than on other samples.",
        counted(result.data.selection, "selection sample")
    );
    let head = ["family", "definition", "variants", "lowest", "NLL"];
    let table = Table::new(&caption, head, overview.collect()).named(2);
    let others = families.iter().filter(|name| **name != Family::BottomK);
    let folded = others.map(|&name| {
        let members = members(name);
        Folded {
            summary: format!("{name} ({})", counted(members.len(), "variant")),
            table: of_family(result, name, &members, digits),
        }
    });
    Some(Extra {
        id: "everything",
        title: "All scored variants",
        text: Vec::new(),
        tables: vec![table],
        folded: folded.collect(),
    })
}

fn of_family(result: &SearchResult, name: Family, members: &[&VariantSummary], digits: usize) -> Table {
    let nats = |value| fixed(value, digits, Sign::Minus);
    let has_guard = members.iter().any(|variant| variant.guard.is_some());
    let full = full(result).map_or(f64::NAN, |full| full.selection().mean_nll);
    let cell = |score: &ScoreSummary| plus_minus(nats(score.mean_nll), &nats(score.se));
    let row = |variant: &&VariantSummary| {
        let mut cells = vec![
            label(variant),
            variant.layers_kept.to_string(),
            words::bytes(variant.bytes),
            cell(&variant.selection()),
            fixed(variant.selection().mean_nll - full, digits, Sign::Both),
            cell(&variant.holdout()),
        ];
        if has_guard {
            cells.push(variant.guard.as_ref().map_or_else(|| NONE.to_owned(), cell));
        }
        let is_chosen = result
            .candidate
            .as_ref()
            .is_some_and(|candidate| candidate.family == name && candidate.gates == variant.gates);
        Row { cells, is_chosen }
    };
    let caption = format!(
        "{name}: {}. NLL: nats per answer token, mean ± standard error. Δ: difference to the full adapter; below 0 is \
         better.",
        family_note(name)
    );
    let mut head = vec!["variant", "layers", "bytes", "NLL, selection", "Δ to full", "NLL, held out"];
    if has_guard {
        head.push("NLL, guard");
    }
    let head = head.into_iter().map(str::to_owned).collect();
    Table { caption, spans: Vec::new(), head, rows: members.iter().map(row).collect(), names: 1 }
}

/// The rules that picked a boundary, and its status in the race.
fn picked_by(result: &SearchResult, k: usize) -> String {
    let marks = marks(result, k).into_iter().map(str::to_owned);
    marks.chain(race_status(result, k)).collect::<Vec<_>>().join(", ")
}

/// A variant's label, also in results of versions without labels.
fn label(variant: &VariantSummary) -> String {
    if variant.label.is_empty() { format!("{} layers", variant.layers_kept) } else { printable(&variant.label) }
}
