"""Writes `generate.json`: greedy texts by transformers with PEFT, and the probabilities that its sampling computes.

    python generate_golden.py [--out FILE]

Reads the tiny models that make_fixtures.py wrote, and does not change them. Greedy texts are those of `generate` in f32
with eager attention and a cache, one prompt at a time. Dropped layers have lora_B set to zero (see
peft_scores.Adapted). Each token has its gap: the largest logit minus the second. If a gap is tiny, another order of
additions can correctly choose the other token; the prompts were chosen so that no gap is tiny. The f64 model, run
without a cache, must choose the same tokens.

Sampling probabilities are those after the processors that `generate` itself creates for the settings, in f64. README.md
describes the layout. On the same machine, every run writes the same bytes.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from make_fixtures import load_double, write_json
from peft_scores import FIXTURES, load_adapter, settle, versions

NEW_TOKENS = 24
TINY_GAP = 1e-4
END = 2  # the end token of every tiny model

# model, adapter, variants, lengths of random prompts
RANDOM = [
    ("tiny-gqa-tied", "plain", (0, 2, 4), (1, 2, 7, 19, 60)),
    ("tiny-gqa-tied", "patterns", (0, 2, 4), (5, 13, 31)),
    ("tiny-llama3-untied", "plain", (0, 2, 3), (1, 3, 16, 41)),
    ("tiny-linear", "plain", (0, 1, 2), (2, 9, 30)),
]
# model, adapter, variants, lines of data/valid.jsonl whose prompts the chat template renders
LINES = [("tiny-gqa-tied", "trained", (0, 2, 4), (1, 3, 10, 18, 22, 23))]

VOCABULARY = 50
# Neutral settings are absent, as in `generate`. A repetition penalty applies to the vector's history.
SETTINGS = [
    {},
    {"temperature": 0.7},
    {"temperature": 0.1},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 80},  # larger than the vocabulary
    {"top_p": 0.9},
    {"top_p": 0.5},
    {"top_p": 0.01},  # one token is always kept
    {"min_p": 0.05},
    {"min_p": 0.3},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"temperature": 0.7, "top_k": 10},
    {"temperature": 1.5, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.1},
    {"top_k": 8, "top_p": 0.7},  # top-p uses the sum of the tokens that top-k kept
    {"top_p": 0.6, "min_p": 0.2},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 0.8, "repetition_penalty": 1.2},
    {"top_k": 6, "repetition_penalty": 1.5},  # the penalty comes first, so it changes which tokens are kept
    {"temperature": 1.3, "top_k": 20, "top_p": 0.85, "min_p": 0.02, "repetition_penalty": 1.1},
]
ORDER = ("RepetitionPenalty", "Temperature", "TopK", "TopP", "MinP")
# Settings whose result is defined for equal logits. Top-p is absent: it does not define which of them is removed.
TIE_SETTINGS = [{}, {"top_k": 1}, {"top_k": 3}, {"top_k": 4}, {"min_p": 0.5}, {"temperature": 0.5, "top_k": 2}]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES / "generate.json")
    out = parser.parse_args().out
    settle()

    greedy = []
    for number, (model, adapter, variants, lengths) in enumerate(RANDOM):
        greedy.append(generate_all(model, adapter, variants, random_prompts(model, lengths, seed=3020 + number)))
    for model, adapter, variants, lines in LINES:
        greedy.append(generate_all(model, adapter, variants, rendered_prompts(model, lines)))
    check_that_texts_differ(greedy)
    write_json(out, {
        "versions": versions(),
        "new_tokens": NEW_TOKENS,
        "end": END,
        "greedy": greedy,
        "sampling": sampling(),
    })
    print(f"{out}: {out.stat().st_size} bytes")


# Greedy texts


def random_prompts(model, lengths, seed):
    size = json.loads((FIXTURES / "golden" / model / "config.json").read_text())["vocab_size"]
    generator = torch.Generator().manual_seed(seed)
    return [{"prompt": torch.randint(3, size, (length,), generator=generator).tolist()} for length in lengths]


def rendered_prompts(model, lines):
    """Prompts of the data, each as one user turn with the generation prompt."""
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "golden" / model)
    data = (FIXTURES / "golden/data/valid.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = []
    for line in lines:
        turn = {"role": "user", "content": json.loads(data[line - 1])["prompt"]}
        text = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        prompts.append({"line": line, "prompt": tokenizer.encode(text, add_special_tokens=False)})
    return prompts


def decode(model, tokens):
    """The text of the tokens before the end token."""
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "golden" / model)
    before = tokens[: tokens.index(END)] if END in tokens else tokens
    assert not set(before) & set(tokenizer.all_special_ids), "special tokens are decoded differently by engines"
    return tokenizer.decode(before, clean_up_tokenization_spaces=False)


def generate_all(model, adapter, variants, prompts):
    """The greedy texts of every prompt under every variant."""
    folder = FIXTURES / "golden" / model
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    adapted, heard = load_adapter(base, folder / "adapters" / adapter)
    assert not heard, heard
    exact = load_double(folder, adapter)
    # The end token does not stop generation here, so that every text has the same length.
    adapted.causal.generation_config = GenerationConfig()
    texts = []
    for prompt in prompts:
        for kept in variants:
            adapted.keep_layers(kept)
            exact.keep_layers(kept)
            tokens, gaps = generate(adapted, prompt["prompt"])
            check_choices(exact, prompt["prompt"], tokens, gaps)
            texts.append(prompt | {
                "layers_kept": kept,
                "tokens": tokens,
                "gaps": [float(f"{gap:.4g}") for gap in gaps],
            } | ({"text": decode(model, tokens)} if "line" in prompt else {}))
    return {"model": model, "adapter": adapter, "layers": adapted.layers, "texts": texts}


def generate(adapted, ids):
    """The greedy tokens after `ids`, and the gap between the two largest logits at each."""
    found = adapted.model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert len(found.logits) == NEW_TOKENS, "generation stopped early"
    best = torch.cat(found.logits).topk(2).values  # (new tokens, 2)
    return found.sequences[0, len(ids) :].tolist(), (best[:, 0] - best[:, 1]).tolist()


def check_choices(exact, ids, tokens, gaps):
    """Checks that no choice was close, and that the f64 model chooses the same token after the same previous tokens."""
    _, logits = exact.forward(ids + tokens[:-1])
    choices = logits[len(ids) - 1 :].argmax(1).tolist()
    assert min(gaps) > TINY_GAP, f"gap of {min(gaps)}: use another seed"
    assert tokens == choices


def check_that_texts_differ(greedy):
    """Checks that variants give different texts, and that some texts, but not all, have the end token."""
    ended = []
    for group in greedy:
        by_prompt = {}
        for text in group["texts"]:
            by_prompt.setdefault(tuple(text["prompt"]), []).append(tuple(text["tokens"]))
            ended.append(END in text["tokens"])
        differing = sum(len(set(texts)) == len(texts) for texts in by_prompt.values())
        assert differing > len(by_prompt) / 2, (group["model"], group["adapter"], differing)
    assert any(ended) and not all(ended)


# Sampling


def sampling():
    """Vectors of logits, and the probabilities of their tokens under each of the settings."""
    model = AutoModelForCausalLM.from_pretrained(FIXTURES / "golden/tiny-linear").eval()
    vectors, cases = [], []
    for number, spread in enumerate((1.0, 3.0, 8.0)):
        generator = torch.Generator().manual_seed(4000 + number)
        logits = spread * torch.randn(VOCABULARY, generator=generator)
        vectors.append((logits, torch.randint(VOCABULARY, (12,), generator=generator).tolist()))
        # The history has the most probable token twice, and the least probable one once.
        vectors[-1][1][3:6] = [logits.argmax().item(), logits.argmin().item(), logits.argmax().item()]
    # Two equal largest logits, and three equal ones in fourth place.
    tied = torch.linspace(-3, -1, VOCABULARY)
    tied[[7, 31]], tied[11], tied[[2, 19, 40]] = 2.5, 2.25, 1.5
    vectors.append((tied, []))
    # Multiples of a power of two are exact in f32 and f64, and short in JSON.
    vectors = [((logits * 256).round() / 256, history) for logits, history in vectors]
    for number, (logits, history) in enumerate(vectors):
        for settings in SETTINGS if history else TIE_SETTINGS:
            scores = process(model, logits.double(), history, settings)
            rough = process(model, logits, history, settings)
            assert torch.equal(scores.isfinite(), rough.isfinite()), "f32 and f64 keep different tokens"
            assert (scores.softmax(0) - rough.softmax(0)).abs().max() < 1e-6
            check_kept(int(scores.isfinite().sum()), settings, tied=not history)
            values = [float(f"{value:.12g}") for value in scores.softmax(0).tolist()]
            cases.append({"vector": number, "settings": settings, "probabilities": values})
    return {
        "vectors": [{"logits": logits.tolist(), "history": history} for logits, history in vectors],
        "cases": cases,
    }


def process(model, logits, history, settings):
    """The logits after the processors that `generate` would use."""
    config = GenerationConfig(**{"do_sample": True, "top_k": 0} | settings)
    processors = model._get_logits_processor(config, input_ids_seq_length=len(history))
    names = [type(processor).__name__.removesuffix("LogitsWarper") for processor in processors]
    names = [name.removesuffix("LogitsProcessor") for name in names]
    assert names == [name for name in ORDER if name in names] and len(names) == len(settings), names
    ids = torch.tensor([history], dtype=torch.long)
    return processors(ids, logits[None])[0]


def check_kept(kept, settings, tied):
    """Checks the number of tokens kept, if the settings alone determine it."""
    if tied and "top_k" in settings:
        # Logits equal to the last one that is kept are kept too.
        assert kept == {1: 2, 2: 2, 3: 3, 4: 6}[settings["top_k"]], kept
    elif "top_k" in settings:
        assert kept <= settings["top_k"]
    elif settings.get("min_p") == 1.0:
        assert kept == 1
    elif not {"top_p", "min_p"} & settings.keys():
        assert kept == VOCABULARY


if __name__ == "__main__":
    main()
