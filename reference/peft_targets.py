"""Which modules of a three-layer Llama PEFT adapts, and with which rank and scaling, for a list of configs.

Writes crates/plimsoll/tests/fixtures/peft_targets.json. Each config has either `modules`, a map from module path to
[r, scaling] as in PEFT's own layers, or `refused`, PEFT's error. `linear` lists all linear modules of the model.
Run: python reference/peft_targets.py
"""

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.error import NoMatchingPeftModuleError
from transformers import LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).resolve().parent.parent / "crates/plimsoll/tests/fixtures/peft_targets.json"

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATH = "model.layers.1.self_attn.q_proj"

# Differences from the default {r: 4, lora_alpha: 6}.
CASES = {
    "two names": {"target_modules": ["q_proj", "v_proj"]},
    "all names": {"target_modules": ALL},
    "longer endings": {"target_modules": ["self_attn.q_proj", "mlp.down_proj"]},
    "an ending must begin at a dot": {"target_modules": ["proj", "q_proj"]},
    "one full path": {"target_modules": [PATH]},
    "all-linear": {"target_modules": "all-linear"},
    "all-linear in capitals": {"target_modules": "ALL-LINEAR"},
    "all-linear without one": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "a regex": {"target_modules": r".*\.layers\.[01]\..*(q|v)_proj"},
    "a regex must match the whole path": {"target_modules": r"model\.layers\.0\.self_attn\.q|.*k_proj"},
    "a regex with look-ahead": {"target_modules": r"model\.layers\.(?!1\.)\d+\.mlp\.(?:gate|up)_proj"},
    "a regex with an inline flag": {"target_modules": r"(?i).*LAYERS\.2\..*O_PROJ"},
    "the head": {"target_modules": ["q_proj", "lm_head"]},
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": 1},
    "layer 0 as a number": {"target_modules": ["q_proj"], "layers_to_transform": 0},
    "some layers": {"target_modules": ALL, "layers_to_transform": [0, 2]},
    "no layers means all": {"target_modules": ["q_proj"], "layers_to_transform": []},
    "no layers means all, with a pattern": {
        "target_modules": ["q_proj"], "layers_to_transform": [], "layers_pattern": "layers"},
    "layers with a pattern": {"target_modules": ALL, "layers_to_transform": [0, 1], "layers_pattern": "layers"},
    "layers with a list of patterns": {
        "target_modules": ["k_proj"], "layers_to_transform": [2], "layers_pattern": ["h", "layers"]},
    "layers with an empty pattern": {"target_modules": ["k_proj"], "layers_to_transform": [2], "layers_pattern": []},
    "layers with a regex as pattern": {
        "target_modules": ["k_proj"], "layers_to_transform": [2], "layers_pattern": "lay[a-z]+"},
    "layers with an alternation as pattern": {
        "target_modules": ["k_proj"], "layers_to_transform": [1], "layers_pattern": "h|layers"},
    "a full path is not restricted to layers": {
        "target_modules": [PATH, "v_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
    "layers do not reach the head": {"target_modules": ["v_proj", "lm_head"], "layers_to_transform": [0]},
    "excluded by ending": {"target_modules": ["q_proj", "v_proj"], "exclude_modules": ["1.self_attn.v_proj"]},
    "excluded by regex": {"target_modules": ALL, "exclude_modules": r".*layers\.2\..*"},
    "exclusion by regex is of the whole path": {"target_modules": ["q_proj", "k_proj"], "exclude_modules": r"k_proj|.*1.*"},
    "excluded from a regex": {"target_modules": r".*_proj", "exclude_modules": [PATH, "mlp.up_proj"]},
    "rank by name": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}},
    "rank and alpha": {
        "target_modules": ALL, "rank_pattern": {"self_attn.q_proj": 8}, "alpha_pattern": {"mlp.up_proj": 1, "q_proj": 3}},
    "the first pattern wins": {
        "target_modules": ["q_proj"],
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 8, "1.self_attn.q_proj": 3}},
    "an anchored pattern": {
        "target_modules": ["q_proj"], "rank_pattern": {f"^{PATH}": 2, "^layers.2.self_attn.q_proj": 3}},
    "a pattern by regex": {
        "target_modules": ALL, "rank_pattern": {r"layers\.[02]\..*_proj": 2}, "alpha_pattern": {"(k|o)_proj": 12}},
    "an alternation stays in its group": {"target_modules": ["q_proj", "k_proj"], "rank_pattern": {"k_proj|proj": 2}},
    "a dot in a pattern is any character": {"target_modules": ["q_proj"], "rank_pattern": {"self.attn.q.proj": 2}},
    "an escaped dot is a dot": {"target_modules": ["q_proj"], "rank_pattern": {r"self\.attn\.q_proj": 2}},
    "a pattern is an ending": {"target_modules": ["q_proj"], "rank_pattern": {"self_attn": 2, "roj": 3}},
    "rslora": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "rank_pattern": {"v_proj": 16}},
    "rslora with alpha": {"target_modules": ["q_proj", "v_proj"], "use_rslora": True, "alpha_pattern": {"v_proj": 0.5}},
    "regex and layers": {"target_modules": r".*q_proj", "layers_to_transform": [0]},
    "regex and no layers": {"target_modules": r".*q_proj", "layers_to_transform": []},
    "regex and pattern": {"target_modules": r".*q_proj", "layers_pattern": "layers"},
    "pattern without layers": {"target_modules": ["q_proj"], "layers_pattern": "layers"},
    "rank 0": {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 0}},
    "not a regex": {"target_modules": r".*(q_proj"},
}


def model():
    config = LlamaConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2,
                         num_key_value_heads=1, vocab_size=11, tie_word_embeddings=False)
    return LlamaForCausalLM(config)


def outcome(fields):
    """The modules that PEFT adapts under one config, or its error."""
    try:
        adapted = get_peft_model(model(), LoraConfig(task_type="CAUSAL_LM", **fields)).base_model.model
    except NoMatchingPeftModuleError:
        return {"modules": {}}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    layers = {name: module for name, module in adapted.named_modules() if isinstance(module, LoraLayer)}
    return {"modules": {name: [layer.r["default"], layer.scaling["default"]] for name, layer in layers.items()}}


def main():
    warnings.simplefilter("ignore")
    cases = []
    for name, differs in CASES.items():
        fields = {"r": 4, "lora_alpha": 6, **differs}
        # outcome() gets a copy, because PEFT changes the config that it receives.
        cases.append({"name": name, "config": {"peft_type": "LORA", **fields}} | outcome(json.loads(json.dumps(fields))))
    linear = [name for name, module in model().named_modules() if isinstance(module, torch.nn.Linear)]
    fixture = {"versions": {name: version(name) for name in ("peft", "torch", "transformers")}, "linear": linear,
               "cases": cases}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(fixture, indent=1) + "\n")


if __name__ == "__main__":
    main()
