"""Writes the fixtures of every model family: tiny seeded models, adapters, and what transformers and PEFT compute.

    python make_families.py [--out FOLDER] [NAME ...]

Each family has a model in Hugging Face format, the same model as GGUF with the metadata and tensors that llama.cpp's
converter writes (if llama.cpp supports it), and three adapters on all linear modules: LoRA, rsLoRA and DoRA. Some have
more adapters, see MORE. Values are those of the f64 reference on the stored weights (see peft_scores.to_double), for
three sequences: 5 tokens are within every window and original context, 14 exceed only the windows, 40 exceed all.
TinyLlama and SmolLM have no fixtures of their own, because they are Llama models. `check_families_llama_cpp.py`
compares the GGUF copies with llama.cpp itself.
"""

import argparse
import json
import math
import re
import shutil
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from make_fixtures import interleaved_rows, save_adapter, stored_weights, write_gguf_tokenizer, write_json
from peft_scores import FIXTURES, FUSED, PROJECTIONS, Adapted, load_adapter, score, settle, to_double, versions

SMALL = {
    "vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
}
# Window and original context, in tokens: the longest sequence exceeds both, the shortest fits into both.
WINDOW, ORIGINAL = 8, 16
LENGTHS = [5, 14, 40]
# Hidden states and logits are stored for every third position, and for the last.
STRIDE = 3

LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3], "long_factor": [1.5, 3.0, 7.0],
}
GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh", "head_dim": 10, "query_pre_attn_scalar": 6, "sliding_window": WINDOW,
}

# name -> class, config, dtype of the stored weights, architecture of the GGUF copy (None: no copy)
FAMILIES = {
    "llama2": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}, "bf16", "llama"),
    "llama3": ("Llama", {"tie_word_embeddings": True, "head_dim": 8, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}}, "f32", "llama"),
    "llama-biased": ("Llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": {
        "rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0}}, "bf16", "llama"),
    "llama-dynamic": ("Llama", {"max_position_embeddings": ORIGINAL, "rope_parameters": {
        "rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0}}, "bf16", None),
    "mistral": ("Mistral", {"head_dim": 10, "sliding_window": WINDOW}, "bf16", None),
    "mistral-nowindow": ("Mistral", {"head_dim": 10, "sliding_window": None}, "bf16", "llama"),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}, "bf16", "qwen2"),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}, "bf16", None),
    "qwen2-yarn": ("Qwen2", {"tie_word_embeddings": True, "rope_parameters": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": ORIGINAL}},
        "bf16", "qwen2"),
    "qwen3": ("Qwen3", {"head_dim": 10, "tie_word_embeddings": True}, "bf16", "qwen3"),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 4.0, "final_logit_softcapping": 3.0}, "bf16", None),
    "gemma3": ("Gemma3Text", GEMMA | {"num_hidden_layers": 7, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0}}}, "bf16", None),
    # Values that GGUF has no key for are those that llama.cpp assumes.
    "gemma2-plain": ("Gemma2", GEMMA | {"query_pre_attn_scalar": 10, "attn_logit_softcapping": 4.0,
        "final_logit_softcapping": 3.0}, "bf16", "gemma2"),
    "gemma3-plain": ("Gemma3Text", GEMMA | {"num_hidden_layers": 7, "query_pre_attn_scalar": 10}, "bf16", "gemma3"),
    "phi3": ("Phi3", {"sliding_window": WINDOW}, "bf16", "phi3"),
    "phi3-longrope": ("Phi3", {"tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 1,
        "original_max_position_embeddings": ORIGINAL, "partial_rotary_factor": 0.75, "rope_parameters": LONG},
        "f32", "phi3"),
}

ADAPTERS = {
    "lora": {"r": 2, "lora_alpha": 5},
    "rslora": {"r": 3, "lora_alpha": 4, "use_rslora": True},
    "dora": {"r": 2, "lora_alpha": 5, "use_dora": True},
}

# More than LoRA in layers: LoRA on embeddings and head, and weights trained in full. llama2 has an untied head, the
# others a tied one.
MORE = {
    "llama2": {
        "ends": {"r": 2, "lora_alpha": 5, "more": ["embed_tokens", "lm_head"]},
        "saved": {"r": 2, "lora_alpha": 5, "modules_to_save": ["lm_head", "norm", "input_layernorm"]},
    },
    "qwen2": {"ends": {"r": 2, "lora_alpha": 5, "more": ["embed_tokens", "lm_head"]}},
    "gemma2-plain": {"saved": {"r": 2, "lora_alpha": 5, "modules_to_save": ["embed_tokens", "norm"]}},
}


def adapters_of(name):
    return ADAPTERS | MORE.get(name, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "families")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    settle()
    for number, (name, (kind, changes, dtype, architecture)) in enumerate(FAMILIES.items()):
        if arguments.names and name not in arguments.names:
            continue
        folder = arguments.out / name
        shutil.rmtree(folder, ignore_errors=True)
        write_model(folder, kind, SMALL | changes, dtype, seed=40 + number)
        if architecture:
            write_gguf(folder / "model.gguf", folder, architecture)
        for at, (adapter, options) in enumerate(adapters_of(name).items()):
            write_adapter(folder, adapter, options, seed=4000 + 10 * number + at)
        write_golden(folder, seed=400 + number)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{name}: {size} bytes")


def write_model(folder, kind, config, dtype, seed):
    """Writes a model on which every config value has an effect: attention is far from uniform, biases and norms are not
    neutral, and limits (windows, soft caps) are reached."""
    config = getattr(transformers, f"{kind}Config")(**config)
    model = getattr(transformers, f"{kind.removesuffix('Text')}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                value = (0 if kind.startswith("Gemma") else 1) + 0.2 * noise
            elif name.endswith(".bias"):
                value = 0.5 * noise
            elif "embed_tokens" in name or "lm_head" in name:
                value = 0.4 * noise
            else:
                value = noise * weight.shape[1] ** -0.5 * (1.5 if re.search("[qk]_proj|qkv_proj", name) else 0.7)
            weight.copy_(value.to(torch.bfloat16))
    model.to(torch.bfloat16 if dtype == "bf16" else torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def load_model(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def write_adapter(folder, adapter, options, seed):
    """Writes an adapter on all linear modules as PEFT saves it, with random A and B, and changed DoRA magnitudes."""
    base = load_model(folder, torch.float32)
    names = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules()}
    targets = [name for name in PROJECTIONS + FUSED if name in names] + options.get("more", [])
    options = {key: value for key, value in options.items() if key != "more"}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=targets, **options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "modules_to_save" in name:
                weight.data += 0.2 * weight.abs().mean() * torch.randn(weight.shape, generator=generator)
            elif "lora_magnitude_vector" in name:
                weight.data *= 1 + 0.3 * torch.rand(weight.shape, generator=generator)
            elif "lora_" in name:
                spread = weight.shape[1] ** -0.5 if "lora_A" in name else 0.1
                weight.data = (spread * torch.randn(weight.shape, generator=generator)).to(torch.bfloat16)
    # The base's embeddings and head are not saved with their LoRA: some trainers save adapters this way.
    save_adapter(model, folder, adapter)


def write_golden(folder, seed):
    """Writes hidden states and logits of the base model and of every adapter, and the NLL of every boundary."""
    vocabulary = load_model(folder, torch.float32).config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    sequences = []
    for length in LENGTHS:
        ids = torch.randint(vocabulary, (length,), generator=generator).tolist()
        sequences.append((ids, list(range(length // 2, length))))
    tensors, adapters, noise = {}, {}, {}
    for adapter in adapters_of(folder.name):
        model, heard = load_adapter(load_model(folder, torch.float64), folder / "adapters" / adapter)
        heard = [text for text in heard if "ensure_weight_tying" not in text]  # expected on a tied model
        assert not heard, heard
        exact = Adapted(to_double(model.model))
        single, _ = load_adapter(load_model(folder, torch.float32), folder / "adapters" / adapter)
        adapters[adapter] = [[score(forward(exact, kept, ids)[1], ids, answer)["nll"] for kept in range(exact.layers + 1)]
                             for ids, answer in sequences]
        noise[adapter] = 0.0
        for number, (ids, answer) in enumerate(sequences):
            # LoRA on embeddings and weights trained in full apply in every variant: such adapters have their own base.
            base = "base" if adapter in ADAPTERS else f"{adapter}.base"
            for variant, kept in [(base, 0), (adapter, exact.layers)]:
                hidden, logits = forward(exact, kept, ids)
                rough_hidden, rough_logits = forward(single, kept, ids)
                for right, rough in [*zip(hidden, rough_hidden), (logits, rough_logits)]:
                    noise[adapter] = max(noise[adapter], ((right - rough).abs().max() / right.abs().max()).item())
                kept_rows = positions(len(ids))
                tensors[f"{variant}.hidden.{number}"] = hidden[:, kept_rows].float().contiguous()
                tensors[f"{variant}.logits.{number}"] = logits[kept_rows].float().contiguous()
            nll = adapters[adapter][number]
            assert all(abs(a - b) > 1e-3 for a, b in zip(nll, nll[1:])), f"a layer has no effect: {nll}"
    about = json.dumps({"model": folder.name, "versions": versions()})
    save_file(tensors, folder / "golden.safetensors", metadata={"about": about})
    write_json(folder / "golden.json", {
        "versions": versions(),
        # The largest error of the f32 model, relative to the largest value.
        "single_precision": noise,
        "sequences": [{"ids": ids, "answer": answer, "positions": positions(len(ids))} for ids, answer in sequences],
        # [adapter][sequence][layers kept]
        "nll": adapters,
    })
    check_that_facts_matter(folder, sequences)


def positions(length):
    return sorted({*range(0, length, STRIDE), length - 1})


def forward(adapted, kept, ids):
    adapted.keep_layers(kept)
    return adapted.forward(ids)


def check_that_facts_matter(folder, sequences):
    """Checks that window, soft caps and rope scaling each change the logits: otherwise the fixture tests nothing."""
    config = load_model(folder, torch.float64).config
    changes = []
    if getattr(config, "sliding_window", None):
        changes.append({"sliding_window": 1000})
    for name in ["attn_logit_softcapping", "final_logit_softcapping"]:
        if getattr(config, name, None):
            changes.append({name: None})
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        changes.append({"rope_parameters": {"rope_type": "default", "rope_theta": rope["rope_theta"]}})
    ids = torch.tensor([sequences[-1][0]])
    with torch.no_grad():
        logits = load_model(folder, torch.float64)(input_ids=ids).logits
        for change in changes:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", **change)
            moved = (model(input_ids=ids).logits - logits).abs().max().item()
            assert moved > 1e-2, (folder.name, change, moved)


def write_gguf(path, folder, architecture):
    """Writes the same model as GGUF, as llama.cpp's converter does: 2-D weights as BF16 (exact here), others as F32."""
    config = transformers.AutoConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(str(path), architecture)
    # If the name contains phi3, llama.cpp looks for special tokens of that model.
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    dims = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(dims)
    writer.add_rope_freq_base(rope["rope_theta"])
    gemma = architecture.startswith("gemma")
    if gemma or architecture == "phi3":
        if config.sliding_window:
            writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif kind == "llama3":
        rotary = load_model(folder, torch.float32).model.rotary_emb
        plain, _ = rotary.compute_default_rope_parameters(config)
        writer.add_tensor("rope_freqs.weight", (plain.double() / rotary.inv_freq.double()).float().numpy())
    elif kind == "longrope":
        original = rope["original_max_position_embeddings"]
        growth = config.max_position_embeddings / original
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(growth) / math.log(original)))
        writer.add_tensor("rope_factors_long.weight", np.array(rope["long_factor"], dtype=np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(rope["short_factor"], dtype=np.float32))
    write_gguf_tokenizer(writer, folder, config.vocab_size)

    model_arch = next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    names = gguf.get_tensor_name_map(model_arch, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for key, weight in stored_weights(folder).items():
        module, suffix = key.rsplit(".", 1)
        weight = weight.float()
        if architecture == "llama" and module.rsplit(".", 1)[-1] in heads:
            weight = weight[interleaved_rows(heads[module.rsplit(".", 1)[-1]], head_dim)]
        if gemma and module.endswith("norm"):
            weight = weight + 1
        kind = gguf.GGMLQuantizationType.BF16 if weight.dim() > 1 else gguf.GGMLQuantizationType.F32
        stored = gguf.quants.quantize(weight.numpy(), kind)
        assert np.array_equal(gguf.quants.dequantize(stored, kind), weight.numpy()), f"{key} is not exact"
        writer.add_tensor(names.get_name(module) + "." + suffix, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
