//! The five shapes of a line, recognised by their fields, in this order:
//!
//! | fields | shape |
//! |---|---|
//! | `messages` of `role` and `content` | chat |
//! | `conversations` of `from` and `value` | `ShareGPT` |
//! | `prompt`, `completion` | prompt and completion |
//! | `instruction`, `input` (may be missing), `output` | alpaca |
//! | `text` | plain text |
//!
//! The order matters, because Alpaca files often have a ready-made `text`, and chats a `prompt`. Other fields are
//! ignored, except `tools`: a chat with tools must not be rendered without them.

use plimsoll_formats::text::shown;
use serde_json::{Map, Value};

use super::problem::DataProblem;
use crate::tokenizer::Message;

/// A validated line. Answers of samples are not empty; questions have no answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// `messages` or `conversations`; a sample has a message of the assistant.
    Chat { messages: Vec<Message>, shape: &'static str },
    /// `prompt` and `completion`.
    Pair { prompt: String, completion: String },
    /// `instruction` and `input`, joined, and `output`.
    Alpaca { user: String, output: String },
    /// `text`.
    Text(String),
}

impl Record {
    /// Parses a sample; `line` is its number, from 1.
    pub(super) fn parse(line: usize, text: &str) -> Result<Self, DataProblem> {
        Self::of_fields(line, fields(line, text)?)
    }

    /// Parses a question, which needs no answer. An answer at the end of a chat is left out.
    pub(super) fn parse_question(line: usize, text: &str) -> Result<Self, DataProblem> {
        let mut fields = fields(line, text)?;
        let has = |name: &str| fields.contains_key(name);
        let list = ["messages", "conversations"].into_iter().find(|name| has(name));
        if let Some(turns) = list.and_then(|name| fields.get_mut(name)).and_then(Value::as_array_mut) {
            let speaker =
                |turn: &Value| turn.get("role").or_else(|| turn.get("from")).and_then(Value::as_str).map(str::to_owned);
            if turns.last().and_then(speaker).is_some_and(|speaker| ["assistant", "gpt"].contains(&speaker.as_str())) {
                turns.pop();
            }
            if turns.is_empty() {
                return Err(DataProblem::NoPrompt { line });
            }
            refuse_tools(line, &fields)?;
            return match list {
                Some("messages") => {
                    chat(line, &mut fields, "messages", "role", "content", |role| Some(role.to_owned()))
                }
                _ => chat(line, &mut fields, "conversations", "from", "value", sharegpt_role),
            };
        }
        // The answer is not used, so it need not be valid.
        for (question, answer) in [("prompt", "completion"), ("instruction", "output")] {
            if fields.contains_key(question) {
                fields.insert(answer.to_owned(), Value::String("unread".to_owned()));
            }
        }
        let mut record = Self::of_fields(line, fields)?;
        if let Self::Pair { completion: answer, .. } | Self::Alpaca { output: answer, .. } = &mut record {
            answer.clear();
        }
        Ok(record)
    }

    fn of_fields(line: usize, mut fields: Map<String, Value>) -> Result<Self, DataProblem> {
        let has = |name: &str| fields.contains_key(name);
        if has("messages") || has("conversations") {
            refuse_tools(line, &fields)?;
            let record = if has("messages") {
                chat(line, &mut fields, "messages", "role", "content", |role| Some(role.to_owned()))
            } else {
                chat(line, &mut fields, "conversations", "from", "value", sharegpt_role)
            }?;
            let is_answered = record.messages().iter().any(|message| message.role == "assistant");
            return if is_answered { Ok(record) } else { Err(DataProblem::NoAnswer { line }) };
        }
        if has("prompt") && has("completion") {
            let prompt = string(line, &mut fields, "prompt")?;
            let completion = answer(line, string(line, &mut fields, "completion")?)?;
            return Ok(Self::Pair { prompt, completion });
        }
        if has("instruction") && has("output") {
            let instruction = string(line, &mut fields, "instruction")?;
            let input = match fields.get("input") {
                None | Some(Value::Null) => String::new(),
                Some(_) => string(line, &mut fields, "input")?,
            };
            let output = answer(line, string(line, &mut fields, "output")?)?;
            let user = if input.is_empty() { instruction } else { format!("{instruction}\n\n{input}") };
            return Ok(Self::Alpaca { user, output });
        }
        if has("text") {
            return Ok(Self::Text(answer(line, string(line, &mut fields, "text")?)?));
        }
        // A few shortened names for the message.
        let found = fields.keys().take(8).map(|name| shown(name)).collect();
        Err(DataProblem::Shape { line, found })
    }

    /// The messages of the chat; none for `text`.
    pub(super) fn messages(&self) -> Vec<Message> {
        let turns = |user: &str, assistant: &str| {
            let answer = (!assistant.is_empty()).then(|| Message::new("assistant", assistant));
            std::iter::once(Message::new("user", user)).chain(answer).collect()
        };
        match self {
            Self::Chat { messages, .. } => messages.clone(),
            Self::Pair { prompt, completion } => turns(prompt, completion),
            Self::Alpaca { user, output } => turns(user, output),
            Self::Text(_) => Vec::new(),
        }
    }

    /// The last answer; for `text`, the whole text.
    pub(super) fn answer(&self) -> String {
        match self {
            Self::Chat { messages, .. } => {
                let last = messages.iter().rev().find(|message| message.role == "assistant");
                last.map(|message| message.content.clone()).unwrap_or_default()
            }
            Self::Pair { completion: answer, .. } | Self::Alpaca { output: answer, .. } | Self::Text(answer) => {
                answer.clone()
            }
        }
    }

    /// The name of the shape for messages.
    pub(super) fn shape(&self) -> &'static str {
        match self {
            Self::Chat { shape, .. } => shape,
            Self::Pair { .. } => "`prompt` and `completion`",
            Self::Alpaca { .. } => "`instruction` and `output`",
            Self::Text(_) => "`text`",
        }
    }
}

fn fields(line: usize, text: &str) -> Result<Map<String, Value>, DataProblem> {
    serde_json::from_str(text).map_err(|source| {
        if text.trim_start().starts_with('[') {
            DataProblem::List { line }
        } else {
            DataProblem::NotJson { line, source }
        }
    })
}

fn chat(
    line: usize,
    fields: &mut Map<String, Value>,
    list: &'static str,
    role_field: &str,
    content_field: &str,
    role_of: impl Fn(&str) -> Option<String>,
) -> Result<Record, DataProblem> {
    let wrong = |field: String, expected, value: Option<&Value>| DataProblem::Field {
        line,
        field,
        expected,
        found: kind(value),
    };
    let turns = match fields.remove(list) {
        Some(Value::Array(turns)) => turns,
        other => return Err(wrong(list.to_owned(), "a list of messages", other.as_ref())),
    };
    let mut messages = Vec::with_capacity(turns.len());
    for (index, turn) in turns.into_iter().enumerate() {
        let place = format!("{list}[{index}]");
        let Value::Object(mut turn) = turn else { return Err(wrong(place, "an object", Some(&turn))) };
        let mut take = |name: &str| match turn.shift_remove(name) {
            Some(Value::String(text)) => Ok(text),
            other => Err(wrong(format!("{place}.{name}"), "a string", other.as_ref())),
        };
        let (speaker, content) = (take(role_field)?, take(content_field)?);
        let role = role_of(&speaker).ok_or_else(|| DataProblem::Field {
            line,
            field: format!("{place}.{role_field}"),
            expected: "human, user, gpt, assistant or system",
            found: shown(&speaker),
        })?;
        if role == "assistant" && content.trim().is_empty() {
            return Err(DataProblem::EmptyAnswer { line });
        }
        messages.push(Message { role, content, rest: turn });
    }
    let shape = if list == "messages" { "`messages`" } else { "`conversations`" };
    Ok(Record::Chat { messages, shape })
}

fn sharegpt_role(speaker: &str) -> Option<String> {
    let role = match speaker {
        "human" | "user" => "user",
        "gpt" | "assistant" => "assistant",
        "system" => "system",
        _ => return None,
    };
    Some(role.to_owned())
}

fn refuse_tools(line: usize, fields: &Map<String, Value>) -> Result<(), DataProblem> {
    match fields.get("tools") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Array(tools)) if tools.is_empty() => Ok(()),
        value => Err(DataProblem::Field {
            line,
            field: "tools".to_owned(),
            expected: "none, since tools are not rendered",
            found: kind(value),
        }),
    }
}

fn string(line: usize, fields: &mut Map<String, Value>, name: &str) -> Result<String, DataProblem> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        other => {
            Err(DataProblem::Field { line, field: name.to_owned(), expected: "a string", found: kind(other.as_ref()) })
        }
    }
}

/// Refuses an empty answer. White space alone is empty, because most templates strip it.
fn answer(line: usize, text: String) -> Result<String, DataProblem> {
    if text.trim().is_empty() { Err(DataProblem::EmptyAnswer { line }) } else { Ok(text) }
}

fn kind(value: Option<&Value>) -> String {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
    .to_owned()
}
