#!/usr/bin/env python3
"""Make assets/qnli from QNLI's official TSV files.

    scripts/sample-qnli.py TRAIN.tsv DEV.tsv OUT_DIR

Draws 2,400 train rows and 1,000 dev rows. The order is the sha256 of "<seed>:<split>:<index>",
so that it depends on no library's random generator. Classes stay as they come. Only python3.
"""
import hashlib
import sys
from pathlib import Path

SEED = 2402
ROWS = {"train": 2400, "dev": 1000}
HEADER = "index\tquestion\tsentence\tlabel"
LABELS = ("entailment", "not_entailment")


def draw(path, split):
    """The header and the drawn rows of one file, in the drawn order."""
    header, *rows = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    if header != HEADER:
        sys.exit(f"{path}: the first line should be {HEADER!r}")
    for n, row in enumerate(rows, start=2):
        if row.count("\t") != 3 or not row.endswith(LABELS):
            sys.exit(f"{path}:{n}: four columns ending in {' or '.join(LABELS)} are expected")
    key = lambda row: hashlib.sha256(f"{SEED}:{split}:{row.split(chr(9), 1)[0]}".encode()).digest()
    return sorted(rows, key=key)[: ROWS[split]]


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    target = Path(sys.argv[3])
    target.mkdir(parents=True, exist_ok=True)
    for split, source in zip(ROWS, sys.argv[1:3]):
        rows = draw(Path(source), split)
        (target / f"{split}.tsv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8", newline="\n")
        positive = sum(row.endswith("\tentailment") for row in rows)
        print(f"{split}.tsv: {len(rows)} rows, {positive} entailment")


if __name__ == "__main__":
    main()
