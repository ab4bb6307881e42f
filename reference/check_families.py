"""Trims adapters of every kind with the built `plimsoll` and loads them with PEFT.

    python reference/check_families.py

There must be no warning, and the logits must be those of the full adapter without LoRA in the upper layers (within 1e-6
of the largest logit). Uses the fixtures of make_families.py: LoRA, rsLoRA, DoRA, fused modules, LoRA on embeddings and
head, weights trained in full, and adapters converted to mlx-lm's layout and back.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from make_families import adapters_of, forward, load_model
from peft_scores import FIXTURES, ROOT, load_adapter, settle

PLIMSOLL = ROOT / "target/release/plimsoll"
FAMILIES = ["llama2", "qwen2", "qwen3", "gemma2-plain", "gemma3", "phi3", "phi3-longrope"]
KEPT = 2
# An expected warning: LoRA on the embeddings and the head of a tied model.
MEANT = "ensure_weight_tying"


def trim(source, out, *more):
    subprocess.run([PLIMSOLL, "trim", "--adapter", source, "--out", out, *more], check=True, capture_output=True)


def main():
    settle()
    ids = [i * 7 % 64 for i in range(24)]
    failed = 0
    for family in FAMILIES:
        folder = FIXTURES / "families" / family
        for kind in adapters_of(family):
            ends = ["--embedding-lora", "keep"] if kind == "ends" else []
            whole, _ = load_adapter(load_model(folder, torch.float32), folder / "adapters" / kind)
            expected = forward(whole, KEPT, ids)[1]
            with tempfile.TemporaryDirectory() as parent:
                ways = {"peft": Path(parent) / "peft"}
                trim(folder / "adapters" / kind, ways["peft"], "--layers-kept", str(KEPT), *ends)
                if kind in ("lora", "rslora", "dora"):
                    mlx, ways["through mlx"] = Path(parent) / "mlx", Path(parent) / "back"
                    trim(folder / "adapters" / kind, mlx, "--layers-kept", str(KEPT), "--layout", "mlx")
                    trim(mlx, ways["through mlx"], "--gates", "1", "--layout", "peft")
                for way, path in ways.items():
                    loaded, heard = load_adapter(load_model(folder, torch.float32), path)
                    heard = [text for text in heard if MEANT not in text]
                    with torch.no_grad():
                        found = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
                    error = ((found - expected).abs().max() / expected.abs().max()).item()
                    good = not heard and error < 1e-6
                    failed += not good
                    print(f"{family:<14} {kind:<7} {way:<12} {error:.1e} {'' if good else heard}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
