//! Controls beside a cut: whether it is which layers are kept that makes it as good as it is.
//!
//! A cut also makes the adapter weaker and smaller. A factor on the whole adapter does the first, as many layers drawn at
//! random or taken from the top do the second; if one of these is as good as the cut, depth is not what helped. The cut is
//! tested against every control, paired by sample, and the p-values are adjusted for their number (Holm, Scandinavian
//! Journal of Statistics 6:2, 1979), so that it is shown to beat one falsely with a probability of at most α.

use serde::{Deserialize, Serialize};

use super::choice::{Gain, Options};
use super::judge::{differences, is_shown, measure};
use crate as stats;

/// One control.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlGains {
    /// What the control gains over the full adapter. Positive is better.
    pub over_full: Gain,
    /// What the cut gains over the control. Positive means that the cut is better.
    pub cut_over: Gain,
    /// The p-value of `cut_over`, adjusted for all controls.
    pub p_holm: f64,
}

/// Compares a cut with controls by the NLL of samples that picked neither: one number for each sample with the full adapter,
/// with the cut and with each control. Of a control that is drawn several times, the mean over the draws.
///
/// Also whether the cut is shown to be better than every control; without controls nothing is shown.
///
/// # Panics
/// If the lists differ in length.
pub fn controls<R: AsRef<[f64]>>(
    full: &[f64],
    cut: &[f64],
    controls: &[R],
    options: &Options,
) -> (Vec<ControlGains>, bool) {
    let is_alike = |list: &[f64]| list.len() == full.len();
    assert!(is_alike(cut) && controls.iter().all(|control| is_alike(control.as_ref())), "lists of other lengths");
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
        super::controls(full, cut, controls, &Options { resamples, ..Options::default() })
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
        // As much worse as the other was better.
        assert!(!controls(&full, &cut, &[noisy(0.8, 3)]).1);
    }
}
