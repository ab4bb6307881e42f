//! Tile registers of AMX: sums of 32 rows × 32 columns of `bf16` products.
//!
//! Rust has no stable intrinsics for AMX, so these few instructions are assembly. A tile register has up to 16 rows of
//! 64 bytes. Four hold the sums, two a step of the left operand, and two a step of a panel, whose layout (two `bf16` a
//! word, lines 128 bytes apart) is the one that the instruction wants.

use std::arch::asm;
use std::sync::OnceLock;

use crate::simd::{BLOCK_ROWS, BlockOperands, LANES};

/// Rows of a tile register.
const TILE_ROWS: usize = 16;

/// Bytes from one word of a panel to the next: 32 columns of one word.
const PANEL_STRIDE: usize = 128;

/// Bytes from one row of the sums to the next.
const SUMS_STRIDE: usize = BLOCK_ROWS * size_of::<f32>();

/// The shapes of the tile registers, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row, by register.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Whether the processor has the instructions, and the operating system lets this process use the registers.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && is_permitted())
}

fn has_instructions() -> bool {
    use std::arch::x86_64::__cpuid_count;
    const BF16: u32 = 1 << 22;
    const TILES: u32 = 1 << 24;
    is_x86_feature_detected!("avx512bf16") && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
}

/// Asks Linux for the registers, which have 8 KiB and are not saved for a process that does not ask.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call has no pointers; a kernel that does not know it returns an error.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Configures the tile registers for blocks of a number of rows.
///
/// # Safety
/// [`is_available`] must be true, and `1 <= rows <= BLOCK_ROWS`.
#[inline]
#[allow(unsafe_code)]
unsafe fn configure(rows: usize) {
    let upper = rows.min(TILE_ROWS) as u8;
    let lower = rows.saturating_sub(TILE_ROWS) as u8;
    let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
    let all = TILE_ROWS as u8;
    for (tile, rows) in [upper, upper, lower, lower, upper, lower, all, all].into_iter().enumerate() {
        shapes.rows[tile] = rows;
        shapes.row_bytes[tile] = if rows > 0 { 64 } else { 0 };
    }
    // SAFETY: the instruction reads 64 bytes, which `Shapes` has.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack)) };
}

/// Sums of a block; see [`Simd::block`](crate::simd::Simd::block). `configured` is the number of rows that the
/// registers are configured for.
///
/// # Safety
/// That of `Simd::block`, and [`is_available`] must be true.
#[inline]
#[allow(unsafe_code)]
pub(crate) unsafe fn block(configured: &mut usize, sums: *mut f32, operands: BlockOperands) {
    let BlockOperands { a, stride, b, steps, rows } = operands;
    // SAFETY: as above.
    unsafe {
        if *configured != rows {
            configure(rows);
            *configured = rows;
        }
        let stride = stride * size_of::<u32>();
        if rows > TILE_ROWS {
            tiles::<true>(sums, a, stride, b, steps);
        } else {
            tiles::<false>(sums, a, stride, b, steps);
        }
    }
}

/// The sums of the upper 16 rows, and with `LOWER` of those below. `stride` is in bytes.
#[inline]
#[allow(unsafe_code)]
unsafe fn tiles<const LOWER: bool>(sums: *mut f32, a: *const u32, stride: usize, b: *const u32, steps: usize) {
    // SAFETY: by the contract of `block`, each step reads 16 words of each row of `a`, and 16 words of each of the 32
    // columns of `b`, and the sums have 32 rows. No other code uses the tile registers.
    unsafe {
        asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem));
        if LOWER {
            asm!("tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
        for step in 0..steps {
            asm!(
                "tileloadd tmm4, [{a} + {stride}*1]",
                "tileloadd tmm6, [{b} + {panel}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{b} + {panel}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                a = in(reg) a.add(step * LANES),
                stride = in(reg) stride,
                b = in(reg) b.byte_add(step * LANES * PANEL_STRIDE),
                panel = in(reg) PANEL_STRIDE,
                options(nostack, readonly),
            );
            if LOWER {
                asm!(
                    "tileloadd tmm5, [{a} + {stride}*1]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    a = in(reg) a.byte_add(TILE_ROWS * stride).add(step * LANES),
                    stride = in(reg) stride,
                    options(nostack, readonly),
                );
            }
        }
        asm!(
            "tilestored [{sums} + {stride}*1], tmm0",
            "tilestored [{sums} + {stride}*1 + 64], tmm1",
            sums = in(reg) sums,
            stride = in(reg) SUMS_STRIDE,
            options(nostack),
        );
        if LOWER {
            asm!(
                "tilestored [{sums} + {stride}*1], tmm2",
                "tilestored [{sums} + {stride}*1 + 64], tmm3",
                sums = in(reg) sums.byte_add(TILE_ROWS * SUMS_STRIDE),
                stride = in(reg) SUMS_STRIDE,
                options(nostack),
            );
        }
    }
}

/// Gives the tile registers back.
///
/// # Safety
/// [`is_available`] must be true.
#[inline]
#[allow(unsafe_code)]
pub(crate) unsafe fn release() {
    // SAFETY: as above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}
