"""PEFT loads what `plimsoll trim` writes, without a word of complaint, and computes the same with it.

    python check_trimmed.py [--plimsoll target/release/plimsoll]

For boundaries, and for gates of layers and modules: (1) the trimmed adapter loads with no warning and no log record of
WARNING or above, and on the modules that are kept, no others; (2) its logits in PyTorch are those of the whole adapter
with the scaling of every PEFT layer multiplied by its gate; (3) so are the tool's own, which its hidden verb
`debug-logits` prints. (4) Keeping nothing writes nothing and points at the base model. SmolLM2 takes part where its
weights are.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from peft_scores import FIXTURES, PROJECTIONS, ROOT, load_adapter, settle

TORCH_TOLERANCE = 1e-5
# Where a gate is no power of two, folding it rounds every value of B, by a share of 2^-24 in single precision.
STRENGTH_TOLERANCE = 1e-4
TOOL_TOLERANCE = 1e-3
ROW = "{:<22} {:<12} {:<30} {:>8} {:>9} {:>9} {:>9}  {}"

# Gates are terms, as (layer, module or None for all, gate), the last one of a place counting; a number instead is a
# boundary. Where B is stored in 16 bits (`rslora`, `patterns`) all gates are powers of two, which are folded without
# rounding: then a check of 1e-5 is one of 16 bits too.
MODULES = [[(1, "q_proj", 0)], [(0, None, 0), (1, "q_proj", 0), (1, "down_proj", 0)]]
WHOLE_MODULES = [[(layer, "q_proj", 0) for layer in range(4)],
                 [(2, None, 0)] + [(layer, "v_proj", 0) for layer in range(4)]]
STRENGTHS = [[(0, None, 0.3), (2, None, -1.7)], [(1, "q_proj", 0.3), (2, "v_proj", 0), (3, None, 0)]]
POWERS = [[(0, None, 0.5), (1, None, -2)], [(0, "q_proj", 0), (1, "q_proj", 0.25)]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plimsoll", type=Path, default=ROOT / "target/release/plimsoll")
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=ROOT / "examples/smollm2-gsm8k/adapter")
    args = parser.parse_args()
    settle()
    if not args.plimsoll.exists():
        sys.exit(f"{args.plimsoll} is not there: build it, or name it with --plimsoll")

    print(ROW.format("model", "adapter", "gates", "tensors", "warnings", "torch", "tool", ""))
    failures = 0
    for model, adapter, cuts, ids in cases(args):
        for cut in cuts:
            failures += check(args.plimsoll, model, adapter, cut, ids)
    print("FAILED: " + str(failures) if failures else "ok")
    sys.exit(failures > 0)


def cases(args):
    """Model, adapter, cuts and tokens of every check."""
    golden = FIXTURES / "golden"
    wanted = {
        # k = L keeps everything; `layers` has LoRA in the layers 0 and 2 only, `one_layer` in layer 1 only.
        "tiny-gqa-tied": {
            "plain": [*range(5), *MODULES, *WHOLE_MODULES, *STRENGTHS],
            "rslora": [1, 3, *MODULES, *POWERS],
            "patterns": [*range(5), *MODULES, *POWERS],
            "layers": [*range(5), [(0, "q_proj", 0)], [(2, None, 0.7)]],
            "all_linear": [2, 4, *MODULES, *WHOLE_MODULES, *STRENGTHS],
        },
        "tiny-llama3-untied": {"plain": [0, 1, 2, 3, *MODULES], "attention": [2, [(1, "q_proj", 0)]]},
        "tiny-linear": {"plain": [1, *MODULES], "one_layer": [0, 1, 2, [(1, "q_proj", 0), (1, "v_proj", -0.4)]]},
    }
    for model, adapters in wanted.items():
        for adapter, cuts in adapters.items():
            folder = golden / model / "adapters" / adapter
            ids = json.loads((golden / model / f"{adapter}.golden.json").read_text())["sequences"][2]["ids"]
            yield golden / model, folder, cuts, ids
    if args.model.exists() and args.adapter.exists():
        stored = json.loads((FIXTURES / "smollm2_nll.json").read_text())["samples"][0]["ids"]
        yield args.model, args.adapter, [0, 1, 15, 29, 30, *MODULES, *STRENGTHS], stored[:16]
    else:
        print(f"(left out: {args.model} or {args.adapter} is not there)")


def check(plimsoll, model, adapter, cut, ids):
    """One row of the table; returns 1 where something is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "trimmed"
        whole, _ = load_adapter(load_model(model), adapter)
        is_boundary = isinstance(cut, int)
        terms = [(layer, None, 0) for layer in range(cut, whole.layers)] if is_boundary else cut
        text = ",".join(f"{layer}.{module}={gate}" if module else f"{layer}={gate}" for layer, module, gate in terms)
        what = ("--layers-kept", cut) if is_boundary else ("--gates", text)
        trim = run(plimsoll, "trim", "--adapter", adapter, *what, "--out", out)
        kept = apply(whole, terms)
        shown = f"k = {cut}" if is_boundary else text if len(text) <= 30 else text[:29] + "…"
        facts = {"model": model.name[:22], "adapter": adapter.name, "gates": shown}
        facts |= {"tensors": "", "warnings": "", "torch": "", "tool": ""}
        if not kept:
            facts["problems"] = problems_of_nothing_kept(trim, out)
        elif trim.returncode != 0:
            facts["problems"] = [f"trim: exit {trim.returncode}: {trim.stderr.strip()}"]
        else:
            facts["problems"] = []
            is_exact = all(gate == 0 or abs(math.frexp(gate)[0]) == 0.5 for _, _, gate in terms)
            compare(facts, whole, model, out, kept, ids, TORCH_TOLERANCE if is_exact else STRENGTH_TOLERANCE)
        tool = tool_logits(plimsoll, model, adapter, text or "1", ids, facts["problems"])
        if tool is not None:
            _, logits = whole.forward(ids)
            note(facts, "tool", logits, tool, TOOL_TOLERANCE)
    problems = facts.pop("problems")
    print(ROW.format(*facts.values(), "; ".join(problems) if problems else "ok"), flush=True)
    return int(bool(problems))


def apply(whole, terms):
    """Multiplies the scaling of every LoRA layer by its gate; returns the places of those whose gate is not 0."""
    kept = set()
    for name, module in whole.model.named_modules():
        if isinstance(module, LoraLayer):
            *_, layer, _, projection = name.split(".")
            gates = [gate for at, of, gate in terms if at == int(layer) and of in (None, projection)]
            gate = gates[-1] if gates else 1
            module.scaling["default"] *= gate
            if gate != 0:
                kept.add((int(layer), PROJECTIONS.index(projection)))
    return kept


def compare(facts, whole, model, out, kept, ids, tolerance):
    """Tensors, complaints and logits of the trimmed adapter."""
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        keys = set(file.keys())
    facts["tensors"] = len(keys)
    if len(keys) != 2 * len(kept):
        facts["problems"].append(f"{2 * len(kept)} tensors expected")
    trimmed, heard = load_adapter(load_model(model), out)
    facts["warnings"] = len(heard)
    facts["problems"] += heard
    if set(trimmed.updates) != kept:
        facts["problems"].append("PEFT wraps other modules than those kept")
    _, logits = whole.forward(ids)
    note(facts, "torch", logits, trimmed.forward(ids)[1], tolerance)


def note(facts, column, expected, found, tolerance):
    """Puts the largest difference of two sets of logits into the row."""
    if expected.shape != found.shape:
        facts["problems"].append(f"{column}: logits of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
        return
    difference = (expected - found).abs().max().item()
    facts[column] = f"{difference:.1e}"
    # Written so that a NaN fails too.
    if not difference <= tolerance:
        facts["problems"].append(f"{column}: logits differ by more than {tolerance:.0e}")


def problems_of_nothing_kept(trim, out):
    """Keeping nothing is using the base model: said in words, and nothing written."""
    problems = []
    if out.exists():
        problems.append("an adapter without LoRA was written")
    if "base model" not in (trim.stdout + trim.stderr).lower():
        problems.append(f"the base model is not named: {(trim.stdout + trim.stderr).strip()!r}")
    return problems


def tool_logits(plimsoll, model, adapter, gates, ids, problems):
    """The tool's logits (tokens, vocab) under these gates."""
    tokens = ",".join(map(str, ids))
    variant = ("--model", model, "--adapter", adapter, "--gates", gates)
    debug = run(plimsoll, "debug-logits", *variant, "--tokens", tokens)
    if debug.returncode != 0:
        problems.append(f"debug-logits: exit {debug.returncode}: {debug.stderr.strip()}")
        return None
    return torch.tensor(json.loads(debug.stdout)["logits"])


def run(plimsoll, *arguments):
    return subprocess.run([plimsoll.resolve(), *map(str, arguments)], capture_output=True, text=True)


def load_model(path):
    """A model folder or a GGUF file, in single precision."""
    if path.is_file():
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


if __name__ == "__main__":
    main()
