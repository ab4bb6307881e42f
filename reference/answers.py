"""Compares token ids of conversations, and which of them are scored, with transformers, TRL and lm-evaluation-harness.

    python reference/answers.py golden               writes crates/plimsoll/tests/fixtures/answers.json
    python reference/answers.py check MODEL.gguf ... prints a table; needs trl, and the built example:
                                                     cargo build --release -p plimsoll --example answers

The requirements apply to prompt and answer (TRL's completion mask), and to every turn of a conversation (transformers'
assistant mask, with templates that mark the assistant's text). The ids equal those of
`apply_chat_template(tokenize=True)` up to the last scored token. The first scored token of an answer is the first one
of the mask. If the mask continues after our last token, that token ends generation. For plain continuations, the scored
ids equal those of lm-evaluation-harness (`_encode_pair`), with two exceptions: only the harness scores the white space
at the end of the prompt, and only plimsoll scores a token that spans the end of the prompt and the beginning of the
answer.

`check` runs 2,000 conversations through the tokenizer's own template, through every template of TRL that suits the
tokenizer's special tokens, and through some of ours: once with the tokenizer from the GGUF file, and once with a
tokenizer.json that transformers makes from it (see `as_published`).
"""

import json
import random
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from gguf import GGUFReader
from tokenizers import normalizers, pre_tokenizers
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/plimsoll/tests/fixtures"
BINARY = ROOT / "target/release/examples/answers"
CONVERSATIONS = 2000

# Our own templates, each with the end-of-turn token of the tokenizer that it is used with.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}{% else %}{{ m.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Like TinyLlama's: role markers in plain text, and an EOS followed by a line feed.
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}\n{% endgeneration %}{% else %}{{ m.content }}{{ eos_token }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Like Llama 2's and Mistral's: a space before the answer that is not a token of its own.
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %}{% generation %} {{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
# Like Phi-3's: a chat ends with one more token than a turn.
CLOSED = (
    "{% for m in messages %}<{{ m.role }}>\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>\n{% else %}{{ bos_token }}{% endif %}"
)
# No end-of-turn token after an answer.
OPEN = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}{{ '\\n' }}{% endgeneration %}{% else %}Q: {{ m.content }}{{ '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
# The generation prompt ends with an empty thought, which a finished chat does not have.
THOUGHT = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>(thinking)\n{% endif %}"
)
OWN = {"chatml": CHATML, "zephyr": ZEPHYR, "inst": INST, "closed": CLOSED, "open": OPEN, "thought": THOUGHT}


def texts():
    return json.loads((FIXTURES / "tokenizer_lines.json").read_text(encoding="utf-8"))["lines"]


def conversations(count, seed, turns, marks=()):
    """User and assistant in turn. No content is white space only, or has an added token of the tokenizer."""
    rng = random.Random(seed)
    lines = [line for line in texts() if line.strip() and not any(mark in line for mark in marks)]

    def content():
        text = rng.choice(lines)
        # White space at both ends: tokens often span such borders.
        return rng.choice(["", "", "", " ", "\n", "  "]) + text + rng.choice(["", "", "", " ", "\n", "\n\n"])

    for _ in range(count):
        chat = []
        for _ in range(rng.choice(turns)):
            chat += [{"role": "user", "content": content()}, {"role": "assistant", "content": content()}]
        yield chat


def common_prefix(a, b):
    """Like `trl.data_utils.common_prefix_length` of TRL 1.16: `golden` does not need TRL, `check` calls TRL's own."""
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))


def completion(tokenizer, template, chat, prefix=common_prefix):
    """Ids, and the positions in TRL's completion mask."""
    ids = lambda messages, prompt: list(
        tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=prompt, tokenize=True, return_dict=True)["input_ids"]
    )
    whole = ids(chat, False)
    return whole, list(range(prefix(ids(chat[:-1], True), whole), len(whole)))


def assistant(tokenizer, template, chat):
    """Ids, and the positions in transformers' assistant mask."""
    out = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    return list(out["input_ids"]), [i for i, bit in enumerate(out["assistant_masks"]) if bit]


def runs(positions):
    out = []
    for position in positions:
        if out and out[-1][-1] + 1 == position:
            out[-1].append(position)
        else:
            out.append([position])
    return out


# transformers ends its mask at the first answer that begins or ends with a character that has no token.
GAVE_UP = "the mask of transformers ends early"
# TRL's training template for Qwen 2.5 marks the line feed at the end of the generation prompt as the assistant's text.
BEGINS_EARLY = "the mask begins with the last token of the generation prompt"
# A vocabulary with pieces of up to 31 spaces (Gemma's): SentencePiece, llama.cpp and plimsoll take the longest piece
# first; the tokenizer.json that transformers makes from a GGUF file merges pairs.
MANY_SPACES = "there are more than 31 consecutive spaces"
KNOWN = (GAVE_UP, BEGINS_EARLY, MANY_SPACES)


def fault(sample, ids, mask, ends):
    """The error of one of our samples, or None."""
    tokens, answer = sample["tokens"], sample["answer"]
    if tokens != ids[: len(tokens)]:
        return "ids"
    if answer[-1] + 1 != len(tokens):
        return "tokens after the last answer"
    ours, theirs = runs(answer), runs(mask)
    if len(ours) != len(theirs):
        if len(theirs) < len(ours) and all(mine[0] == reference[0] for mine, reference in zip(ours, theirs)):
            return GAVE_UP
        return f"{len(ours)} answers, {len(theirs)} in the mask"
    for mine, reference in zip(ours, theirs):
        if mine[0] == reference[0] + 1:
            return BEGINS_EARLY
        if mine[0] != reference[0]:
            return "first token differs"
        if mine != reference[: len(mine)]:
            return "longer than the mask"
        if len(mine) < len(reference) and tokens[mine[-1]] not in ends:
            return "shorter than the mask, and not at an end of turn"
    return None


def golden():
    cases = []
    for folder, names in {
        "tokenizer_byte_level": ["chatml", "open", "thought", "closed"],
        "tokenizer_metaspace": ["zephyr", "inst", "closed", "open", "thought"],
        "tokenizer_prepend": ["zephyr", "inst", "closed", "open", "thought"],
    }.items():
        tokenizer = AutoTokenizer.from_pretrained(FIXTURES / folder)
        marks = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        for name in names:
            for turns, method, label in [((1, 2, 3), completion, "last"), ((2, 3), assistant, "all")]:
                # This template renders an answered prompt differently, so there is no mask of all turns.
                if label == "all" and name == "thought":
                    continue
                samples = []
                for chat in conversations(24, f"{folder} {name} {label}", turns, marks):
                    ids, mask = method(tokenizer, OWN[name], chat)
                    samples.append({"messages": chat, "ids": ids, "mask": mask})
                cases.append({"tokenizer": folder, "template": name, "turns": label, "samples": samples})
    versions = {name: version(name) for name in ("transformers", "tokenizers")}
    content = {"versions": versions, "templates": OWN, "cases": cases}
    path = FIXTURES / "answers.json"
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def ours(tokenizer, template, lines, turns):
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        if template not in ("none", "tokenizer"):
            file = Path(folder) / "template.jinja"
            file.write_text(template, encoding="utf-8")
            template = file
        found = subprocess.run([BINARY, tokenizer, template, data, turns], capture_output=True, text=True, check=False)
    if found.returncode:
        return found.stderr.strip()
    return [json.loads(line) for line in found.stdout.splitlines()]


def pairs(tokenizer, count, seed):
    """Plain prompts and completions, with their encoding by lm-evaluation-harness."""
    from lm_eval.api.model import TemplateLM

    class Harness(TemplateLM):
        backend = "causal"
        eot_token_id = None
        add_bos_token = False

        def tok_encode(self, string, add_special_tokens=None, **_):
            return tokenizer(string, add_special_tokens=False)["input_ids"]

        def _loglikelihood_tokens(self, *_, **__): ...
        def loglikelihood_rolling(self, *_, **__): ...
        def generate_until(self, *_, **__): ...

    harness = Harness()
    for chat in conversations(count, seed, (1,)):
        # A token that spans the whole prompt and the beginning of the answer would have no token before it.
        if len(harness.tok_encode(chat[0]["content"])) < 2:
            continue
        prompt, answer = chat[0]["content"], chat[1]["content"]
        yield prompt, answer, harness._encode_pair(prompt, answer)


def as_published(tokenizer, model):
    """Changes a tokenizer that was read from a GGUF file to that of the published tokenizer.json.

    transformers reads a SentencePiece GGUF file with a space before the first word only. The tokenizer.json files of
    Llama 2 and TinyLlama put one after every special token, and so does llama.cpp. That of SmolLM2 splits digits.
    """
    inner = tokenizer.backend_tokenizer
    pre = GGUFReader(model).fields.get("tokenizer.ggml.pre")
    if pre is not None and pre.contents() == "smollm":
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    if isinstance(inner.pre_tokenizer, pre_tokenizers.Metaspace) and inner.pre_tokenizer.prepend_scheme == "first":
        inner.pre_tokenizer = None
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])


def check(models):
    import trl
    from trl.data_utils import common_prefix_length

    folder = Path(trl.__file__).parent / "chat_templates"
    # TRL's templates by a marker that must be a token of the vocabulary. Templates with markers in plain text suit all.
    suits = {"<|im_start|>": ["qwen2_5", "qwen3", "qwen3_instruct_2507"], "<start_of_turn>": ["gemma", "gemma3"], "<|eot_id|>": ["llama3", "llama3_1", "llama3_2"],
             "<|end|>": ["phi3", "phi3_5"]}
    failed = False
    for model in map(Path, models):
        tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
        vocabulary = tokenizer.get_vocab()
        own = tokenizer.chat_template
        templates = {"its own": own} if own else {}
        for mark, names in suits.items():
            if mark in vocabulary:
                for name in [each for name in names for each in (name, f"{name}_training")]:
                    if (folder / f"{name}.jinja").exists():
                        templates[f"TRL {name}"] = (folder / f"{name}.jinja").read_text(encoding="utf-8")
        templates |= {f"our {name}": OWN[name] for name in (["chatml"] if "<|im_start|>" in vocabulary else ["zephyr", "inst", "closed"])}
        marks = [token for token in tokenizer.get_added_vocab() if len(token) > 1]
        ends = {id for id in tokenizer.all_special_ids} | {id for token, id in tokenizer.get_added_vocab().items() if token.startswith("<")}
        with tempfile.TemporaryDirectory() as saved:
            as_published(tokenizer, model)
            tokenizer.save_pretrained(saved)
            for source, name in [(model, "GGUF"), (saved, "JSON")]:
                for title, template in templates.items():
                    kinds = [("last", (1, 2, 3), lambda chat: completion(tokenizer, template, chat, common_prefix_length))]
                    if "{% generation %}" in template or "{%- generation" in template:
                        kinds.append(("all", (2, 3), lambda chat: assistant(tokenizer, template, chat)))
                    for turns, many, method in kinds:
                        chats = list(conversations(CONVERSATIONS, title, many, marks))
                        found = ours(source, template, [{"messages": chat} for chat in chats], turns)
                        if isinstance(found, str):
                            print(f"{model.name} {name} {title} {turns}: {found}")
                            failed = True
                            continue
                        faults = [(fault(sample, *method(chat), ends), chat, sample) for chat, sample in zip(chats, found, strict=True)]
                        is_long = lambda chat: any(" " * 32 in turn["content"] for turn in chat)
                        faults = [(MANY_SPACES if what == "ids" and is_long(chat) else what, chat, sample) for what, chat, sample in faults]
                        counts = {what: sum(found == what for found, _, _ in faults) for what in (None, *KNOWN)}
                        wrong = [entry for entry in faults if entry[0] not in counts]
                        note = "".join(f", {counts[what]} because {what}" for what in KNOWN if counts[what])
                        print(f"{model.name} {name} {title} {turns}: {counts[None]} of {len(faults)} equal{note}", flush=True)
                        for what, chat, sample in wrong[:2]:
                            print(f"    {what}: {json.dumps(chat)[:300]} {sample['answer'][:2]}")
                        failed |= bool(wrong)
                equal, spaces, straddling, other = 0, 0, 0, []
                expected = list(pairs(tokenizer, CONVERSATIONS, "pairs"))
                found = ours(source, "none", [{"prompt": prompt, "completion": answer} for prompt, answer, _ in expected], "last")
                if isinstance(found, str):
                    print(f"{model.name} {name} pairs: {found}")
                    failed = True
                    continue
                for sample, (prompt, answer, (_, continuation)) in zip(found, expected, strict=True):
                    scored = [sample["tokens"][i] for i in sample["answer"]]
                    rest = len(continuation) - len(scored)
                    if scored == continuation:
                        equal += 1
                    elif rest > 0 and continuation[rest:] == scored and not tokenizer.decode(continuation[:rest]).strip():
                        spaces += 1
                    elif scored[1:] == continuation or (rest > 0 and scored[1:] == continuation[rest + 1 :]):
                        straddling += 1
                    else:
                        other.append((prompt, answer, scored[:4], continuation[:4]))
                print(f"{model.name} {name} plain pairs: {equal} equal lm-evaluation-harness, {spaces} except for the "
                      f"prompt's last white space, {straddling} with a token across the border, {len(other)} different")
                for entry in other[:3]:
                    print(f"    {entry!r:.300}")
                failed |= bool(other)
    sys.exit(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["golden"]:
        golden()
    elif sys.argv[1:2] == ["check"]:
        check(sys.argv[2:])
    else:
        sys.exit(__doc__)
