//! Byte-pair models of SentencePiece, rebuilt from pieces and scores.
//!
//! SentencePiece (Kudo and Richardson, arXiv:1808.06226) repeatedly joins the neighbours whose joined piece has the
//! highest score, the leftmost of equal ones. A list of merges in the order of scores is equivalent, and the
//! `tokenizer.json` files of Llama and Gemma were made this way: every split of a piece into two pieces is a merge.
//! Merges are sorted by score, highest first, and for one piece by ids, lowest first (`SentencePieceExtractor` of
//! transformers 5.23).

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace};
use tokenizers::{DecoderWrapper, NormalizerWrapper};

use super::problem::{TokenizerProblem, refused};

/// The character that replaces a space in pieces.
const SPACE: &str = "\u{2581}";

/// Most bytes of a piece. The longest pieces of published models have about 100.
const MAX_PIECE_BYTES: usize = 1024;

/// The merges of pieces with these scores. `is_piece(id)` is true if the piece can result from a merge.
pub(super) fn merges(
    tokens: &[&str],
    scores: &[f32],
    vocab: &Vocab,
    is_piece: impl Fn(usize) -> bool,
) -> Result<Merges, TokenizerProblem> {
    let ids: HashMap<&str, u32> = vocab.iter().map(|(token, &id)| (token.as_str(), id)).collect();
    let mut merges: Vec<(f32, usize, u32, u32)> = Vec::new();
    for (id, token) in tokens.iter().enumerate().filter(|(id, _)| is_piece(*id)) {
        if token.len() > MAX_PIECE_BYTES {
            return Err(TokenizerProblem::Refused {
                what: "piece",
                message: format!("token {id} has {} bytes, at most {MAX_PIECE_BYTES} are supported", token.len()),
            });
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        merges.extend(cuts.filter_map(|(left, right)| Some((scores[id], id, *ids.get(left)?, *ids.get(right)?))));
    }
    // Pieces with equal scores are in the order of their ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let text = |id: u32| tokens[id as usize].to_owned();
    Ok(merges.into_iter().map(|(_, _, left, right)| (text(left), text(right))).collect())
}

/// The normalisers of a text before it is split into pieces.
pub(super) fn normalizers(space_in_front: bool) -> Result<Vec<NormalizerWrapper>, TokenizerProblem> {
    let mut normalizers = Vec::new();
    if space_in_front {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(refused("pattern"))?.into());
    Ok(normalizers)
}

/// The decoders that turn pieces into text.
pub(super) fn decoders(space_in_front: bool) -> Result<Vec<DecoderWrapper>, TokenizerProblem> {
    let space = Replace::new(SPACE, " ").map_err(refused("pattern"))?;
    let mut decoders: Vec<DecoderWrapper> = vec![space.into(), ByteFallback::new().into(), Fuse::new().into()];
    if space_in_front {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    Ok(decoders)
}
