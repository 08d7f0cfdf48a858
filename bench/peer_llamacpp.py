#!/usr/bin/env python3
"""llama.cpp as a peer: peer_llamacpp.py WORKLOAD FOLDER --numbers bf16|f16|q8_0 --rounds N

One process; prints one JSON line {"seconds", "rounds", "loss", "peak_mib"} as peer.py does. The model is the base with
the LoRA merged, in a GGUF file that is written once. Through llama.cpp's own functions, since the package's classes take
one sequence at a time.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import llama_cpp as llama
import numpy as np

from workloads import WORKLOADS

QUIET = llama.llama_log_callback(lambda _level, _text, _data: None)
QUESTIONS = 8
"""At a time, for likelihoods."""


def peak_mib():
    """VmHWM of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("/proc/self/status has no VmHWM")


class Context:
    """A context for so many sequences, tokens and scores at a time, and one batch that is filled again and again."""

    def __init__(self, model, sequences, tokens, outputs, threads, unified=False):
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens, tokens, min(tokens, 512)
        params.n_seq_max, params.kv_unified = sequences, unified
        params.n_threads = params.n_threads_batch = threads
        params.n_outputs_max = outputs
        self.handle = llama.llama_init_from_model(model, params)
        if not self.handle:
            raise SystemExit("llama.cpp made no context")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self.batch = llama.llama_batch_init(tokens, 0, max(sequences, 1))

    def clear(self):
        """Forget all sequences."""
        llama.llama_memory_clear(llama.llama_get_memory(self.handle), True)

    def feed(self, entries):
        """Tokens as (id, position, sequences, whether scores are wanted); the scores of those, (n, V)."""
        self.batch.n_tokens, wanted = len(entries), []
        for at, (token, place, sequences, scores) in enumerate(entries):
            self.batch.token[at], self.batch.pos[at] = token, place
            self.batch.n_seq_id[at] = len(sequences)
            for k, sequence in enumerate(sequences):
                self.batch.seq_id[at][k] = sequence
            self.batch.logits[at] = scores
            if scores:
                wanted.append(at)
        if llama.llama_decode(self.handle, self.batch) != 0:
            raise SystemExit("llama.cpp refused a batch")
        if not wanted:
            return np.empty((0, self.vocabulary), np.float32)
        first = llama.llama_get_logits(self.handle)
        return np.ctypeslib.as_array(ctypes.cast(first, ctypes.POINTER(ctypes.c_float)), (len(wanted), self.vocabulary))


def log_softmax(scores, ids):
    """Of one id in each row."""
    top = scores.max(1)
    sums = np.log(np.exp(scores - top[:, None]).sum(1, dtype=np.float64))
    return scores[np.arange(len(ids)), ids] - top - sums


def generate(model, rows, plan, args):
    """The most likely token, so many times, for all rows together."""
    longest = max(map(len, rows)) + plan["new"]
    room = -(-longest // 256) * 256 * len(rows)
    context = Context(model, len(rows), room, len(rows), args.threads)

    def run():
        context.clear()
        prompt = [(t, at, [k], at + 1 == len(row)) for k, row in enumerate(rows) for at, t in enumerate(row)]
        scores = context.feed(prompt)
        for step in range(plan["new"] - 1):
            best = scores.argmax(1)
            scores = context.feed([(int(t), len(rows[k]) + step, [k], True) for k, t in enumerate(best)])
        scores.argmax(1)

    times = measured(run, args.rounds)
    # Scores of all tokens take more memory than generation does, so they come after its peak was taken.
    longest = max(map(len, rows))
    context, logs = Context(model, 1, longest, longest, args.threads), []
    for row in rows:
        context.clear()
        scores = context.feed([(t, at, [0], True) for at, t in enumerate(row)])
        logs.append(log_softmax(scores[:-1], row[1:]))
    return times, -float(np.concatenate(logs).mean())


def score(model, questions, _plan, args):
    """Contexts once, for their four answers together; answers behind them in the same batch."""
    parts = [questions[at : at + QUESTIONS] for at in range(0, len(questions), QUESTIONS)]
    tokens = -(-max(sum(len(c) + sum(map(len, answers)) for c, answers in part) for part in parts) // 256) * 256
    outputs = max(sum(1 + sum(len(a) - 1 for a in answers) for _c, answers in part) for part in parts)
    sequences = max(sum(len(answers) for _c, answers in part) for part in parts)
    context = Context(model, sequences, tokens, outputs, args.threads, True)
    found = []

    def one_part(part):
        entries, wanted = [], []
        sequence = places = 0
        for words, answers in part:
            own = list(range(sequence, sequence + len(answers)))
            entries += [(t, at, own, at + 1 == len(words)) for at, t in enumerate(words)]
            first, places = places, places + 1
            for k, answer in zip(own, answers, strict=True):
                entries += [(t, len(words) + at, [k], True) for at, t in enumerate(answer[:-1])]
                wanted += zip([first, *range(places, places + len(answer) - 1)], answer, strict=True)
                places += len(answer) - 1
            sequence += len(answers)
        context.clear()
        scores = context.feed(entries)
        logs = log_softmax(scores[[at for at, _t in wanted]], [t for _at, t in wanted])
        return float(logs.sum()), len(wanted)

    def run():
        found[:] = [one_part(part) for part in parts]

    times = measured(run, args.rounds)
    return times, -sum(s for s, _n in found) / sum(n for _s, n in found)


def measured(work, rounds):
    """Seconds of each round after one that warms up, and the peak of memory so far."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds, peak_mib()


def main():
    """One workload in one type of numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=sorted(name for name, plan in WORKLOADS.items() if plan["kind"] != "train"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", choices=("bf16", "f16", "q8_0"), default="bf16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    file = args.folder / f"merged-{args.numbers}.gguf"
    if not file.exists():
        # A process of its own, so that its memory does not count.
        subprocess.run([sys.executable, Path(__file__).with_name("gguf_model.py"), args.folder, args.numbers, file], check=True)
    llama.llama_log_set(QUIET, None)
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(str(file).encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"{file}: llama.cpp did not load it")
    plan, data = WORKLOADS[args.workload], json.loads((args.folder / f"{args.workload}.json").read_text())
    if plan["kind"] == "score":
        (seconds, peak), loss = score(model, data["questions"], plan, args)
    else:
        (seconds, peak), loss = generate(model, data["input_ids"], plan, args)
    print(json.dumps({"seconds": statistics.median(seconds), "rounds": seconds, "loss": loss, "peak_mib": peak}))


if __name__ == "__main__":
    main()
