"""What lm-evaluation-harness itself gives on rows handed to it as JSON: likelihoods of choices and metrics.

    python harness.py ../../crates/train/tests/data/harness

Writes rows in the Hub's layouts (made of words drawn from a seed, so they may be passed on), a tokenizer of 71
tokens, and `expected.json`. Needs lm_eval (0.4.13) beside requirements.txt. The model is tests/data/models/llama-gqa
with more positions, so that no context is cut.
"""
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

# pandas looks for a package `bottleneck`, and must not find the file beside this one.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

MODEL = Path(__file__).resolve().parents[1] / "data/models/llama-gqa"
POSITIONS = 1024
ROWS = 6
WORDS = ("the a red blue old river bridge town harbour sings builds paints lends map bread lamp song slowly over "
         "under because and then who what it is was has seven two Mira Oto").split()
MERGES = [("h", "e"), ("\u0120", "t"), ("\u0120t", "he"), ("\u0120", "a"), ("i", "n"), ("e", "r"), ("\u0120", "s"),
          ("o", "w")]


def tokenizer(folder):
    """71 tokens: letters and marks of byte-level text, a few merges; whatever else is unknown."""
    single = list("abcdefghijklmnopqrstuvwxyz" "ABCDEFGHILMNOQSTWY" "12357" ".,?:()_" "\u0120\u010a")
    tokens = ["[PAD]", "[UNK]", "</s>", "<s>"] + single + [a + b for a, b in MERGES]
    tokens += [f"<{i}>" for i in range(71 - len(tokens))]
    assert len(tokens) == 71, len(tokens)
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=MERGES, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return PreTrainedTokenizerFast(tokenizer_object=made, **config)


class Rows:
    """Sentences of drawn words, in each task's columns."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def words(self, low, high):
        return " ".join(self.draw.choice(WORDS) for _ in range(self.draw.randint(low, high)))

    def text(self, low=3, high=9):
        return self.words(low, high).capitalize() + self.draw.choice([".", "?", ""])

    def below(self, n):
        return self.draw.randrange(n)

    def many(self, make):
        return [make() for _ in range(ROWS)]

    def lettered(self, count):
        labels = list("ABCDE")[:count]
        return {"text": [self.words(1, 5) for _ in labels], "label": labels}, labels[self.below(count)]

    def science(self, key, count):
        def row():
            choices, answer = self.lettered(count())
            return {"id": "x", key: self.text(), "choices": choices, "answerKey": answer}
        return self.many(row)

    def glue(self, *columns, classes=2):
        return self.many(lambda: {**{c: self.text() for c in columns}, "label": self.below(classes)})

    def hellaswag(self):
        def row():
            marked = self.below(2)
            a = f"[header] {self.text()} [title] {self.text()} [step] {self.text()}" if marked else self.text()
            b = "" if marked else "the " + self.words(1, 3)
            ends = [self.words(2, 6) + self.draw.choice([".", " [title] Then. [step] Go."]) for _ in range(4)]
            return {"activity_label": self.words(1, 2), "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}".strip(),
                    "endings": ends, "label": str(self.below(4))}
        return self.many(row)

    def aqua(self):
        def row():
            question, options = self.text(), [f"{letter}){self.words(1, 3)}" for letter in "ABCDE"]
            gold = self.below(5)
            choices = [f"({o[0]}){o[2:]}" for o in options]
            query = f"Q: {question} Answer Choices: {' '.join(choices)}\nA: Among A through E, the answer is"
            return {"question": question, "options": options, "correct": "ABCDE"[gold],
                    "query": query, "choices": choices, "gold": [gold]}
        return self.many(row)

    def boolq(self):
        def row():
            label = self.below(2)
            return {"question": self.words(3, 6), "passage": self.text(8, 20), "answer": bool(label), "label": label}
        return self.many(row)

    def winogrande(self):
        return self.many(lambda: {"sentence": f"{self.text()} _ {self.words(2, 5)}.", "option1": self.words(1, 2),
                                  "option2": self.words(1, 3), "answer": str(1 + self.below(2))})

    def siqa(self):
        return self.many(lambda: {"context": self.text(), "question": self.words(2, 4) + "?",
                                  **{f"answer{x}": self.words(1, 4) for x in "ABC"}, "label": str(1 + self.below(3))})


def tasks():
    """(our name, the harness's name, path of the rows, the rows)."""
    r = Rows(11)
    return [
        ("aqua", "agieval_aqua_rat", "aqua/test.jsonl", r.aqua()),
        ("arc-challenge", "arc_challenge", "ai2_arc/ARC-Challenge/test.jsonl", r.science("question", lambda: 3 + r.below(3))),
        ("arc-easy", "arc_easy", "ai2_arc/ARC-Easy/test.jsonl", r.science("question", lambda: 4)),
        ("boolq", "boolq", "google-boolq/validation.jsonl", r.boolq()),
        ("cola", "cola", "glue/cola/validation.jsonl", r.glue("sentence")),
        ("hellaswag", "hellaswag", "hellaswag/validation.jsonl", r.hellaswag()),
        ("mnli", "mnli", "glue/mnli/validation_matched.jsonl", r.glue("premise", "hypothesis", classes=3)),
        ("mnli-mismatched", "mnli_mismatch", "glue/mnli/validation_mismatched.jsonl", r.glue("premise", "hypothesis", classes=3)),
        ("mrpc", "mrpc", "glue/mrpc/validation.jsonl", r.glue("sentence1", "sentence2")),
        ("openbookqa", "openbookqa", "openbookqa/test.jsonl", r.science("question_stem", lambda: 4)),
        ("piqa", "piqa", "piqa/validation.jsonl", r.many(lambda: {"goal": r.text(), "sol1": r.words(2, 6), "sol2": r.words(2, 6), "label": r.below(2)})),
        ("qnli", "qnli", "glue/qnli/validation.jsonl", r.glue("question", "sentence")),
        ("qqp", "qqp", "glue/qqp/validation.jsonl", r.glue("question1", "question2")),
        ("rte", "rte", "glue/rte/validation.jsonl", r.glue("sentence1", "sentence2")),
        ("siqa", "social_iqa", "siqa/validation.jsonl", r.siqa()),
        ("sst2", "sst2", "glue/sst2/validation.jsonl", r.glue("sentence")),
        ("winogrande", "winogrande", "winogrande/validation.jsonl", r.winogrande()),
    ]


def evaluate(lm, name, path):
    """The harness's numbers on the rows at `path`, and each row's likelihoods."""
    files = {split: str(path) for split in ("train", "validation", "validation_matched", "validation_mismatched", "test")}
    manager = TaskManager()
    # Every split reads the same file, so the rows are those of the split that the harness tests on.
    changes = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    task = manager._factory.build(manager._entry(name), overrides=changes, registry=manager._index)
    out = simple_evaluate(model=lm, tasks=[task], bootstrap_iters=0, log_samples=True)
    numbers = {k.split(",")[0]: v for k, v in out["results"][name].items()
               if k.endswith(",none") and "stderr" not in k}
    samples = sorted(out["samples"][name], key=lambda s: s["doc_id"])
    arguments = [[list(pair) for pair in s["arguments"]] for s in samples]
    return numbers, [[r[0][0] for r in s["resps"]] for s in samples], arguments


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    words = tokenizer(out)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(MODEL, folder, dirs_exist_ok=True)
        config = json.loads((MODEL / "config.json").read_text())
        config["max_position_embeddings"] = POSITIONS
        (Path(folder) / "config.json").write_text(json.dumps(config))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = HFLM(pretrained=model, tokenizer=words, batch_size=4, max_length=POSITIONS, device="cpu")
    expected = {}
    for ours, theirs, path, rows in tasks():
        target = out / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))
        metrics, likelihoods, arguments = evaluate(lm, theirs, target)
        expected[ours] = {"metrics": metrics, "likelihoods": likelihoods, "arguments": arguments}
        print(ours, metrics, file=sys.stderr)
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items())
    (out / "expected.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
