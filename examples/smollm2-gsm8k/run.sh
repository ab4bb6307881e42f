#!/usr/bin/env bash
# The main job on a real model: fetches SmolLM2-135M-Instruct, builds plimsoll, and asks which LoRA layers the
# GSM8K adapter beside this script needs. Further arguments go to `plimsoll search`, such as
# `--max-samples 96` for all samples or `--force` to replace earlier results.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 examples/smollm2-gsm8k/fetch.py models
cargo build --release --package plimsoll-cli
exec target/release/plimsoll search \
  --model models/SmolLM2-135M-Instruct.Q4_1.gguf \
  --adapter examples/smollm2-gsm8k/adapter \
  --data examples/smollm2-gsm8k/valid.jsonl \
  --out out/smollm2-gsm8k --max-samples 48 "$@"
