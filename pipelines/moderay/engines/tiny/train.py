"""Train `tiny`: `python -m moderay.engines.tiny.train --out DIR`. Seeded; 13 minutes on 2 cores.

It learns the completion only (the prompt is given), on prompts made by the same renderer that the
pipeline uses.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy, pad, scaled_dot_product_attention
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    GptOssConfig,
    GptOssForCausalLM,
)
from transformers.masking_utils import eager_mask

from moderay.config.job import Effort
from moderay.engines.harmony.prompt import SYSTEM, instructions, prompt
from moderay.engines.harmony.vocabulary import (
    CHANNEL,
    CONTROL_TOKENS,
    END,
    MESSAGE,
    RETURN,
    START,
    CheckpointVocabulary,
)
from moderay.engines.tiny.corpus import TRAINING, Target, answer, example, noisy, shipped, variant

VOCABULARY = 1024
POLICIES = Path(__file__).parents[4] / "policies"
IGNORED = -100
SINK_ATTENTION = "sink"


def sink_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """gpt-oss attention through torch's fused kernel, which keeps no matrix of weights (a step
    takes two thirds of the time). Its sink, a logit per head that takes weight and gives nothing,
    is one more key here: it alone has a part in a dimension of its own, where every query is 1, and
    its value is 0.
    """
    batch, heads, _queries, size = query.shape
    sinks: torch.Tensor = module.sinks
    sink = pad(sinks.view(1, heads, 1, 1) / scaling, (size, 0)).expand(batch, -1, -1, -1)
    groups = heads // key.shape[1]
    keys = torch.cat([pad(key, (0, 1)).repeat_interleave(groups, 1), sink], 2)
    values = pad(value, (0, 1, 0, 1)).repeat_interleave(groups, 1)
    out = scaled_dot_product_attention(
        pad(query, (0, 1), value=1.0),
        keys,
        values,
        attn_mask=pad(attention_mask, (0, 1)),
        scale=scaling,
    )
    return out[..., :size].transpose(1, 2).contiguous(), None


AttentionInterface.register(SINK_ATTENTION, sink_attention)
AttentionMaskInterface.register(SINK_ATTENTION, eager_mask)


def train_vocabulary(targets: Sequence[Target], out: Path, seed: int) -> CheckpointVocabulary:
    """A byte-level BPE for the training text; control tokens get the ids above it."""
    rng = random.Random(seed)
    text = [
        SYSTEM.format(effort="low"),
        "system",
        "developer",
        "user",
        "assistant",
        "analysis",
        "final",
    ]
    for target in [*targets, *[variant(rng, targets) for _ in range(100)]]:
        text += [instructions(target.policy)] * (40 if target in targets else 1)
        for _ in range(20):
            content = example(rng, TRAINING)
            text += [noisy(rng, content.text), *answer(rng, target, content)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    size = VOCABULARY - len(CONTROL_TOKENS)
    bpe.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.save(str(out / "vocabulary.json"))
    control = {token: size + i for i, token in enumerate(CONTROL_TOKENS)}
    (out / "control_tokens.json").write_text(json.dumps(control, indent=1) + "\n", encoding="utf-8")
    return CheckpointVocabulary(str(out))


def build_model(vocab: CheckpointVocabulary) -> GptOssForCausalLM:
    """gpt-oss in small: attention sinks, a sliding window on every other layer, experts."""
    control = vocab.control
    return GptOssForCausalLM(
        GptOssConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=128,
            num_hidden_layers=4,
            num_local_experts=4,
            num_experts_per_tok=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            sliding_window=128,
            max_position_embeddings=131072,
            # At this width 0.02, the default, takes half as many steps again.
            initializer_range=0.06,
            tie_word_embeddings=False,
            eos_token_id=control[RETURN],
            pad_token_id=control[END],
            attn_implementation=SINK_ATTENTION,
            architectures=["GptOssForCausalLM"],
        )
    )


class Lessons:
    """Batches without end: one policy, and several contents with the completion a safeguard would
    give each.
    """

    def __init__(self, targets: Sequence[Target], vocab: CheckpointVocabulary, seed: int) -> None:
        self._targets, self._vocab, self._rng = targets, vocab, random.Random(seed)

    def batch(self, size: int, shipped: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Prefix ids (1, p); what follows it, padded on the right, (size, n); its labels, the
        completion's only. `shipped`: how likely the policy is one of those given rather than a
        variant, which is shorter on average.
        """
        rng, vocab = self._rng, self._vocab
        effort: Effort = rng.choices(("low", "medium", "high"), (0.8, 0.1, 0.1))[0]
        target = (
            rng.choice(self._targets) if rng.random() < shipped else variant(rng, self._targets)
        )
        form = prompt(target.policy, effort, vocab)
        pairs = [self._pair(target, form.suffix) for _ in range(size)]
        length = max(len(asked) + len(said) for asked, said in pairs)
        ids = torch.zeros(size, length, dtype=torch.long)
        labels = torch.full((size, length), IGNORED)
        for row, (asked, said) in enumerate(pairs):
            ids[row, : len(asked) + len(said)] = torch.tensor(asked + said)
            labels[row, len(asked) : len(asked) + len(said)] = torch.tensor(said)
        return torch.tensor([form.prefix]), ids, labels

    def _pair(self, target: Target, suffix: Sequence[int]) -> tuple[list[int], list[int]]:
        content = example(self._rng, TRAINING)
        while (
            content.topic != target.topic and self._rng.random() < 0.5
        ):  # half of what a policy sees is about its topic
            content = example(self._rng, TRAINING)
        asked = [*self._vocab.encode(noisy(self._rng, content.text)), *suffix]
        return asked, self._completion(*answer(self._rng, target, content))

    def _completion(self, thought: str, final: str) -> list[int]:
        control, encode = self._vocab.control, self._vocab.encode
        analysis = [
            control[CHANNEL],
            *encode("analysis"),
            control[MESSAGE],
            *encode(thought),
            control[END],
        ]
        header = [
            control[START],
            *encode("assistant"),
            control[CHANNEL],
            *encode("final"),
            control[MESSAGE],
        ]
        return [*analysis, *header, *encode(final), control[RETURN]]


def loss_of(
    model: GptOssForCausalLM, prefix: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the completions. The prefix is run once for the batch, as an engine's prefix
    cache does.
    """
    cache = DynamicCache(config=model.config)
    model.model(prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids))
    logits = model(ids, past_key_values=cache, use_cache=True).logits
    return cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def train(out: Path, steps: int, seed: int, size: int = 24, peak: float = 5e-3) -> list[float]:
    """Train from nothing and save to `out`; the loss of every step."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(
        True
    )  # else sums over threads differ in their last bits from run to run
    targets = shipped(POLICIES)
    vocab = train_vocabulary(targets, out, seed)
    model, lessons = build_model(vocab), Lessons(targets, vocab, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    began = time.monotonic()
    model.train()
    for step in range(steps):
        warm = min(1.0, (step + 1) / 50)
        for group in optimizer.param_groups:
            group["lr"] = peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        optimizer.zero_grad()
        loss = loss_of(model, *lessons.batch(size, shipped=0.9 * step / steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 25 == 0 or step == steps - 1:
            print(
                (
                    f"step {step:5d}  loss {sum(losses[-50:]) / len(losses[-50:]):.4f}  "
                    f"{time.monotonic() - began:.0f} s"
                ),
                flush=True,
            )
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink()  # says nothing that config.json does not
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.out, given.steps, given.seed)


if __name__ == "__main__":
    main()
