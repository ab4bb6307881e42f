//! Effects of layers and modules: the variants that measure them, and the estimates from their scores.
//!
//! An effect is a gain in nats per answer token; positive means that the place helps. Three of them need additional
//! runs. *Leave-one-out* is the loss when only this place is dropped from the full adapter. *Leave-one-in* is the gain
//! when only this place is added to the base model. The *Shapley value* of a layer is its mean gain over orders in
//! which the layers are added. Orders come in pairs, one and its reverse (antithetic sampling: Mitchell, Cooper, Frank
//! & Holmes, Journal of Machine Learning Research 23:43, 2022; sampled permutations: Castro, Gómez & Tejada, Computers
//! & Operations Research 36:5, 2009). The first pair is from the bottom and from the top, whose runs the families
//! bottom-k and top-k need anyway; the others are random. The gains of each order sum to the adapter's gain, so the
//! values do too. In the trie, an order costs as much as all boundaries: after layer l it has l + 2 different states,
//! whatever the order.
//!
//! Intervals are by bootstrap over samples. The interval of a Shapley value also includes the spread between pairs of
//! orders, with the first pair treated as random.

use std::num::NonZeroUsize;

use plimsoll_stats::{Resampler, Stream, mean, mean_and_se, percentile_interval, spearman};

use super::journal::Known;
use crate::lora::{Facts, Place, Places, Projection, Variant, VariantTable};
use crate::result::{Agreement, EffectKind, EffectMeasure, EffectValue, LensPoint};

/// Bootstrap resamples of each interval.
const RESAMPLES: usize = 2_000;

/// Random permutations for the p-value of a rank correlation.
const PERMUTATIONS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Minimum number of layers for a rank correlation.
const FEWEST_LAYERS: usize = 4;

/// Normal quantile of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Orders in which the layers with LoRA are added, in pairs: one and its reverse.
pub(super) fn orders(facts: &Facts<'_>, pairs: usize) -> Vec<Vec<usize>> {
    let layers = facts.lora_layers();
    let first = std::iter::once(layers.clone()).chain((1..pairs).map(|draw| facts.shuffled(&layers, draw)));
    first.take(pairs).flat_map(|order| [order.clone(), order.into_iter().rev().collect()]).collect()
}

/// The variants of an order, from the base model to the full adapter.
fn chain(facts: &Facts<'_>, order: &[usize]) -> Vec<Variant> {
    let base = Variant::uniform(facts.layers(), 0.0);
    let mut chain = vec![base];
    for (added, &layer) in order.iter().enumerate() {
        // The last variant is always the full adapter, whichever layers have no LoRA.
        let next = if added + 1 == order.len() {
            Variant::uniform(facts.layers(), 1.0)
        } else {
            chain[added].clone().with(layer, None, 1.0)
        };
        chain.push(next);
    }
    chain
}

/// The full adapter without a place.
fn left_out(facts: &Facts<'_>, place: Place) -> Variant {
    place.set(Variant::uniform(facts.layers(), 1.0), 0.0)
}

/// The base model with a place.
fn alone(facts: &Facts<'_>, place: Place) -> Variant {
    place.set(Variant::uniform(facts.layers(), 0.0), 1.0)
}

/// All variants that the effects need: of layers, and with [`Places::Modules`] also of single modules.
pub(super) fn variants(facts: &Facts<'_>, deepest: Places, pairs: usize) -> Vec<Variant> {
    let mut variants = vec![Variant::uniform(facts.layers(), 0.0), Variant::uniform(facts.layers(), 1.0)];
    variants.extend(orders(facts, pairs).iter().flat_map(|order| chain(facts, order)));
    let modules = (deepest == Places::Modules).then(|| facts.places(Places::Modules)).into_iter().flatten();
    // Neighbours in the trie share the most if places ascend, so one kind comes after the other.
    let places: Vec<Place> = facts.places(Places::Layers).chain(modules).collect();
    variants.extend(places.iter().map(|place| left_out(facts, *place)));
    variants.extend(places.iter().map(|place| alone(facts, *place)));
    let mut seen = std::collections::HashSet::new();
    variants.retain(|variant| seen.insert(variant.spec()));
    variants
}

/// The scores of the samples that effects are estimated from.
pub(super) struct Measured<'a> {
    pub(super) facts: &'a Facts<'a>,
    pub(super) samples: &'a [&'a Known],
    pub(super) table: &'a VariantTable,
    pub(super) seed: u64,
}

impl Measured<'_> {
    /// The gain of `to` over `from` in NLL, sample by sample; `None` if a score is unknown.
    fn gains(&self, from: &Variant, to: &Variant) -> Option<Vec<f64>> {
        let (from, to) = (self.table.get(from)?, self.table.get(to)?);
        self.samples.iter().map(|known| Some(known.mean_nll(from)? - known.mean_nll(to)?)).collect()
    }

    /// A mean gain with its bootstrap interval, widened by the standard error `spread`. All places share their
    /// resamples.
    fn estimate(&self, place: Place, gains: &[f64], spread: f64) -> EffectValue {
        let n = gains.len() as f64;
        let mut resampler = Resampler::new(self.seed, Stream::Effects, gains.len());
        let resample = |_| resampler.draw().iter().map(|&sample| gains[sample]).sum::<f64>() / n;
        let mut means: Vec<f64> = (0..RESAMPLES).map(resample).collect();
        let (low, high) = percentile_interval(&mut means);
        let value = mean(gains);
        // Two independent errors: their squares are added.
        let widened = |end: f64| {
            let distance = end - value;
            value + distance.signum() * distance.hypot(Z * spread)
        };
        let interval = (gains.len() > 1).then(|| [widened(low), widened(high)]);
        EffectValue { layer: place.layer, module: name(place.module), value, interval }
    }

    /// Leave-one-out or leave-one-in effects of all places that were scored.
    pub(super) fn single(&self, kind: EffectKind) -> Option<EffectMeasure> {
        let layers = self.facts.layers();
        let (base, full) = (Variant::uniform(layers, 0.0), Variant::uniform(layers, 1.0));
        let places = self.facts.places(Places::Layers).chain(self.facts.places(Places::Modules));
        let value = |place: Place| {
            let gains = match kind {
                EffectKind::LeaveOneIn => self.gains(&base, &alone(self.facts, place)),
                _ => self.gains(&left_out(self.facts, place), &full),
            };
            Some(self.estimate(place, &gains?, 0.0))
        };
        self.measure(kind, 0, places.filter_map(value).collect())
    }

    /// The gain of each layer over the layers below it: the steps between boundaries.
    pub(super) fn increments(&self) -> Option<EffectMeasure> {
        let layers = self.facts.layers();
        let value = |place: Place| {
            let [below, with] = [0, 1].map(|more| Variant::bottom_k(layers, place.layer + more));
            Some(self.estimate(place, &self.gains(&below, &with)?, 0.0))
        };
        let values = self.facts.places(Places::Layers).map(value).collect::<Option<Vec<_>>>()?;
        self.measure(EffectKind::Increment, 0, values)
    }

    /// Shapley values over pairs of orders; `None` if a variant was not scored.
    pub(super) fn shapley(&self, pairs: usize) -> Option<EffectMeasure> {
        let orders = orders(self.facts, pairs);
        if orders.is_empty() {
            return None;
        }
        // [pair][layer][sample], for the layers with LoRA in ascending order.
        let layers = self.facts.lora_layers();
        let mut by_pair = Vec::new();
        for pair in orders.chunks(2) {
            let mut gains = vec![vec![0.0; self.samples.len()]; layers.len()];
            for order in pair {
                let chain = chain(self.facts, order);
                for (step, layer) in chain.windows(2).zip(order) {
                    let index = layers.binary_search(layer).ok()?;
                    for (sum, gain) in gains[index].iter_mut().zip(self.gains(&step[0], &step[1])?) {
                        *sum += gain / pair.len() as f64;
                    }
                }
            }
            by_pair.push(gains);
        }
        let value = |(index, &layer): (usize, &usize)| {
            let n = by_pair.len() as f64;
            let gain = |sample: usize| by_pair.iter().map(|gains| gains[index][sample]).sum::<f64>() / n;
            let gains: Vec<f64> = (0..self.samples.len()).map(gain).collect();
            let means: Vec<f64> = by_pair.iter().map(|gains| mean(&gains[index])).collect();
            self.estimate(Place { layer, module: None }, &gains, mean_and_se(&means).1)
        };
        self.measure(EffectKind::Shapley, orders.len(), layers.iter().enumerate().map(value).collect())
    }

    fn measure(&self, kind: EffectKind, permutations: usize, values: Vec<EffectValue>) -> Option<EffectMeasure> {
        let samples = self.samples.len();
        (!values.is_empty() && samples > 0).then_some(EffectMeasure { kind, samples, permutations, values })
    }
}

/// Norms of layers from those of their modules: the root of the sum of squares.
pub(super) fn joint_norms(modules: &[[f64; Projection::COUNT]]) -> Vec<f64> {
    modules.iter().map(|norms| norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt()).collect()
}

/// Energies of layers from those of their modules: the sum.
pub(super) fn joint_energies(modules: &[[f64; Projection::COUNT]]) -> Vec<f64> {
    modules.iter().map(|energies| energies.iter().sum()).collect()
}

/// A measure without intervals: values of layers from `joint`, of modules from `modules`.
pub(super) fn plain(
    kind: EffectKind,
    facts: &Facts<'_>,
    samples: usize,
    joint: &[f64],
    modules: &[[f64; Projection::COUNT]],
) -> EffectMeasure {
    let value = |Place { layer, module }: Place| {
        let value = match module {
            None => joint[layer],
            Some(module) => modules[layer][module as usize],
        };
        EffectValue { layer, module: name(module), value, interval: None }
    };
    let places = facts.places(Places::Layers).chain(facts.places(Places::Modules));
    EffectMeasure { kind, samples, permutations: 0, values: places.map(value).collect() }
}

/// The rise of the ground-truth probability over each layer: with the full adapter, minus with the base model.
pub(super) fn lens(facts: &Facts<'_>, base: &[LensPoint], full: &[LensPoint], samples: usize) -> Option<EffectMeasure> {
    let rise = |curve: &[LensPoint], layer: usize| {
        let before = layer.checked_sub(1).map_or(0.0, |before| curve[before].probability);
        curve[layer].probability - before
    };
    if base.len() != facts.layers() || full.len() != facts.layers() {
        return None;
    }
    let value = |place: Place| {
        let value = rise(full, place.layer) - rise(base, place.layer);
        EffectValue { layer: place.layer, module: None, value, interval: None }
    };
    let values: Vec<EffectValue> = facts.places(Places::Layers).map(value).collect();
    Some(EffectMeasure { kind: EffectKind::Lens, samples, permutations: 0, values })
}

/// Rank correlations between cheap measures of the layers and measured effects.
pub(super) fn agreement(measures: &[EffectMeasure], seed: u64) -> Vec<Agreement> {
    let of_layers = |measure: &EffectMeasure| -> Vec<f64> {
        measure.values.iter().filter(|value| value.module.is_none()).map(|value| value.value).collect()
    };
    let is_cheap = |measure: &&EffectMeasure| {
        matches!(measure.kind, EffectKind::Magnitude | EffectKind::Output | EffectKind::Lens)
    };
    let mut agreement = Vec::new();
    for effect in measures.iter().filter(|measure| !is_cheap(measure)) {
        for proxy in measures.iter().filter(is_cheap) {
            let (x, y) = (of_layers(proxy), of_layers(effect));
            if x.len() == y.len() && x.len() >= FEWEST_LAYERS {
                let (rho, p) = spearman(&x, &y, PERMUTATIONS, seed);
                agreement.push(Agreement { proxy: proxy.kind, truth: effect.kind, rho, p, layers: x.len() });
            }
        }
    }
    agreement
}

fn name(module: Option<Projection>) -> Option<String> {
    module.map(|module| module.name().to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lora::VariantId;
    use crate::result::VariantScore;

    const LAYERS: usize = 5;

    /// A sample whose NLL is lowered by the effect of each kept layer, and by 0.3 if layers 1 and 3 are both kept.
    fn sample(line: usize, hard: f64, facts: &Facts<'_>, pairs: usize, table: &mut VariantTable) -> Known {
        let effect = |layer: usize| (layer as f64 - 1.0) * 0.1 * hard;
        let score = |variant: &Variant| {
            let is_on = |layer: usize| variant.gates[layer].get(Projection::Q) != 0.0;
            let own: f64 = (0..LAYERS).filter(|&layer| is_on(layer)).map(effect).sum();
            let nll = 4.0 * hard - own - if is_on(1) && is_on(3) { 0.3 } else { 0.0 };
            VariantScore { nll, probability: 0.5, correct: 0 }
        };
        let scores: BTreeMap<VariantId, VariantScore> = variants(facts, Places::Modules, pairs)
            .iter()
            .chain(&Variant::every_boundary(LAYERS))
            .map(|variant| (table.insert(variant), score(variant)))
            .collect();
        Known { line, tokens: 1, scores, ..Known::default() }
    }

    #[test]
    fn effects_are_those_of_a_sum_with_one_pair() {
        let adapted = [[true; Projection::COUNT]; LAYERS];
        let facts = Facts { adapted: &adapted, magnitude: &[], output: &[], seed: 3 };
        let mut table = VariantTable::default();
        let samples: Vec<Known> = (0..6).map(|i| sample(i, 1.0 + i as f64 / 5.0, &facts, 3, &mut table)).collect();
        let known: Vec<&Known> = samples.iter().collect();
        let measured = Measured { facts: &facts, samples: &known, table: &table, seed: 1 };
        let close = |value: f64, expected: f64| (value - expected).abs() < 1e-12;
        // The mean of `hard` is 1.5.
        let own = |layer: usize| (layer as f64 - 1.0) * 0.15;
        let of_layers = |measure: EffectMeasure| -> Vec<EffectValue> {
            measure.values.into_iter().filter(|value| value.module.is_none()).collect()
        };

        let out = of_layers(measured.single(EffectKind::LeaveOneOut).unwrap());
        let alone = of_layers(measured.single(EffectKind::LeaveOneIn).unwrap());
        let shapley = of_layers(measured.shapley(3).unwrap());
        let steps = of_layers(measured.increments().unwrap());
        for layer in 0..LAYERS {
            let is_paired = layer == 1 || layer == 3;
            assert!(close(out[layer].value, own(layer) + if is_paired { 0.3 } else { 0.0 }));
            assert!(close(alone[layer].value, own(layer)));
            assert!(close(steps[layer].value, own(layer) + if layer == 3 { 0.3 } else { 0.0 }));
            // The pair's gain is at layer 1 in one order and at layer 3 in its reverse: half for each, exactly.
            assert!(close(shapley[layer].value, own(layer) + if is_paired { 0.15 } else { 0.0 }), "{shapley:?}");
            let [low, high] = shapley[layer].interval.unwrap();
            assert!(low <= shapley[layer].value && shapley[layer].value <= high);
        }
        let total: f64 = shapley.iter().map(|value| value.value).sum();
        assert!(close(
            total,
            measured.gains(&Variant::uniform(LAYERS, 0.0), &Variant::uniform(LAYERS, 1.0)).unwrap().iter().sum::<f64>()
                / 6.0
        ));
        // Without scores of all variants there is no value.
        assert!(measured.shapley(9).is_none());
    }

    #[test]
    fn orders_come_with_their_reverse() {
        let adapted = [[true; Projection::COUNT]; LAYERS];
        let facts = Facts { adapted: &adapted, magnitude: &[], output: &[], seed: 3 };
        let orders = orders(&facts, 3);
        assert_eq!(orders.len(), 6);
        assert_eq!(orders[0], [0, 1, 2, 3, 4]);
        for pair in orders.chunks(2) {
            assert_eq!(pair[0].iter().rev().copied().collect::<Vec<_>>(), pair[1]);
        }
        assert_ne!(orders[2], orders[4]);
    }
}
