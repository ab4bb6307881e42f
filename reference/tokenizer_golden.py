"""Writes the tokenizer fixtures in crates/plimsoll/tests/fixtures: lines of text, and their reference token ids.

- tokenizer_lines.json: the lines, and their ids with the tokenizer of SmolLM2's GGUF file. transformers reads that
  file without the splitting of digits that SmolLM2's own tokenizer.json has. So the reference is built here from the
  file's vocabulary and the components of that tokenizer.json. On lines without digits, transformers' own reading must
  agree, which is checked.
- tokenizer_pre.json: a small byte-level vocabulary trained on the lines, and ids with each pre-tokenizer that a GGUF
  file can name. Patterns come from transformers' table.
- tokenizer_pieces.json: small SentencePiece models with and without a leading space, and ids by SentencePiece itself.
- tokenizer_byte_level/, tokenizer_metaspace/, tokenizer_prepend/: small tokenizer folders, with ids by AutoTokenizer
  in expected.json.

Ids are stored for the first lines only, and a digest of them for all lines (32-bit FNV-1a over the ids, little-endian).

    python reference/tokenizer_golden.py        needs models/SmolLM2-135M-Instruct.Q4_1.gguf
"""

import io
import json
import random
from importlib.metadata import version
from pathlib import Path

import sentencepiece
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "crates" / "plimsoll" / "tests" / "fixtures"
GGUF = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
VERSIONS = {name: version(name) for name in ("tokenizers", "transformers", "gguf")}

WRITTEN = [
    "", " ", "  ", "\n", "\n\n\n", "\t", " \n ", "\r\n", "a", " a", "a ", "  a  b   c    d", "\ta\t\tb", "a\n\nb \n c\n",
    "trailing spaces   ", "   leading spaces", "tabs\tand  spaces \t mixed \t\t", "a\u00a0b\u2003c\u3000d\u200be\u2028f",
    "The tide comes in at six and goes out at noon.", "It's what they'll do; I'd say we've won, isn't it? You're right, I'm sure.",
    "IT'S WHAT THEY'LL DO; I'D SAY WE'VE WON", "it\u017f'\u017f 'S'T're'RE 'Ve ''ll '' ' d", "don’t ‘quote’ “me” – or… —",
    "0", "7", "42", "007", "1234567890", "3.14159", "-1,000,000.50", "$12.99", "100%", "1st 2nd 3rd", "2026-11-23T08:15:30Z",
    "1 2  3   4", "x1y22z333w4444", "٣٤٥ ४५६ Ⅷ ½ ² ①", "0x1F 0b1010 1e-9 1_000", "#### 42", "<<50/2=25>>25",
    "def f(x):\n    return x ** 2  # square\n\n\nclass A(B):\n\tpass\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';", "https://example.org/a/b?c=d&e=f#g", "user@example.org", "C:\\dir\\file.txt",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\"}}", "<div class=\"x\">text &amp; more</div>", "$\\frac{a}{b} + \\sum_{i=0}^{n} x_i$",
    "|a|b|\n|-|-|\n|1|2|", "- item\n  - sub\n    1. one\n", "!!!???...,,,;;;:::", "()[]{}<>/\\|`~@#$%^&*_+-=", "a.b.c,d;e:f!g?h", "....", "--- *** ___",
    "Wie tief ist der Kanal in Zürich? Straße, Äpfel, Öl, Übermut.", "L'été à la plage, où l'on dort : « déjà vu ».", "El niño comió piñas. ¿Qué? ¡Sí!",
    "Größe weiß Fußgänger naïve façade coöperate", "e\u0301 o\u0308 n\u0303 a\u030a", "\u1e9b\u0323 ﬁ ﬂ ﬀ Å K", "Привет, мир! Как дела?", "Καλημέρα κόσμε",
    "水深はどのくらいですか？", "港口的水有多深？我们在潮线以下。", "안녕하세요 세계", "مرحبا بالعالم، كيف الحال؟", "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "გამარჯობა", "Xin chào thế giới",
    "👩‍🚀", "🚢⚓🌊", "🇨🇭🇩🇪", "👍🏽 ok", "a😀b", "❤️ ♥ ☃", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "\ufeffmark", "nul\x00byte", "\x01\x02\x7f\x80\x9f", "\ufffd", "\U0010ffff",
    "<|im_start|>user\nHow deep?<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b", "<|im_end|><|im_end|>", " <|im_end|> ", "<|endoftext|>", "<|im_start|", "<| im_start |>",
    "<repo_name>x<file_sep>y<filename>z", "<|im_start|>1<|im_end|>22", "</s><s><unk>", "x" * 300, "ab" * 150, " " * 100, "\n" * 50, "1" * 100, "é" * 60, "水" * 60, "a " * 100,
    "Antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "camelCaseWord snake_case_word kebab-case-word SCREAMING_CASE XMLHttpRequest",
    "ALL CAPS AND lower And Title", "iPhone MacBook GPT-4o LoRA rsLoRA", "a1b2c3 v1.2.3-rc.4+build5", "  \n  indented\n\t\ttabbed\n",
]


# Number of lines whose ids are stored, and number of all lines.
SHOWN, LINES = 310, 2400


def lines():
    """WRITTEN, then random mixtures of its pieces and of characters from several ranges."""
    rng = random.Random(2503)
    ranges = [(0x20, 0x7E), (0x30, 0x39), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x44F), (0x5D0, 0x5EA), (0x621, 0x64A), (0x900, 0x96F),
              (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0x1F600, 0x1F64F), (0x2000, 0x206F), (0x0, 0x20), (0x300, 0x36F)]
    out = list(WRITTEN)
    while len(out) < LINES:
        if rng.random() < 0.5:
            pieces = [rng.choice(WRITTEN) for _ in range(rng.randint(2, 4))]
            out.append("".join(piece[rng.randint(0, 5) : rng.randint(6, 60)] + rng.choice(["", " ", "\n", "  "]) for piece in pieces))
        else:
            chosen = [rng.choice(ranges) for _ in range(rng.randint(1, 4))]
            out.append("".join(chr(rng.randint(*rng.choice(chosen))) for _ in range(rng.randint(1, 40))))
    return out


GPT2 = [pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)]


def pieces(pre):
    """Normalizer and pre-tokenizers for the name of a GGUF pre-tokenizer."""
    if pre == "smollm":
        return None, [pre_tokenizers.Digits(individual_digits=True), *GPT2]
    if pre == "gpt-2":
        return None, GPT2
    split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[pre]), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    # Qwen2's tokenizer.json first normalises to NFC.
    return (normalizers.NFC() if pre == "qwen2" else None), [split, byte_level]


def byte_level(vocab, merges, pre, special):
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre in ("llama-bpe", "tekken")))
    normalizer, parts = pieces(pre)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


def ids(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def digest(ids):
    value = 0x811C9DC5
    for byte in b"".join(id.to_bytes(4, "little") for id in ids):
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def kept(ids):
    return {"ids": ids[:SHOWN], "digests": [digest(of_line) for of_line in ids]}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def smollm2(texts):
    fields = GGUFReader(GGUF).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    special = [token for token, kind in zip(tokens, types) if kind == 3]
    reference = byte_level({token: id for id, token in enumerate(tokens)}, merges, "smollm", special)
    expected = ids(reference, texts)
    own = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
    checked = 0
    for text, wanted in zip(texts, expected):
        if not any(character.isnumeric() for character in text):
            assert own(text, add_special_tokens=False)["input_ids"] == wanted, text
            checked += 1
    print(f"transformers agrees on all lines without digits: {checked} of {len(texts)} lines")
    write(OUT / "tokenizer_lines.json", {"versions": VERSIONS, "lines": texts, "smollm2": kept(expected)})


def small(texts):
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = GPT2[0]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    learned.train_from_iterator(texts[:SHOWN], trainer)
    model = json.loads(learned.to_str())["model"]
    vocab, merges = model["vocab"], [tuple(merge) for merge in model["merges"]]
    tokens = sorted(vocab, key=vocab.get)
    content = {"versions": VERSIONS, "tokens": tokens, "merges": [" ".join(merge) for merge in merges], "special": special, "ids": {}}
    for pre in ("smollm", "gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o"):
        content["ids"][pre] = kept(ids(byte_level(vocab, merges, pre, special), texts))
    write(OUT / "tokenizer_pre.json", content)
    return vocab, merges, special


USER_DEFINED = ["<br>", "\n"]


def kind(processor, id):
    """The type of a piece, as a number of the GGUF specification (the same as SentencePiece's)."""
    if processor.is_unknown(id):
        return 2
    if processor.is_control(id):
        return 3
    if processor.is_byte(id):
        return 6
    return 4 if processor.id_to_piece(id) in USER_DEFINED else 1


def sentencepiece_models(texts):
    """Writes ids by SentencePiece itself.

    Text for SentencePiece cannot contain control tokens, and NUL ends its strings, so lines with one of these are left
    out. The model with a leading space has no user-defined pieces: SentencePiece puts one space before the text, but
    the tokenizers library, for which the families' own files are made, puts one before every part between such pieces.
    """
    content = {"versions": VERSIONS | {"sentencepiece": version("sentencepiece")}, "models": []}
    chosen = [index for index, text in enumerate(texts) if not any(mark in text for mark in ("<s>", "</s>", "<unk>", "\0"))]
    for space_in_front in (True, False):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            # Characters of all other scripts become bytes.
            sentence_iterator=iter([line for text in WRITTEN for line in text.split("\n") if all(" " <= c < "\u0450" for c in line)]),
            model_writer=model, model_type="bpe", vocab_size=700, byte_fallback=True, character_coverage=1.0, add_dummy_prefix=space_in_front, remove_extra_whitespaces=False,
            normalization_rule_name="identity", user_defined_symbols=[] if space_in_front else USER_DEFINED, minloglevel=2, num_threads=1,
        )
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        size = processor.vocab_size()
        content["models"].append({
            "add_space_prefix": space_in_front,
            "tokens": [processor.id_to_piece(id) for id in range(size)],
            "scores": [processor.get_score(id) for id in range(size)],
            "types": [kind(processor, id) for id in range(size)],
            "lines": chosen,
            "ids": kept([processor.encode(texts[index]) for index in chosen]),
            "decoded": [processor.decode(processor.encode(texts[index])) for index in chosen[:SHOWN]],
        })
    write(OUT / "tokenizer_pieces.json", content)


def folder(name, tokenizer, config, texts):
    path = OUT / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **config})
    own = AutoTokenizer.from_pretrained(path)
    chosen = [text for text in texts if len(text) < 80][:120]
    write(
        path / "expected.json",
        {
            "versions": VERSIONS,
            "lines": chosen,
            "plain": [own(text, add_special_tokens=False)["input_ids"] for text in chosen],
            "special": [own(text)["input_ids"] for text in chosen],
            "decoded": [own.decode(own(text)["input_ids"], clean_up_tokenization_spaces=False) for text in chosen],
        },
    )


def folders(texts, vocab, merges, special):
    tokenizer = byte_level(vocab, merges, "qwen2", special)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)]),
        ]
    )
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False), AddedToken("<pad>", normalized=True, lstrip=True)])
    folder(
        "tokenizer_byte_level",
        tokenizer,
        {
            "bos_token": "<|endoftext|>",
            "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
        },
        texts,
    )

    learned = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    learned.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=640, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False)
    learned.train_from_iterator([text for text in texts if text.isascii()], trainer)
    raw = json.loads(learned.to_str())
    raw["added_tokens"] = raw["added_tokens"][:3]
    raw["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ],
    }
    surround = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw["post_processor"] = json.loads(surround.__getstate__())
    # add_bos_token and add_eos_token contradict the post-processor, which has precedence.
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": False, "add_eos_token": True}
    folder("tokenizer_metaspace", Tokenizer.from_str(json.dumps(raw)), config, texts)
    raw["pre_tokenizer"] = None
    raw["normalizer"] = {
        "type": "Sequence",
        "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
    }
    folder("tokenizer_prepend", Tokenizer.from_str(json.dumps(raw)), config, texts)


def main():
    texts = lines()
    smollm2(texts)
    sentencepiece_models(texts)
    folders(texts[:SHOWN], *small(texts))


if __name__ == "__main__":
    main()
