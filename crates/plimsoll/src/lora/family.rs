//! Families: named sets of variants.
//!
//! A family lists its members in order of preference: of equally good members, the first is picked. Families that drop
//! LoRA prefer the smallest member, families that scale it the one nearest to the adapter as trained. Adaptive (greedy)
//! families and the boundaries at a tuned strength need scores to know their members, and list none here.

use std::collections::HashSet;
use std::fmt;

use plimsoll_stats::{Stream, generator, shuffle};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::projection::Projection;
use super::variant::{LayerGates, Variant};

/// LoRA strengths of `global-alpha`, by distance from 1.
const ALPHAS: [f32; 6] = [1.0, 0.75, 1.25, 0.5, 1.5, 0.25];

/// LoRA strengths at the first and at the last layer of `ramp`, the flattest first.
const RAMPS: [(f32, f32); 6] = [(1.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 1.0), (1.0, 0.0), (0.0, 1.0)];

/// Number of steps into which `window` divides the layers; windows begin and end at steps.
const WINDOW_STEPS: usize = 6;

/// Number of random orders of the layers in `random-k`.
const DRAWS: usize = 4;

/// Numbers of layers that `random-k` keeps of each order, in quarters of the layers with LoRA.
const RANDOM_QUARTERS: [usize; 3] = [1, 2, 3];

/// A named set of variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Family {
    /// LoRA kept in the lowest k layers: the boundaries (arXiv:2503.23360).
    BottomK,
    /// LoRA kept in the highest k layers.
    TopK,
    /// LoRA dropped in one place: a layer, or a module of a layer.
    LeaveOneOut,
    /// LoRA kept in one place only: a layer, or a module of a layer.
    #[serde(alias = "one-in")]
    LeaveOneIn,
    /// LoRA kept in the layers `a..b`.
    Window,
    /// LoRA kept in k random layers, sampled with the seed.
    RandomK,
    /// LoRA kept in the k layers whose update `s·B·A` has the largest Frobenius norm.
    MagnitudeK,
    /// LoRA kept in the k layers whose update `s·B·A·x` has the most energy on samples (LoRA-drop, arXiv:2402.07721).
    OutputK,
    /// One LoRA strength for every update (WiSE-FT, arXiv:2109.01903, does this for whole weights).
    GlobalAlpha,
    /// LoRA kept in the lowest k layers, at one strength that is tuned for the whole adapter.
    BoundaryStrength,
    /// LoRA strengths that rise or fall linearly with depth (in `LiNeS`, arXiv:2410.17146, they rise).
    Ramp,
    /// One kind of module kept or dropped in all layers.
    PerModule,
    /// Greedy backward elimination: at each step, LoRA is dropped in the layer whose removal costs least.
    Greedy,
    /// Greedy backward elimination of modules of layers.
    GreedyModules,
    /// Greedy changes of the LoRA strength of one layer at a time.
    Strengths,
    /// Variants that the user gave.
    Given,
}

impl Family {
    /// All families, the simplest first: of equally good families, the first is taken.
    pub const ALL: [Self; 16] = [
        Self::BottomK,
        Self::TopK,
        Self::GlobalAlpha,
        Self::BoundaryStrength,
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

    /// The family's name on the command line and in results, such as `bottom-k`.
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
            Self::BoundaryStrength => "boundary-strength",
            Self::Ramp => "ramp",
            Self::PerModule => "per-module",
            Self::Greedy => "greedy",
            Self::GreedyModules => "greedy-modules",
            Self::Strengths => "strengths",
            Self::Given => "given",
        }
    }

    /// The family's index in [`ALL`](Self::ALL): 0 is the simplest.
    pub fn simplicity(self) -> usize {
        Self::ALL.iter().position(|family| *family == self).unwrap_or(Self::ALL.len())
    }

    /// Whether the members depend on scores.
    pub fn is_adaptive(self) -> bool {
        matches!(self, Self::Greedy | Self::GreedyModules | Self::Strengths)
    }

    /// Whether the members keep fewer and fewer layers, in an order that does not depend on samples.
    pub fn is_prespecified(self) -> bool {
        matches!(self, Self::BottomK | Self::TopK | Self::MagnitudeK)
    }

    /// Whether the family can be added to a search. Boundaries are in every search, and at a tuned strength if it is
    /// better; variants of the user have no name.
    pub fn is_optional(self) -> bool {
        !matches!(self, Self::BottomK | Self::BoundaryStrength | Self::Given)
    }

    /// Whether a member can become the candidate. Random layers are a comparison only.
    pub fn competes(self) -> bool {
        self != Self::RandomK
    }

    /// The members in order of preference. Families that need scores, and `given`, have none.
    pub fn members(self, facts: &Facts<'_>) -> Vec<Member> {
        let layers = facts.layers();
        let member = |position, label, variant| self.member(position, label, variant);
        match self {
            Self::BottomK => (0..=layers).map(|k| Member::boundary(layers, k)).collect(),
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
                .map(|place| {
                    member(
                        Position::Layer(place.layer),
                        format!("without {place}"),
                        place.set(Variant::uniform(layers, 1.0), 0.0),
                    )
                })
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
            Self::Window => self.windows(layers),
            Self::RandomK => self.random_layers(facts),
            Self::MagnitudeK => self.largest_layers(facts, facts.magnitude, "largest"),
            Self::OutputK => self.largest_layers(facts, facts.output, "most active"),
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
                        // Rounded, so that the variant's text stays short.
                        ((first + (last - first) * depth) * 1024.0).round() / 1024.0
                    };
                    let gates = (0..layers).map(|layer| LayerGates([at(layer); Projection::COUNT])).collect();
                    member(Position::Slope(last - first), format!("strength {first} to {last}"), Variant { gates })
                })
                .collect(),
            Self::PerModule => self.modules(facts),
            Self::BoundaryStrength | Self::Greedy | Self::GreedyModules | Self::Strengths | Self::Given => Vec::new(),
        }
    }

    fn member(self, position: Position, label: String, variant: Variant) -> Member {
        Member { family: self, position, label, variant }
    }

    /// LoRA kept in layers `a..b`, for all a and b at steps; the shortest windows first.
    fn windows(self, layers: usize) -> Vec<Member> {
        let step = layers.div_ceil(WINDOW_STEPS).max(1);
        let ends = || (0..layers).step_by(step).chain([layers]);
        let mut windows: Vec<(usize, usize)> =
            ends().flat_map(|from| ends().filter(move |to| from < *to).map(move |to| (from, to))).collect();
        windows.sort_by_key(|(from, to)| (to - from, *from));
        let member = |(from, to): (usize, usize)| {
            let variant = Variant::of_layers(layers, |layer| from <= layer && layer < to);
            self.member(Position::Layer(from), format!("layers {from}–{}", to - 1), variant)
        };
        windows.into_iter().map(member).collect()
    }

    /// LoRA kept in random layers; the fewest layers first.
    fn random_layers(self, facts: &Facts<'_>) -> Vec<Member> {
        let lora = facts.lora_layers();
        let mut members = Vec::new();
        for draw in 0..DRAWS {
            let order = facts.shuffled(&lora, draw);
            for quarters in RANDOM_QUARTERS {
                let kept = &order[..(order.len() * quarters).div_ceil(4)];
                let label = format!("{} random layers, draw {}", kept.len(), draw + 1);
                let variant = Variant::of_layers(facts.layers(), |layer| kept.contains(&layer));
                members.push(self.member(Position::LayersKept(kept.len()), label, variant));
            }
        }
        members.sort_by(|a, b| a.position.number().total_cmp(&b.position.number()));
        members
    }

    /// LoRA kept in the k layers with the largest of these sizes; the smallest k first.
    fn largest_layers(self, facts: &Facts<'_>, sizes: &[f64], what: &str) -> Vec<Member> {
        let mut order = facts.lora_layers();
        let size = |layer: &usize| sizes.get(*layer).copied().unwrap_or(0.0);
        order.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let member = |k: usize| {
            let variant = Variant::of_layers(facts.layers(), |layer| order[..k].contains(&layer));
            self.member(Position::LayersKept(k), format!("{what} {k} layers"), variant)
        };
        (0..=order.len()).map(member).collect()
    }

    /// Each kind of module kept alone, then each dropped. None for an adapter with one kind of module.
    fn modules(self, facts: &Facts<'_>) -> Vec<Member> {
        let layers = facts.layers();
        let present: Vec<Projection> =
            Projection::ALL.into_iter().filter(|p| facts.adapted.iter().any(|m| m[*p as usize])).collect();
        if present.len() < 2 {
            return Vec::new();
        }
        let member = |projection: Projection, word: &str, others: f32, strength: f32| {
            let all = Variant::uniform(layers, others);
            let variant = (0..layers).fold(all, |variant, layer| variant.with(layer, Some(projection), strength));
            self.member(Position::Module(projection), format!("{word} {}", projection.name()), variant)
        };
        let only = present.iter().map(|&projection| member(projection, "only", 0.0, 1.0));
        let without = present.iter().map(|&projection| member(projection, "without", 1.0, 0.0));
        only.chain(without).collect()
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

/// The facts that the members of a family depend on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which modules have LoRA, layer by layer.
    pub adapted: &'a [[bool; Projection::COUNT]],
    /// Frobenius norm `‖s·B·A‖_F` of each layer's updates; empty if unknown.
    pub magnitude: &'a [f64],
    /// Energy of each layer's updates on samples; empty if unknown.
    pub output: &'a [f64],
    /// Seed of the random layers.
    pub seed: u64,
}

impl Facts<'_> {
    /// Number of layers of the model.
    pub fn layers(&self) -> usize {
        self.adapted.len()
    }

    /// The layers that have LoRA, ascending.
    pub fn lora_layers(&self) -> Vec<usize> {
        self.places(Places::Layers).map(|place| place.layer).collect()
    }

    /// The places that have LoRA: layers, or modules of layers.
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

    /// These layers in random order; each `draw` has its own.
    pub fn shuffled(&self, layers: &[usize], draw: usize) -> Vec<usize> {
        let mut rng: ChaCha8Rng = generator(self.seed, Stream::Layers);
        let mut order = layers.to_vec();
        for _ in 0..=draw {
            shuffle(&mut order, &mut rng);
        }
        order
    }
}

/// The kind of a [`Place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Whole layers.
    Layers,
    /// Single modules of layers.
    Modules,
}

/// A layer with LoRA, or one of its modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The layer.
    pub layer: usize,
    /// The module; `None` is the whole layer.
    pub module: Option<Projection>,
}

impl Place {
    /// The variant with the LoRA strength of this place replaced.
    pub fn set(self, variant: Variant, strength: f32) -> Variant {
        variant.with(self.layer, self.module, strength)
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

/// The coordinate of a variant within its family, such as the number of layers kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// Number of layers that keep their LoRA.
    LayersKept(usize),
    /// A layer: the one that is dropped or kept, or a window's first.
    Layer(usize),
    /// A module.
    Module(Projection),
    /// A LoRA strength of all updates.
    Strength(f32),
    /// The LoRA strength of the last layer minus that of the first.
    Slope(f32),
    /// Number of places that were changed.
    Moves(usize),
    /// None: a variant that the user gave.
    None,
}

impl Position {
    /// The coordinate as a number, for plots and files.
    pub fn number(self) -> f64 {
        match self {
            Self::LayersKept(number) | Self::Layer(number) | Self::Moves(number) => number as f64,
            Self::Module(projection) => projection as usize as f64,
            Self::Strength(number) | Self::Slope(number) => f64::from(number),
            Self::None => 0.0,
        }
    }
}

/// A variant as a member of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The family.
    pub family: Family,
    /// The coordinate in the family.
    pub position: Position,
    /// The name shown to users.
    pub label: String,
    /// The LoRA strengths.
    pub variant: Variant,
}

impl Member {
    /// A boundary as a member of `bottom-k`.
    pub fn boundary(layers: usize, layers_kept: usize) -> Self {
        let variant = Variant::bottom_k(layers, layers_kept);
        Self { family: Family::BottomK, position: Position::LayersKept(layers_kept), label: variant.name(), variant }
    }
}

/// Members of families, with their distinct variants.
#[derive(Clone, Debug, Default)]
pub struct VariantSet {
    members: Vec<Member>,
    variants: Vec<Variant>,
}

impl VariantSet {
    /// Collects the distinct variants of these members, in their order.
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

    /// The distinct variants.
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
    fn families_list_their_members() {
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
    fn families_are_parsed_by_name() {
        for family in Family::ALL {
            let read: Result<Family, _> = family.name().parse();
            assert_eq!(read.ok(), (family != Family::Given).then_some(family));
            assert_eq!(serde_json::to_value(family).unwrap(), family.name());
        }
        assert!("bottom".parse::<Family>().unwrap_err().contains("bottom-k"));
    }
}
