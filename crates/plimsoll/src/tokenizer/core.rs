//! The tokenizer: text to token ids and back.

use std::collections::HashSet;
use std::iter;
use std::ops::Range;
use std::path::PathBuf;

use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

use super::parts::{Marks, Parts};
use super::problem::{TokenizerProblem, refused};
use super::template::ChatTemplate;
use crate::error::{Error, Result};

/// Special tokens that are added to a text, as its files configure. Special tokens in the text itself are always
/// recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Those before and after the text: the default of `transformers`.
    Add,
    /// Those before the text only, such as BOS: for a prompt that an answer follows.
    Begin,
    /// None: for a rendered chat template, which has its own.
    Leave,
}

/// Token ids of a text, with the bytes of the text that each token covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each token, the bytes of the text that it covers. If one character is several tokens, each has the range of
    /// the whole character. A token without text, such as BOS or the space that SentencePiece adds, has an empty range.
    pub spans: Vec<Range<usize>>,
}

/// A tokenizer with its chat template.
#[derive(Debug)]
pub struct Tokenizer {
    pub(super) library: tokenizers::Tokenizer,
    /// Special tokens added before a text.
    pub(super) before: Vec<u32>,
    /// Special tokens added after a text.
    pub(super) after: Vec<u32>,
    /// Stop tokens.
    pub(super) end_tokens: Vec<u32>,
    /// Tokens that the files mark as special.
    pub(super) special: HashSet<u32>,
    pub(super) ids: usize,
    pub(super) marks: Marks,
    /// Source of the chat template. It is parsed on demand, so that a malformed one is no error if another one, or
    /// none, is used.
    pub(super) template: Option<String>,
    /// The file of the chat template.
    pub(super) template_file: PathBuf,
}

impl Tokenizer {
    /// Token ids of a text. Special tokens written in it, such as `<|im_start|>`, become single ids.
    ///
    /// # Errors
    /// [`TokenizerProblem::Refused`]: a character outside a vocabulary that has no unknown token.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>, TokenizerProblem> {
        let ids = encode(&self.library, text)?;
        Ok(match special {
            Special::Leave => ids,
            Special::Begin => [&self.before[..], &ids].concat(),
            Special::Add => [&self.before[..], &ids, &self.after].concat(),
        })
    }

    /// Token ids of a text, as from [`Tokenizer::encode`], with the bytes of the text that each token covers.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_spans(&self, text: &str, special: Special) -> Result<Encoding, TokenizerProblem> {
        let encoding = self.library.encode(text, false).map_err(refused("text"))?;
        let (before, after): (&[u32], &[u32]) = match special {
            Special::Leave => (&[], &[]),
            Special::Begin => (&self.before, &[]),
            Special::Add => (&self.before, &self.after),
        };
        let spans = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok(Encoding {
            ids: [before, encoding.get_ids(), after].concat(),
            spans: iter::repeat_n(0..0, before.len())
                .chain(spans)
                .chain(iter::repeat_n(text.len()..text.len(), after.len()))
                .collect(),
        })
    }

    /// The text of token ids, with special tokens. Ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// [`TokenizerProblem::Refused`], with the decoder's reason.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerProblem> {
        self.library.decode(ids, false).map_err(refused("token ids"))
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_plain(&self, ids: &[u32]) -> Result<String, TokenizerProblem> {
        self.library.decode(ids, true).map_err(refused("token ids"))
    }

    /// Stop tokens, which end generation: EOS, and other end-of-turn and end-of-text tokens of the files.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Whether the files mark a token as special, such as BOS or an end of turn.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Size of the vocabulary: one more than the highest token id.
    pub fn vocab_size(&self) -> usize {
        self.ids
    }

    /// The chat template of the files; `None` if they have none.
    ///
    /// # Errors
    /// As [`ChatTemplate::new`], with the path of the template's file.
    pub fn template(&self) -> Result<Option<ChatTemplate>> {
        let parse = |source: &String| self.parse_template(source);
        self.template.as_ref().map(parse).transpose().map_err(|problem| Error::input(&self.template_file, problem))
    }

    /// Parses another chat template, with this tokenizer's BOS and EOS.
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

impl Parts {
    pub(super) fn join(self) -> Result<Tokenizer, TokenizerProblem> {
        let mut library = tokenizers::Tokenizer::new(self.model);
        if !self.decoders.is_empty() {
            library.with_decoder(Some(tokenizers::decoders::sequence::Sequence::new(self.decoders)));
        }
        let (expected, tokens): (Vec<u32>, Vec<AddedToken>) = self.added.into_iter().unzip();
        // Normalisers first: the library normalises added tokens when they are added.
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
        let (before, after, marks) = (self.before, self.after, self.marks);
        let mut end_tokens = self.end_tokens;
        end_tokens.extend(marks.eos.as_deref().and_then(|eos| library.token_to_id(eos)));
        let (template, template_file) = (self.template, PathBuf::new());
        Ok(Tokenizer { library, before, after, end_tokens, special, ids, marks, template, template_file })
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
