"""Checks that PEFT loads what `plimsoll trim` writes without a warning, and computes the same logits with it.

    python check_trimmed.py [--plimsoll target/release/plimsoll]

For boundaries, and for strengths of layers and modules (`--gates`): (1) the trimmed adapter loads with no warning and
no log record of level WARNING or above, and adapts the kept modules and no others; (2) its logits in PyTorch equal
those of the full adapter with the scaling of every PEFT layer multiplied by its strength; (3) so do plimsoll's own
logits, which its hidden subcommand `debug-logits` prints; (4) if nothing is kept, no adapter is written, and the output
names the base model. SmolLM2 is included if its files exist.
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
# If a strength is not a power of two, folding it into B rounds every value of B, by up to 2^-24 of the value in f32.
STRENGTH_TOLERANCE = 1e-4
TOOL_TOLERANCE = 1e-3
ROW = "{:<22} {:<12} {:<30} {:>8} {:>9} {:>9} {:>9}  {}"

# `--gates` as terms (layer, module or None for all, strength). The last term for a place counts. A number instead of
# terms is a boundary. If B is stored in 16 bits (`rslora`, `patterns`), all strengths are powers of two, which are
# folded without rounding, so that the tolerance of 1e-5 applies to 16 bits too.
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
        sys.exit(f"{args.plimsoll} does not exist: build it, or pass its path with --plimsoll")

    print(ROW.format("model", "adapter", "gates", "tensors", "warnings", "torch", "tool", ""))
    failures = 0
    for model, adapter, cuts, ids in cases(args):
        for cut in cuts:
            failures += check(args.plimsoll, model, adapter, cut, ids)
    print("FAILED: " + str(failures) if failures else "ok")
    sys.exit(failures > 0)


def cases(args):
    """Yields model, adapter, cuts and token ids of every check."""
    golden = FIXTURES / "golden"
    wanted = {
        # k = L keeps everything. `layers` has LoRA in layers 0 and 2 only, `one_layer` in layer 1 only.
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
        print(f"(skipped: {args.model} or {args.adapter} does not exist)")


def check(plimsoll, model, adapter, cut, ids):
    """Checks one cut and prints its row of the table; returns 1 if something is wrong."""
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
    """Multiplies the scaling of every LoRA layer by its strength; returns the places whose strength is not 0."""
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
    """Checks tensors, warnings and logits of the trimmed adapter."""
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        keys = set(file.keys())
    facts["tensors"] = len(keys)
    if len(keys) != 2 * len(kept):
        facts["problems"].append(f"expected {2 * len(kept)} tensors")
    trimmed, heard = load_adapter(load_model(model), out)
    facts["warnings"] = len(heard)
    facts["problems"] += heard
    if set(trimmed.updates) != kept:
        facts["problems"].append("PEFT adapts other modules than those kept")
    _, logits = whole.forward(ids)
    note(facts, "torch", logits, trimmed.forward(ids)[1], tolerance)


def note(facts, column, expected, found, tolerance):
    """Puts the largest difference between two sets of logits into the row."""
    if expected.shape != found.shape:
        facts["problems"].append(f"{column}: logits of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
        return
    difference = (expected - found).abs().max().item()
    facts[column] = f"{difference:.1e}"
    # Not `>`, so that NaN fails too.
    if not difference <= tolerance:
        facts["problems"].append(f"{column}: logits differ by more than {tolerance:.0e}")


def problems_of_nothing_kept(trim, out):
    """If nothing is kept, the output must name the base model, and nothing must be written."""
    problems = []
    if out.exists():
        problems.append("an adapter without LoRA was written")
    if "base model" not in (trim.stdout + trim.stderr).lower():
        problems.append(f"the output does not name the base model: {(trim.stdout + trim.stderr).strip()!r}")
    return problems


def tool_logits(plimsoll, model, adapter, gates, ids, problems):
    """plimsoll's logits (tokens, vocab) with these `--gates`."""
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
    """Loads a model folder or a GGUF file, in f32."""
    if path.is_file():
        return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


if __name__ == "__main__":
    main()
