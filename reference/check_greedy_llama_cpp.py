"""Generates greedily with the built `plimsoll` and with llama.cpp on real GGUF files, and compares the tokens.

    python reference/check_greedy_llama_cpp.py MODEL.gguf ...

Each model continues five prompts (without a chat template) by 32 tokens. llama.cpp rounds activations to 8 bits before
it multiplies them with quantised weights, and plimsoll does not. So texts can differ if two tokens have close logits.
llama.cpp therefore runs twice: on the file itself, and on a copy with the weights dequantised to F32, and with keys and
values in F32. With the copy, its arithmetic is that of plimsoll: logits after the prompt must agree, and the texts must
be equal. If the text with the file itself differs, the script prints the first different token, the difference of the
two tokens' logits, and how much llama.cpp's rounding changed this difference and the logits at that position (by its
own two runs). Needs llama-cpp-python (see bench/requirements.txt), and space for the largest copy in the temporary
folder.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import GGML_TYPE_F32, Llama

ROOT = Path(__file__).resolve().parent.parent
PLIMSOLL = ROOT / "target/release/plimsoll"
TOKENS = 32
# Relative to the largest logit. Llama and Qwen2 are within 5e-6. Gemma 3 differs by 4e-4, most likely because llama.cpp
# reads GELU from an F16 table, whose step is 5e-4 of a value.
LOGITS_WITHIN = 1e-3
PROMPTS = [
    "The tide comes in twice a day because",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a small harbour town,",
    "Question: What is the capital of France?\nAnswer:",
    "The three most important rules of writing are",
]


def write_f32(source, path):
    """Writes the same model with F32 weights."""
    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(path, architecture)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind, *of = field.types
        writer.add_key_value(key, field.contents(), kind, of[0] if of else None)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), 4 * tensor.n_elements)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:  # One tensor in memory at a time.
        writer.write_tensor_data(gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.close()


def load(path, **options):
    return Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=2, **options)


def logits_of(model, ids):
    """The logits after some tokens."""
    model.reset()
    model.eval(ids)
    return np.array(model.scores[model.n_tokens - 1])


def continued(model, ids):
    """The greedy continuation of some tokens, and the logits at each step."""
    tokens, rows = [], [logits_of(model, ids)]
    for _ in range(TOKENS):
        tokens.append(int(rows[-1].argmax()))
        model.eval([tokens[-1]])
        rows.append(np.array(model.scores[model.n_tokens - 1]))
    return tokens, rows


def first_difference(a, b):
    return next((at for at, (a, b) in enumerate(zip(a, b)) if a != b), None)


def ours(path, ids):
    out = subprocess.run(
        [PLIMSOLL, "debug-logits", "--model", path, "--tokens", ",".join(map(str, ids)), "--greedy", str(TOKENS)],
        check=True, capture_output=True, text=True,
    ).stdout
    return json.loads(out)


def check(path, folder):
    copy = folder / "copy.gguf"
    write_f32(path, copy)
    rounded, exact = load(path), load(copy, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32)
    failed, equal, errors = False, 0, []
    for prompt in PROMPTS:
        ids = rounded.tokenize(prompt.encode(), add_bos=True, special=True)
        found = ours(path, ids)
        theirs, rows = continued(exact, ids)
        logits = np.array(found["logits"])
        errors.append(np.abs(logits - rows[0]).max() / np.abs(rows[0]).max())
        failed |= not errors[-1] < LOGITS_WITHIN
        at = first_difference(theirs, found["tokens"])
        if at is not None:
            failed = True
            gap = rows[at][theirs[at]] - rows[at][found["tokens"][at]]
            print(f"  NOT EQUAL with F32 weights at token {at}: {prompt[:40]!r}: logits differ by {gap:.5f}")
            continue
        text, rows = continued(rounded, ids)
        at = first_difference(text, theirs)
        if at is None:
            equal += 1
            print(f"  equal: {prompt[:40]!r}")
            continue
        row, right = rows[at], logits_of(exact, ids + theirs[:at])
        gap = row[text[at]] - row[theirs[at]]
        moved = gap - (right[text[at]] - right[theirs[at]])
        print(f"  differs at token {at} of {TOKENS}: {prompt[:40]!r}: logits differ by {gap:.3f}; rounding changed it "
              f"by {moved:.3f}, and any logit by at most {np.abs(row - right).max():.3f}")
    print(f"{Path(path).name}: {equal} of {len(PROMPTS)} texts equal; with F32 weights: "
          f"{'FAILED' if failed else 'all equal'}, logits within {max(errors):.1e}")
    return failed


def main():
    failed = False
    for path in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            failed |= check(path, Path(folder))
    sys.exit(failed)


if __name__ == "__main__":
    main()
