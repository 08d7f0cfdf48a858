#!/usr/bin/env python3
"""Write tests/data: tiny random models, adapters saved by PEFT, and what transformers + PEFT answer for each case.

    make_fixtures.py [--data FOLDER] [--only SUBSTRING] [--keep-models]

Run it with the versions of requirements.txt; they are written into every case.json.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import sibo_reference  # first: it sets the environment

import torch
from safetensors.torch import save_file

import cases
import tables
import zoo


def versions():
    """The versions that made the files, as case.json carries them."""
    import peft
    import transformers

    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__, "peft": peft.__version__}


def write_json(path, value):
    """A JSON file with one entry a line at the top level, and one a line in a long list of objects."""
    lines = []
    for key, item in value.items():
        text = json.dumps(item)
        if isinstance(item, list) and len(item) > 3 and isinstance(item[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(entry) for entry in item) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def write_case(case, models, folder):
    """One case: adapter, ids.json, the expected file of every run, case.json."""
    model_dir = models / case.model
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    adapter = None
    if case.adapter is not None:
        adapter = folder / "adapter"
        case.adapter(model_dir, adapter)
    write_json(folder / "ids.json", case.ids)
    for run in case.runs:
        out = folder / run["expected"]
        if run["command"] == "generate":
            found = sibo_reference.generate(model_dir, adapter, case.ids, **run["options"])
            write_json(out, {"sequences": found})
        else:
            tensors = sibo_reference.trace(model_dir, adapter, case.ids, **run["options"])
            # One key only: safetensors writes several in an order that changes from run to run.
            save_file(tensors, out, metadata={"versions": json.dumps(versions())})
    about = {"model": case.model, "adapter": adapter is not None, "runs": case.runs, "versions": versions()}
    write_json(folder / "case.json", about)


def main():
    """Write models, then cases, then the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parent.parent / "data")
    parser.add_argument("--only", default="", help="only the cases whose name holds this")
    parser.add_argument("--keep-models", action="store_true", help="do not write the models again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if not args.keep_models:
        zoo.save_all(args.data / "models")
    for name, case in cases.all_cases().items():
        if args.only in name:
            write_case(case, args.data / "models", args.data / "cases" / name)
            print(name)
    if not args.only:
        write_json(args.data / "rope.json", {"versions": versions(), "tables": tables.rope_tables()})
        write_json(args.data / "peft_targets.json", {"versions": versions(), "cases": tables.target_cases()})


if __name__ == "__main__":
    main()
