//! The validated components of a tokenizer, before they are joined.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::problem::{TokenizerProblem, refused};

/// The texts of BOS and EOS, if the files name them.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
}

/// The validated components of a tokenizer.
pub(super) struct Parts {
    pub(super) model: BPE,
    pub(super) normalizers: Vec<NormalizerWrapper>,
    pub(super) pre_tokenizers: Vec<PreTokenizerWrapper>,
    pub(super) decoders: Vec<DecoderWrapper>,
    /// In ascending order of ids.
    pub(super) added: Vec<(u32, AddedToken)>,
    /// Special tokens added before a text.
    pub(super) before: Vec<u32>,
    /// Special tokens added after a text.
    pub(super) after: Vec<u32>,
    /// Stop tokens other than the EOS of `marks`.
    pub(super) end_tokens: Vec<u32>,
    pub(super) marks: Marks,
    /// Source of the chat template.
    pub(super) template: Option<String>,
}

/// The settings of a byte-pair model other than vocabulary and merges.
#[derive(Clone, Debug, Default)]
pub(super) struct BpeSettings {
    pub(super) unk_token: Option<String>,
    pub(super) fuse_unk: bool,
    pub(super) byte_fallback: bool,
    pub(super) ignore_merges: bool,
}

/// Builds a byte-pair model. Checks what the library does not: ids are unique, and every merge joins two tokens to a
/// third.
pub(super) fn bpe(vocab: Vocab, merges: Merges, settings: BpeSettings) -> Result<BPE, TokenizerProblem> {
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
