//! Reader of the tokenizer in a Hugging Face folder: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`.
//! Stop tokens are read from `generation_config.json`, or else from `config.json`.
//!
//! Supported are the components of decoder-only language models: byte-pair models with byte-level or SentencePiece-like
//! pieces. All others are refused by name.

use std::collections::HashMap;
use std::path::Path;

use plimsoll_formats::files;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, NFD, NFKC, NFKD, Prepend, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::core::Tokenizer;
use super::parts::{BpeSettings, Marks, Parts, bpe};
use super::problem::{TokenizerProblem, refused};
use crate::error::{Error, Result};

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face folder: `tokenizer.json`, and if they exist `tokenizer_config.json` and
    /// `chat_template.jinja`.
    ///
    /// As in `transformers` 5, the post-processor determines the special tokens around a text, and `add_bos_token` and
    /// `add_eos_token` of the config are ignored. `chat_template.jinja` takes precedence over the config's template.
    ///
    /// # Errors
    /// An unreadable or malformed file, or a component that is not supported.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        read(folder)
    }
}

/// Reads a folder's tokenizer.
fn read(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let raw: RawTokenizer = parse(&path, &files::read_text(&path)?)?;
    let config_path = folder.join("tokenizer_config.json");
    let config: RawConfig = if config_path.exists() {
        parse(&config_path, &files::read_config(&config_path)?)?
    } else {
        RawConfig::default()
    };
    let token = |token: &Option<RawToken>| token.as_ref().map(|token| token.text().to_owned());
    let marks = Marks { bos: token(&config.bos_token), eos: token(&config.eos_token) };

    let at_tokenizer = |problem| Error::input(&path, problem);
    let at_config = |problem| Error::input(&config_path, problem);
    let mut tokenizer = raw.parts(marks).and_then(Parts::join).map_err(at_tokenizer)?;
    tokenizer.end_tokens.extend(end_tokens(folder)?);
    let template_path = folder.join("chat_template.jinja");
    if template_path.exists() {
        tokenizer.template = Some(files::read_config(&template_path)?);
        tokenizer.template_file = template_path;
    } else {
        tokenizer.template = config.chat_template.map(RawTemplate::choose).transpose().map_err(at_config)?;
        tokenizer.template_file = config_path.clone();
    }
    Ok(tokenizer)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::input(path, TokenizerProblem::Json(error)))
}

/// The stop tokens of the model's configuration files.
fn end_tokens(folder: &Path) -> Result<Vec<u32>> {
    for name in ["generation_config.json", "config.json"] {
        let path = folder.join(name);
        if path.exists() {
            let config: RawEnds = parse(&path, &files::read_text(&path)?)?;
            if let Some(ends) = config.eos_token_id {
                return Ok(ends.ids());
            }
        }
    }
    Ok(Vec::new())
}

#[derive(Deserialize)]
struct RawEnds {
    eos_token_id: Option<RawIds>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawIds {
    One(u32),
    Several(Vec<u32>),
}

impl RawIds {
    fn ids(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

#[derive(Default, Deserialize)]
struct RawConfig {
    bos_token: Option<RawToken>,
    eos_token: Option<RawToken>,
    chat_template: Option<RawTemplate>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawToken {
    Text(String),
    Object { content: String },
}

impl RawToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl RawTemplate {
    fn choose(self) -> Result<String, TokenizerProblem> {
        match self {
            Self::One(template) => Ok(template),
            Self::Named(list) => {
                let found = list.iter().map(|named| named.name.clone()).collect();
                let default = list.into_iter().find(|named| named.name == "default");
                default.map(|named| named.template).ok_or(TokenizerProblem::NoDefaultTemplate { found })
            }
        }
    }
}

#[derive(Deserialize)]
struct RawTokenizer {
    #[serde(default)]
    added_tokens: Vec<RawAddedToken>,
    normalizer: Option<RawNormalizer>,
    pre_tokenizer: Option<RawPreTokenizer>,
    post_processor: Option<RawPostProcessor>,
    decoder: Option<RawDecoder>,
    model: RawModel,
}

impl RawTokenizer {
    fn parts(self, marks: Marks) -> Result<Parts, TokenizerProblem> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if let Some(processor) = &self.post_processor {
            processor.surround(&mut before, &mut after)?;
        }
        let mut added: Vec<_> = self.added_tokens.into_iter().map(RawAddedToken::build).collect();
        added.sort_by_key(|(id, _)| *id);
        Ok(Parts {
            normalizers: flatten(self.normalizer.as_ref(), RawNormalizer::build)?,
            pre_tokenizers: flatten(self.pre_tokenizer.as_ref(), RawPreTokenizer::build)?,
            decoders: flatten(self.decoder.as_ref(), RawDecoder::build)?,
            model: self.model.build()?,
            added,
            before,
            after,
            end_tokens: Vec::new(),
            marks,
            template: None,
        })
    }
}

fn flatten<R, P>(
    raw: Option<&R>,
    build: impl FnOnce(&R, &mut Vec<P>) -> Result<(), TokenizerProblem>,
) -> Result<Vec<P>, TokenizerProblem> {
    let mut out = Vec::new();
    if let Some(raw) = raw {
        build(raw, &mut out)?;
    }
    Ok(out)
}

#[derive(Deserialize)]
struct RawAddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl RawAddedToken {
    fn build(self) -> (u32, AddedToken) {
        let token = AddedToken::from(self.content, self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .normalized(self.normalized);
        (self.id, token)
    }
}

#[derive(Deserialize)]
enum RawPattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum RawNormalizer {
    Sequence {
        normalizers: Vec<RawNormalizer>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    #[serde(rename = "NFD")]
    Nfd,
    #[serde(rename = "NFKC")]
    Nfkc,
    #[serde(rename = "NFKD")]
    Nfkd,
    Lowercase,
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: RawPattern,
        content: String,
    },
}

impl RawNormalizer {
    fn build(&self, out: &mut Vec<NormalizerWrapper>) -> Result<(), TokenizerProblem> {
        out.push(match self {
            Self::Sequence { normalizers } => {
                return normalizers.iter().try_for_each(|normalizer| normalizer.build(out));
            }
            Self::Nfc => NFC.into(),
            Self::Nfd => NFD.into(),
            Self::Nfkc => NFKC.into(),
            Self::Nfkd => NFKD.into(),
            Self::Lowercase => Lowercase.into(),
            Self::Prepend { prepend } => Prepend::new(prepend.clone()).into(),
            Self::Replace { pattern, content } => replace(pattern, content)?.into(),
        });
        Ok(())
    }
}

fn replace(pattern: &RawPattern, content: &str) -> Result<Replace, TokenizerProblem> {
    let pattern = match pattern {
        RawPattern::String(text) => ReplacePattern::String(text.clone()),
        RawPattern::Regex(regex) => ReplacePattern::Regex(regex.clone()),
    };
    Replace::new(pattern, content).map_err(refused("pattern"))
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum RawPreTokenizer {
    Sequence {
        pretokenizers: Vec<RawPreTokenizer>,
    },
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: RawPattern,
        behavior: SplitDelimiterBehavior,
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<PrependScheme>,
        #[serde(default = "yes")]
        split: bool,
    },
    Punctuation {
        behavior: SplitDelimiterBehavior,
    },
    WhitespaceSplit,
}

fn yes() -> bool {
    true
}

impl RawPreTokenizer {
    fn build(&self, out: &mut Vec<PreTokenizerWrapper>) -> Result<(), TokenizerProblem> {
        out.push(match self {
            Self::Sequence { pretokenizers } => {
                return pretokenizers.iter().try_for_each(|pre_tokenizer| pre_tokenizer.build(out));
            }
            Self::ByteLevel { add_prefix_space, use_regex } => {
                ByteLevel::new(*add_prefix_space, true, *use_regex).into()
            }
            Self::Split { pattern, behavior, invert } => {
                let pattern = match pattern {
                    RawPattern::String(text) => SplitPattern::String(text.clone()),
                    RawPattern::Regex(regex) => SplitPattern::Regex(regex.clone()),
                };
                Split::new(pattern, *behavior, *invert).map_err(refused("pattern"))?.into()
            }
            Self::Digits { individual_digits } => Digits::new(*individual_digits).into(),
            Self::Metaspace { replacement, add_prefix_space, prepend_scheme, split } => {
                let scheme = scheme(*add_prefix_space, *prepend_scheme);
                Metaspace::new(*replacement, scheme, *split).into()
            }
            Self::Punctuation { behavior } => Punctuation::new(*behavior).into(),
            Self::WhitespaceSplit => WhitespaceSplit.into(),
        });
        Ok(())
    }
}

/// The prepend scheme: `add_prefix_space` in older files, `prepend_scheme` in newer ones.
fn scheme(add_prefix_space: Option<bool>, prepend_scheme: Option<PrependScheme>) -> PrependScheme {
    match (add_prefix_space, prepend_scheme) {
        (Some(false), _) => PrependScheme::Never,
        (_, Some(scheme)) => scheme,
        (_, None) => PrependScheme::Always,
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum RawPostProcessor {
    Sequence {
        processors: Vec<RawPostProcessor>,
    },
    /// In `tokenizers` it trims white space from the offsets of tokens. It is not applied, so `encode_with_spans`
    /// returns the offsets of whole tokens.
    ByteLevel,
    TemplateProcessing {
        single: Vec<RawPiece>,
        #[serde(default)]
        special_tokens: HashMap<String, RawSpecial>,
    },
}

#[derive(Deserialize)]
enum RawPiece {
    SpecialToken { id: String },
    Sequence {},
}

#[derive(Deserialize)]
struct RawSpecial {
    ids: Vec<u32>,
}

impl RawPostProcessor {
    /// Adds the special tokens of this processor around those collected so far.
    fn surround(&self, before: &mut Vec<u32>, after: &mut Vec<u32>) -> Result<(), TokenizerProblem> {
        match self {
            Self::Sequence { processors } => {
                processors.iter().try_for_each(|processor| processor.surround(before, after))
            }
            Self::ByteLevel => Ok(()),
            Self::TemplateProcessing { single, special_tokens } => {
                let texts = single.iter().filter(|piece| matches!(piece, RawPiece::Sequence {})).count();
                if texts != 1 {
                    return Err(TokenizerProblem::Unsupported {
                        what: "post-processor with a number of texts",
                        found: texts.to_string(),
                        supported: "1",
                    });
                }
                let (mut left, mut right) = (Vec::new(), Vec::new());
                let mut side = &mut left;
                for piece in single {
                    match piece {
                        RawPiece::Sequence {} => side = &mut right,
                        RawPiece::SpecialToken { id } => {
                            let special = special_tokens.get(id).ok_or_else(|| TokenizerProblem::NoSuchToken {
                                what: "post_processor",
                                token: id.clone(),
                            })?;
                            side.extend(&special.ids);
                        }
                    }
                }
                left.append(before);
                *before = left;
                after.append(&mut right);
                Ok(())
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum RawDecoder {
    Sequence { decoders: Vec<RawDecoder> },
    ByteLevel,
    ByteFallback,
    Fuse,
    Strip { content: char, start: usize, stop: usize },
    Replace { pattern: RawPattern, content: String },
    Metaspace { replacement: char, add_prefix_space: Option<bool>, prepend_scheme: Option<PrependScheme> },
}

impl RawDecoder {
    fn build(&self, out: &mut Vec<DecoderWrapper>) -> Result<(), TokenizerProblem> {
        out.push(match self {
            Self::Sequence { decoders } => return decoders.iter().try_for_each(|decoder| decoder.build(out)),
            Self::ByteLevel => ByteLevel::new(false, true, true).into(),
            Self::ByteFallback => ByteFallback::new().into(),
            Self::Fuse => Fuse::new().into(),
            // The library can underflow here, and real tokenizers strip only the start.
            Self::Strip { stop, .. } if *stop != 0 => {
                return Err(TokenizerProblem::Unsupported {
                    what: "decoder `Strip` with `stop`",
                    found: stop.to_string(),
                    supported: "0",
                });
            }
            Self::Strip { content, start, stop } => Strip::new(*content, *start, *stop).into(),
            Self::Replace { pattern, content } => replace(pattern, content)?.into(),
            Self::Metaspace { replacement, add_prefix_space, prepend_scheme } => {
                Metaspace::new(*replacement, scheme(*add_prefix_space, *prepend_scheme), true).into()
            }
        });
        Ok(())
    }
}

#[derive(Deserialize)]
struct RawModel {
    /// Missing in old files.
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: serde_json::Value,
    #[serde(default)]
    merges: Vec<RawMerge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawMerge {
    Pair(String, String),
    Line(String),
}

impl RawModel {
    fn build(self) -> Result<tokenizers::models::bpe::BPE, TokenizerProblem> {
        let unsupported = |what, found, supported| Err(TokenizerProblem::Unsupported { what, found, supported });
        match self.kind {
            Some(kind) if kind != "BPE" => return unsupported("tokenizer model", kind, "`BPE`"),
            _ => {}
        }
        if let Some(dropout) = self.dropout.filter(|&dropout| dropout != 0.0) {
            return unsupported("BPE dropout", dropout.to_string(), "0");
        }
        let affixes = [
            ("continuing_subword_prefix", self.continuing_subword_prefix),
            ("end_of_word_suffix", self.end_of_word_suffix),
        ];
        for (what, affix) in affixes {
            if let Some(affix) = affix.filter(|affix| !affix.is_empty()) {
                return unsupported(what, affix, "none");
            }
        }
        let vocab: HashMap<String, u32> = serde_json::from_value(self.vocab).map_err(TokenizerProblem::Json)?;
        let mut merges = Merges::with_capacity(self.merges.len());
        for (index, merge) in self.merges.into_iter().enumerate() {
            merges.push(match merge {
                RawMerge::Pair(left, right) => (left, right),
                RawMerge::Line(line) => match line.split_once(' ') {
                    Some((left, right)) => (left.to_owned(), right.to_owned()),
                    None => return Err(TokenizerProblem::Merge { number: index + 1, merge: line }),
                },
            });
        }
        let settings = BpeSettings {
            unk_token: self.unk_token,
            fuse_unk: self.fuse_unk,
            byte_fallback: self.byte_fallback,
            ignore_merges: self.ignore_merges,
        };
        bpe(vocab.into_iter().collect::<Vocab>(), merges, settings)
    }
}
