"""A checkpoint with harmony's own vocabulary, as vLLM's server renders gpt-oss; made by hand, since
training one takes minutes.

Each token leads to the next by its own direction in the hidden state, and one layer, which attends
to everything alike, adds what has been said: whether the thought is over, and two sums over the
content's tokens. So the model writes a thought, then one of the labels SP0, SP2 and SP4, which the
first sum decides; where the second is high it leaves the label unfinished. Asked for JSON, it
writes that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from moderay.engines import checkpoint
from moderay.engines.harmony.vocabulary import HarmonyVocabulary

SIZE = 201_088
# From here on there are only control tokens.
ORDINARY = 199_998
THOUGHT = " I read all of it. Therefore"
OVER = " Therefore"
LEADS = [
    *[
        ("assistant", "<|channel|>", 10),
        ("<|channel|>", "analysis", 11),
        ("<|channel|>", "final", 10),
        ("analysis", "<|message|>", 10),
    ],
    *[
        ("final", "<|message|>", 10),
        ("final", " json", 9),
        (" json", "<|message|>", 10),
        ("<|message|>", " I", 11),
        ("<|message|>", "SP", 10),
    ],
    *[
        ("<|message|>", '{"', 9),
        (" I", " read", 10),
        (" read", " all", 10),
        (" all", " of", 10),
        (" of", " it", 10),
        (" it", ".", 10),
        (".", OVER, 10),
    ],
    *[
        (OVER, "<|end|>", 10),
        ("<|end|>", "<|start|>", 10),
        ("<|start|>", "assistant", 10),
        ("SP", "0", 10),
        ("SP", "2", 10.5),
        ("SP", "4", 10),
    ],
    *[
        ("SP", "<|return|>", 8),
        *[
            (digit, end, weight)
            for digit in "024"
            for end, weight in (("<|return|>", 10), ('"}', 9))
        ],
        ('"}', "<|return|>", 10),
    ],
    *[('{"', "label", 10), ("label", '":', 10), ('":', ' "', 10), (' "', "SP", 10)],
]
# Where in the hidden state stands what has been said, and what it weighs for whom: the thought is
# over, the two sums.
SEEN = (120, 121, 122)
WEIGHS = [
    (120, "final", 1),
    (120, "SP", 1),
    (120, '{"', 1),
    (121, "4", 1),
    (121, "0", -1),
    (122, "<|return|>", 1),
]
# Of what the layer adds, for each: spread over the prompt's length.
STRENGTH = (1500.0, 600.0, 900.0)


def make(folder: Path, known: Iterable[int]) -> Path:
    """Write the checkpoint; about 100 MB. `known`: tokens that every prompt has, which say nothing
    of a content.
    """
    folder.mkdir()
    config = json.loads((checkpoint.TINY_FOLDER / "config.json").read_text())
    vocab = HarmonyVocabulary()
    config |= {
        "vocab_size": SIZE,
        "eos_token_id": vocab.control["<|return|>"],
        "pad_token_id": vocab.control["<|end|>"],
    }
    config |= {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {
        name: weight.shape
        for name, weight in load_file(checkpoint.TINY_FOLDER / "model.safetensors").items()
    }
    weights = {
        name: torch.zeros(shape)
        for name, shape in shapes.items()
        if not any(f"layers.{layer}." in name for layer in (2, 3))
    }
    weights |= {name: torch.ones_like(weight) for name, weight in weights.items() if "norm" in name}
    weights |= {
        name: torch.full_like(weight, -30.0) for name, weight in weights.items() if "sinks" in name
    }
    weights |= _rows(vocab, known)
    layer = "model.layers.1.self_attn"
    for at, (direction, strength) in enumerate(
        zip((_direction(OVER), 100, 101), STRENGTH, strict=True)
    ):
        weights[f"{layer}.v_proj.weight"][at, direction] = strength / 11.3
        weights[f"{layer}.o_proj.weight"][SEEN[at], at] = 1.0
    save_file(
        {name: weight.to(torch.bfloat16) for name, weight in weights.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    _tokenizer(folder)
    return folder


def _direction(spelled: str) -> int:
    """The direction of a token that leads somewhere."""
    return list(dict.fromkeys(name for pair in LEADS for name in pair[:2])).index(spelled)


def _rows(vocab: HarmonyVocabulary, known: Iterable[int]) -> dict[str, torch.Tensor]:
    inputs, outputs = torch.zeros(SIZE, 128), torch.zeros(SIZE, 128)
    inputs[:, 99] = 1.0
    inputs[:, 100:102] = torch.randn(SIZE, 2, generator=torch.Generator().manual_seed(1)) / 2
    inputs[list(known), 100:102] = 0
    for spelled in {name for pair in LEADS for name in pair[:2]}:
        inputs[_token(vocab, spelled)] = torch.eye(128)[_direction(spelled)]
    for before, after, weight in LEADS:
        outputs[_token(vocab, after), _direction(before)] = weight
    for seen, spelled, weight in WEIGHS:
        outputs[_token(vocab, spelled), seen] = weight
    return {"model.embed_tokens.weight": inputs, "lm_head.weight": outputs}


def _token(vocab: HarmonyVocabulary, spelled: str) -> int:
    [token] = [vocab.control[spelled]] if spelled in vocab.control else vocab.encode(spelled)
    return token


def _tokenizer(folder: Path) -> None:
    """For the server's grammars, which spell tokens; it encodes nothing with it, so that there are
    no merges.
    """
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    spelled = [
        encoding.decode([token], errors="surrogateescape").encode("utf-8", "surrogateescape")
        for token in range(SIZE)
    ]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + number) for number, byte in enumerate(others)
    }
    vocab = {
        "".join(letters[byte] for byte in text): token
        for token, text in enumerate(spelled[:ORDINARY])
    }
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    bpe.add_special_tokens(
        [AddedToken(text.decode(), special=True, normalized=False) for text in spelled[ORDINARY:]]
    )
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|return|>",
                "pad_token": "<|end|>",
            }
        )
    )
