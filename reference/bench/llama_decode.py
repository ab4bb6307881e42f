"""Decoding speed of llama.cpp at batch 1: a base model in BF16, without LoRA.

    python llama_decode.py --cache target/bench

The BF16 GGUF is made once from `--model`, by the gguf package: matrices dequantised and rounded to BF16, vectors in
F32, metadata copied. A prompt of 32 tokens, then 128 greedy ones, by the library's C functions; only llama_decode is
timed.

Prints {"tokens_per_second": llama_decode alone, "total_tokens_per_second": with the choice of each token, ...}.
"""

import argparse
import importlib.metadata
import json
import logging
import os
import sys
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. " * 4


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--cache", type=Path, required=True, help="folder for the BF16 file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
    path = bf16_file(args.model, args.cache)
    decode_seconds, total_seconds = decode(path, args.threads, args.prompt_tokens, args.tokens)
    print(json.dumps({
        "tokens_per_second": args.tokens / decode_seconds,
        "total_tokens_per_second": args.tokens / total_seconds,
        "tokens": args.tokens,
        "threads": args.threads,
        "llama_cpp_python": importlib.metadata.version("llama-cpp-python"),
        "system": llama_cpp.llama_print_system_info().decode(),
    }))


def bf16_file(source, cache):
    """The path of the BF16 form of `source`, which is written where it is not there yet."""
    target = cache / f"{source.name.removesuffix('.gguf')}.BF16.gguf"
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents())
    copy_metadata(reader, writer)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = gguf.GGMLQuantizationType.BF16 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)
    return target


def copy_metadata(reader, writer):
    """Every field but those that the writer adds itself, and the file's type."""
    for field in reader.fields.values():
        if field.name in ("general.architecture", "general.file_type") or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, element)


def decode(path, threads, prompt_tokens, tokens):
    """Seconds in llama_decode, and seconds in all, that `tokens` greedy tokens take after the prompt."""
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 512
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params) if model else None
    if not context:
        sys.exit(f"{path}: llama.cpp does not load it")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    ids = (llama_cpp.llama_token * 512)()
    text = PROMPT.encode()
    found = llama_cpp.llama_tokenize(vocabulary, text, len(text), ids, len(ids), False, False)
    if found < prompt_tokens:
        sys.exit(f"the prompt has {found} tokens, expected {prompt_tokens} or more")

    def step(count):
        start = time.perf_counter()
        failed = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, count))
        llama_cpp.llama_synchronize(context)
        seconds = time.perf_counter() - start
        if failed:
            sys.exit(f"llama_decode returned {failed}")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        ids[0] = int(np.ctypeslib.as_array(logits, shape=(size,)).argmax())
        return seconds

    step(prompt_tokens)
    start = time.perf_counter()
    decode_seconds = sum(step(1) for _ in range(tokens))
    total_seconds = time.perf_counter() - start
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return decode_seconds, total_seconds


if __name__ == "__main__":
    main()
