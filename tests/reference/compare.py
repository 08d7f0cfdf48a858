#!/usr/bin/env python3
"""Hold `sibo trace` and `sibo generate --ids` against transformers + PEFT.

    compare.py [BINARY] [--only SUBSTRING] [--random N --seed S] [--models FOLDER] [--tolerance 1e-4]

Three parts: the stored cases of tests/data (needs only torch and safetensors to read them), N random cases that are made
on the spot, and, where --models is given, the real models in that folder. An error is the largest difference divided by
the largest entry of the reference tensor (but at least a thousandth of the largest entry of that kind in the file, so
that a gradient that is nothing but rounding, as that of BERT's key bias, is not divided by itself). Real models are held
to 1e-3 or the given tolerance, whichever is larger.
Prints one line per kind of tensor, one per failure, and a total; exit status 1 where anything fails.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"
REAL_TOLERANCE = 1e-3
FLAGS = ("optim_steps", "lr", "weight_decay", "warmup_steps", "max_grad_norm")


class Tally:
    """The worst error of each kind, and what failed."""

    def __init__(self, tolerance):
        self.tolerance = tolerance
        self.worst = {}
        self.failures = []
        self.runs = 0

    def fail(self, where, why):
        """Note a failure and print it."""
        self.failures.append(where)
        print(f"FAIL {where}: {why}", flush=True)

    def tensors(self, where, ours, expected):
        """Compare two files of `trace`."""
        missing, extra = sorted(set(expected) - set(ours)), sorted(set(ours) - set(expected))
        if missing or extra:
            self.fail(where, f"missing {missing[:4]} ({len(missing)}), unexpected {extra[:4]} ({len(extra)})")
        kinds = {}
        for name, tensor in expected.items():
            kinds.setdefault(kind_of(name), []).append((name, tensor.float()))
        for kind, entries in kinds.items():
            floor = 1e-3 * max(float(tensor.abs().max()) for _name, tensor in entries)
            for name, tensor in entries:
                self.tensor(where, kind, name, ours.get(name), tensor, floor)

    def tensor(self, where, kind, name, ours, expected, floor):
        """Compare one tensor."""
        if ours is None:
            return
        if tuple(ours.shape) != tuple(expected.shape):
            self.fail(f"{where} {name}", f"shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
            return
        scale = max(float(expected.abs().max()), floor) or 1.0
        error = float((ours.float() - expected).abs().max()) / scale
        if not error <= self.worst.get(kind, (-1.0, ""))[0]:
            self.worst[kind] = (error, f"{where} {name}")
        if not error <= self.tolerance:
            self.fail(f"{where} {name}", f"error {error:.2e}")

    def report(self):
        """The table and the total line; returns the exit status."""
        for kind, (error, where) in sorted(self.worst.items()):
            print(f"{kind:12} {error:.2e}  {where}")
        largest = max((error for error, _where in self.worst.values()), default=0.0)
        failed = len({where.split(" ")[0] for where in self.failures})
        print(f"total: {self.runs} runs, {failed} with failures, largest relative error {largest:.2e}")
        return 1 if self.failures else 0


def kind_of(name):
    """`hidden.3.0` -> `hidden`, `step.loss.2` -> `step.loss`."""
    return "step.loss" if name.startswith("step.loss") else name.split(".")[0]


def command_line(binary, run, model, adapter, ids, out):
    """The arguments of our binary for one run of a case.json."""
    line = [str(binary), run["command"], "--model", str(model), "--ids", str(ids), "--out", str(out), "--compute", "f32"]
    if adapter is not None:
        line += ["--adapter", str(adapter)]
    options = dict(run["options"])
    for flag, value in (options.pop("optim", None) or {}).items():
        line += [f"--{flag.replace('_', '-')}", str(value)]
    for flag, value in options.items():
        if value is True:
            line += [f"--{flag}"]
        elif value is not False:
            line += [f"--{flag.replace('_', '-')}", str(value)]
    return line


def check(binary, tally, where, run, model, adapter, ids, expected):
    """Run ours once and compare: `expected` is a dict of tensors, or a list of sequences."""
    tally.runs += 1
    where = f"{where}/{run['expected']}"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / run["expected"]
        line = command_line(binary, run, model, adapter, ids, out)
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode != 0 or not out.exists():
            tally.fail(where, f"exit {done.returncode}: {done.stderr.strip()[-300:]}")
        elif run["command"] == "generate":
            found = json.loads(out.read_text())["sequences"]
            if found != expected:
                tally.fail(where, f"{found} instead of {expected}")
        else:
            tally.tensors(where, load_file(out), expected)


def stored(binary, tally, only):
    """Every case of tests/data."""
    for folder in sorted((DATA / "cases").iterdir()):
        if only not in folder.name:
            continue
        about = json.loads((folder / "case.json").read_text())
        adapter = folder / "adapter" if about["adapter"] else None
        for run in about["runs"]:
            file = folder / run["expected"]
            wanted = json.loads(file.read_text())["sequences"] if file.suffix == ".json" else load_file(file)
            check(binary, tally, folder.name, run, DATA / "models" / about["model"], adapter, folder / "ids.json", wanted)


def answer(run, model, adapter, data):
    """The reference's answer, computed now."""
    import sibo_reference

    compute = sibo_reference.generate if run["command"] == "generate" else sibo_reference.trace
    return compute(model, adapter, data, **run["options"])


def fresh(binary, tally, name, case, model, folder):
    """Write a case's adapter and rows below `folder` and compare every run."""
    folder.mkdir(parents=True)
    adapter = None
    if case.adapter is not None:
        adapter = folder / "adapter"
        case.adapter(model, adapter)
    ids = folder / "ids.json"
    ids.write_text(json.dumps(case.ids))
    for run in case.runs:
        check(binary, tally, name, run, model, adapter, ids, answer(run, model, adapter, case.ids))


def drawn(binary, tally, count, seed):
    """Random cases seed .. seed + count - 1; each is made again by its number."""
    import fuzz

    for number in range(seed, seed + count):
        with tempfile.TemporaryDirectory() as scratch:
            models = Path(scratch) / "models"
            name, case = fuzz.draw(number, models)
            fresh(binary, tally, name, case, models / name, Path(scratch) / name)


def real(binary, tally, models, only):
    """The real models that lie in a folder."""
    import real_models

    for name, case in real_models.real_cases(models).items():
        if only in name:
            with tempfile.TemporaryDirectory() as scratch:
                fresh(binary, tally, name, case, models / case.model, Path(scratch) / name)


def main():
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", type=Path, default=HERE.parent.parent / "target/release/sibo")
    parser.add_argument("--only", default="", help="only the cases whose name holds this")
    parser.add_argument("--random", type=int, default=0, metavar="N", help="also N random cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, help="also the real models in this folder")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--no-stored", action="store_true", help="leave out the cases of tests/data")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    tally = Tally(args.tolerance)
    if not args.no_stored:
        stored(args.binary, tally, args.only)
    drawn(args.binary, tally, args.random, args.seed)
    if args.models:
        # Thirty layers of real weights: two sums in f32 differ by more than on tiny models.
        tally.tolerance = max(args.tolerance, REAL_TOLERANCE)
        real(args.binary, tally, args.models, args.only)
    sys.exit(tally.report())


if __name__ == "__main__":
    main()
