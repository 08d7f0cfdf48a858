"""The benchmark's llama with its LoRA merged, as a GGUF file: gguf_model.py FOLDER bf16|f16|q8_0 FILE."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize
from safetensors import safe_open

TYPES = {"bf16": gguf.GGMLQuantizationType.BF16, "f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"bf16": gguf.LlamaFileType.MOSTLY_BF16, "f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def tensors(file):
    """All tensors of a safetensors file."""
    with safe_open(file, "np") as opened:
        return {name: opened.get_tensor(name).astype(np.float32) for name in opened.keys()}


def merged(folder):
    """The base with the adapter's products added."""
    base = tensors(folder / "model/model.safetensors")
    lora = tensors(folder / "adapter/adapter_model.safetensors")
    options = json.loads((folder / "adapter/adapter_config.json").read_text())
    for name in lora:
        if name.endswith(".lora_A.weight"):
            place = name.removesuffix(".lora_A.weight")
            product = lora[f"{place}.lora_B.weight"] @ lora[name]
            base[place.removeprefix("base_model.model.") + ".weight"] += options["lora_alpha"] / options["r"] * product
    return base


def pairs_interleaved(weight, heads):
    """llama.cpp turns neighbouring channels of a head together, transformers those half a head apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def name_of(name):
    """llama.cpp's name of a tensor."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _model, _layers, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def main():
    """Write one file."""
    folder, kind, file = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    config = json.loads((folder / "model/config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    part = file.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_tokenizer_model("no_vocab")
    for name, value in merged(folder).items():
        if name == "lm_head.weight":
            continue  # Tied: the same as the embedding.
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            value = pairs_interleaved(value, heads if "q_proj" in name else kv_heads)
        if value.ndim == 1:
            writer.add_tensor(name_of(name), value)
        else:
            writer.add_tensor(name_of(name), quantize(value, TYPES[kind]), raw_dtype=TYPES[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(file)


if __name__ == "__main__":
    main()
