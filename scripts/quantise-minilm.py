#!/usr/bin/env python3
"""Make assets/minilm-l6-int8 from the f32 folder of all-MiniLM-L6-v2.

    scripts/quantise-minilm.py MODEL_DIR OUT_DIR

MODEL_DIR is what `scripts/get-models minilm-l6` makes. Needs numpy only.

Every matrix becomes I8 with one F32 scale per row, `<name>.scale` of shape [rows, 1]:
scale = max|row| / 127, code = round-half-even(row / scale), so a code lies in [-127, 127]
and code * scale is the weight again. Vectors stay F32. Buffers are left out.
"""
import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

BUFFERS = {"embeddings.position_ids"}
QUANT = {"bits": 8, "block": "row"}
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def read_safetensors(path):
    """All F32 tensors of a safetensors file by name."""
    raw = path.read_bytes()
    (head_len,) = struct.unpack("<Q", raw[:8])
    head = json.loads(raw[8 : 8 + head_len])
    head.pop("__metadata__", None)
    data = memoryview(raw)[8 + head_len :]
    tensors = {}
    for name, entry in head.items():
        if name in BUFFERS:
            continue
        if entry["dtype"] != "F32":
            sys.exit(f"{path}: {name} is {entry['dtype']}; only F32 is expected here")
        start, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return tensors


def quantise_rows(matrix):
    """Codes [rows, columns] int8 and scales [rows, 1] float32. A row of zeros gets scale 1."""
    peak = np.abs(matrix).max(axis=1, keepdims=True)
    scale = np.where(peak == 0, np.float32(1), peak / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8)
    return codes, scale


def write_safetensors(path, tensors):
    """F32 tensors first, so that every tensor is aligned to its own element size."""
    order = sorted(tensors, key=lambda n: (-tensors[n].itemsize, n))
    head, offset = {"__metadata__": {"format": "pt", "sibo.quant": json.dumps(QUANT)}}, 0
    for name in order:
        array = tensors[name]
        dtype = {"float32": "F32", "int8": "I8"}[array.dtype.name]
        span = [offset, offset + array.nbytes]
        head[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            out.write(np.ascontiguousarray(tensors[name]).tobytes())


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    out, worst = {}, 0.0
    for name, array in read_safetensors(source / "model.safetensors").items():
        if array.ndim != 2:
            out[name] = array
            continue
        codes, scale = quantise_rows(array)
        out[name], out[name + ".scale"] = codes, scale
        error = np.linalg.norm(codes * scale - array) / np.linalg.norm(array)
        worst = max(worst, float(error))
    write_safetensors(target / "model.safetensors", out)
    for name in COPIED:
        shutil.copyfile(source / name, target / name)
    size = sum(f.stat().st_size for f in target.iterdir())
    print(f"{len(out)} tensors, largest relative error of a matrix {worst:.4f}, folder {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
