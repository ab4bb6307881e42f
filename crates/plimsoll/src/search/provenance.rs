//! The provenance of a trimmed adapter, for its model card.

use plimsoll_stats::choose::Interval;

use crate::lora::Variant;
use crate::lora::adapter::{HashedFile, Provenance, TrimScores};
use crate::result::{MetricSummary, SearchResult};

/// The provenance of the trimmed adapter of a search.
pub(super) fn provenance(result: &SearchResult) -> Provenance {
    let source = |path: &str, sha256: &str| Some(HashedFile { path: path.into(), sha256: sha256.into() });
    let choice = &result.choice;
    let metric = result.metric.as_ref().filter(|metric| metric.decided);
    let layers = result.model.layers;
    let by_metric = |metric: &MetricSummary, layers_kept: usize| {
        let variant = metric.variants.iter().find(|variant| variant.layers_kept == layers_kept);
        variant.and_then(|variant| variant.holdout).map(|holdout| holdout.value)
    };
    let by_nll = |gates: &str| {
        let variant = result.variants.iter().find(|variant| variant.gates == gates);
        variant.and_then(|variant| variant.holdout).map(|holdout| holdout.mean_nll)
    };
    let [base, full] = [0.0, 1.0].map(|strength| Variant::uniform(layers, strength).spec());
    let held_out = match (metric, &result.candidate) {
        (Some(metric), _) => [0, layers, choice.layers_kept].map(|layers_kept| by_metric(metric, layers_kept)),
        (None, Some(candidate)) => [base.as_str(), &full, &candidate.gates].map(by_nll),
        (None, None) => [None; 3],
    };
    let gain = Interval { value: choice.gain.mean, low: choice.gain.low, high: choice.gain.high };
    Provenance {
        tool: result.tool.clone(),
        command: Some(result.command.clone()),
        adapter: source(&result.adapter.path, &result.adapter.sha256),
        model: source(&result.model.path, &result.model.sha256),
        model_layers: Some(result.model.layers),
        data: source(&result.data.path, &result.data.sha256),
        seed: Some(result.seed),
        scores: match held_out {
            [Some(base), Some(full), Some(trimmed)] => Some(TrimScores {
                metric: metric.map(|metric| metric.name.clone()),
                samples: result.data.holdout,
                base,
                full,
                trimmed,
                gain,
                retained: choice.retained.filter(|_| choice.adapter_gain.has_shares()),
            }),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::report;

    #[test]
    fn scores_are_those_of_the_candidate_not_of_the_boundary_with_as_many_layers() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/result.json");
        let (_, mut result) = report::read(&file).unwrap();
        let boundary = result.variants.iter().find(|variant| variant.layers_kept == 20).unwrap().clone();
        let mut other = boundary.clone();
        other.gates = "3-12=0".to_owned();
        other.holdout.as_mut().unwrap().mean_nll = 0.25;
        result.variants.push(other);
        assert_eq!(provenance(&result).scores.unwrap().trimmed, boundary.holdout.unwrap().mean_nll);
        result.candidate.as_mut().unwrap().gates = "3-12=0".to_owned();
        assert_eq!(provenance(&result).scores.unwrap().trimmed, 0.25);
    }
}
