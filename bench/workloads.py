"""The workloads of the benchmark: what both sides compute, how each may, and what is aimed at.

A row of the table: `kind` (train, score, generate), `model` and `adapter` (keys of MODELS and ADAPTERS), `rows` (a key
of ROWS), `dropout` (on as in training), `ours` and `peers` (numbers, and into how many micro-batches of similar length
the rows are cut, or for scoring how many questions go at a time; the peer is tried in each of its ways), `targets`
(speed at least, memory at most, both as ratios to the peer's fastest way), `llamacpp` (types of the file that llama.cpp
is tried with), `candle` (numbers that candle is tried in), `bits` (of our base, as `sibo quantize` writes it; 16 where it is not said).
"""

import math
import random

LLAMA = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
    # Twice the usual spread: the loss then moves if anything is computed differently.
    "initializer_range": 0.04,
}  # fmt: skip
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "num_labels": 2, "initializer_range": 0.04}
MODELS = {
    "llama": LLAMA,  # SmolLM2-135M's shape
    "bert": BASE | {"model_type": "bert", "vocab_size": 30522},
    "roberta": BASE | {"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5},
}  # fmt: skip
ADAPTERS = {
    "lora-32": {"r": 32, "lora_alpha": 64, "lora_dropout": 0.05, "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]},
    "lora-8": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["query", "value"]},
    "houlsby-64": {"bottleneck_size": 64, "non_linearity": "relu"},
}  # fmt: skip
LAMBDA = 0.2
"""SIBO's share where it is on."""

# Token counts of the first 64 questions of ARC-Easy's test set, asked as lm-evaluation-harness asks, under SmolLM2's
# tokenizer: two digits for the context, two for each of the four choices.
ARC_EASY = """
1912110908 2202020203 3002020202 1601010101 1407090810 2602020403 3002040505 3101010101 1002020202 1912121212 3604050405
2911101213 3801010101 1502020101 1401010101 1701010101 5007090909 4710041204 2402010203 2002030204 3703030303 2001010101
1211171213 3401020202 2901010202 2409090910 2302020302 2601010101 1510090607 0901010301 1403020202 1804030405 3502010101
4414141317 2610090908 2602020302 2708081108 3407080908 1406060608 1509090807 1803020203 3301010101 3101010101 2806080708
2411050807 2806060708 3307060507 5809100916 4603020103 3501020203 2105040405 2903090610 2401010101 3004030303 3203030303
7502020202 2903030303 1809100708 2201010101 2401030101 1404050606 5501010101 3702020202 1101010101
"""


def log_normal(rows, mean, sigma, longest):
    """Row lengths as instructions have them, with this mean before they are cut at the longest."""
    draw = random.Random(20)
    middle = math.log(mean) - sigma**2 / 2
    return [min(longest, max(4, round(draw.lognormvariate(middle, sigma)))) for _ in range(rows)]


def arc_easy():
    """(context, choices) in tokens for each question."""
    numbers = [[int(word[i : i + 2]) for i in range(0, 10, 2)] for word in ARC_EASY.split()]
    return [(first, rest) for first, *rest in numbers]


ROWS = {
    "full": {"lengths": [256] * 4, "labelled": 1.0},
    "instruct": {"lengths": log_normal(16, 120, 0.5, 256), "labelled": 0.3},
    "sentences": {"lengths": log_normal(32, 30, 0.5, 128), "labelled": None},
    "arc-easy": {"questions": arc_easy()},
    "prompt": {"lengths": [100], "labelled": 0.0},
    "prompts": {"lengths": [100] * 16, "labelled": 0.0},
}


NUMBERS = ("f32", "autocast", "bf16")
"""f32, autocast, and a bf16 base (with f32 adapters, PEFT's default; adapter-hub's are bf16 as their base)."""
LORA_NUMBERS = (*NUMBERS, "bf16-adapters")
"""PEFT can keep LoRA's own values in bf16 too (`autocast_adapter_dtype=False`): fewer conversions, coarser updates."""


def ways(*micro_batches, numbers=LORA_NUMBERS):
    """Each of the numbers, with the rows cut into so many micro-batches."""
    return [(kind, parts) for parts in micro_batches for kind in numbers]


def llama(kind, rows, ours, peers, targets, **more):
    """A workload on SmolLM2-135M's shape."""
    return {"kind": kind, "model": "llama", "adapter": "lora-32", "rows": rows, "ours": ours, "peers": peers, "targets": targets} | more


WORKLOADS = {
    "llama-full": llama("train", "full", ("bf16", 2), ways(1), (2.0, 1 / 3), dropout=True, candle=["f32", "bf16"]),
    "llama-full-f32": llama("train", "full", ("f32", 2), [("f32", 1)], (1.5, 0.4), dropout=True, candle=["f32"]),
    "llama-instruct": llama("train", "instruct", ("bf16", 4), ways(4), (3.0, 1 / 3), dropout=True),
    "bert-lora": {"kind": "train", "model": "bert", "adapter": "lora-8", "rows": "sentences", "dropout": True,
                  "ours": ("bf16", 2), "peers": [*ways(4), ("bf16", 1)], "targets": (2.5, 1 / 3)},
    "roberta-adapter": {"kind": "train", "model": "roberta", "adapter": "houlsby-64", "rows": "sentences", "dropout": True,
                        "ours": ("bf16", 3), "peers": [*ways(4, numbers=NUMBERS), ("bf16", 1)], "targets": (2.5, 1 / 3)},
    "score-choices": llama("score", "arc-easy", ("bf16", 8), [("f32", 8), ("bf16", 32)], (4.0, 1 / 3), llamacpp=["bf16", "f16", "q8_0"]),
    "generate-1": llama("generate", "prompt", ("bf16", 1), [("f32", 1), ("bf16", 1)], (3.0, 1 / 3), new=64, beams=1, llamacpp=["bf16", "f16"],
                        candle=["f32", "bf16"]),
    # Our base in 8 bits against PyTorch's in f32 or bf16, and beside llama.cpp's 8 bits.
    "generate-1-8bit": llama("generate", "prompt", ("bf16", 1), [("f32", 1), ("bf16", 1)], (5.0, 1 / 3), new=64, beams=1, bits=8, llamacpp=["q8_0"]),
    "generate-16": llama("generate", "prompts", ("bf16", 1), [("f32", 1), ("bf16", 1)], (3.0, 1 / 3), new=64, beams=1, llamacpp=["bf16", "f16", "q8_0"],
                         candle=["f32"]),
    "generate-beam4": llama("generate", "prompt", ("bf16", 1), [("f32", 1), ("bf16", 1)], (4.0, 1 / 3), new=256, beams=4),
}  # fmt: skip
