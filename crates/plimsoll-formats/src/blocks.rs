//! Block types of stored weights, and their decoding to `f32`.
//!
//! A row of a stored matrix is a sequence of blocks, each a fixed number of bytes for a fixed number of weights. In the
//! quantised types a block has small integers `q` and one or two scales: `w = d·q`, or `w = d·q + m`. In the K-types a
//! block of 256 weights has eight or sixteen sub-blocks, each with a small integer scale.
//!
//! Layouts and the order of the arithmetic are those of ggml's reference decoders (`ggml-quants.c`) in the `gguf`
//! Python package, so that every value is the same to the last bit; `tests/gguf_blocks.rs` checks this. They are
//! decoded here and not by a tensor library, because each type is a function of a few lines, without alignment
//! requirements, without an extra copy, and without a panic on a wrong size.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use rayon::prelude::*;

/// A block type: the format of stored weights.
#[derive(Debug)]
pub struct BlockType {
    /// The type's name in ggml, such as `Q4_1`.
    pub name: &'static str,
    /// Number of weights in a block.
    pub elements: usize,
    /// Number of bytes of a block.
    pub bytes: usize,
    /// Decodes whole blocks: all that the bytes contain.
    decode: fn(&[u8], &mut [f32]),
}

/// Number of weights that one thread decodes at a time: 256 KiB of output.
const CHUNK_ELEMENTS: usize = 1 << 16;

/// The stored weights of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Their block type.
    pub block: &'static BlockType,
    /// The bytes of all blocks.
    pub bytes: &'a [u8],
}

impl Stored<'_> {
    /// Decodes all weights, on all threads. Bytes after the last whole block are ignored.
    pub fn read(&self) -> Vec<f32> {
        let BlockType { elements, bytes: block_bytes, decode, .. } = *self.block;
        let blocks = self.bytes.len() / block_bytes;
        let bytes = &self.bytes[..blocks * block_bytes];
        let mut weights = vec![0.0; blocks * elements];
        let chunk = CHUNK_ELEMENTS / elements;
        let chunks = bytes.par_chunks(chunk * block_bytes).zip(weights.par_chunks_mut(chunk * elements));
        chunks.for_each(|(bytes, weights)| decode(bytes, weights));
        weights
    }

    /// Decodes `out.len()` weights, starting with the weight at index `first`. Both numbers are multiples of the block
    /// size.
    pub fn read_at(&self, first: usize, out: &mut [f32]) {
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
static Q2_K: BlockType = BlockType { name: "Q2_K", elements: 256, bytes: 84, decode: q2_k };
static Q3_K: BlockType = BlockType { name: "Q3_K", elements: 256, bytes: 110, decode: q3_k };
static IQ2_XXS: BlockType = BlockType { name: "IQ2_XXS", elements: 256, bytes: 66, decode: iq2_xxs };
static IQ3_XXS: BlockType = BlockType { name: "IQ3_XXS", elements: 256, bytes: 98, decode: iq3_xxs };
static IQ4_NL: BlockType = BlockType { name: "IQ4_NL", elements: 32, bytes: 18, decode: iq4_nl };
static IQ4_XS: BlockType = BlockType { name: "IQ4_XS", elements: 256, bytes: 136, decode: iq4_xs };

/// The names of the supported types, for messages.
pub(super) const READ: &str = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, \
                               IQ3_XXS, IQ4_NL or IQ4_XS";

/// A type of ggml (`enum ggml_type`).
#[derive(Clone, Copy, Debug)]
pub(super) enum GgmlType {
    /// A supported type.
    Read(&'static BlockType),
    /// A type that is not supported.
    Named(&'static str),
    /// A number that was not in use when this was written (2026).
    Unknown,
}

impl GgmlType {
    /// The type with a number.
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
            10 => Self::Read(&Q2_K),
            11 => Self::Read(&Q3_K),
            12 => Self::Read(&Q4_K),
            13 => Self::Read(&Q5_K),
            14 => Self::Read(&Q6_K),
            15 => Self::Named("Q8_K"),
            16 => Self::Read(&IQ2_XXS),
            17 => Self::Named("IQ2_XS"),
            18 => Self::Read(&IQ3_XXS),
            19 => Self::Named("IQ1_S"),
            20 => Self::Read(&IQ4_NL),
            21 => Self::Named("IQ3_S"),
            22 => Self::Named("IQ2_S"),
            23 => Self::Read(&IQ4_XS),
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

    /// The type's name in ggml, or `unknown`.
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
    // By slices, because each single conversion would check the features of the CPU.
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

/// `scales: [4 + 4 bits; 16], q: [2 bits; 256], d: f16, dmin: f16`, in two halves of 128 weights, each four runs of 32:
/// run `r` has the bit pair `r` of the half's 32 bytes. Sub-blocks of 16; `w = (d·s)·q − (dmin·m)`.
fn q2_k(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 84], weights: &mut [f32; 256]| {
        let (d, dmin) = (scale(block, 80), scale(block, 82));
        for (run, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &block[16 + run / 4 * 32..][..32];
            for (i, weight) in weights.iter_mut().enumerate() {
                let scales = block[run * 2 + i / 16];
                let (s, m) = (d * f32::from(scales & 15), dmin * f32::from(scales >> 4));
                *weight = s * f32::from((low[i] >> (run % 4 * 2)) & 3) - m;
            }
        }
    });
}

/// `high: [1 bit; 256], low: [2 bits; 256], scales: [6 bits; 16], d: f16`: low bits as in `Q2_K`, bit `r` of high byte
/// `i` for weight `i` of run `r` of all eight. Sub-blocks of 16; `w = (d·(s − 32))·(q − 4)`.
fn q3_k(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 110], weights: &mut [f32; 256]| {
        let d = scale(block, 108);
        // Lower four bits: the low halves of the first eight bytes, then their high halves. Upper two bits: the bit
        // pairs of the last four bytes.
        let packed = &block[96..108];
        let scales: [f32; 16] = std::array::from_fn(|sub| {
            let low = packed[sub % 8] >> (sub / 8 * 4) & 15;
            let high = packed[8 + sub % 4] >> (sub / 4 * 2) & 3;
            d * (f32::from(low | high << 4) - 32.0)
        });
        for (run, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = &block[32 + run / 4 * 32..][..32];
            for (i, weight) in weights.iter_mut().enumerate() {
                let q = ((low[i] >> (run % 4 * 2)) & 3) | ((block[i] >> run) & 1) << 2;
                *weight = scales[run * 2 + i / 16] * (f32::from(q) - 4.0);
            }
        }
    });
}

/// The sixteen levels of `IQ4_NL` and `IQ4_XS` (ggml's `kvalues_iq4nl`).
const LEVELS: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

/// `d: f16, q: [4 bits; 32]` as in `Q4_0`; `w = d·level[q]`.
fn iq4_nl(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 18], weights: &mut [f32; 32]| {
        let d = scale(block, 0);
        for (i, &q) in block[2..].iter().enumerate() {
            weights[i] = d * LEVELS[usize::from(q & 15)];
            weights[i + 16] = d * LEVELS[usize::from(q >> 4)];
        }
    });
}

/// `d: f16, high: [2 bits; 8], low: [4 bits; 8], q: [4 bits; 256]`: the halves of a scale for each sub-block of 32,
/// whose 16 bytes are as in `IQ4_NL`; `w = (d·(s − 32))·level[q]`.
fn iq4_xs(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 136], weights: &mut [f32; 256]| {
        let d = scale(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for (sub, weights) in weights.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let s = block[4 + sub / 2] >> (sub % 2 * 4) & 15 | ((high >> (sub * 2) & 3) << 4) as u8;
            let s = d * (f32::from(s) - 32.0);
            for (i, &q) in block[8 + sub * 16..][..16].iter().enumerate() {
                weights[i] = s * LEVELS[usize::from(q & 15)];
                weights[i + 16] = s * LEVELS[usize::from(q >> 4)];
            }
        }
    });
}

/// `d: f16`, then for each sub-block of 32: four bytes, each the index of a point in the grid of eights, and
/// `signs: [7 bits; 4], s: 4 bits`; `w = ±(d·(s + ½)/4)·point`.
fn iq2_xxs(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 66], weights: &mut [f32; 256]| {
        let d = scale(block, 0);
        let subs = block[2..].as_chunks::<8>().0.iter().zip(weights.as_chunks_mut::<32>().0);
        for (&[a, b, c, e, rest @ ..], weights) in subs {
            let rest = u32::from_le_bytes(rest);
            let s = d * (0.5 + (rest >> 28) as f32) * 0.25;
            for (group, (point, weights)) in [a, b, c, e].into_iter().zip(weights.as_chunks_mut::<8>().0).enumerate() {
                let (point, minus) = (GRID_OF_EIGHTS[usize::from(point)], signs(rest, group));
                for (i, weight) in weights.iter_mut().enumerate() {
                    let value = [8.0, 25.0, 43.0, 0.0][usize::from(point >> (2 * i) & 3)];
                    *weight = signed(s * value, minus, i);
                }
            }
        }
    });
}

/// `d: f16`, a byte for each four weights, the index of a point in the grid of fours, and for each sub-block of 32
/// `signs: [7 bits; 4], s: 4 bits`; `w = ±(d·(s + ½)/2)·point`.
fn iq3_xxs(bytes: &[u8], weights: &mut [f32]) {
    each_block(bytes, weights, |block: &[u8; 98], weights: &mut [f32; 256]| {
        let d = scale(block, 0);
        let (points, rests) = block[2..].split_at(64);
        let subs = points.as_chunks::<8>().0.iter().zip(rests.as_chunks::<4>().0).zip(weights.as_chunks_mut::<32>().0);
        for ((points, rest), weights) in subs {
            let rest = u32::from_le_bytes(*rest);
            let s = d * (0.5 + (rest >> 28) as f32) * 0.5;
            for (at, weight) in weights.iter_mut().enumerate() {
                let point = GRID_OF_FOURS[usize::from(points[at / 4])];
                let value = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0][usize::from(point >> (3 * (at % 4)) & 7)];
                *weight = signed(s * value, signs(rest, at / 8), at % 8);
            }
        }
    });
}

/// Which of eight weights are negative: seven bits are stored, the eighth makes their number even.
fn signs(packed: u32, group: usize) -> u32 {
    let seven = packed >> (7 * group) & 127;
    seven | (seven.count_ones() & 1) << 7
}

/// The value, negative where bit `i` is set.
fn signed(value: f32, minus: u32, i: usize) -> f32 {
    if minus >> i & 1 == 1 { -value } else { value }
}

/// Calls `decode` for each block and its weights. Constant sizes keep the loops inside free of bounds checks.
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

/// The points of `IQ2_XXS` (ggml's `iq2xxs_grid`): eight levels of two bits, the first lowest.
static GRID_OF_EIGHTS: [u16; 256] = [
    0x0000, 0x0002, 0x0005, 0x0008, 0x000a, 0x0011, 0x0014, 0x0020, 0x0022, 0x0028, 0x002a, 0x0041, 0x0044, 0x0050,
    0x0058, 0x0061, 0x0064, 0x0080, 0x0082, 0x008a, 0x00a2, 0x0101, 0x0104, 0x0110, 0x0115, 0x0140, 0x0184, 0x0198,
    0x0200, 0x0202, 0x0222, 0x0282, 0x0401, 0x0404, 0x0410, 0x0421, 0x0424, 0x0440, 0x0442, 0x0448, 0x0460, 0x0481,
    0x0484, 0x0490, 0x04a4, 0x0500, 0x0502, 0x0508, 0x0520, 0x0546, 0x0569, 0x0580, 0x0591, 0x0609, 0x0610, 0x0640,
    0x0684, 0x06a4, 0x0800, 0x0805, 0x0808, 0x0814, 0x0828, 0x0841, 0x0844, 0x0850, 0x0852, 0x0888, 0x0904, 0x0940,
    0x0a02, 0x0a14, 0x1001, 0x1004, 0x1010, 0x1021, 0x1040, 0x1060, 0x1084, 0x1090, 0x1095, 0x1100, 0x1108, 0x1120,
    0x1150, 0x115a, 0x1180, 0x1224, 0x1245, 0x1400, 0x1408, 0x1420, 0x1425, 0x1449, 0x1480, 0x1518, 0x1562, 0x1600,
    0x1616, 0x1801, 0x1804, 0x1810, 0x1840, 0x1881, 0x1900, 0x1905, 0x19a0, 0x1a51, 0x2000, 0x2002, 0x200a, 0x2044,
    0x2061, 0x2080, 0x2082, 0x2129, 0x2148, 0x2200, 0x2202, 0x2401, 0x2404, 0x2410, 0x2440, 0x2456, 0x2500, 0x2541,
    0x2564, 0x2690, 0x2808, 0x2820, 0x2894, 0x2a44, 0x4001, 0x4004, 0x4010, 0x4018, 0x4021, 0x4024, 0x4040, 0x4048,
    0x4056, 0x4060, 0x4081, 0x4084, 0x4090, 0x4100, 0x4120, 0x4161, 0x4180, 0x4185, 0x4201, 0x4210, 0x4248, 0x4256,
    0x4268, 0x4400, 0x4408, 0x4420, 0x4480, 0x4499, 0x4512, 0x4524, 0x4600, 0x4801, 0x4804, 0x4810, 0x4840, 0x4845,
    0x4900, 0x4958, 0x4961, 0x4982, 0x4a45, 0x4a90, 0x5000, 0x5008, 0x5011, 0x5019, 0x5020, 0x5080, 0x5088, 0x5104,
    0x5142, 0x51a4, 0x5291, 0x5490, 0x5492, 0x550a, 0x5601, 0x5654, 0x5800, 0x5811, 0x5819, 0x5864, 0x5940, 0x5a08,
    0x6004, 0x6010, 0x6040, 0x6068, 0x6100, 0x6155, 0x6218, 0x6260, 0x6400, 0x6405, 0x6510, 0x6512, 0x6584, 0x6842,
    0x8000, 0x8002, 0x800a, 0x8041, 0x8082, 0x8104, 0x8118, 0x8140, 0x8211, 0x8401, 0x8404, 0x8410, 0x8415, 0x8440,
    0x8460, 0x8500, 0x8546, 0x8594, 0x8609, 0x8640, 0x8660, 0x8802, 0x8904, 0x8a11, 0x9004, 0x9010, 0x9024, 0x9040,
    0x90a1, 0x9116, 0x9180, 0x9245, 0x9400, 0x9422, 0x9444, 0x9551, 0x9881, 0x9920, 0xa002, 0xa050, 0xa085, 0xa109,
    0xa200, 0xa418, 0xa850, 0xa904,
];

/// The points of `IQ3_XXS` (ggml's `iq3xxs_grid`): four levels of three bits, the first lowest.
static GRID_OF_FOURS: [u16; 256] = [
    0x0000, 0x0002, 0x0004, 0x0009, 0x000b, 0x000f, 0x0010, 0x0012, 0x0019, 0x0022, 0x003b, 0x003d, 0x0041, 0x0043,
    0x0048, 0x004a, 0x0051, 0x0055, 0x0058, 0x005a, 0x0061, 0x006c, 0x0078, 0x0080, 0x0082, 0x0084, 0x0089, 0x0090,
    0x0092, 0x0099, 0x009b, 0x009f, 0x00a9, 0x00af, 0x00bd, 0x00c1, 0x00c7, 0x00c8, 0x00ca, 0x00d5, 0x00f8, 0x010b,
    0x011f, 0x0124, 0x012f, 0x013b, 0x013d, 0x0141, 0x0147, 0x015a, 0x016a, 0x019d, 0x01b4, 0x01c8, 0x01cc, 0x01ce,
    0x01e3, 0x01f1, 0x0201, 0x0203, 0x0208, 0x020a, 0x0211, 0x0213, 0x0218, 0x021a, 0x021c, 0x0227, 0x0228, 0x0240,
    0x0242, 0x0249, 0x0250, 0x0252, 0x0281, 0x0283, 0x0288, 0x028a, 0x0291, 0x0298, 0x02ba, 0x02c0, 0x02c2, 0x02d0,
    0x02d9, 0x02e6, 0x02f6, 0x0301, 0x0305, 0x0328, 0x0350, 0x0354, 0x0366, 0x0379, 0x0385, 0x03d2, 0x03e0, 0x0400,
    0x0402, 0x0409, 0x040b, 0x0410, 0x0412, 0x0416, 0x0419, 0x0422, 0x0441, 0x0443, 0x0445, 0x0448, 0x044a, 0x0451,
    0x0458, 0x0473, 0x0477, 0x0478, 0x0480, 0x0482, 0x0489, 0x048f, 0x0490, 0x0492, 0x049f, 0x04a0, 0x04ad, 0x04c1,
    0x04c8, 0x04cc, 0x04f8, 0x04fc, 0x051d, 0x052b, 0x0543, 0x0557, 0x0561, 0x057c, 0x05c1, 0x05c3, 0x05ce, 0x05e5,
    0x0601, 0x0608, 0x060a, 0x0611, 0x0613, 0x0628, 0x0635, 0x063a, 0x0640, 0x0642, 0x0650, 0x0659, 0x0664, 0x0666,
    0x0681, 0x0683, 0x0688, 0x0695, 0x06aa, 0x06ba, 0x06c9, 0x06db, 0x0718, 0x0727, 0x073a, 0x0740, 0x0746, 0x0752,
    0x076d, 0x078c, 0x079e, 0x07b3, 0x07db, 0x07f0, 0x0804, 0x080f, 0x081d, 0x081f, 0x082b, 0x082f, 0x087c, 0x0890,
    0x089f, 0x08a0, 0x08b0, 0x08b6, 0x08c7, 0x08e5, 0x0904, 0x0929, 0x0934, 0x0955, 0x0963, 0x0978, 0x09c5, 0x09c8,
    0x09ca, 0x09d8, 0x0a0a, 0x0a21, 0x0a38, 0x0a40, 0x0a46, 0x0a56, 0x0a6d, 0x0a8c, 0x0a9a, 0x0aba, 0x0ac2, 0x0aeb,
    0x0b08, 0x0b13, 0x0b17, 0x0b3a, 0x0b42, 0x0b59, 0x0ba8, 0x0bd4, 0x0be2, 0x0c14, 0x0c24, 0x0c26, 0x0c34, 0x0c51,
    0x0c71, 0x0c8f, 0x0cb4, 0x0cd8, 0x0cde, 0x0d24, 0x0d45, 0x0d6a, 0x0d9b, 0x0dc3, 0x0dd1, 0x0e03, 0x0e05, 0x0e07,
    0x0e08, 0x0e1a, 0x0e2a, 0x0e56, 0x0e60, 0x0e8a, 0x0ea5, 0x0eaa, 0x0ec0, 0x0ecd, 0x0edb, 0x0ef0, 0x0f11, 0x0f21,
    0x0f40, 0x0f42, 0x0f54, 0x0f98,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of every block type are those of its decoder. `tests/gguf_blocks.rs` tests the values.
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
    fn many_threads_decode_the_same_as_one() {
        let blocks = 3 * CHUNK_ELEMENTS / Q4_1.elements + 1;
        let bytes: Vec<u8> = (0..blocks * Q4_1.bytes).map(|i| (i * 7 % 61) as u8).collect();
        let mut weights = vec![0.0; blocks * Q4_1.elements];
        q4_1(&bytes, &mut weights);
        let stored = Stored { block: &Q4_1, bytes: &bytes };
        assert_eq!(stored.read(), weights);
        // A part has the same numbers.
        let mut some = vec![0.0; 64];
        stored.read_at(96, &mut some);
        assert_eq!(some, weights[96..160]);
    }

    #[test]
    fn every_f16_is_decoded_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for (bits, weight) in (0..=u16::MAX).zip(Stored { block: &F16, bytes: &bytes }.read()) {
            assert_eq!(weight.to_bits(), f16::from_bits(bits).to_f32().to_bits(), "{bits:#06x}");
        }
    }
}
