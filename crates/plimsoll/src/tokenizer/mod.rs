//! Text to token ids and back, and chats to text.
//!
//! Two readers arrive at the same [`Tokenizer`]: a Hugging Face folder (`tokenizer.json` beside
//! `tokenizer_config.json`) and the metadata of a GGUF file. The pieces of a tokenizer (normaliser, pre-tokeniser,
//! byte-pair merges, decoder) are those of the `tokenizers` library, put together here from a validated description:
//! that library panics on some malformed `tokenizer.json`, so it never sees one.
//!
//! Departures, each on purpose: special tokens that a tokenizer adds by itself are kept here as plain ids
//! ([`Special`]) in place of the library's post-processor; truncation and padding of `tokenizer.json` are ignored, as
//! `transformers` does unless asked; BPE dropout is refused, since scores must repeat.

mod gguf;
mod json;
mod sentencepiece;
mod template;

use std::collections::HashSet;
use std::iter;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use crate::error::{Error, Result, shown};
use crate::model::Metadata;

pub use template::{ChatTemplate, GenerationPrompt, Message};
pub(crate) use template::{json_value, to_json};

/// What can be wrong with a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerProblem {
    /// Not the JSON that a tokenizer's file holds.
    #[error("not a tokenizer that is understood: {}", shown(&.0.to_string()))]
    Json(serde_json::Error),
    /// A metadata key of a GGUF file that is missing or of the wrong kind.
    #[error("metadata `{key}`: expected {expected}, found {found}")]
    Key {
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// Something that real tokenizers use and this program does not implement.
    #[error("{what} `{}` is not supported: {supported} are", shown(.found))]
    Unsupported {
        /// What it is, such as `pre-tokenizer`.
        what: &'static str,
        /// Its name in the file.
        found: String,
        /// The names that are understood.
        supported: &'static str,
    },
    /// Two tokens with one id, or one token with two.
    #[error("token `{}` with id {id} is in the vocabulary twice, by its text or by its id", shown(.token))]
    Duplicate {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
    },
    /// A merge whose parts or whose result is no token.
    #[error("merge {number}: expected two tokens that join to a third, found `{}`", shown(.merge))]
    Merge {
        /// Its place in the list, from 1.
        number: usize,
        /// As it stands in the file.
        merge: String,
    },
    /// An added token that does not get the id that the file gives it.
    #[error("added token `{}`: expected id {expected}, found {found:?}", shown(.token))]
    AddedToken {
        /// The token.
        token: String,
        /// The id in the file.
        expected: u32,
        /// The id it has.
        found: Option<u32>,
    },
    /// A special token that is no token.
    #[error("{what}: {} is not in the vocabulary", shown(.token))]
    NoSuchToken {
        /// What it is for, such as `bos_token`.
        what: &'static str,
        /// The token, or its id.
        token: String,
    },
    /// A part that the tokenizers library does not accept, or text that it cannot encode.
    #[error("the tokenizer refuses this {what}: {}", shown(.message))]
    Refused {
        /// The part.
        what: &'static str,
        /// The library's reason.
        message: String,
    },
    /// A chat template that is too large.
    #[error("chat template: expected at most {limit} bytes, found {found}")]
    TemplateSize {
        /// The limit, in bytes.
        limit: usize,
        /// Its size, in bytes.
        found: usize,
    },
    /// Several named templates and none called `default`.
    #[error("chat template: expected one named `default`, found {}", shown(&found.join(", ")))]
    NoDefaultTemplate {
        /// The names there are.
        found: Vec<String>,
    },
    /// A chat template that cannot be parsed, or that refuses the chat it is given.
    #[error("chat template: {0}")]
    Template(String),
}

/// Which special tokens the tokenizer adds by itself, as its files say. Those written in the text are always found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Those before the text and those behind it: what `transformers` does by default.
    Add,
    /// Those before the text only, such as BOS: for a prompt that an answer follows.
    Begin,
    /// None: for a rendered chat template, which writes its own.
    Leave,
}

/// A text as tokens, with where each of them stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token the bytes of the text that it stands for. Bytes of one character that are several tokens all have the
    /// whole character; a token that stands for nothing in the text, such as BOS or the space that SentencePiece adds,
    /// has an empty range.
    pub spans: Vec<Range<usize>>,
}

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    library: tokenizers::Tokenizer,
    /// Special tokens that belong before a text.
    before: Vec<u32>,
    /// Special tokens that belong behind a text.
    behind: Vec<u32>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// Tokens that the files mark as special.
    special: HashSet<u32>,
    ids: usize,
    marks: Marks,
    /// The text of the chat template. It is parsed when it is asked for: who renders with another one, or with none, does
    /// not mind a broken one.
    template: Option<String>,
    /// The file that the chat template stands in.
    template_file: PathBuf,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` of a folder; the first must exist.
    ///
    /// The post-processor says what is added around a text; `add_bos_token` and `add_eos_token` of the config do not,
    /// as in `transformers` 5. A template in a file of its own goes before the config's.
    ///
    /// # Errors
    /// An unreadable or malformed file, or a tokenizer with a part that is not implemented, by its name.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        json::read(folder)
    }

    /// Rebuilds the tokenizer that a GGUF file describes in its metadata; `path` is named in errors.
    ///
    /// # Errors
    /// A missing or malformed key, or a tokenizer model or pre-tokenizer that is not implemented, by its name.
    pub fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Self> {
        let tokenizer = gguf::build(&|key| metadata.get(key)).map_err(|problem| Error::input(path, problem))?;
        Ok(Self { template_file: path.to_owned(), ..tokenizer })
    }

    /// Token ids of a text. Special tokens written in it, such as `<|im_start|>`, become single ids.
    ///
    /// # Errors
    /// [`TokenizerProblem::Refused`]: a character outside a vocabulary that has no unknown token.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerProblem> {
        let ids = encode(&self.library, text)?;
        Ok(match special {
            Special::Leave => ids,
            Special::Begin => [&self.before[..], &ids].concat(),
            Special::Add => [&self.before[..], &ids, &self.behind].concat(),
        })
    }

    /// Token ids of a text as [`Tokenizer::encode`] gives them, with where each token stands in the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_spans(&self, text: &str, special: Special) -> Result<Encoding, TokenizerProblem> {
        let encoding = self.library.encode(text, false).map_err(refused("text"))?;
        let (before, behind): (&[u32], &[u32]) = match special {
            Special::Leave => (&[], &[]),
            Special::Begin => (&self.before, &[]),
            Special::Add => (&self.before, &self.behind),
        };
        let spans = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(Encoding {
            ids: [before, encoding.get_ids(), behind].concat(),
            spans: iter::repeat_n(0..0, before.len())
                .chain(spans)
                .chain(iter::repeat_n(text.len()..text.len(), behind.len()))
                .collect(),
        })
    }

    /// The text of token ids, special tokens included. Ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// [`TokenizerProblem::Refused`]: the decoder's reason.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerProblem> {
        self.library.decode(ids, false).map_err(refused("token ids"))
    }

    /// The text of token ids without special tokens: what a reader is shown.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String, TokenizerProblem> {
        self.library.decode(ids, true).map_err(refused("token ids"))
    }

    /// Tokens that end an answer: EOS, and what else the files name as an end of turn or of text.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Whether the files mark a token as special: a mark such as BOS or an end of turn, and no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// One more than the highest token id.
    pub fn vocab_size(&self) -> usize {
        self.ids
    }

    /// The chat template, where the files hold one.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`], with the file that the template stands in.
    pub fn template(&self) -> Result<Option<ChatTemplate>> {
        let parse = |source: &String| self.parse_template(source);
        self.template.as_ref().map(parse).transpose().map_err(|problem| Error::input(&self.template_file, problem))
    }

    /// A chat template of the user's own, which may write this tokenizer's BOS and EOS.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`].
    pub fn parse_template(&self, source: &str) -> Result<ChatTemplate, TokenizerProblem> {
        ChatTemplate::new(source, self.marks.bos.as_deref(), self.marks.eos.as_deref())
    }

    /// The id of a token by its text in the vocabulary, such as `<|im_end|>`.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.library.token_to_id(token)
    }
}

/// The texts of the tokens that begin and end a text, where the files name them.
#[derive(Clone, Debug, Default)]
struct Marks {
    bos: Option<String>,
    eos: Option<String>,
}

/// What both readers hand over: validated, and not yet put together.
struct Parts {
    model: BPE,
    normalizers: Vec<NormalizerWrapper>,
    pre_tokenizers: Vec<PreTokenizerWrapper>,
    decoders: Vec<DecoderWrapper>,
    /// In order of their ids.
    added: Vec<(u32, AddedToken)>,
    before: Vec<u32>,
    behind: Vec<u32>,
    /// Tokens that end an answer, beside the EOS of `marks`.
    ends: Vec<u32>,
    marks: Marks,
    /// The text of the chat template.
    template: Option<String>,
}

impl Parts {
    fn join(self) -> Result<Tokenizer, TokenizerProblem> {
        let mut library = tokenizers::Tokenizer::new(self.model);
        if !self.decoders.is_empty() {
            library.with_decoder(Some(tokenizers::decoders::sequence::Sequence::new(self.decoders)));
        }
        let (expected, tokens): (Vec<u32>, Vec<AddedToken>) = self.added.into_iter().unzip();
        // Normalisers first: the library normalises added tokens while it takes them.
        set_pieces(&mut library, self.normalizers, self.pre_tokenizers)?;
        library.add_tokens(tokens.iter().cloned()).map_err(refused("list of added tokens"))?;
        for (&expected, token) in expected.iter().zip(&tokens) {
            let found = library.token_to_id(&token.content);
            if found != Some(expected) {
                return Err(TokenizerProblem::AddedToken { token: token.content.clone(), expected, found });
            }
        }
        let special = expected.iter().zip(&tokens).filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
        let ids = library.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let (before, behind, marks) = (self.before, self.behind, self.marks);
        let mut ends = self.ends;
        ends.extend(marks.eos.as_deref().and_then(|eos| library.token_to_id(eos)));
        let (template, template_file) = (self.template, PathBuf::new());
        Ok(Tokenizer { library, before, behind, ends, special, ids, marks, template, template_file })
    }
}

fn set_pieces(
    library: &mut tokenizers::Tokenizer,
    normalizers: Vec<NormalizerWrapper>,
    pre_tokenizers: Vec<PreTokenizerWrapper>,
) -> Result<(), TokenizerProblem> {
    let normalizer = (!normalizers.is_empty()).then(|| tokenizers::normalizers::Sequence::new(normalizers));
    library.with_normalizer(normalizer).map_err(refused("normalizer"))?;
    let pre_tokenizer =
        (!pre_tokenizers.is_empty()).then(|| tokenizers::pre_tokenizers::sequence::Sequence::new(pre_tokenizers));
    library.with_pre_tokenizer(pre_tokenizer);
    Ok(())
}

fn encode(library: &tokenizers::Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerProblem> {
    library.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).map_err(refused("text"))
}

/// The settings of a byte-pair model beside its vocabulary and merges.
#[derive(Clone, Debug, Default)]
struct BpeSettings {
    unk_token: Option<String>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
}

/// A byte-pair model, after checking what the library takes for granted: ids are unique, and every merge joins two
/// tokens to a third.
fn bpe(vocab: Vocab, merges: Merges, settings: BpeSettings) -> Result<BPE, TokenizerProblem> {
    let mut by_id = HashSet::with_capacity(vocab.len());
    for (token, &id) in &vocab {
        if !by_id.insert(id) {
            return Err(TokenizerProblem::Duplicate { token: token.clone(), id });
        }
    }
    let mut joined = String::new();
    for (index, (left, right)) in merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if ![left, right, &joined].into_iter().all(|token| vocab.contains_key(token)) {
            return Err(TokenizerProblem::Merge { number: index + 1, merge: format!("{left} {right}") });
        }
    }
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(settings.fuse_unk)
        .byte_fallback(settings.byte_fallback)
        .ignore_merges(settings.ignore_merges);
    if let Some(unk_token) = settings.unk_token {
        builder = builder.unk_token(unk_token);
    }
    builder.build().map_err(refused("vocabulary"))
}

/// The library's own error as one of ours, in the shape that `map_err` wants.
fn refused<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> TokenizerProblem {
    move |error| TokenizerProblem::Refused { what, message: error.to_string() }
}
