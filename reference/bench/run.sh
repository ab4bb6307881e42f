#!/usr/bin/env bash
# Compares the speed of plimsoll with PyTorch and llama.cpp, from a fresh clone. Creates a virtual environment
# (`--venv DIR`, default ~/.venvs/plimsoll-bench), installs the peers into it, downloads the model, builds, and runs
# run.py with all other arguments, such as `--only gemm,generate-8` or `--out FILE`. Needs a Rust toolchain, git, Python
# 3.11 or later with pip, and a C and a C++ compiler, because llama.cpp is built for this machine (15 minutes on two
# cores).
set -euo pipefail
venv="$HOME/.venvs/plimsoll-bench"
rest=()
while (($#)); do
  case "$1" in
    --venv) venv="${2:?--venv: expected a folder}"; shift 2 ;;
    --venv=*) venv="${1#*=}"; shift ;;
    *) rest+=("$1"); shift ;;
  esac
done
[[ -x "$venv/bin/python" ]] || python3 -m venv "$venv"
venv="$(cd "$venv" && pwd)"
python="$venv/bin/python"
run="$(cd "$(dirname "$0")" && pwd)/run.py"
(
  cd "$(dirname "$0")/../.."
  export CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=ON}"
  "$python" -m pip install --quiet --requirement reference/bench/requirements.txt
  "$python" examples/smollm2-gsm8k/fetch.py models
  cargo build --release --locked --package plimsoll --example bench
) >&2
exec "$python" "$run" ${rest[@]+"${rest[@]}"}
