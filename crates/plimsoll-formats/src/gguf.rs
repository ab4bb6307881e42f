//! Reader of the GGUF container: one file with metadata and named, mostly quantised tensors.
//!
//! Source: `docs/gguf.md` of the ggml project; versions 2 and 3, little-endian. The layout is
//! ```text
//! "GGUF"  version: u32  tensors: u64  entries: u64
//! entries × { key: string  type: u32  value }                        string: { length: u64  UTF-8 }
//! tensors × { name: string  dims: u32  dims × u64  type: u32  offset: u64 }
//! padding to general.alignment (32 by default), then the tensors' bytes
//! ```
//! Departures: some files that ggml accepts are refused, because they are damaged: text that is not UTF-8, a Boolean
//! that is neither 0 nor 1, tensors that share bytes. Shapes are row-major, which is GGUF's dimensions reversed. A
//! tensor of an unsupported type is no error of the file: it is refused when it is read.
//!
//! Every count and length is compared with a limit and with the remaining bytes before memory is allocated for it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::blocks::{self, GgmlType, Stored};
use crate::error::FileError;
use crate::files;

/// Maximum number of metadata entries; most files have some tens.
const MAX_ENTRIES: u64 = 1 << 16;
/// Maximum number of tensors; the largest models have some thousands.
const MAX_TENSORS: u64 = 1 << 16;
/// Maximum length of a key or a tensor's name, in bytes. The format allows 65,535 and 64; most names are below 64.
const MAX_NAME_BYTES: u64 = 1024;
/// Maximum length of a text, in bytes; some files contain a whole `tokenizer.json` of some ten megabytes.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Maximum number of elements of all arrays together; a vocabulary of 262,144 tokens needs about 1.3 million.
const MAX_ELEMENTS: u64 = 1 << 22;
/// Maximum nesting of arrays; most are flat.
const MAX_DEPTH: usize = 4;
/// Maximum number of dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_DIMS: u32 = 4;
/// The default of `general.alignment`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// A GGUF file, memory-mapped.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    bytes: Mmap,
    layout: Layout,
}

impl Gguf {
    /// Maps a file, and reads everything except the weights.
    ///
    /// # Errors
    /// A file that cannot be read, is not GGUF, or breaks the format.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let bytes = files::map(path)?;
        let layout = Layout::parse(&bytes).map_err(|problem| FileError::content(path, problem))?;
        Ok(Self { path: path.to_owned(), bytes, layout })
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.layout.metadata
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layout.tensors.keys().map(String::as_str)
    }

    /// A tensor's shape in row-major order: a linear layer's weight is (out, in).
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.layout.tensors.get(name).map(|tensor| tensor.shape.as_slice())
    }

    /// The name of a tensor's type in ggml, such as `Q4_1`; `unknown` for an unknown type number.
    pub fn block_type(&self, name: &str) -> Option<&'static str> {
        self.layout.tensors.get(name).map(|tensor| tensor.block_type.name())
    }

    /// The number of bytes of a tensor in the file; 0 if there is no such tensor, or if its type is not supported.
    pub fn size(&self, name: &str) -> usize {
        self.layout.tensors.get(name).map_or(0, |tensor| tensor.bytes.len())
    }

    /// A tensor's values, row-major, dequantised.
    ///
    /// # Errors
    /// A tensor that is not there, or whose type is not supported.
    pub fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        Ok(self.stored(name)?.read())
    }

    /// A tensor's stored weights.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn stored(&self, name: &str) -> Result<Stored<'_>, FileError> {
        self.layout.stored(&self.bytes, name).map_err(|problem| FileError::content(&self.path, problem))
    }
}

/// A file's metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// The value of a key such as `general.architecture`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Every entry, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

impl FromIterator<(String, Value)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

/// A metadata value; integers and floats of all widths are widened to 64 bits.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 8 to 64 bits, unsigned.
    Unsigned(u64),
    /// 8 to 64 bits, signed.
    Signed(i64),
    /// 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    String(String),
    /// Values of one type.
    Array(Vec<Self>),
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// The integer, if it is one that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(value) => Some(value),
            Self::Signed(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The float, if it is one. A 32-bit float is widened exactly: 1e-5 comes out as 9.999999747378752e-6.
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::Float(value) = *self { Some(value) } else { None }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = *self { Some(value) } else { None }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self { Some(values) } else { None }
    }
}

/// What is wrong with a GGUF file.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufProblem {
    /// A Git LFS pointer instead of the file.
    #[error("this is a Git LFS pointer, not the weights: run `git lfs pull`")]
    LfsPointer,
    /// Another format.
    #[error("not a GGUF file: it does not start with \"GGUF\"")]
    Magic,
    /// A big-endian file.
    #[error("a big-endian GGUF file: only little-endian ones are read")]
    BigEndian,
    /// An unsupported version of the format.
    #[error("GGUF version {0}: only versions 2 and 3 are read")]
    Version(u32),
    /// The file ends inside its header.
    #[error("the file ends inside its header, at byte {0}: is the download complete?")]
    Truncated(usize),
    /// A count or a length above its limit.
    #[error("{what}: {found} is above the limit of {limit}")]
    TooLarge {
        /// What is counted.
        what: String,
        /// The number in the file.
        found: u64,
        /// The largest accepted number.
        limit: u64,
    },
    /// Arrays that are nested too deep.
    #[error("metadata key {0:?}: arrays are nested more than {MAX_DEPTH} deep")]
    Nesting(String),
    /// An unknown type of a value.
    #[error("metadata key {key:?}: unknown value type {found}")]
    ValueType {
        /// The key.
        key: String,
        /// The number in the file.
        found: u32,
    },
    /// A Boolean that is neither 0 nor 1.
    #[error("metadata key {key:?}: a Boolean is {found}, expected 0 or 1")]
    Bool {
        /// The key.
        key: String,
        /// The number in the file.
        found: u8,
    },
    /// A text that is not UTF-8.
    #[error("{0}: not valid UTF-8")]
    Utf8(String),
    /// A key that occurs twice.
    #[error("metadata key {0:?} occurs twice")]
    DuplicateKey(String),
    /// A tensor that occurs twice.
    #[error("tensor {0:?} occurs twice")]
    DuplicateTensor(String),
    /// A `general.alignment` that is not a power of two.
    #[error("general.alignment is {0}, expected a power of two")]
    Alignment(u64),
    /// A `general.alignment` that is not an unsigned integer.
    #[error("general.alignment is not an unsigned integer")]
    AlignmentType,
    /// One part of a model in several files.
    #[error("one of {0} parts of a split GGUF (split.count): merge them with `llama-gguf-split --merge`")]
    Split(u64),
    /// A tensor without dimensions, or with too many.
    #[error("tensor {tensor:?}: {found} dimensions, expected 1 to {MAX_DIMS}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// The number in the file.
        found: u32,
    },
    /// A shape without elements, or with too many to count.
    #[error("tensor {tensor:?}: impossible shape {shape:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Row-major.
        shape: Vec<u64>,
    },
    /// A row that is not a multiple of the block size.
    #[error("tensor {tensor:?}: rows of {row} weights are not whole {block_type} blocks of {block}")]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Number of weights in a row.
        row: u64,
        /// The tensor's type.
        block_type: &'static str,
        /// Number of weights in a block.
        block: usize,
    },
    /// Weights that do not start at a multiple of the alignment.
    #[error("tensor {tensor:?}: offset {offset} is not a multiple of the alignment, {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// The offset from the start of the weights.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Weights beyond the end of the file.
    #[error("tensor {tensor:?} ends beyond the end of the file, at byte {size}: is the download complete?")]
    OutsideFile {
        /// The tensor.
        tensor: String,
        /// The size of the file in bytes.
        size: usize,
    },
    /// Two tensors that overlap.
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The tensor that starts first.
        first: String,
        /// The tensor that starts inside it.
        second: String,
    },
    /// A tensor that is not in the file.
    #[error("there is no tensor {0:?}")]
    NoTensor(String),
    /// A type that is not supported.
    #[error(
        "tensor {tensor:?} is stored as {block_type} (ggml type {number}), which is not supported: expected {}",
        blocks::READ
    )]
    BlockType {
        /// The tensor.
        tensor: String,
        /// The name of its type.
        block_type: &'static str,
        /// The number of its type.
        number: u32,
    },
}

/// Everything in a file except the weights, checked against the file's size.
#[derive(Debug)]
struct Layout {
    metadata: Metadata,
    tensors: BTreeMap<String, Tensor>,
}

/// A validated tensor of the file.
#[derive(Debug)]
struct Tensor {
    shape: Vec<usize>, // row-major
    type_number: u32,
    block_type: GgmlType,
    /// The bytes in the file. For an unsupported type only the start is known, and the range is empty.
    bytes: Range<usize>,
}

/// A tensor as described in the file, not validated.
struct RawTensor {
    name: String,
    shape: Vec<u64>, // row-major
    type_number: u32,
    offset: u64,
}

impl Layout {
    fn parse(bytes: &[u8]) -> Result<Self, GgufProblem> {
        if files::is_lfs_pointer(bytes) {
            return Err(GgufProblem::LfsPointer);
        }
        if !bytes.starts_with(b"GGUF") {
            return Err(GgufProblem::Magic);
        }
        let mut cursor = Cursor { bytes, position: 4, elements: 0 };
        match cursor.u32()? {
            2 | 3 => {}
            version if version & 0xffff == 0 && version != 0 => return Err(GgufProblem::BigEndian),
            version => return Err(GgufProblem::Version(version)),
        }
        let tensor_count = within("tensors", cursor.u64()?, MAX_TENSORS)?;
        let entry_count = within("metadata entries", cursor.u64()?, MAX_ENTRIES)?;

        let mut metadata = Metadata::default();
        for _ in 0..entry_count {
            let (key, value) = cursor.entry()?;
            if metadata.get(&key).is_some() {
                return Err(GgufProblem::DuplicateKey(key));
            }
            metadata.0.insert(key, value);
        }
        if let Some(parts) = metadata.get("split.count").and_then(Value::as_u64).filter(|&parts| parts > 1) {
            return Err(GgufProblem::Split(parts));
        }
        let alignment = alignment(&metadata)?;

        // Not `with_capacity`, because the count is not checked against the file's size. A short file ends the loop.
        let mut raw = Vec::new();
        for _ in 0..tensor_count {
            raw.push(cursor.tensor()?);
        }
        let weights = u64::try_from(cursor.position).ok().and_then(|header| header.checked_next_multiple_of(alignment));
        let mut tensors = BTreeMap::new();
        for raw in raw {
            let tensor = Tensor::validate(&raw, weights, alignment, bytes.len())?;
            if tensors.insert(raw.name.clone(), tensor).is_some() {
                return Err(GgufProblem::DuplicateTensor(raw.name));
            }
        }
        refuse_overlaps(&tensors)?;
        Ok(Self { metadata, tensors })
    }

    fn stored<'a>(&self, bytes: &'a [u8], name: &str) -> Result<Stored<'a>, GgufProblem> {
        let tensor = self.tensors.get(name).ok_or_else(|| GgufProblem::NoTensor(name.to_owned()))?;
        let GgmlType::Read(block) = tensor.block_type else {
            let (block_type, number) = (tensor.block_type.name(), tensor.type_number);
            return Err(GgufProblem::BlockType { tensor: name.to_owned(), block_type, number });
        };
        Ok(Stored { block, bytes: &bytes[tensor.bytes.clone()] })
    }
}

impl Tensor {
    /// Validates a tensor. `weights` is the position of the weights in the file; `None` if it is too large.
    fn validate(raw: &RawTensor, weights: Option<u64>, alignment: u64, size: usize) -> Result<Self, GgufProblem> {
        let RawTensor { name, shape, type_number, offset } = raw;
        let tensor = || name.clone();
        let elements = shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim)).filter(|&n| n > 0);
        let usizes: Option<Vec<usize>> = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        let (Some(elements), Some(usizes), Some(&row)) = (elements, usizes, shape.last()) else {
            return Err(GgufProblem::Shape { tensor: tensor(), shape: shape.clone() });
        };
        if offset % alignment != 0 {
            return Err(GgufProblem::Misaligned { tensor: tensor(), offset: *offset, alignment });
        }
        let block_type = GgmlType::from_number(*type_number);
        let length = match block_type {
            GgmlType::Read(block) => {
                if row % block.elements as u64 != 0 {
                    let (block_type, block) = (block.name, block.elements);
                    return Err(GgufProblem::PartialBlock { tensor: tensor(), row, block_type, block });
                }
                (elements / block.elements as u64).checked_mul(block.bytes as u64)
            }
            GgmlType::Named(_) | GgmlType::Unknown => Some(0),
        };
        let start = weights.and_then(|weights| weights.checked_add(*offset));
        let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
        let range = start.zip(end).and_then(|(start, end)| {
            let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
            (end <= size).then_some(start..end)
        });
        let Some(bytes) = range else {
            return Err(GgufProblem::OutsideFile { tensor: tensor(), size });
        };
        Ok(Self { shape: usizes, type_number: *type_number, block_type, bytes })
    }
}

/// Compares a count or a length with its limit.
fn within(what: &str, found: u64, limit: u64) -> Result<u64, GgufProblem> {
    if found > limit { Err(GgufProblem::TooLarge { what: what.to_owned(), found, limit }) } else { Ok(found) }
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufProblem> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    let Value::Unsigned(alignment) = *value else { return Err(GgufProblem::AlignmentType) };
    if alignment.is_power_of_two() { Ok(alignment) } else { Err(GgufProblem::Alignment(alignment)) }
}

fn refuse_overlaps(tensors: &BTreeMap<String, Tensor>) -> Result<(), GgufProblem> {
    let mut by_start: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, t)| (name, &t.bytes)).collect();
    by_start.sort_by_key(|(_, bytes)| (bytes.start, bytes.end));
    let overlapping = by_start.windows(2).find(|pair| pair[0].1.end > pair[1].1.start);
    overlapping.map_or(Ok(()), |pair| Err(GgufProblem::Overlap { first: pair[0].0.clone(), second: pair[1].0.clone() }))
}

/// A position in the header.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Number of elements of all arrays so far.
    elements: u64,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: u64) -> Result<&'a [u8], GgufProblem> {
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        let Some(taken) = end.and_then(|end| self.bytes.get(self.position..end)) else {
            return Err(GgufProblem::Truncated(self.bytes.len()));
        };
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufProblem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, GgufProblem> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufProblem> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a text. `what` is its name in errors.
    fn text(&mut self, limit: u64, what: impl Fn() -> String) -> Result<String, GgufProblem> {
        let length = self.u64()?;
        if length > limit {
            return Err(GgufProblem::TooLarge { what: format!("bytes of {}", what()), found: length, limit });
        }
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| GgufProblem::Utf8(what()))
    }

    fn entry(&mut self) -> Result<(String, Value), GgufProblem> {
        let key = self.text(MAX_NAME_BYTES, || "a metadata key".to_owned())?;
        let value_type = self.u32()?;
        let value = self.value(value_type, &key, 0)?;
        Ok((key, value))
    }

    fn value(&mut self, value_type: u32, key: &str, depth: usize) -> Result<Value, GgufProblem> {
        Ok(match value_type {
            0 => Value::Unsigned(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Unsigned(self.u32()?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array()?).into()),
            7 => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [found] => return Err(GgufProblem::Bool { key: key.to_owned(), found }),
            },
            8 => Value::String(self.text(MAX_TEXT_BYTES, || format!("metadata key {key:?}"))?),
            9 => Value::Array(self.values(key, depth)?),
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            found => return Err(GgufProblem::ValueType { key: key.to_owned(), found }),
        })
    }

    fn values(&mut self, key: &str, depth: usize) -> Result<Vec<Value>, GgufProblem> {
        if depth >= MAX_DEPTH {
            return Err(GgufProblem::Nesting(key.to_owned()));
        }
        let value_type = self.u32()?;
        let count = self.u64()?;
        self.elements = within("array elements of all metadata", self.elements.saturating_add(count), MAX_ELEMENTS)?;
        // The vector grows with the elements that exist, so that a wrong count allocates nothing.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(value_type, key, depth + 1)?);
        }
        Ok(values)
    }

    fn tensor(&mut self) -> Result<RawTensor, GgufProblem> {
        let name = self.text(MAX_NAME_BYTES, || "a tensor's name".to_owned())?;
        let dims = self.u32()?;
        if !(1..=MAX_DIMS).contains(&dims) {
            return Err(GgufProblem::Dimensions { tensor: name, found: dims });
        }
        let mut shape = (0..dims).map(|_| self.u64()).collect::<Result<Vec<u64>, _>>()?;
        shape.reverse();
        Ok(RawTensor { name, shape, type_number: self.u32()?, offset: self.u64()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file from its parts; `tail` is what follows the header's padding.
    fn file(version: u32, entries: &[Vec<u8>], tensors: &[Vec<u8>], tail: &[u8]) -> Vec<u8> {
        let mut bytes = [b"GGUF".as_slice(), &version.to_le_bytes()].concat();
        bytes.extend((tensors.len() as u64).to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        bytes.extend(entries.concat());
        bytes.extend(tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(tail);
        bytes
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn entry(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
        [text(key), value_type.to_le_bytes().to_vec(), value.to_vec()].concat()
    }

    fn tensor(name: &str, dims: &[u64], type_number: u32, offset: u64) -> Vec<u8> {
        let mut bytes = [text(name), (dims.len() as u32).to_le_bytes().to_vec()].concat();
        bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        bytes.extend(type_number.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    }

    fn problem(bytes: &[u8]) -> GgufProblem {
        Layout::parse(bytes).expect_err("the file is broken")
    }

    /// One `F32` tensor of shape (2, 3) in GGUF order 3 × 2, holding 0..6.
    fn small(version: u32) -> Vec<u8> {
        let weights: Vec<u8> = (0..6_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        let name = [text("tiny"), text("model")].concat();
        let names = [&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &name].concat();
        let entries = [entry("general.name", 9, &names), entry("general.alignment", 4, &32_u32.to_le_bytes())];
        file(version, &entries, &[tensor("w", &[3, 2], 0, 0)], &weights)
    }

    #[test]
    fn versions_2_and_3_are_read_row_major() {
        for version in [2, 3] {
            let bytes = small(version);
            let layout = Layout::parse(&bytes).unwrap();
            assert_eq!(layout.tensors["w"].shape, [2, 3]);
            assert_eq!(layout.stored(&bytes, "w").unwrap().read(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
            let names = layout.metadata.get("general.name").and_then(Value::as_array).unwrap();
            assert_eq!(names, [Value::String("tiny".into()), Value::String("model".into())]);
        }
        assert_eq!(problem(&small(1)), GgufProblem::Version(1));
        assert_eq!(problem(&small(3_u32.swap_bytes())), GgufProblem::BigEndian);
    }

    #[test]
    fn other_files_are_refused() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        assert_eq!(problem(pointer), GgufProblem::LfsPointer);
        assert_eq!(problem(b"PK\x03\x04"), GgufProblem::Magic);
        assert_eq!(problem(b""), GgufProblem::Magic);
        let split = file(3, &[entry("split.count", 2, &3_u16.to_le_bytes())], &[], &[]);
        assert_eq!(problem(&split), GgufProblem::Split(3));
        let whole = file(3, &[entry("split.count", 2, &1_u16.to_le_bytes())], &[], &[]);
        assert!(Layout::parse(&whole).is_ok());
    }

    #[test]
    fn broken_metadata_is_refused() {
        let with =
            |key: &str, value_type: u32, value: &[u8]| problem(&file(3, &[entry(key, value_type, value)], &[], &[]));
        assert_eq!(with("k", 13, &[]), GgufProblem::ValueType { key: "k".into(), found: 13 });
        assert_eq!(with("k", 7, &[2]), GgufProblem::Bool { key: "k".into(), found: 2 });
        assert_eq!(with("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]), GgufProblem::Utf8("metadata key \"k\"".into()));
        assert_eq!(with("general.alignment", 4, &24_u32.to_le_bytes()), GgufProblem::Alignment(24));
        assert_eq!(with("general.alignment", 4, &[0; 4]), GgufProblem::Alignment(0));
        assert_eq!(with("general.alignment", 6, &[0; 4]), GgufProblem::AlignmentType);
        let twice = [entry("k", 0, &[1]), entry("k", 0, &[1])];
        assert_eq!(problem(&file(3, &twice, &[], &[])), GgufProblem::DuplicateKey("k".into()));
        let nested = [9_u32.to_le_bytes().to_vec(), 1_u64.to_le_bytes().to_vec()].concat().repeat(9);
        assert_eq!(with("k", 9, &nested), GgufProblem::Nesting("k".into()));
    }

    #[test]
    fn counts_are_refused_before_anything_is_allocated_by_them() {
        let huge = u64::MAX.to_le_bytes();
        let too_large = |bytes: &[u8]| match problem(bytes) {
            GgufProblem::TooLarge { what, found: u64::MAX, .. } => what,
            other => panic!("{other}"),
        };
        let head = [b"GGUF".as_slice(), &3_u32.to_le_bytes()].concat();
        assert_eq!(too_large(&[&head[..], &huge, &[0; 8]].concat()), "tensors");
        assert_eq!(too_large(&[&head[..], &[0; 8], &huge].concat()), "metadata entries");
        assert_eq!(too_large(&[&head[..], &[0; 8], &1_u64.to_le_bytes(), &huge].concat()), "bytes of a metadata key");
        let text = file(3, &[entry("k", 8, &huge)], &[], &[]);
        assert_eq!(too_large(&text), "bytes of metadata key \"k\"");
        let array = [&0_u32.to_le_bytes()[..], &huge].concat();
        assert_eq!(too_large(&file(3, &[entry("k", 9, &array)], &[], &[])), "array elements of all metadata");
        // Within its limit but longer than the file.
        let text = file(3, &[entry("k", 8, &MAX_TEXT_BYTES.to_le_bytes())], &[], &[]);
        assert_eq!(problem(&text), GgufProblem::Truncated(text.len()));
    }

    #[test]
    fn broken_tensors_are_refused() {
        let with = |tensors: &[Vec<u8>]| problem(&file(3, &[], tensors, &[0; 64]));
        let name = || "w".to_owned();
        for dims in [vec![], vec![1; 5]] {
            let found = dims.len() as u32;
            assert_eq!(with(&[tensor("w", &dims, 0, 0)]), GgufProblem::Dimensions { tensor: name(), found });
        }
        for dims in [vec![0, 1], vec![u64::MAX, 2]] {
            let shape: Vec<u64> = dims.iter().rev().copied().collect();
            assert_eq!(with(&[tensor("w", &dims, 0, 0)]), GgufProblem::Shape { tensor: name(), shape });
        }
        let partial = GgufProblem::PartialBlock { tensor: name(), row: 16, block_type: "Q4_1", block: 32 };
        assert_eq!(with(&[tensor("w", &[16, 2], 3, 0)]), partial);
        let misaligned = GgufProblem::Misaligned { tensor: name(), offset: 4, alignment: 32 };
        assert_eq!(with(&[tensor("w", &[1], 0, 4)]), misaligned);
        for (dims, offset) in [(17, 0), (9, 32), (1, 64), (u64::MAX >> 1, 0), (u64::MAX >> 2, u64::MAX << 6)] {
            let outside = with(&[tensor("w", &[dims], 0, offset)]);
            assert!(matches!(outside, GgufProblem::OutsideFile { .. }), "{dims} {offset}: {outside}");
        }
        let twice = [tensor("w", &[1], 0, 0), tensor("w", &[1], 0, 32)];
        assert_eq!(with(&twice), GgufProblem::DuplicateTensor(name()));
        let shared = [tensor("v", &[9], 0, 0), tensor("w", &[1], 0, 32)];
        assert_eq!(with(&shared), GgufProblem::Overlap { first: "v".into(), second: name() });
    }

    #[test]
    fn an_unsupported_type_is_refused_when_it_is_read() {
        let bytes = file(3, &[], &[tensor("w", &[256], 17, 0), tensor("x", &[1], 77, 64)], &[0; 68]);
        let layout = Layout::parse(&bytes).unwrap();
        let refused = layout.stored(&bytes, "w").unwrap_err();
        assert_eq!(refused, GgufProblem::BlockType { tensor: "w".into(), block_type: "IQ2_XS", number: 17 });
        assert!(refused.to_string().contains("IQ2_XS "), "{refused}");
        assert!(layout.stored(&bytes, "x").unwrap_err().to_string().contains("unknown (ggml type 77)"));
        assert_eq!(layout.stored(&bytes, "y").unwrap_err(), GgufProblem::NoTensor("y".into()));
    }

    /// Every incomplete file is refused.
    #[test]
    fn a_truncated_file_is_refused() {
        let bytes = small(3);
        for length in 0..bytes.len() {
            assert!(Layout::parse(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Layout::parse(&bytes).is_ok());
    }

    /// The golden file of `tests/gguf_blocks.rs`: every block type and every type of metadata.
    const FIXTURE: &[u8] = include_bytes!("../tests/fixtures/gguf_blocks.gguf");

    /// Reads everything in a file, and checks that no tensor is larger than the file allows.
    fn read_all(bytes: &[u8]) {
        let Ok(layout) = Layout::parse(bytes) else { return };
        for (name, tensor) in &layout.tensors {
            let Ok(stored) = layout.stored(bytes, name) else { continue };
            let weights = stored.read();
            assert_eq!(weights.len(), tensor.shape.iter().product::<usize>());
            // The densest type, Q4_0, has 32 weights in 18 bytes.
            assert!(weights.len() * 18 <= bytes.len() * 32);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn no_bytes_make_it_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            in_header in any::<bool>(),
            length in any::<prop::sample::Index>(),
            cut in prop::bool::weighted(0.3),
        ) {
            let mut bytes = FIXTURE.to_vec();
            let reach = if in_header { bytes.len().min(1024) } else { bytes.len() };
            for (place, value) in edits {
                bytes[place.index(reach)] = value;
            }
            if cut {
                bytes.truncate(length.index(FIXTURE.len()));
            }
            read_all(&bytes);
        }

        #[test]
        fn no_numbers_make_it_panic(
            place in any::<prop::sample::Index>(),
            word in prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 31), Just(0), 0..300_u64, any::<u64>()],
        ) {
            let mut bytes = FIXTURE.to_vec();
            let place = place.index(1024.min(bytes.len() - 8));
            bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
            read_all(&bytes);
        }
    }
}
