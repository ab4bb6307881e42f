"""Generation speed of transformers and PEFT, written for speed: LoRA unmerged, greedy, in batches.

    python torch_generate.py --prompts prompts.jsonl --batch 8 --tokens 128 --dtype bf16 > torch.json

`--prompts` has one JSON object per line, with the ids of a prompt in `tokens`. `--batch` prompts at a time are padded
on the left. Every text gets exactly `--tokens` new tokens: `generate` must not end it earlier. `generate` itself is
timed, with its default cache and SDPA attention. One batch runs first, for a few tokens, as a warm-up.

`--cache static` and `--attention eager` were tried on a busy AMD EPYC: neither was clearly faster.

A stopping criterion, which `generate` calls once per token, records the time. Prefill ends when the first token is
chosen. Decoding is everything after that: `--tokens` - 1 tokens of each text.

Prints one JSON object: `tokens_per_second` (decoding, all texts of a batch together), `total_tokens_per_second` (all
new tokens per total time), `prefill_tokens_per_second` (without padding), `peak_rss_mb` (MB of 1e6 bytes), `texts` (the
new ids), and the settings.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from transformers import GenerationConfig

from torch_sweep import DTYPES, ROOT, keep_layers, load, peak_rss_mb

from peft_scores import settle  # torch_sweep adds its folder to sys.path

WARM_UP_TOKENS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=ROOT / "examples/smollm2-gsm8k/adapter")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL with `tokens`")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="new tokens for each prompt; default 128")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="dtype of base model and adapter")
    parser.add_argument("--layers-kept", type=int, help="layers with LoRA (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--cache", choices=("dynamic", "static"), default="dynamic")
    args = parser.parse_args()
    if args.tokens < 2:
        parser.error("--tokens: expected 2 or more")
    settle()
    torch.set_num_threads(args.threads)

    model, lora = load(args)
    keep_layers(lora, len(lora) if args.layers_kept is None else args.layers_kept)
    prompts = [json.loads(line)["tokens"] for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    batches = [prompts[start : start + args.batch] for start in range(0, len(prompts), args.batch)]

    generate(model, batches[0], WARM_UP_TOKENS, args.cache)
    texts, prefill_seconds, decode_seconds = [], 0.0, 0.0
    for batch in batches:
        found, prefill, decode = generate(model, batch, args.tokens, args.cache)
        texts += found
        prefill_seconds += prefill
        decode_seconds += decode
    print(json.dumps({
        "tokens_per_second": len(prompts) * (args.tokens - 1) / decode_seconds,
        "total_tokens_per_second": len(prompts) * args.tokens / (prefill_seconds + decode_seconds),
        "prefill_tokens_per_second": sum(map(len, prompts)) / prefill_seconds,
        "peak_rss_mb": peak_rss_mb(),
        "texts": texts,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "batch": args.batch,
        "attention": args.attention,
        "cache": args.cache,
    }))


@torch.inference_mode()
def generate(model, prompts, tokens, cache):
    """The new ids of every prompt, the seconds until the first was chosen, and the seconds for the others."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), model.config.eos_token_id)
    mask = torch.zeros_like(ids)
    for row, seen, prompt in zip(ids, mask, prompts, strict=True):
        row[length - len(prompt) :] = torch.tensor(prompt)
        seen[length - len(prompt) :] = 1
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.eos_token_id,
        cache_implementation="static" if cache == "static" else None,
    )
    times = []

    def note(chosen, _scores, **_):
        times.append(time.perf_counter())
        return torch.zeros(len(chosen), dtype=torch.bool)

    start = time.perf_counter()
    found = model.generate(ids, attention_mask=mask, generation_config=config, stopping_criteria=[note])
    if len(times) != tokens or found.shape[1] != length + tokens:
        sys.exit(f"{len(times)} steps and {found.shape[1] - length} new tokens, expected {tokens}")
    return found[:, length:].tolist(), times[0] - start, times[-1] - times[0]


if __name__ == "__main__":
    main()
