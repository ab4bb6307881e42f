"""Runs the benchmarks, plimsoll and the peers in turns, and prints the results as a Markdown table.

    reference/bench/run.sh                            everything: installs, downloads and builds first
    python run.py --only gemm,generate-8 --rounds 5   if all of that is there

Names for `--only`: sweep-bf16, sweep-f32, memory, racing, sequential, four-shot, gemm, generate-8, generate-1. A round is
one run of plimsoll and one of each peer; a ratio compares two of these. The table has the median of the ratios with the
minimum and the maximum, and medians of what was measured. All raw numbers are written to `--out` after each job, so
that an interrupted run keeps its results.

The exit code is 1 if a job failed or if the NLLs of an f32 sweep disagree, but not if a goal is missed.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAMES = ("sweep-bf16", "sweep-f32", "memory", "racing", "sequential", "four-shot", "gemm", "generate-8", "generate-1")
SEEDS = range(5)
SHOTS = 4
GENERATED_TOKENS = 128
PROMPT_TOKENS = 100  # approximate length of each prompt of generate-*
# By batch: number of prompts, and the minimum ratio to transformers and to llama.cpp; None is no goal.
GENERATE = {8: (8, 5, 1.2), 1: (2, None, 0.9)}
NLL_TOLERANCE = 1e-4  # f32, relative
GEMM_SECONDS = 0.3
GEMM_ROWS = (8, 64, 256, 1024)
GEMM_LAYERS = (  # (inputs, outputs)
    *((576, 576), (576, 192), (576, 1536), (1536, 576)),  # of the 135M model
    *((2048, 2048), (2048, 512), (2048, 8192), (8192, 2048)),  # of a 1B model
)
GEMM_GOALS = {"8 rows": ((8,), 1.4), "64 rows": ((64,), 1.15), "256 rows and more": ((256, 1024), 1.0)}


class Failed(Exception):
    """A job without a result."""


def main():
    args = parse_args()
    jobs = Jobs(args)
    table = Table()
    for names, measure in (
        ({"sweep-bf16", "memory", "racing", "sequential"}, sweep_bf16),
        ({"sweep-f32"}, sweep_f32),
        ({"four-shot"}, four_shot),
        ({"gemm"}, gemm),
        ({"generate-8"}, generate),
        ({"generate-1"}, generate),
    ):
        wanted = names & args.only
        if wanted:
            try:
                measure(jobs, args, table, wanted)
            except (Failed, KeyError) as failure:
                failure = f"no {failure} in a result" if isinstance(failure, KeyError) else str(failure)
                jobs.say(f"FAILED: {failure}")
                table.failed(wanted, failure)
    table.note(f"{args.threads} threads, {cpu()}; rounds: {args.rounds}; samples: {args.samples}")
    text = table.render()
    jobs.save(text)
    print(text)
    sys.exit(int(table.wrong))


def parse_args():
    example = ROOT / "examples/smollm2-gsm8k"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=parse_names, default=set(NAMES), metavar="NAME,...")
    parser.add_argument("--rounds", type=positive, default=3, help="default 3")
    parser.add_argument("--shot-rounds", type=positive, default=1, help="rounds of four-shot, which is slow; default 1")
    parser.add_argument("--samples", type=positive, default=32, help="samples of each sweep; default 32")
    parser.add_argument("--threads", type=positive, default=2, help="default 2")
    parser.add_argument("--timeout", type=positive, default=4 * 3600, help="seconds for one job; default 4 hours")
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=example / "adapter")
    parser.add_argument("--data", type=Path, default=example / "valid.jsonl")
    parser.add_argument("--bench", type=Path, default=ROOT / "target/release/examples/bench", help="the built example")
    parser.add_argument("--work", type=Path, default=ROOT / "target/bench", help="folder for tokens and models")
    parser.add_argument("--out", type=Path, default=ROOT / "out/bench.json", help="file for the raw numbers")
    args = parser.parse_args()
    for path in (args.model, args.adapter, args.data, args.bench):
        if not path.exists():
            parser.error(f"{path} does not exist; run.sh downloads and builds what is needed")
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    return args


def parse_names(text):
    names = {name.strip() for name in text.split(",") if name.strip()}
    if not names or names - set(NAMES):
        raise argparse.ArgumentTypeError(f"{text!r}: expected names from {', '.join(NAMES)}")
    return names


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return number


class Jobs:
    """Runs programs that print one JSON object, one at a time, and keeps every result."""

    def __init__(self, args):
        self.args = args
        self.start = time.monotonic()
        self.raw = {
            "machine": {"cpu": cpu(), "cores": os.cpu_count(), "system": platform.platform()},
            "revision": revision(),
            "samples": args.samples,
            "threads": args.threads,
            "jobs": [],
        }

    def say(self, text):
        elapsed = int(time.monotonic() - self.start)
        print(f"[{elapsed // 60:3}:{elapsed % 60:02}] {text}", file=sys.stderr, flush=True)

    def ours(self, label, verb, *flags):
        return self.run(f"{label}, ours", [self.args.bench, verb, *flags])

    def peer(self, label, script, *flags):
        return self.run(f"{label}, peer", [sys.executable, HERE / script, *flags])

    def run(self, label, command):
        """The object that the command prints; raises Failed if there is none."""
        self.say(label)
        start = time.monotonic()
        try:
            done = subprocess.run(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.args.timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{label}: no result after {self.args.timeout} s") from error
        except OSError as error:
            raise Failed(f"{label}: {error}") from error
        if done.returncode != 0:
            print(*done.stderr.splitlines()[-20:], sep="\n", file=sys.stderr)
            raise Failed(f"{label}: exit code {done.returncode}")
        try:
            result = json.loads(done.stdout)
        except ValueError as error:
            raise Failed(f"{label}: stdout is not one JSON object ({error})") from error
        seconds = time.monotonic() - start
        self.raw["jobs"].append({"job": label, "wall_seconds": seconds, "result": result})
        self.save()
        self.say(f"{label}: {seconds:.1f} s")
        return result

    def save(self, table=None):
        part = self.args.out.with_suffix(".part")
        part.write_text(json.dumps(self.raw | {"table": table}) + "\n", encoding="utf-8")
        part.replace(self.args.out)


class Table:
    """Rows of the result, a second table for the shapes of gemm, and notes."""

    def __init__(self):
        self.lines = []
        self.shapes = []
        self.notes = []
        self.wrong = False

    def add(self, what, ours, peer, ratios, *, at_least=None, at_most=None, every=False):
        """Adds a row. The goal, if there is one, applies to the median ratio, or to every ratio."""
        if at_least is None and at_most is None:
            self.lines.append((what, ours, peer, spread(ratios), "", ""))
            return
        worst = (min if at_least is not None else max)(ratios) if every else statistics.median(ratios)
        reached = worst >= at_least if at_least is not None else worst <= at_most
        goal = f"≥ {at_least}" if at_least is not None else f"≤ {at_most}"
        self.lines.append((what, ours, peer, spread(ratios), goal + (", every seed" if every else ""), yes(reached)))

    def failed(self, names, failure):
        self.wrong = True
        self.lines += [(name, "", "", "", "", "failed") for name in NAMES if name in names]
        self.note(failure)

    def note(self, text):
        self.notes.append(text)

    def agreement(self, what, ours, peer, tolerance=None):
        """Adds a note on the difference between the NLLs of two sweeps."""
        if set(ours) != set(peer) or any(len(ours[line]) != len(peer[line]) for line in ours):
            raise Failed(f"{what}: the two sides scored different samples or boundaries")
        pairs = [pair for line in ours for pair in zip(ours[line], peer[line], strict=True)]
        gaps = [abs(mine - theirs) / abs(theirs) for mine, theirs in pairs]
        worst = math.inf if any(math.isnan(gap) for gap in gaps) else max(gaps)
        text = f"NLL, {what}: largest relative difference to PyTorch {worst:.1e}, mean {statistics.fmean(gaps):.1e}"
        if tolerance is not None:
            self.wrong |= worst > tolerance
            text += f", allowed {tolerance:.0e}: {'ok' if worst <= tolerance else 'FAILED'}"
        self.note(text)

    def render(self):
        parts = [markdown(("what", "ours", "peer", "ratio (min..max)", "goal", "reached"), self.lines)]
        if self.shapes:
            head = ("rows", "inputs", "outputs", "ours, GFLOP/s", "PyTorch, GFLOP/s", "ratio (min..max)")
            parts.append(markdown(head, self.shapes))
        parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)


def sweep_bf16(jobs, args, table, wanted):
    """Exact sweeps in bf16, memory, sequential searches, and racing: each seed is compared with the PyTorch run of one
    round."""
    tokens = write_tokens(jobs, args)
    rounds = []
    racing = []  # (seconds of PyTorch in the same round, result of ours)
    for number in range(args.rounds):
        rounds.append(sweep_round(jobs, args, f"sweep-bf16 {number + 1}/{args.rounds}", "bf16", tokens))
        if "sequential" in wanted:
            label = f"sequential {number + 1}/{args.rounds}"
            rounds[-1]["sequential"] = jobs.ours(label, "sweep", *sweep_flags(args, "bf16", tokens, "sequential"))
        if "racing" in wanted:
            for seed in SEEDS[number :: args.rounds]:
                result = jobs.ours(f"racing, seed {seed}", "sweep", *sweep_flags(args, "bf16", tokens, "racing", seed))
                racing.append((rounds[-1]["peer"]["seconds"], result))
    if "sweep-bf16" in wanted:
        add_sweep(table, "bf16", rounds)
    if "memory" in wanted:
        ours, peer = ([turn[side]["peak_rss_mb"] for turn in rounds] for side in ("ours", "peer"))
        table.add(
            "memory, sweep in bf16",
            f"{statistics.median(ours):.0f} MB",
            f"PyTorch {statistics.median(peer):.0f} MB",
            [mine / theirs for mine, theirs in zip(ours, peer, strict=True)],
            at_most=0.5,
        )
        first = rounds[0]["peer"]
        table.note(
            f"peak memory of PyTorch: {first['import_peak_rss_mb']:.0f} MB after importing its packages, "
            f"{first['sweep_peak_rss_mb']:.0f} MB in the sweep, {first['peak_rss_mb']:.0f} MB including loading"
        )
    if "sequential" in wanted:
        add_sequential(table, rounds)
    if "racing" in wanted:
        add_racing(table, rounds[0]["ours"], racing)
    table.agreement("bf16", rounds[0]["ours"]["nll"], rounds[0]["peer"]["nll"])
    peer = rounds[0]["peer"]
    table.note(f"PyTorch {peer['torch']}: batches of {peer['batch_size']}, attention {peer['attention']}")


def add_sequential(table, rounds):
    found = [turn["sequential"] for turn in rounds]
    seconds = f"{statistics.median(result['seconds'] for result in found):.1f} s"
    for side, what, goal in (("peer", "PyTorch, all boundaries", 15), ("ours", "our exact sweep", 5)):
        others = [turn[side]["seconds"] for turn in rounds]
        ratios = [other / result["seconds"] for other, result in zip(others, found, strict=True)]
        label = f"{what} {statistics.median(others):.1f} s"
        table.add("sequential search, margin 95 %", seconds, label, ratios, at_least=goal)
    kept = [result["layers_kept"] for result in found]
    exact = rounds[0]["ours"]["layers_kept"]
    right = sum(layers == exact for layers in kept)
    table.lines.append((
        "sequential search: layers needed",
        ", ".join(map(str, kept)),
        f"exact {exact}",
        f"{right} of {len(kept)}",
        "every round",
        yes(right == len(kept)),
    ))


def add_racing(table, exact, racing):
    seconds = [result["seconds"] for _, result in racing]
    table.add(
        f"racing, seeds {SEEDS[0]}..{SEEDS[-1]}",
        f"{statistics.median(seconds):.1f} s",
        f"PyTorch, all boundaries {statistics.median(peer for peer, _ in racing):.1f} s",
        [peer / result["seconds"] for peer, result in racing],
        at_least=8,
        every=True,
    )
    allowed = {exact["one_se"], *exact["one_se_set"]}
    chosen = [result["one_se"] for _, result in racing]
    right = sum(kept in allowed for kept in chosen)
    table.lines.append((
        "racing: boundary chosen",
        ", ".join(map(str, chosen)),
        f"exact {exact['one_se']}, within one standard error {{{', '.join(map(str, sorted(allowed)))}}}",
        f"{right} of {len(chosen)}",
        "every seed",
        yes(right == len(chosen)),
    ))


def sweep_f32(jobs, args, table, _wanted):
    tokens = write_tokens(jobs, args)
    rounds = [
        sweep_round(jobs, args, f"sweep-f32 {number + 1}/{args.rounds}", "f32", tokens)
        for number in range(args.rounds)
    ]
    add_sweep(table, "f32", rounds)
    table.agreement("f32", rounds[0]["ours"]["nll"], rounds[0]["peer"]["nll"], NLL_TOLERANCE)


def four_shot(jobs, args, table, _wanted):
    """Prompts that share a long prefix. PyTorch computes the whole of each sample."""
    tokens = write_tokens(jobs, args, SHOTS)
    rounds = []
    for number in range(args.shot_rounds):
        label = f"four-shot {number + 1}/{args.shot_rounds}"
        ours = jobs.ours(label, "sweep", *sweep_flags(args, "bf16", tokens))
        peer = jobs.peer(label, "torch_sweep.py", *peer_flags(args, "bf16", tokens))
        rounds.append({"ours": ours, "peer": peer})
    add_speedup(table, "four-shot sweep, bf16", rounds, 6)
    table.agreement("four-shot, bf16", rounds[0]["ours"]["nll"], rounds[0]["peer"]["nll"])
    table.note(f"four-shot, rounds: {args.shot_rounds}")


def sweep_round(jobs, args, label, dtype, tokens):
    """The machine's peak, plimsoll's sweep, PyTorch's sweep."""
    return {
        "peak": jobs.ours(f"{label}, peak", "peak", "--threads", args.threads)[f"{dtype}_gflops"],
        "ours": jobs.ours(label, "sweep", *sweep_flags(args, dtype, tokens)),
        "peer": jobs.peer(label, "torch_sweep.py", *peer_flags(args, dtype, tokens)),
    }


def add_sweep(table, dtype, rounds):
    add_speedup(table, f"sweep, {dtype}", rounds, 2.5)
    ours, peak = [turn["ours"]["gflops"] for turn in rounds], [turn["peak"] for turn in rounds]
    table.add(
        f"sweep, {dtype}: share of the machine's peak",
        f"{statistics.median(ours):.0f} GFLOP/s",
        f"peak {statistics.median(peak):.0f} GFLOP/s",
        [mine / most for mine, most in zip(ours, peak, strict=True)],
        at_least=0.85,
    )


def add_speedup(table, what, rounds, goal):
    ours, peer = ([turn[side]["seconds"] for turn in rounds] for side in ("ours", "peer"))
    table.add(
        what,
        f"{statistics.median(ours):.1f} s",
        f"PyTorch {statistics.median(peer):.1f} s",
        [theirs / mine for mine, theirs in zip(ours, peer, strict=True)],
        at_least=goal,
    )


def write_tokens(jobs, args, shots=0):
    """Writes the samples of a sweep as token ids: the same file for both sides."""
    path = args.work / (f"tokens-{args.samples}-shots-{shots}.jsonl" if shots else f"tokens-{args.samples}.jsonl")
    flags = ["--model", args.model, "--data", args.data, "--samples", args.samples, "--out", path]
    jobs.ours("tokens", "tokens", *flags, *(["--shots", shots] if shots else []))
    return path


def sweep_flags(args, dtype, tokens, search="exact", seed=None):
    flags = [*peer_flags(args, dtype, tokens), "--search", search]
    return flags if seed is None else [*flags, "--seed", seed]


def peer_flags(args, dtype, tokens):
    paths = ["--model", args.model, "--adapter", args.adapter, "--tokens", tokens]
    return [*paths, "--dtype", dtype, "--threads", args.threads]


def gemm(jobs, args, table, _wanted):
    """One linear layer in bf16, by number of rows: the geometric mean over the layers of two models."""
    shapes = [(rows, *layer) for rows in GEMM_ROWS for layer in GEMM_LAYERS]
    flags = ["--dtype", "bf16", "--threads", args.threads, "--seconds", GEMM_SECONDS]
    flags += ["--shapes", ";".join(",".join(map(str, shape)) for shape in shapes)]
    rounds = []  # [(ours by shape, PyTorch's by shape)]
    for number in range(args.rounds):
        label = f"gemm {number + 1}/{args.rounds}"
        ours, peer = jobs.ours(label, "gemm", *flags), jobs.peer(label, "torch_gemm.py", *flags)
        rounds.append((rates(ours, shapes, label), rates(peer, shapes, label)))
    for what, (rows, goal) in GEMM_GOALS.items():
        chosen = [shape for shape in shapes if shape[0] in rows]
        ours, peer = (
            statistics.median(statistics.geometric_mean(turn[side][shape] for shape in chosen) for turn in rounds)
            for side in (0, 1)
        )
        ratios = [statistics.geometric_mean(mine[shape] / theirs[shape] for shape in chosen) for mine, theirs in rounds]
        table.add(
            f"linear layer, bf16, {what}", f"{ours:.0f} GFLOP/s", f"PyTorch {peer:.0f} GFLOP/s", ratios, at_least=goal
        )
    for shape in shapes:
        ours, peer = (statistics.median(turn[side][shape] for turn in rounds) for side in (0, 1))
        ratios = [mine[shape] / theirs[shape] for mine, theirs in rounds]
        table.shapes.append((*map(str, shape), f"{ours:.1f}", f"{peer:.1f}", spread(ratios)))
    table.note("linear layer: PyTorch's weights have the layout of nn.Linear, ours are packed before the measurement")


def rates(result, shapes, label):
    found = {(shape["rows"], shape["inputs"], shape["outputs"]): shape["gflops"] for shape in result["shapes"]}
    if set(found) != set(shapes):
        raise Failed(f"{label}: not the requested shapes")
    return found


def generate(jobs, args, table, wanted):
    """Greedy texts after the same prompts: plimsoll and transformers with the adapter, llama.cpp with and without."""
    (name,) = wanted
    batch = int(name.removeprefix("generate-"))
    count, transformers_goal, llama_goal = GENERATE[batch]
    prompts = write_prompts(jobs, args, count)
    common = ["--model", args.model, "--prompts", prompts, "--tokens", GENERATED_TOKENS, "--threads", args.threads]
    adapted = [*common, "--adapter", args.adapter, "--batch", batch, "--dtype", "bf16"]
    llama = [*common, "--sequences", batch, "--cache", args.work]
    rounds = []
    for number in range(args.rounds):
        label = f"{name} {number + 1}/{args.rounds}"
        rounds.append({
            "ours": jobs.ours(label, "generate", *adapted),
            "transformers": jobs.peer(f"{label}, transformers", "torch_generate.py", *adapted),
            "llama.cpp": jobs.peer(f"{label}, llama.cpp", "llama_generate.py", *llama),
            "llama.cpp with the adapter": jobs.peer(
                f"{label}, llama.cpp with the adapter", "llama_generate.py", *llama, "--lora", args.adapter
            ),
        })
    goals = {"transformers": transformers_goal, "llama.cpp": llama_goal, "llama.cpp with the adapter": llama_goal}
    for peer, goal in goals.items():
        speeds = [[turn[side]["tokens_per_second"] for turn in rounds] for side in ("ours", peer)]
        table.add(
            f"generation, bf16, batch {batch}",
            f"{statistics.median(speeds[0]):.1f} tokens/s",
            f"{peer} {statistics.median(speeds[1]):.1f} tokens/s",
            [mine / theirs for mine, theirs in zip(*speeds, strict=True)],
            at_least=goal,
        )
    for side in rounds[0]:
        prefill, total, memory = (
            statistics.median(turn[side][key] for turn in rounds)
            for key in ("prefill_tokens_per_second", "total_tokens_per_second", "peak_rss_mb")
        )
        table.note(
            f"generation, batch {batch}, {side}: prefill {prefill:.0f} tokens/s, new tokens per total time "
            f"{total:.1f}/s, peak memory {memory:.0f} MB"
        )
    table.note(
        f"generation, batch {batch}: {count} prompts of about {PROMPT_TOKENS} tokens, {GENERATED_TOKENS} new ones each"
    )


def write_prompts(jobs, args, count):
    """Writes the prompts whose lengths are nearest to PROMPT_TOKENS, as token ids: the same file for all sides."""
    tokens, path = args.work / "tokens-all.jsonl", args.work / f"prompts-{count}.jsonl"
    total = len(args.data.read_text(encoding="utf-8").splitlines())
    jobs.ours("tokens", "tokens", "--model", args.model, "--data", args.data, "--samples", total, "--out", tokens)
    samples = [json.loads(line) for line in tokens.read_text(encoding="utf-8").splitlines()]
    prompts = [(sample["line"], sample["tokens"][: sample["answer"][0]]) for sample in samples]
    nearest = sorted(prompts, key=lambda prompt: (abs(len(prompt[1]) - PROMPT_TOKENS), prompt[0]))[:count]
    if len(nearest) < count:
        raise Failed(f"{args.data}: {len(nearest)} prompts, expected {count} or more")
    lines = [json.dumps({"line": line, "tokens": ids}) + "\n" for line, ids in nearest]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def spread(ratios):
    middle = f"{statistics.median(ratios):.2f}"
    return f"{middle} ({min(ratios):.2f}..{max(ratios):.2f})" if len(ratios) > 1 else middle


def yes(reached):
    return "yes" if reached else "no"


def markdown(head, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def cpu():
    """The processor's name, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def revision():
    """The measured commit, with `-dirty` if files differ from it; None if there is no git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    main()
