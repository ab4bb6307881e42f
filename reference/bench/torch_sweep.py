"""Scores the boundaries of an adapter with PyTorch, transformers and PEFT, written for speed.

    python torch_sweep.py --tokens tokens.jsonl --dtype bf16 > torch.json

There is one pass over all samples for each boundary k. LoRA is on in layers 0..k-1; above, PEFT's modules are disabled,
so that they cost nothing. Samples are sorted by length and padded on the right, so that causal attention needs no mask.
Only the states that predict an answer token go through the head. `--tokens` has one JSON object per line: `line`,
`tokens` (ids) and `answer` (positions in `tokens`, 1 or greater: the state at a - 1 predicts the token at a).

Prints one JSON object: `seconds` (all boundaries, after loading and one warm-up batch), `load_seconds`,
`boundary_seconds`, `nll` ({line: [nats summed over the answer, one for each boundary]}), peaks of resident memory in
MB of 1e6 bytes (`peak_rss_mb` of the process, `import_peak_rss_mb` before the model is opened, `sweep_peak_rss_mb`
after the warm-up, if the system can reset the peak), and the settings.
"""

import argparse
import json
import re
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reference"))

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, GgufConfig

from peft_scores import settle

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=ROOT / "examples/smollm2-gsm8k/adapter")
    parser.add_argument("--tokens", type=Path, required=True, help="JSONL with `line`, `tokens` and `answer`")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="dtype of base model and adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2, help="samples in one forward pass")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--head-rows", type=int, default=256, help="answer positions in one product with the head")
    parser.add_argument("--boundaries", default="", help="such as 0,15,30 (default: all)")
    args = parser.parse_args()
    settle()
    torch.set_num_threads(args.threads)

    import_peak = peak_rss_mb()
    start = time.perf_counter()
    model, lora = load(args)
    load_seconds = time.perf_counter() - start
    load_peak = peak_rss_mb()
    boundaries = [int(kept) for kept in args.boundaries.split(",") if kept] or list(range(len(lora) + 1))
    samples = [json.loads(line) for line in args.tokens.read_text(encoding="utf-8").splitlines()]
    batches = make_batches(samples, args.batch_size)

    keep_layers(lora, len(lora))
    score(model, batches[0], args.head_rows)
    forget_peak_rss()
    nll = {sample["line"]: [] for sample in samples}
    boundary_seconds = []
    start = time.perf_counter()
    for kept in boundaries:
        boundary_start = time.perf_counter()
        keep_layers(lora, kept)
        for batch in batches:
            for line, value in score(model, batch, args.head_rows):
                nll[line].append(value)
        boundary_seconds.append(time.perf_counter() - boundary_start)
        print(f"boundary {kept}: {boundary_seconds[-1]:.1f} s", file=sys.stderr)
    seconds = time.perf_counter() - start

    print(json.dumps({
        "seconds": seconds,
        "load_seconds": load_seconds,
        "boundary_seconds": boundary_seconds,
        "peak_rss_mb": max(load_peak, peak_rss_mb()),
        "import_peak_rss_mb": import_peak,
        "sweep_peak_rss_mb": peak_rss_mb(),
        "boundaries": boundaries,
        "nll": nll,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "batch_size": args.batch_size,
        "attention": args.attention,
    }))


def load(args):
    """Loads the adapted model; returns it, and the LoRA modules of each layer."""
    base = AutoModelForCausalLM.from_pretrained(
        args.model.parent,
        gguf_file=args.model.name,
        # Dense weights: quantised ones would be dequantised in every pass.
        quantization_config=GgufConfig(dequantize=True),
        dtype=DTYPES[args.dtype],
        attn_implementation=args.attention,
    )
    model = PeftModel.from_pretrained(base, str(args.adapter), autocast_adapter_dtype=False).eval()
    found = {parameter.dtype for parameter in model.parameters()}
    if found != {DTYPES[args.dtype]}:
        sys.exit(f"parameters are in {found}, expected only {args.dtype}")
    lora = [[] for _ in base.model.layers]
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            lora[int(re.search(r"\.layers\.(\d+)\.", name)[1])].append(module)
    return base, lora


def keep_layers(lora, kept):
    """`layers_kept = kept`: in layer `kept` and all layers above it, modules run their base layer only."""
    for layer, modules in enumerate(lora):
        for module in modules:
            module.enable_adapters(layer < kept)


def make_batches(samples, size):
    """Batches of `size` samples, sorted by length, the longest first.

    Each batch has the lines, the ids up to the last state that predicts, the positions of the predicting states in the
    flattened batch, the tokens that they predict, and the number of these for each sample.
    """
    batches = []
    ordered = sorted(samples, key=lambda sample: -sample["answer"][-1])
    for start in range(0, len(ordered), size):
        group = ordered[start : start + size]
        length = group[0]["answer"][-1]
        ids = torch.zeros(len(group), length, dtype=torch.long)
        for row, sample in zip(ids, group, strict=True):
            end = sample["answer"][-1]
            row[:end] = torch.tensor(sample["tokens"][:end])
        batches.append({
            "lines": [sample["line"] for sample in group],
            "ids": ids,
            "places": torch.tensor([
                number * length + position - 1 for number, sample in enumerate(group) for position in sample["answer"]
            ]),
            "targets": torch.tensor([sample["tokens"][position] for sample in group for position in sample["answer"]]),
            "counts": [len(sample["answer"]) for sample in group],
        })
    return batches


@torch.inference_mode()
def score(model, batch, head_rows):
    """Pairs of line and NLL: nats, summed over the answer."""
    hidden = model.model(input_ids=batch["ids"], use_cache=False).last_hidden_state  # (batch, length, hidden)
    states = hidden.flatten(0, 1)[batch["places"]]  # (answer positions of the batch, hidden)
    nll = []
    for rows, targets in zip(states.split(head_rows), batch["targets"].split(head_rows), strict=True):
        logits = model.lm_head(rows).float()  # (head_rows, vocabulary)
        nll.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    sums = [part.double().sum().item() for part in torch.cat(nll).split(batch["counts"])]
    return list(zip(batch["lines"], sums, strict=True))


def forget_peak_rss():
    """Resets the process's peak of resident memory to the present value, if the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_rss_mb():
    """Peak of resident memory, of the process or since `forget_peak_rss`."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
