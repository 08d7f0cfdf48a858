"""Tensors out of PyTorch, ONNX and GGUF files, and into safetensors, with numpy alone.

Nothing here runs code from a file: pickles go through an unpickler that knows four names.
"""
import collections
import io
import json
import pickle
import struct
import zipfile

import numpy as np

# ---- safetensors ---------------------------------------------------------------------------


def to_bf16(array):
    """The upper half of each f32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


STORE = {"f32": lambda a: a, "f16": lambda a: a.astype(np.float16), "bf16": to_bf16}


def save(path, tensors, dtype="f32"):
    """Write tensors in the order of their names."""
    head, blobs, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name], np.float32)
        blob = STORE[dtype](array).tobytes()
        head[name] = {"dtype": dtype.upper(), "shape": list(array.shape), "data_offsets": [end, end + len(blob)]}
        blobs.append(blob)
        end += len(blob)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        file.writelines(blobs)


# ---- PyTorch -------------------------------------------------------------------------------

STORAGE = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16, "LongStorage": np.int64,
    "IntStorage": np.int32, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}
Lazy = collections.namedtuple("Lazy", "storage offset shape strides")


class Ignored:
    """Stands for any class that a checkpoint names beside its tensors."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass


class TensorsOnly(pickle.Unpickler):
    """Builds dictionaries of Lazy tensors and imports nothing."""

    def __init__(self, file):
        super().__init__(file)
        self.types = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *rest: Lazy(storage, offset, shape, strides)
        return name if module == "torch" and name in STORAGE else type(name, (Ignored,), {})

    def persistent_load(self, what):
        _, kind, key = what[:3]
        self.types[key] = np.dtype(STORAGE[kind])
        return key


def _zip_checkpoint(raw):
    archive = zipfile.ZipFile(io.BytesIO(raw))
    pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
    reader = TensorsOnly(io.BytesIO(archive.read(pickled)))
    content = reader.load()
    folder = pickled[: -len("data.pkl")] + "data/"
    return content, {key: np.frombuffer(archive.read(folder + key), kind) for key, kind in reader.types.items()}


def _old_checkpoint(raw):
    file = io.BytesIO(raw)
    for _ in ("magic number", "protocol", "system"):
        TensorsOnly(file).load()
    reader = TensorsOnly(file)
    content = reader.load()
    data = {}
    for key in TensorsOnly(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        kind = reader.types[key]
        data[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return content, data


def read_pytorch(raw):
    """The tensors of a checkpoint by name; those under `model` where it has that key."""
    content, data = (_zip_checkpoint if raw[:2] == b"PK" else _old_checkpoint)(raw)
    content = content.get("model", content)
    out = {}
    for name, value in content.items():
        if isinstance(value, Lazy):
            flat = data[value.storage][value.offset :]
            last = sum((n - 1) * s for n, s in zip(value.shape, value.strides))
            assert last < flat.size, name
            strides = [s * flat.itemsize for s in value.strides]
            out[name] = np.lib.stride_tricks.as_strided(flat, value.shape, strides).copy()
    return out


# ---- ONNX ----------------------------------------------------------------------------------


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _message(data):
    """(field, wire type, value) of each entry of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            value = data[at : at + size]
            at += size
        yield field, wire, value


def _onnx_tensor(data):
    shape, name, kind, raw = [], "", 0, b""
    for field, wire, value in _message(data):
        if field == 1:
            shape += [value] if wire == 0 else list(value)
        elif field == 2:
            kind = value
        elif field == 8:
            name = bytes(value).decode()
        elif field == 9:
            raw = value
    float32 = kind == 1 and len(raw) > 0
    return name, np.frombuffer(raw, "<f4").reshape(shape) if float32 else None


def read_onnx(raw):
    """F32 initialisers by name. A product's matrix, which the export leaves nameless, is named after
    the bias that is added to the product, and turned back to [out, in]."""
    graph = next(value for field, _, value in _message(memoryview(raw)) if field == 7)
    tensors, matrix_of, nodes = {}, {}, []
    for field, _, value in _message(graph):
        if field == 5:
            name, array = _onnx_tensor(value)
            if array is not None:
                tensors[name] = array
        elif field == 1:
            parts = {1: [], 2: [], 4: []}
            for part, _, text in _message(value):
                if part in parts:
                    parts[part].append(bytes(text).decode())
            nodes.append((parts[4][0], parts[1], parts[2]))
    matrix_of = {outs[0]: ins[1] for kind, ins, outs in nodes if kind == "MatMul"}
    for kind, ins, _ in nodes:
        if kind == "Add" and ins[0].endswith(".bias") and ins[1] in matrix_of:
            tensors[ins[0][: -len("bias")] + "weight"] = tensors.pop(matrix_of[ins[1]]).T
    return tensors


# ---- GGUF ----------------------------------------------------------------------------------

SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
Q4_1 = np.dtype([("scale", "<f2"), ("least", "<f2"), ("codes", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("codes", "i1", 32)])


class Gguf:
    """`facts`: the key-value pairs; `tensors`: f32 arrays by name."""

    def __init__(self, raw):
        self.raw, self.at = raw, 4
        assert raw[:4] == b"GGUF" and self._one("I") in (2, 3), "a GGUF file of version 2 or 3 is expected"
        count, pairs = self._one("Q"), self._one("Q")
        self.facts = {}
        for _ in range(pairs):
            key = self._text()
            self.facts[key] = self._value(self._one("I"))
        infos = [self._info() for _ in range(count)]
        align = self.facts.get("general.alignment", 32)
        start = -(-self.at // align) * align
        self.tensors = {name: self._tensor(start + offset, kind, shape) for name, shape, kind, offset in infos}

    def _one(self, code):
        (value,) = struct.unpack_from("<" + code, self.raw, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def _text(self):
        size = self._one("Q")
        self.at += size
        return self.raw[self.at - size : self.at].decode()

    def _value(self, kind):
        if kind == 8:
            return self._text()
        if kind == 9:
            inner, size = self._one("I"), self._one("Q")
            return [self._value(inner) for _ in range(size)]
        return self._one(SCALAR[kind])

    def _info(self):
        name, rank = self._text(), self._one("I")
        shape = [self._one("Q") for _ in range(rank)][::-1]
        return name, shape, self._one("I"), self._one("Q")

    def _tensor(self, at, kind, shape):
        count = int(np.prod(shape))
        if kind == 0:
            return np.frombuffer(self.raw, "<f4", count, at).reshape(shape)
        block = np.frombuffer(self.raw, {3: Q4_1, 8: Q8_0}[kind], count // 32, at)
        scale = block["scale"].astype(np.float32)[:, None]
        if kind == 8:
            return (scale * block["codes"].astype(np.float32)).reshape(shape)
        codes = np.concatenate([block["codes"] & 15, block["codes"] >> 4], axis=1).astype(np.float32)
        return (scale * codes + block["least"].astype(np.float32)[:, None]).reshape(shape)
