"""Generates greedily with the built `plimsoll` and with llama.cpp on real GGUF files: the same tokens, or the reason.

    python reference/check_greedy_llama_cpp.py MODEL.gguf ...

Five prompts of each model as they stand, 32 tokens. llama.cpp rounds what it multiplies with quantised weights to eight
bits, and plimsoll does not, so that logits differ by some noise; texts may part where two tokens are nearer to each other
than that. At the first difference the script takes llama.cpp's logits of both tokens, and as noise the largest change of a
logit over the prompt between llama.cpp and plimsoll's own f32 logits. Needs llama-cpp-python (see bench/requirements.txt).
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama

ROOT = Path(__file__).resolve().parent.parent
PLIMSOLL = ROOT / "target/release/plimsoll"
TOKENS = 32
PROMPTS = [
    "The tide comes in twice a day because",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a small harbour town,",
    "Question: What is the capital of France?\nAnswer:",
    "The three most important rules of writing are",
]


def ours(path, ids):
    out = subprocess.run(
        [PLIMSOLL, "debug-logits", "--model", path, "--tokens", ",".join(map(str, ids)), "--greedy", str(TOKENS)],
        check=True, capture_output=True, text=True,
    ).stdout
    return json.loads(out)


def main():
    failed = False
    for path in sys.argv[1:]:
        model = Llama(path, n_ctx=256, logits_all=True, verbose=False, n_threads=2)
        equal = 0
        for prompt in PROMPTS:
            ids = model.tokenize(prompt.encode(), add_bos=True, special=True)
            found = ours(path, ids)
            model.reset()
            model.eval(ids)
            theirs, logits = [], np.array(model.scores[: len(ids)])
            noise = np.abs(logits[-1] - np.array(found["logits"])).max()
            for _ in range(TOKENS):
                row = np.array(model.scores[model.n_tokens - 1])
                theirs.append(int(row.argmax()))
                rows = row if len(theirs) == 1 else np.vstack([rows, row])
                model.eval([theirs[-1]])
            rows = np.atleast_2d(rows)
            parted = next((at for at in range(TOKENS) if theirs[at] != found["tokens"][at]), None)
            if parted is None:
                equal += 1
                print(f"  equal: {prompt[:40]!r}")
                continue
            gap = rows[parted][theirs[parted]] - rows[parted][found["tokens"][parted]]
            explained = gap < noise
            failed |= not explained
            print(f"  parts at token {parted} of {TOKENS}: {prompt[:40]!r}: logits are {gap:.3f} apart, noise {noise:.3f}"
                  + ("" if explained else "  NOT EXPLAINED"))
        print(f"{Path(path).name}: {equal} of {len(PROMPTS)} equal")
    sys.exit(failed)


if __name__ == "__main__":
    main()
