//! Tables below the boundaries, for the terminal and for Markdown: other families and their comparison, controls,
//! effects, the guard and the Pareto front. Each is left out if it was not measured.

use plimsoll_stats::choose::{Gain, JudgingSamples};

use super::evidence::{effect, effect_column, effect_note, judged_on};
use super::grid::{Grid, Side, add, arrow, clipped};
use super::sufficient::sufficient_layers;
use super::words::{
    self, NONE, Retained, Sign, bytes, count, counted, decimals, fixed, gain_digits, p_value, percent, plain,
    plus_minus, printable,
};
use super::{boundaries, candidate_boundary, is_candidate};
use crate::lora::Family;
use crate::result::{
    Agreement, Arbitration, Controls, Depth, EffectKind, EffectMeasure, EffectValue, Effects, FamilySummary,
    FrontPoint, GuardSummary, ScoreSummary, SearchResult, SufficientLayers, VariantSummary,
};

/// Width of a bar, in columns.
const BAR: usize = 10;
/// Longest name of a variant in a table, in characters.
const NAME: usize = 28;
/// Most rows of a family, of the effects and of the front in [`Extent::Short`].
const FEW: usize = 10;

/// How many rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The most important rows.
    Short,
    /// All rows.
    Whole,
}

/// Tables under a title.
pub(super) struct Section {
    /// Its title.
    pub(super) title: &'static str,
    /// The tables, each with a name if there are several.
    pub(super) grids: Vec<(Option<String>, Grid)>,
    /// The legend, and what is left out.
    pub(super) note: String,
}

/// The sections of everything that was measured in addition to the boundaries.
pub(super) fn sections(result: &SearchResult, extent: Extent) -> Vec<Section> {
    let all = [
        sufficient(result),
        families(result, extent),
        result.arbitration.as_ref().map(arbitration),
        result.controls.as_ref().map(|controls| controls_section(controls, result)),
        result.effects.as_ref().and_then(|measured| effects(measured, extent)),
        result.effects.as_ref().and_then(agreement),
        result.guard.as_ref().map(guard),
        front(result, extent),
    ];
    all.into_iter().flatten().collect()
}

/// Scores of the members of every family but the boundaries, one table per family.
fn families(result: &SearchResult, extent: Extent) -> Option<Section> {
    let is_effect = |family| match (&result.effects, family) {
        (Some(effects), Family::LeaveOneOut) => effects.of(EffectKind::LeaveOneOut).is_some(),
        (Some(effects), Family::LeaveOneIn) => effects.of(EffectKind::LeaveOneIn).is_some(),
        _ => false,
    };
    let mut of_family: Vec<(Family, Vec<&VariantSummary>)> = Vec::new();
    for variant in &result.variants {
        let family = variant.family;
        if family == Family::BottomK || is_effect(family) {
            continue;
        }
        match of_family.iter_mut().find(|(other, _)| *other == family) {
            Some((_, members)) => members.push(variant),
            None => of_family.push((family, vec![variant])),
        }
    }
    let nll = |variant: &VariantSummary| variant.selection().mean_nll;
    let shown = of_family.iter().flat_map(|(_, members)| members.iter().copied()).chain(boundaries(result));
    let means = shown.map(nll).filter(|mean| mean.is_finite());
    let range = means.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), mean| (low.min(mean), high.max(mean)));
    let decimals = decimals(range.1, 5).min(5);
    let nats = |value| fixed(value, decimals, Sign::Minus);
    let full = super::full(result).map_or(f64::NAN, nll);
    let has_guard = result.guard.is_some();

    let mut left_out = Vec::new();
    let mut grids = Vec::new();
    for (family, mut members) in of_family {
        if extent == Extent::Short && members.len() > FEW {
            // The members with the lowest NLL, in their order.
            let mut ranked: Vec<f64> = members.iter().map(|variant| nll(variant)).collect();
            ranked.sort_by(|a, b| a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(b)));
            let limit = ranked[FEW - 1];
            let all = members.len();
            members.retain(|variant| nll(variant) <= limit);
            members.truncate(FEW);
            left_out.push(format!("{} of {}", all - members.len(), Family::name(family)));
        }
        let mut columns = vec![
            ("", Side::Left),
            ("variant", Side::Left),
            ("NLL ± SE", Side::Right),
            ("Δ to full", Side::Right),
            ("held out", Side::Right),
        ];
        columns.extend(has_guard.then_some(("guard", Side::Right)));
        columns.extend([("bytes", Side::Right), ("NLL bar", Side::Bar)]);
        let mut grid = Grid::new(&columns);
        for variant in members {
            let ScoreSummary { mean_nll, se, .. } = variant.selection();
            let is_chosen = is_candidate(result, variant.family, &variant.gates);
            let mut cells = vec![
                arrow(is_chosen),
                name(&variant.label, extent),
                plus_minus(nats(mean_nll), &nats(se)),
                fixed(mean_nll - full, decimals, Sign::Both),
                nats(variant.holdout().mean_nll),
            ];
            cells.extend(has_guard.then(|| nats(variant.guard.map_or(f64::NAN, |guard| guard.mean_nll))));
            cells.extend([bytes(variant.bytes), bar(mean_nll, range)]);
            add(&mut grid, cells, is_chosen);
        }
        grids.push((Some(Family::name(family).to_owned()), grid));
    }
    let mut note =
        "NLL in nats per answer token on the selection samples. Bars span the lowest to the highest NLL of all \
             variants."
            .to_owned();
    if !left_out.is_empty() {
        note.push_str(&format!(" Left out, with a higher NLL: {}.", left_out.join(", ")));
    }
    (!grids.is_empty()).then_some(Section { title: "Other families", grids, note })
}

/// Title of the sufficient layers.
pub(super) const LAYERS_NEEDED: &str = "How many layers are needed";

/// Legend of the sufficient layers.
pub(super) fn layers_needed_note(samples: usize) -> String {
    format!(
        "The fewest layers that are shown to retain more than the margin, a share of the adapter's gain over the base \
         model. One-sided tests on {}, from the cut that drops least to the first that is not shown. Why not fewer: the \
         next cut with its share, and its p-value, or `less` if it is shown to retain less. Each row is a claim of its \
         own. `plimsoll trim --from OUT --margin` writes the adapter of a row.",
        counted(samples, "sample")
    )
}

/// How many layers each margin needs, one table for each family.
fn sufficient(result: &SearchResult) -> Option<Section> {
    let samples = result.sufficient.first()?.samples;
    let is_one = result.sufficient.len() == 1;
    let name = |list: &SufficientLayers| {
        let measure = match &list.metric {
            Some(metric) => format!(", {}", printable(metric)),
            None if result.metric.is_some() => ", NLL".to_owned(),
            None => String::new(),
        };
        (!is_one).then(|| format!("{}{measure}", Family::name(list.family)))
    };
    let grids = result.sufficient.iter().map(|list| (name(list), sufficient_layers(list, result))).collect();
    let strength = words::tuned_strength(result).map_or_else(String::new, |text| format!(" {text}"));
    let note = format!("{}{strength}", layers_needed_note(samples));
    Some(Section { title: LAYERS_NEEDED, grids, note })
}

fn arbitration(Arbitration { folds, families }: &Arbitration) -> Section {
    let mut grid = Grid::new(&[
        ("", Side::Left),
        ("family", Side::Left),
        ("pick", Side::Left),
        ("of", Side::Right),
        ("bytes", Side::Right),
        ("NLL", Side::Right),
        ("deficit ± SE", Side::Right),
        ("deficit bar", Side::Bar),
    ]);
    let most = families.iter().map(|family| family.deficit).filter(|deficit| deficit.is_finite()).fold(0.0, f64::max);
    let digits = decimals(families.iter().map(|family| family.mean_nll).fold(f64::NEG_INFINITY, f64::max), 5).min(5);
    for FamilySummary { family, pick, members, mean_nll, deficit, se, is_chosen } in families {
        let cells = vec![
            arrow(*is_chosen),
            Family::name(*family).to_owned(),
            clipped(&pick.label, NAME),
            count(*members as u64),
            bytes(pick.bytes),
            fixed(*mean_nll, digits, Sign::Minus),
            plus_minus(fixed(*deficit, digits, Sign::Minus), &fixed(*se, digits, Sign::Minus)),
            if *deficit > 0.0 { bar(*deficit, (0.0, most)) } else { String::new() },
        ];
        add(&mut grid, cells, *is_chosen);
    }
    let note = format!(
        "Cross-validation with {} folds of the selection samples: each family's rule picks one of its variants on the \
         other folds, and the pick is scored on the fold left out. Of: number of variants. NLL: mean of these scores. \
         Deficit: difference to the best family. The simplest family within one standard error of the best is taken; \
         the simplest is listed first.",
        count(*folds as u64)
    );
    Section { title: "Comparison of families", grids: vec![(None, grid)], note }
}

fn controls_section(Controls { rows, depth }: &Controls, result: &SearchResult) -> Section {
    let mut grid = Grid::new(&[
        ("control", Side::Left),
        ("gain", Side::Right),
        ("95 % interval", Side::Left),
        ("over it", Side::Right),
        ("95 % interval", Side::Left),
        ("p", Side::Left),
    ]);
    for control in rows {
        let [over_full, over_full_interval] = with_interval(&control.over_full);
        let [candidate, candidate_interval] = with_interval(&control.cut_over);
        let name = clipped(&control.label, NAME + 4);
        grid.row(vec![name, over_full, over_full_interval, candidate, candidate_interval, p_cell(control.p_holm)]);
    }
    let found = match depth {
        Depth::Shown => "The candidate is shown to be better than every control: it matters which layers are kept.",
        Depth::NotShown => {
            "At least one control may be as good as the candidate: it is not shown that the choice of layers matters."
        }
    };
    let alpha = result.rules.alpha;
    let differ = rows.iter().any(|control| words::disagreement(&control.cut_over, control.p_holm, alpha).is_some());
    let note = format!(
        "{found} Measured on {}. Gain: the control over the full adapter. Over it: the candidate over the \
         control, with p adjusted for all controls (Holm). Above 0 is better.{}",
        judged_on(rows.first().map_or(&result.choice.gain, |control| &control.cut_over), result),
        if differ {
            " A bootstrap interval and its p can disagree: only the tests correct for few and skewed samples and for \
             the number of controls. A difference is shown if both agree."
        } else {
            ""
        },
    );
    Section { title: "Controls", grids: vec![(None, grid)], note }
}

/// Measured effects in the table; the first that is present orders it.
const MEASURED: [EffectKind; 3] = [EffectKind::LeaveOneOut, EffectKind::LeaveOneIn, EffectKind::Shapley];

fn effects(effects: &Effects, extent: Extent) -> Option<Section> {
    let first = MEASURED.into_iter().find_map(|kind| effects.of(kind))?;
    let others: Vec<&EffectMeasure> =
        MEASURED.into_iter().filter(|kind| *kind != first.kind).filter_map(|kind| effects.of(kind)).collect();
    let of_layers: Vec<&EffectValue> = first.values.iter().filter(|value| value.module.is_none()).collect();
    let mut places = if of_layers.is_empty() { first.values.iter().collect() } else { of_layers };
    let all = places.len();
    places.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
    if extent == Extent::Short {
        places.truncate(FEW);
    }
    let most = places.iter().map(|place| place.value.abs()).filter(|value| value.is_finite()).fold(0.0, f64::max);
    // From the most helpful to the most harmful.
    places.sort_by(|a, b| b.value.total_cmp(&a.value));
    let digits = decimals(most, 3).min(6);

    let mut columns =
        vec![("place", Side::Left), (effect_column(first.kind), Side::Right), ("95 % interval", Side::Left)];
    columns.extend(others.iter().map(|measure| (effect_column(measure.kind), Side::Right)));
    columns.push(("harms │ helps", Side::Bar));
    let mut grid = Grid::new(&columns);
    for place in places {
        let interval = place.interval.map_or_else(String::new, |[low, high]| {
            format!("{} to {}", fixed(low, digits, Sign::Both), fixed(high, digits, Sign::Both))
        });
        let mut cells = vec![place_name(place), fixed(place.value, digits, Sign::Both), interval];
        cells.extend(others.iter().map(|measure| {
            let same = |other: &&EffectValue| other.layer == place.layer && other.module == place.module;
            fixed(measure.values.iter().find(same).map_or(f64::NAN, |value| value.value), digits, Sign::Both)
        }));
        cells.push(signed_bar(place.value, most));
        grid.row(cells);
    }
    let left_out = all.saturating_sub(grid.rows.len());
    let meaning = |measure: &&EffectMeasure| {
        let (column, note) = (effect_column(measure.kind), effect_note(measure.kind));
        format!("{column}: {note}")
    };
    let meanings: Vec<String> = [first].iter().chain(&others).map(meaning).collect();
    let mut note =
        format!("{}. On {}; above 0 the layer helps.", meanings.join("; "), counted(first.samples, "sample"));
    if left_out > 0 {
        note.push_str(&format!(" The {FEW} largest effects are shown; {left_out} smaller ones are left out."));
    }
    Some(Section { title: "Effect of each layer", grids: vec![(None, grid)], note })
}

fn agreement(effects: &Effects) -> Option<Section> {
    let mut grid = Grid::new(&[
        ("cheaper measure", Side::Left),
        ("measured effect", Side::Left),
        ("ρ", Side::Right),
        ("p", Side::Left),
        ("layers", Side::Right),
        ("−1 │ 1", Side::Bar),
    ]);
    for Agreement { proxy, truth, rho, p, layers } in &effects.agreement {
        grid.row(vec![
            effect(*proxy).to_owned(),
            effect(*truth).to_owned(),
            fixed(*rho, 2, Sign::Both),
            p_cell(*p),
            count(*layers as u64),
            signed_bar(*rho, 1.0),
        ]);
    }
    let note =
        "Spearman's ρ of two orders of the layers: 1 is the same order, 0 no relation, −1 the reverse order. p is \
                not adjusted."
            .to_owned();
    (!effects.agreement.is_empty()).then_some(Section {
        title: "Rank correlation of measures",
        grids: vec![(None, grid)],
        note,
    })
}

fn guard(guard: &GuardSummary) -> Section {
    let mut grid = Grid::new(&[
        ("on the guard's held-out samples", Side::Left),
        ("gain", Side::Right),
        ("95 % interval", Side::Left),
        ("p", Side::Left),
    ]);
    for (name, gain) in
        [("candidate over the full adapter", &guard.gain), ("full adapter over the base model", &guard.adapter_gain)]
    {
        let [value, interval] = with_interval(gain);
        grid.row(vec![name.to_owned(), value, interval, p_cell(gain.p)]);
    }
    let found = if guard.is_held { "The guard holds" } else { "The guard does not hold" };
    let not = if guard.is_held { "" } else { "not " };
    let excluded = match guard.excluded {
        0 => String::new(),
        excluded => format!(
            " {} excluded before the pick: a larger loss was shown on {}.",
            if excluded == 1 {
                "1 variant was".to_owned()
            } else {
                format!("{} variants were", count(excluded as u64))
            },
            counted(guard.selection, "selection sample"),
        ),
    };
    let note = format!(
        "{found}: on {} of the guard the candidate is {not}shown to lose less than {} nats per answer token against \
         the full adapter.{excluded}",
        counted(guard.holdout, "held-out sample"),
        plain(guard.margin),
    );
    Section { title: "Guard", grids: vec![(None, grid)], note }
}

/// The Pareto front of bytes, NLL and, with a guard, the guard's NLL.
fn front(result: &SearchResult, extent: Extent) -> Option<Section> {
    let mut points: Vec<&FrontPoint> = result.front.iter().filter(|point| point.is_on_front).collect();
    let dominated = result.front.len() - points.len();
    points.sort_by_key(|point| point.bytes);
    let all = points.len();
    if extent == Extent::Short && all > FEW {
        // Both ends and points at even steps between them.
        points = (0..FEW).map(|place| points[place * (all - 1) / (FEW - 1)]).collect();
    }
    let has_guard = points.iter().any(|point| point.guard.is_some());
    let mut columns = vec![
        ("", Side::Left),
        ("variant", Side::Left),
        ("family", Side::Left),
        ("bytes", Side::Right),
        ("NLL", Side::Right),
    ];
    columns.extend(has_guard.then_some(("guard", Side::Right)));
    columns.push(("bytes bar", Side::Bar));
    let mut grid = Grid::new(&columns);
    let most = points.iter().map(|point| point.bytes).max().unwrap_or(0) as f64;
    let digits = decimals(points.iter().map(|point| point.nll).fold(f64::NEG_INFINITY, f64::max), 5).min(5);
    for point in &points {
        let is_chosen = is_candidate(result, point.family, &point.gates);
        let mut cells = vec![
            arrow(is_chosen),
            name(&point.label, extent),
            Family::name(point.family).to_owned(),
            bytes(point.bytes),
            fixed(point.nll, digits, Sign::Minus),
        ];
        cells.extend(has_guard.then(|| fixed(point.guard.unwrap_or(f64::NAN), digits, Sign::Minus)));
        cells.push(if point.bytes > 0 { bar(point.bytes as f64, (0.0, most)) } else { String::new() });
        add(&mut grid, cells, is_chosen);
    }
    let dominated = match dominated {
        0 => String::new(),
        dominated => format!(" {} left out.", counted(dominated, "dominated variant")),
    };
    let more = match all - points.len() {
        0 => String::new(),
        more => format!(" {} more on the front.", count(more as u64)),
    };
    let measures = if has_guard {
        "bytes, NLL on the selection samples and NLL on the guard samples"
    } else {
        "bytes and NLL on the selection samples"
    };
    let note = format!(
        "Variants that no other variant dominates in {measures}.{dominated}{more} The lowest of many NLLs looks better \
         than it is."
    );
    (!points.is_empty()).then_some(Section { title: "Pareto front", grids: vec![(None, grid)], note })
}

impl Effects {
    /// The measure of a kind, if it has values.
    pub(super) fn of(&self, kind: EffectKind) -> Option<&EffectMeasure> {
        self.measures.iter().find(|measure| measure.kind == kind && !measure.values.is_empty())
    }
}

/// `layer 7`, `layer 7, q_proj`.
pub(super) fn place_name(place: &EffectValue) -> String {
    match &place.module {
        None => format!("layer {}", place.layer),
        Some(module) => format!("layer {}, {}", place.layer, clipped(module, 12)),
    }
}

/// Whether a variant is the candidate.
/// A gain, and its interval as `−0.0012 to +0.0207`.
pub(super) fn with_interval(gain: &Gain) -> [String; 2] {
    let [value, low, high] = gain_digits(gain, Sign::Both);
    let interval = if value == NONE { String::new() } else { format!("{low} to {high}") };
    [value, interval]
}

/// A p-value without its name: `< 0.001`, `0.003`.
pub(super) fn p_cell(p: f64) -> String {
    p_value(p).trim_start_matches("p ").trim_start_matches("= ").to_owned()
}

fn name(label: &str, extent: Extent) -> String {
    match extent {
        Extent::Short => clipped(label, NAME),
        Extent::Whole => clipped(label, 4 * NAME),
    }
}

/// The bar of a value in a range: shortest for the lowest value, the full width for the highest.
pub(super) fn bar(value: f64, range: (f64, f64)) -> String {
    const EIGHTHS: [char; 8] = ['█', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let span = range.1 - range.0;
    let share = if span > 0.0 && span.is_finite() { (value - range.0) / span } else { 0.0 };
    let eighths = 1 + (share.clamp(0.0, 1.0) * (BAR * 8 - 1) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    bar.extend((!eighths.is_multiple_of(8)).then(|| EIGHTHS[eighths % 8]));
    bar
}

/// The bar of a signed value: to the left of a middle line below 0, to the right above.
fn signed_bar(value: f64, most: f64) -> String {
    /// Width of one side, in columns.
    const HALF: usize = 6;
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let share = if most > 0.0 { (value.abs() / most).clamp(0.0, 1.0) } else { 0.0 };
    // Block characters that are filled on the right exist as whole and half.
    let halves = (share * (HALF * 2) as f64).round() as usize;
    let (whole, half) = (halves / 2, halves % 2 == 1);
    if value < 0.0 {
        let bar = format!("{}{}", if half { "▐" } else { "" }, "█".repeat(whole));
        format!("{bar:>HALF$}│")
    } else {
        format!("{:HALF$}│{}{}", "", "█".repeat(whole), if half { "▌" } else { "" })
    }
}

/// The numbers of the answer: gains, retained share, stability and size.
pub(super) fn facts(result: &SearchResult) -> Grid {
    let SearchResult { choice, adapter, rules, model, .. } = result;
    let candidate = candidate_name(result);
    let mut grid =
        Grid::new(&[("", Side::Left), ("value", Side::Right), ("95 % interval", Side::Left), ("p", Side::Left)]);
    let mut gain = |name: String, gain: &Gain| {
        let [value, interval] = with_interval(gain);
        grid.row(vec![name, value, interval, p_cell(gain.p)]);
    };
    if candidate_boundary(result) < model.layers
        || result.candidate.as_ref().is_some_and(|c| c.family != Family::BottomK)
    {
        gain(format!("gain of {candidate} over the full adapter"), &choice.gain);
        gain(format!("gain of {candidate} over the base model"), &choice.base_gain);
    }
    gain("gain of the full adapter over the base model".to_owned(), &choice.adapter_gain);
    if let Some(retained) = Retained::of(choice.retained, &choice.adapter_gain) {
        let [value, interval] = match retained {
            Retained::Share(share) => {
                let [value, low, high] = words::estimate(&share, 100.0, 2, Sign::Minus);
                [format!("{value} %"), format!("{low} to {high} %")]
            }
            Retained::GainTooSmall { .. } => [NONE.to_owned(), words::NO_SHARE.to_owned()],
        };
        grid.row(vec!["retained share of the adapter's gain".to_owned(), value, interval, String::new()]);
    }
    // The resamples pick by the one-standard-error rule.
    let is_picked = choice.validation != JudgingSamples::All;
    if let Some(share) = choice.bootstrap.get(choice.one_se).filter(|_| is_picked) {
        grid.row(vec![
            format!("share of {} resamples that pick the same k", count(rules.choice_resamples as u64)),
            percent(*share),
            String::new(),
            String::new(),
        ]);
    }
    grid.row(vec![
        format!("adapter tensors kept, of {}", bytes(adapter.bytes)),
        bytes(adapter.bytes_kept),
        String::new(),
        String::new(),
    ]);
    grid
}

/// The candidate's label, such as `18 layers`.
pub(super) fn candidate_name(result: &SearchResult) -> String {
    match &result.candidate {
        Some(candidate) if !candidate.label.is_empty() => clipped(&candidate.label, NAME),
        _ => counted(candidate_boundary(result), "layer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_two_sides_about_a_line() {
        assert_eq!(signed_bar(1.0, 1.0), "      │██████");
        assert_eq!(signed_bar(-0.25, 1.0), "    ▐█│");
        assert_eq!(signed_bar(0.0, 0.0), "      │");
        assert_eq!(signed_bar(f64::NAN, 1.0), NONE);
        assert_eq!(bar(0.0, (0.0, 1.0)), "▏");
        assert_eq!(bar(1.0, (0.0, 1.0)), "█".repeat(BAR));
    }

    #[test]
    fn a_long_name_is_shortened() {
        assert_eq!(clipped("abc\n", 4), "abc\u{fffd}");
        assert_eq!(clipped("abcdef", 4), "abc…");
    }
}
