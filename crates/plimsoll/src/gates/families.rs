//! Families: named sets of variants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    OneIn,
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
