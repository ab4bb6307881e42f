//! From tokens to text while they come, and the texts that end it.

use crate::tokenizer::{Tokenizer, TokenizerProblem};

/// The text of a growing list of tokens: what can be told for sure after each of them.
///
/// A token can end in the middle of a character, and its text can depend on the token before it (a space between
/// words). So text is decoded from the token before the last that ended a character, and given once it ends one.
#[derive(Debug)]
pub(super) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens from here on are decoded.
    from: usize,
    /// The text of the tokens up to here is told.
    told: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), from: 0, told: 0 }
    }

    /// What one more token adds.
    pub(super) fn push(&mut self, token: u32) -> Result<String, TokenizerProblem> {
        self.tokens.push(token);
        let all = self.tokenizer.decode_plain(&self.tokens[self.from..])?;
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let before = self.tokenizer.decode_plain(&self.tokens[self.from..self.told])?;
        // Where a run of bytes has changed what it stands for, the next token may settle it.
        let Some(text) = all.strip_prefix(&before) else { return Ok(String::new()) };
        (self.from, self.told) = (self.told, self.tokens.len());
        Ok(text.to_owned())
    }

    /// The text of all tokens, with an unfinished character's bytes as replacement characters.
    pub(super) fn whole(&self) -> Result<String, TokenizerProblem> {
        self.tokenizer.decode_plain(&self.tokens)
    }
}

/// Looks for the texts that end a generation.
#[derive(Debug)]
pub(super) struct Stops<'a> {
    texts: &'a [String],
    longest: usize,
}

impl<'a> Stops<'a> {
    pub(super) fn new(texts: &'a [String]) -> Self {
        Self { texts, longest: texts.iter().map(String::len).max().unwrap_or(0) }
    }

    /// Where the first of them begins in `text`, of which what lies before `new` was searched already.
    pub(super) fn find(&self, text: &str, new: usize) -> Option<usize> {
        let mut from = (new + 1).saturating_sub(self.longest.max(1));
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        let found = self.texts.iter().filter_map(|stop| text[from..].find(stop.as_str()));
        found.min().map(|at| from + at)
    }

    /// How much of `text` cannot become a part of one of them, whatever follows.
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
    fn what_may_begin_a_stop_is_held_back() {
        let texts = ["Question:".to_owned(), "\n\n".to_owned()];
        let stops = Stops::new(&texts);
        assert_eq!(stops.safe("twelve.\n"), 7);
        assert_eq!(stops.safe("a Quest"), 2);
        assert_eq!(stops.safe("a Quests"), 8);
        assert_eq!(stops.safe("ééé"), 6);
        assert_eq!(Stops::new(&[]).safe("a\n"), 2);
    }
}
