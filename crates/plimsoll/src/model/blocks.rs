//! How weights are stored, and how to turn them back into `f32`.
//!
//! A row of a stored matrix is a sequence of blocks, each a fixed number of bytes for a fixed number of weights. In the
//! quantised types a block holds small integers `q` and one or two scales: `w = d·q`, or `w = d·q + m`. The K-types put
//! eight or sixteen sub-blocks, with a small integer scale each, into a super-block of 256 weights.
//!
//! Layouts and the order of the arithmetic follow ggml's reference decoders (`ggml-quants.c`) as the `gguf` Python
//! package has them, so that every value is the same to the last bit; `tests/gguf_blocks.rs` holds us to it. They are
//! decoded here, and not by a tensor library, because that is one function of a few lines for each type: no demand on
//! alignment, no copy in between, no panic on a wrong size.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use rayon::prelude::*;

/// One way of storing weights.
#[derive(Debug)]
pub(super) struct BlockType {
    /// What ggml calls it, such as `Q4_1`.
    pub(super) name: &'static str,
    /// Weights in a block.
    pub(super) elements: usize,
    /// Bytes of a block.
    pub(super) bytes: usize,
    /// Decodes whole blocks: as many as `bytes` holds, into as many weights.
    decode: fn(&[u8], &mut [f32]),
}

/// Blocks that one thread decodes at a time hold about this many weights: 256 KiB of output.
const CHUNK_ELEMENTS: usize = 1 << 16;

/// A tensor's weights as they are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored<'a> {
    pub(super) block: &'static BlockType,
    pub(super) bytes: &'a [u8],
}

impl Stored<'_> {
    /// Decodes all of them, on all threads. Bytes after the last whole block are ignored.
    pub(super) fn read(&self) -> Vec<f32> {
        let BlockType { elements, bytes: block_bytes, decode, .. } = *self.block;
        let blocks = self.bytes.len() / block_bytes;
        let bytes = &self.bytes[..blocks * block_bytes];
        let mut weights = vec![0.0; blocks * elements];
        let chunk = CHUNK_ELEMENTS / elements;
        let chunks = bytes.par_chunks(chunk * block_bytes).zip(weights.par_chunks_mut(chunk * elements));
        chunks.for_each(|(bytes, weights)| decode(bytes, weights));
        weights
    }

    /// Decodes `out.len()` weights from the `first` on; both are whole blocks.
    pub(super) fn read_at(&self, first: usize, out: &mut [f32]) {
        let BlockType { elements, bytes, decode, .. } = self.block;
        debug_assert!(first.is_multiple_of(*elements) && out.len().is_multiple_of(*elements), "half a block");
        decode(&self.bytes[first / elements * bytes..][..out.len() / elements * bytes], out);
    }
}

/// 32-bit IEEE floats.
pub(super) static F32: BlockType = BlockType { name: "F32", elements: 1, bytes: 4, decode: f32s };
/// 16-bit IEEE floats.
pub(super) static F16: BlockType = BlockType { name: "F16", elements: 1, bytes: 2, decode: f16s };
/// The upper half of 32-bit IEEE floats.
pub(super) static BF16: BlockType = BlockType { name: "BF16", elements: 1, bytes: 2, decode: bf16s };
static Q4_0: BlockType = BlockType { name: "Q4_0", elements: 32, bytes: 18, decode: q4_0 };
static Q4_1: BlockType = BlockType { name: "Q4_1", elements: 32, bytes: 20, decode: q4_1 };
static Q5_0: BlockType = BlockType { name: "Q5_0", elements: 32, bytes: 22, decode: q5_0 };
static Q5_1: BlockType = BlockType { name: "Q5_1", elements: 32, bytes: 24, decode: q5_1 };
static Q8_0: BlockType = BlockType { name: "Q8_0", elements: 32, bytes: 34, decode: q8_0 };
static Q4_K: BlockType = BlockType { name: "Q4_K", elements: 256, bytes: 144, decode: q4_k };
static Q5_K: BlockType = BlockType { name: "Q5_K", elements: 256, bytes: 176, decode: q5_k };
static Q6_K: BlockType = BlockType { name: "Q6_K", elements: 256, bytes: 210, decode: q6_k };

/// What is known of a ggml type number (`enum ggml_type`).
#[derive(Clone, Copy, Debug)]
pub(super) enum GgmlType {
    /// A type that is read.
    Read(&'static BlockType),
    /// A type that is known by name only.
    Named(&'static str),
    /// A number that ggml had not given out when this was written (2026).
    Unknown,
}

impl GgmlType {
    /// Looks a type number up.
    pub(super) fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Read(&F32),
            1 => Self::Read(&F16),
            2 => Self::Read(&Q4_0),
            3 => Self::Read(&Q4_1),
            4 => Self::Named("Q4_2"),
            5 => Self::Named("Q4_3"),
            6 => Self::Read(&Q5_0),
            7 => Self::Read(&Q5_1),
            8 => Self::Read(&Q8_0),
            9 => Self::Named("Q8_1"),
            10 => Self::Named("Q2_K"),
            11 => Self::Named("Q3_K"),
            12 => Self::Read(&Q4_K),
            13 => Self::Read(&Q5_K),
            14 => Self::Read(&Q6_K),
            15 => Self::Named("Q8_K"),
            16 => Self::Named("IQ2_XXS"),
            17 => Self::Named("IQ2_XS"),
            18 => Self::Named("IQ3_XXS"),
            19 => Self::Named("IQ1_S"),
            20 => Self::Named("IQ4_NL"),
            21 => Self::Named("IQ3_S"),
            22 => Self::Named("IQ2_S"),
            23 => Self::Named("IQ4_XS"),
            24 => Self::Named("I8"),
            25 => Self::Named("I16"),
            26 => Self::Named("I32"),
            27 => Self::Named("I64"),
            28 => Self::Named("F64"),
            29 => Self::Named("IQ1_M"),
            30 => Self::Read(&BF16),
            31 => Self::Named("Q4_0_4_4"),
            32 => Self::Named("Q4_0_4_8"),
            33 => Self::Named("Q4_0_8_8"),
            34 => Self::Named("TQ1_0"),
            35 => Self::Named("TQ2_0"),
            36 => Self::Named("IQ4_NL_4_4"),
            37 => Self::Named("IQ4_NL_4_8"),
            38 => Self::Named("IQ4_NL_8_8"),
            39 => Self::Named("MXFP4"),
            40 => Self::Named("NVFP4"),
            41 => Self::Named("Q1_0"),
            _ => Self::Unknown,
        }
    }

    /// What ggml calls it, or `unknown`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read(block) => block.name,
            Self::Named(name) => name,
            Self::Unknown => "unknown",
        }
    }
}

fn f32s(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 4], [weight]: &mut [f32; 1]| *weight = f32::from_le_bytes(*block));
}

fn f16s(bytes: &[u8], weights: &mut [f32]) {
    // By slices, because a single conversion asks each time what the CPU can do.
    let mut halves = [f16::ZERO; 256];
    for (bytes, weights) in bytes.chunks(2 * halves.len()).zip(weights.chunks_mut(halves.len())) {
        let halves = &mut halves[..weights.len()];
        for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(*bytes);
        }
        halves.convert_to_f32_slice(weights);
    }
}

fn bf16s(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 2], [weight]: &mut [f32; 1]| {
        *weight = f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16);
    });
}

/// `d: f16, q: [4 bits; 32]`, the first 16 in the low halves of the bytes; `w = d·(q − 8)`.
fn q4_0(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 18], weights: &mut [f32; 32]| {
        let d = scale(block, 0);
        for (i, &q) in block[2..].iter().enumerate() {
            weights[i] = d * (f32::from(q & 15) - 8.0);
            weights[i + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    });
}

/// `d: f16, m: f16, q: [4 bits; 32]` as in `Q4_0`; `w = d·q + m`.
fn q4_1(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 20], weights: &mut [f32; 32]| {
        let (d, m) = (scale(block, 0), scale(block, 2));
        for (i, &q) in block[4..].iter().enumerate() {
            weights[i] = d * f32::from(q & 15) + m;
            weights[i + 16] = d * f32::from(q >> 4) + m;
        }
    });
}

/// `d: f16, high: [1 bit; 32], low: [4 bits; 32]` as in `Q4_0`; `w = d·(q − 16)`.
fn q5_0(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 22], weights: &mut [f32; 32]| {
        let d = scale(block, 0);
        let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
        for (i, &low) in block[6..].iter().enumerate() {
            weights[i] = d * (f32::from((low & 15) | fifth_bit(high, i)) - 16.0);
            weights[i + 16] = d * (f32::from((low >> 4) | fifth_bit(high, i + 16)) - 16.0);
        }
    });
}

/// `d: f16, m: f16, high: [1 bit; 32], low: [4 bits; 32]` as in `Q4_0`; `w = d·q + m`.
fn q5_1(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 24], weights: &mut [f32; 32]| {
        let (d, m) = (scale(block, 0), scale(block, 2));
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        for (i, &low) in block[8..].iter().enumerate() {
            weights[i] = d * f32::from((low & 15) | fifth_bit(high, i)) + m;
            weights[i + 16] = d * f32::from((low >> 4) | fifth_bit(high, i + 16)) + m;
        }
    });
}

/// `d: f16, q: [i8; 32]`; `w = d·q`.
fn q8_0(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 34], weights: &mut [f32; 32]| {
        let d = scale(block, 0);
        for (weight, &q) in weights.iter_mut().zip(&block[2..]) {
            *weight = d * f32::from(q.cast_signed());
        }
    });
}

/// `d: f16, dmin: f16, scales: [6 + 6 bits; 8], q: [4 bits; 256]`: sub-blocks of 32, the low halves of 32 bytes being
/// one sub-block and the high halves the next; `w = (d·s)·q − (dmin·m)`.
fn q4_k(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 144], weights: &mut [f32; 256]| {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let scales = sub_block_scales(block);
        for (sub, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (s, m) = scales[sub];
            let (s, m) = (d * s, dmin * m);
            let q = &block[16 + sub / 2 * 32..][..32];
            for (weight, &q) in weights.iter_mut().zip(q) {
                *weight = s * f32::from((q >> (sub % 2 * 4)) & 15) - m;
            }
        }
    });
}

/// As `Q4_K` with `high: [u8; 32]` before the low bits: bit `b` of byte `i` is the fifth bit of weight `i` of
/// sub-block `b`.
fn q5_k(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 176], weights: &mut [f32; 256]| {
        let (d, dmin) = (scale(block, 0), scale(block, 2));
        let scales = sub_block_scales(block);
        let high = &block[16..48];
        for (sub, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (s, m) = scales[sub];
            let (s, m) = (d * s, dmin * m);
            let low = &block[48 + sub / 2 * 32..][..32];
            for ((weight, &low), &high) in weights.iter_mut().zip(low).zip(high) {
                let q = ((low >> (sub % 2 * 4)) & 15) | (((high >> sub) & 1) << 4);
                *weight = s * f32::from(q) - m;
            }
        }
    });
}

/// `low: [4 bits; 256], high: [2 bits; 256], scales: [i8; 16], d: f16`, in two halves of 128 weights. A half is four
/// runs of 32: runs 0 and 1 in the low halves of its 64 low bytes, 2 and 3 in the high halves; run `r` has the bit
/// pair `r` of its 32 high bytes. Sub-blocks of 16; `w = (d·s)·(q − 32)`.
fn q6_k(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 210], weights: &mut [f32; 256]| {
        let d = scale(block, 208);
        for (run, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (half, run) = (run / 4, run % 4);
            let low = &block[half * 64 + run % 2 * 32..][..32];
            let high = &block[128 + half * 32..][..32];
            let scales = &block[192 + half * 8 + run * 2..][..2];
            for (i, weight) in weights.iter_mut().enumerate() {
                let q = ((low[i] >> (run / 2 * 4)) & 15) | (((high[i] >> (run * 2)) & 3) << 4);
                let s = f32::from(scales[i / 16].cast_signed());
                *weight = d * s * (f32::from(q) - 32.0);
            }
        }
    });
}

/// Hands out block after block with its weights; sizes known to the compiler keep the loops inside free of checks.
fn each_block<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    weights: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    for (block, weights) in bytes.as_chunks().0.iter().zip(weights.as_chunks_mut().0) {
        decode(block, weights);
    }
}

/// The half-precision float at a byte offset of a block.
fn scale(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// Bit `i` of `high`, as the fifth bit of a number.
fn fifth_bit(high: u32, i: usize) -> u8 {
    (((high >> i) & 1) << 4) as u8
}

/// The 6-bit scales and minima of the eight sub-blocks of `Q4_K` and `Q5_K`, at bytes 4..16 of the block.
///
/// Bytes 0..4 and 4..8 hold the first four scales and minima, and in their two upper bits the upper bits of the last
/// four, whose lower four bits are in the low (scale) and high (minimum) halves of bytes 8..12.
fn sub_block_scales(block: &[u8]) -> [(f32, f32); 8] {
    let packed = &block[4..16];
    std::array::from_fn(|sub| {
        let (s, m) = if sub < 4 {
            (packed[sub] & 63, packed[sub + 4] & 63)
        } else {
            let low = packed[sub + 4];
            ((low & 15) | ((packed[sub - 4] >> 6) << 4), (low >> 4) | ((packed[sub] >> 6) << 4))
        };
        (f32::from(s), f32::from(m))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The golden test in `tests/gguf_blocks.rs` covers the values; here, that a block's two sizes are the decoder's.
    #[test]
    fn every_weight_of_every_block_is_written() {
        for block in (0..64).filter_map(|number| match GgmlType::from_number(number) {
            GgmlType::Read(block) => Some(block),
            _ => None,
        }) {
            let mut weights = vec![f32::INFINITY; 3 * block.elements];
            (block.decode)(&vec![0; 3 * block.bytes], &mut weights);
            assert!(weights.iter().all(|&weight| weight == 0.0), "{}", block.name);
            let bytes = vec![0; 3 * block.bytes + block.bytes - 1];
            assert_eq!(Stored { block, bytes: &bytes }.read().len(), 3 * block.elements);
        }
    }

    #[test]
    fn many_threads_decode_what_one_decodes() {
        let blocks = 3 * CHUNK_ELEMENTS / Q4_1.elements + 1;
        let bytes: Vec<u8> = (0..blocks * Q4_1.bytes).map(|i| (i * 7 % 61) as u8).collect();
        let mut weights = vec![0.0; blocks * Q4_1.elements];
        q4_1(&bytes, &mut weights);
        let stored = Stored { block: &Q4_1, bytes: &bytes };
        assert_eq!(stored.read(), weights);
        // A stretch of it is the same numbers.
        let mut some = vec![0.0; 64];
        stored.read_at(96, &mut some);
        assert_eq!(some, weights[96..160]);
    }

    #[test]
    fn every_half_becomes_the_float_it_stands_for() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (bits, weight) in (0..=u16::MAX).zip(Stored { block: &F16, bytes: &bytes }.read()) {
            assert_eq!(weight.to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:#06x}");
        }
    }
}
