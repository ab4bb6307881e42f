//! The ending of answers.

/// The ending of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer ends with this stop token.
    Token(u32),
    /// The answer ends with its text, without a stop token.
    Open,
}
