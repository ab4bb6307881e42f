//! Chat templates: messages to text.
//!
//! Templates are Jinja, rendered as in `transformers` (`apply_chat_template`): `trim_blocks` and `lstrip_blocks` are
//! on, `tojson` writes the output of Python's `json.dumps`, and `raise_exception` refuses a chat. A template is
//! untrusted code, so its size, its steps and its depth are limited.
//!
//! Departures: `strftime_now` is not defined, because the library reads no clock and scores must not depend on the day.
//! Templates that check whether it is defined (Llama 3) use the date written in them; others fail with an error that
//! names it. `tools` and `documents` are none. `{% generation %}` tags have no effect.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, context};
use plimsoll_formats::text::shown;
use serde::Deserialize;

use super::problem::{TokenizerProblem, refused};

/// Most bytes of a template's source. Published templates have up to about 30 kilobytes.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Most steps of one rendering, in instructions and in units of 64 written bytes, for an empty chat. A message takes
/// about 50.
const FUEL: u64 = 500_000;
/// Bytes of the chat that allow one more step, so that its text can be copied several times.
const BYTES_PER_FUEL: u64 = 8;
/// Stack of the rendering thread. A template can nest lists as deeply as its steps allow, and the engine frees and
/// compares them by recursion. This stack is enough for half a million instructions. It is reserved, and only used if
/// needed.
const STACK_BYTES: usize = 1 << 30;
/// Depth of nested calls, and of nested values in `tojson`.
const MAX_DEPTH: usize = 100;
/// The template's name in error messages.
const NAME: &str = "template";

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Message {
    /// The role of the speaker, such as `user`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Further fields, which are passed to the template.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl Message {
    /// A message with a role and a text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), rest: serde_json::Map::new() }
    }
}

/// Whether a rendered chat ends with the generation prompt, which begins the assistant's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// With the generation prompt: the chat is a prompt.
    Add,
    /// Without it: the chat is complete.
    Leave,
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Parses a template; `bos` and `eos` are the texts of `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// [`TokenizerProblem::TemplateSize`], or [`TokenizerProblem::Template`] with the line of the template.
    pub fn new(source: &str, bos: Option<&str>, eos: Option<&str>) -> Result<Self, TokenizerProblem> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TokenizerProblem::TemplateSize { limit: MAX_SOURCE_BYTES, found: source.len() });
        }
        let mut environment = Environment::new();
        let syntax =
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused("syntax"))?;
        environment.set_syntax(syntax);
        environment.set_debug(false);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python_method);
        environment.set_recursion_limit(MAX_DEPTH);
        environment.add_filter("tojson", to_json);
        environment.add_filter("trim", trim);
        environment.add_function("raise_exception", raise_exception);
        let source = without_generation_marks(source);
        on_deep_stack(|| environment.add_template_owned(NAME, source).map_err(problem))??;
        let owned = |token: Option<&str>| token.map(str::to_owned);
        Ok(Self { environment, bos: owned(bos), eos: owned(eos) })
    }

    /// Renders a chat as text.
    ///
    /// # Errors
    /// [`TokenizerProblem::Template`]: the template refuses the chat, has an error, or takes too many steps.
    pub fn render(&self, messages: &[Message], prompt: GenerationPrompt) -> Result<String, TokenizerProblem> {
        let mut environment = self.environment.clone();
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        environment.set_fuel(Some(FUEL + bytes as u64 / BYTES_PER_FUEL));
        let special = |token: &Option<String>| token.as_deref().map_or(Value::UNDEFINED, Value::from);
        let render = || {
            let context = context! {
                messages => messages.iter().map(message_value).collect::<Vec<Value>>(),
                add_generation_prompt => prompt == GenerationPrompt::Add,
                bos_token => special(&self.bos),
                eos_token => special(&self.eos),
                tools => Value::from(()),
                documents => Value::from(()),
            };
            environment.get_template(NAME).and_then(|template| template.render(context)).map_err(problem)
        };
        on_deep_stack(render)?
    }
}

/// Runs the template engine on a thread with a stack that is large enough for its recursion.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TokenizerProblem> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread = thread
            .map_err(|error| TokenizerProblem::Template(format!("cannot start the thread that renders it: {error}")))?;
        thread.join().map_err(|_| TokenizerProblem::Template("the template engine panicked".to_owned()))
    })
}

fn message_value(message: &Message) -> Value {
    let own = [("role", Value::from(&message.role[..])), ("content", Value::from(&message.content[..]))];
    let rest = message.rest.iter().map(|(key, value)| (&key[..], json_value(value)));
    Value::from_pairs(own.into_iter().chain(rest))
}

/// Converts JSON to a template value. The JSON parser bounds the depth.
pub(crate) fn json_value(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, Some(number)) => Value::from(number),
            _ => Value::from(()),
        },
        serde_json::Value::String(text) => Value::from(&text[..]),
        serde_json::Value::Array(items) => Value::from(items.iter().map(json_value).collect::<Vec<Value>>()),
        serde_json::Value::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, value)| (&key[..], json_value(value))))
        }
    }
}

/// Converts an error of the engine to one line with the cause and the template's line. It takes the error by value,
/// because the error can contain nested values, which must be freed on the large stack.
#[allow(clippy::needless_pass_by_value)]
fn problem(error: minijinja::Error) -> TokenizerProblem {
    use std::error::Error as _;
    let mut message = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "takes too many steps".to_owned(),
        (ErrorKind::UnknownFunction, Some(detail)) if detail.contains("strftime_now") => {
            "uses the current date (`strftime_now`), so that scores would depend on the day: pass a template with a \
             fixed date"
                .to_owned()
        }
        (ErrorKind::InvalidOperation, Some(detail)) => shown(detail),
        (kind, Some(detail)) => format!("{kind}: {}", shown(detail)),
        (kind, None) => kind.to_string(),
    };
    if let Some(line) = error.line() {
        message = format!("{message} (line {line} of the template)");
    }
    // An error in a macro or a nested call has a source.
    if let Some(source) = error.source() {
        message = format!("{message}: {}", shown(&source.to_string()));
    }
    TokenizerProblem::Template(message)
}

/// Whether Python's `str.strip` removes a character: Unicode white space and four separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The filter `trim`.
#[allow(clippy::needless_pass_by_value)] // the signature that the engine requires
fn trim(text: Cow<'_, str>, chars: Option<Cow<'_, str>>) -> String {
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim_matches(is_python_space).to_owned(),
    }
}

/// Methods of Python's strings, lists and dictionaries.
fn python_method(
    state: &mut minijinja::State,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, minijinja::Error> {
    match (value.as_str(), method, arguments) {
        (Some(text), "strip", []) => Ok(Value::from(text.trim_matches(is_python_space))),
        (Some(text), "lstrip", []) => Ok(Value::from(text.trim_start_matches(is_python_space))),
        (Some(text), "rstrip", []) => Ok(Value::from(text.trim_end_matches(is_python_space))),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("the template refuses this chat: {message}")))
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, which mark the assistant's tokens for training, by an `if`
/// that is always true. An `if` has the same white space rules.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (text, tag) = rest.split_at(start);
        out.push_str(text);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        let word = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        match word {
            "generation" => out.push_str(&tag.replacen(word, "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen(word, "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// `json.dumps(value, ensure_ascii=False, indent=…, separators=…, sort_keys=…)`.
#[allow(clippy::needless_pass_by_value)] // the signature that the engine requires
pub(crate) fn to_json(state: &minijinja::State, value: &Value, kwargs: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(invalid("tojson: separators are two strings")),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let indent = indent.map(|width| " ".repeat(width.min(64)));
    let mut writer = JsonWriter { out: String::new(), item, key, indent, ascii, sort };
    writer.value(value, 0)?;
    state.consume_fuel(writer.out.len() as u64 / 64)?;
    Ok(Value::from(writer.out))
}

struct JsonWriter {
    out: String,
    item: String,
    key: String,
    indent: Option<String>,
    ascii: bool,
    sort: bool,
}

impl JsonWriter {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), minijinja::Error> {
        if depth > MAX_DEPTH {
            return Err(invalid("tojson: nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => match f64::try_from(value.clone()) {
                Ok(number) if !value.is_integer() => self.out.push_str(&python_float(number)),
                _ => self.out.push_str(&value.to_string()),
            },
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.container('[', ']', depth, &items, |writer, item| writer.value(item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut fields = Vec::new();
                for key in value.try_iter()? {
                    fields.push((key.to_string(), value.get_item(&key)?));
                }
                if self.sort {
                    fields.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.container('{', '}', depth, &fields, |writer, (key, value)| {
                    writer.text(key);
                    writer.out.push_str(&writer.key.clone());
                    writer.value(value, depth + 1)
                })?;
            }
            kind => return Err(invalid(format!("tojson: a value of kind {kind} is not JSON"))),
        }
        Ok(())
    }

    fn container<T>(
        &mut self,
        open: char,
        close: char,
        depth: usize,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T) -> Result<(), minijinja::Error>,
    ) -> Result<(), minijinja::Error> {
        self.out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.new_line(depth + 1);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.new_line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                char if char < ' ' || (self.ascii && !char.is_ascii()) || (self.ascii && char == '\u{7f}') => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
    }
}

/// Python's `repr`: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
fn python_float(number: f64) -> String {
    if !number.is_finite() {
        let name = if number.is_nan() { "NaN" } else { "Infinity" };
        return format!("{}{name}", if number < 0.0 { "-" } else { "" });
    }
    if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |exponent| ("-", exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

fn invalid(message: impl Into<Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}
