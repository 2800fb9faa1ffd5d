"""A checkpoint with harmony's own vocabulary, as vLLM's server renders gpt-oss: the embedded tiny model behind 201,088 tokens.

A token of harmony is embedded as the mean of the tokens into which the tiny model's own vocabulary cuts it, and the tokens of both are the
same outputs where they are spelled the same. So it answers much as tiny does: well-formed, and of labels that differ by content.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from openai_harmony import HarmonyEncodingName, load_harmony_encoding
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import embedding_bag

from moderay import tiny
from moderay.prompt import CheckpointVocabulary, HarmonyVocabulary

SIZE = 201_088
# From here on there are only control tokens.
ORDINARY = 199_998


def make(folder: Path) -> Path:
    """Write the checkpoint; about 100 MB."""
    folder.mkdir()
    spelled = _spelled()
    weights = load_file(tiny.FOLDER / "model.safetensors")
    weights |= _rows(spelled, weights["model.embed_tokens.weight"], weights["lm_head.weight"])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tiny.FOLDER / "config.json").read_text())
    control = HarmonyVocabulary().control
    config |= {"vocab_size": SIZE, "eos_token_id": control["<|return|>"], "pad_token_id": control["<|end|>"]}
    (folder / "config.json").write_text(json.dumps(config))
    _tokenizer(spelled, folder)
    return folder


def _spelled() -> list[bytes]:
    """Every token's bytes."""
    encoding = load_harmony_encoding(HarmonyEncodingName.HARMONY_GPT_OSS)
    return [encoding.decode([token], errors="surrogateescape").encode("utf-8", "surrogateescape") for token in range(SIZE)]


def _rows(spelled: list[bytes], embedded: torch.Tensor, head: torch.Tensor) -> dict[str, torch.Tensor]:
    pieces = _pieces(spelled)
    starts = torch.tensor([0, *map(len, pieces)]).cumsum(0)[:-1]
    inputs = embedding_bag(torch.tensor([piece for some in pieces for piece in some]), embedded.float(), starts, mode="mean")
    outputs = torch.zeros(SIZE, head.shape[1], dtype=head.dtype)
    same = [token for token, some in enumerate(pieces) if len(some) == 1]
    outputs[same] = head[[pieces[token][0] for token in same]]
    return {"model.embed_tokens.weight": inputs.to(embedded.dtype), "lm_head.weight": outputs}


def _pieces(spelled: list[bytes]) -> list[list[int]]:
    """Every token in tiny's; none for what tiny has no letters or no control token for."""
    own = CheckpointVocabulary(tiny.FOLDER)
    texts = [text.decode("utf-8", "ignore") for text in spelled]
    return [own.encode(text) for text in texts[:ORDINARY]] + [[own.control[text]] if text in own.control else [] for text in texts[ORDINARY:]]


def _tokenizer(spelled: list[bytes], folder: Path) -> None:
    """For the server's grammars, which spell tokens; it encodes nothing with it, so that there are no merges."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}
    vocab = {"".join(letters[byte] for byte in text): token for token, text in enumerate(spelled[:ORDINARY])}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken(text.decode(), special=True, normalized=False) for text in spelled[ORDINARY:]])
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|return|>", "pad_token": "<|end|>"}))
