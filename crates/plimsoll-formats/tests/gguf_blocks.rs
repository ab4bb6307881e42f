//! Every block type and every type of metadata, compared with the `gguf` Python package.
//!
//! `reference/gguf_blocks.py` writes the fixtures. Weights must be equal to the last bit, because both sides compute in
//! single precision and in the same order.

// A failed unwrap is a failed test.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use plimsoll_formats::{Gguf, Tensors, Value};

/// The supported types.
const BLOCK_TYPES: [&str; 17] = [
    "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS",
    "IQ3_XXS", "IQ4_NL", "IQ4_XS",
];

#[test]
fn every_block_type_is_dequantised_as_by_the_reference() {
    let gguf = Gguf::open(&fixture("gguf_blocks.gguf")).unwrap();
    let expected = Tensors::open_file(&fixture("gguf_blocks.safetensors")).unwrap();
    let mut sorted = BLOCK_TYPES;
    sorted.sort_unstable();
    assert_eq!(gguf.names().collect::<Vec<_>>(), sorted);
    for name in BLOCK_TYPES {
        assert_eq!(gguf.block_type(name), Some(name));
        assert_eq!(gguf.shape(name), expected.shape(name), "{name}");
        let (weights, expected) = (gguf.read(name).unwrap(), expected.read(name).unwrap());
        assert_eq!(weights.len(), expected.len(), "{name}");
        for (i, (weight, expected)) in weights.iter().zip(&expected).enumerate() {
            assert_eq!(weight.to_bits(), expected.to_bits(), "{name}[{i}]: {weight}, expected {expected}");
        }
    }
}

#[test]
fn every_type_of_metadata_is_read_as_it_was_written() {
    let gguf = Gguf::open(&fixture("gguf_blocks.gguf")).unwrap();
    let integers = |values: &[i64]| Value::Array(values.iter().map(|&value| Value::Signed(value)).collect());
    let texts = ["a", "", "bc"].map(|text| Value::String(text.into())).to_vec();
    let expected = [
        ("general.architecture", Value::String("llama".into())),
        ("test.u8", Value::Unsigned(200)),
        ("test.i8", Value::Signed(-100)),
        ("test.u16", Value::Unsigned(60_000)),
        ("test.i16", Value::Signed(-30_000)),
        ("test.u32", Value::Unsigned(4_000_000_000)),
        ("test.i32", Value::Signed(-2_000_000_000)),
        ("test.f32", Value::Float(f64::from(1e-5_f32))),
        ("test.bool", Value::Bool(true)),
        ("test.text", Value::String("líne".into())),
        ("test.u64", Value::Unsigned(u64::MAX)),
        ("test.i64", Value::Signed(i64::MIN)),
        ("test.f64", Value::Float(1e-5)),
        ("test.texts", Value::Array(texts)),
        ("test.integers", integers(&[3, -4])),
        ("test.nested", Value::Array(vec![integers(&[1, 2]), integers(&[3])])),
    ];
    for (key, value) in &expected {
        assert_eq!(gguf.metadata().get(key), Some(value), "{key}");
    }
    let versions = gguf.metadata().iter().filter(|(key, _)| key.starts_with("reference.")).count();
    assert_eq!(gguf.metadata().iter().count(), expected.len() + versions);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
