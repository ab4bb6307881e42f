"""Writes crates/plimsoll-stats/tests/fixtures/metrics.json: expected values of the metrics of generated text.

    pip download --no-deps --dest WHEELS transformers==4.57.6
    python reference/metrics_golden.py WHEELS/transformers-4.57.6-py3-none-any.whl

The values are computed by the packages that own the metrics: rouge-score (with NLTK's stemmer), sacreBLEU,
lm-evaluation-harness and transformers 4. Of transformers 4 only `squad_metrics.py` is read, from the wheel, because
transformers 5 does not have it. `numeric` is this project's own metric: a second implementation here uses decimal
arithmetic. The texts are generated here: English sentences with edits, numbers and answers as in GSM8K, punctuation,
entities, several lines, and characters that Python and Rust are likely to treat differently. Everything that depends on
this project's random numbers is computed with the ChaCha8 of `choose_golden.py`.
"""

import argparse
import ast
import collections
import decimal
import json
import os
import pathlib
import platform
import random
import re
import string
import types
import unicodedata
import zipfile
from importlib.metadata import version

import lm_eval
import numpy as np
import sacrebleu
import scipy.stats
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.significance import PairedTest
from statsmodels.stats.multitest import multipletests

from choose_golden import EXACT_PAIRS, chacha8

FIXTURE = pathlib.Path(__file__).parent.parent / "crates/plimsoll-stats/tests/fixtures/metrics.json"
METRICS, SWAPS = 5, 6  # random streams
ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL", "rouge-lsum": "rougeLsum"}


# --- texts ----------------------------------------------------------------------------------------------------------

NAMES = "Mary Tobias Ines Okonkwo O'Brien Zoë Jean-Luc Nguyễn Müller Anna".split()
THINGS = "apples boxes letters shipments theories children skies ponies engines batteries analyses geese".split()
VERBS = "buys carried considers delivered controls is-running organised stopped agreed relies measured flies".split()
QUALITIES = "relational hopeful electrical happily 'second-hand' formal adjustable the-best nationally old red".split()
PLACES = "Paris, London; Köln — U.S.A. Ångström São-Paulo the_market (Rome) Łódź".split()
TIMES = ["yesterday", "on Monday", "at 3:45 p.m.", "in 1999", "a week ago", "in the 1,000th year", "then"]
ENTITIES = ["&amp;", "&lt;b&gt;", "&quot;yes&quot;", "&amp;lt;", "&#39;", "<skipped>", "&", "&nbsp;"]
PUNCTUATION = list(string.punctuation)
PUNCTUATION += ["...", "--", "?!", "“”", "’", "…", "–", "«»", "。", "،", "।", "-\n", ".5", "1.", ",,"]
SPACES = [
    " ", "  ", "\t", "\u00a0", "\u3000", "\u2009", "\u200b", "\u2028", "\u0085", "\x1c", "\x1f", "\n", "\r\n", "\v",
    "\ufeff",
]
SCRIPTS = [
    "北京是中国的首都", "東京タワー", "한국어 문장입니다", "مرحبا بالعالم", "السلام عليكم", "नमस्ते दुनिया", "हिन्दी क्षेत्र",
    "สวัสดีชาวโลก", "Привет, мир", "ΟΔΥΣΣΕΥΣ σοφός", "שלום", "a\u0301pre\u0300s", "e\u0301", "the\u0301", "a\u200dn",
    "ﬁne ﬂow", "STRASSE Straße ẞ", "ǅ ǆ", "１２３４", "٣٤٥", "१२३", "½ ² Ⅳ ①", "x²", "𝔘𝔫𝔦", "Ⓐ ⓐ", "😀", "👩\u200d👩\u200d👧",
    "🇩🇪", "\u212a \u2126", "a\u2040b", "ʰ ª º", "_a_ a_b", "naïve café",
]
STEM_ENDINGS = [
    "", "s", "es", "ies", "ied", "eed", "ed", "ing", "y", "ly", "ational", "tional", "enci", "anci", "izer", "bli",
    "abli", "alli", "entli", "eli", "ousli", "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness",
    "aliti", "iviti", "biliti", "fulli", "logi", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al",
    "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "sion", "tion", "ion", "ou", "ism",
    "ate", "iti", "ous", "ive", "ize", "e", "ll", "le", "lle", "sses", "ss", "ating", "bled", "izing", "tted",
    "lling", "zzed", "yed",
]
STEM_ROOTS = [
    "", "t", "y", "a", "b", "at", "by", "fl", "tr", "pl", "sky", "fail", "fil", "hop", "hopp", "fall", "rat", "nat",
    "relat", "radic", "analog", "geo", "archaeo", "theo", "commun", "syzyg", "toy", "enjo", "spy", "happ", "adjust",
    "control", "roll", "w", "bow", "box", "say", "1", "20", "x1", "oy", "depend", "electr", "sens", "viet", "vil",
    "consci", "oo", "ee", "yy", "yay", "crypto", "mid",
]


def number(rng: random.Random) -> str:
    value = rng.choice([rng.randint(0, 9), rng.randint(10, 999), rng.randint(1000, 9_999_999)])
    form = rng.choice(["{}", "{:,}", "${:,}", "-{}", "{}.50", "{:,}.", "{}%", "€{}", "{}-{}", "${}.00", "{}th"])
    return form.format(value, value + 1)


def sentence(rng: random.Random) -> str:
    words = [rng.choice(NAMES), rng.choice(VERBS), rng.choice(["the", "a", "an", "some", number(rng)])]
    words += rng.sample(QUALITIES, rng.randint(0, 2)) + [rng.choice(THINGS)]
    if rng.random() < 0.6:
        words += [rng.choice(["in", "from", "near"]), rng.choice(PLACES)]
    words += [rng.choice(TIMES)] * (rng.random() < 0.5)
    if rng.random() < 0.3:
        words += ["and", rng.choice(NAMES), rng.choice(VERBS), number(rng), rng.choice(THINGS)]
    return " ".join(words) + rng.choice([".", ".", ".", "!", "?", "", " ."])


def answer(rng: random.Random) -> str:
    value = number(rng)
    forms = ["#### {}", "####{}", "The answer is {}.", "So {} + 2 = {}\n#### {}", "\\boxed{{{}}}", "#### {}."]
    form = rng.choice([*forms, "it is $ {} , I think", "Answer: {}\n\n#### "])
    return sentence(rng) + rng.choice([" ", "\n"]) + form.format(value, number(rng), value)


def edited(rng: random.Random, text: str, edits: int) -> str:
    words = re.split(r"( )", text)
    for _ in range(edits):
        at = rng.randrange(len(words))
        match rng.randrange(10):
            case 0:
                words[at] = ""
            case 1:
                words[at] = rng.choice([words[at].upper(), words[at].lower(), words[at].title(), words[at][::-1]])
            case 2:
                words.insert(at, " " + rng.choice(THINGS + QUALITIES + ["the", "a"]) + " ")
            case 3:
                other = rng.randrange(len(words))
                words[at], words[other] = words[other], words[at]
            case 4:
                words.insert(at, rng.choice(PUNCTUATION))
            case 5:
                words.insert(at, rng.choice(SPACES))
            case 6:
                words.insert(at, rng.choice(["", " "]) + rng.choice(SCRIPTS) + rng.choice(["", " "]))
            case 7:
                words.insert(at, rng.choice(ENTITIES))
            case 8:
                words[at] = rng.choice([number(rng), unicodedata.normalize("NFD", words[at])])
            case 9:
                ending = rng.choice(["s", "ed", "ing", "y", "ies", ""])
                words[at] = re.sub(r"(s|ed|y|ies)?$", ending, words[at], count=1)
    return "".join(words)


def pair(rng: random.Random, index: int) -> tuple[str, list[str]]:
    """A candidate and one to four references. None ends with a full stop and a line feed, before which Python's `$`
    matches and Rust's does not."""
    several = rng.choice([1, 1, 2, 3, 4])
    match index % 10:
        case 0 | 1 | 2:
            base = sentence(rng)
        case 3 | 4:
            base = answer(rng)
        case 5:
            base = "\n".join(sentence(rng) for _ in range(rng.randint(2, 5)))
        case 6:
            base = " ".join(rng.sample(SCRIPTS, rng.randint(1, 4)))
        case 7:
            base = rng.choice(["the", "a cat", "42", "Yes.", "", " ", "an", "Ünïcode", "3.14", "O.K.", "…"])
        case 8:
            base = "".join(rng.choice("abcxyz019.é") for _ in range(rng.randint(80, 250)))
        case _:
            base = f"{sentence(rng)} {rng.choice(SCRIPTS)} {rng.choice(ENTITIES)} {sentence(rng)}"
    candidate = edited(rng, base, rng.choice([0, 0, 1, 2, 4, 8]))
    references = [edited(rng, base, rng.choice([0, 1, 2, 3, 6])) for _ in range(several)]
    if rng.random() < 0.1:
        references[rng.randrange(several)] = rng.choice(["", sentence(rng), answer(rng), rng.choice(SCRIPTS)])
    candidate = rng.choice([candidate] * 18 + ["", candidate + " \n"])
    return re.sub(r"\.\n\Z", ".", candidate), [reference.rstrip("\n") for reference in references]


# --- values by the packages that own the metrics --------------------------------------------------------------------


def squad(wheel: pathlib.Path) -> types.SimpleNamespace:
    """The functions of transformers' `squad_metrics.py` that score an answer, without importing the package."""
    source = zipfile.ZipFile(wheel).read("transformers/data/metrics/squad_metrics.py")
    wanted = {"normalize_answer", "get_tokens", "compute_exact", "compute_f1", "get_raw_scores"}
    body = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names = {"collections": collections, "re": re, "string": string}
    exec(compile(ast.Module(body, []), str(wheel), "exec"), names)
    return types.SimpleNamespace(**{name: names[name] for name in wanted})


def squad_scores(functions: types.SimpleNamespace, candidate: str, references: list[str]) -> tuple[float, float]:
    example = types.SimpleNamespace(qas_id=0, answers=[{"text": reference} for reference in references])
    exact, f1 = functions.get_raw_scores([example], {0: candidate})
    return exact[0], f1[0]


def exact_match(candidate: str, references: list[str], **options) -> float:
    return max(float(exact_match_hf_evaluate([candidate], [r], **options)["exact_match"]) for r in references)


def extract(text: str, pattern: str, take: str = "first", fallback: str = "[invalid]") -> str:
    group_select = {"first": 0, "last": -1}[take]
    return RegexFilter(pattern, group_select=group_select, fallback=fallback).apply([[text]], [{}])[0][0]


def gsm8k() -> tuple[dict, dict]:
    """Options of exact match, and the two filters, from the task file of lm-evaluation-harness."""
    task = yaml.safe_load((pathlib.Path(lm_eval.__file__).parent / "tasks/gsm8k/gsm8k.yaml").read_text())
    metric = task["metric_list"][0]
    options = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    filters = {}
    for entry in task["filter_list"]:
        regex = entry["filter"][0]
        take = {0: "first", -1: "last"}[regex.get("group_select", 0)]
        filters[entry["name"]] = {"pattern": regex["regex_pattern"], "take": take}
    return options, filters


EXACT_MATCHES = [
    {},
    {"ignore_case": True},
    {"ignore_case": True, "ignore_punctuation": True},
    {"ignore": [r"\s+", r"[^\w]", "^(the|a)"], "ignore_case": True},
    {"ignore": [r"\W", r"\d", r"[\w]\Z"]},
]
EXTRACTS = [
    {"pattern": r"(-?[$0-9.,]{2,})|(-?[0-9]+)"},
    {"pattern": r"answer is (\S+)", "fallback": ""},
    {"pattern": r"\s(\S+)\s*\Z", "take": "last"},
    {"pattern": r"[\w.]+", "take": "last"},
    {"pattern": r"(\$)?([0-9][0-9,]*)|(the )|apples", "take": "last", "fallback": " none "},
    {"pattern": r"[0-9]*", "take": "last"},
    {"pattern": r"(?i)(?:the|an?)\W+(\w+)", "take": "first"},
    {"pattern": r"[\W\d]+", "take": "first"},
]


def owners_options(options: dict) -> dict:
    return {"regexes_to_ignore" if key == "ignore" else key: value for key, value in options.items()}


# --- numbers --------------------------------------------------------------------------------------------------------

# A second implementation of the numbers that `numeric` accepts: one regular expression, and decimal arithmetic.
CURRENCY, THOUSANDS = "[$€£¥₹]", ",_ \u00a0\u2009\u202f"
NUMBER = re.compile(
    rf"\s*(?P<sign>[-+\u2212])?(?:{CURRENCY}\s*)?(?P<inner>[-+\u2212])?"
    rf"(?P<whole>(?:[0-9]{{1,3}}(?P<separator>[{THOUSANDS}])[0-9]{{3}}(?:(?P=separator)[0-9]{{3}})*|[0-9]*))"
    rf"(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][-+\u2212]?[0-9]+)?\s*(?:{CURRENCY}|%)?[.,]?\s*"
)
TOLERANCES = [
    None, {"absolute": 0.5}, {"absolute": 0.001}, {"relative": 0.01}, {"relative": 1e-6, "absolute": 0.25},
    {"relative": 0, "absolute": 0},
]


def decimal_number(text: str) -> decimal.Decimal | None:
    found = NUMBER.fullmatch(text)
    if found is None or (found["sign"] and found["inner"]):
        return None
    if not re.search("[0-9]", found["whole"] + (found["fraction"] or "")):
        return None
    whole = re.sub(f"[{THOUSANDS}]", "", found["whole"])
    mantissa = (found["sign"] or found["inner"] or "") + (whole or "0") + (found["fraction"] or "")
    value = decimal.Decimal((mantissa + (found["exponent"] or "")).replace("\u2212", "-"))
    return value if abs(value) < decimal.Decimal("1.8e308") else None


def numeric(candidate: str, references: list[str], tolerance: dict | None) -> float:
    tolerance = {"relative": 1e-9} if tolerance is None else tolerance
    relative, absolute = (decimal.Decimal(repr(tolerance.get(key, 0))) for key in ("relative", "absolute"))
    answer = decimal_number(candidate)
    numbers = [number for number in map(decimal_number, references) if number is not None]

    def is_near(number: decimal.Decimal) -> bool:
        # The metric compares in f64: numbers that differ by at most four roundings are equal.
        rounding = 4 * decimal.Decimal(2) ** -52 * max(abs(answer), abs(number))
        return abs(answer - number) <= max(relative * abs(number), absolute) + rounding

    return float(answer is not None and any(map(is_near, numbers)))


def written(rng: random.Random, value: decimal.Decimal) -> str:
    """A number as people and models write it, sometimes malformed."""
    text = rng.choice(["{:f}", "{:f}", "{:,f}", "{:,f}", "{:f}.", "{:e}", "{:.9f}", "{:.2f}"]).format(value)
    if rng.random() < 0.2:
        text = text.replace(",", rng.choice("_ \u00a0\u2009\u202f'."))
    if rng.random() < 0.2:
        text = text.replace("-", "\u2212")
    form = ["{}"] * 10 + ["${}", "€ {}", "{} €", "{}%", "{} %.", "{},", " {}\n", "+{}", "-{}", "-${}", "$-{}", "{} kg"]
    text = rng.choice(form).format(text)
    if rng.random() < 0.1:
        at = rng.randrange(len(text))
        text = text[:at] + rng.choice(".,-+$%e 0/x١") + text[at + rng.randint(0, 1):]
    return text


def numeric_cases(rng: random.Random) -> list[dict]:
    steps = [decimal.Decimal(step) for step in "0 0 0 0 0 0 0 0.5 0.49 0.51 0.001 0.25 1 -0.5 -1 1e-12 1e-7".split()]
    cases = []
    for _ in range(600):
        digits = rng.choice([1, 2, 4, 7, 10])
        value = decimal.Decimal(rng.randint(-10**digits, 10**digits)).scaleb(-rng.choice([0, 0, 0, 1, 3]))
        other = rng.choice([value + rng.choice(steps), value * decimal.Decimal(rng.choice(["1.01", "0.99", "1.011"]))])
        references = [written(rng, value) for _ in range(rng.choice([1, 1, 1, 2]))]
        no_number = rng.choice(["", "many", "[invalid]", "-", ".", "1/2", "1e999"])
        candidate = rng.choice([written(rng, other)] * 9 + [no_number])
        cases.append({
            "candidate": candidate,
            "references": references,
            "are_numbers": [decimal_number(reference) is not None for reference in references],
            "scores": [numeric(candidate, references, tolerance) for tolerance in TOLERANCES],
        })
    return cases


# --- comparisons ----------------------------------------------------------------------------------------------------


def compared(value, a: np.ndarray, b: np.ndarray, seed: int, count: int) -> dict:
    """Interval of b, difference with its interval, and p-value. `value` is a function of summed statistics and their
    number."""
    n = len(a)
    words = chacha8(seed, METRICS, n * count)

    def interval(values: np.ndarray) -> dict:
        return dict(zip(("low", "high"), np.quantile(values, [0.025, 0.975]).tolist()))

    indices = np.array([(int(word) * n) >> 64 for word in words]).reshape(count, n)
    values_a, values_b = (np.array([value(rows[i].sum(axis=0), n) for i in indices]) for rows in (a, b))
    seen = value(b.sum(axis=0), n) - value(a.sum(axis=0), n)
    if n <= EXACT_PAIRS:
        rows = np.vstack([a, b])
        # Each pair is two indices of `rows`, which SciPy swaps.
        p = scipy.stats.permutation_test(
            (np.arange(n), n + np.arange(n)),
            lambda x, y: value(rows[y].sum(axis=0), n) - value(rows[x].sum(axis=0), n),
            permutation_type="samples", vectorized=False, n_resamples=np.inf,
        ).pvalue
    else:
        chunks = (n + 63) // 64
        words = chacha8(seed, SWAPS, count * chunks).reshape(count, chunks)
        bits = (words[:, :, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        swaps = bits.reshape(count, -1)[:, :n, None].astype(bool)
        mixed_a, mixed_b = (np.where(swaps, y, x).sum(axis=1) for x, y in ((a, b), (b, a)))
        mixed = np.array([value(y, n) - value(x, n) for x, y in zip(mixed_a, mixed_b)])
        p = (np.sum(np.abs(mixed) >= abs(seen) - 1e-12) + 1) / (count + 1)
    return {
        "seed": seed,
        "resamples": count,
        "estimate": {"value": float(value(b.sum(axis=0), n)), **interval(values_b), "samples": n},
        "difference": {"difference": float(seen), **interval(values_b - values_a), "p": float(p), "samples": n},
    }


def comparisons(rng: random.Random, squad_functions, rouge: RougeScorer) -> list[dict]:
    os.environ["SACREBLEU_SEED"] = "1"
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()

    def mean(sums, n):
        return sums[0] / n

    def of_sacrebleu(metric):
        # A list of integers, like sacreBLEU's own sums.
        return lambda sums, n: metric._compute_score_from_stats([int(count) for count in sums]).score

    def rows(kind: str, candidates: list[str], references: list[list[str]]) -> np.ndarray:
        pairs = list(zip(candidates, references))
        if kind == "squad-f1":
            return np.array([[squad_scores(squad_functions, c, r)[1]] for c, r in pairs], dtype=float)
        if kind == "rouge-l":
            return np.array([[rouge.score_multi(r, c)["rougeL"].fmeasure] for c, r in pairs])
        metric = {"bleu": bleu, "chrf": chrf}[kind]
        return np.array([metric._extract_corpus_statistics([c], [[x] for x in r])[0] for c, r in pairs])

    cases = []
    for kind, samples, edits in (
        ("squad-f1", 12, (3, 1)), ("squad-f1", 40, (2, 2)), ("rouge-l", 70, (3, 2)), ("rouge-l", 9, (2, 2)),
        ("bleu", 8, (4, 1)), ("bleu", 80, (3, 2)), ("bleu", 130, (2, 2)), ("chrf", 10, (2, 2)), ("chrf", 65, (3, 2)),
    ):
        references = [[sentence(rng)] for _ in range(samples)]
        a, b = ([edited(rng, r[0], rng.randint(0, 2 * e)) for r in references] for e in edits)
        value = {"bleu": of_sacrebleu(bleu), "chrf": of_sacrebleu(chrf)}.get(kind, mean)
        case = {"kind": kind, "a": a, "b": b, "references": references}
        case |= compared(value, rows(kind, a, references), rows(kind, b, references), len(cases), 1000)
        if kind in ("bleu", "chrf") and samples > EXACT_PAIRS:
            metric = {"bleu": bleu, "chrf": chrf}[kind]
            flat = [[r[0] for r in references]]
            _, scores = PairedTest([("a", a), ("b", b)], {kind: metric}, flat, n_samples=20_000)()
            case["sacrebleu_p"] = next(results for name, results in scores.items() if name != "System")[1].p_value
        cases.append(case)
    return cases


# --- the fixture ----------------------------------------------------------------------------------------------------


def corpora(pairs: list[tuple[str, list[str]]]) -> list[dict]:
    """Corpus scores of some of the pairs. If pairs have different numbers of references, these are padded with None."""
    everyone = range(len(pairs))
    several = {n: [i for i in everyone if len(pairs[i][1]) == n] for n in (1, 2, 3, 4)}
    found = []
    parts = [list(everyone), *several.values(), list(everyone)[:40], [0], [7, 17, 27, 37], list(everyone)[100:150]]
    for indices in parts:
        width = max(len(pairs[i][1]) for i in indices)
        candidates = [pairs[i][0] for i in indices]
        streams = [[dict(enumerate(pairs[i][1])).get(n) for i in indices] for n in range(width)]
        bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
        counts = {len(pairs[i][1]) for i in indices}
        scores = [metric.corpus_score(candidates, streams).score for metric in (bleu, chrf)]
        found.append({
            "pairs": indices,
            "references": counts.pop() if len(counts) == 1 else None,
            "bleu": scores[0],
            "chrf": scores[1],
            "bleu_signature": str(bleu.get_signature()),
            "chrf_signature": str(chrf.get_signature()),
        })
    return found


def stems(rng: random.Random, pairs: list[tuple[str, list[str]]]) -> list[list[str]]:
    words = {root + ending for root in STEM_ROOTS for ending in STEM_ENDINGS}
    words |= set(PorterStemmer().pool)
    for _ in range(900):
        letters = rng.choices("aeiouyyblstzdnrcfwx1", k=rng.randint(1, 9))
        words.add("".join(letters) + rng.choice(STEM_ENDINGS))
    for candidate, references in pairs:
        found = re.findall("[a-z0-9]+", " ".join([candidate, *references]).lower())
        words |= {word for word in found if len(word) < 30}
    words.discard("")
    stemmer = PorterStemmer()
    return [[word, stemmer.stem(word)] for word in sorted(words)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=pathlib.Path, help="the wheel of transformers 4.57.6")
    functions = squad(parser.parse_args().wheel)

    rng = random.Random(20251104)
    pairs = [pair(rng, index) for index in range(1000)]
    plain, stemmed = (RougeScorer(list(ROUGE.values()), use_stemmer=use) for use in (False, True))
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    options, filters = gsm8k()
    our_options = {"ignore" if key == "regexes_to_ignore" else key: of for key, of in options.items()}

    def rouge(scorer: RougeScorer, candidate: str, references: list[str]) -> dict:
        scores = scorer.score_multi(references, candidate)
        return {kind: scores[name].fmeasure for kind, name in ROUGE.items()}

    cases = []
    for candidate, references in pairs:
        exact, f1 = squad_scores(functions, candidate, references)
        streams = [[reference] for reference in references]
        answers = {name: extract(candidate, **of) for name, of in filters.items()}
        cases.append({
            "candidate": candidate,
            "references": references,
            "exact_match": [exact_match(candidate, references, **owners_options(of)) for of in EXACT_MATCHES],
            "gsm8k": {name: exact_match(found, references, **options) for name, found in answers.items()},
            "squad": [exact, f1],
            "rouge": rouge(plain, candidate, references),
            "stemmed": rouge(stemmed, candidate, references),
            "bleu": bleu.corpus_score([candidate], streams).score,
            "chrf": chrf.corpus_score([candidate], streams).score,
            "bleu_statistics": bleu._extract_corpus_statistics([candidate], streams)[0],
            "chrf_statistics": chrf._extract_corpus_statistics([candidate], streams)[0],
        })
    p_values = [[rng.random() ** 3 for _ in range(n)] for n in (1, 2, 5, 12)] + [[0.02, 0.02, 0.9, 0.005, 0.02]]
    packages = ("rouge-score", "nltk", "sacrebleu", "lm_eval", "numpy", "scipy", "statsmodels")
    fixture = {
        "versions": {
            "python": platform.python_version(),
            "unicode": unicodedata.unidata_version,
            "transformers": "4.57.6",
        }
        | {package: version(package) for package in packages},
        "exact_matches": EXACT_MATCHES,
        "gsm8k": {"options": our_options, "filters": filters},
        "extracts": [of | {"answers": [extract(candidate, **of) for candidate, _ in pairs[:200]]} for of in EXTRACTS],
        "cases": cases,
        "tolerances": TOLERANCES,
        "numbers": numeric_cases(random.Random(20261128)),
        "corpora": corpora(pairs),
        "stems": stems(rng, pairs),
        "comparisons": comparisons(rng, functions, plain),
        "holm": [{"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()} for p in p_values],
    }
    text = json.dumps(fixture, ensure_ascii=False, separators=(",", ":")).replace('},{"', '},\n{"')
    FIXTURE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
