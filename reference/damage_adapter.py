"""Damages an adapter at known places, to test whether a search finds them.

    python damage_adapter.py examples/smollm2-gsm8k/adapter damaged --noise 20-29
    python damage_adapter.py examples/smollm2-gsm8k/adapter damaged --zero 7,12.q_proj --scale 25-29:4

LAYERS are numbers and ranges, separated by commas: 20-29, or 7,12. A dot and a name select one module: 7.q_proj,
20-29.down_proj. Only lora_B changes. It is computed in f64 and stored in its own dtype (F32 or F16). The config is
copied. The script prints what it changed. A place without LoRA is an error, and so is a place in two options. Needs
numpy and safetensors.
"""

import argparse
import collections
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

WEIGHTS = "adapter_model.safetensors"
LORA_B = re.compile(r".*\.(\d+)\.(?:self_attn|mlp)\.(\w+)\.lora_B\.weight")
PLACE = re.compile(r"(\d+)(?:-(\d+))?(?:\.(\w+))?")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path, help="a PEFT LoRA folder")
    parser.add_argument("out", type=Path, help="the folder to write; must not exist")
    parser.add_argument("--zero", metavar="LAYERS", help="set lora_B to 0")
    parser.add_argument("--noise", metavar="LAYERS[:FACTOR]",
                        help="replace lora_B by Gaussian noise of FACTOR (default 1) times its Frobenius norm")
    parser.add_argument("--scale", metavar="LAYERS:FACTOR", help="multiply lora_B by FACTOR")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, one stream for each module")
    args = parser.parse_args()
    steps = [(how, *places(parser, how, text)) for how in ("zero", "noise", "scale") if (text := getattr(args, how))]
    if not steps:
        parser.error("nothing to do: pass --zero, --noise or --scale")
    if args.out.exists():
        sys.exit(f"{args.out} already exists")

    with safe_open(args.adapter / WEIGHTS, "numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    done = collections.defaultdict(list)
    unmet = {(how, place) for how, wanted, _ in steps for place in wanted}
    for name in sorted(tensors):
        match = LORA_B.fullmatch(name)
        if not match:
            continue
        here = {(int(match[1]), None), (int(match[1]), match[2])}
        damage = [(how, factor) for how, wanted, factor in steps if here & wanted]
        unmet -= {(how, place) for how, _ in damage for place in here}
        if len(damage) > 1:
            sys.exit(f"{name}: selected by both --{damage[0][0]} and --{damage[1][0]}")
        if damage:
            how, factor = damage[0]
            tensors[name] = damaged(name, tensors[name], how, factor, args.seed)
            done[how, factor].append(name)
    if unmet:
        told = [f"--{how} {layer}.{module}" if module else f"--{how} {layer}" for how, (layer, module) in unmet]
        sys.exit(f"{args.adapter}: no LoRA at these places: {', '.join(sorted(told))}")

    for (how, factor), names in done.items():
        print(f"{how} {factor:g}: {len(names)} tensors, from {names[0]} to {names[-1]}")
    args.out.mkdir(parents=True)
    shutil.copyfile(args.adapter / "adapter_config.json", args.out / "adapter_config.json")
    save_file(tensors, args.out / WEIGHTS, metadata)


def places(parser, how, text):
    """The places that an option selects, as (layer, module or None), and its factor."""
    form = {"zero": "LAYERS", "noise": "LAYERS or LAYERS:FACTOR", "scale": "LAYERS:FACTOR"}[how]
    layers, *factors = text.split(":")
    try:
        [factor] = map(float, factors or {"zero": [0], "noise": [1], "scale": []}[how])
    except ValueError:
        parser.error(f"--{how} {text}: expected {form}")
    if how == "zero" and factors:
        parser.error(f"--{how} {text}: expected {form}")
    wanted = set()
    for term in layers.split(","):
        match = PLACE.fullmatch(term)
        if not match or int(match[2] or match[1]) < int(match[1]):
            parser.error(f"--{how} {text}: `{term}`: expected a layer or a range, such as 7, 20-29 or 7.q_proj")
        wanted |= {(layer, match[3]) for layer in range(int(match[1]), int(match[2] or match[1]) + 1)}
    return wanted, factor


def damaged(name, b, how, factor, seed):
    """One lora_B, damaged."""
    if b.dtype not in (np.float32, np.float16):
        sys.exit(f"{name} is {b.dtype}: only F32 and F16 are supported")
    if how != "noise":
        return (factor * b.astype(np.float64)).astype(b.dtype)
    noise = np.random.default_rng([seed, *name.encode()]).standard_normal(b.shape)
    return (noise * (factor * np.linalg.norm(b.astype(np.float64)) / np.linalg.norm(noise))).astype(b.dtype)


if __name__ == "__main__":
    main()
