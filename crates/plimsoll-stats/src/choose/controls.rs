//! Comparison of a cut with controls: does its gain come from which layers it keeps?
//!
//! A cut also makes the adapter weaker and smaller. A LoRA strength on the whole adapter makes it weaker too; equally
//! many random or highest layers make it smaller too. If one of these is as good as the cut, depth is not the reason
//! for its gain. The cut is tested against every control, paired by sample, with p-values adjusted for the number of
//! controls (Holm, Scandinavian Journal of Statistics 6:2, 1979), so that the probability of a false result is at most
//! α.

use serde::{Deserialize, Serialize};

use super::choice::{ChooseOptions, Gain};
use super::judge::{differences, is_shown, measure};
use crate as stats;

/// A control compared with the full adapter and with the cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlGains {
    /// The gain of the control over the full adapter. Positive is better.
    pub over_full: Gain,
    /// The gain of the cut over the control. Positive means that the cut is better.
    pub cut_over: Gain,
    /// The p-value of `cut_over`, adjusted for the number of controls.
    pub p_holm: f64,
}

/// Compares a cut with controls by the NLL of samples that picked neither: one number per sample for the full adapter,
/// the cut and each control. For a random control it is the mean over its draws.
///
/// The second value is whether the cut is shown to be better than every control; false without controls.
///
/// # Panics
/// If the lists differ in length.
pub fn controls<R: AsRef<[f64]>>(
    full: &[f64],
    cut: &[f64],
    controls: &[R],
    options: &ChooseOptions,
) -> (Vec<ControlGains>, bool) {
    let is_alike = |list: &[f64]| list.len() == full.len();
    assert!(is_alike(cut) && controls.iter().all(|control| is_alike(control.as_ref())), "lists of different lengths");
    let gain = |from: &[f64], to: &[f64]| measure(&differences(from, to), options);
    let over_cut: Vec<Gain> = controls.iter().map(|control| gain(control.as_ref(), cut)).collect();
    let adjusted = stats::holm(&over_cut.iter().map(|gain| gain.p).collect::<Vec<_>>());
    let rows: Vec<ControlGains> = controls
        .iter()
        .zip(over_cut)
        .zip(adjusted)
        .map(|((control, cut_over), p_holm)| ControlGains { over_full: gain(full, control.as_ref()), cut_over, p_holm })
        .collect();
    let is_beaten = |row: &ControlGains| is_shown(&Gain { p: row.p_holm, ..row.cut_over }, options);
    let is_depth = !rows.is_empty() && rows.iter().all(is_beaten);
    (rows, is_depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls<R: AsRef<[f64]>>(full: &[f64], cut: &[f64], controls: &[R]) -> (Vec<ControlGains>, bool) {
        let resamples = std::num::NonZeroUsize::new(1_000).unwrap();
        super::controls(full, cut, controls, &ChooseOptions { resamples, ..ChooseOptions::default() })
    }

    fn noisy(mean: f64, phase: usize) -> Vec<f64> {
        (0..30).map(|i| mean + 0.02 * ((i * 7 + phase) % 11) as f64).collect()
    }

    #[test]
    fn a_cut_has_to_beat_every_control() {
        let (full, cut) = (noisy(2.0, 0), noisy(1.5, 1));
        let (rows, is_depth) = controls(&full, &cut, &[noisy(2.2, 3), noisy(1.9, 5)]);
        assert!(is_depth);
        assert!(rows[0].over_full.mean < 0.0 && rows[1].over_full.mean > 0.0);
        assert!(rows.iter().all(|row| row.p_holm >= row.cut_over.p));
        let (rows, is_depth) = controls(&full, &cut, &[noisy(2.2, 3), noisy(1.5, 5)]);
        assert!(!is_depth && rows[0].p_holm < 0.05 && rows[1].p_holm > 0.05);
        assert_eq!(controls::<Vec<f64>>(&full, &cut, &[]), (Vec::new(), false));
        // Worse than the control by a large difference.
        assert!(!controls(&full, &cut, &[noisy(0.8, 3)]).1);
    }
}
