"""Writes crates/plimsoll-stats/tests/fixtures/choose.json: expected results of the statistics of `choose`.

    python reference/choose_golden.py

It has two kinds of numbers. Standard errors, exact sign-flip p-values, percentile intervals and least squares are
computed by SciPy, statsmodels and NumPy. Everything that depends on this project's random numbers is computed here from
scratch, including ChaCha8: this second implementation fixes the random streams of a seed.
"""

import json
import pathlib
import platform

import numpy as np
import scipy
import scipy.optimize
import scipy.stats
import statsmodels
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

FIXTURE = pathlib.Path(__file__).parent.parent / "crates/plimsoll-stats/tests/fixtures/choose.json"
STREAMS = {"choice": 1, "holdout": 2, "signs": 3, "lens": 4, "folds": 7}
EXACT_PAIRS = 14


# --- random numbers ------------------------------------------------------------------------------------------


def chacha8(seed: int, stream: int, count: int) -> np.ndarray:
    """The first `count` 64-bit words of ChaCha with 8 rounds: 64-bit block counter, 64-bit stream (Bernstein, 2008).

    The key is the seed in its first eight bytes, followed by zeros.
    """
    blocks = (count + 7) // 8
    state = np.zeros((16, blocks), dtype=np.uint32)
    state[:4] = np.frombuffer(b"expand 32-byte k", dtype="<u4")[:, None]
    state[4], state[5] = seed & 0xFFFFFFFF, seed >> 32
    state[12] = np.arange(blocks, dtype=np.uint64) & 0xFFFFFFFF
    state[13] = np.arange(blocks, dtype=np.uint64) >> 32
    state[14], state[15] = stream & 0xFFFFFFFF, stream >> 32
    x = state.copy()

    def rotate(value, bits):
        return (value << np.uint32(bits)) | (value >> np.uint32(32 - bits))

    def quarter(a, b, c, d):
        x[a] += x[b]
        x[d] = rotate(x[d] ^ x[a], 16)
        x[c] += x[d]
        x[b] = rotate(x[b] ^ x[c], 12)
        x[a] += x[b]
        x[d] = rotate(x[d] ^ x[a], 8)
        x[c] += x[d]
        x[b] = rotate(x[b] ^ x[c], 7)

    for _ in range(4):
        for lane in range(4):
            quarter(lane, 4 + lane, 8 + lane, 12 + lane)
        for lane in range(4):
            quarter(lane, 4 + (lane + 1) % 4, 8 + (lane + 2) % 4, 12 + (lane + 3) % 4)
    words = (x + state).T.reshape(-1).astype(np.uint64)  # (blocks * 16)
    return (words[0::2] | (words[1::2] << np.uint64(32)))[:count]


def resamples(seed: int, stream: str, samples: int, count: int) -> np.ndarray:
    """Indices of `count` resamples. (count, samples)"""
    words = chacha8(seed, STREAMS[stream], samples * count)
    return np.array([(int(word) * samples) >> 64 for word in words]).reshape(count, samples)


# --- the rules, by NumPy and SciPy ----------------------------------------------------------------------------------


def pick(nll: np.ndarray) -> tuple[int, int]:
    """(best, one_se) of scores. nll: (samples, boundaries)"""
    best = int(np.argmin(nll.mean(axis=0)))
    deficits = nll - nll[:, [best]]
    within = deficits.mean(axis=0) <= scipy.stats.sem(deficits, axis=0, ddof=1)
    return best, int(np.argmax(within))


def stability(nll: np.ndarray, seed: int, count: int) -> list[float]:
    picks = [pick(nll[indices])[1] for indices in resamples(seed, "choice", len(nll), count)]
    return (np.bincount(picks, minlength=nll.shape[1]) / count).tolist()


def change_point(curve: np.ndarray) -> int:
    """Length of the lower of two fitted lines, by lstsq at every split; of the whole curve if there is no split."""

    def residual(start: int, stop: int) -> float:
        x = np.arange(start, stop)
        design = np.stack([np.ones(len(x)), x], axis=1)
        fit, *_ = np.linalg.lstsq(design, curve[start:stop], rcond=None)
        return float(np.sum((curve[start:stop] - design @ fit) ** 2))

    splits = range(2, len(curve) - 1)
    return min(splits, key=lambda split: residual(0, split) + residual(split, len(curve)), default=len(curve))


def exact_p(differences: np.ndarray, alternative: str = "two-sided") -> float:
    """Exact sign-flip p-value by SciPy, whose permutation type 'samples' swaps the two values of a pair."""
    result = scipy.stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative=alternative,
        n_resamples=np.inf,
        batch=1 << 14,
    )
    return float(result.pvalue)


def sign_patterns(seed: int, samples: int, patterns: int) -> np.ndarray:
    """Random signs. (patterns, samples)"""
    chunks = (samples + 63) // 64
    words = chacha8(seed, STREAMS["signs"], patterns * chunks).reshape(patterns, chunks)
    bits = (words[:, :, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    return 1.0 - 2.0 * bits.reshape(patterns, -1)[:, :samples]


def sampled_p(differences: np.ndarray, seed: int, patterns: int) -> float:
    signs = sign_patterns(seed, len(differences), patterns)
    seen = abs(differences.sum()) - 1e-12 * np.abs(differences).sum()
    hits = int((np.abs(signs @ differences) >= seen).sum())
    return (hits + 1) / (patterns + 1)


def above_p(values: np.ndarray, seed: int, patterns: int) -> float:
    """One-sided p-value of a mean of 0 or less: the larger of the randomisation test and the corrected t-test."""
    if len(values) <= EXACT_PAIRS:
        by_signs = exact_p(values, "greater")
    else:
        signs = sign_patterns(seed, len(values), patterns)
        seen = values.sum() - 1e-12 * np.abs(values).sum()
        by_signs = (int((signs @ values >= seen).sum()) + 1) / (patterns + 1)
    return max(by_signs, skewed_t_above(values))


def skewed_t_above(values: np.ndarray) -> float:
    """One-sided p-value of the t-test with Hall's correction for skewness; negative skewness is enlarged."""
    n = len(values)
    t = scipy.stats.ttest_1samp(values, 0).statistic
    if n > 2:
        skew = scipy.stats.skew(values, bias=False)
        skew *= 1 + 3 / np.sqrt(n) if skew < 0 else 1
        t = t + skew * (1 + 2 * t**2) / (6 * np.sqrt(n)) + skew**2 * t**3 / (27 * n)
    return float(scipy.stats.t.sf(t, n - 1))


def gain(differences: np.ndarray, seed: int, count: int) -> dict:
    means = differences[resamples(seed, "holdout", len(differences), count)].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    exact = len(differences) <= EXACT_PAIRS
    by_signs = exact_p(differences) if exact else sampled_p(differences, seed, count)
    is_same = np.all(differences == 0)
    by_t = 1.0 if is_same else 2 * skewed_t_above(differences * (-1 if differences.mean() < 0 else 1))
    return {
        "mean": float(differences.mean()),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, max(by_signs, by_t)),
        "samples": len(differences),
    }


def retained(part: np.ndarray, whole: np.ndarray, seed: int, count: int) -> dict | None:
    indices = resamples(seed, "holdout", len(whole), count)
    parts, wholes = part[indices].sum(axis=1), whole[indices].sum(axis=1)
    low, high = (
        np.quantile(np.where(wholes > 0, parts / wholes, worst), share, method="linear")
        for worst, share in ((-np.inf, 0.025), (np.inf, 0.975))
    )
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    return {"value": float(part.sum() / whole.sum()), "low": float(low), "high": float(high)}


def fold_of(samples: int, folds: int, seed: int) -> np.ndarray:
    """The fold of each sample: folds in turn, shuffled from the end (Fisher and Yates)."""
    dealt = np.arange(samples) % min(folds, samples)
    words = chacha8(seed, STREAMS["folds"], samples - 1)
    for word, last in zip(words, range(samples - 1, 0, -1)):
        other = (int(word) * (last + 1)) >> 64
        dealt[[last, other]] = dealt[[other, last]]
    return dealt


def out_of_fold(nll: np.ndarray, folds: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The boundary chosen for each fold on the other folds, and every sample's NLL with the choice for its fold."""
    picks = [pick(nll[folds != fold])[1] for fold in range(folds.max() + 1)]
    return picks, nll[np.arange(len(nll)), np.array(picks)[folds]]


def spearman_p(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    """Two-sided p-value: the share of pairings whose |rho| is at least the observed one. All pairings are used if there
    are few, otherwise 50,000 random ones."""
    x, y = scipy.stats.rankdata(x), scipy.stats.rankdata(y)
    result = scipy.stats.permutation_test(
        (x,),
        # Rounded, so that a pairing that is equally far from 0 in exact arithmetic counts.
        lambda x: np.round(abs(np.corrcoef(x, y)[0, 1]), 12),
        permutation_type="pairings",
        alternative="greater",
        n_resamples=50_000,
        rng=rng,
    )
    return float(result.pvalue)


# --- the cases ------------------------------------------------------------------------------------------------------


def scores(rng: np.random.Generator, samples: int, steps: list[float], noise: float) -> np.ndarray:
    """NLLs that fall by steps[l] when layer l is added, with noise in every step. (samples, len(steps) + 1)"""
    base = rng.normal(2.0, 0.6, size=(samples, 1))
    falls = rng.normal(steps, noise, size=(samples, len(steps)))
    return np.round(np.hstack([base, base - np.cumsum(falls, axis=1)]), 6)


def choice(name: str, selection: np.ndarray, holdout: np.ndarray, curve: np.ndarray, seed: int) -> dict:
    choice_count, count = 300, 2000
    best, one_se = pick(selection)
    base, cut, full = holdout[:, 0], holdout[:, one_se], holdout[:, -1]
    adapter_gain = gain(base - full, seed, count)
    return {
        "name": name,
        "selection": selection.tolist(),
        "holdout": holdout.tolist(),
        "curve": curve.tolist(),
        "seed": seed,
        "choice_resamples": choice_count,
        "resamples": count,
        "best": best,
        "one_se": one_se,
        "change_point": change_point(curve),
        "bootstrap": stability(selection, seed, choice_count),
        "gain": gain(full - cut, seed, count),
        "adapter_gain": adapter_gain,
        "base_gain": gain(base - cut, seed, count),
        "retained": retained(base - cut, base - full, seed, count) if adapter_gain["low"] > 0 else None,
    }


def nested(name: str, nll: np.ndarray, curve: np.ndarray, folds: int, seed: int) -> dict:
    count = 2000
    dealt = fold_of(len(nll), folds, seed)
    best, one_se = pick(nll)
    picks, cut = out_of_fold(nll, dealt)
    if one_se in (0, nll.shape[1] - 1):
        cut = nll[:, one_se]
    return {
        "name": name,
        "scores": nll.tolist(),
        "curve": curve.tolist(),
        "seed": seed,
        "folds": folds,
        "resamples": count,
        "fold_of": dealt.tolist(),
        "picks": picks,
        "best": best,
        "one_se": one_se,
        "gain": gain(nll[:, -1] - cut, seed, count),
        "adapter_gain": gain(nll[:, 0] - nll[:, -1], seed, count),
        "base_gain": gain(nll[:, 0] - cut, seed, count),
    }


def sufficient(name: str, nll: np.ndarray, seed: int) -> dict:
    """Fixed-sequence tests from the boundary with most layers down, and the largest share that each is shown to keep."""
    count = 2000
    level = 0.0125 if len(nll) < 20 else 0.025
    base, full = nll[:, 0], nll[:, -1]
    whole = nll.shape[1] - 1
    is_gain_shown = gain(base - full, seed, count)
    is_gain_shown = is_gain_shown["low"] > 0 and is_gain_shown["p"] < 2 * level

    def test(k: int, kind: str, m: float) -> float:
        if kind == "share":
            return above_p((base - nll[:, k]) - m * (base - full), seed, count)
        return max(above_p(full - nll[:, k] + m, seed, count), above_p(base - nll[:, k], seed, count))

    margins = [("share", m) for m in (0.99, 0.98, 0.95, 0.9, 0.8, 0.5)] + [("nats", m) for m in (0.02, 0.2)]
    answers = []
    for kind, m in margins:
        kept, p, stopped = whole, None, None
        for k in range(whole - 1, 0, -1) if is_gain_shown else ():
            p_of_k = test(k, kind, m)
            if p_of_k >= level:
                stopped = p_of_k
                break
            kept, p = k, p_of_k
        answers.append({"margin": {kind: m}, "layers_kept": kept, "p": p, "stopped": stopped})
    lows = []
    for k in range(whole - 1, 0, -1) if is_gain_shown else ():
        value = (base - nll[:, k]).mean() / (base - full).mean()
        shown = np.arange(value - 1e-4, value - 3, -1e-3)
        lows.append(next((float(m) for m in shown if test(k, "share", m) < level), None))
    return {"name": name, "scores": nll.tolist(), "seed": seed, "resamples": count, "answers": answers, "lows": lows}


def two_looks(alpha: float, share: float) -> dict:
    """Levels of two looks by the spending function of O'Brien-Fleming type, from the bivariate normal distribution."""
    norm = scipy.stats.norm
    first = 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(share))
    rho = np.sqrt(share)
    both = scipy.stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]], abseps=1e-12, releps=1e-12)

    def spent(last: float) -> float:
        return first + norm.cdf(norm.isf(first)) - both.cdf(norm.isf([first, last]))

    last = scipy.optimize.brentq(lambda last: spent(last) - alpha, 0.5 * (alpha - first), alpha, xtol=1e-13)
    return {"alpha": alpha, "share": share, "levels": [float(first), float(last)]}


def spearman(layers: int, ties: bool, rng: np.random.Generator) -> dict:
    x = rng.normal(size=layers)
    y = 0.7 * x + rng.normal(size=layers)
    x, y = (np.round(values, 1 if ties else 6) for values in (x, y))
    rho = scipy.stats.spearmanr(x, y).statistic
    return {"x": x.tolist(), "y": y.tolist(), "rho": float(rho), "p": spearman_p(x, y, rng)}


def main() -> None:
    rng = np.random.default_rng(20250330)

    def curve(layers: int, bend: int) -> np.ndarray:
        x = np.arange(layers)
        return np.round(0.02 * x + 0.08 * np.maximum(x - bend, 0) + rng.normal(0, 0.01, layers), 6)

    def case(name: str, selection: int, holdout: int, steps: list[float], noise: float, seed: int) -> dict:
        layers = len(steps)
        parts = (scores(rng, samples, steps, noise) for samples in (selection, holdout))
        return choice(name, *parts, curve(layers, layers // 2), seed)

    tied = case("some layers have no LoRA", 18, 15, [0.1, 0.0, 0.05, 0.0, 0.02, 0.0], 0.06, 5)
    for part in ("selection", "holdout"):
        values = np.array(tied[part])
        for layer in (1, 3, 5):
            values[:, layer + 1] = values[:, layer]
        tied[part] = values
    tied = choice(tied["name"], tied["selection"], tied["holdout"], np.array(tied["curve"]), 5)

    values = np.round(rng.gamma(1.5, 0.2, 25), 6)
    differences = {n: np.round(rng.normal(0.25, 0.5, n), 6) for n in (5, 9, 14, 18)}
    scipy_interval = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=100_000, method="percentile", confidence_level=0.95, rng=rng
    ).confidence_interval
    # Later additions use a separate generator, so that the numbers above do not change.
    more = np.random.default_rng(20260712)
    skewed = [np.round(mean + sign * more.lognormal(-1, 1, n), 6) for n, mean, sign in
              ((2, 0.1, 1), (3, 0.5, -1), (12, 0.9, -1), (40, 0.8, -1), (25, -0.3, 1), (9, 30.0, -1))]
    probabilities = [1e-300, 1e-20, 1e-6, 0.001, 0.025, 0.07, 0.3, 0.5, 0.6, 0.8, 0.95, 0.975, 0.999999]
    curves = [np.round(rng.uniform(0, 1, layers), 6) for layers in (4, 5, 6, 9)]
    curves += [curve(layers, bend) for layers, bend in ((12, 7), (30, 21), (30, 4), (48, 30))]

    fixture = {
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "statsmodels": statsmodels.__version__,
        },
        "mean_and_se": {
            "values": values.tolist(),
            "mean": float(np.mean(values)),
            "se_scipy": float(scipy.stats.sem(values)),
            "se_statsmodels": float(DescrStatsW(values).std_mean),
        },
        "bootstrap": {
            "values": values.tolist(),
            "resamples": 100_000,
            "low": float(scipy_interval.low),
            "high": float(scipy_interval.high),
        },
        "sign_flip": [
            {"differences": d.tolist(), "p": exact_p(d), "above": exact_p(d, "greater")} for d in differences.values()
        ],
        "skewed_t": [{"values": v.tolist(), "p": skewed_t_above(v)} for v in skewed],
        "normal_quantiles": [[p, float(scipy.stats.norm.ppf(p))] for p in probabilities],
        "holm": [
            {"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()}
            for p in (np.round(more.uniform(0, 0.2, tests), 4) for tests in (1, 3, 8))
        ],
        "spearman": [spearman(layers, ties, more) for layers in (5, 8, 12, 30) for ties in (False, True)],
        "change_points": [{"curve": c.tolist(), "change_point": change_point(c)} for c in curves],
        "resamples": [
            {"seed": seed, "stream": stream, "samples": 11, "indices": resamples(seed, stream, 11, 3).tolist()}
            for seed in (0, 2**63 + 12345)
            for stream in ("choice", "holdout", "lens")
        ],
        "choices": [
            case("useful below layer 4", 24, 20, [0.2, 0.15, 0.1, 0.1, 0, 0, 0], 0.04, 1),
            case("useful everywhere, few held out", 16, 12, [0.2, 0.1, 0.1, 0.15, 0.2], 0.05, 2),
            case("useful nowhere", 20, 30, [0.0] * 6, 0.05, 3),
            case("the top does harm", 24, 70, [0.2, 0.2, 0.1, -0.1, -0.15, -0.1], 0.08, 4),
            tied,
            case("barely useful", 30, 30, [0.05, 0.0, 0.03, 0.02], 0.18, 6),
            case("one layer, two samples", 2, 2, [0.3], 0.1, 7),
        ],
        "proportions": [
            {"ones": ones, "samples": samples, "interval": proportion_confint(ones, samples, method="wilson")}
            for ones, samples in ((0, 1), (1, 1), (0, 40), (1, 40), (13, 40), (20, 40), (40, 40), (3, 7), (250, 1319))
        ],
        "nested": [
            nested(name, scores(more, samples, steps, noise), curve(len(steps), 3), folds, seed)
            for name, samples, steps, noise, folds, seed in (
                ("a cut, few samples", 12, [0.2, 0.1, 0.1, 0.0, 0.0, 0.0], 0.03, 10, 1),
                ("the top does harm", 48, [0.2, 0.2, 0.1, -0.05, -0.1, -0.1], 0.2, 10, 2),
                ("useful everywhere", 30, [0.2, 0.2, 0.1, 0.1, 0.1], 0.05, 5, 3),
                ("useful nowhere", 24, [0.0] * 6, 0.05, 8, 4),
                ("folds disagree", 20, [0.1, 0.01, 0.01, 0.005, 0.005], 0.05, 4, 2**63 + 5),
                ("more folds than samples", 3, [0.3, 0.0, -0.2], 0.1, 10, 6),
            )
        ],
        "looks": [
            two_looks(alpha, share)
            for alpha, share in ((0.025, 0.5), (0.0125, 0.5), (0.025, 0.25), (0.025, 0.75), (0.005, 0.5), (0.025, 0.9))
        ],
        "sufficient": [
            sufficient(name, scores(more, samples, steps, noise), seed)
            for name, samples, steps, noise, seed in (
                ("small gains above", 12, [0.3, 0.2, 0.1, 0.02, 0.004, 0.001], 0.002, 1),
                ("small gains above, noise", 30, [0.3, 0.2, 0.1, 0.02, 0.004, 0.001], 0.03, 2),
                ("useful everywhere", 70, [0.1, 0.1, 0.1, 0.1, 0.1], 0.05, 3),
                ("the top does harm", 24, [0.2, 0.2, 0.1, -0.05, -0.1], 0.05, 4),
                ("useful nowhere", 24, [0.0] * 4, 0.05, 5),
                ("few samples", 8, [0.3, 0.1, 0.0, 0.0], 0.01, 6),
            )
        ],
    }
    FIXTURE.parent.mkdir(parents=True, exist_ok=True)
    FIXTURE.write_text(json.dumps(fixture, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main()
