//! The rows of a data file as its publishers write it: one set of named fields each.
//!
//! | file | rows |
//! |---|---|
//! | `.jsonl` | one object a line |
//! | `.json` | the objects of one list |
//! | `.csv` | named by the first line |
//! | any, with `separator` | a line each, cut at the separator, named by `fields` |
//! | any, with `parallel` | line n of several files, one for each name, told apart by their endings |
//!
//! Each may be compressed with gzip, and then ends with `.gz` too. With `group`, neighbouring rows that agree in that field
//! are one sample, with the references of all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::task::{Layout, TaskProblem};
use crate::error::{Error, Result};
use crate::files;

/// More bytes, once unpacked, are refused: test sets are small, and all of one is held in memory.
const MAX_BYTES: u64 = 1 << 28;
/// More rows are refused.
const MAX_ROWS: usize = 2_000_000;

/// Longer lines are refused: a tokenizer takes a hundred times as much memory.
const MAX_LINE: usize = 1 << 24;

/// One row's fields.
pub(super) type Fields = Map<String, Value>;

/// One sample before its prompt is rendered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// Its line in the file, or its place in the list or table, from 1; the first where several are one.
    pub(super) line: usize,
    /// The fields of the rows that it is made of; at least one.
    pub(super) fields: Vec<Fields>,
}

/// The rows of a file, with the SHA-256 of the bytes that were read.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    pub(super) sha256: String,
}

/// Reads a data file.
pub(super) fn read(path: &Path, layout: &Layout) -> Result<Rows> {
    let mut hasher = Sha256::new();
    let single = match layout {
        Layout::ByEnding => {
            let bytes = unpacked(path, &mut hasher)?;
            by_ending(path, &bytes)?
        }
        Layout::Separated { separator, fields } => {
            let bytes = unpacked(path, &mut hasher)?;
            separated(path, &bytes, separator, fields)?
        }
        Layout::Parallel { endings } => parallel(path, endings, &mut hasher)?,
    };
    if single.is_empty() {
        return Err(Error::input(path, TaskProblem::NoRows));
    }
    few_enough(path, single.len())?;
    let rows = single.into_iter().map(|(line, fields)| Row { line, fields: vec![fields] }).collect();
    Ok(Rows { rows, sha256: files::hex(&hasher.finalize()) })
}

fn few_enough(path: &Path, rows: usize) -> Result<()> {
    if rows <= MAX_ROWS { Ok(()) } else { Err(Error::input(path, TaskProblem::TooManyRows { limit: MAX_ROWS })) }
}

/// Makes neighbours that agree in a field one row.
pub(super) fn grouped(rows: Vec<Row>, field: &str) -> Vec<Row> {
    let mut groups: Vec<Row> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group)
                if row.fields[0].contains_key(field) && group.fields[0].get(field) == row.fields[0].get(field) =>
            {
                group.fields.extend(row.fields);
            }
            _ => groups.push(row),
        }
    }
    groups
}

/// The bytes of a file, unpacked where its name ends with `.gz`; the hash is of what lies on disk.
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
        return Err(Error::input(path, files::lfs_pointer()));
    }
    if path.extension().is_some_and(|extension| extension == "gz") {
        return read(&mut flate2::read::MultiGzDecoder::new(stored.as_slice()));
    }
    Ok(stored)
}

type Numbered = Vec<(usize, Fields)>;

fn by_ending(path: &Path, bytes: &[u8]) -> Result<Numbered> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let at = |problem: TaskProblem| Error::input(path, problem);
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("jsonl" | "ndjson") => {
            let mut rows = Vec::new();
            for (line, text) in lines(path, bytes)? {
                let fields = serde_json::from_str(text).map_err(|source| at(TaskProblem::Json { line, source }))?;
                rows.push((line, fields));
                few_enough(path, rows.len())?;
            }
            Ok(rows)
        }
        Some("json") => {
            let rows: Vec<Fields> = serde_json::from_str(utf8(path, bytes)?)
                .map_err(|source| at(TaskProblem::Json { line: source.line(), source }))?;
            Ok((1..).zip(rows).collect())
        }
        Some("csv") => {
            let mut reader = csv::Reader::from_reader(bytes);
            let csv = |source: csv::Error| at(TaskProblem::Csv(source.to_string()));
            let names = reader.headers().map_err(csv)?.clone();
            let mut rows = Vec::new();
            for (row, record) in (1..).zip(reader.records()) {
                let record = record.map_err(csv)?;
                let fields = names.iter().zip(&record).map(|(name, value)| (name.to_owned(), Value::from(value)));
                rows.push((row, fields.collect()));
                few_enough(path, rows.len())?;
            }
            Ok(rows)
        }
        _ => Err(at(TaskProblem::Ending)),
    }
}

fn separated(path: &Path, bytes: &[u8], separator: &str, names: &[String]) -> Result<Numbered> {
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
        Ok((line, fields.collect()))
    };
    lines(path, bytes)?.into_iter().map(row).collect()
}

/// Files that lie beside each other: `path` is what they have in common, or one of them.
fn parallel(path: &Path, endings: &BTreeMap<String, String>, hasher: &mut Sha256) -> Result<Numbered> {
    let text = path.to_string_lossy();
    let text = text.strip_suffix(".gz").unwrap_or(&text);
    let stem = endings.values().find_map(|ending| text.strip_suffix(ending.as_str())).unwrap_or(text);
    let (mut rows, mut files): (Numbered, Vec<PathBuf>) = (Vec::new(), Vec::new());
    for (name, ending) in endings {
        let candidates = [format!("{stem}{ending}"), format!("{stem}{ending}.gz")];
        let Some(file) = candidates.iter().map(PathBuf::from).find(|file| file.is_file()) else {
            return Err(Error::input(path, TaskProblem::NoFile { looked_for: candidates[0].clone() }));
        };
        let bytes = unpacked(&file, hasher)?;
        // Blank lines count here: line n of one file belongs to line n of the other.
        let text = utf8(&file, &bytes)?;
        let lines: Vec<&str> = text.lines().collect();
        if files.is_empty() {
            rows = (1..).zip(&lines).map(|(line, _)| (line, Fields::new())).collect();
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

/// Lines with their numbers, without blank ones.
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

    fn rows(name: &str, content: &[u8], layout: &Layout) -> Result<Vec<Row>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        read(&path, layout).map(|rows| rows.rows)
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect()
    }

    fn row(line: usize, pairs: &[(&str, &str)]) -> Row {
        Row { line, fields: vec![fields(pairs)] }
    }

    #[test]
    fn files_are_read_by_their_endings() {
        let expected = [row(1, &[("a", "x\ny"), ("b", "é")])];
        let json = "{\"a\": \"x\\ny\", \"b\": \"é\"}";
        assert_eq!(rows("d.jsonl", format!("\u{feff}{json}\n\n").as_bytes(), &Layout::ByEnding).unwrap(), expected);
        assert_eq!(rows("d.json", format!("[{json}]").as_bytes(), &Layout::ByEnding).unwrap(), expected);
        let csv = rows("d.csv", "a,b\n\"x\ny\",é\n".as_bytes(), &Layout::ByEnding).unwrap();
        assert_eq!(csv[0].fields, expected[0].fields);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(json.as_bytes()).unwrap();
        assert_eq!(rows("d.jsonl.gz", &packed.finish().unwrap(), &Layout::ByEnding).unwrap(), expected);
    }

    #[test]
    fn separated_lines_are_grouped() {
        let layout = Layout::Separated { separator: "||".into(), fields: vec!["mr".into(), "ref".into()] };
        let read = rows("e2e.txt", b"a||1\na||2\nb||3\na||4\n", &layout).unwrap();
        let groups = grouped(read, "mr");
        let sizes: Vec<(usize, usize)> = groups.iter().map(|group| (group.line, group.fields.len())).collect();
        assert_eq!(sizes, [(1, 2), (3, 1), (4, 1)]);
    }

    #[test]
    fn parallel_files_are_found_by_any_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("test.en"), "one\n\nthree\n").unwrap();
        fs::write(folder.path().join("test.de"), "eins\n\ndrei\n").unwrap();
        let endings = BTreeMap::from([("source".into(), ".en".into()), ("target".into(), ".de".into())]);
        let layout = Layout::Parallel { endings };
        for name in ["test", "test.en", "test.de"] {
            let rows = read(&folder.path().join(name), &layout).unwrap().rows;
            assert_eq!(rows[2], row(3, &[("source", "three"), ("target", "drei")]), "{name}");
        }
        fs::write(folder.path().join("test.de"), "eins\n").unwrap();
        let error = read(&folder.path().join("test"), &layout).unwrap_err().to_string();
        assert!(error.contains("expected 3 lines"), "{error}");
    }

    #[test]
    fn what_is_no_data_is_refused() {
        let message = |name, content: &[u8]| rows(name, content, &Layout::ByEnding).unwrap_err().to_string();
        assert!(message("d.jsonl", b"{\"a\": 1}\n[2]\n").contains("line 2"));
        assert!(message("d.json", b"{}").contains("line 1"));
        assert!(message("d.csv", b"a,b\n1\n").contains("1 field"));
        assert!(message("d.txt", b"text").contains(".jsonl"));
        assert!(message("d.jsonl", b"\n").contains("no rows"));
        assert!(message("d.jsonl", b"\xff").contains("UTF-8"));
        assert!(message("d.jsonl.gz", b"no gzip").contains("cannot read"));
    }
}
