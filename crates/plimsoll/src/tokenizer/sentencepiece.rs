//! SentencePiece's byte-pair models, rebuilt from their pieces and scores.
//!
//! SentencePiece (Kudo and Richardson, arXiv:1808.06226) joins, again and again, the neighbours whose joined piece has the
//! highest score, the leftmost where several have it. A list of merges in the order of the scores does the same, and it is
//! what Llama's and Gemma's own `tokenizer.json` were made with: every way to cut a piece into two others is a merge, pieces
//! with higher scores first, and of one piece those with the lower ids (`SentencePieceExtractor` of transformers 5.23).

use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace};
use tokenizers::{DecoderWrapper, NormalizerWrapper};

use super::problem::{TokenizerProblem, refused};

/// What stands for a space in a piece.
const SPACE: &str = "\u{2581}";

/// Pieces longer than this are refused, in bytes; the longest of published models have some 100.
const MAX_PIECE_BYTES: usize = 1024;

/// The merges that pieces of these scores make. `is_piece` says of an id whether it may come out of a merge.
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
                message: format!("token {id} has {} bytes: at most {MAX_PIECE_BYTES} are read", token.len()),
            });
        }
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        merges.extend(cuts.filter_map(|(left, right)| Some((scores[id], id, *ids.get(left)?, *ids.get(right)?))));
    }
    // Pieces of equal scores stay in the order of their ids.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3))));
    let text = |id: u32| tokens[id as usize].to_owned();
    Ok(merges.into_iter().map(|(_, _, left, right)| (text(left), text(right))).collect())
}

/// What is done to a text before it is cut into pieces.
pub(super) fn normalizers(space_in_front: bool) -> Result<Vec<NormalizerWrapper>, TokenizerProblem> {
    let mut normalizers = Vec::new();
    if space_in_front {
        normalizers.push(Prepend::new(SPACE.to_owned()).into());
    }
    normalizers.push(Replace::new(" ", SPACE).map_err(refused("pattern"))?.into());
    Ok(normalizers)
}

/// What makes a text of pieces again.
pub(super) fn decoders(space_in_front: bool) -> Result<Vec<DecoderWrapper>, TokenizerProblem> {
    let space = Replace::new(SPACE, " ").map_err(refused("pattern"))?;
    let mut decoders: Vec<DecoderWrapper> = vec![space.into(), ByteFallback::new().into(), Fuse::new().into()];
    if space_in_front {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    Ok(decoders)
}
