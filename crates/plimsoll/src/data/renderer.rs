//! Rendering of lines: token ids of samples, and the positions that are scored.
//!
//! The whole text, prompt and answer, is rendered and tokenised at once, as in trainers (TRL, Axolotl, LLaMA-Factory)
//! and in `apply_chat_template(tokenize=True)` of transformers. The answer's tokens are found by the bytes that they
//! cover: a token belongs to the answer if any of its bytes does, so a token that covers the border is scored. This is
//! the rule of `return_assistant_tokens_mask` in transformers. lm-evaluation-harness scores the same tokens of a plain
//! continuation, and also the white space at the end of its prompt.
//!
//! An answer ends with its stop token: the first token that the model's files name ([`Tokenizer::end_tokens`]), or the
//! special token that the template writes after the answer's text, whichever comes first. Text that the template writes
//! after the stop token (often a line feed) is not part of the answer, because no model has to generate it. Without a
//! stop token, the answer ends with its text: [`Ending::Open`].

use std::ops::Range;

use super::ending::Ending;
use super::problem::DataProblem;
use super::sample::{Sample, TemplateChoice, TemplateUse, Turns};
use super::shape::Record;
use crate::error::{Error, Result};
use crate::tokenizer::{ChatTemplate, Encoding, GenerationPrompt, Message, Special, Tokenizer, TokenizerProblem};

/// A renderer of chats and texts as token ids: a tokenizer, and a chat template if there is one.
#[derive(Debug)]
pub struct Renderer<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
    used: TemplateUse,
}

/// A text with the byte ranges of its answers: ascending, disjoint, not empty.
struct Rendered {
    text: String,
    answers: Vec<Range<usize>>,
}

impl<'a> Renderer<'a> {
    /// Makes a renderer with the chosen template.
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

    /// The source of the template.
    pub fn used(&self) -> TemplateUse {
        self.used
    }

    /// Token ids of a chat with the generation prompt.
    ///
    /// # Errors
    /// There is no template, or it refuses the chat.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerProblem> {
        let no_template = || TokenizerProblem::Template("required for a chat, but there is none".to_owned());
        let template = self.template.as_ref().ok_or_else(no_template)?;
        self.tokenizer.encode(&template.render(messages, GenerationPrompt::Add)?, Special::Leave)
    }

    /// Token ids of a plain text that is to be continued.
    ///
    /// # Errors
    /// The tokenizer refuses the text.
    pub fn plain(&self, text: &str) -> Result<Vec<u32>, TokenizerProblem> {
        self.tokenizer.encode(text, Special::Begin)
    }

    /// The sample of a chat and its answer. With a template, the answer is the assistant's last message. Without one,
    /// the contents of the messages and the answer are concatenated.
    ///
    /// # Errors
    /// A [`DataProblem`].
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

    /// Token ids of the prompt of [`answered`](Self::answered), tokenised alone, so that they do not depend on the
    /// answer.
    ///
    /// # Errors
    /// The template refuses the chat, or the tokenizer the text.
    pub fn prompt(&self, messages: &[Message]) -> Result<Vec<u32>, TokenizerProblem> {
        match self.template {
            Some(_) => self.chat(messages),
            None => self.plain(&messages.iter().map(|message| message.content.as_str()).collect::<String>()),
        }
    }

    /// Token ids of the prompt from which a sample's last answer is generated.
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

    /// Token ids of a question.
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

    /// The sample of a line.
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
        // Adjacent answers can share a token.
        answer.dedup();
        tokens.truncate(answer.last().map_or(0, |last| last + 1));
        Ok(Sample { line, tokens, answer })
    }

    /// The ending of a sample's last answer; `None` if no template wrote it.
    pub(super) fn ending(&self, record: &Record, sample: &Sample) -> Option<Ending> {
        if self.template.is_none() || matches!(record, Record::Text(_)) {
            return None;
        }
        let ends = |token: &u32| self.tokenizer.end_tokens().contains(token) || self.tokenizer.is_special(*token);
        Some(sample.tokens.last().copied().filter(ends).map_or(Ending::Open, Ending::Token))
    }

    /// Positions of the tokens of an answer, given by its bytes, up to its stop token.
    fn scored(&self, text: &str, tokens: &[u32], spans: &[Range<usize>], bytes: &Range<usize>) -> Range<usize> {
        let found = covering(spans, bytes);
        if self.template.is_none() {
            return found;
        }
        let is_special = |at: &usize| self.tokenizer.is_special(tokens[*at]);
        // A special token of the prompt can cover the white space after it (in Phi-3).
        let is_of_prompt = |at: &usize| is_special(at) && spans[*at].start < bytes.start;
        let start = found.clone().find(|at| !is_of_prompt(at)).unwrap_or(found.end);
        let is_blank = |at: &usize| text.get(spans[*at].clone()).is_some_and(|text| text.trim().is_empty());
        let after_text = (start..found.end).rev().take_while(|at| is_special(at) || is_blank(at));
        let special = after_text.filter(is_special).last();
        let end = (start..found.end).find(|at| self.tokenizer.end_tokens().contains(&tokens[*at]));
        let last = end.into_iter().chain(special).min();
        start..last.map_or(found.end, |last| last + 1)
    }

    /// The rendered chat up to the last answer, with the bytes of the answers.
    ///
    /// An answer begins where the chat before it, rendered with the generation prompt, ends or first differs from the
    /// text. It ends where the chat with it ends.
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
            let advice =
                if turn == last { "pass another template with --template FILE" } else { "score the last turn only" };
            let rewritten = || DataProblem::Rewritten { line, turn: turn + 1, advice };
            let prompt = render(&messages[..turn], GenerationPrompt::Add)?;
            let start = common_prefix(&text, &prompt);
            // Some templates end the generation prompt with an empty thinking block, and omit it before an answer.
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

    /// The end, in bytes, of a rendered chat within a longer one; `None` if the longer one does not begin with it. Some
    /// templates end a chat with one more special token, which the longer chat does not have there.
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

/// Positions of the tokens that cover any of these bytes. A token without text, such as the space that SentencePiece
/// adds, belongs to the text after it.
fn covering(spans: &[Range<usize>], bytes: &Range<usize>) -> Range<usize> {
    let start = spans.partition_point(|span| span.end <= bytes.start && span.start < bytes.start.max(1));
    start..start + spans[start..].partition_point(|span| span.start < bytes.end)
}

/// Length in bytes of the common prefix of two texts, in whole characters.
fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(char, _)| char.len_utf8()).sum()
}
