"""Compares token ids of real GGUF files with llama.cpp's.

    python reference/check_tokenizers.py MODEL.gguf ...

Uses 2,400 lines in several scripts, with code and emoji. Needs llama-cpp-python (see bench/requirements.txt) and the
built `target/release/examples/tokens` (`cargo build --release --example tokens`). Known differences are counted by
class: text that is not in composed form, NFC (Qwen2's own tokenizer composes it, llama.cpp does not); `</s>` if it is
an ordinary token of the vocabulary (llama.cpp treats it as the end of a text in every file); and control characters
that a byte-level vocabulary does not have (the tokenizers library joins the characters on both sides). Any other
difference is a failure.
"""

import json
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from llama_cpp import Llama

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "target/release/examples/tokens"
LINES = ROOT / "crates/plimsoll/tests/fixtures/tokenizer_lines.json"


def main():
    lines = json.loads(LINES.read_text(encoding="utf-8"))["lines"]
    failed = False
    for path in sys.argv[1:]:
        with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
            json.dump(lines, file)
            file.flush()
            out = subprocess.run([BINARY, path, file.name], check=True, capture_output=True, text=True).stdout
        ours = [json.loads(line) for line in out.splitlines()]
        theirs = Llama(path, vocab_only=True, verbose=False)
        classes = dict.fromkeys(["equal", "not composed", "</s> is an ordinary token", "control characters", "unexplained"], 0)
        for line, found in zip(lines, ours, strict=True):
            expected = theirs.tokenize(line.encode(), add_bos=False, special=True)
            if found == expected:
                classes["equal"] += 1
            elif unicodedata.normalize("NFC", line) != line:
                classes["not composed"] += 1
            elif "</s>" in line:
                classes["</s> is an ordinary token"] += 1
            elif any(unicodedata.category(character) == "Cc" for character in line):
                classes["control characters"] += 1
            else:
                classes["unexplained"] += 1
                print(f"  {line[:60]!a}: {found[:12]}, llama.cpp {expected[:12]}")
        print(f"{Path(path).name}: {classes} of {len(lines)}")
        failed |= classes["unexplained"] > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
