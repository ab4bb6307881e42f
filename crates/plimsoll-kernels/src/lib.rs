//! CPU kernels for transformer inference: matrix products with packed weights, attention, RMS norm, rotary embedding,
//! and the language-model head.
//!
//! Functions read slices and buffers and write to slices and buffers. The crate has no tensor, graph or model type.
//! Weights are packed once ([`Packed`]). The left operand of a product is [`Rows`] of the same [`Dtype`], `f32` or
//! `bf16`. Sums, and all values between products, are `f32`. Dimensions that do not match are a bug of the caller, not
//! a property of an input file, so they cause a panic.
//!
//! A kernel is written once and compiled for each instruction set ([`Isa`]). The caller passes the instruction set as
//! an argument. A row's result depends only on the row, the weights and the instruction set, to the last bit. It does
//! not depend on the other rows of the batch or on the number of threads.
//!
//! All `unsafe` code of the workspace is in this crate, except for one memory map.
//!
//! # Example
//! ```
//! use plimsoll_kernels::{Dtype, Isa, Mode, Packed, Rows, Threads, linear};
//!
//! let isa = Isa::best();
//! let w = Packed::from_rows(Dtype::F32, &[3.0, 4.0, 5.0, 6.0], 2); // (2 outputs, 2 inputs)
//! let mut x = Rows::new(Dtype::F32);
//! x.resize(1, 2);
//! x.write(isa, 0, &[1.0, 2.0]);
//! let mut y = [0.0; 2]; // (1 row, 2 outputs)
//! linear(isa, &mut y, &x, &w, None, Mode::Set, Threads::One);
//! assert_eq!(y, [11.0, 17.0]);
//! ```

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod dtype;
mod head;
mod isa;
mod key_values;
mod norm;
mod packed;
mod product;
mod rope;
mod simd;
#[cfg(test)]
mod testing;
mod threads;
mod tile;
mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attention::{Attention, AttentionRule, AttentionScratch, attend};
pub use dtype::Dtype;
pub use head::{TokenScore, cap_logits, score_tokens};
pub use isa::Isa;
pub use key_values::{AttentionShape, KeyValues, MAX_HEAD_DIM};
pub use norm::{add_rms_norm, norm_heads, rms_norm};
pub use packed::{Packed, PackedUpdate, UpdateModule};
pub use product::{Activation, Mode, Update, gated, linear, linear_rows};
pub use rope::{RopeTable, rotate};
pub use threads::Threads;
pub use tile::peak;
pub use words::Rows;
