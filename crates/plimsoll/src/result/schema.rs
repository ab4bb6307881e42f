//! JSON Schema (draft 2020-12) of the files of a search, derived from the structs.
//!
//! A schema holds for every file of its layout, whichever version wrote it: fields that were added later are
//! optional, and unknown fields are allowed. Descriptions are the documentation of the structs.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};

use super::comparison::Comparison;
use super::scores::ScoreRow;
use super::search::SearchResult;
use super::tokens::SampleTokens;

/// A document with a JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Document {
    /// `result.json`.
    Result,
    /// One line of `tokens.jsonl`.
    Tokens,
    /// One line of `scores.jsonl`.
    Scores,
    /// The comparison of several searches, as JSON.
    Comparison,
}

/// The JSON Schema of a document, as indented JSON. Ends with a line feed.
pub fn schema(document: Document) -> String {
    match document {
        Document::Result => schema_of::<SearchResult>("The result of plimsoll search: result.json"),
        Document::Tokens => {
            schema_of::<SampleTokens>("The tokens of one sample with their NLL: a line of tokens.jsonl")
        }
        Document::Scores => schema_of::<ScoreRow>("Scores of one sample: a line of scores.jsonl"),
        Document::Comparison => {
            schema_of::<Comparison>("The comparison of several searches: plimsoll report --format json")
        }
    }
}

/// The JSON Schema of a type, with a title.
fn schema_of<T: JsonSchema>(title: &str) -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    RecursiveTransform(plain_description).transform(&mut schema);
    // The most important keys first.
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

/// Removes rustdoc links from a description.
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
