//! The choice between classes of candidates (families), each with its cross-validated scores.

use serde::{Deserialize, Serialize};

use super::judge::differences;
use super::rules::ROUNDING;
use crate::mean_and_se;

/// A class compared with the best one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Mean NLL of the class's picks on samples that did not pick.
    pub mean: f64,
    /// The difference from the mean of the best class.
    pub deficit: f64,
    /// Paired standard error of the deficit.
    pub se: f64,
}

/// The index of the simplest class within one paired standard error of the best, and the standings of all classes.
///
/// `classes` has the out-of-fold NLL of every sample under each class's rule
/// ([`cross_validate`](super::cross_validate)), the simplest class first. This is the one-standard-error rule again
/// (Breiman, Friedman, Olshen & Stone, 1984): a class with more members fits the samples better, so it must be better
/// on samples that it did not see. The winner's mean is the lowest of several and so slightly too good; other samples
/// must judge it.
///
/// # Panics
/// If there are no classes, or they differ in the number of samples.
pub fn arbitrate(classes: &[Vec<f64>]) -> (usize, Vec<Standing>) {
    let means: Vec<f64> = classes.iter().map(|class| mean_and_se(class).0).collect();
    let best = (1..classes.len()).fold(0, |best, class| if means[class] < means[best] { class } else { best });
    let standing = |(class, &mean): (&Vec<f64>, &f64)| {
        assert_eq!(class.len(), classes[best].len(), "classes with different numbers of samples");
        let (deficit, se) = mean_and_se(&differences(class, &classes[best]));
        Standing { mean, deficit, se }
    };
    let standings: Vec<Standing> = classes.iter().zip(&means).map(standing).collect();
    let is_close = |standing: &Standing| standing.deficit <= standing.se * (1.0 + ROUNDING);
    let chosen = standings.iter().position(is_close).unwrap_or(best);
    (chosen, standings)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_simplest_of_equals_is_taken() {
        let noise = |i: usize| (i * 7 % 11) as f64;
        let class = |mean: f64, own: f64| -> Vec<f64> {
            (0..44).map(|i| mean + 0.1 * noise(i) + own * noise(3 * i + 1)).collect()
        };
        let (simple, better, much_better) = (class(2.0, 0.0), class(1.999, 0.02), class(1.0, 0.0));
        assert_eq!(arbitrate(&[simple.clone(), better.clone()]).0, 0);
        assert_eq!(arbitrate(&[simple.clone(), simple.clone()]).0, 0);
        let (chosen, standings) = arbitrate(&[simple, better, much_better]);
        assert_eq!((chosen, standings[2].deficit, standings[2].se), (2, 0.0, 0.0));
        assert!((standings[0].deficit - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_chosen_is_never_above_the_best(
            rows in prop::collection::vec(prop::collection::vec(0.0..4.0_f64, 12), 1..6),
        ) {
            let (chosen, standings) = arbitrate(&rows);
            let best = standings.iter().position(|standing| standing.deficit == 0.0 && standing.se == 0.0);
            prop_assert!(chosen <= best.unwrap());
            prop_assert!(standings[chosen].deficit <= standings[chosen].se * (1.0 + 1e-6));
            prop_assert!(standings[..chosen].iter().all(|standing| standing.deficit > standing.se));
        }
    }
}
