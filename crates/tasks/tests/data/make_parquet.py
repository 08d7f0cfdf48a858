"""Writes the small parquet files of these tests: pip install pyarrow, then python make_parquet.py, here.

Names, types and nesting are those of the Hub's data sets; the sentences are written for the tests."""

import datetime
import os

import pyarrow as pa
import pyarrow.parquet as pq


def write(name, table, **options):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    pq.write_table(table, name, **options)


# GLUE's form (ClassLabel is int64), two shards, packed by zstd, strings through a dictionary.
rows = [("The lamp is lit.", "A lamp is lit.", 0), ("Snow fell all night.", "It was dry.", 1),
        ("A boat came in.", "A boat came in.", 0), ("The lamp is lit.", "Nobody lit it.", 1), ("Tea was served.", "There was tea.", 0)]
for at, part in enumerate([rows[:2], rows[2:]]):
    first, second, label = zip(*part)
    table = pa.table({"sentence1": first, "sentence2": second, "label": pa.array(label, pa.int64()),
                      "idx": pa.array(range(len(part)), pa.int32())})
    write(f"hub/rte/train-0000{at}-of-00002.parquet", table, compression="zstd", use_dictionary=True)

# ARC's form: a struct of two lists, snappy, two rows a group, a picture that nobody asks for.
choices = [{"text": ["iron", "wood", "wool"], "label": ["A", "B", "C"]}, {"text": ["stone", "cork"], "label": ["1", "2"]},
           {"text": ["rain", "sun", "fog", "ice"], "label": ["A", "B", "C", "D"]}]
table = pa.table({
    "id": ["a", "b", "c"],
    "question": ["What does a magnet pull?", "What floats?", "What warms a stone?"],
    "choices": pa.array(choices, pa.struct([("text", pa.list_(pa.string())), ("label", pa.list_(pa.string()))])),
    "answerKey": ["A", "2", "B"],
    "picture": pa.array([b"\x89PNG", None, b"\x00"], pa.binary()),
    "when": [datetime.datetime(2020, 1, n) for n in (1, 2, 3)],
})
write("hub/ARC-Easy/data/test-00000-of-00001.parquet", table, compression="snappy", row_group_size=2)

# Every type that is read, with nulls; a list of structs as chats have it; nothing compressed, no dictionary.
table = pa.table({
    "text": ["a", None, "gr\u00fcn"],
    "large": pa.array(["x", "y", None], pa.large_string()),
    "named": pa.array(["one", "two", "one"]).dictionary_encode(),
    "yes": [True, None, False],
    "tiny": pa.array([-1, None, 3], pa.int8()),
    "unsigned": pa.array([2**63, 0, None], pa.uint64()),
    "half": pa.array([0.5, None, -2.0], pa.float16()),
    "single": pa.array([3.8, None, float("nan")], pa.float32()),
    "double": pa.array([1e-300, None, 0.1], pa.float64()),
    "list": pa.array([["a", None], [], None], pa.list_(pa.string())),
    "lists": pa.array([[[1], []], None, [None, [2, 3]]], pa.list_(pa.list_(pa.int32()))),
    "struct": pa.array([{"n": 1, "s": None}, None, {"n": None, "s": "z"}], pa.struct([("n", pa.int64()), ("s", pa.string())])),
    "turns": pa.array([[{"role": "user", "content": "hi"}], [], None],
                      pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
})
write("parquet/types.parquet", table, compression="none", use_dictionary=False)

# Instructions, gzip, and the same in a form that is not read.
table = pa.table({"instruction": ["Add 1 and 2.", "Name a colour."], "input": ["", "of the sky"], "output": ["3", "blue"]})
write("parquet/alpaca.parquet", table, compression="gzip")
write("parquet/brotli.parquet", table, compression="brotli")
write("parquet/bytes.parquet", pa.table({"picture": pa.array([b"\x00"], pa.binary())}))
