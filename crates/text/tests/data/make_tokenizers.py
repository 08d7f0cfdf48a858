#!/usr/bin/env python3
"""Make the tiny tokenizers of these tests, and record in expected.json what transformers does with them.

    python3 make_tokenizers.py          (needs transformers; no torch, no network)
"""
import json
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
CORPUS = [
    "What came into force after the new constitution was herald?",
    "As of that day, the new constitution heralding the Second Republic came into force.",
    "A man is playing a guitar. Someone plays the guitar on the stage, and the crowd sings along.",
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "### Instruction:\nAdd 17 and 25.\n\n### Response:\nThe answer is 42.",
    "The café costs 3.50 euros; naïve people pay 4.75. Don't they?",
    "[INST] Who wrote this text? [/INST] Nobody did. <<SYS>>\nBe brief.\n<</SYS>>",
    "user assistant system tool You are a helpful assistant named Tiny.",
]

SMOL = (  # SmolLM2's form: a system turn is put first where there is none
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant named Tiny<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (  # Llama-2's form: BOS and EOS written by the template, system text inside the first turn
    "{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set system = messages[0]['content'] %}"
    "{% else %}{% set turns = messages %}{% set system = false %}{% endif %}"
    "{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system != false %}"
    "{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TOOLS = """{#- blocks on lines of their own, so that trim_blocks and lstrip_blocks matter -#}
{%- macro show(value) -%}
    {{ value | tojson(indent=2) }}
{%- endmacro -%}
{% set ns = namespace(seen=0) %}
{% if tools is not none and tools %}
Tools:
    {% for tool in tools %}
{{ loop.index }}/{{ loop.length }} {{ tool | tojson }} strict={{ tool.strict }} none={{ tool.missing_value }}
    {% endfor %}
{% endif %}
{% for message in messages %}
    {% if message.role == 'skip' %}{% continue %}{% endif %}
    {%- set ns.seen = ns.seen + 1 %}
    {%- if message['role'] == 'assistant' %}
{% generation %}
A: {{ message.content.split('</think>')[-1].lstrip('\\n') | trim }}
{%- if message.tool_calls is defined %} {{ show(message.tool_calls) }}{% endif %}{{ eos_token }}
{% endgeneration %}
    {%- else %}
{{ message['role'] | upper }}: {{ message.content | trim }}{{ '' if loop.last else ' ..' }}
    {%- endif %}

{% endfor %}
{%- if add_generation_prompt %}A({{ ns.seen }}):{% endif %}
"""


def save(name, tok, config, **files):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    tok.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    for file, value in {"tokenizer_config.json": config, **files}.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        (folder / file).write_text(text, encoding="utf-8")


def bert():
    """WordPiece, with the traps of all-MiniLM: truncation and padding switched on in the file."""
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=211, special_tokens=special, show_progress=False))
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tok.decoder = decoders.WordPiece()
    tok.enable_truncation(7)
    tok.enable_padding(length=7, pad_id=0, pad_token="[PAD]")
    vocab = sorted(tok.get_vocab().items(), key=lambda kv: kv[1])
    save("bert", tok, {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
                       "mask_token": "[MASK]", "do_lower_case": True, "model_max_length": 512},
         **{"vocab.txt": "".join(f"{token}\n" for token, _ in vocab)})


def roberta():
    """Byte-level BPE with RoBERTa's pairs: <s> a </s></s> b </s>, one type row."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=307, special_tokens=special, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tok.decoder = decoders.ByteLevel()
    save("roberta", tok, {"model_max_length": 512},
         **{"special_tokens_map.json": {
             "bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>",
             "unk_token": "<unk>", "mask_token": {"content": "<mask>", "lstrip": True, "normalized": False}}})


def llama():
    """SentencePiece-like BPE with byte fallback; the post-processor adds BOS."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.pre_tokenizer = pre_tokenizers.Split(Regex("(?<=[^▁])(?=▁)"), "isolated")
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=389, special_tokens=special, show_progress=False))
    data = json.loads(tok.to_str())
    data["added_tokens"] = data["added_tokens"][:3]  # byte tokens are plain vocabulary
    data["pre_tokenizer"] = None
    tok = Tokenizer.from_str(json.dumps(data))
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    token = lambda text: {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    save("llama", tok, {"bos_token": token("<s>"), "eos_token": token("</s>"), "unk_token": token("<unk>"), "pad_token": None,
                        "add_bos_token": True, "add_eos_token": False, "model_max_length": 1000000000000000019884624838656,
                        "chat_template": LLAMA},
         **{"generation_config.json": {"bos_token_id": 1, "eos_token_id": 2}})


def chatml():
    """Byte-level BPE like SmolLM2's: digits one by one, no post-processor, several templates."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=331, special_tokens=special, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.decoder = decoders.ByteLevel()
    save("chatml", tok, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
                         "pad_token": "<|im_end|>", "model_max_length": 8192, "clean_up_tokenization_spaces": False,
                         "chat_template": [{"name": "default", "template": SMOL}, {"name": "tool_use", "template": TOOLS}]},
         **{"generation_config.json": {"eos_token_id": [2, 0]}})


TEXTS = ["The new constitution came into force.", "Someone plays the café guitar — 42 times 🎸!", "", "a", "  two  spaces\n\ttab",
         "Don't they sing along?", "<s>[INST] brief [/INST]", "日本"]
PAIRS = [("What came into force?", "As of that day, the new constitution heralding the Second Republic came into force."),
         ("A man is playing a guitar and the crowd sings along on the stage.", "Someone plays."), ("same", "same"), ("", "empty first")]
LIMITS = [None, 40, 16, 9, 8, 5]
CHATS = {
    "one": [{"role": "user", "content": " Who wrote <this> & \"that\"? "}],
    "answered": [{"role": "user", "content": "Add 17 and 25."}, {"role": "assistant", "content": "It is 42."}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"},
               {"role": "assistant", "content": "Nobody."}, {"role": "user", "content": "Why, naïve café?"}],
    "broken": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "tools": [{"role": "system", "content": "S"}, {"role": "skip", "content": "never shown"}, {"role": "user", "content": "U\n"},
              {"role": "assistant", "content": "<think>hm</think>\n\nyes", "tool_calls": [{"name": "f", "arguments": {"z": 1.0, "a": "é<"}}]}],
}
TOOL_LIST = [{"name": "f", "strict": True, "missing_value": None, "description": "adds <b> & 'é'", "parameters": {"z": [1, 2.5], "a": {}}}]


def record(name):
    tok = PreTrainedTokenizerFast.from_pretrained(HERE / name)
    case = {"encode": [], "pairs": [], "chats": []}
    for text in TEXTS:
        ids = tok(text)["input_ids"]
        case["encode"].append({
            "text": text, "ids": ids, "bare": tok(text, add_special_tokens=False)["input_ids"],
            "cut5": tok(text, truncation=True, max_length=5)["input_ids"],
            "decoded": tok._tokenizer.decode(ids, skip_special_tokens=True)})
    for first, second in PAIRS:
        for limit in LIMITS:
            cut = {} if limit is None else {"truncation": "longest_first", "max_length": limit}
            out = tok(first, second, return_token_type_ids=True, **cut)
            case["pairs"].append({"first": first, "second": second, "limit": limit,
                                  "ids": out["input_ids"], "types": out["token_type_ids"]})
    templates = tok.chat_template or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    for template in templates:
        for chat, messages in CHATS.items():
            for prompt in (False, True):
                tools = TOOL_LIST if chat == "tools" and template == "tool_use" else None
                args = dict(chat_template=templates[template], tools=tools, add_generation_prompt=prompt)
                try:
                    text = tok.apply_chat_template(messages, tokenize=False, **args)
                    ids = tok.apply_chat_template(messages, tokenize=True, return_dict=False, **args)
                    result = {"text": text, "ids": ids}
                except Exception as error:
                    result = {"error": str(error)}
                case["chats"].append({"template": template, "chat": chat, "messages": messages, "tools": tools,
                                      "add_generation_prompt": prompt, **result})
    return case


if __name__ == "__main__":
    for make in (bert, roberta, llama, chatml):
        make()
    expected = {"versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}}
    expected.update({name: record(name) for name in ("bert", "roberta", "llama", "chatml")})
    (HERE / "expected.json").write_text(json.dumps(expected, indent=None, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
