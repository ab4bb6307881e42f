//! Reader of the tokenizer in a GGUF file's metadata.
//!
//! The keys are those of the GGUF specification (`tokenizer.ggml.*`). Two models are supported: `llama`, which is
//! SentencePiece's (see `sentencepiece`), and `gpt2`, byte-level byte-pair merges. For the latter, `tokenizer.ggml.pre`
//! names the pre-tokeniser. Its meaning is taken from the original tokenizer of each name; llama.cpp has only a hash of
//! that tokenizer's output:
//!
//! | `pre` | normaliser | pre-tokeniser | merges skipped for whole words |
//! |---|---|---|---|
//! | `gpt-2`, `default` | – | GPT-2's pattern | no |
//! | `smollm` | – | single digits, then GPT-2's pattern | no |
//! | `llama-bpe`, `llama3`, `llama-v3` | – | Llama 3's pattern | yes |
//! | `qwen2`, `deepseek-r1-qwen` | NFC | Qwen2's pattern | no |
//! | `tekken` (Mistral Nemo) | – | Tekken's pattern | yes |
//! | `gpt-4o` (Phi-4-mini) | – | GPT-4o's pattern | no |
//!
//! llama.cpp does not apply NFC for Qwen2, but the original tokenizer does. On text that is not in NFC, llama.cpp's ids
//! differ from those here.

use std::path::Path;

use plimsoll_formats::{Metadata, Value};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::core::Tokenizer;
use super::parts::{BpeSettings, Marks, Parts, bpe};
use super::problem::{TokenizerProblem, refused};
use super::sentencepiece;
use crate::error::{Error, Result};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const UNKNOWN_ID: &str = "tokenizer.ggml.unknown_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Values of `tokenizer.ggml.token_type` (GGUF specification).
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;

/// Special tokens that are stop tokens by their text. Files from before `eot_token_id` name only one of a model's stop
/// tokens.
const ENDS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
];

/// Returns the value of a metadata key.
type Lookup<'a> = dyn Fn(&str) -> Option<&'a Value> + 'a;

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file from its metadata. Errors name `path`.
    ///
    /// # Errors
    /// A missing or malformed key, or a tokenizer model or pre-tokenizer that is not supported.
    pub fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Self> {
        let tokenizer = build(&|key| metadata.get(key)).map_err(|problem| Error::input(path, problem))?;
        Ok(Self { template_file: path.to_owned(), ..tokenizer })
    }
}

/// Builds the tokenizer from the metadata.
fn build(metadata: &Lookup<'_>) -> Result<Tokenizer, TokenizerProblem> {
    let tokens = strings(metadata, TOKENS)?;
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (&token, id) in tokens.iter().zip(0..) {
        if vocab.insert(token.to_owned(), id).is_some() {
            return Err(TokenizerProblem::Duplicate { token: token.to_owned(), id });
        }
    }
    let types = token_types(metadata, tokens.len())?;
    let mut kind = match text(metadata, MODEL)? {
        "gpt2" => byte_level(metadata, vocab)?,
        "llama" => pieces(metadata, &tokens, types.as_deref(), vocab)?,
        other => {
            let found = other.to_owned();
            let supported = "`gpt2` or `llama`";
            return Err(TokenizerProblem::Unsupported { what: "GGUF tokenizer model", found, supported });
        }
    };

    let special = |key: &'static str| -> Result<Option<(u32, &str)>, TokenizerProblem> {
        let Some(id) = unsigned(metadata, key)? else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|index| tokens.get(index));
        match (token, u32::try_from(id)) {
            (Some(token), Ok(id)) => Ok(Some((id, token))),
            _ => Err(TokenizerProblem::NoSuchToken { what: key, token: id.to_string() }),
        }
    };
    let (bos, eos) = (special(BOS)?, special(EOS)?);
    let added_by_flag = |flag: Option<bool>, default: bool, token: Option<(u32, &str)>, what: &'static str| {
        match (flag.unwrap_or(default), token) {
            (false, _) => Ok(Vec::new()),
            (true, Some((id, _))) => Ok(vec![id]),
            // With a default flag, the token need not exist.
            (true, None) if flag.is_none() => Ok(Vec::new()),
            (true, None) => Err(TokenizerProblem::NoSuchToken { what, token: "the token it adds".to_owned() }),
        }
    };
    let before = added_by_flag(boolean(metadata, ADD_BOS)?, kind.adds_bos, bos, ADD_BOS)?;
    let after = added_by_flag(boolean(metadata, ADD_EOS)?, false, eos, ADD_EOS)?;

    let template = metadata(TEMPLATE).map(|_| text(metadata, TEMPLATE)).transpose()?.map(str::to_owned);
    let mark = |token: Option<(u32, &str)>| token.map(|(_, text)| text.to_owned());
    let added = added_tokens(&tokens, types.as_deref().unwrap_or_default(), kind.whole, kind.strips_after);
    let named = added.iter().filter(|(_, token)| ENDS.contains(&token.content.as_str())).map(|&(id, _)| id);
    let end_tokens = named.chain([special(EOT)?, special(EOM)?].into_iter().flatten().map(|(id, _)| id)).collect();

    Parts {
        model: kind.model,
        normalizers: kind.normalizers,
        pre_tokenizers: std::mem::take(&mut kind.pre_tokenizers),
        decoders: kind.decoders,
        added,
        before,
        after,
        end_tokens,
        marks: Marks { bos: mark(bos), eos: mark(eos) },
        template,
    }
    .join()
}

/// The components that differ between the two tokenizer models.
struct Kind {
    model: BPE,
    normalizers: Vec<NormalizerWrapper>,
    pre_tokenizers: Vec<PreTokenizerWrapper>,
    decoders: Vec<DecoderWrapper>,
    /// Default of `tokenizer.ggml.add_bos_token`.
    adds_bos: bool,
    /// The types of tokens that are matched as a whole in a text.
    whole: &'static [u64],
    /// If special tokens include the white space after them: the exceptions.
    strips_after: Option<&'static [&'static str]>,
}

/// The components of a byte-level byte-pair model.
fn byte_level(metadata: &Lookup<'_>, vocab: Vocab) -> Result<Kind, TokenizerProblem> {
    let pre = Pre::named(text(metadata, PRE)?)?;
    let mut merges = Merges::new();
    for (index, merge) in strings(metadata, MERGES)?.into_iter().enumerate() {
        let (left, right) = merge
            .split_once(' ')
            .ok_or_else(|| TokenizerProblem::Merge { number: index + 1, merge: merge.to_owned() })?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(Kind {
        model: bpe(vocab, merges, BpeSettings { ignore_merges: pre.ignores_merges(), ..BpeSettings::default() })?,
        normalizers: pre.normalizers(),
        pre_tokenizers: pre.pre_tokenizers()?,
        decoders: vec![ByteLevel::new(false, true, true).into()],
        adds_bos: pre.adds_bos(),
        whole: &[CONTROL, USER_DEFINED],
        strips_after: None,
    })
}

/// The components of a SentencePiece model.
fn pieces(
    metadata: &Lookup<'_>,
    tokens: &[&str],
    types: Option<&[u64]>,
    vocab: Vocab,
) -> Result<Kind, TokenizerProblem> {
    let scores = floats(metadata, SCORES)?;
    if scores.len() != tokens.len() {
        return Err(TokenizerProblem::Key {
            key: SCORES,
            expected: "as many entries as there are tokens",
            found: format!("{} for {} tokens", scores.len(), tokens.len()),
        });
    }
    let types = types.ok_or_else(|| missing(TOKEN_TYPE, "an array of integers"))?;
    let is_piece = |id: usize| matches!(types[id], NORMAL | USER_DEFINED);
    let merges = sentencepiece::merges(tokens, &scores, &vocab, is_piece)?;
    let unknown = match unsigned(metadata, UNKNOWN_ID)? {
        Some(id) => usize::try_from(id).ok().filter(|&id| id < tokens.len()),
        None => types.iter().position(|&kind| kind == UNKNOWN),
    };
    let settings = BpeSettings {
        unk_token: unknown.map(|id| tokens[id].to_owned()),
        fuse_unk: true,
        byte_fallback: types.contains(&BYTE),
        ignore_merges: false,
    };
    let space_in_front = boolean(metadata, ADD_SPACE)?.unwrap_or(true);
    // As in Phi-3's tokenizer.json, and in llama.cpp.
    let is_phi = metadata("general.architecture").and_then(Value::as_str) == Some("phi3");
    Ok(Kind {
        model: bpe(vocab, merges, settings)?,
        normalizers: sentencepiece::normalizers(space_in_front)?,
        pre_tokenizers: Vec::new(),
        decoders: sentencepiece::decoders(space_in_front)?,
        adds_bos: true,
        whole: &[CONTROL, USER_DEFINED, UNKNOWN],
        strips_after: is_phi.then_some(&["<unk>", "<s>", "<|endoftext|>"]),
    })
}

/// The supported pre-tokenisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pre {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
    Tekken,
    Gpt4o,
}

/// Pattern of Llama 3's `tokenizer.json`.
const LLAMA3_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Pattern of Qwen2's `tokenizer.json`: as Llama 3's, with single digits.
const QWEN2_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Pattern of Mistral Nemo's `tokenizer.json`.
const TEKKEN_SPLIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// Pattern of Phi-4-mini's `tokenizer.json`.
const GPT4O_SPLIT: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

impl Pre {
    fn named(name: &str) -> Result<Self, TokenizerProblem> {
        Ok(match name {
            "gpt-2" | "default" => Self::Gpt2,
            "smollm" => Self::SmolLm,
            "llama-bpe" | "llama3" | "llama-v3" => Self::Llama3,
            "qwen2" | "deepseek-r1-qwen" => Self::Qwen2,
            "tekken" => Self::Tekken,
            "gpt-4o" => Self::Gpt4o,
            other => {
                return Err(TokenizerProblem::Unsupported {
                    what: "GGUF pre-tokenizer",
                    found: other.to_owned(),
                    supported: "`smollm`, `gpt-2`, `default`, `llama-bpe`, `llama3`, `qwen2`, `tekken` or `gpt-4o`",
                });
            }
        })
    }

    fn normalizers(self) -> Vec<NormalizerWrapper> {
        if self == Self::Qwen2 { vec![NFC.into()] } else { Vec::new() }
    }

    fn pre_tokenizers(self) -> Result<Vec<PreTokenizerWrapper>, TokenizerProblem> {
        let split = |pattern: &str| -> Result<Vec<PreTokenizerWrapper>, TokenizerProblem> {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(refused("pattern"))?;
            Ok(vec![split.into(), ByteLevel::new(false, true, false).into()])
        };
        match self {
            Self::Gpt2 => Ok(vec![ByteLevel::new(false, true, true).into()]),
            Self::SmolLm => Ok(vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()]),
            Self::Llama3 => split(LLAMA3_SPLIT),
            Self::Qwen2 => split(QWEN2_SPLIT),
            Self::Tekken => split(TEKKEN_SPLIT),
            Self::Gpt4o => split(GPT4O_SPLIT),
        }
    }

    fn ignores_merges(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    /// Default of `tokenizer.ggml.add_bos_token`.
    fn adds_bos(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }
}

/// The type of every token; `None` if the file has no types.
fn token_types(metadata: &Lookup<'_>, tokens: usize) -> Result<Option<Vec<u64>>, TokenizerProblem> {
    let Some(types) = metadata(TOKEN_TYPE) else { return Ok(None) };
    let types = types.as_array().ok_or_else(|| mismatch(TOKEN_TYPE, "an array", types))?;
    if types.len() != tokens {
        return Err(TokenizerProblem::Key {
            key: TOKEN_TYPE,
            expected: "as many entries as there are tokens",
            found: format!("{} for {tokens} tokens", types.len()),
        });
    }
    let number = |kind: &Value| kind.as_u64().ok_or_else(|| mismatch(TOKEN_TYPE, "an array of integers", kind));
    types.iter().map(number).collect::<Result<_, _>>().map(Some)
}

/// The tokens that are matched as a whole in a text: those of the types `whole`.
fn added_tokens(
    tokens: &[&str],
    types: &[u64],
    whole: &[u64],
    strips_after: Option<&[&str]>,
) -> Vec<(u32, AddedToken)> {
    let mut added = Vec::new();
    for ((kind, &token), id) in types.iter().zip(tokens).zip(0..) {
        // An empty token cannot be matched.
        if whole.contains(kind) && !token.is_empty() {
            let strips = *kind == CONTROL && strips_after.is_some_and(|except| !except.contains(&token));
            added.push((id, AddedToken::from(token, *kind != USER_DEFINED).normalized(false).rstrip(strips)));
        }
    }
    added
}

fn text<'a>(metadata: &Lookup<'a>, key: &'static str) -> Result<&'a str, TokenizerProblem> {
    let value = metadata(key).ok_or_else(|| missing(key, "a string"))?;
    value.as_str().ok_or_else(|| mismatch(key, "a string", value))
}

fn unsigned(metadata: &Lookup<'_>, key: &'static str) -> Result<Option<u64>, TokenizerProblem> {
    metadata(key)
        .map(|value| value.as_u64().ok_or_else(|| mismatch(key, "an integer of at least 0", value)))
        .transpose()
}

fn boolean(metadata: &Lookup<'_>, key: &'static str) -> Result<Option<bool>, TokenizerProblem> {
    metadata(key).map(|value| value.as_bool().ok_or_else(|| mismatch(key, "true or false", value))).transpose()
}

fn strings<'a>(metadata: &Lookup<'a>, key: &'static str) -> Result<Vec<&'a str>, TokenizerProblem> {
    let expected = "an array of strings";
    let value = metadata(key).ok_or_else(|| missing(key, expected))?;
    let items = value.as_array().ok_or_else(|| mismatch(key, expected, value))?;
    items.iter().map(|item| item.as_str().ok_or_else(|| mismatch(key, expected, item))).collect()
}

fn floats(metadata: &Lookup<'_>, key: &'static str) -> Result<Vec<f32>, TokenizerProblem> {
    let expected = "an array of floating-point numbers";
    let value = metadata(key).ok_or_else(|| missing(key, expected))?;
    let items = value.as_array().ok_or_else(|| mismatch(key, expected, value))?;
    let number = |item: &Value| item.as_f64().filter(|score| !score.is_nan()).map(|score| score as f32);
    items.iter().map(|item| number(item).ok_or_else(|| mismatch(key, expected, item))).collect()
}

fn missing(key: &'static str, expected: &'static str) -> TokenizerProblem {
    TokenizerProblem::Key { key, expected, found: "nothing".to_owned() }
}

fn mismatch(key: &'static str, expected: &'static str, value: &Value) -> TokenizerProblem {
    let found = match value {
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
    };
    TokenizerProblem::Key { key, expected, found }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::path::Path;

    use serde::Deserialize;

    use super::super::core::{Encoding, Special};
    use super::*;

    type Metadata = HashMap<&'static str, Value>;

    fn list<T>(items: impl IntoIterator<Item = T>, value: impl Fn(T) -> Value) -> Value {
        Value::Array(items.into_iter().map(value).collect())
    }

    fn string(text: impl Into<String>) -> Value {
        Value::String(text.into())
    }

    /// A vocabulary of letters, one merge, and special tokens.
    fn tiny() -> Metadata {
        let tokens = ["<s>", "a", "b", "ab", "Ġ", "</s>", "<user>"];
        HashMap::from([
            (MODEL, string("gpt2")),
            (PRE, string("gpt-2")),
            (TOKENS, list(tokens, string)),
            (TOKEN_TYPE, list([3, 1, 1, 1, 1, 3, 4], Value::Signed)),
            (MERGES, list(["a b"], string)),
            (BOS, Value::Unsigned(0)),
            (EOS, Value::Unsigned(5)),
            (ADD_BOS, Value::Bool(true)),
        ])
    }

    fn built(metadata: &Metadata) -> Result<Tokenizer, TokenizerProblem> {
        build(&|key| metadata.get(key))
    }

    #[test]
    fn a_tiny_vocabulary_gives_ids_computed_by_hand() {
        let tokenizer = built(&tiny()).unwrap();
        assert_eq!(tokenizer.encode("aab a</s>b<user>", Special::Leave).unwrap(), [1, 3, 4, 1, 5, 2, 6]);
        assert_eq!(tokenizer.encode("ab", Special::Add).unwrap(), [0, 3]);
        assert_eq!(tokenizer.encode("ab", Special::Begin).unwrap(), [0, 3]);
        let encoding = tokenizer.encode_with_spans("a</s>ab", Special::Add).unwrap();
        assert_eq!(encoding, Encoding { ids: vec![0, 1, 5, 3], spans: vec![0..0, 0..1, 1..5, 5..7] });
        assert!(tokenizer.is_special(5) && !tokenizer.is_special(3) && !tokenizer.is_special(6));
        assert_eq!(tokenizer.decode(&[0, 3, 4, 2]).unwrap(), "<s>ab b");
        assert_eq!((tokenizer.vocab_size(), tokenizer.token_id("</s>")), (7, Some(5)));
        assert!(tokenizer.template().unwrap().is_none());
    }

    #[test]
    fn flags_determine_which_special_tokens_are_added() {
        let mut metadata = tiny();
        metadata.insert(ADD_BOS, Value::Bool(false));
        metadata.insert(ADD_EOS, Value::Bool(true));
        assert_eq!(built(&metadata).unwrap().encode("a", Special::Add).unwrap(), [1, 5]);
        metadata.remove(ADD_BOS);
        assert_eq!(built(&metadata).unwrap().encode("a", Special::Begin).unwrap(), [1]);
        // Llama 3's tokenizer adds BOS by default.
        metadata.insert(PRE, string("llama-bpe"));
        assert_eq!(built(&metadata).unwrap().encode("a", Special::Begin).unwrap(), [0, 1]);
    }

    #[test]
    fn a_template_can_write_bos_and_eos() {
        let mut metadata = tiny();
        metadata.insert(TEMPLATE, string("{{ bos_token }}{{ eos_token }}"));
        let tokenizer = built(&metadata).unwrap();
        let rendered =
            tokenizer.template().unwrap().unwrap().render(&[], super::super::template::GenerationPrompt::Add);
        assert_eq!(rendered.unwrap(), "<s></s>");
    }

    #[test]
    fn malformed_metadata_is_refused_with_its_key() {
        let cases: Vec<(&'static str, Option<Value>, &str)> = vec![
            (MODEL, Some(string("bert")), "`bert`"),
            (MODEL, Some(string("llama")), SCORES),
            (MODEL, Some(Value::Bool(true)), MODEL),
            (PRE, Some(string("chameleon")), "`chameleon`"),
            (PRE, None, PRE),
            (TOKENS, Some(list([1, 2], Value::Signed)), TOKENS),
            (TOKENS, Some(list(["a", "a"], string)), "twice"),
            (TOKEN_TYPE, Some(list([1], Value::Signed)), TOKEN_TYPE),
            (TOKEN_TYPE, Some(string("x")), TOKEN_TYPE),
            (MERGES, Some(list(["ab"], string)), "merge 1"),
            (MERGES, Some(list(["a b", "b a"], string)), "merge 2"),
            (BOS, Some(Value::Unsigned(u64::MAX)), BOS),
            (EOS, Some(Value::Signed(-1)), EOS),
            (ADD_BOS, Some(string("yes")), ADD_BOS),
            (TEMPLATE, Some(Value::Unsigned(3)), TEMPLATE),
        ];
        for (key, value, expected) in cases {
            let mut metadata = tiny();
            match value {
                Some(value) => metadata.insert(key, value),
                None => metadata.remove(key),
            };
            let error = built(&metadata).unwrap_err().to_string();
            assert!(error.contains(expected), "{key}: {error}");
        }
    }

    #[derive(Deserialize)]
    struct Fixture {
        tokens: Vec<String>,
        merges: Vec<String>,
        special: Vec<String>,
        ids: HashMap<String, Ids>,
    }

    #[derive(Deserialize)]
    struct Lines {
        lines: Vec<String>,
    }

    /// Ids of some lines, and a digest of the ids of each.
    #[derive(Deserialize)]
    struct Ids {
        ids: Vec<Vec<u32>>,
        digests: Vec<u32>,
    }

    impl Ids {
        fn check<'a>(&self, tokenizer: &Tokenizer, lines: impl ExactSizeIterator<Item = &'a String>, name: &str) {
            assert!(lines.len() >= 2000 && lines.len() == self.digests.len());
            for (index, (text, expected)) in lines.zip(&self.digests).enumerate() {
                let found = tokenizer.encode(text, Special::Leave).unwrap();
                if let Some(expected) = self.ids.get(index) {
                    assert_eq!(&found, expected, "{name}: {text:?}");
                }
                assert_eq!(digest(&found), *expected, "{name}: {text:?}");
            }
        }
    }

    /// FNV-1a of 32 bits.
    fn digest(ids: &[u32]) -> u32 {
        let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
        bytes.fold(0x811c_9dc5, |value, byte| (value ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    fn read(name: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    /// Compares with the Python package of tokenizers (`reference/tokenizer_golden.py`), which uses another regular
    /// expression engine.
    #[test]
    fn every_pre_tokenizer_gives_the_ids_of_the_original() {
        let fixture: Fixture = serde_json::from_str(&read("tokenizer_pre.json")).unwrap();
        let texts: Lines = serde_json::from_str(&read("tokenizer_lines.json")).unwrap();
        let kinds = fixture.tokens.iter().map(|token| if fixture.special.contains(token) { 3 } else { 1 });
        let mut metadata = HashMap::from([
            (MODEL, string("gpt2")),
            (TOKENS, list(&fixture.tokens, string)),
            (TOKEN_TYPE, list(kinds, Value::Signed)),
            (MERGES, list(&fixture.merges, string)),
        ]);
        for name in ["smollm", "gpt-2", "default", "llama-bpe", "llama3", "qwen2", "tekken", "gpt-4o"] {
            metadata.insert(PRE, string(name));
            let tokenizer = built(&metadata).unwrap();
            let original = match name {
                "default" => "gpt-2",
                "llama3" => "llama-bpe",
                other => other,
            };
            fixture.ids[original].check(&tokenizer, texts.lines.iter(), name);
        }
    }

    #[derive(Deserialize)]
    struct Pieces {
        models: Vec<PieceModel>,
    }

    #[derive(Deserialize)]
    struct PieceModel {
        add_space_prefix: bool,
        tokens: Vec<String>,
        scores: Vec<f64>,
        types: Vec<i64>,
        /// Indices of the lines.
        lines: Vec<usize>,
        ids: Ids,
        decoded: Vec<String>,
    }

    /// Compares with SentencePiece.
    #[test]
    fn pieces_and_scores_give_the_ids_of_sentencepiece() {
        let fixture: Pieces = serde_json::from_str(&read("tokenizer_pieces.json")).unwrap();
        let texts: Lines = serde_json::from_str(&read("tokenizer_lines.json")).unwrap();
        assert_eq!(fixture.models.len(), 2);
        for model in fixture.models {
            let metadata = HashMap::from([
                (MODEL, string("llama")),
                (TOKENS, list(&model.tokens, string)),
                (SCORES, list(&model.scores, |score| Value::Float(*score))),
                (TOKEN_TYPE, list(&model.types, |kind| Value::Signed(*kind))),
                (ADD_SPACE, Value::Bool(model.add_space_prefix)),
                (BOS, Value::Unsigned(1)),
                (EOS, Value::Unsigned(2)),
            ]);
            let tokenizer = built(&metadata).unwrap();
            let name = format!("space in front: {}", model.add_space_prefix);
            let lines: Vec<&String> = model.lines.iter().map(|&index| &texts.lines[index]).collect();
            model.ids.check(&tokenizer, lines.iter().copied(), &name);
            for ((line, ids), decoded) in lines.iter().zip(&model.ids.ids).zip(&model.decoded) {
                assert_eq!(&tokenizer.decode(ids).unwrap(), decoded, "{name}: {line:?}");
            }
            // BOS is added by default.
            assert_eq!(tokenizer.encode("", Special::Begin).unwrap()[0], 1);
            // A space is added after every special token, too, as in llama.cpp and in Llama 2's own tokenizer.
            let segment = tokenizer.encode("</s>tide", Special::Leave).unwrap();
            assert_eq!(segment[1..], tokenizer.encode("tide", Special::Leave).unwrap());
        }
    }

    #[test]
    fn malformed_pieces_are_refused_with_their_key() {
        let good = || {
            HashMap::from([
                (MODEL, string("llama")),
                (TOKENS, list(["<unk>", "a", "b", "ab", "\u{2581}"], string)),
                (SCORES, list([0.0, -1.0, -2.0, -0.5, -3.0], Value::Float)),
                (TOKEN_TYPE, list([2, 1, 1, 1, 1], Value::Signed)),
            ])
        };
        assert_eq!(built(&good()).unwrap().encode("ab b", Special::Leave).unwrap(), [4, 3, 4, 2]);
        for (key, value, expected) in [
            (SCORES, list([0.0], Value::Float), SCORES),
            (SCORES, list([0.0, f64::NAN, 0.0, 0.0, 0.0], Value::Float), SCORES),
            (TOKEN_TYPE, list([1], Value::Signed), TOKEN_TYPE),
            (TOKENS, list(["<unk>", "a", "b", &"x".repeat(2000), "c"], string), "2000 bytes"),
        ] {
            let mut metadata = good();
            metadata.insert(key, value);
            let error = built(&metadata).unwrap_err().to_string();
            assert!(error.contains(expected), "{key}: {error}");
        }
        let mut metadata = good();
        metadata.remove(TOKEN_TYPE);
        assert!(built(&metadata).unwrap_err().to_string().contains(TOKEN_TYPE));
    }
}
