"""Writes the golden files of GGUF's block types: stored weights, and their dequantised values.

    python gguf_blocks.py [--out FOLDER]

gguf_blocks.gguf has a tensor of every block type that plimsoll reads (2 x 256 weights, or more if the whole grid of the
type needs more), and a metadata entry of every type. gguf_blocks.safetensors has each tensor as dequantised by
gguf.quants.dequantize, in f32. The metadata of both has the package versions. Seeded: every run writes the same bytes.
"""

import argparse
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as ValueType
from safetensors.numpy import save_file

FIXTURES = Path(__file__).resolve().parent.parent / "crates" / "plimsoll-formats" / "tests" / "fixtures"
SHAPE = (2, 256)

# The gguf package can quantise to these types.
ENCODED = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
# It can only dequantise these. Bytes are random, except for the f16 scales at these offsets.
RANDOM = {
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.IQ4_NL: [0],
    Type.IQ4_XS: [0], Type.IQ2_XXS: [0], Type.IQ3_XXS: [0],
}
# Shapes of types of which every grid point and every set of signs must occur: bytes count up and are not random.
GRIDS = {Type.IQ2_XXS: (16, 256), Type.IQ3_XXS: (8, 256)}


def random_blocks(rng: np.random.Generator, block_type: Type, scales: list[int]) -> np.ndarray:
    """Blocks of random bytes, with scales of 0.001 to 0.1 and either sign: normal numbers, as in real models."""
    elements, size = gguf.GGML_QUANT_SIZES[block_type]
    rows, columns = GRIDS.get(block_type, SHAPE)
    blocks = rng.integers(0, 256, (rows, columns // elements, size), dtype=np.uint8)
    if block_type in GRIDS:
        count_up(blocks, block_type)
    for offset in scales:
        values = rng.uniform(0.001, 0.1, blocks.shape[:2]) * rng.choice([-1, 1], blocks.shape[:2])
        blocks[:, :, offset : offset + 2] = values.astype("<f2")[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


def count_up(blocks: np.ndarray, block_type: Type) -> None:
    """Sets the bytes so that every grid point and every set of seven signs occurs at least once."""
    flat = blocks.reshape(-1, blocks.shape[-1])
    if block_type == Type.IQ2_XXS:
        subs = flat[:, 2:].reshape(-1, 8)
        points, rests = subs[:, :4], subs[:, 4:]
    else:
        points, rests = flat[:, 2:66].reshape(-1, 8), flat[:, 66:].reshape(-1, 4)
    points[...] = np.arange(points.size, dtype=np.int64).reshape(points.shape) * 7 % 256
    signs = np.arange(rests.shape[0] * 4, dtype=np.uint32).reshape(-1, 4) * 5 % 128
    packed = (signs << np.array([0, 7, 14, 21], dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    packed |= np.arange(len(packed), dtype=np.uint32) % 16 << 28
    rests[...] = packed.astype("<u4").view(np.uint8).reshape(rests.shape)
    assert len(np.unique(points)) == 256 and len(np.unique(signs)) == 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=FIXTURES)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(20250330)
    versions = {package: version(package) for package in ("gguf", "numpy")}
    writer = gguf.GGUFWriter(out / "gguf_blocks.gguf", arch="llama")
    for package, number in versions.items():
        writer.add_string(f"reference.{package}", number)
    writer.add_key_value("test.u8", 200, ValueType.UINT8)
    writer.add_key_value("test.i8", -100, ValueType.INT8)
    writer.add_key_value("test.u16", 60_000, ValueType.UINT16)
    writer.add_key_value("test.i16", -30_000, ValueType.INT16)
    writer.add_key_value("test.u32", 4_000_000_000, ValueType.UINT32)
    writer.add_key_value("test.i32", -2_000_000_000, ValueType.INT32)
    writer.add_key_value("test.f32", 1e-5, ValueType.FLOAT32)
    writer.add_key_value("test.bool", True, ValueType.BOOL)
    writer.add_key_value("test.text", "l\u00edne", ValueType.STRING)
    writer.add_key_value("test.u64", 2**64 - 1, ValueType.UINT64)
    writer.add_key_value("test.i64", -(2**63), ValueType.INT64)
    writer.add_key_value("test.f64", 1e-5, ValueType.FLOAT64)
    writer.add_array("test.texts", ["a", "", "bc"])
    writer.add_array("test.integers", [3, -4])
    writer.add_array("test.nested", [[1, 2], [3]])

    expected = {}
    for block_type in ENCODED + list(RANDOM):
        if block_type in RANDOM:
            stored = random_blocks(rng, block_type, RANDOM[block_type])
        else:
            # Blocks of different magnitudes, as in real matrices.
            values = rng.standard_normal(SHAPE) * np.exp2(rng.integers(-8, 3, (SHAPE[0], 8))).repeat(32, axis=1)
            stored = gguf.quants.quantize(values.astype(np.float32), block_type)
        name = block_type.name
        expected[name] = gguf.quants.dequantize(stored, block_type).astype(np.float32)
        assert expected[name].shape == GRIDS.get(block_type, SHAPE) and np.isfinite(expected[name]).all()
        writer.add_tensor(name, stored, raw_dtype=block_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    # One entry, because safetensors writes several in no fixed order.
    save_file(expected, out / "gguf_blocks.safetensors", metadata={"versions": str(versions)})


if __name__ == "__main__":
    main()
