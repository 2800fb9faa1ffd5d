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


def sink_attention(  # noqa: PLR0913, PLR0917  called by transformers
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """gpt-oss attention through torch's fused kernel, which keeps no matrix of weights.

    A step takes two thirds of the time. Its sink, a logit per head that takes weight and gives
    nothing, is one more key here: it alone has a part in a dimension of its own, where every query
    is 1, and its value is 0.

    Args:
        module: The layer, with `sinks` (heads,).
        query: (batch, heads, queries, size).
        key: (batch, KV heads, keys, size).
        value: Like `key`.
        attention_mask: (batch, 1, queries, keys), added to the logits.
        scaling: Factor of the logits.

    Returns:
        (batch, queries, heads, size), and no weights.
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
    """Batches without end.

    Each is one policy, and several contents with the completion a safeguard would give each.
    """

    def __init__(self, targets: Sequence[Target], vocab: CheckpointVocabulary, seed: int) -> None:
        """The same seed gives the same batches."""
        self._targets = targets
        self._vocab = vocab
        self._rng = random.Random(seed)

    def batch(self, size: int, shipped: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next one.

        Args:
            size: Contents.
            shipped: How likely the policy is one of the targets rather than a variant, which is
                shorter on average.

        Returns:
            Prefix ids (1, p); what follows it, padded on the right, (size, n); its labels (size,
            n), the completion's only.
        """
        rng, vocab = self._rng, self._vocab
        effort: Effort = rng.choices(("low", "medium", "high"), (0.8, 0.1, 0.1))[0]
        target = (
            rng.choice(self._targets) if rng.random() < shipped else variant(rng, self._targets)
        )
        form = prompt(target.policy, effort, vocab)
        pairs = [self._pair(target, form.suffix) for _ in range(size)]
        length = max(len(content) + len(completion) for content, completion in pairs)
        ids = torch.zeros(size, length, dtype=torch.long)
        labels = torch.full((size, length), IGNORED)
        for row, (content, completion) in enumerate(pairs):
            end = len(content) + len(completion)
            ids[row, :end] = torch.tensor(content + completion)
            labels[row, len(content) : end] = torch.tensor(completion)
        return torch.tensor([form.prefix]), ids, labels

    def _pair(self, target: Target, suffix: Sequence[int]) -> tuple[list[int], list[int]]:
        content = example(self._rng, TRAINING)
        # Half of what a policy sees is about its topic.
        while content.topic != target.topic and self._rng.random() < 0.5:
            content = example(self._rng, TRAINING)
        ids = [*self._vocab.encode(noisy(self._rng, content.text)), *suffix]
        return ids, self._completion(*answer(self._rng, target, content))

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
    """Cross-entropy of the completions.

    The prefix is run once for the batch, as an engine's prefix cache does. Shapes as
    `Lessons.batch` has them.
    """
    cache = DynamicCache(config=model.config)
    model.model(prefix, past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids))
    logits = model(ids, past_key_values=cache, use_cache=True).logits
    return cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def train(out: Path, steps: int, seed: int, size: int = 24, peak: float = 5e-3) -> list[float]:
    """Trains from nothing and saves.

    Args:
        out: Folder of the checkpoint.
        steps: Batches.
        seed: Of weights and lessons.
        size: Contents of a batch.
        peak: Highest learning rate.

    Returns:
        The loss of every step.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    # Else sums over threads differ in their last bits from run to run.
    torch.use_deterministic_algorithms(True)
    targets = shipped(POLICIES)
    vocab = train_vocabulary(targets, out, seed)
    model = build_model(vocab)
    lessons = Lessons(targets, vocab, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    losses: list[float] = []
    began = time.monotonic()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(peak, step, steps)
        optimizer.zero_grad()
        loss = loss_of(model, *lessons.batch(size, shipped=0.9 * step / steps))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 25 == 0 or step == steps - 1:
            mean = sum(losses[-50:]) / len(losses[-50:])
            seconds = time.monotonic() - began
            print(f"step {step:5d}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "generation_config.json").unlink()  # says nothing that config.json does not
    return losses


def _learning_rate(peak: float, step: int, steps: int) -> float:
    """50 steps up to `peak`, then half a cosine down to 2% of it."""
    warm = min(1.0, (step + 1) / 50)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.out, options.steps, options.seed)


if __name__ == "__main__":
    main()
