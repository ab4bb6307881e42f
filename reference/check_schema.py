"""Validates the published JSON Schemas, and what the built `plimsoll` writes, with the `jsonschema` package.

    python check_schema.py [--plimsoll target/release/plimsoll] [FOLDER ...]

Checks that the schemas in docs/ are valid schemas (draft 2020-12) and equal those that `plimsoll report --schema`
prints. Then validates the fixture result.json; result.json, tokens.jsonl and scores.jsonl of every FOLDER that
`plimsoll search` wrote; and a comparison by `plimsoll report`. Some wrong results must not be valid. The Rust tests
check the same with the few JSON Schema keywords that our schemas use, because a complete validator would add thirty
crates.

Exit code 1 if a check fails.
"""

import argparse
import copy
import json
import subprocess
import sys
from pathlib import Path

from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT / "crates/plimsoll/tests/fixtures/result.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plimsoll", type=Path, default=ROOT / "target/release/plimsoll", help="the binary to check")
    parser.add_argument("folders", type=Path, nargs="*", help="folders that a search wrote")
    arguments = parser.parse_args()
    faults = 0

    validators = {}
    for name in ["result", "tokens", "scores", "comparison"]:
        text = (ROOT / f"docs/{name}.schema.json").read_text()
        command = [arguments.plimsoll, "report", "--schema", name]
        if subprocess.run(command, capture_output=True, check=True, text=True).stdout != text:
            faults += told(f"docs/{name}.schema.json", "differs from what the binary prints")
        Draft202012Validator.check_schema(json.loads(text))
        validators[name] = Draft202012Validator(json.loads(text))

    def check(name, value, where):
        return sum(told(f"{where} {error.json_path}", error.message) for error in validators[name].iter_errors(value))

    example = json.loads(FIXTURE.read_text())
    faults += check("result", example, "fixture")
    for folder in arguments.folders:
        faults += check("result", json.loads((folder / "result.json").read_text()), folder / "result.json")
        for name in ["tokens", "scores"]:
            path = folder / f"{name}.jsonl"
            for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
                faults += check(name, json.loads(line), f"{path}:{number}")
    command = [arguments.plimsoll, "report", FIXTURE, FIXTURE, "--format", "json"]
    compared = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    faults += check("comparison", json.loads(compared), "comparison")

    for path, value in [(["schema"], 2), (["seed"], -1), (["choice", "verdict"], "cut"), (["choice", "gain"], None)]:
        wrong = copy.deepcopy(example)
        *parents, last = path
        inner = wrong
        for key in parents:
            inner = inner[key]
        inner[last] = value
        if validators["result"].is_valid(wrong):
            faults += told(".".join(path), f"{value!r} is accepted, expected an error")
    print("no errors" if faults == 0 else f"{faults} errors")
    return 1 if faults else 0


def told(where, what):
    print(f"{where}: {what}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
