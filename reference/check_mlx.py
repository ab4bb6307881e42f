"""Writes adapters in mlx-lm's layout with the built `plimsoll`, loads them with mlx-lm, and compares logits in f32.

    python reference/check_mlx.py

Uses two fixtures of make_families.py, trimmed to two layers: a module without tensors must be the base module. Needs
mlx-lm and mlx (on Linux `pip install "mlx[cpu]" mlx-lm`), which no other script needs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_adapters, load_model

ROOT = Path(__file__).resolve().parent.parent
PLIMSOLL = ROOT / "target/release/plimsoll"
FAMILIES = ROOT / "crates/plimsoll/tests/fixtures/families"
IDS = [i * 7 % 64 for i in range(24)]


def run(*arguments):
    return subprocess.run([PLIMSOLL, *arguments], check=True, capture_output=True, text=True).stdout


def main():
    failed = 0
    for family in ["llama2", "qwen3"]:
        for kind in ["lora", "rslora", "dora"]:
            adapter = FAMILIES / family / "adapters" / kind
            with tempfile.TemporaryDirectory() as parent:
                base, out = Path(parent) / "base", Path(parent) / "adapter"
                shutil.copytree(FAMILIES / family, base)
                # mlx-lm reads the keys of transformers 4.
                config = json.loads((base / "config.json").read_text())
                config["rope_theta"] = config["rope_parameters"]["rope_theta"]
                (base / "config.json").write_text(json.dumps(config))
                run("trim", "--adapter", adapter, "--layers-kept", "2", "--layout", "mlx", "--out", out)
                model = load_adapters(load_model(base)[0], str(out))
                model.set_dtype(mx.float32)
                model.eval()
                found = np.array(model(mx.array([IDS]))[0])
            tokens = ",".join(map(str, IDS))
            ours = run("debug-logits", "--model", FAMILIES / family, "--adapter", adapter, "--gates", "2-3=0", "--tokens", tokens)
            expected = np.array(json.loads(ours)["logits"])
            error = np.abs(found - expected).max() / np.abs(expected).max()
            failed += error > 1e-5
            print(f"{family:<8} {kind:<7} {error:.1e}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
