"""PEFT loads what `plimsoll trim` writes, without a word of complaint, and computes the same with it.

    python check_trimmed.py [--plimsoll target/release/plimsoll]

For several boundaries k: (1) the trimmed adapter loads with no warning and no log record of WARNING or above;
(2) its logits in PyTorch are those of the whole adapter with lora_B zeroed in the layers k and above; (3) so are the
tool's own, which its hidden verb `debug-logits` prints. (4) Keeping nothing writes nothing and points at the base
model. SmolLM2 takes part where its weights are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from peft_scores import FIXTURES, ROOT, load_adapter, settle

TORCH_TOLERANCE = 1e-5
TOOL_TOLERANCE = 1e-3
ROW = "{:<22} {:<12} {:>3} {:>8} {:>9} {:>12} {:>12}  {}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plimsoll", type=Path, default=ROOT / "target/release/plimsoll")
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=ROOT / "examples/smollm2-gsm8k/adapter")
    args = parser.parse_args()
    settle()
    if not args.plimsoll.exists():
        sys.exit(f"{args.plimsoll} is not there: build it, or name it with --plimsoll")

    print(ROW.format("model", "adapter", "k", "tensors", "warnings", "torch", "tool", ""))
    failures = 0
    for model, adapter, boundaries, ids in cases(args):
        for kept in boundaries:
            failures += check(args.plimsoll, model, adapter, kept, ids)
    print("FAILED: " + str(failures) if failures else "ok")
    sys.exit(failures > 0)


def cases(args):
    """Model, adapter, boundaries and tokens of every check."""
    golden = FIXTURES / "golden"
    wanted = {
        # k = L keeps everything; `layers` has LoRA in the layers 0 and 2 only, `one_layer` in layer 1 only.
        "tiny-gqa-tied": {
            "plain": range(5), "rslora": [1, 3], "patterns": range(5), "layers": range(5), "all_linear": [2, 4],
        },
        "tiny-llama3-untied": {"plain": [0, 1, 2, 3], "attention": [2]},
        "tiny-linear": {"plain": [1], "one_layer": [0, 1, 2]},
    }
    for model, adapters in wanted.items():
        for adapter, boundaries in adapters.items():
            folder = golden / model / "adapters" / adapter
            ids = json.loads((golden / model / f"{adapter}.golden.json").read_text())["sequences"][2]["ids"]
            yield golden / model, folder, boundaries, ids
    if args.model.exists() and args.adapter.exists():
        stored = json.loads((FIXTURES / "smollm2_nll.json").read_text())["samples"][0]["ids"]
        yield args.model, args.adapter, [0, 1, 15, 29, 30], stored[:16]
    else:
        print(f"(left out: {args.model} or {args.adapter} is not there)")


def check(plimsoll, model, adapter, kept, ids):
    """One row of the table; returns 1 where something is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "trimmed"
        trim = run(plimsoll, "trim", "--adapter", adapter, "--layers-kept", kept, "--out", out)
        whole, _ = load_adapter(load_model(model), adapter)
        whole.keep_layers(kept)
        facts = {"model": model.name[:22], "adapter": adapter.name, "kept": kept}
        facts |= {"tensors": "", "warnings": "", "torch": "", "tool": ""}
        if not any(layer < kept for layer, _ in whole.updates):
            facts["problems"] = problems_of_nothing_kept(trim, out)
        elif trim.returncode != 0:
            facts["problems"] = [f"trim: exit {trim.returncode}: {trim.stderr.strip()}"]
        else:
            facts["problems"] = []
            compare(facts, whole, model, out, kept, ids)
        if kept > 0:
            tool = tool_logits(plimsoll, model, adapter, kept, ids, facts["problems"])
            if tool is not None:
                _, logits = whole.forward(ids)
                note(facts, "tool", logits, tool, TOOL_TOLERANCE)
    problems = facts.pop("problems")
    print(ROW.format(*facts.values(), "; ".join(problems) if problems else "ok"), flush=True)
    return int(bool(problems))


def compare(facts, whole, model, out, kept, ids):
    """Tensors, complaints and logits of the trimmed adapter."""
    with safe_open(out / "adapter_model.safetensors", "pt") as file:
        keys = set(file.keys())
    facts["tensors"] = len(keys)
    expected = 2 * sum(layer < kept for layer, _ in whole.updates)
    if len(keys) != expected:
        facts["problems"].append(f"{expected} tensors expected")
    trimmed, heard = load_adapter(load_model(model), out)
    facts["warnings"] = len(heard)
    facts["problems"] += heard
    if set(trimmed.updates) != {place for place in whole.updates if place[0] < kept}:
        facts["problems"].append("PEFT wraps other modules than those kept")
    _, logits = whole.forward(ids)
    note(facts, "torch", logits, trimmed.forward(ids)[1], TORCH_TOLERANCE)


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


def tool_logits(plimsoll, model, adapter, kept, ids, problems):
    """The tool's logits (tokens, vocab) with LoRA kept in the layers below `kept`."""
    tokens = ",".join(map(str, ids))
    variant = ("--model", model, "--adapter", adapter, "--layers-kept", kept)
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
