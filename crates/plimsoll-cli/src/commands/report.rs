//! `plimsoll report`: renders the result of a search in any format, or compares several searches.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use plimsoll::Error;
use plimsoll::formats::files::write_file;
use plimsoll::report::{self, Form, Style};
use plimsoll::result::{self, Document, SampleTokens, SearchResult};

use super::output::{colour, print};

/// Render the result of a search as a table, Markdown, HTML or JSON, or compare several searches.
///
/// Nothing is recomputed, and no model or adapter is read. Several results are listed together, without a statistical
/// test between them. If they are from different data or samples, the report says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  plimsoll report out
  plimsoll report out --format markdown --out card.md
  plimsoll report out --format html --out report.html --force
  plimsoll report runs/* --sort gain
  plimsoll report rank-8/result.json rank-16/result.json --format html --out ranks.html
  plimsoll report --schema > result.schema.json")]
pub(super) struct Arguments {
    /// Output folders of `plimsoll search`, or their result.json
    #[arg(value_name = "RESULT", required_unless_present = "schema")]
    results: Vec<PathBuf>,
    /// Format of the report
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Order of several results [default: as given]
    #[arg(long, value_enum)]
    sort: Option<SortArgument>,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the file of --out
    #[arg(long, requires = "out")]
    force: bool,
    /// Print the JSON Schema of a file instead of a report
    #[arg(
        long,
        value_enum,
        value_name = "DOCUMENT",
        num_args = 0..=1,
        default_missing_value = "result",
        conflicts_with_all = ["results", "format", "sort"]
    )]
    schema: Option<SchemaArgument>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Table for the terminal
    Table,
    /// Markdown for a pull request or a model card
    Markdown,
    /// Self-contained HTML page
    Html,
    /// JSON for programs
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArgument {
    /// By gain over the full adapter, the largest first
    Gain,
    /// By name
    Name,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SchemaArgument {
    /// result.json
    Result,
    /// A line of tokens.jsonl
    Tokens,
    /// A line of scores.jsonl
    Scores,
    /// Several results with --format json
    Comparison,
}

/// Runs the subcommand.
pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(out) = &arguments.out {
        check_out(out, arguments)?;
    }
    let text = match (arguments.schema, &arguments.results[..]) {
        (Some(SchemaArgument::Result), _) => result::schema(Document::Result),
        (Some(SchemaArgument::Tokens), _) => result::schema(Document::Tokens),
        (Some(SchemaArgument::Comparison), _) => result::schema(Document::Comparison),
        (Some(SchemaArgument::Scores), _) => result::schema(Document::Scores),
        (None, [result]) => arguments.one(result)?,
        (None, results) => arguments.several(results)?,
    };
    match &arguments.out {
        Some(out) => write_file(out, text.as_bytes())?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks whether the file of `--out` may be written, before anything is read.
fn check_out(out: &Path, arguments: &Arguments) -> Result<()> {
    // An input of the report is not replaced even with --force.
    let real = out.canonicalize().ok();
    let is_input = |given: &PathBuf| {
        let file = if given.is_dir() { given.join("result.json") } else { given.clone() };
        real.is_some()
            && [file.canonicalize().ok(), file.with_file_name("tokens.jsonl").canonicalize().ok()].contains(&real)
    };
    if arguments.results.iter().any(is_input) {
        let message = format!("{} is an input of the report: give another file with --out", out.display());
        return Err(Error::Usage(message).into());
    }
    if out.is_dir() {
        return Err(Error::Usage(format!("{} is a folder: --out takes a file", out.display())).into());
    }
    if out.exists() && !arguments.force {
        let message = format!("{} exists already: give another file, or --force to replace it", out.display());
        return Err(Error::Usage(message).into());
    }
    Ok(())
}

impl Arguments {
    /// The report of one result.
    fn one(&self, path: &Path) -> Result<String> {
        if self.sort.is_some() {
            return Err(Error::Usage("--sort has no effect on one result: give several".into()).into());
        }
        let (file, result) = report::read(path)?;
        Ok(match self.format {
            Format::Table => report::table(&result, self.style()),
            Format::Markdown => report::markdown(&result),
            Format::Html => html(&result, &report::read_tokens(&file)?),
            Format::Json => report::json(&result)?,
        })
    }

    /// The comparison of several results.
    fn several(&self, paths: &[PathBuf]) -> Result<String> {
        let read = paths.iter().map(PathBuf::as_path).map(report::read).collect::<plimsoll::Result<Vec<_>>>()?;
        let (files, results): (Vec<PathBuf>, Vec<SearchResult>) = read.into_iter().unzip();
        let names = report::unique_names(&files.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let runs: Vec<(String, SearchResult)> = names.into_iter().zip(results).collect();
        let sort = match self.sort {
            None => report::Sort::Given,
            Some(SortArgument::Gain) => report::Sort::Gain,
            Some(SortArgument::Name) => report::Sort::Name,
        };
        let comparison = report::compare(&runs, sort);
        Ok(match self.format {
            Format::Table => report::comparison(&comparison, Form::Text(self.style())),
            Format::Markdown => report::comparison(&comparison, Form::Markdown),
            Format::Html => report::comparison_html(&comparison),
            Format::Json => report::json(&comparison)?,
        })
    }

    /// Coloured on a terminal, plain in a file.
    fn style(&self) -> Style {
        if self.out.is_none() && colour() { Style::Colour } else { Style::Plain }
    }
}

/// The page of a result with its samples' tokens.
fn html(result: &SearchResult, samples: &[SampleTokens]) -> String {
    report::html(result, samples)
}
