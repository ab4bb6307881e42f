"""Compares the GGUF copies of make_families.py with llama.cpp: the same logits as transformers computes for the folder.

    python reference/check_families_llama_cpp.py

llama.cpp computes with the BF16 weights of the copies, and with keys and values in F32. Its known differences are in
OTHERWISE below. Needs llama-cpp-python (see bench/requirements.txt), safetensors and numpy.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

FAMILIES = Path(__file__).resolve().parent.parent / "crates/plimsoll/tests/fixtures/families"
# In products with BF16 weights, llama.cpp rounds the activations to BF16 too: by 2^-9 of each.
TOLERANCE = 3e-2
# Families that llama.cpp computes differently: the reason, and the sequences that are not affected.
OTHERWISE = {
    "phi3": ("llama.cpp does not apply Phi-3's sliding window", [0]),
    "phi3-longrope": ("llama.cpp selects the factors by the length of its context, not of the sequence", [2]),
}


def main():
    failed = 0
    for path in sorted(FAMILIES.glob("*/model.gguf")):
        name = path.parent.name
        golden = json.loads((path.parent / "golden.json").read_text())
        expected = load_file(path.parent / "golden.safetensors")
        model = llama_cpp.Llama(
            str(path), n_ctx=64, n_batch=64, logits_all=True, verbose=False, n_threads=2,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
        )
        why, numbers = OTHERWISE.get(name, ("", range(len(golden["sequences"]))))
        worst = 0.0
        for number in numbers:
            sequence = golden["sequences"][number]
            model.reset()
            model.eval(sequence["ids"])
            found = np.array(model.scores[: len(sequence["ids"])])[sequence["positions"]]
            right = expected[f"base.logits.{number}"]
            worst = max(worst, float(np.abs(found - right).max() / np.abs(right).max()))
        good = worst < TOLERANCE
        failed += not good
        print(f"{name:<18} {worst:.1e} {'' if good else 'DIFFERS'} {why}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
