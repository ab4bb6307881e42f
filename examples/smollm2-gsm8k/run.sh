#!/usr/bin/env bash
# A search on a real model: downloads SmolLM2-135M-Instruct, builds plimsoll, and finds which LoRA layers the GSM8K
# adapter in this folder needs. Further arguments are passed to `plimsoll search`: for example `--max-samples 96` for
# all samples, or `--force` to replace earlier results.
set -euo pipefail
cd "$(dirname "$0")/../.."
python3 examples/smollm2-gsm8k/fetch.py models
exec cargo run --release --package plimsoll-cli -- search \
  --model models/SmolLM2-135M-Instruct.Q4_1.gguf \
  --adapter examples/smollm2-gsm8k/adapter \
  --data examples/smollm2-gsm8k/valid.jsonl \
  --out out/smollm2-gsm8k --max-samples 48 "$@"
