"""Generation speed of llama.cpp: several sequences decoded together, a base model in BF16, with or without LoRA.

    python llama_generate.py --cache target/bench --prompts prompts.jsonl --sequences 8 --lora ADAPTER > llama.json

`--prompts` has one JSON object per line, with the ids of a prompt in `tokens`. `--sequences` prompts at a time form one
llama_batch, each as a separate sequence with its own keys and values. Then every step decodes one greedy token of each;
every text gets `--tokens` new tokens, and an end token does not stop it. The BF16 file is written once by bf16_gguf.py.
`--lora` takes a PEFT folder, which is converted to GGUF and stays unmerged.

The defaults were the fastest of the options tried on a busy AMD EPYC with two threads: flash attention, separate keys
and values for each sequence, and the adapter in F32.

Prefill ends when the first tokens are chosen. Decoding is everything after that (llama_decode and the choice of
tokens): `--tokens` - 1 tokens of each text.

Prints one JSON object: `tokens_per_second` (decoding, all sequences together), `total_tokens_per_second` (all new
tokens per total time), `prefill_tokens_per_second`, `peak_rss_mb` (MB of 1e6 bytes), `texts` (the new ids), and the
settings.
"""

import argparse
import ctypes
import importlib.metadata
import json
import logging
import os
import re
import resource
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from gguf.quants import quantize
from safetensors import safe_open

from bf16_gguf import ROOT, bf16_file

WARM_UP_TOKENS = 4
KINDS = {
    "f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16, "bf16": gguf.GGMLQuantizationType.BF16,
}
# llama.cpp only scales by alpha / rank. Each of these fields must be absent or have this value.
PLAIN = {"use_rslora": False, "use_dora": False, "bias": "none", "alpha_pattern": {}, "modules_to_save": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the BF16 file and the adapter's")
    parser.add_argument("--lora", type=Path, help="PEFT folder of an adapter")
    parser.add_argument("--lora-type", choices=KINDS, default="f32", help="dtype of the adapter; default f32")
    parser.add_argument("--prompts", type=Path, required=True, help="JSONL with `tokens`")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="new tokens for each prompt; default 128")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash", choices=("on", "off"), default="on", help="flash attention; default on")
    parser.add_argument("--kv", choices=("unified", "separate"), default="separate", help="default separate")
    args = parser.parse_args()
    if args.tokens < 2:
        parser.error("--tokens: expected 2 or more")
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)

    prompts = [json.loads(line)["tokens"] for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    engine = Llama(args, longest=max(map(len, prompts)) + args.tokens, most=sum(map(len, prompts)))
    groups = [prompts[start : start + args.sequences] for start in range(0, len(prompts), args.sequences)]
    engine.generate(groups[0], WARM_UP_TOKENS)
    texts, prefill_seconds, decode_seconds = [], 0.0, 0.0
    for group in groups:
        found, prefill, decode = engine.generate(group, args.tokens)
        texts += found
        prefill_seconds += prefill
        decode_seconds += decode
    print(json.dumps({
        "tokens_per_second": len(prompts) * (args.tokens - 1) / decode_seconds,
        "total_tokens_per_second": len(prompts) * args.tokens / (prefill_seconds + decode_seconds),
        "prefill_tokens_per_second": sum(map(len, prompts)) / prefill_seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "texts": texts,
        "threads": args.threads,
        "sequences": args.sequences,
        "lora": args.lora_type if args.lora else None,
        "flash": args.flash,
        "kv": args.kv,
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "system": llama_cpp.llama_print_system_info().decode(),
    }))


class Llama:
    """A model in BF16, a context for some sequences, and an adapter if `--lora` is given."""

    def __init__(self, args, longest, most):
        path = bf16_file(args.model, args.cache)
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            sys.exit(f"{path}: llama.cpp cannot load it")
        params = llama_cpp.llama_context_default_params()
        params.n_seq_max = args.sequences
        # For each sequence, keys and values are stored in blocks of 256 tokens.
        params.n_ctx = args.sequences * -(-longest // 256) * 256
        params.n_batch = most
        params.n_threads = params.n_threads_batch = args.threads
        on, off = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED, llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.flash_attn_type = on if args.flash == "on" else off
        params.kv_unified = args.kv == "unified"
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"{path}: llama.cpp cannot create a context of {params.n_ctx} tokens")
        if args.lora:
            self.set_adapter(lora_file(args.lora, path, args.cache, args.lora_type))
        self.size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(most, 0, 1)

    def set_adapter(self, path):
        adapter = llama_cpp.llama_adapter_lora_init(self.model, str(path).encode())
        if not adapter:
            sys.exit(f"{path}: llama.cpp cannot load it")
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        if llama_cpp.llama_set_adapters_lora(self.context, adapters, 1, (ctypes.c_float * 1)(1.0)):
            sys.exit(f"{path}: llama.cpp cannot use it")

    def generate(self, prompts, tokens):
        """The new ids of every prompt, the seconds until the first was chosen, and the seconds for the others."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        start = time.perf_counter()
        entries = [
            (token, position, sequence, position == len(prompt) - 1)
            for sequence, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        texts = [[token] for token in self.decode(entries)]
        first = time.perf_counter()
        for step in range(tokens - 1):
            entries = [
                (text[-1], len(prompt) + step, sequence, True)
                for sequence, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
            ]
            for text, token in zip(texts, self.decode(entries), strict=True):
                text.append(token)
        return texts, first - start, time.perf_counter() - first

    def decode(self, entries):
        """The most probable token after every entry that asks for one. Entries: (token, position, sequence, asks)."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for number, (token, position, sequence, asks) in enumerate(entries):
            batch.token[number] = token
            batch.pos[number] = position
            batch.n_seq_id[number] = 1
            batch.seq_id[number][0] = sequence
            batch.logits[number] = asks
        failed = llama_cpp.llama_decode(self.context, batch)
        if failed:
            sys.exit(f"llama_decode returned {failed}")
        # Rows of the entries that asked, in their order.
        logits = llama_cpp.llama_get_logits(self.context)
        rows = np.ctypeslib.as_array(logits, shape=(sum(entry[3] for entry in entries), self.size))
        return rows.argmax(axis=1).tolist()


def lora_file(folder, base, cache, kind):
    """Writes an adapter as GGUF and returns its path. It is small, so it is written every time.

    llama.cpp adds alpha / rank * B(Ax). Rows of q and k in the base model have llama.cpp's own order, and so do the
    rows of their B.
    """
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for key, value in PLAIN.items():
        if config.get(key, value) != value:
            sys.exit(f"{folder}: {key} is {config[key]!r}, expected {value!r}: only plain LoRA is supported")
    fields = gguf.GGUFReader(base).fields
    architecture = fields["general.architecture"].contents()
    heads = {
        "attn_q": fields[f"{architecture}.attention.head_count"].contents(),
        "attn_k": fields[f"{architecture}.attention.head_count_kv"].contents(),
    }
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, fields[f"{architecture}.block_count"].contents())
    target = cache / f"{folder.resolve().parent.name}-{folder.resolve().name}.{kind}.lora.gguf"
    part = target.with_suffix(f".{os.getpid()}.part")
    writer = gguf.GGUFWriter(part, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    with safe_open(folder / "adapter_model.safetensors", "np") as file:
        for key in sorted(file.keys()):
            found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
            name = names.get_name(found[1]) if found else None
            if name is None:
                sys.exit(f"{folder}: unknown tensor {key}")
            values = file.get_tensor(key).astype(np.float32)
            module = name.split(".")[-1]
            if found[2] == "B" and module in heads:
                # Pairs (i, i + head_dim / 2) become pairs (2i, 2i + 1).
                pairs = values.reshape(heads[module], 2, -1, values.shape[1])
                values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
            stored = quantize(values, KINDS[kind])
            writer.add_tensor(f"{name}.weight.lora_{found[2].lower()}", stored, raw_dtype=KINDS[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)
    return target


if __name__ == "__main__":
    main()
