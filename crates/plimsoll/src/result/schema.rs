//! JSON Schema (draft 2020-12) of what a search writes, derived from the structs that it is written from.
//!
//! A schema holds for every file of its layout, whichever version wrote it: what was added later is optional, and what
//! a later version may add is let through. Descriptions are the structs' own documentation.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};

use super::comparison::Comparison;
use super::scores::ScoreRow;
use super::search::SearchResult;
use super::tokens::SampleTokens;

/// A document that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// `result.json`.
    Result,
    /// One line of `tokens.jsonl`.
    Tokens,
    /// One line of `scores.jsonl`.
    Scores,
    /// A comparison of several results, as JSON.
    Comparison,
}

/// The schema of a document, as indented JSON. Ends with a line feed.
pub fn schema(document: Document) -> String {
    match document {
        Document::Result => schema_of::<SearchResult>("The result of plimsoll search: result.json"),
        Document::Tokens => {
            schema_of::<SampleTokens>("What one sample's answer got, token by token: a line of tokens.jsonl")
        }
        Document::Scores => schema_of::<ScoreRow>("Scores of one sample: a line of scores.jsonl"),
        Document::Comparison => schema_of::<Comparison>("Several searches side by side: plimsoll report --format json"),
    }
}

/// The schema of whatever is read by serde, under a title.
fn schema_of<T: JsonSchema>(title: &str) -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    RecursiveTransform(plain_description).transform(&mut schema);
    // What a reader looks for first.
    let mut ordered = Schema::default();
    for name in ["$schema", "title", "description"] {
        let value = if name == "title" { Some(title.into()) } else { schema.remove(name) };
        if let Some(value) = value {
            ordered.insert(name.to_owned(), value);
        }
    }
    for (name, value) in schema.as_object().into_iter().flatten().filter(|(name, _)| *name != "title") {
        ordered.insert(name.clone(), value.clone());
    }
    format!("{:#}\n", ordered.as_value())
}

/// Takes the links of our documentation out of a description: they lead nowhere outside of it.
fn plain_description(schema: &mut Schema) {
    let Some(text) = schema.get("description").and_then(|text| text.as_str()) else { return };
    let mut plain = String::new();
    let mut rest = text;
    // [`Name`](target) and [`Name`] become `Name`.
    while let Some((before, after)) = rest.split_once("[`") {
        plain.push_str(before);
        let Some((name, after)) = after.split_once("`]") else {
            plain.push_str("[`");
            rest = after;
            continue;
        };
        plain.push_str(&format!("`{name}`"));
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    plain.push_str(rest);
    let paragraphs: Vec<String> = plain.split("\n\n").map(|lines| lines.replace('\n', " ")).collect();
    schema.insert("description".to_owned(), paragraphs.join("\n\n").into());
}
