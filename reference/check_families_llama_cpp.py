"""Holds the GGUF twins of make_families.py against llama.cpp: the same logits as transformers gives for the folder.

    python reference/check_families_llama_cpp.py

llama.cpp computes with the twins' BF16 weights and with keys and values in F32; what it does otherwise is listed below.
Needs llama-cpp-python (see bench/requirements.txt), safetensors and numpy.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np
from safetensors.numpy import load_file

FAMILIES = Path(__file__).resolve().parent.parent / "crates/plimsoll/tests/fixtures/families"
# BF16 products of llama.cpp round what is multiplied with the weights to BF16 as well: 2^-9 of each.
TOLERANCE = 3e-2
# Where llama.cpp is known to compute something else, with the sequences that are too short to tell.
OTHERWISE = {
    "phi3": ("it has switched Phi-3's sliding window off", [0]),
    "phi3-longrope": ("it takes the factors for the length of its context, not for that of the sequence", [2]),
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
