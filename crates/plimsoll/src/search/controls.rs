//! Controls of a cut: random layers, the layers of the other end, and a tuned strength on the whole adapter.
//!
//! Only if a cut is better than all of them, its gain comes from *which* layers it drops.

use plimsoll_stats::mean;

use crate::lora::{Facts, Family, LayerGates, Place, Places, Variant};

/// Number of variants with random layers.
const DRAWS: usize = 8;

/// Maximum number of variants of [`planned`].
pub(super) const MOST: usize = DRAWS + 1;

/// A control, and the variants over which its NLL is averaged.
#[derive(Clone, Debug)]
pub(super) struct PlannedControl {
    pub(super) family: Family,
    pub(super) label: String,
    pub(super) variants: Vec<Variant>,
}

/// Whether a variant drops a part of the adapter and keeps a part.
pub(super) fn is_cut(facts: &Facts<'_>, variant: &Variant) -> bool {
    let is_kept = |place: &Place| gate(variant, place) != 0.0;
    let kept = facts.places(Places::Modules).filter(is_kept).count();
    0 < kept && kept < facts.places(Places::Modules).count()
}

/// The controls of a cut that need no tuning: as many random places, and as many layers from the other end.
pub(super) fn planned(facts: &Facts<'_>, cut: &Variant) -> Vec<PlannedControl> {
    let layers = facts.layers();
    let is_whole = |gates: &LayerGates| gates.0.iter().all(|gate| *gate == gates.0[0]);
    let kind = if cut.gates.iter().all(is_whole) { Places::Layers } else { Places::Modules };
    let places: Vec<Place> = facts.places(kind).collect();
    let kept = places.iter().filter(|place| gate(cut, place) != 0.0).count();
    // Controls of a cut at another strength have this strength.
    let strength = places.iter().map(|place| gate(cut, place)).fold(0.0, f32::max);
    let strength = if strength > 0.0 { strength } else { 1.0 };
    let of = |chosen: &[Place]| {
        let base = Variant::uniform(layers, 0.0);
        chosen.iter().fold(base, |variant, place| place.set(variant, strength))
    };
    let indices: Vec<usize> = (0..places.len()).collect();
    let draw = |draw: usize| {
        let order = facts.shuffled(&indices, draw);
        of(&order[..kept].iter().map(|&index| places[index]).collect::<Vec<_>>())
    };
    let noun = if kind == Places::Layers { "layers" } else { "modules" };
    let mut planned = vec![PlannedControl {
        family: Family::RandomK,
        label: format!("{kept} random {noun}, {DRAWS} draws"),
        variants: (0..DRAWS).map(draw).collect(),
    }];
    if kind == Places::Layers {
        let top = of(&places[places.len() - kept..]);
        let bottom = of(&places[..kept]);
        // If the cut keeps the highest layers, the lowest are its control.
        let is_top = places.iter().all(|place| (gate(cut, place) != 0.0) == (gate(&top, place) != 0.0));
        let (family, word, variant) =
            if is_top { (Family::BottomK, "lowest", bottom) } else { (Family::TopK, "highest", top) };
        planned.push(PlannedControl { family, label: format!("{word} {kept} layers"), variants: vec![variant] });
    }
    planned
}

/// The index of the variant with the lowest mean NLL on some samples, given by their indices; the first of equals.
pub(super) fn best(nll: &[Vec<f64>], samples: &[usize]) -> usize {
    let mean_of = |nll: &Vec<f64>| mean(&samples.iter().map(|&sample| nll[sample]).collect::<Vec<_>>());
    let means: Vec<f64> = nll.iter().map(mean_of).collect();
    (1..means.len()).fold(0, |best, next| if means[next] < means[best] { next } else { best })
}

/// The NLL of each sample under the variant that is best on the other folds.
pub(super) fn tuned_elsewhere(nll: &[Vec<f64>], folds: &[usize]) -> Vec<f64> {
    let picks: Vec<usize> = (0..=folds.iter().copied().max().unwrap_or(0))
        .map(|fold| {
            let others: Vec<usize> = (0..folds.len()).filter(|&sample| folds[sample] != fold).collect();
            best(nll, &others)
        })
        .collect();
    folds.iter().enumerate().map(|(sample, &fold)| nll[picks[fold]][sample]).collect()
}

/// Means over columns, sample by sample.
pub(super) fn mean_columns(columns: &[Vec<f64>]) -> Vec<f64> {
    let samples = columns.first().map_or(0, Vec::len);
    (0..samples).map(|sample| mean(&columns.iter().map(|column| column[sample]).collect::<Vec<_>>())).collect()
}

/// The LoRA strength of a place; of a layer with several strengths the first that is not 0.
fn gate(variant: &Variant, place: &Place) -> f32 {
    let gates = &variant.gates[place.layer];
    match place.module {
        Some(module) => gates.get(module),
        None => gates.0.iter().copied().find(|gate| *gate != 0.0).unwrap_or(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lora::Projection;

    #[test]
    fn controls_keep_as_much_as_the_cut() {
        let adapted = [[true; Projection::COUNT]; 6];
        let facts = Facts { adapted: &adapted, magnitude: &[], output: &[], seed: 1 };
        let cut = Variant::bottom_k(6, 2);
        assert!(is_cut(&facts, &cut) && !is_cut(&facts, &Variant::uniform(6, 0.5)));
        let controls = planned(&facts, &cut);
        let kept: Vec<Vec<usize>> =
            controls.iter().map(|control| control.variants.iter().map(Variant::layers_kept).collect()).collect();
        assert_eq!(kept, [vec![2; DRAWS], vec![2]]);
        assert_eq!(controls[1].variants[0].spec(), "0-3=0");
        let top = planned(&facts, &Variant::of_layers(6, |layer| layer > 3));
        assert_eq!((top[1].family, top[1].variants[0].spec().as_str()), (Family::BottomK, "2-5=0"));
        // For a cut of modules, random modules are the control.
        let modules = planned(&facts, &Variant::uniform(6, 1.0).with(2, Some(Projection::V), 0.0));
        assert_eq!(modules.len(), 1);
        assert!(modules[0].label.starts_with("53 random modules"));
    }

    #[test]
    fn tuning_does_not_see_the_sample_that_it_is_judged_by() {
        // The first variant is better on samples 0 and 1, the second on 2 and 3, on 3 by far.
        let nll = [vec![1.0, 1.0, 2.0, 9.0], vec![2.0, 2.0, 1.0, 1.0]];
        assert_eq!(best(&nll, &[0, 1, 2, 3]), 1);
        assert_eq!(tuned_elsewhere(&nll, &[0, 1, 2, 3]), [2.0, 2.0, 1.0, 9.0]);
        assert_eq!(mean_columns(&nll), [1.5, 1.5, 1.5, 5.0]);
    }
}
