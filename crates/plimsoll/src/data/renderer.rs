//! From a line of data to the tokens of a sample, and which of them are scored.
//!
//! The whole text, prompt and answer, is rendered and tokenised at once, as trainers do (TRL, Axolotl, LLaMA-Factory) and as
//! `apply_chat_template(tokenize=True)` of transformers does. The answer's tokens are then found by where they stand in the
//! text: a token belongs to the answer if any part of it does, so one that straddles the border is scored. That is the rule of
//! `return_assistant_tokens_mask` in transformers; lm-evaluation-harness scores the same tokens of a plain continuation, and
//! the white space at the end of its prompt besides.
//!
//! An answer ends with the token that ends generation: the first one that the model's files name as an end
//! ([`Tokenizer::ends`]), or the special token that the template writes behind the answer's text, whichever comes first.
//! What the template writes behind it (often a line feed) is no part of the answer: no model is asked to generate it.
//! Where there is no such token, the answer ends with its text, and [`Ending::Open`] says so.

use std::ops::Range;

use super::ending::Ending;
use super::problem::DataProblem;
use super::sample::{Sample, TemplateChoice, TemplateUse, Turns};
use super::shape::Record;
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Encoding, GenerationPrompt, Message, Special, Tokenizer, TokenizerProblem};

/// How texts become tokens: a tokenizer, and the chat template that prompts are rendered with, if any.
#[derive(Debug)]
pub struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    used: TemplateUse,
}

/// A text, and which bytes of it are answers: ascending, apart, none empty.
struct Rendered {
    text: String,
    answers: Vec<Range<usize>>,
}

impl<'a> Renderer<'a> {
    /// Settles which template is used.
    ///
    /// # Errors
    /// A template that does not parse.
    pub fn new(tokenizer: &'a Tokenizer, choice: &TemplateChoice) -> Result<Self> {
        let (template, used) = match choice {
            TemplateChoice::None => (None, TemplateUse::None),
            TemplateChoice::Tokenizer => match tokenizer.template()? {
                Some(template) => (Some(template), TemplateUse::Tokenizer),
                None => (None, TemplateUse::None),
            },
            TemplateChoice::Given { file, source } => {
                let template = tokenizer.parse_template(source).map_err(|problem| Error::input(file, problem))?;
                (Some(template), TemplateUse::Given)
            }
        };
        Ok(Self { tokenizer, template, used })
    }

    /// How prompts are rendered.
    pub fn used(&self) -> TemplateUse {
        self.used
    }

    /// The tokens that an assistant's answer to a chat follows.
    ///
    /// # Errors
    /// There is no template, or it refuses the chat.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerProblem> {
        let no_template = || TokenizerProblem::Template("a chat needs one, and there is none".to_owned());
        let template = self.template.as_ref().ok_or_else(no_template)?;
        self.tokenizer.encode(&template.render(messages, GenerationPrompt::Add)?, Special::Leave)
    }

    /// The tokens of a plain text that goes on.
    ///
    /// # Errors
    /// The tokenizer refuses it.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>, TokenizerProblem> {
        self.tokenizer.encode(text, Special::Begin)
    }

    /// A chat and its answer as a sample: with a template, all messages and the answer as the assistant's turn; without
    /// one, the messages' contents as they stand, end to end.
    ///
    /// # Errors
    /// See [`DataProblem`].
    pub fn answered(&self, line: usize, messages: &[Message], answer: &str) -> Result<Sample, DataProblem> {
        let record = if self.template.is_some() {
            let answer = Message::new("assistant", answer);
            Record::Chat { messages: [messages, &[answer]].concat(), shape: "chat" }
        } else {
            let prompt = messages.iter().map(|message| message.content.as_str()).collect();
            Record::Pair { prompt, completion: answer.to_owned() }
        };
        self.sample(line, &record, Turns::Last)
    }

    /// The tokens that the answer to [`answered`](Self::answered) is generated from: the prompt tokenised alone, so that no
    /// token of it depends on the answer.
    ///
    /// # Errors
    /// The template refuses the chat, or the tokenizer the text.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerProblem> {
        match self.template {
            Some(_) => self.chat(messages),
            None => self.plain(&messages.iter().map(|message| message.content.as_str()).collect::<String>()),
        }
    }

    /// The tokens that a sample's last answer is generated from.
    pub(super) fn prompt_of(&self, record: &Record, sample: &Sample) -> Result<Vec<u32>, DataProblem> {
        let tokens = match record {
            Record::Text(_) => Ok(sample.tokens[..sample.answer[0]].to_vec()),
            record => {
                let messages = record.messages();
                let last = messages.iter().rposition(|message| message.role == "assistant").unwrap_or(messages.len());
                self.prompt(&messages[..last])
            }
        };
        tokens.map_err(|problem| DataProblem::Refused { line: sample.line, problem })
    }

    pub(super) fn question(&self, line: usize, record: &Record) -> Result<Vec<u32>, DataProblem> {
        let tokens = match (record, &self.template) {
            (Record::Text(text), _) => self.plain(text),
            (record, Some(_)) => self.chat(&record.messages()),
            (Record::Pair { prompt, .. }, None) => self.plain(prompt),
            (_, None) => return Err(DataProblem::NeedsTemplate { line, shape: record.shape() }),
        };
        match tokens {
            Ok(tokens) if tokens.is_empty() => Err(DataProblem::NoPrompt { line }),
            Ok(tokens) => Ok(tokens),
            Err(problem) => Err(DataProblem::Refused { line, problem }),
        }
    }

    /// The tokens of a line, and those of them that are scored.
    pub(super) fn sample(&self, line: usize, record: &Record, turns: Turns) -> Result<Sample, DataProblem> {
        let encode = |text: &str, special| {
            let encoding = self.tokenizer.encode_with_spans(text, special);
            encoding.map_err(|problem| DataProblem::Refused { line, problem })
        };
        let (rendered, special) = match (record, &self.template) {
            (Record::Text(text), _) => {
                let Encoding { ids: tokens, .. } = encode(text, Special::Add)?;
                if tokens.len() < 2 {
                    return Err(DataProblem::EmptyAnswer { line });
                }
                let answer = (1..tokens.len()).collect();
                return Ok(Sample { line, tokens, answer });
            }
            (_, Some(template)) => (self.rendered(line, &record.messages(), template, turns)?, Special::Leave),
            (Record::Pair { prompt, completion }, None) => {
                let text = format!("{prompt}{completion}");
                let answers = std::iter::once(prompt.len()..text.len()).collect();
                (Rendered { text, answers }, Special::Begin)
            }
            (_, None) => return Err(DataProblem::NeedsTemplate { line, shape: record.shape() }),
        };
        let Encoding { ids: mut tokens, spans } = encode(&rendered.text, special)?;
        let mut answer = Vec::new();
        for range in &rendered.answers {
            let found = self.scored(&rendered.text, &tokens, &spans, range);
            match found.start {
                _ if found.is_empty() => return Err(DataProblem::EmptyAnswer { line }),
                0 => return Err(DataProblem::NoPrompt { line }),
                _ => answer.extend(found),
            }
        }
        // Two answers may share a token where nothing stands between them.
        answer.dedup();
        tokens.truncate(answer.last().map_or(0, |last| last + 1));
        Ok(Sample { line, tokens, answer })
    }

    /// How a sample's last answer ends; none where no template wrote it.
    pub(super) fn ending(&self, record: &Record, sample: &Sample) -> Option<Ending> {
        if self.template.is_none() || matches!(record, Record::Text(_)) {
            return None;
        }
        let ends = |token: &u32| self.tokenizer.ends().contains(token) || self.tokenizer.is_special(*token);
        Some(sample.tokens.last().copied().filter(ends).map_or(Ending::Open, Ending::Token))
    }

    /// The tokens of an answer at some bytes of the text, up to the one that ends generation, which a template writes.
    fn scored(&self, text: &str, tokens: &[u32], spans: &[Range<usize>], bytes: &Range<usize>) -> Range<usize> {
        let found = standing_for(spans, bytes);
        if self.template.is_none() {
            return found;
        }
        let is_special = |at: &usize| self.tokenizer.is_special(tokens[*at]);
        // A mark of the prompt may stand for the white space behind it as well (Phi-3's do).
        let is_of_prompt = |at: &usize| is_special(at) && spans[*at].start < bytes.start;
        let start = found.clone().find(|at| !is_of_prompt(at)).unwrap_or(found.end);
        let is_blank = |at: &usize| text.get(spans[*at].clone()).is_some_and(|text| text.trim().is_empty());
        let behind = (start..found.end).rev().take_while(|at| is_special(at) || is_blank(at));
        let mark = behind.filter(is_special).last();
        let end = (start..found.end).find(|at| self.tokenizer.ends().contains(&tokens[*at]));
        let last = end.into_iter().chain(mark).min();
        start..last.map_or(found.end, |last| last + 1)
    }

    /// The rendered chat up to the last answer, and where the answers stand in it.
    ///
    /// An answer begins where the prompt before it, rendered with the generation prompt, ends or stops being the same. It
    /// ends where the chat up to it stops being the same.
    fn rendered(
        &self,
        line: usize,
        messages: &[Message],
        template: &ChatTemplate,
        turns: Turns,
    ) -> Result<Rendered, DataProblem> {
        let render = |messages: &[Message], prompt| {
            template.render(messages, prompt).map_err(|problem| DataProblem::Refused { line, problem })
        };
        let mut answered: Vec<usize> = (0..messages.len()).filter(|&turn| messages[turn].role == "assistant").collect();
        let Some(&last) = answered.last() else { return Err(DataProblem::NoAnswer { line }) };
        if turns == Turns::Last {
            answered = vec![last];
        }
        let text = render(&messages[..=last], GenerationPrompt::Leave)?;
        let mut answers = Vec::with_capacity(answered.len());
        for turn in answered {
            if turn == 0 {
                return Err(DataProblem::NoPrompt { line });
            }
            let advice = if turn == last { "give another with --template FILE" } else { "score the last turn only" };
            let rewritten = || DataProblem::Rewritten { line, turn: turn + 1, advice };
            let prompt = render(&messages[..turn], GenerationPrompt::Add)?;
            let start = common_prefix(&text, &prompt);
            // Some templates end the generation prompt with an empty thought, which they leave out before an answer.
            if start < prompt.len() {
                let before = self.turns_of(&render(&messages[..turn], GenerationPrompt::Leave)?, line, &text)?;
                if before.is_none_or(|before| before > start) {
                    return Err(rewritten());
                }
            }
            let end = if turn == last {
                Some(text.len())
            } else {
                self.turns_of(&render(&messages[..=turn], GenerationPrompt::Leave)?, line, &text)?
            };
            match end.filter(|end| *end > start) {
                Some(end) => answers.push(start..end),
                None => return Err(rewritten()),
            }
        }
        Ok(Rendered { text, answers })
    }

    /// Where the turns of a chat end in a longer one, if that begins with them. Some templates end a chat with a token more
    /// than a turn, which the longer chat does not have there.
    fn turns_of(&self, chat: &str, line: usize, longer: &str) -> Result<Option<usize>, DataProblem> {
        if longer.starts_with(chat) {
            return Ok(Some(chat.len()));
        }
        let encoding = self.tokenizer.encode_with_spans(chat, Special::Leave);
        let Encoding { ids, spans } = encoding.map_err(|problem| DataProblem::Refused { line, problem })?;
        let is_blank = |span: &Range<usize>| chat.get(span.clone()).is_some_and(|text| text.trim().is_empty());
        let last = ids.iter().zip(&spans).rev().find(|(_, span)| !is_blank(span));
        let end = last.filter(|(id, _)| self.tokenizer.is_special(**id)).map(|(_, span)| span.start);
        Ok(end.filter(|&end| longer.starts_with(&chat[..end])))
    }
}

/// The tokens that stand for some bytes of the text, in part or whole. A token that stands for no text belongs to what follows
/// it, such as the space that SentencePiece puts first.
fn standing_for(spans: &[Range<usize>], bytes: &Range<usize>) -> Range<usize> {
    let start = spans.partition_point(|span| span.end <= bytes.start && span.start < bytes.start.max(1));
    start..start + spans[start..].partition_point(|span| span.start < bytes.end)
}

/// Bytes that two texts begin with alike, whole characters only.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(char, _)| char.len_utf8()).sum()
}
