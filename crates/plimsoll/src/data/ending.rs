//! How answers end.

/// What the last token of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// This token, which ends generation.
    Token(u32),
    /// A token of its text: nothing ends generation.
    Open,
}
