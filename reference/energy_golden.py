"""Writes energy.json: the energy of every LoRA update of tiny models, by PyTorch and PEFT in f64.

The energy of a module is the squared norm of its update, ||s * B(A(x))||^2, summed over all tokens, in runs of the full
adapter. LoRA-drop (arXiv:2402.07721) ranks layers by it. Hooks in PEFT's own modules read the updates.
"""

import json
import re

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from peft_scores import FIXTURES, PROJECTIONS, settle, to_double, versions

CASES = [("tiny-gqa-tied", "patterns"), ("tiny-gqa-tied", "rslora"), ("tiny-llama3-untied", "plain")]


def energies(model, sequences):
    """`[layer][projection]`, summed over the tokens of all sequences."""
    sums = [[0.0] * len(PROJECTIONS) for _ in model.get_base_model().model.layers]

    def watch(layer, projection):
        def hook(module, inputs):
            update = module.scaling["default"] * module.lora_B["default"](module.lora_A["default"](inputs[0]))
            sums[layer][projection] += update.square().sum().item()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            found = re.search(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$", name)
            module.register_forward_pre_hook(watch(int(found[1]), PROJECTIONS.index(found[2])))
    with torch.no_grad():
        for tokens in sequences:
            model(input_ids=torch.tensor([tokens]))
    return sums


def main():
    settle()
    cases = []
    for name, adapter in CASES:
        folder = FIXTURES / "golden" / name
        if not (folder / "adapters" / adapter).is_dir():
            continue
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        model = PeftModel.from_pretrained(model, folder / "adapters" / adapter)
        vocabulary = model.get_base_model().config.vocab_size
        generator = torch.Generator().manual_seed(7)
        sequences = [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in (5, 1, 17)]
        sums = energies(to_double(model), sequences)
        cases.append({"model": name, "adapter": adapter, "sequences": sequences, "energies": sums})
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"versions": {json.dumps(versions())},\n"cases": [\n{lines}\n]}}\n'
    (FIXTURES / "energy.json").write_text(text)


if __name__ == "__main__":
    main()
