"""Scores of SmolLM2-135M-Instruct with the example adapter by PyTorch and PEFT, one run for each boundary k = 0..30.

    python check_smollm2.py                                       writes the fixture smollm2_nll.json
    python check_smollm2.py --compare scores.jsonl [--lines 1,2]  compares scores of `search --dtype f32` with PyTorch's

Everything is in f32, except log-probabilities, which are in f64. Runs share nothing: before each run the adapter is
restored as loaded, then lora_B is set to zero in layers k and above. Samples are tokenised as in plimsoll, see
peft_scores.tokenise_turns.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import gguf
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from peft_scores import (
    FIXTURES,
    ROOT,
    load_adapter,
    score_boundaries,
    settle,
    tokenise_turns,
    versions,
)

FIXTURE_LINES = [1, 2, 3, 4]
TOLERANCE = 1e-3
COLUMNS = ("line", "tokens", "NLL", "probability", "correct", "lens p", "lens top1", "lens rank")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    example = ROOT / "examples/smollm2-gsm8k"
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=example / "adapter")
    parser.add_argument("--data", type=Path, default=example / "valid.jsonl")
    parser.add_argument("--fixture", type=Path, default=FIXTURES / "smollm2_nll.json")
    parser.add_argument("--compare", type=Path, help="scores.jsonl of plimsoll on the same data")
    parser.add_argument("--lines", default="", help="lines of the data to compare, counted from 1 (default: 1,2,3,4)")
    parser.add_argument("--fresh", action="store_true", help="compute every line, also those in the fixture")
    args = parser.parse_args()
    settle()

    if args.compare is None:
        write_fixture(args, score_lines(args, FIXTURE_LINES))
        return
    lines = [int(line) for line in args.lines.split(",") if line] or FIXTURE_LINES
    samples = [] if args.fresh else json.loads(args.fixture.read_text())["samples"]
    stored = {sample["line"]: sample for sample in samples}
    missing = [line for line in lines if line not in stored]
    if missing:
        stored |= {sample["line"]: sample for sample in score_lines(args, missing)}
    tool = {scores["line"]: scores for scores in map(json.loads, args.compare.read_text().splitlines())}
    sys.exit(compare([stored[line] for line in lines], tool))


def score_lines(args, lines):
    """Reference scores of some lines of the data."""
    model, tokenizer = load_gguf(args.model)
    check_weights(model, args.model)
    adapted, heard = load_adapter(model, args.adapter)
    if heard:
        sys.exit(f"PEFT warns about {args.adapter}: {heard}")
    data = args.data.read_text(encoding="utf-8").splitlines()
    samples = []
    for line in lines:
        record = json.loads(data[line - 1])
        ids, answer = tokenise_turns(tokenizer, record["prompt"], record["completion"])
        samples.append({"line": line, "ids": ids, "answer": answer} | score_boundaries(adapted, ids, answer))
        print(f"line {line}: {len(ids)} tokens, {len(answer)} of them in the answer", file=sys.stderr)
    return samples


def load_gguf(path):
    """Model and tokenizer from one GGUF file.

    The tokenizer is built from the file's own vocabulary and merges. `tokenizer.ggml.pre = smollm` means SmolLM's
    splitting: every digit is separate, then byte-level BPE.
    """
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    fields = gguf.GGUFReader(path).fields
    if fields["tokenizer.ggml.pre"].contents() != "smollm":
        sys.exit(f"{path}: only the tokenizer of SmolLM is supported")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"].contents()
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = fields["tokenizer.chat_template"].contents()
    return model.eval(), fast


def check_weights(model, path):
    """Checks that transformers reads the weights that the gguf package dequantises, with rows of q and k reordered."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    state = model.state_dict()
    ours = {names.get_name(key, try_suffixes=(".weight",)): key for key in state if key != "lm_head.weight"}
    tensors = gguf.GGUFReader(path).tensors
    if {tensor.name for tensor in tensors} != set(ours):
        sys.exit(f"{path}: its tensors are not those of the model")
    for tensor in tensors:
        weight = torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        module = tensor.name.split(".")[-2]
        if module in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if module == "attn_q" else config.num_key_value_heads
            # llama.cpp rotates pairs (2i, 2i+1), transformers pairs (i, i + head_dim/2).
            rows, columns = weight.shape
            weight = weight.reshape(heads, -1, 2, columns).transpose(1, 2).reshape(rows, columns)
        if not torch.equal(weight, state[ours[tensor.name]]):
            sys.exit(f"{path}: transformers and gguf disagree on {tensor.name}")


def write_fixture(args, samples):
    rows = ",\n".join("    " + json.dumps(sample) for sample in samples)
    head = {
        "versions": versions(),
        "model": args.model.name,
        "adapter": "smollm2-gsm8k",
        "layers": len(samples[0]["variants"]) - 1,
        "precision": "float32, log-softmax in float64",
    }
    text = json.dumps(head, indent=2).removesuffix("\n}") + f',\n  "samples": [\n{rows}\n  ]\n}}\n'
    json.loads(text)
    args.fixture.write_text(text, encoding="utf-8")
    print(f"{args.fixture}: {len(samples)} samples", file=sys.stderr)


def compare(reference, tool):
    """Prints the differences of plimsoll from the reference, and returns the exit code.

    For NLL and probability, these are relative. Counts of correct tokens, top-1 shares and ranks depend on which of two
    nearly equal logits is larger, so each may differ by one answer token.
    """
    print("{:>5} {:>7} {:>10} {:>12} {:>8} {:>10} {:>10} {:>10}".format(*COLUMNS))
    worst = 0.0
    failed = False
    for sample in reference:
        line, tokens = sample["line"], len(sample["answer"])
        found = tool.get(line)
        if found is None or found["tokens"] != tokens or len(found["variants"]) != len(sample["variants"]):
            print(f"{line:>5} {tokens:>7} plimsoll has {found and (found['tokens'], len(found['variants']))}")
            failed = True
            continue
        pairs = list(zip(sample["variants"], found["variants"], strict=True))
        nll = largest(theirs["nll"] / ours["nll"] - 1 for ours, theirs in pairs)
        probability = largest(theirs["probability"] / ours["probability"] - 1 for ours, theirs in pairs)
        correct = largest(theirs["correct"] - ours["correct"] for ours, theirs in pairs)
        worst = max(worst, nll, probability)
        failed |= correct > 1
        row = f"{line:>5} {tokens:>7} {nll:>10.1e} {probability:>12.1e} {correct:>8}"
        if not found.get("lens") and found.get("part") == "holdout":
            print(f"{row} {'held out: no lens':>32}")
            continue
        if [len(curve["rank"]) for curve in found.get("lens", [])] != [len(curve["rank"]) for curve in sample["lens"]]:
            print(f"{line:>5} {tokens:>7} plimsoll has no lens of base and full, or of a different number of layers")
            failed = True
            continue
        lens = {
            key: [
                pair
                for ours, theirs in zip(sample["lens"], found["lens"], strict=True)
                for pair in zip(ours[key], theirs[key], strict=True)
            ]
            for key in ("probability", "top1", "rank")
        }
        lens_p = largest(theirs / ours - 1 for ours, theirs in lens["probability"])
        top1 = largest(theirs - ours for ours, theirs in lens["top1"])
        rank = largest((theirs - ours) / (1 + ours) for ours, theirs in lens["rank"])
        print(f"{row} {lens_p:>10.1e} {top1:>10.1e} {rank:>10.1e}")
        worst = max(worst, lens_p)
        failed |= top1 > 1.5 / tokens or rank > TOLERANCE + 1 / tokens
    failed |= worst > TOLERANCE
    print(f"largest relative error {worst:.1e}, allowed {TOLERANCE:.0e}: {'FAILED' if failed else 'ok'}")
    return int(failed)


def largest(differences):
    """The largest absolute value; NaN counts as infinity."""
    return max(math.inf if math.isnan(difference) else abs(difference) for difference in differences)


if __name__ == "__main__":
    main()
