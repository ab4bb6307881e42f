"""Writes a GGUF file in BF16: matrices are dequantised and rounded, vectors are F32, metadata is copied."""

import os
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def bf16_file(source, cache):
    """The path of `source` in BF16, which is written if it does not exist or is older than `source`."""
    target = cache / f"{source.name.removesuffix('.gguf')}.BF16.gguf"
    if target.exists() and target.stat().st_mtime >= source.stat().st_mtime:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}.part")
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(part, reader.fields["general.architecture"].contents())
    copy_metadata(reader, writer)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        kind = gguf.GGMLQuantizationType.BF16 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)
    return target


def copy_metadata(reader, writer):
    """Copies every field except the file type and those that the writer adds itself."""
    for field in reader.fields.values():
        if field.name in ("general.architecture", "general.file_type") or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, element)
