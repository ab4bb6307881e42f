"""Compares texts that the built `plimsoll` generates for SmolLM2-135M, token for token, with transformers and PEFT.

    python check_generate.py [--plimsoll target/release/plimsoll] [--prompts 20] [--tokens 64]

Greedy, in f32, for the base model (k = 0), k = 18 and the full adapter. `plimsoll generate` runs with `--batch 8` and
again with `--batch 1`, and must print the same texts. The reference is transformers' `generate` in f32, one prompt at a
time, on the weights that check_smollm2.py loads and checks. If the two choose different tokens, the reference's logits
of both must be within 1e-4 of each other. The reference then continues with the tokens of `plimsoll`, so that the rest
of the text is checked too.

Exit code 1 if there is any other difference.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import GenerationConfig

from check_smollm2 import check_weights, load_gguf
from peft_scores import ROOT, load_adapter, settle

TINY_GAP = 1e-4
KEYS = {"line", "layers_kept", "text", "tokens", "finish", "prompt_tokens"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    example = ROOT / "examples/smollm2-gsm8k"
    parser.add_argument("--plimsoll", type=Path, default=ROOT / "target/release/plimsoll", help="the binary to check")
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--adapter", type=Path, default=example / "adapter")
    parser.add_argument("--data", type=Path, default=example / "valid.jsonl")
    parser.add_argument("--layers-kept", default="0,18,30")
    parser.add_argument("--prompts", type=int, default=20, help="the first lines of the data; default 20")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens for each prompt; default 64")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch; default 2")
    args = parser.parse_args()
    settle()
    torch.set_num_threads(args.threads)
    variants = [int(kept) for kept in args.layers_kept.split(",")]
    lines = args.data.read_text(encoding="utf-8").splitlines()[: args.prompts]

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "prompts.jsonl"
        data.write_text("\n".join(lines) + "\n", encoding="utf-8")
        batched, single = (run_tool(args, data, batch) for batch in (8, 1))
    wanted = {(line, kept) for line in range(1, len(lines) + 1) for kept in variants}
    for batch, texts in ((8, batched), (1, single)):
        if set(texts) != wanted:
            sys.exit(f"--batch {batch}: not the requested lines and variants: {sorted(set(texts) ^ wanted)[:8]}")
    differing = [key for key in sorted(wanted) if batched[key] != single[key]]
    failures = [f"{name(*key)}: --batch 8 differs from --batch 1" for key in differing]

    reference = Reference(args)
    rows = []
    for kept in variants:
        begun = time.monotonic()
        reference.adapted.keep_layers(kept)
        close = 0
        for line, record in enumerate(lines, 1):
            failure, ties = reference.check(json.loads(record)["prompt"], single[line, kept])
            for step, gap in ties:
                print(f"{name(line, kept)}, token {step}: different token, logits {gap:.1e} apart")
            close += len(ties)
            if failure:
                failures.append(f"{name(line, kept)}: {failure}")
        texts = [single[line, kept] for line in range(1, len(lines) + 1)]
        rows.append((kept, len(texts), sum(len(text["tokens"]) for text in texts),
                     sum(text["finish"] == "stop" for text in texts), close,
                     sum(failure.startswith(f"k = {kept},") for failure in failures)))
        print(f"k = {kept}: {time.monotonic() - begun:.0f} s", file=sys.stderr)

    print(*failures, sep="\n")
    print("{:>4} {:>6} {:>7} {:>8} {:>14} {:>9}".format("k", "texts", "tokens", "stopped", "near ties", "failures"))
    for row in rows:
        print("{:>4} {:>6} {:>7} {:>8} {:>14} {:>9}".format(*row))
    print(f"same tokens, except if their logits are within {TINY_GAP:.0e}: {'FAILED' if failures else 'ok'}")
    sys.exit(int(bool(failures)))


def name(line, kept):
    return f"k = {kept}, line {line}"


def run_tool(args, data, batch):
    """The output of `plimsoll generate`: (line, layers_kept) -> object."""
    command = [args.plimsoll, "generate", "--model", args.model, "--adapter", args.adapter, "--data", data]
    command += ["--layers-kept", args.layers_kept, "--max-tokens", args.tokens, "--dtype", "f32", "--batch", batch]
    begun = time.monotonic()
    done = subprocess.run([str(word) for word in [*command, "--format", "json"]], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{args.plimsoll}: exit code {done.returncode}")
    print(f"--batch {batch}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    texts = {}
    for number, line in enumerate(done.stdout.splitlines(), 1):
        try:
            text = json.loads(line)
        except ValueError as error:
            sys.exit(f"--batch {batch}, line {number} of the output: {error}")
        if not isinstance(text, dict) or KEYS - text.keys():
            sys.exit(f"--batch {batch}, line {number} of the output: expected an object with {sorted(KEYS)}")
        key = text["line"], text["layers_kept"]
        if key in texts:
            sys.exit(f"--batch {batch}: {name(*key)} appears twice")
        texts[key] = text
    return texts


class Reference:
    """Greedy texts by transformers and PEFT."""

    def __init__(self, args):
        model, self.tokenizer = load_gguf(args.model)
        check_weights(model, args.model)
        self.end = model.config.eos_token_id
        model.generation_config = GenerationConfig(eos_token_id=self.end, pad_token_id=self.end)
        self.adapted, heard = load_adapter(model, args.adapter)
        if heard:
            sys.exit(f"PEFT warns about {args.adapter}: {heard}")
        self.limit = args.tokens

    def check(self, prompt, text):
        """The error of a text, or None, and the allowed differences: pairs of step and logit gap."""
        turn = {"role": "user", "content": prompt}
        rendered = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        ids = self.tokenizer.encode(rendered, add_special_tokens=False)
        if text["prompt_tokens"] != len(ids):
            return f"prompt of {text['prompt_tokens']} tokens, expected {len(ids)}", []
        if self.end in text["tokens"]:
            return "the end token is among the tokens", []
        if text["finish"] not in ("stop", "length"):
            return f"finish is {text['finish']!r}", []
        found = text["tokens"] + [self.end] * (text["finish"] == "stop")
        if len(found) > self.limit or (text["finish"] == "length" and len(found) < self.limit):
            return f"{len(text['tokens'])} tokens, and finish is {text['finish']!r}", []
        if text["text"] != self.tokenizer.decode(text["tokens"], clean_up_tokenization_spaces=False):
            return f"the text is not the decoded tokens: {text['text']!r}", []

        ties = []
        position = 0
        while position < len(found):
            tokens, logits = self.generate(ids + found[:position], self.limit - position)
            pairs = zip(found[position:], tokens, strict=False)
            step = next((step for step, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
            if step is None:
                # A text that ends earlier would differ in its end token, because the lengths were checked.
                return None, ties
            ours, theirs = found[position + step], tokens[step]
            gap = (logits[step][theirs] - logits[step][ours]).item()
            position += step
            if not gap <= TINY_GAP:
                return f"token {position} is {ours}, expected {theirs}, whose logit is greater by {gap:.1e}", ties
            ties.append((position, gap))
            position += 1
        return None, ties

    def generate(self, ids, limit):
        """Greedy tokens after `ids`, including the end token, and the logits of each step."""
        found = self.adapted.model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=limit,
            do_sample=False,
            use_cache=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return found.sequences[0, len(ids) :].tolist(), [logits[0] for logits in found.logits]


if __name__ == "__main__":
    main()
