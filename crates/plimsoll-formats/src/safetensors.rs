//! Reader of weights in safetensors files: one file, or a folder with one file or with an index of several.
//!
//! Source: the safetensors format (`safetensors` crate), and the layout of folders that Hugging Face's
//! `save_pretrained` writes: `model.safetensors`, or `model.safetensors.index.json`, whose `weight_map` has the file of
//! each tensor. As there, all tensors of the files in the index belong to the model. Departures: a tensor in two files
//! is refused, and so is an index that contradicts its files.
//!
//! The files stay mapped. A tensor is decoded when it is read.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};
use memmap2::Mmap;
use serde::Deserialize;

use crate::blocks::{self, BlockType, Stored};
use crate::error::FileError;
use crate::files;
use crate::text::shown;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Maximum size of a file's header, in bytes; some hundred kilobytes for the largest models.
const MAX_HEADER_BYTES: u64 = 32 << 20;
/// Maximum number of tensors of all files together; the largest models have some tens of thousands.
const MAX_TENSORS: usize = 1 << 18;
/// Maximum number of files in an index; the largest models have some hundreds.
const MAX_FILES: usize = 4096;

/// Tensors in safetensors files, memory-mapped.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    files: Vec<PathBuf>,
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, Tensor>,
}

impl Tensors {
    /// Opens the weights in a folder.
    ///
    /// # Errors
    /// A folder that cannot be read or has no safetensors; a file or an index that breaks its format.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        let (single, index) = (folder.join(SINGLE_FILE), folder.join(INDEX_FILE));
        if single.exists() {
            Self::open_files(folder, vec![single])
        } else if index.exists() {
            let index = Index::read(&index)?;
            let tensors = Self::open_files(folder, index.files.iter().map(|file| folder.join(file)).collect())?;
            index.check(&tensors)?;
            Ok(tensors)
        } else {
            Err(problem_at(folder, absence(folder)?))
        }
    }

    /// Opens one file.
    ///
    /// # Errors
    /// A file that cannot be read, or that breaks the format.
    pub fn open_file(path: &Path) -> Result<Self, FileError> {
        Self::open_files(path, vec![path.to_owned()])
    }

    /// The files that were opened.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape, row-major.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The name of a tensor's dtype, such as `BF16`.
    pub fn dtype(&self, name: &str) -> Option<&'static str> {
        self.tensors.get(name).map(|tensor| dtype_name(tensor.dtype))
    }

    /// A tensor's bytes in the file: row-major, little-endian.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.tensors.get(name).map(|tensor| &self.maps[tensor.file][tensor.bytes.clone()])
    }

    /// A tensor's values, row-major.
    ///
    /// # Errors
    /// A tensor that is not there, or whose dtype is not `F32`, `F16` or `BF16`.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        Ok(self.stored(name)?.read())
    }

    /// A tensor's stored weights.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn stored(&self, name: &str) -> Result<Stored<'_>, FileError> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(problem_at(&self.path, TensorsProblem::NoTensor(name.to_owned())));
        };
        let Some(block) = block_type(tensor.dtype) else {
            let problem = TensorsProblem::Dtype { tensor: name.to_owned(), dtype: dtype_name(tensor.dtype) };
            return Err(problem_at(&self.files[tensor.file], problem));
        };
        Ok(Stored { block, bytes: &self.maps[tensor.file][tensor.bytes.clone()] })
    }

    fn open_files(path: &Path, files: Vec<PathBuf>) -> Result<Self, FileError> {
        let mut opened = Self { path: path.to_owned(), files, maps: Vec::new(), tensors: BTreeMap::new() };
        for (file, path) in opened.files.iter().enumerate() {
            let map = files::map(path)?;
            let tensors = parse(&map).map_err(|problem| problem_at(path, problem))?;
            for (name, info, bytes) in tensors {
                let tensor = Tensor { file, dtype: info.dtype, shape: info.shape, bytes };
                if let Some(other) = opened.tensors.insert(name.clone(), tensor) {
                    let other = opened.files[other.file].clone();
                    return Err(problem_at(path, TensorsProblem::Duplicate { tensor: name, other }));
                }
            }
            if opened.tensors.len() > MAX_TENSORS {
                return Err(problem_at(path, TensorsProblem::TooMany { what: "tensors", limit: MAX_TENSORS }));
            }
            opened.maps.push(map);
        }
        Ok(opened)
    }
}

/// What is wrong with safetensors files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsProblem {
    /// A Git LFS pointer instead of the file.
    #[error("this is a Git LFS pointer, not the weights: run `git lfs pull`")]
    LfsPointer,
    /// A file whose size is not that of its header and its tensors.
    #[error("the file has {found} bytes: expected {expected}, according to its header; is the download complete?")]
    Length {
        /// Number of bytes in the file.
        found: usize,
        /// Number of bytes according to the header.
        expected: u128,
    },
    /// A header length above the limit: most likely another format.
    #[error("not a safetensors file: its header would be {0} bytes long (limit {MAX_HEADER_BYTES})")]
    HeaderLength(u64),
    /// A header that breaks the format.
    #[error("broken safetensors header: {}", shown(&.0.to_string()))]
    Header(serde_json::Error),
    /// A count above its limit.
    #[error("too many {what}: expected at most {limit}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The largest accepted number.
        limit: usize,
    },
    /// An index that breaks its format.
    #[error("broken index: {0}")]
    Index(serde_json::Error),
    /// An index without tensors.
    #[error("the index names no tensors")]
    EmptyIndex,
    /// An index with a path that is not a file in the same folder.
    #[error(
        "the index has tensor {} in {}: expected the name of a .safetensors file in the same folder",
        shown(.tensor),
        shown(.file)
    )]
    FileName {
        /// The tensor.
        tensor: String,
        /// The file according to the index.
        file: String,
    },
    /// A tensor that is not in the file of the index.
    #[error("the index has tensor {} in {}, but the file does not have it", shown(.tensor), shown(.file))]
    NotInFile {
        /// The tensor.
        tensor: String,
        /// The file according to the index.
        file: String,
    },
    /// A tensor that is in two files.
    #[error("tensor {} is also in {}", shown(.tensor), other.display())]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// The other file.
        other: PathBuf,
    },
    /// A folder with pickled weights only.
    #[error("the weights are pickled ({0:?}), and only safetensors are read: load and save them with transformers")]
    Pickle(String),
    /// A folder without weights.
    #[error("no weights: expected {SINGLE_FILE} or {INDEX_FILE}")]
    NoWeights,
    /// A tensor that is not in the files.
    #[error("there is no tensor {}", shown(.0))]
    NoTensor(String),
    /// A dtype that is not supported.
    #[error("tensor {} is stored as {dtype}, which is not supported: expected F32, F16 or BF16", shown(.tensor))]
    Dtype {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: &'static str,
    },
}

/// A tensor of the files.
#[derive(Debug)]
struct Tensor {
    file: usize, // into `files` and `maps`
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>, // in the file
}

/// The content of `model.safetensors.index.json`; its other fields repeat facts of the files.
#[derive(Deserialize)]
struct RawIndex {
    weight_map: BTreeMap<String, String>,
}

/// An index whose file names are safe to open.
#[derive(Debug)]
struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
    files: Vec<String>, // sorted, each once
}

impl Index {
    fn read(path: &Path) -> Result<Self, FileError> {
        let text = files::read_text(path)?;
        let raw = serde_json::from_str(&text).map_err(|error| problem_at(path, TensorsProblem::Index(error)))?;
        Self::validate(path, raw).map_err(|problem| problem_at(path, problem))
    }

    fn validate(path: &Path, raw: RawIndex) -> Result<Self, TensorsProblem> {
        let RawIndex { weight_map } = raw;
        if weight_map.is_empty() {
            return Err(TensorsProblem::EmptyIndex);
        }
        if weight_map.len() > MAX_TENSORS {
            return Err(TensorsProblem::TooMany { what: "tensors", limit: MAX_TENSORS });
        }
        if let Some((tensor, file)) = weight_map.iter().find(|(_, file)| !is_plain(file)) {
            return Err(TensorsProblem::FileName { tensor: tensor.clone(), file: file.clone() });
        }
        let mut files: Vec<String> = weight_map.values().cloned().collect();
        files.sort();
        files.dedup();
        if files.len() > MAX_FILES {
            return Err(TensorsProblem::TooMany { what: "files", limit: MAX_FILES });
        }
        Ok(Self { path: path.to_owned(), weight_map, files })
    }

    /// Checks that every tensor is in the file of the index.
    fn check(&self, tensors: &Tensors) -> Result<(), FileError> {
        for (tensor, file) in &self.weight_map {
            let found = tensors.tensors.get(tensor).map(|tensor| &self.files[tensor.file]);
            if found != Some(file) {
                let problem = TensorsProblem::NotInFile { tensor: tensor.clone(), file: file.clone() };
                return Err(problem_at(&self.path, problem));
            }
        }
        Ok(())
    }
}

/// Whether a name is a file in the same folder on every operating system.
fn is_plain(name: &str) -> bool {
    let stem = name.strip_suffix(".safetensors");
    stem.is_some_and(|stem| !stem.is_empty()) && !name.contains(['/', '\\', ':', '\0'])
}

/// The problem of a folder without safetensors.
fn absence(folder: &Path) -> Result<TensorsProblem, FileError> {
    for entry in fs::read_dir(folder).map_err(FileError::read(folder))? {
        let name = entry.map_err(FileError::read(folder))?.file_name().to_string_lossy().into_owned();
        // Other files, such as `training_args.bin` and `optimizer.pt`, are not weights.
        let weights = ["model", "pytorch_model", "consolidated"].iter().any(|prefix| name.starts_with(prefix));
        if weights && [".bin", ".pt", ".pth"].iter().any(|suffix| name.ends_with(suffix)) {
            return Ok(TensorsProblem::Pickle(name));
        }
    }
    Ok(TensorsProblem::NoWeights)
}

/// Reads a file's header: every tensor with its range of bytes in the file.
fn parse(bytes: &[u8]) -> Result<Vec<(String, TensorInfo, Range<usize>)>, TensorsProblem> {
    const LENGTH_BYTES: usize = 8;

    if files::is_lfs_pointer(bytes) {
        return Err(TensorsProblem::LfsPointer);
    }
    let found = bytes.len();
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(TensorsProblem::Length { found, expected: LENGTH_BYTES as u128 });
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(TensorsProblem::HeaderLength(length));
    }
    let Some((header, weights)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        let expected = LENGTH_BYTES as u128 + u128::from(length);
        return Err(TensorsProblem::Length { found, expected });
    };
    // Not `SafeTensors::deserialize`, which adds the header's length to an unchecked sum of the header. `Metadata`
    // checks that the tensors follow each other without gaps, and that their lengths fit their shapes and dtypes.
    let metadata: Metadata = serde_json::from_slice(header).map_err(TensorsProblem::Header)?;
    let start = LENGTH_BYTES + header.len();
    if metadata.data_len() != weights.len() {
        return Err(TensorsProblem::Length { found, expected: start as u128 + metadata.data_len() as u128 });
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (from, to) = info.data_offsets;
        (name, info.clone(), start + from..start + to)
    });
    Ok(tensors.collect())
}

fn problem_at(path: &Path, problem: TensorsProblem) -> FileError {
    FileError::content(path, problem)
}

/// The block type of a dtype, if it is supported.
fn block_type(dtype: Dtype) -> Option<&'static BlockType> {
    match dtype {
        Dtype::F32 => Some(&blocks::F32),
        Dtype::F16 => Some(&blocks::F16),
        Dtype::BF16 => Some(&blocks::BF16),
        _ => None,
    }
}

/// The name of a dtype in the format.
fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BOOL => "BOOL",
        Dtype::F4 => "F4",
        Dtype::F6_E2M3 => "F6_E2M3",
        Dtype::F6_E3M2 => "F6_E3M2",
        Dtype::U8 => "U8",
        Dtype::I8 => "I8",
        Dtype::F8_E5M2 => "F8_E5M2",
        Dtype::F8_E4M3 => "F8_E4M3",
        Dtype::F8_E8M0 => "F8_E8M0",
        Dtype::F8_E4M3FNUZ => "F8_E4M3FNUZ",
        Dtype::F8_E5M2FNUZ => "F8_E5M2FNUZ",
        Dtype::I16 => "I16",
        Dtype::U16 => "U16",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::I32 => "I32",
        Dtype::U32 => "U32",
        Dtype::F32 => "F32",
        Dtype::C64 => "C64",
        Dtype::F64 => "F64",
        Dtype::I64 => "I64",
        Dtype::U64 => "U64",
        _ => "an unknown dtype",
    }
}

#[cfg(test)]
mod tests {
    use ::safetensors::tensor::TensorView;
    use proptest::prelude::*;

    use super::*;
    use crate::error::FileProblem;

    /// A file of `F32` tensors, each with one row of values.
    fn file(tensors: &[(&str, &[f32])]) -> Vec<u8> {
        let bytes: Vec<Vec<u8>> =
            tensors.iter().map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, values), bytes)| {
            (name.to_string(), TensorView::new(Dtype::F32, vec![1, values.len()], bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    /// A file with a header and a number of weight bytes.
    fn with_header(header: &str, weights: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; weights]].concat()
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn problem<T: std::fmt::Debug>(result: Result<T, FileError>) -> TensorsProblem {
        match result {
            Err(FileError { problem: FileProblem::Content(problem), .. }) => problem.downcast().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn index(entries: &[(&str, &str)]) -> Vec<u8> {
        let map: BTreeMap<_, _> = entries.iter().copied().collect();
        serde_json::json!({ "metadata": { "total_size": 8 }, "weight_map": map }).to_string().into_bytes()
    }

    #[test]
    fn a_single_file_is_read() {
        let folder = folder(&[(SINGLE_FILE, &file(&[("b", &[1.0, -2.5]), ("a", &[3.0])]))]);
        let tensors = Tensors::open(folder.path()).unwrap();
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tensors.shape("b"), Some(&[1, 2][..]));
        assert_eq!(tensors.dtype("b"), Some("F32"));
        assert_eq!(tensors.bytes("a"), Some(&3.0_f32.to_le_bytes()[..]));
        assert_eq!(tensors.read("b").unwrap(), [1.0, -2.5]);
        assert_eq!(tensors.files(), [folder.path().join(SINGLE_FILE)]);
        assert!(matches!(problem(tensors.read("c")), TensorsProblem::NoTensor(name) if name == "c"));
    }

    #[test]
    fn half_precision_is_widened_and_other_dtypes_are_refused() {
        let header = r#"{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},
            "b":{"dtype":"BF16","shape":[1,1],"data_offsets":[4,6]},
            "q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[6,8]}}"#;
        let mut bytes = with_header(header, 8);
        let weights = bytes.len() - 8;
        bytes[weights..weights + 6].copy_from_slice(&[0x00, 0x3c, 0x00, 0xc1, 0xc0, 0x3f]); // 1, -2.5; 1.5
        let folder = folder(&[("x.safetensors", &bytes)]);
        let tensors = Tensors::open_file(&folder.path().join("x.safetensors")).unwrap();
        assert_eq!(tensors.read("h").unwrap(), [1.0, -2.5]);
        assert_eq!(tensors.read("b").unwrap(), [1.5]);
        let refused = problem(tensors.read("q"));
        assert!(matches!(&refused, TensorsProblem::Dtype { dtype: "F8_E4M3", .. }), "{refused}");
    }

    #[test]
    fn several_files_are_read_with_an_index() {
        let (one, two) = (file(&[("a", &[1.0]), ("extra", &[9.0])]), file(&[("b", &[2.0])]));
        let map = index(&[("a", "1.safetensors"), ("b", "2.safetensors")]);
        let folder = folder(&[("1.safetensors", &one), ("2.safetensors", &two), (INDEX_FILE, &map)]);
        let tensors = Tensors::open(folder.path()).unwrap();
        assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b", "extra"]);
        assert_eq!((tensors.read("a").unwrap(), tensors.read("b").unwrap()), (vec![1.0], vec![2.0]));
        assert_eq!(tensors.files().len(), 2);
    }

    #[test]
    fn an_index_that_contradicts_its_files_is_refused() {
        let (one, two) = (file(&[("a", &[1.0])]), file(&[("a", &[2.0]), ("b", &[2.0])]));
        let open = |map: &[u8]| {
            let folder = folder(&[("1.safetensors", &one), ("2.safetensors", &two), (INDEX_FILE, map)]);
            Tensors::open(folder.path())
        };
        let both = open(&index(&[("a", "1.safetensors"), ("b", "2.safetensors")]));
        assert!(matches!(problem(both), TensorsProblem::Duplicate { tensor, .. } if tensor == "a"));
        let wrong = open(&index(&[("b", "1.safetensors")]));
        assert!(matches!(problem(wrong), TensorsProblem::NotInFile { tensor, .. } if tensor == "b"));
        assert!(matches!(problem(open(&index(&[]))), TensorsProblem::EmptyIndex));
        assert!(matches!(problem(open(b"[]")), TensorsProblem::Index(_)));
        let missing = open(&index(&[("a", "3.safetensors")])).unwrap_err();
        assert!(missing.to_string().contains("3.safetensors"), "{missing}");
    }

    #[test]
    fn an_index_cannot_reach_outside_its_folder() {
        let outside =
            ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors", "c:x.safetensors"];
        for file in outside.into_iter().chain(["..", ".safetensors", "", "x.bin"]) {
            let folder = folder(&[(INDEX_FILE, &index(&[("a", file)]))]);
            let refused = problem(Tensors::open(folder.path()));
            assert!(matches!(&refused, TensorsProblem::FileName { .. }), "{file}: {refused}");
        }
    }

    #[test]
    fn a_folder_without_safetensors_says_what_to_do() {
        let pickled = folder(&[("pytorch_model.bin", b"PK"), ("config.json", b"{}")]);
        assert!(matches!(problem(Tensors::open(pickled.path())), TensorsProblem::Pickle(_)));
        let none = folder(&[("training_args.bin", b"PK")]);
        assert!(matches!(problem(Tensors::open(none.path())), TensorsProblem::NoWeights));
        let pointer = folder(&[(SINGLE_FILE, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")]);
        assert!(matches!(problem(Tensors::open(pointer.path())), TensorsProblem::LfsPointer));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let length = |bytes: &[u8]| matches!(parse(bytes), Err(TensorsProblem::Length { .. }));
        let header =
            |header: &str, weights| matches!(parse(&with_header(header, weights)), Err(TensorsProblem::Header(_)));
        assert!(length(&[]));
        assert!(length(&[1, 0, 0]));
        assert!(length(&[1, 0, 0, 0, 0, 0, 0, 0]));
        assert!(length(&(MAX_HEADER_BYTES).to_le_bytes()));
        assert!(matches!(parse(&u64::MAX.to_le_bytes()), Err(TensorsProblem::HeaderLength(u64::MAX))));
        assert!(length(&with_header("{}", 1)));
        assert!(length(&with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, 3)));
        assert!(header("", 0));
        assert!(header(&"[".repeat(1 << 20), 0));
        assert!(header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8));
        assert!(header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4));
        assert!(header(r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4));
        assert!(header(r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}}"#, 4));
        // Eight tensors of 2^61 - 1 bytes: with the header's length the sum is above 2^64.
        let most = (1_u64 << 61) - 1;
        let huge: Vec<String> = (0..8)
            .map(|i| (i, i * most, (i + 1) * most))
            .map(|(i, from, to)| format!(r#""{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{from},{to}]}}"#))
            .collect();
        assert!(length(&with_header(&format!("{{{}}}", huge.join(",")), 4)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn no_bytes_make_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let whole = file(&[("first", &[1.0, 2.0]), ("second", &[3.0])]);
            let mut bytes = whole.clone();
            for (place, value) in edits {
                bytes[place.index(whole.len())] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(whole.len()));
            }
            for (_, info, range) in parse(&bytes).unwrap_or_default() {
                prop_assert!(range.end <= bytes.len());
                prop_assert_eq!(range.len() * 8, info.shape.iter().product::<usize>() * info.dtype.bitsize());
            }
        }

        #[test]
        fn every_file_of_an_accepted_index_is_in_its_folder(
            weight_map in prop::collection::btree_map("[a-z]{0,3}", r"(.{0,4}|[a-z./\\]{0,9})(\.safetensors)?", 0..4),
        ) {
            if let Ok(index) = Index::validate(Path::new(INDEX_FILE), RawIndex { weight_map }) {
                for file in index.files {
                    let path = Path::new("folder").join(&file);
                    prop_assert_eq!(path.parent(), Some(Path::new("folder")));
                    prop_assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(file.as_str()));
                }
            }
        }
    }
}
