//! Tasks: how rows of a data set become prompts, what ends an answer, and how answers are measured. A task is a TOML
//! file:
//!
//! ```toml
//! name = "capitals"
//! about = "Capitals of countries"
//! prompt = "What is the capital of {{ country }}?"   # Jinja over a row's fields
//! references = ["{{ capital }}"]                     # left out if its field is missing
//! max_tokens = 16
//! stop = ["\n"]
//!
//! [[metrics]]
//! kind = "exact-match"
//! ignore_case = true
//! ```
//!
//! With a chat template, the prompt is a turn of the user, after `system` if it is given; examples (`shots`) are turns
//! before it. Without a chat template, `[plain]` says how the same parts become one text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior};
use plimsoll_formats::files;
use plimsoll_formats::text::shown;
use plimsoll_stats::metrics::{Metric, Pattern, PatternProblem};
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::built_in::BUILT_IN;
use super::problem::{RowPlace, TaskProblem};
use super::rows::{Fields, Row, RowLayout};
use crate::error::{Error, Result};
use crate::tokenizer::{Message, json_value, to_json};

/// Largest number of template instructions of one rendering.
const FUEL: u64 = 1_000_000;
/// Largest `max_tokens` of a task.
pub(super) const MAX_TOKENS: usize = 1 << 16;

/// A metric of a task, with its name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// Its name in the task.
    pub name: String,
    /// The metric.
    pub metric: Metric,
}

/// A validated task.
///
/// ```
/// use plimsoll::eval::Task;
///
/// let task = Task::open("hotpotqa")?;
/// assert_eq!(task.max_tokens, 32);
/// assert!(!task.metrics.is_empty());
/// # Ok::<(), plimsoll::Error>(())
/// ```
#[derive(Debug)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its description in one line.
    pub about: String,
    /// Its file; `None` for a built-in task.
    pub file: Option<PathBuf>,
    /// Layout of its data.
    pub layout: RowLayout,
    /// Neighbouring rows that agree in this field are one sample.
    pub group: Option<String>,
    /// Number of examples before each prompt.
    pub shots: usize,
    /// The task's own rows for examples.
    pub examples: Vec<Fields>,
    /// Largest number of tokens of an answer.
    pub max_tokens: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// Metrics of the answers; at least one.
    pub metrics: Vec<Measured>,
    references: usize,
    has_system: bool,
    separator: String,
    templates: Environment<'static>,
}

/// The rendered texts of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) system: Option<String>,
    pub(super) prompt: String,
    /// The answer as an example: the first reference.
    pub(super) answer: String,
    /// At least one.
    pub(super) references: Vec<String>,
    /// Indices of the reference templates that have a text.
    pub(super) filled: BTreeSet<usize>,
}

impl Task {
    /// Reads a task: a built-in one by its name, or a TOML file by its path.
    ///
    /// # Errors
    /// An unknown name or an invalid file ([`TaskProblem`]).
    pub fn open(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Self::parse(text).map_err(|problem| Error::input(Path::new(name), problem));
        }
        let path = Path::new(name);
        if !path.is_file() {
            return Err(Error::input(path, TaskProblem::Unknown));
        }
        let text = files::read_config(path)?;
        let task = Self::parse(&text).map_err(|problem| Error::input(path, problem))?;
        Ok(Self { file: Some(path.to_owned()), ..task })
    }

    fn parse(text: &str) -> Result<Self, TaskProblem> {
        let line = |start: usize| text.get(..start).map(|before| before.matches('\n').count() + 1);
        let raw: RawTask = toml::from_str(text).map_err(|error| {
            if let Some((start, problem)) = invalid_pattern(text) {
                return TaskProblem::Pattern { line: line(start).unwrap_or(1), problem };
            }
            let place = error.span().and_then(|span| line(span.start));
            let place = place.map_or_else(String::new, |line| format!("line {line}: "));
            TaskProblem::Toml(format!("{place}{}", error.message()))
        })?;
        raw.try_into()
    }

    /// The prompt, the answer and the references of one sample.
    ///
    /// # Errors
    /// A field of the prompt that the row does not have, or no reference.
    pub(super) fn render(&self, row: &Row) -> Result<Rendered, TaskProblem> {
        let (place, first) = &row.parts[0];
        let one = |field: &str| self.field(field, first).map_err(|error| self.unfilled(*place, field, &error, first));
        let (mut references, mut filled, mut reasons) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (place, fields) in &row.parts {
            let found = self.references_of(*place, fields)?;
            filled.extend(found.texts.iter().map(|(template, _)| *template));
            references.extend(found.texts.into_iter().map(|(_, text)| text));
            reasons.extend(found.reasons);
        }
        let Some(answer) = references.first() else {
            let reasons = shown(&reasons.join(", "));
            return Err(TaskProblem::NoReference { place: *place, reasons, fields: names_of(first) });
        };
        Ok(Rendered {
            system: if self.has_system { Some(one("system")?) } else { None },
            prompt: one("prompt")?,
            answer: answer.clone(),
            references,
            filled,
        })
    }

    /// Checks that every metric can compare answers with the references of a row.
    ///
    /// # Errors
    /// [`TaskProblem::NoNumber`].
    pub(super) fn check_references(&self, row: &Row) -> Result<(), TaskProblem> {
        for (place, fields) in &row.parts {
            for (_, reference) in self.references_of(*place, fields)?.texts {
                self.metrics.iter().try_for_each(|measured| measured.check(*place, &reference))?;
            }
        }
        Ok(())
    }

    /// The references of one row.
    fn references_of(&self, place: RowPlace, fields: &Fields) -> Result<References, TaskProblem> {
        let mut found = References::default();
        for index in 0..self.references {
            let field = format!("references[{index}]");
            match self.field(&field, fields) {
                Ok(text) if text.trim().is_empty() => found.reasons.push(format!("`{field}` is empty")),
                Ok(text) => found.texts.push((index, text)),
                Err(error) if error.kind() == ErrorKind::UndefinedError => {
                    found.reasons.push(format!("in `{field}` {}", error.detail().unwrap_or("a field is undefined")));
                }
                Err(error) => return Err(self.unfilled(place, &field, &error, fields)),
            }
        }
        Ok(found)
    }

    /// The reference templates of a user's task that have no text in any sample. Built-in tasks have templates for
    /// several forms of their data.
    pub(super) fn unfilled_references<'a>(&self, samples: impl Iterator<Item = &'a Rendered>) -> Vec<String> {
        if self.file.is_none() {
            return Vec::new();
        }
        let filled: BTreeSet<usize> = samples.flat_map(|rendered| rendered.filled.iter().copied()).collect();
        (0..self.references)
            .filter(|index| !filled.contains(index))
            .map(|index| format!("references[{index}]"))
            .collect()
    }

    /// Whether any metric needs generated answers.
    pub(super) fn generates(&self) -> bool {
        self.metrics.iter().any(|measured| measured.metric.is_of_text())
    }

    /// The first rows as examples.
    pub(super) fn examples_of(&self, path: &Path, rows: &[Row], shots: usize) -> Result<Vec<Rendered>> {
        let at = |problem| Error::input(path, problem);
        if rows.len() < shots {
            return Err(at(TaskProblem::TooFewExamples { expected: shots, found: rows.len() }));
        }
        rows.iter().take(shots).map(|row| self.render(row).map_err(at)).collect()
    }

    /// The prompt as turns of a chat.
    pub(super) fn turns(&self, examples: &[Rendered], rendered: &Rendered) -> Vec<Message> {
        let system = rendered.system.iter().map(|text| Message::new("system", text));
        let examples = examples
            .iter()
            .flat_map(|example| [Message::new("user", &example.prompt), Message::new("assistant", &example.answer)]);
        system.chain(examples).chain([Message::new("user", &rendered.prompt)]).collect()
    }

    /// The prompt as plain text, with the examples before it.
    pub(super) fn text(&self, examples: &[Rendered], rendered: &Rendered) -> Result<String, TaskProblem> {
        let mut text = String::new();
        if let Some(part) = &rendered.system {
            text.push_str(part);
            text.push_str(&self.separator);
        }
        for example in examples {
            text.push_str(&self.plain("plain.prompt", example)?);
            text.push_str(&self.plain("plain.answer", example)?);
            text.push_str(&self.separator);
        }
        text.push_str(&self.plain("plain.prompt", rendered)?);
        Ok(text)
    }

    /// The answer after a plain prompt.
    pub(super) fn plain_answer(&self, rendered: &Rendered) -> Result<String, TaskProblem> {
        self.plain("plain.answer", rendered)
    }

    fn plain(&self, field: &str, Rendered { prompt, answer, .. }: &Rendered) -> Result<String, TaskProblem> {
        let context = minijinja::context! { prompt => prompt, answer => answer };
        let text = self.templates.get_template(field).and_then(|template| template.render(context));
        text.map_err(|error| template(field, &error))
    }

    /// The error of a template that cannot be rendered for a row. If a filter refused a value, missing fields may be
    /// the cause.
    fn unfilled(&self, place: RowPlace, field: &str, error: &minijinja::Error, fields: &Fields) -> TaskProblem {
        let mut reason = reason(error);
        if error.kind() != ErrorKind::UndefinedError {
            let used = self.templates.get_template(field).map(|template| template.undeclared_variables(false));
            let is_missing = |name: &String| fields.get(name).is_none_or(serde_json::Value::is_null);
            let is_function = |name: &String| self.templates.globals().any(|(global, _)| global == name);
            let missing: BTreeSet<String> = used.unwrap_or_default().into_iter().filter(is_missing).collect();
            for name in missing.iter().filter(|name| !is_function(name)) {
                reason.push_str(&format!(" (`{}` is undefined)", shown(name)));
            }
        }
        TaskProblem::Fields { place, template: field.to_owned(), reason, fields: names_of(fields) }
    }

    fn field(&self, field: &str, fields: &Fields) -> Result<String, minijinja::Error> {
        // Null counts as missing.
        let fields = fields.iter().filter(|(_, value)| !value.is_null());
        let fields = fields.map(|(name, value)| (name.as_str(), json_value(value)));
        self.templates.get_template(field)?.render(minijinja::Value::from_pairs(fields))
    }
}

/// The references of one row, and why others are missing.
#[derive(Default)]
struct References {
    /// Index of the template, and text.
    texts: Vec<(usize, String)>,
    reasons: Vec<String>,
}

impl Measured {
    /// Checks that the metric can compare answers with a reference.
    ///
    /// # Errors
    /// [`TaskProblem::NoNumber`].
    pub(crate) fn check(&self, place: RowPlace, reference: &str) -> Result<(), TaskProblem> {
        if self.metric.accepts(reference.trim()) {
            return Ok(());
        }
        Err(TaskProblem::NoNumber { place, metric: self.name.clone(), reference: reference.trim().to_owned() })
    }
}

fn template(field: &str, error: &minijinja::Error) -> TaskProblem {
    TaskProblem::Template { template: field.to_owned(), reason: reason(error) }
}

/// The reason of a template error: what is wrong, or the expression that is undefined.
fn reason(error: &minijinja::Error) -> String {
    shown(&match error.detail() {
        Some(detail) if error.kind() == ErrorKind::UndefinedError => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    })
}

/// The names of a row's fields, for an error message.
fn names_of(fields: &Fields) -> String {
    let name = |(name, value): (&String, &serde_json::Value)| {
        if value.is_null() { format!("`{name}` (null)") } else { format!("`{name}`") }
    };
    match fields.iter().map(name).collect::<Vec<_>>().join(", ") {
        names if names.is_empty() => "no fields".to_owned(),
        names => shown(&names),
    }
}

/// The first invalid pattern of a task's metrics, with its byte position. The parser reports only the position of the
/// metric, because it buffers metrics until their `kind` is known.
fn invalid_pattern(text: &str) -> Option<(usize, PatternProblem)> {
    let document = DeTable::parse(text).ok()?;
    let metrics = document.get_ref().get("metrics")?.get_ref().as_array()?;
    let patterns = metrics.iter().flat_map(|metric| {
        let ignored = metric.get_ref().get("ignore").and_then(|value| value.get_ref().as_array());
        let extracted = metric.get_ref().get("extract").and_then(|value| value.get_ref().get("pattern"));
        ignored.into_iter().flat_map(|patterns| patterns.iter()).chain(extracted)
    });
    patterns.into_iter().find_map(|pattern: &toml::Spanned<DeValue<'_>>| {
        let problem = Pattern::try_from(pattern.get_ref().as_str()?.to_owned()).err()?;
        Some((pattern.span().start, problem))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTask {
    name: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    data: RawData,
    system: Option<String>,
    prompt: String,
    references: Vec<String>,
    #[serde(default)]
    plain: RawPlain,
    #[serde(default)]
    shots: usize,
    #[serde(default)]
    examples: Vec<Fields>,
    #[serde(default = "max_tokens")]
    max_tokens: usize,
    #[serde(default)]
    stop: Vec<String>,
    metrics: Vec<RawMetric>,
}

fn max_tokens() -> usize {
    256
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawData {
    separator: Option<String>,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    parallel: BTreeMap<String, String>,
    group: Option<String>,
}

/// How prompt, answer and examples become one text without a chat template.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPlain {
    prompt: String,
    answer: String,
    separator: String,
}

impl Default for RawPlain {
    fn default() -> Self {
        Self { prompt: "{{ prompt }}\n".into(), answer: "{{ answer }}".into(), separator: "\n\n".into() }
    }
}

#[derive(Deserialize)]
struct RawMetric {
    name: Option<String>,
    #[serde(flatten)]
    metric: Metric,
}

impl TryFrom<RawTask> for Task {
    type Error = TaskProblem;

    fn try_from(raw: RawTask) -> Result<Self, TaskProblem> {
        let field = |field, expected, found: String| Err(TaskProblem::Field { field, expected, found });
        if raw.name.trim().is_empty() {
            return field("name", "a name", "an empty name".into());
        }
        if !(1..=MAX_TOKENS).contains(&raw.max_tokens) {
            return field("max_tokens", "1 to 65536", raw.max_tokens.to_string());
        }
        if raw.stop.iter().any(String::is_empty) {
            return field("stop", "texts that are not empty", "an empty text".into());
        }
        if raw.metrics.is_empty() {
            return field("metrics", "at least one", "none".into());
        }
        if raw.references.is_empty() {
            return field("references", "at least one template", "none".into());
        }
        let RawData { separator, fields, parallel, group } = raw.data;
        let layout = match (separator, fields.as_slice(), parallel.is_empty()) {
            (None, [], true) => RowLayout::ByEnding,
            (Some(separator), [_, _, ..], true) if !separator.is_empty() => RowLayout::Separated { separator, fields },
            (None, [], false) if parallel.len() > 1 => RowLayout::Parallel { endings: parallel },
            _ => {
                let expected = "nothing, or `separator` with at least two `fields`, or at least two `parallel` endings";
                return field("data", expected, "another combination".into());
            }
        };

        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        templates.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        templates.set_syntax(syntax.map_err(|error| template("syntax", &error))?);
        // Errors then name the undefined expression.
        templates.set_debug(true);
        templates.set_fuel(Some(FUEL));
        // The engine's filter would write as many spaces as a template requests.
        templates.add_filter("tojson", to_json);
        let mut add = |name: String, source: String| {
            templates.add_template_owned(name.clone(), source).map_err(|error| template(&name, &error))
        };
        add("prompt".into(), raw.prompt)?;
        add("plain.prompt".into(), raw.plain.prompt)?;
        add("plain.answer".into(), raw.plain.answer)?;
        let has_system = raw.system.is_some();
        if let Some(system) = raw.system {
            add("system".into(), system)?;
        }
        let references = raw.references.len();
        for (index, source) in raw.references.into_iter().enumerate() {
            add(format!("references[{index}]"), source)?;
        }

        let mut metrics: Vec<Measured> = Vec::new();
        for RawMetric { name, metric } in raw.metrics {
            let name = name.unwrap_or_else(|| metric.name().into_owned());
            if metrics.iter().any(|other| other.name == name) {
                return field("metrics", "metrics of different names", format!("two named {name}"));
            }
            metrics.push(Measured { name, metric });
        }
        Ok(Self {
            name: raw.name,
            about: raw.about,
            file: None,
            layout,
            group,
            shots: raw.shots,
            examples: raw.examples,
            max_tokens: raw.max_tokens,
            stop: raw.stop,
            metrics,
            references,
            has_system,
            separator: raw.plain.separator,
            templates,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::built_in::names;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
    }

    #[test]
    fn built_in_tasks_are_valid() {
        for name in names() {
            let task = Task::open(name).unwrap();
            assert_eq!(task.name, name);
            assert!(!task.about.is_empty(), "{name}");
            assert!(task.metrics.iter().any(|measured| !measured.metric.is_of_text()), "{name}");
        }
    }

    #[test]
    fn references_whose_fields_are_missing_are_left_out() {
        let task = Task::open("dialogsum").unwrap();
        let row = |pairs: &[(&str, &str)]| Row::single(RowPlace::Line(7), fields(pairs));
        let rendered = task.render(&row(&[("dialogue", "Hi."), ("summary1", "One."), ("summary3", "Three.")])).unwrap();
        assert_eq!(rendered.references, ["One.", "Three."]);
        let message = |pairs: &[(&str, &str)]| task.render(&row(pairs)).unwrap_err().to_string();
        assert!(message(&[("dialogue", "Hi.")]).starts_with("line 7: expected a reference"));
        assert!(message(&[("summary", "One.")]).starts_with("line 7: template `prompt`"));
    }

    #[test]
    fn an_undefined_field_is_reported_with_its_row_and_template() {
        let task = |prompt: &str, references: &str| {
            let task = format!("name = \"t\"\nprompt = '{prompt}'\nreferences = [{references}]\n");
            Task::parse(&format!("{task}[[metrics]]\nkind = \"chrf\"\n")).unwrap()
        };
        let row = serde_json::json!({"text": "x", "label": "y", "note": null, "list": [{"object": 1}]});
        let row = Row::single(RowPlace::TableRow { row: 2, line: 5 }, row.as_object().unwrap().clone());
        let mut wrong = Vec::new();
        let has = "; the row has `text`, `label`, `note` (null), `list`";
        for (prompt, undefined) in [
            ("{{ txet }}", "txet"),
            ("{{ text ~ txet }}", "txet"),
            ("{{ text + txet }}", "txet"),
            ("{{ txet | upper }}", "txet"),
            ("{{ txet | trim }}", "txet"),
            ("{{ txet | tojson }}", "txet"),
            ("{{ txet | length }}", "txet"),
            ("{{ txet | join }}", "txet"),
            ("{{ txet | string }}", "txet"),
            ("{{ \"%s\" | format(txet) }}", "txet"),
            ("{{ text | replace(\"x\", txet) }}", "txet"),
            ("{{ txet == \"x\" }}", "txet"),
            ("{% if txet %}a{% endif %}", "txet"),
            ("{% if not txet %}a{% endif %}", "txet"),
            ("{{ \"a\" in txet }}", "txet"),
            ("{% set a = txet %}{{ a }}", "txet"),
            ("{% for t in list %}{{ t.obj }}{% endfor %}", "t.obj"),
            ("{% for t in txet %}{{ t }}{% endfor %}", "txet"),
            ("{{ list[3].object }}", "list[3]"),
            ("{{ list[3] }}", "list[3]"),
            ("{{ note }}", "note"),
        ] {
            let message = task(prompt, "\"{{ label }}\"").render(&row).map_err(|problem| problem.to_string());
            let expected = |message: &String| {
                message.starts_with("row 2 (line 5): template `prompt`: ")
                    && message.contains(&format!("`{undefined}` is undefined"))
                    && message.ends_with(has)
            };
            if !message.as_ref().is_err_and(expected) {
                wrong.push(format!("{prompt}: {message:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let message = task("{{ text }}", "\"{{ lable }}\", \" {{ label[9:] }}\"").render(&row).unwrap_err().to_string();
        let expected = "row 2 (line 5): expected a reference, found none: in `references[0]` `lable` is undefined, \
                        `references[1]` is empty";
        assert_eq!(message, format!("{expected}{has}"));
    }

    #[test]
    fn a_reference_without_a_number_is_reported_with_its_row() {
        let text = "name = \"t\"\nprompt = \"{{ q }}\"\nreferences = ['{{ a | split(\"####\") | last }}']\n";
        let task = Task::parse(&format!("{text}[[metrics]]\nname = \"number\"\nkind = \"numeric\"\n")).unwrap();
        let parts = |answers: &[&str]| {
            let part = |(row, answer): (usize, &&str)| (RowPlace::Row(row), fields(&[("q", "x"), ("a", answer)]));
            Row { parts: (4..).zip(answers).map(part).collect() }
        };
        assert!(task.check_references(&parts(&["so #### 1,000\n", "$18"])).is_ok());
        let message = task.check_references(&parts(&["#### 2", "#### two"])).unwrap_err().to_string();
        assert_eq!(message, "row 5: metric `number`: expected a reference that is a number, found `two`");
    }

    #[test]
    fn a_number_is_extracted_from_a_reference_that_is_not_a_number() {
        let text = "name = \"t\"\nprompt = \"\"\nreferences = [\"-\"]\n[[metrics]]\nkind = \"numeric\"\n";
        let check = |more: &str, reference: &str| {
            let task = Task::parse(&format!("{text}{more}")).unwrap();
            task.metrics[0].check(RowPlace::Line(3), reference).map_err(|problem| problem.to_string())
        };
        let extract = "extract = { pattern = '[0-9]+', take = \"last\", fallback = \"0\" }\n";
        assert_eq!(check(extract, "Natalia sold 48 + 24.\n#### 72\n"), Ok(()));
        for (more, reference) in [(extract, "Natalia sold some."), ("", "#### 72")] {
            let message = check(more, reference).unwrap_err();
            assert!(
                message.ends_with(&format!("expected a reference that is a number, found `{reference}`")),
                "{message}"
            );
        }
    }

    #[test]
    fn an_invalid_pattern_is_reported_with_its_line() {
        let text = "name = \"t\"\nprompt = \"\"\nreferences = [\"\"]\n\n[[metrics]]\nkind = \"chrf\"\n\n[[metrics]]\n\
                    kind = \"exact-match\"\nignore = [\n  ',',\n  IGNORE,\n]\n\
                    extract = { pattern = EXTRACT, take = \"last\" }\n";
        for (ignore, extract, expected) in [
            ("'a(b'", "'x'", "line 12: pattern `a(b`: unclosed group at character 2"),
            ("'y'", r"'\sé[0-9'", r"line 14: pattern `\sé[0-9`: unclosed character class at character 4"),
            (
                "'y'",
                "'(?=a)'",
                "line 14: pattern `(?=a)`: look-around, including look-ahead and look-behind, is not supported at",
            ),
        ] {
            let text = text.replace("IGNORE", ignore).replace("EXTRACT", extract);
            let message = Task::parse(&text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn plain_prompts_are_joined_with_their_examples() {
        let task = Task::open("gsm8k").unwrap();
        let row = |question: &str, answer: &str| {
            let fields = fields(&[("question", question), ("answer", answer)]);
            task.render(&Row::single(RowPlace::Line(1), fields)).unwrap()
        };
        let text = task.text(&[row("1 + 1?", "#### 2")], &row("2 + 2?", "#### 4")).unwrap();
        assert_eq!(text, "Question: 1 + 1?\nAnswer: #### 2\n\nQuestion: 2 + 2?\nAnswer:");
        assert_eq!(task.plain_answer(&row("2 + 2?", "#### 4")).unwrap(), " #### 4");
        assert_eq!(task.turns(&[row("1 + 1?", "#### 2")], &row("2 + 2?", "#### 4")).len(), 3);
    }

    #[test]
    fn an_invalid_task_is_reported_by_field() {
        let base = "name = \"t\"\nprompt = \"{{ a }}\"\nreferences = [\"{{ b }}\"]\n";
        let metric = "[[metrics]]\nkind = \"rouge-1\"\n";
        assert!(Task::parse(&format!("{base}{metric}")).is_ok());
        for (extra, metrics, expected) in [
            ("max_tokens = 0\n", metric, "max_tokens"),
            ("stop = [\"\"]\n", metric, "stop"),
            ("shot = 1\n", metric, "shot"),
            ("system = \"{{\"\n", metric, "system"),
            ("[data]\nseparator = \"|\"\n", metric, "data"),
            ("", "[[metrics]]\nkind = \"rouge-9\"\n", "not a task"),
            ("", &format!("{metric}{metric}"), "two named"),
        ] {
            let message = Task::parse(&format!("{base}{extra}{metrics}")).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(Task::open("no-such-task").unwrap_err().to_string().contains("gsm8k"));
    }
}
