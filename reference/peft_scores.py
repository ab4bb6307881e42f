"""Scores of a sample's answer by PyTorch, transformers and PEFT. Shared by the scripts of this folder.

One simple forward pass per variant, and nothing shared between passes: this is the definition that plimsoll's engine is
compared with. The terms are those of the project. A *gate* is the LoRA strength of one module: y = Wx + gate * s *
B(Ax), with PEFT's scaling s. `layers_kept = k` has gate 1 in layers 0..k-1 and 0 above. The logits at position t - 1
score the token at position t. NLL is in nats, summed over the answer. The logit lens applies the model's own final norm
and head to the output of each decoder layer.
"""

import importlib.metadata
import logging
import platform
import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import modeling_gguf_pytorch_utils

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Fused modules: several projections in one. They come after the others.
FUSED = ("qkv_proj", "gate_up_proj")
ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/plimsoll/tests/fixtures"
# PEFT 0.21 reads a property of transformers 5.23 by its old name, for every adapter.
NOT_ABOUT_THE_ADAPTER = (FutureWarning, "`is_gradient_checkpointing` is deprecated and will be removed in v6.")
PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "numpy", "gguf")


def settle():
    """Settings of every script: one thread, because results depend on how sums are split; no progress bars, and no
    warning that is not about the adapter."""
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items
    category, start = NOT_ABOUT_THE_ADAPTER
    warnings.filterwarnings("ignore", re.escape(start), category)


def versions():
    """Version of every package that affects a value."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def to_double(model):
    """Converts a model to its f64 reference, in place.

    `model.double()` alone is not enough: the norms of transformers compute in f32 for any input. They are replaced by
    torch's RMSNorm, the same formula in the dtype of its input; Gemma's norms multiply by 1 + weight. The rotary angles
    stay f32, as transformers defines them.
    """
    model.double()
    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            kind = type(norm).__name__
            if kind.endswith("RMSNorm") and type(norm) is not torch.nn.RMSNorm:
                gemma = kind.startswith("Gemma")
                double = torch.nn.RMSNorm(norm.weight.shape, eps=norm.eps if gemma else norm.variance_epsilon, dtype=torch.float64)
                double.weight = torch.nn.Parameter(norm.weight.detach() + 1) if gemma else norm.weight
                setattr(parent, name, double)
    return model.eval()


class Adapted:
    """A PEFT model with a gate (LoRA strength) for each module."""

    def __init__(self, model):
        self.model = model.eval()
        self.causal = model.get_base_model()
        self.decoder = self.causal.model
        self.layers = len(self.decoder.layers)
        # The updates as loaded: set_gates always starts from these.
        self.updates = {}  # (layer, index of projection) -> (lora_B parameter, its loaded value)
        self.dora = {}  # (layer, index of projection) -> a list of one gate
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                found = re.search(r"\.layers\.(\d+)\.(?:self_attn|mlp)\.(\w+)$", name)
                if not found:
                    continue  # LoRA on embeddings or head, to which no gate applies
                place = int(found[1]), (PROJECTIONS + FUSED).index(found[2])
                if module.use_dora["default"]:
                    self.dora[place] = gated(module)
                    continue
                lora_b = module.lora_B["default"].weight
                self.updates[place] = (lora_b, lora_b.detach().clone())

    def set_gates(self, gates):
        """Multiplies every update by its gate; `gates[layer][projection]`, in the order of PROJECTIONS and FUSED."""
        for (layer, projection), gate in self.dora.items():
            gate[0] = gates[layer][projection]
        with torch.no_grad():
            for (layer, projection), (lora_b, value) in self.updates.items():
                lora_b.copy_(value * gates[layer][projection])

    def keep_layers(self, kept):
        """`layers_kept = kept`: sets the gates of layer `kept` and of all layers above it to 0."""
        self.set_gates([[float(layer < kept)] * len(PROJECTIONS + FUSED) for layer in range(self.layers)])

    @torch.no_grad()
    def forward(self, ids):
        """Output of each decoder layer, before the final norm (layers, tokens, hidden), and logits (tokens, vocab)."""
        outputs = []
        # Dynamic scaling keeps the frequencies of the longest sequence so far. They are reset here, so that each
        # sequence has its own.
        rotary = self.decoder.rotary_emb
        if "dynamic" in rotary.rope_type:
            rotary.register_buffer("inv_freq", rotary.original_inv_freq, persistent=False)
            rotary.max_seq_len_cached = rotary.original_max_seq_len

        def keep(_module, _inputs, output):
            outputs.append(output[0] if isinstance(output, tuple) else output)

        handles = [layer.register_forward_hook(keep) for layer in self.decoder.layers]
        try:
            logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat(outputs), logits[0]

    @torch.no_grad()
    def lens(self, hidden, ids, answer):
        """Logit lens: norm and head on the output of every layer. Three lists with one entry for each layer."""
        rows = torch.tensor(answer) - 1
        curve = {"probability": [], "top1": [], "rank": []}
        for state in hidden:  # (tokens, hidden)
            logits = self.causal.lm_head(self.decoder.norm(state[rows])).double()  # (answer, vocab)
            targets = torch.tensor(ids)[answer]
            wanted = logits.gather(1, targets[:, None])  # (answer, 1)
            curve["probability"].append(logits.softmax(1).gather(1, targets[:, None]).mean().item())
            curve["top1"].append((logits.argmax(1) == targets).double().mean().item())
            curve["rank"].append((logits > wanted).sum(1).double().mean().item())
        return curve


def gated(module):
    """Adds a gate to a DoRA module: base output + gate * (DoRA output - base output). The gate is the one element of
    the list that is returned."""
    gate, whole = [1.0], module.forward

    def forward(x, *args, **kwargs):
        base = module.base_layer(x)
        return base if gate[0] == 0 else base + gate[0] * (whole(x, *args, **kwargs) - base)

    module.forward = forward
    return gate


def score(logits, ids, answer):
    """NLL (nats, sum), probability (mean) and number of correct predictions over the answer's tokens."""
    rows = torch.tensor(answer) - 1
    targets = torch.tensor(ids)[answer]
    log_p = logits[rows].double().log_softmax(1)
    of_targets = log_p.gather(1, targets[:, None])
    return {
        "nll": -of_targets.sum().item(),
        "probability": of_targets.exp().mean().item(),
        "correct": int((log_p.argmax(1) == targets).sum()),
    }


def score_boundaries(adapted, ids, answer):
    """Scores of every boundary k = 0..L, and the lens of `base` (k = 0) and `full` (k = L), one pass for each k."""
    variants, lens = [], []
    for kept in range(adapted.layers + 1):
        adapted.keep_layers(kept)
        hidden, logits = adapted.forward(ids)
        variants.append(score(logits, ids, answer))
        if kept in (0, adapted.layers):
            lens.append(adapted.lens(hidden, ids, answer))
    return {"variants": variants, "lens": lens}


def tokenise_turns(tokenizer, prompt, completion):
    """Ids of a prompt and its answer, and the answer's positions.

    The chat template renders both turns, and the whole text is tokenised at once. The answer begins with the first
    token that has text after the prompt rendered with the generation prompt, and ends with the next special token.
    """
    user, assistant = {"role": "user", "content": prompt}, {"role": "assistant", "content": completion}
    before = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
    if not whole.startswith(before):
        raise ValueError("the template does not render the prompt as a prefix of the conversation")
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    first = next(index for index, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(before))
    special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = encoded["input_ids"]
    last = next(index for index in range(first, len(ids)) if ids[index] in special)
    return ids[: last + 1], list(range(first, last + 1))


def load_adapter(model, folder):
    """Loads an adapter with PEFT; returns it, and every warning and log record of that (see `complaints`)."""
    with complaints() as heard:
        adapted = PeftModel.from_pretrained(model, str(folder))
    return Adapted(adapted), heard


@contextmanager
def complaints():
    """Collects the block's warnings, and its log records of level WARNING and above, into the list that it yields.

    Leaves out NOT_ABOUT_THE_ADAPTER.
    """
    heard = []

    class Listener(logging.Handler):
        def emit(self, record):
            heard.append(f"{record.name}: {record.getMessage()}")

    listener = Listener(logging.WARNING)
    # transformers' records do not reach the root logger, so each logger gets the handler by its name.
    loggers = [logging.getLogger(name) for name in ("peft", "transformers", "torch", "safetensors")]
    for logger in loggers:
        logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
        category, start = NOT_ABOUT_THE_ADAPTER
        for item in caught:
            if item.category is not category or not str(item.message).startswith(start):
                heard.append(f"{item.category.__name__}: {item.message}")
    finally:
        for logger in loggers:
            logger.removeHandler(listener)
