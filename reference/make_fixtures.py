"""Writes the golden fixtures: tiny seeded Llama models, PEFT adapters, and what PyTorch and PEFT compute.

    python make_fixtures.py [--out FOLDER]

Every value is computed by the f64 reference (see peft_scores.to_double) on the stored weights. It is rounded to f32 in
the .safetensors files and not rounded in the .json files. `single_precision` in every ADAPTER.golden.json is the
largest difference of the f32 model from the reference: a tolerance has to allow for this noise. README.md describes the
layout. On the same machine, every run writes the same bytes.
"""

import argparse
import json
import os
import shutil
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from peft_scores import (
    FIXTURES,
    PROJECTIONS,
    Adapted,
    load_adapter,
    score,
    score_boundaries,
    settle,
    to_double,
    tokenise_turns,
    versions,
)

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENIZER_SIZE = 288  # 3 special tokens, the 256 bytes, 29 merges

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Prompts and completions: the data of the command-line tests. The tokenizer is trained on them too.
LINES = [
    ("What floats on water?", "A boat floats, and so does cork."),
    ("What is a keel for?", "It holds the ship straight."),
    ("Two crates and three more?", "Five crates."),
    ("Name a sail.", "The jib is a sail."),
    ("Where is the line?", "On the hull, a little above the water."),
    ("Is the tide high or low?", "Low: the sand is bare."),
    ("Count to four.", "1, 2, 3, 4."),
    ("Who steers the ship?", "The helmsman, at the wheel."),
    ("What lies below the line stays?", "Yes, what lies below stays."),
    ("6 barrels less 2?", "4 barrels."),
    ("How is the wind?", "It blows from the north-east."),
    ("Say it in French: the sea.", "La mer, c'est \u00e7a."),
    ("Which way is port?", "Left, when you look ahead."),
    ("Which way is starboard?", "Right, when you look ahead."),
    ("What does the cook make?", "Soup and bread."),
    ("Is the cargo heavy?", "It is: 30 tons of salt."),
    ("When do we sail?", "At dawn, with the tide."),
    ("10 ropes, 3 lost?", "7 ropes."),
    ("What is in the crate?", "Tea, and tins of fish."),
    ("Do ships sleep?", "No.\nTheir crews do."),
    ("Who paints the hull?", "The crew, when the ship is dry."),
    ("What is the time?", "Six bells."),
    ("Draw a star.", "\u2605"),
    ("Where does the river end?", "In the sea."),
]

# name -> seed, config, dtype of the stored weights, largest file of the stored weights, GGUF file type
MODELS = {
    "tiny-gqa-tied": {
        "seed": 11,
        "config": {
            "vocab_size": TOKENIZER_SIZE, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
            "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "dtype": torch.float32, "max_shard_size": "5GB", "gguf": gguf.LlamaFileType.MOSTLY_F16,
    },
    "tiny-llama3-untied": {
        "seed": 12,
        "config": {
            "vocab_size": 96, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
            # head_dim is not hidden_size / num_attention_heads
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
            "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 2, "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            },
        },
        "dtype": torch.bfloat16, "max_shard_size": 70_000, "gguf": gguf.LlamaFileType.MOSTLY_BF16,
    },
    "tiny-linear": {
        "seed": 13,
        "config": {
            "vocab_size": 64, "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 2,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.0},
        },
        "dtype": torch.float32, "max_shard_size": "5GB", "gguf": gguf.LlamaFileType.ALL_F32,
    },
}

# model -> adapter -> dtype of the stored weights, arguments of LoraConfig
ADAPTERS = {
    "tiny-gqa-tied": {
        "plain": (torch.float32, {"r": 4, "lora_alpha": 12, "target_modules": list(PROJECTIONS)}),
        "rslora": (torch.float16, {
            "r": 8, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "v_proj"],
        }),
        "patterns": (torch.bfloat16, {
            "r": 4, "lora_alpha": 10, "target_modules": r".*\.layers\.\d+\.(self_attn\.(q|o)|mlp\.(down|up))_proj",
            # Two keys match layer 2's q_proj: the first in the file is used, and PEFT writes them sorted.
            "rank_pattern": {"layers.2.self_attn.q_proj": 6, "q_proj": 2, r"layers\.[01]\.mlp\.down_proj": 3},
            "alpha_pattern": {"layers.0.self_attn.q_proj": 3, "layers.3.mlp.up_proj": 7, "o_proj": 16},
        }),
        "layers": (torch.float32, {
            "r": 3, "lora_alpha": 9, "target_modules": ["k_proj", "v_proj", "down_proj"],
            "layers_to_transform": [0, 2], "layers_pattern": "layers",
        }),
        "all_linear": (torch.float32, {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"}),
    },
    "tiny-llama3-untied": {
        "plain": (torch.float32, {"r": 4, "lora_alpha": 12, "target_modules": list(PROJECTIONS)}),
        "attention": (torch.bfloat16, {"r": 5, "lora_alpha": 10, "target_modules": ["q_proj", "k_proj", "o_proj"]}),
    },
    "tiny-linear": {
        "plain": (torch.float32, {"r": 2, "lora_alpha": 6, "target_modules": list(PROJECTIONS)}),
        # layers_to_transform as a number, and no LoRA in layer 0.
        "one_layer": (torch.float32, {
            "r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": 1,
        }),
    },
}

# A trained adapter: its lower layers are trained on LINES, its upper ones have noise that harms every answer. By
# construction the correct boundary is `layers`, and this cut is better than the full adapter.
TRAINED = {
    "seed": 1110, "layers": 2, "steps": 200, "rate": 0.03, "noise": 0.15,
    "options": {"r": 4, "lora_alpha": 8, "target_modules": list(PROJECTIONS)},
}

# The adapter whose predictions are in the answers of the golden sequences, so that some predictions are correct.
GUESSING = "plain"

# Length and answer positions of every golden sequence: the shortest possible, an answer of one token, a usual one, and
# one with two answers. The last starts with the first 5 tokens of the third.
SEQUENCES = [(3, [1, 2]), (6, [5]), (13, list(range(4, 13))), (40, [*range(10, 16), *range(25, 40)])]
SHARED_PREFIX = 5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "golden")
    out = parser.parse_args().out
    settle()

    write_data(out / "data")
    for name, spec in MODELS.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        write_model(folder, spec)
        if name == "tiny-gqa-tied":
            write_tokenizer(folder)
        write_gguf(out / f"{name}.gguf", name, folder, spec["gguf"])
        for number, (adapter, (dtype, options)) in enumerate(ADAPTERS[name].items()):
            write_adapter(folder, adapter, dtype, options, seed=100 * spec["seed"] + number)
        sequences = make_sequences(folder, seed=spec["seed"])
        for adapter in ADAPTERS[name]:
            write_golden(folder, adapter, sequences, seed=spec["seed"])
        if name == "tiny-gqa-tied":
            write_data_golden(folder, "plain")
            write_trained_adapter(folder, "trained", TRAINED)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size} bytes")


# Models


def write_model(folder, spec):
    """Writes a model in Hugging Face format, and a second config with the keys of transformers 4."""
    config = LlamaConfig(**spec["config"])
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(spec["seed"])
    with torch.no_grad():
        # Standard deviations at which every layer matters: the output of a layer is about as large as the residual
        # stream, attention is far from uniform, and the logits are not so large that the answer is certain.
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                value = 1 + 0.2 * noise
            elif "embed_tokens" in name or "lm_head" in name:
                value = 0.4 * noise
            else:
                value = noise * weight.shape[1] ** -0.5 * (1.5 if "q_proj" in name or "k_proj" in name else 0.7)
            # Exact in every stored dtype, so that the GGUF file has the same numbers.
            weight.copy_(value.to(torch.bfloat16 if spec["dtype"] == torch.bfloat16 else torch.float16))
    model.to(spec["dtype"]).save_pretrained(folder, max_shard_size=spec["max_shard_size"])

    # Most models on the Hub have the keys of transformers 4.
    older = json.loads((folder / "config.json").read_text())
    rope = older.pop("rope_parameters")
    older["rope_theta"] = rope.pop("rope_theta")
    older["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    older["torch_dtype"] = older.pop("dtype")
    older["transformers_version"] = "4.46.0"
    write_json(folder / "config.v4.json", older)
    again = LlamaConfig.from_pretrained(folder / "config.v4.json")
    assert again.rope_parameters == config.rope_parameters, "config.v4.json has different rope parameters"


def write_tokenizer(folder):
    """Writes a byte-level BPE tokenizer: 3 special tokens, the 256 bytes and a few merges. It can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE, special_tokens=SPECIAL_TOKENS, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    text = [part for line in LINES for part in line] + ["user assistant system"] * 8
    tokenizer.train_from_iterator(text, trainer)
    assert tokenizer.get_vocab_size() == TOKENIZER_SIZE
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False,
        "bos_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 256,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    })


def write_gguf(path, name, folder, file_type):
    """Writes the same model as GGUF, with the metadata and tensors that llama.cpp reads for architecture `llama`."""
    config = LlamaConfig.from_pretrained(folder)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    rope_type = config.rope_parameters["rope_type"]
    if rope_type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])
    write_gguf_tokenizer(writer, folder, config.vocab_size)

    if rope_type == "llama3":
        # llama.cpp stores this scaling as a divisor for each frequency.
        rotary = LlamaForCausalLM(config).model.rotary_emb
        plain, _ = rotary.compute_default_rope_parameters(config)
        divisors = (plain.double() / rotary.inv_freq.double()).float()
        assert divisors[0] == 1 and divisors[-1] > 1, "the rope scaling has no effect"
        writer.add_tensor("rope_freqs.weight", divisors.numpy())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for key, weight in stored_weights(folder).items():
        weight = weight.float()
        heads = {"q_proj.weight": config.num_attention_heads, "k_proj.weight": config.num_key_value_heads}
        for suffix, count in heads.items():
            if key.endswith(suffix):
                weight = weight[interleaved_rows(count, config.head_dim)]
        kind = gguf.GGMLQuantizationType.F32
        if weight.dim() > 1 and file_type != gguf.LlamaFileType.ALL_F32:
            bf16 = file_type == gguf.LlamaFileType.MOSTLY_BF16
            kind = gguf.GGMLQuantizationType.BF16 if bf16 else gguf.GGMLQuantizationType.F16
        stored = gguf.quants.quantize(weight.numpy(), kind)
        assert np.array_equal(gguf.quants.dequantize(stored, kind), weight.numpy()), f"{key} is not exact"
        writer.add_tensor(names.get_name(key, try_suffixes=(".weight",)), stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    again = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).state_dict()
    for key, weight in stored_weights(folder).items():
        assert torch.equal(again[key], weight.float()), f"{key} is changed by the conversion to GGUF and back"


def write_gguf_tokenizer(writer, folder, size):
    """Adds the folder's tokenizer, or as many unused tokens as the model's vocabulary has if there is no tokenizer."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    if (folder / "tokenizer.json").exists():
        model = json.loads((folder / "tokenizer.json").read_text())["model"]
        tokens = sorted(model["vocab"], key=model["vocab"].get)
        merges = [" ".join(pair) for pair in model["merges"]]
        types = [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
        writer.add_pad_token_id(0)
        writer.add_chat_template(CHAT_TEMPLATE)
    else:
        tokens = SPECIAL_TOKENS + [f"<|unused_{number}|>" for number in range(3, size)]
        # One pair of letters, because readers expect at least one merge.
        tokens[3:6] = ["a", "b", "ab"]
        merges = ["a b"]
        types = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 3 + [gguf.TokenType.UNUSED] * (size - 6)
    assert len(tokens) == size
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)


def interleaved_rows(heads, head_dim):
    """Rows of q and k in llama.cpp's order: it rotates pairs (2i, 2i+1), transformers pairs (i, i + head_dim/2)."""
    half = head_dim // 2
    return [head * head_dim + i + second * half for head in range(heads) for i in range(half) for second in (0, 1)]


def stored_weights(folder):
    """Every tensor of a model folder, from one file or several."""
    weights = {}
    for path in sorted(folder.glob("model*.safetensors")):
        weights |= load_file(path)
    return weights


# Adapters


def write_adapter(folder, adapter, dtype, options, seed):
    """Writes an adapter as PEFT saves it, with random A and B."""
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **options)
    model = get_peft_model(load_model(folder, torch.float32), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                # With a scaling of 2 to 3, the update is about a quarter of the frozen product.
                spread = weight.shape[1] ** -0.5 if "lora_A" in name else 0.1
                weight.data = (spread * torch.randn(weight.shape, generator=generator)).to(dtype)
    save_adapter(model, folder, adapter)


def save_adapter(model, folder, adapter):
    """Saves with PEFT, and makes the config independent of the run and the machine."""
    target = folder / "adapters" / adapter
    model.save_pretrained(target)
    (target / "README.md").unlink()

    # PEFT writes sets in an order that changes between runs, and the base model's path on this machine.
    config = json.loads((target / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = folder.name
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def write_trained_adapter(folder, adapter, spec):
    """Writes an adapter on all layers, trained in the lower ones, with noise in B of the upper ones."""
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **spec["options"])
    model = get_peft_model(load_model(folder, torch.float32), config)
    generator = torch.Generator().manual_seed(spec["seed"])
    trained, noisy = [], []
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            weight.data = weight.shape[1] ** -0.5 * torch.randn(weight.shape, generator=generator)
        if "lora_" in name:
            lower = any(f".layers.{layer}." in name for layer in range(spec["layers"]))
            weight.requires_grad_(lower)
            if lower:
                trained.append(weight)
            elif "lora_B" in name:
                noisy.append(weight)  # zero, PEFT's initial value

    tokenizer = AutoTokenizer.from_pretrained(folder)
    samples = [tokenise_turns(tokenizer, prompt, completion) for prompt, completion in LINES]
    ids = torch.zeros(len(samples), max(len(ids) for ids, _ in samples), dtype=torch.long)
    targets = torch.full_like(ids, -100)  # ignored by cross_entropy
    for row, (tokens, answer) in enumerate(samples):
        # Padded on the right: no answer token attends to the padding.
        ids[row, : len(tokens)] = torch.tensor(tokens)
        targets[row, answer] = torch.tensor(tokens)[answer]
    optimizer = torch.optim.Adam(trained, lr=spec["rate"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, spec["steps"])
    for _ in range(spec["steps"]):
        logits = model(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for weight in noisy:
        weight.data = spec["noise"] * torch.randn(weight.shape, generator=generator)
    save_adapter(model, folder, adapter)

    # For every sample, in nats per token: the boundary is far better than the base, and clearly better than every other
    # boundary.
    adapted = load_double(folder, adapter)
    for number, (ids, answer) in enumerate(samples):
        nll = [variant["nll"] / len(answer) for variant in score_boundaries(adapted, ids, answer)["variants"]]
        kept = spec["layers"]
        assert nll[kept] < nll[0] - 3, (number, nll)
        assert all(nll[kept] < other - 0.03 for k, other in enumerate(nll) if k != kept), (number, nll)


# Golden values


def write_golden(folder, adapter, golden_sequences, seed):
    """Writes the golden values of one adapter, and those of the base model."""
    adapted = load_double(folder, adapter)
    single, _ = load_adapter(load_model(folder, torch.float32), folder / "adapters" / adapter)
    layers = adapted.layers
    base, full, sequences, noise = {}, {}, [], {"nll_relative": 0.0, "hidden": 0.0, "logits": 0.0}
    gates = random_gates(layers, seed)
    for number, (ids, answer) in enumerate(golden_sequences):
        sequence = {"line": number + 1, "ids": ids, "answer": answer} | score_boundaries(adapted, ids, answer)
        rough = score_boundaries(single, ids, answer)
        for exact, other in zip(sequence["variants"], rough["variants"], strict=True):
            noise["nll_relative"] = max(noise["nll_relative"], abs(other["nll"] / exact["nll"] - 1))
            assert other["correct"] == exact["correct"], "a near tie: f32 and f64 predict different tokens"
        for exact, other in zip(sequence["lens"], rough["lens"], strict=True):
            assert exact["top1"] == other["top1"] and exact["rank"] == other["rank"], "a near tie in the lens"

        adapted.set_gates(gates)
        sequence["gated"] = score(adapted.forward(ids)[1], ids, answer)
        sequences.append(sequence)

        for kept, tensors in [(0, base), (layers, full)]:
            adapted.keep_layers(kept)
            single.keep_layers(kept)
            hidden, logits = adapted.forward(ids)
            rough_hidden, rough_logits = single.forward(ids)
            noise["hidden"] = max(noise["hidden"], (hidden - rough_hidden).abs().max().item())
            noise["logits"] = max(noise["logits"], (logits - rough_logits).abs().max().item())
            tensors[f"hidden.{number}"] = hidden.float().contiguous()
            tensors[f"logits.{number}"] = logits.float().contiguous()
    check_that_layers_matter(adapted, base, full, sequences)

    # One key, because safetensors writes several in no fixed order.
    about = json.dumps({"model": folder.name, "versions": versions()})
    save_file(full, folder / f"{adapter}.golden.safetensors", metadata={"about": about})
    save_file(base, folder / "base.golden.safetensors", metadata={"about": about})
    write_json(folder / f"{adapter}.golden.json", {
        "versions": versions(),
        "model": folder.name,
        "adapter": adapter,
        "layers": layers,
        "single_precision": noise,
        "gates": gates,
        "sequences": sequences,
    })


def check_that_layers_matter(adapted, base, full, sequences):
    """Checks that every layer and every update has an effect. Otherwise tests could not detect a wrong one."""
    lowest = min(layer for layer, _ in adapted.updates)
    adapted_layers = {layer for layer, _ in adapted.updates}
    for number, sequence in enumerate(sequences):
        without, whole = base[f"hidden.{number}"], full[f"hidden.{number}"]
        for layer in range(adapted.layers):
            moved = (whole[layer] - without[layer]).abs().max().item()
            assert (moved > 1e-2) == (layer >= lowest), (number, layer, moved)
            if layer > 0:
                assert (without[layer] - without[layer - 1]).abs().max() > 0.1
        nll = [variant["nll"] for variant in sequence["variants"]]
        for layer in range(adapted.layers):
            assert (abs(nll[layer + 1] - nll[layer]) > 1e-3) == (layer in adapted_layers), (number, layer, nll)


def make_sequences(folder, seed):
    """Token ids and answer positions of every golden sequence.

    Of every three answer tokens, one is the base model's prediction, one is the full adapter's, and one is random. With
    random tokens only, almost no prediction would be correct, and a count that is always 0 tests nothing.
    """
    adapted = load_double(folder, GUESSING)
    vocab_size = adapted.causal.config.vocab_size
    generator = torch.Generator().manual_seed(1000 + seed)
    sequences = []
    for length, answer in SEQUENCES:
        ids = torch.randint(vocab_size, (length,), generator=generator).tolist()
        if len(sequences) == 3:
            ids[:SHARED_PREFIX] = sequences[2][0][:SHARED_PREFIX]
        for number, position in enumerate(answer):
            if number % 3 < 2:
                adapted.keep_layers(adapted.layers * (number % 3))
                ids[position] = adapted.forward(ids[:position])[1][-1].argmax().item()
        sequences.append((ids, answer))
    return sequences


def random_gates(layers, seed):
    """`gates`: a LoRA strength for each layer and projection; some are 0, some 1, some between 0 and 1 or above 1."""
    generator = torch.Generator().manual_seed(2000 + seed)
    choice = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.5])
    return choice[torch.randint(len(choice), (layers, len(PROJECTIONS)), generator=generator)].tolist()


def write_data(folder):
    """Writes the lines of the command-line tests."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": prompt, "completion": answer}, ensure_ascii=False) for prompt, answer in LINES]
    (folder / "valid.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_data_golden(folder, adapter):
    """Writes tokens and scores of the lines under one adapter: what a complete search must find."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    adapted = load_double(folder, adapter)
    samples = []
    for number, (prompt, completion) in enumerate(LINES):
        ids, answer = tokenise_turns(tokenizer, prompt, completion)
        assert len(ids) < 200
        samples.append({"line": number + 1, "ids": ids, "answer": answer} | score_boundaries(adapted, ids, answer))
    write_json(folder / f"valid.{adapter}.golden.json", {
        "versions": versions(),
        "model": folder.name,
        "adapter": adapter,
        "data": "data/valid.jsonl",
        "layers": adapted.layers,
        "samples": samples,
    })


def load_model(folder, dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def load_double(folder, adapter):
    """Model and adapter in f64. PEFT first converts stored f16 and bf16 to f32, which is exact."""
    adapted, heard = load_adapter(load_model(folder, torch.float64), folder / "adapters" / adapter)
    assert not heard, heard
    return Adapted(to_double(adapted.model))


def write_json(path, value):
    """Writes readable JSON: one line for each innermost object or list."""
    path.write_text(pretty(value) + "\n", encoding="utf-8")


def pretty(value, depth=0):
    inline = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value:
        return inline
    children = value.values() if isinstance(value, dict) else value
    if not any(isinstance(child, (dict, list)) for child in children):
        return inline if depth else json.dumps(value, ensure_ascii=False, indent=2)
    indent = "  " * (depth + 1)
    if isinstance(value, dict):
        rows = [f"{indent}{json.dumps(key)}: {pretty(child, depth + 1)}" for key, child in value.items()]
        opening, closing = "{", "}"
    else:
        rows = [indent + pretty(child, depth + 1) for child in value]
        opening, closing = "[", "]"
    return opening + "\n" + ",\n".join(rows) + "\n" + "  " * depth + closing


if __name__ == "__main__":
    main()
