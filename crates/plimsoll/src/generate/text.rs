//! Incremental decoding of tokens to text, and detection of stop texts.

use crate::tokenizer::{Tokenizer, TokenizerProblem};

/// The text of a growing list of tokens: after each token, the new text that is final.
///
/// A token can end in the middle of a character, and its text can depend on the token before it (a space between
/// words). So decoding starts one piece of text before the new one, and text is returned only when it ends with a whole
/// character.
#[derive(Debug)]
pub(super) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Index of the first token that is decoded.
    from: usize,
    /// Number of tokens whose text is emitted.
    emitted: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), from: 0, emitted: 0 }
    }

    /// The text that one more token adds.
    pub(super) fn push(&mut self, token: u32) -> Result<String, TokenizerProblem> {
        self.tokens.push(token);
        let all = self.tokenizer.decode_plain(&self.tokens[self.from..])?;
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let before = self.tokenizer.decode_plain(&self.tokens[self.from..self.emitted])?;
        // If the new token changes the text before it, wait for the next token.
        let Some(text) = all.strip_prefix(&before) else { return Ok(String::new()) };
        (self.from, self.emitted) = (self.emitted, self.tokens.len());
        Ok(text.to_owned())
    }

    /// The text of all tokens, with an unfinished character's bytes as replacement characters.
    pub(super) fn whole(&self) -> Result<String, TokenizerProblem> {
        self.tokenizer.decode_plain(&self.tokens)
    }
}

/// Finds stop texts.
#[derive(Debug)]
pub(super) struct Stops<'a> {
    texts: &'a [String],
    longest: usize,
}

impl<'a> Stops<'a> {
    pub(super) fn new(texts: &'a [String]) -> Self {
        Self { texts, longest: texts.iter().map(String::len).max().unwrap_or(0) }
    }

    /// The start of the first stop text in `text`. The text before `new` was searched already.
    pub(super) fn find(&self, text: &str, new: usize) -> Option<usize> {
        let mut from = (new + 1).saturating_sub(self.longest.max(1));
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let found = self.texts.iter().filter_map(|stop| text[from..].find(stop.as_str()));
        found.min().map(|at| from + at)
    }

    /// The length of the start of `text` that cannot be part of a stop text, whatever follows.
    pub(super) fn safe(&self, text: &str) -> usize {
        let starts = |at: &usize| self.texts.iter().any(|stop| stop.starts_with(&text[*at..]));
        let mut from = text.len().saturating_sub(self.longest);
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        (from..text.len()).filter(|&at| text.is_char_boundary(at)).find(starts).unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_found_across_pieces() {
        let texts = ["\n\n".to_owned(), "Question:".to_owned()];
        let stops = Stops::new(&texts);
        assert_eq!(stops.find("é: 3\n\nQuestion: 4", 0), Some(5));
        assert_eq!(stops.find("so 12\n\nQ", 6), Some(5));
        assert_eq!(stops.find("so 12\nQ", 6), None);
        assert_eq!(Stops::new(&[]).find("é", 1), None);
    }

    #[test]
    fn the_possible_start_of_a_stop_text_is_not_safe() {
        let texts = ["Question:".to_owned(), "\n\n".to_owned()];
        let stops = Stops::new(&texts);
        assert_eq!(stops.safe("twelve.\n"), 7);
        assert_eq!(stops.safe("a Quest"), 2);
        assert_eq!(stops.safe("a Quests"), 8);
        assert_eq!(stops.safe("ééé"), 6);
        assert_eq!(Stops::new(&[]).safe("a\n"), 2);
    }
}
