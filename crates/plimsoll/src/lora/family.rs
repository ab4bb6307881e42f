//! Families: named sets of variants.
//!
//! A family is data: it lists its members, from the one that is preferred where several are as good. For families that
//! drop LoRA that is the smallest, for those that weaken or strengthen it the one nearest to the adapter as trained.
//! Families that depend on scores (greedy ones) list nothing here.

use std::collections::HashSet;
use std::fmt;

use plimsoll_stats::{Stream, generator, shuffle};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::projection::Projection;
use super::variant::{LayerGates, Variant};

/// Factors of `global-alpha`, from the one nearest to 1.
const ALPHAS: [f32; 6] = [1.0, 0.75, 1.25, 0.5, 1.5, 0.25];

/// Factors at the first and at the last layer of `ramp`, the mildest first.
const RAMPS: [(f32, f32); 6] = [(1.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 1.0), (1.0, 0.0), (0.0, 1.0)];

/// Windows begin and end at multiples of about this share of the layers.
const WINDOW_STEPS: usize = 6;

/// Orders that `random-k` draws.
const DRAWS: usize = 4;

/// Shares of the layers that `random-k` keeps of each order.
const RANDOM_SHARES: [usize; 3] = [1, 2, 3];

/// A named set of variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// LoRA kept in the lowest k layers: the paper's cut (arXiv:2503.23360).
    BottomK,
    /// LoRA kept in the highest k layers.
    TopK,
    /// LoRA dropped in one place: a layer, or a module of a layer.
    LeaveOneOut,
    /// LoRA kept in one place alone.
    #[serde(alias = "one-in")]
    LeaveOneIn,
    /// LoRA kept in the layers `a..b`.
    Window,
    /// LoRA kept in k layers that are drawn.
    RandomK,
    /// LoRA kept in the k layers whose update `s·B·A` has the largest Frobenius norm.
    MagnitudeK,
    /// LoRA kept in the k layers whose update `s·B·A·x` has the most energy on samples (LoRA-drop, arXiv:2402.07721).
    OutputK,
    /// The same factor on every update (as WiSE-FT, arXiv:2109.01903, has it for whole weights).
    GlobalAlpha,
    /// Factors that rise or fall evenly with depth (`LiNeS`, arXiv:2410.17146, lets them rise).
    Ramp,
    /// One kind of module kept or dropped in all layers.
    PerModule,
    /// LoRA of layers dropped one after the other, each time the one that is missed least.
    Greedy,
    /// The same with modules of layers.
    GreedyModules,
    /// Factors of single layers, changed one after the other.
    Strengths,
    /// What the user asked for.
    Given,
}

impl Family {
    /// All of them, from the simplest: where two explain the scores as well, the one that comes first is taken.
    pub const ALL: [Self; 15] = [
        Self::BottomK,
        Self::TopK,
        Self::GlobalAlpha,
        Self::LeaveOneOut,
        Self::LeaveOneIn,
        Self::PerModule,
        Self::Window,
        Self::Ramp,
        Self::MagnitudeK,
        Self::OutputK,
        Self::RandomK,
        Self::Given,
        Self::Greedy,
        Self::GreedyModules,
        Self::Strengths,
    ];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::BottomK => "bottom-k",
            Self::TopK => "top-k",
            Self::LeaveOneOut => "leave-one-out",
            Self::LeaveOneIn => "leave-one-in",
            Self::Window => "window",
            Self::RandomK => "random-k",
            Self::MagnitudeK => "magnitude-k",
            Self::OutputK => "output-k",
            Self::GlobalAlpha => "global-alpha",
            Self::Ramp => "ramp",
            Self::PerModule => "per-module",
            Self::Greedy => "greedy",
            Self::GreedyModules => "greedy-modules",
            Self::Strengths => "strengths",
            Self::Given => "given",
        }
    }

    /// Its place among all, from the simplest.
    pub fn simplicity(self) -> usize {
        Self::ALL.iter().position(|family| *family == self).unwrap_or(Self::ALL.len())
    }

    /// Whether it takes scores to know its members.
    pub fn is_adaptive(self) -> bool {
        matches!(self, Self::Greedy | Self::GreedyModules | Self::Strengths)
    }

    /// Whether its members can be picked. What is drawn at random is there to compare with.
    pub fn competes(self) -> bool {
        self != Self::RandomK
    }

    /// Its members, from the one that is preferred where several are as good. `given` and adaptive families have none.
    pub fn members(self, facts: &Facts<'_>) -> Vec<Member> {
        let layers = facts.layers();
        let full = || Variant::uniform(layers, 1.0);
        let member = |position, label: String, variant: Variant| Member { family: self, position, label, variant };
        match self {
            Self::BottomK => (0..=layers)
                .map(|k| {
                    let variant = Variant::bottom_k(layers, k);
                    member(Position::LayersKept(k), variant.name(), variant)
                })
                .collect(),
            Self::TopK => (0..=layers)
                .map(|k| {
                    let label = match k {
                        0 => "base".to_owned(),
                        k if k == layers => "full".to_owned(),
                        k => format!("highest {k} layers"),
                    };
                    member(Position::LayersKept(k), label, Variant::of_layers(layers, |layer| layer + k >= layers))
                })
                .collect(),
            Self::LeaveOneOut => facts
                .places(Places::Layers)
                .map(|place| member(Position::Layer(place.layer), format!("without {place}"), place.set(full(), 0.0)))
                .collect(),
            Self::LeaveOneIn => facts
                .places(Places::Layers)
                .map(|place| {
                    member(
                        Position::Layer(place.layer),
                        format!("{place} alone"),
                        place.set(Variant::uniform(layers, 0.0), 1.0),
                    )
                })
                .collect(),
            Self::Window => {
                let step = layers.div_ceil(WINDOW_STEPS).max(1);
                let ends = || (0..layers).step_by(step).chain([layers]);
                let mut windows: Vec<(usize, usize)> =
                    ends().flat_map(|from| ends().filter(move |to| from < *to).map(move |to| (from, to))).collect();
                windows.sort_by_key(|(from, to)| (to - from, *from));
                windows
                    .into_iter()
                    .map(|(from, to)| {
                        let label = format!("layers {from}–{}", to - 1);
                        member(
                            Position::Layer(from),
                            label,
                            Variant::of_layers(layers, |layer| from <= layer && layer < to),
                        )
                    })
                    .collect()
            }
            Self::RandomK => {
                let lora = facts.lora_layers();
                let draw = |draw: usize| {
                    let order = facts.shuffled(&lora, draw);
                    let kept = move |quarters: usize| order[..(order.len() * quarters).div_ceil(4)].to_vec();
                    RANDOM_SHARES.map(kept).into_iter().map(move |kept| {
                        let label = format!("{} random layers, draw {}", kept.len(), draw + 1);
                        member(
                            Position::LayersKept(kept.len()),
                            label,
                            Variant::of_layers(layers, |layer| kept.contains(&layer)),
                        )
                    })
                };
                let mut members: Vec<Member> = (0..DRAWS).flat_map(draw).collect();
                members.sort_by(|a, b| a.position.number().total_cmp(&b.position.number()));
                members
            }
            Self::MagnitudeK | Self::OutputK => {
                let (sizes, what) = match self {
                    Self::MagnitudeK => (facts.magnitude, "largest"),
                    _ => (facts.output, "most active"),
                };
                let mut order = facts.lora_layers();
                let size = |layer: &usize| sizes.get(*layer).copied().unwrap_or(0.0);
                order.sort_by(|a, b| size(b).total_cmp(&size(a)));
                (0..=order.len())
                    .map(|k| {
                        let label = format!("{what} {k} layers");
                        let kept = &order[..k];
                        member(
                            Position::LayersKept(k),
                            label,
                            Variant::of_layers(layers, |layer| kept.contains(&layer)),
                        )
                    })
                    .collect()
            }
            Self::GlobalAlpha => ALPHAS
                .into_iter()
                .map(|alpha| {
                    member(Position::Strength(alpha), format!("strength {alpha}"), Variant::uniform(layers, alpha))
                })
                .collect(),
            Self::Ramp => RAMPS
                .into_iter()
                .map(|(first, last)| {
                    let at = |layer: usize| {
                        let depth = layer as f32 / (layers.max(2) - 1) as f32;
                        // Rounded, so that the text of the gates stays short.
                        ((first + (last - first) * depth) * 1024.0).round() / 1024.0
                    };
                    let gates = (0..layers).map(|layer| LayerGates([at(layer); Projection::COUNT])).collect();
                    member(Position::Slope(last - first), format!("strength {first} to {last}"), Variant { gates })
                })
                .collect(),
            Self::PerModule => {
                let of = |projection: Projection| {
                    let without = (0..layers).fold(full(), |variant, l| variant.with(l, Some(projection), 0.0));
                    let only = Variant::uniform(layers, 0.0);
                    let only = (0..layers).fold(only, |variant, l| variant.with(l, Some(projection), 1.0));
                    [(only, "only"), (without, "without")].map(|(variant, word)| {
                        member(Position::Module(projection), format!("{word} {}", projection.name()), variant)
                    })
                };
                let present = Projection::ALL.into_iter().filter(|p| facts.adapted.iter().any(|m| m[*p as usize]));
                let (mut only, mut without) = (Vec::new(), Vec::new());
                for projection in present {
                    let [a, b] = of(projection);
                    only.push(a);
                    without.push(b);
                }
                // An adapter of one kind of module has nothing to choose between.
                if only.len() > 1 { only.into_iter().chain(without).collect() } else { Vec::new() }
            }
            Self::Greedy | Self::GreedyModules | Self::Strengths | Self::Given => Vec::new(),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = || Self::ALL.into_iter().filter(|family| *family != Self::Given);
        known()
            .find(|family| family.name() == text)
            .ok_or_else(|| format!("expected one of {}", known().map(Self::name).collect::<Vec<_>>().join(", ")))
    }
}

/// What the members of a family depend on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which modules have LoRA, layer by layer.
    pub adapted: &'a [[bool; Projection::COUNT]],
    /// `‖s·B·A‖_F` of each layer; empty where it is not known.
    pub magnitude: &'a [f64],
    /// Energy of each layer's updates on samples; empty where it is not known.
    pub output: &'a [f64],
    /// Seed of what is drawn.
    pub seed: u64,
}

impl Facts<'_> {
    /// How many layers the model has.
    pub fn layers(&self) -> usize {
        self.adapted.len()
    }

    /// The layers that have LoRA, ascending.
    pub fn lora_layers(&self) -> Vec<usize> {
        self.places(Places::Layers).map(|place| place.layer).collect()
    }

    /// Where there is LoRA: layers, or modules of layers.
    pub fn places(&self, places: Places) -> impl Iterator<Item = Place> {
        let of_layer = move |(layer, modules): (usize, &[bool; Projection::COUNT])| {
            let modules = *modules;
            let whole = (places == Places::Layers && modules.contains(&true)).then_some(Place { layer, module: None });
            let parts = Projection::ALL
                .into_iter()
                .filter(move |projection| places == Places::Modules && modules[*projection as usize])
                .map(move |projection| Place { layer, module: Some(projection) });
            whole.into_iter().chain(parts)
        };
        self.adapted.iter().enumerate().flat_map(of_layer)
    }

    /// Some layers in an order that is drawn.
    pub fn shuffled(&self, layers: &[usize], draw: usize) -> Vec<usize> {
        let mut rng: ChaCha8Rng = generator(self.seed, Stream::Layers);
        let mut order = layers.to_vec();
        for _ in 0..=draw {
            shuffle(&mut order, &mut rng);
        }
        order
    }
}

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Whole layers.
    Layers,
    /// Single modules of layers.
    Modules,
}

/// Somewhere that has LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The layer.
    pub layer: usize,
    /// The module; the whole layer where none is given.
    pub module: Option<Projection>,
}

impl Place {
    /// A variant with this place's gate set.
    pub fn set(self, variant: Variant, gate: f32) -> Variant {
        variant.with(self.layer, self.module, gate)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            None => write!(f, "layer {}", self.layer),
            Some(module) => write!(f, "layer {} {}", self.layer, module.name()),
        }
    }
}

/// A variant's place among those of its family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// How many layers keep their LoRA.
    LayersKept(usize),
    /// A layer: the one that is left out or in, or a window's first.
    Layer(usize),
    /// A module.
    Module(Projection),
    /// A factor on all updates.
    Strength(f32),
    /// The factor at the last layer less that at the first.
    Slope(f32),
    /// How many places were changed.
    Moves(usize),
    /// None: gates that the user gave.
    None,
}

impl Position {
    /// As a number, for plots and files.
    pub fn number(self) -> f64 {
        match self {
            Self::LayersKept(number) | Self::Layer(number) | Self::Moves(number) => number as f64,
            Self::Module(projection) => projection as usize as f64,
            Self::Strength(number) | Self::Slope(number) => f64::from(number),
            Self::None => 0.0,
        }
    }
}

/// A variant as a family has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The family.
    pub family: Family,
    /// Its place there.
    pub position: Position,
    /// What users call it.
    pub label: String,
    /// Its gates.
    pub variant: Variant,
}

/// Members of some families, and the variants that they come to, each once.
#[derive(Clone, Debug, Default)]
pub struct VariantSet {
    members: Vec<Member>,
    variants: Vec<Variant>,
}

impl VariantSet {
    /// Of some members, in their order.
    pub fn new(members: Vec<Member>) -> Self {
        let mut set = Self { members, variants: Vec::new() };
        let mut seen = HashSet::new();
        for member in &set.members {
            if seen.insert(member.variant.spec()) {
                set.variants.push(member.variant.clone());
            }
        }
        set
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The members of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.family == family)
    }

    /// Every variant that is needed, once.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(adapted: &[[bool; Projection::COUNT]]) -> Facts<'_> {
        Facts { adapted, magnitude: &[0.0, 3.0, 1.0, 2.0], output: &[], seed: 1 }
    }

    fn specs(family: Family, facts: &Facts<'_>) -> Vec<String> {
        family.members(facts).iter().map(|member| member.variant.spec()).collect()
    }

    #[test]
    fn families_list_what_they_say() {
        let mut adapted = [[false; Projection::COUNT]; 4];
        for modules in adapted.iter_mut().skip(1) {
            modules[Projection::Q as usize] = true;
            modules[Projection::V as usize] = true;
        }
        let facts = facts(&adapted);
        assert_eq!(specs(Family::BottomK, &facts), ["0", "1-3=0", "2-3=0", "3=0", "1"]);
        assert_eq!(specs(Family::TopK, &facts), ["0", "0-2=0", "0-1=0", "0=0", "1"]);
        assert_eq!(specs(Family::LeaveOneOut, &facts), ["1=0", "2=0", "3=0"]);
        assert_eq!(specs(Family::LeaveOneIn, &facts), ["0=0,2-3=0", "0-1=0,3=0", "0-2=0"]);
        assert_eq!(specs(Family::MagnitudeK, &facts), ["0", "0=0,2-3=0", "0=0,2=0", "0=0"]);
        assert_eq!(specs(Family::GlobalAlpha, &facts)[..2], ["1", "0.75"]);
        assert_eq!(specs(Family::PerModule, &facts).len(), 4);
        assert_eq!(Family::PerModule.members(&facts)[3].label, "without v_proj");
        assert_eq!(specs(Family::Window, &facts).len(), 10);
        let random = Family::RandomK.members(&facts);
        assert_eq!(
            random.iter().map(|m| m.variant.layers_kept()).collect::<Vec<_>>(),
            [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
        );
        assert!(random.iter().all(|member| member.variant.gates[0] == LayerGates::OFF));
        assert!(specs(Family::Greedy, &facts).is_empty());
    }

    #[test]
    fn a_set_has_each_variant_once() {
        let adapted = [[true; Projection::COUNT]; 4];
        let facts = facts(&adapted);
        let both = [Family::BottomK, Family::TopK].into_iter().flat_map(|family| family.members(&facts)).collect();
        let set = VariantSet::new(both);
        assert_eq!((set.members().len(), set.variants().len()), (10, 8));
        assert_eq!(set.of(Family::TopK).count(), 5);
    }

    #[test]
    fn families_are_read_by_their_names() {
        for family in Family::ALL {
            let read: Result<Family, _> = family.name().parse();
            assert_eq!(read.ok(), (family != Family::Given).then_some(family));
            assert_eq!(serde_json::to_value(family).unwrap(), family.name());
        }
        assert!("bottom".parse::<Family>().unwrap_err().contains("bottom-k"));
    }
}
