//! Variants: one LoRA strength for each layer and module.
//!
//! A LoRA strength γ (a *gate* in the code) multiplies one module's update in `y = Wx + γ·s·B(Ax)`. The variant `full`
//! is 1 everywhere, `base` is 0 everywhere, and a boundary k (arXiv:2503.23360) is 1 in layers `0..k`, 0 above. A
//! variant is data: it holds no tensors.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use super::projection::Projection;
use crate::error::{Error, Result};

/// Most layers that are supported: published dense models have about a tenth.
pub(crate) const MAX_LAYERS: usize = 1_024;

/// The LoRA strengths of one layer, indexed by `Projection as usize`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerGates(pub [f32; Projection::COUNT]);

impl LayerGates {
    /// Every update of the layer as trained: all 1.
    pub const ON: Self = Self([1.0; Projection::COUNT]);
    /// Every update of the layer dropped: all 0.
    pub const OFF: Self = Self([0.0; Projection::COUNT]);

    /// The LoRA strength of one module.
    pub fn get(&self, projection: Projection) -> f32 {
        self.0[projection as usize]
    }
}

/// The LoRA strengths of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    /// The strengths of each layer; layer 0 is next to the embedding.
    pub gates: Vec<LayerGates>,
}

impl Variant {
    /// The distinct variants, in the order of their first occurrence.
    pub fn distinct(variants: &[Self]) -> Vec<Self> {
        let mut seen = HashSet::new();
        variants.iter().filter(|variant| seen.insert(variant.spec())).cloned().collect()
    }

    /// The same LoRA strength everywhere: 0 is the base model, 1 the full adapter.
    pub fn uniform(layers: usize, strength: f32) -> Self {
        Self { gates: vec![LayerGates([strength; Projection::COUNT]); layers] }
    }

    /// LoRA as trained in the layers for which `is_on` holds, dropped in the others.
    pub fn of_layers(layers: usize, is_on: impl Fn(usize) -> bool) -> Self {
        Self { gates: (0..layers).map(|l| if is_on(l) { LayerGates::ON } else { LayerGates::OFF }).collect() }
    }

    /// A boundary: LoRA as trained in layers `0..layers_kept`, dropped above. A `layers_kept` above `layers` counts as
    /// `layers`.
    pub fn bottom_k(layers: usize, layers_kept: usize) -> Self {
        Self::of_layers(layers, |layer| layer < layers_kept)
    }

    /// The variant with the LoRA strength of one module, or of all modules of one layer, replaced.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn with(mut self, layer: usize, module: Option<Projection>, strength: f32) -> Self {
        match module {
            Some(module) => self.gates[layer].0[module as usize] = strength,
            None => self.gates[layer] = LayerGates([strength; Projection::COUNT]),
        }
        self
    }

    /// Number of layers with a LoRA strength other than 0.
    pub fn layers_kept(&self) -> usize {
        self.gates.iter().filter(|gates| **gates != LayerGates::OFF).count()
    }

    /// Whether all LoRA strengths are 0 or 1.
    pub fn is_binary(&self) -> bool {
        self.gates.iter().flat_map(|gates| gates.0).all(|gate| gate == 0.0 || gate == 1.0)
    }

    /// The k of a boundary; `None` if this variant is no boundary.
    pub fn boundary(&self) -> Option<usize> {
        let kept = self.layers_kept();
        (*self == Self::bottom_k(self.gates.len(), kept)).then_some(kept)
    }

    /// The name shown to users: `base`, `full`, `3 layers` for a boundary, or else [`spec`](Self::spec).
    pub fn name(&self) -> String {
        match self.boundary() {
            Some(0) => "base".to_owned(),
            Some(kept) if kept == self.gates.len() => "full".to_owned(),
            Some(1) => "1 layer".to_owned(),
            Some(kept) => format!("{kept} layers"),
            None => self.spec(),
        }
    }

    /// The LoRA strengths as text that [`parse`](Self::parse) reads. It is canonical: equal variants have equal texts.
    pub fn spec(&self) -> String {
        let uniform = |gates: &LayerGates| gates.0.iter().all(|gate| *gate == gates.0[0]).then_some(gates.0[0]);
        let mut terms = Vec::new();
        if let [first, rest @ ..] = self.gates.as_slice()
            && let Some(gate) = uniform(first)
            && rest.iter().all(|gates| gates == first)
        {
            return gate.to_string();
        }
        let mut push_runs = |gate: &dyn Fn(usize) -> Option<f32>, module: &str| {
            let mut layer = 0;
            while layer < self.gates.len() {
                let (first, value) = (layer, gate(layer));
                while layer < self.gates.len() && gate(layer) == value {
                    layer += 1;
                }
                if let Some(value) = value.filter(|value| *value != 1.0) {
                    let layers = if layer == first + 1 { first.to_string() } else { format!("{first}-{}", layer - 1) };
                    terms.push(format!("{layers}{module}={value}"));
                }
            }
        };
        push_runs(&|layer| uniform(&self.gates[layer]), "");
        for projection in Projection::ALL {
            let gate = |layer: usize| {
                let gates = &self.gates[layer];
                uniform(gates).is_none().then(|| gates.get(projection))
            };
            push_runs(&gate, &format!(".{}", projection.name()));
        }
        terms.join(",")
    }

    /// Parses LoRA strengths: terms `PLACE=STRENGTH`, separated by commas. A place is a layer (`7`), layers (`18-29`),
    /// a module (`q_proj`), or both (`7.q_proj`, `0-9.down_proj`). A term without a place applies everywhere. Later
    /// terms override earlier ones; places in no term are as trained, 1.
    ///
    /// # Errors
    /// [`Error::Usage`]: a malformed term, a strength that is not finite, or a layer that the model does not have.
    pub fn parse(text: &str, layers: usize) -> Result<Self> {
        let mut variant = Self::uniform(layers, 1.0);
        for term in text.split(',') {
            variant = Term::parse(term, layers).map_err(|what| Term::refused(text, &what))?.apply(variant);
        }
        Ok(variant)
    }

    /// Parses LoRA strengths, as [`parse`](Self::parse) does, for an adapter with LoRA in these places.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and a term that would change nothing because none of its places has LoRA.
    pub fn parse_for(text: &str, layers: usize, lora: &LoraPlaces) -> Result<Self> {
        let variant = Self::parse(text, layers)?;
        for term in text.split(',') {
            let found = Term::parse(term, layers).and_then(|read| read.check(term.trim(), lora));
            found.map_err(|what| Term::refused(text, &what))?;
        }
        Ok(variant)
    }

    /// Every boundary from `base` (k = 0) to `full` (k = `layers`), in that order: `layers + 1` variants.
    pub fn every_boundary(layers: usize) -> Vec<Self> {
        (0..=layers).map(|k| Self::bottom_k(layers, k)).collect()
    }
}

/// The layers and modules that have LoRA.
pub type LoraPlaces = BTreeSet<(usize, Projection)>;

/// One term: the LoRA strength of one module, or of all modules, in some layers.
struct Term {
    layers: Range<usize>,
    module: Option<Projection>,
    strength: f32,
}

impl Term {
    fn refused(text: &str, what: &str) -> Error {
        Error::Usage(format!("LoRA strengths `{text}`: {what}"))
    }

    fn parse(term: &str, layers: usize) -> Result<Self, String> {
        let term = term.trim();
        let (place, number) = match term.rsplit_once('=') {
            Some((place, number)) => (Some(place.trim()), number.trim()),
            None => (None, term),
        };
        // Adding 0 turns −0 into 0, so that equal variants have equal texts.
        let Some(strength) = number.parse::<f32>().ok().filter(|number| number.is_finite()).map(|number| number + 0.0)
        else {
            return Err(format!("`{number}` is not a finite number"));
        };
        let (range, module) = match place {
            None => (None, None),
            Some(place) => match place.split_once('.') {
                Some((range, module)) => (Some(range), Some(module)),
                None if place.starts_with(|c: char| c.is_ascii_digit()) => (Some(place), None),
                None => (None, Some(place)),
            },
        };
        let module = match module {
            None => None,
            Some(name) => match Projection::from_name(name) {
                Some(projection) => Some(projection),
                None => {
                    let names = Projection::ALL.map(Projection::name).join(", ");
                    return Err(format!("`{name}`: expected a module ({names}) or layers, such as 3 or 0-9"));
                }
            },
        };
        let layers = match range {
            None => 0..layers,
            Some(range) => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) else {
                    return Err(format!("`{range}`: expected layers, such as 3 or 0-9"));
                };
                if first > last || last >= layers {
                    let highest = layers.saturating_sub(1);
                    return Err(format!("layers {first} to {last}: expected layers from 0 to {highest}"));
                }
                first..last + 1
            }
        };
        Ok(Self { layers, module, strength })
    }

    fn apply(self, variant: Variant) -> Variant {
        self.layers.fold(variant, |variant, layer| variant.with(layer, self.module, self.strength))
    }

    /// Refuses a term whose places have no LoRA; the message lists the places that have.
    fn check(&self, term: &str, lora: &LoraPlaces) -> Result<(), String> {
        let in_layers = || lora.iter().filter(|(layer, _)| self.layers.contains(layer));
        if in_layers().any(|(_, projection)| self.module.is_none_or(|module| module == *projection)) {
            return Ok(());
        }
        let names =
            |modules: BTreeSet<Projection>| modules.into_iter().map(Projection::name).collect::<Vec<_>>().join(", ");
        let here: BTreeSet<Projection> = in_layers().map(|(_, projection)| *projection).collect();
        let place = term.rsplit_once('=').map_or(term, |(place, _)| place.trim());
        let found = if here.is_empty() {
            let layers: BTreeSet<usize> = lora.iter().map(|(layer, _)| *layer).collect();
            let modules = names(lora.iter().map(|(_, projection)| *projection).collect());
            format!("the adapter has LoRA in layers {}, on {modules}", ranges(&layers))
        } else {
            format!("the adapter has LoRA there on {} only", names(here))
        };
        let place = match (self.module, self.layers.len()) {
            (Some(_), _) => format!("on {place}"),
            (None, 1) => format!("in layer {place}"),
            (None, _) => format!("in layers {place}"),
        };
        Err(format!("there is no LoRA {place}: {found}"))
    }
}

/// Numbers with runs joined: `0-3, 5, 7-9`.
fn ranges(numbers: &BTreeSet<usize>) -> String {
    let is_first = |number: &&usize| **number == 0 || !numbers.contains(&(**number - 1));
    let run = |first: &usize| match (*first..).take_while(|number| numbers.contains(number)).last() {
        Some(last) if last > *first => format!("{first}-{last}"),
        _ => first.to_string(),
    };
    numbers.iter().filter(is_first).map(run).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_keeps_the_layers_below_it() {
        let variant = Variant::bottom_k(4, 3);
        assert_eq!(variant.gates, [LayerGates::ON, LayerGates::ON, LayerGates::ON, LayerGates::OFF]);
        assert_eq!(Variant::bottom_k(4, 9), Variant::bottom_k(4, 4));
        assert_eq!(Variant::every_boundary(4).len(), 5);
    }

    #[test]
    fn strengths_are_read_as_they_are_written() {
        let cases = [
            ("1", Variant::uniform(6, 1.0)),
            ("0", Variant::uniform(6, 0.0)),
            ("0.75", Variant::uniform(6, 0.75)),
            ("4-5=0", Variant::bottom_k(6, 4)),
            ("0-2=0,5=-0.5", Variant::of_layers(6, |layer| layer > 2).with(5, None, -0.5)),
            ("3.q_proj=0", Variant::uniform(6, 1.0).with(3, Some(Projection::Q), 0.0)),
            (
                "0=0,1-2.v_proj=0.5",
                Variant::uniform(6, 1.0).with(0, None, 0.0).with(1, Some(Projection::V), 0.5).with(
                    2,
                    Some(Projection::V),
                    0.5,
                ),
            ),
        ];
        for (spec, variant) in cases {
            assert_eq!(variant.spec(), spec);
            assert_eq!(Variant::parse(spec, 6).unwrap(), variant, "{spec}");
        }
        // A later term overrides, and a place may be a module alone.
        let read = Variant::parse("0, q_proj=1, 2-3=0.5", 4).unwrap();
        assert_eq!(read.gates[1].get(Projection::Q), 1.0);
        assert_eq!(read.gates[1].get(Projection::K), 0.0);
        assert_eq!(read.gates[3].get(Projection::Q), 0.5);
        // A number alone is a strength and no layer.
        assert_eq!(Variant::parse("7", 6).unwrap(), Variant::uniform(6, 7.0));
        for wrong in ["", "x", "0-9=1", "2-1=1", "1=nan", "a-b=1", "1.z_proj=0", "1.=0", "=1", "1=", "6=inf"] {
            assert!(Variant::parse(wrong, 6).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strengths_of_places_without_lora_are_refused() {
        let q = [0, 1, 2, 4].map(|layer| (layer, Projection::Q));
        let lora: LoraPlaces = q.into_iter().chain([(2, Projection::V)]).collect();
        let read = |text: &str| Variant::parse_for(text, 6, &lora).map_err(|error| error.to_string());
        // A range, a module or a strength of all places needs one place with LoRA.
        for good in ["0", "0.5", "0-5=0", "3-4=0", "q_proj=0", "v_proj=2", "0-5.v_proj=0", "4=1"] {
            assert_eq!(read(good), Ok(Variant::parse(good, 6).unwrap()), "{good}");
        }
        for (text, words) in [
            ("2=0, 1.up_proj=0", "there is no LoRA on 1.up_proj: the adapter has LoRA there on q_proj only"),
            ("up_proj=0", "there is no LoRA on up_proj: the adapter has LoRA there on q_proj, v_proj only"),
            ("3=0", "there is no LoRA in layer 3: the adapter has LoRA in layers 0-2, 4, on q_proj, v_proj"),
            ("5.q_proj=0.5", "there is no LoRA on 5.q_proj: the adapter has LoRA in layers 0-2, 4, on q_proj, v_proj"),
        ] {
            let refused = read(text).unwrap_err();
            let start = format!("LoRA strengths `{text}`: ");
            assert!(refused.starts_with(&start) && refused.contains(words), "{text}: {refused}");
        }
    }

    #[test]
    fn only_the_lowest_layers_as_trained_are_a_boundary() {
        assert_eq!(Variant::bottom_k(6, 4).boundary(), Some(4));
        assert_eq!(Variant::uniform(6, 0.5).boundary(), None);
        assert_eq!(Variant::of_layers(6, |layer| layer > 2).boundary(), None);
        assert_eq!(Variant::of_layers(6, |layer| layer > 2).name(), "0-2=0");
    }
}
