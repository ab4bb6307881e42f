//! Reading of data files of tasks. A row is a set of named fields.
//!
//! | file | rows |
//! |---|---|
//! | `.jsonl` | one object per line |
//! | `.json` | the objects of one list |
//! | `.csv` | the rows of a table; the first line has the names |
//! | any, with `separator` | the lines, split at the separator; the names are `fields` |
//! | any, with `parallel` | line n of several files, one for each field; files differ in their endings |
//!
//! Each file may be compressed with gzip and end with `.gz`. With `group`, neighbouring rows that agree in that field
//! are one sample, with the references of all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use plimsoll_formats::files;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::problem::{RowPlace, TaskProblem};
use crate::error::{Error, Result};

/// Layout of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowLayout {
    /// JSON Lines, a JSON list or CSV, by the file's ending.
    ByEnding,
    /// Lines that are split at a separator.
    Separated {
        /// The separator.
        separator: String,
        /// Names of the parts.
        fields: Vec<String>,
    },
    /// Several files with equally many lines.
    Parallel {
        /// Names of the fields, with the ending of the file of each.
        endings: BTreeMap<String, String>,
    },
}

/// Largest file, in bytes after unpacking: it is held in memory.
const MAX_BYTES: u64 = 1 << 28;
/// Largest number of rows.
const MAX_ROWS: usize = 2_000_000;

/// Longest line, in bytes: a tokenizer needs about a hundred times as much memory.
const MAX_LINE: usize = 1 << 24;

/// The fields of a row.
pub(super) type Fields = Map<String, Value>;

/// One sample before its prompt is rendered: one row, or neighbours that agree in a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its rows; at least one.
    pub(super) parts: Vec<(RowPlace, Fields)>,
}

impl Row {
    pub(super) fn single(place: RowPlace, fields: Fields) -> Self {
        Self { parts: vec![(place, fields)] }
    }

    /// Position of its first row.
    pub(super) fn place(&self) -> RowPlace {
        self.parts[0].0
    }

    fn first(&self) -> &Fields {
        &self.parts[0].1
    }
}

/// The rows of a file, with the SHA-256 of the file as it is on disk.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    pub(super) sha256: String,
}

/// Reads a data file.
pub(super) fn read(path: &Path, layout: &RowLayout) -> Result<Rows> {
    let mut hasher = Sha256::new();
    let single = match layout {
        RowLayout::ByEnding => {
            let bytes = unpacked(path, &mut hasher)?;
            by_ending(path, &bytes)?
        }
        RowLayout::Separated { separator, fields } => {
            let bytes = unpacked(path, &mut hasher)?;
            separated(path, &bytes, separator, fields)?
        }
        RowLayout::Parallel { endings } => parallel(path, endings, &mut hasher)?,
    };
    if single.is_empty() {
        return Err(Error::input(path, TaskProblem::NoRows));
    }
    few_enough(path, single.len())?;
    let rows = single.into_iter().map(|(place, fields)| Row::single(place, fields)).collect();
    Ok(Rows { rows, sha256: files::hex(&hasher.finalize()) })
}

fn few_enough(path: &Path, rows: usize) -> Result<()> {
    if rows <= MAX_ROWS { Ok(()) } else { Err(Error::input(path, TaskProblem::TooManyRows { limit: MAX_ROWS })) }
}

/// Joins neighbouring rows that agree in a field.
pub(super) fn grouped(rows: Vec<Row>, field: &str) -> Vec<Row> {
    let mut groups: Vec<Row> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group) if row.first().contains_key(field) && group.first().get(field) == row.first().get(field) => {
                group.parts.extend(row.parts);
            }
            _ => groups.push(row),
        }
    }
    groups
}

/// The bytes of a file, unpacked if its name ends with `.gz`. The hash is of the file as it is on disk.
fn unpacked(path: &Path, hasher: &mut Sha256) -> Result<Vec<u8>> {
    let read = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::read(path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::input(path, TaskProblem::TooLarge { limit: MAX_BYTES }));
        }
        Ok(bytes)
    };
    if path.is_dir() {
        return Err(Error::input(path, TaskProblem::Folder));
    }
    let stored = read(&mut File::open(path).map_err(Error::read(path))?)?;
    hasher.update(&stored);
    if files::is_lfs_pointer(&stored) {
        return Err(Error::read(path)(files::lfs_pointer()));
    }
    if path.extension().is_some_and(|extension| extension == "gz") {
        return read(&mut flate2::read::MultiGzDecoder::new(stored.as_slice()));
    }
    Ok(stored)
}

type Placed = Vec<(RowPlace, Fields)>;

fn by_ending(path: &Path, bytes: &[u8]) -> Result<Placed> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let at = |problem: TaskProblem| Error::input(path, problem);
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("jsonl" | "ndjson") => {
            let mut rows = Vec::new();
            for (line, text) in lines(path, bytes)? {
                if rows.is_empty() && text.trim_start().starts_with('[') {
                    let (expected, found) =
                        ("one object per line", "a list: the name of a file with one list ends with .json");
                    return Err(at(TaskProblem::Form { expected, found }));
                }
                let fields = serde_json::from_str(text).map_err(|source| at(TaskProblem::Json { line, source }))?;
                rows.push((RowPlace::Line(line), fields));
                few_enough(path, rows.len())?;
            }
            Ok(rows)
        }
        Some("json") => {
            let text = utf8(path, bytes)?;
            if text.trim_start().starts_with('{') {
                let (expected, found) =
                    ("a list of objects", "an object: the name of a file with one object per line ends with .jsonl");
                return Err(at(TaskProblem::Form { expected, found }));
            }
            let rows: Vec<Fields> =
                serde_json::from_str(text).map_err(|source| at(TaskProblem::Json { line: source.line(), source }))?;
            Ok((1..).map(RowPlace::Row).zip(rows).collect())
        }
        Some("csv") => table(path, bytes),
        _ => Err(at(TaskProblem::Ending)),
    }
}

/// Rows of a CSV file. White space around the names in its first line is ignored.
fn table(path: &Path, bytes: &[u8]) -> Result<Placed> {
    let at = |problem: TaskProblem| Error::input(path, problem);
    let other = |source: &csv::Error| at(TaskProblem::Csv(source.to_string()));
    let place = |row, position: Option<&csv::Position>| RowPlace::TableRow { row, line: line_of(bytes, position) };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(bytes);
    let names = reader.headers().map_err(|source| other(&source))?.clone();
    let mut rows = Vec::new();
    for (row, record) in (1..).zip(reader.records()) {
        let record = record.map_err(|source| match source.kind() {
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                at(TaskProblem::Columns { place: place(row, pos.as_ref()), expected: *expected_len, found: *len })
            }
            _ => other(&source),
        })?;
        let fields = names.iter().zip(&record).map(|(name, value)| (name.to_owned(), Value::from(value)));
        rows.push((place(row, record.position()), fields.collect()));
        few_enough(path, rows.len())?;
    }
    Ok(rows)
}

/// The first line of a record. The reader's position is the end of the record before it, so blank lines and the
/// second half of a line break may be in between.
fn line_of(bytes: &[u8], position: Option<&csv::Position>) -> usize {
    let Some(position) = position else { return 1 };
    let rest = usize::try_from(position.byte()).ok().and_then(|byte| bytes.get(byte..)).unwrap_or_default();
    let between = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() as usize + between.filter(|&&byte| byte == b'\n').count()
}

fn separated(path: &Path, bytes: &[u8], separator: &str, names: &[String]) -> Result<Placed> {
    let row = |(line, text): (usize, &str)| {
        let values: Vec<&str> = text.split(separator).map(str::trim).collect();
        if values.len() != names.len() {
            let problem = TaskProblem::Parts {
                line,
                separator: separator.to_owned(),
                expected: names.len(),
                found: values.len(),
            };
            return Err(Error::input(path, problem));
        }
        let fields = names.iter().zip(values).map(|(name, value)| (name.clone(), Value::from(value)));
        Ok((RowPlace::Line(line), fields.collect()))
    };
    lines(path, bytes)?.into_iter().map(row).collect()
}

/// Rows of parallel files. `path` is the common start of their names, or one of the files.
fn parallel(path: &Path, endings: &BTreeMap<String, String>, hasher: &mut Sha256) -> Result<Placed> {
    let text = path.to_string_lossy();
    let text = text.strip_suffix(".gz").unwrap_or(&text);
    let stem = endings.values().find_map(|ending| text.strip_suffix(ending.as_str())).unwrap_or(text);
    let (mut rows, mut files): (Placed, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for (name, ending) in endings {
        let candidates = [format!("{stem}{ending}"), format!("{stem}{ending}.gz")];
        let Some(file) = candidates.iter().map(PathBuf::from).find(|file| file.is_file()) else {
            return Err(Error::input(path, TaskProblem::NoFile { looked_for: candidates[0].clone() }));
        };
        let bytes = unpacked(&file, hasher)?;
        // Blank lines count: line n of one file belongs to line n of the other.
        let text = utf8(&file, &bytes)?;
        let lines: Vec<&str> = text.lines().collect();
        if files.is_empty() {
            rows = (1..).zip(&lines).map(|(line, _)| (RowPlace::Line(line), Fields::new())).collect();
        }
        if lines.len() != rows.len() {
            let problem = TaskProblem::Lengths { other: files[0].clone(), expected: rows.len(), found: lines.len() };
            return Err(Error::input(&file, problem));
        }
        for ((_, fields), line) in rows.iter_mut().zip(lines) {
            fields.insert(name.clone(), Value::from(line.trim()));
        }
        files.push(file);
    }
    Ok(rows)
}

fn utf8<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::input(path, TaskProblem::NotUtf8 { valid: error.valid_up_to() }))?;
    // Some editors begin a file with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Lines that are not blank, with their numbers.
fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(usize, &'a str)>> {
    let lines: Vec<(usize, &str)> =
        (1..).zip(utf8(path, bytes)?.lines()).filter(|(_, line)| !line.trim().is_empty()).collect();
    match lines.iter().find(|(_, text)| text.len() > MAX_LINE) {
        Some(&(line, _)) => Err(Error::input(path, TaskProblem::LongLine { line, limit: MAX_LINE })),
        None => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn rows(name: &str, content: &[u8], layout: &RowLayout) -> Result<Vec<Row>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        read(&path, layout).map(|rows| rows.rows)
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
    }

    fn row(place: RowPlace, pairs: &[(&str, &str)]) -> Row {
        Row::single(place, fields(pairs))
    }

    #[test]
    fn files_are_read_by_their_endings() {
        let expected = |place| [row(place, &[("a", "x\ny"), ("b", "é")])];
        let (line, list) = (expected(RowPlace::Line(1)), expected(RowPlace::Row(1)));
        let table = expected(RowPlace::TableRow { row: 1, line: 2 });
        let json = "{\"a\": \"x\\ny\", \"b\": \"é\"}";
        assert_eq!(rows("d.jsonl", format!("\u{feff}{json}\n\n").as_bytes(), &RowLayout::ByEnding).unwrap(), line);
        assert_eq!(rows("d.json", format!("[{json}]").as_bytes(), &RowLayout::ByEnding).unwrap(), list);
        assert_eq!(rows("d.csv", "a, b\n\"x\ny\",é\n".as_bytes(), &RowLayout::ByEnding).unwrap(), table);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(json.as_bytes()).unwrap();
        assert_eq!(rows("d.jsonl.gz", &packed.finish().unwrap(), &RowLayout::ByEnding).unwrap(), line);
    }

    #[test]
    fn rows_of_a_table_have_the_numbers_of_their_first_lines() {
        let text = "\u{feff}a,b\n\"x\n\ny\",1\n\n\nz,2\nz,3\n";
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let found = rows("d.csv", text.as_bytes(), &RowLayout::ByEnding).unwrap();
            let places: Vec<String> = found.iter().map(|row| row.place().to_string()).collect();
            assert_eq!(places, ["row 1 (line 2)", "row 2 (line 7)", "row 3 (line 8)"], "{text:?}");
            assert_eq!(grouped(found, "a").len(), 2);
        }
        let message = rows("d.csv", b"a,b\n\"x\ny\",1\n\nz\n", &RowLayout::ByEnding).unwrap_err().to_string();
        assert!(message.ends_with("row 2 (line 5): expected 2 fields, as the first line has, found 1"), "{message}");
    }

    #[test]
    fn separated_lines_are_grouped() {
        let layout = RowLayout::Separated { separator: "||".into(), fields: vec!["mr".into(), "ref".into()] };
        let read = rows("e2e.txt", b"a||1\na||2\nb||3\na||4\n", &layout).unwrap();
        let groups = grouped(read, "mr");
        let sizes: Vec<(usize, usize)> =
            groups.iter().map(|group| (group.place().number(), group.parts.len())).collect();
        assert_eq!(sizes, [(1, 2), (3, 1), (4, 1)]);
    }

    #[test]
    fn parallel_files_are_found_by_any_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("test.en"), "one\n\nthree\n").unwrap();
        fs::write(folder.path().join("test.de"), "eins\n\ndrei\n").unwrap();
        let endings = BTreeMap::from([("source".into(), ".en".into()), ("target".into(), ".de".into())]);
        let layout = RowLayout::Parallel { endings };
        for name in ["test", "test.en", "test.de"] {
            let rows = read(&folder.path().join(name), &layout).unwrap().rows;
            assert_eq!(rows[2], row(RowPlace::Line(3), &[("source", "three"), ("target", "drei")]), "{name}");
        }
        fs::write(folder.path().join("test.de"), "eins\n").unwrap();
        let error = read(&folder.path().join("test"), &layout).unwrap_err().to_string();
        assert!(error.contains("expected 3 lines"), "{error}");
    }

    #[test]
    fn invalid_data_is_refused() {
        let message = |name, content: &[u8]| rows(name, content, &RowLayout::ByEnding).unwrap_err().to_string();
        assert!(message("d.jsonl", b"{\"a\": 1}\n[2]\n").contains("line 2"));
        assert!(
            message("d.jsonl", b"{\"a\": 1}\n{\"a\" 1}\n")
                .ends_with("line 2: text that is not JSON: expected `:` at column 6")
        );
        assert!(message("d.jsonl", b"[{\"a\": 1}]\n").contains(".json"));
        assert!(message("d.json", b"{}").contains("expected a list of objects, found an object"));
        assert!(
            message("d.json", b"[{},\n  2]").ends_with("line 2: invalid type: integer `2`, expected a map at column 3")
        );
        assert!(message("d.csv", b"a,b\n1\n").contains("row 1 (line 2)"));
        assert!(message("d.txt", b"text").contains(".jsonl"));
        assert!(message("d.jsonl", b"\n").contains("no rows"));
        assert!(message("d.jsonl", b"\xff").contains("UTF-8"));
        assert!(message("d.jsonl.gz", b"no gzip").contains("cannot read"));
    }
}
