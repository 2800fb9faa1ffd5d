"""What is judged in the benchmarks of speed: one base case, of which one thing at a time is varied.

The demo's texts, each with a number of its own so that no two are alike, under policies that `tiny`
was trained to follow: at temperature 0 nearly every answer can be parsed, unlike those on real
tweets.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.project import ROOT

from moderay.config.job import Job
from moderay.engines.checkpoint import TINY, TINY_FOLDER
from moderay.engines.harmony.vocabulary import Vocabulary, vocabulary
from moderay.engines.tiny.corpus import DEMO, Example, example

BUDGET = 512
# Requests in an engine's batch at most, as moderay has it on a CPU.
SEQS = 256
POLICIES = ("spam", "harassment", "private_data")


def _layers(count: int) -> dict[str, Any]:
    """As every gpt-oss has them: every second one looks back over a window only."""
    kinds = ["sliding_attention", "full_attention"]
    return {"num_hidden_layers": count, "layer_types": [kinds[n % 2] for n in range(count)]}


# What a model of harmony's vocabulary has beside its shapes.
HARMONY = {"vocab_size": 201_088, "eos_token_id": 200_002, "pad_token_id": 199_999}
# Models of random weights, by name. 20b has the shapes of gpt-oss-20b: those that transformers'
# GptOssConfig has by default, with 24 layers and 32 experts.
MODELS: dict[str, dict[str, Any]] = {
    # 100 million parameters, nearly all of them in experts, with tiny's vocabulary.
    "100m": {
        **_layers(8),
        "hidden_size": 512,
        "intermediate_size": 512,
        "num_local_experts": 16,
        "num_experts_per_tok": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
    },
    "20b": {
        **_layers(24),
        **HARMONY,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
        },
    },
    # For the rehearsal of what is measured with 20b, on a CPU.
    "small": {
        **_layers(2),
        **HARMONY,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
}


@dataclass(frozen=True)
class Workload:
    """The base case, and by `replace` every other.

    Attributes:
        rows: Contents, no two alike.
        policies: Each judges every content.
        policy_tokens: Of each policy's text at least; the shipped ones have some 680 of tiny's
            tokens, which are 480 of harmony's.
        first: Which of `POLICIES` is the first one.
        content_tokens: Of each content, about.
        violating: Share of the contents that violate the first policy.
        model: `tiny`, or one of `MODELS`: random weights, whose answers do not parse.
        budget: Tokens of reasoning.
        broken: Share of the rows that cannot be judged: half are null, half longer than any prompt
            may be.
        batch: Requests in the engine's batch at most; None: `SEQS`, and of few rows fewer, without
            which there is no steady state.
    """

    rows: int = 2000
    policies: int = 1
    policy_tokens: int = 650
    first: int = 0
    content_tokens: int = 25
    violating: float = 0.03
    model: str = TINY
    budget: int = BUDGET
    broken: float = 0.0
    batch: int | None = None


def write(folder: Path, load: Workload) -> Path:
    """The corpus, the policies, the model and the job, all in one folder; the job's file."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary(TINY)
    (folder / "in").mkdir()
    pq.write_table(pa.table({"text": list(_contents(load, vocab))}), folder / "in/a.parquet")
    names = [_policy(folder, number, load, vocab) for number in range(load.policies)]
    (folder / "workload.json").write_text(json.dumps(asdict(load)))
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(_job(folder, names, load), sort_keys=False))
    return file


def output(job: Path, name: str, rationale: str) -> Path:
    """The same job into another folder, with rationales for whom it says."""
    data = yaml.safe_load(job.read_text())
    data["output"] |= {"path": name, "rationale": rationale}
    file = job.with_name(f"{name}.yaml")
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    return file


def _job(folder: Path, names: list[str], load: Workload) -> dict[str, Any]:
    # Of few rows there is a steady state only in a small batch, and in small units.
    engine: dict[str, Any] = {"max_num_seqs": load.batch or min(SEQS, max(4, load.rows // 8))}
    model: dict[str, Any] = {"source": TINY, "sampling": {"temperature": 0}, "engine": engine}
    if load.model != TINY:
        source = random_model(folder / "model", load.model)
        model |= {"source": str(source), "engine": {**engine, "load_format": "dummy"}}
    sections: dict[str, Any] = {
        "input": {"path": "in/*.parquet", "content": "text"},
        "output": {"path": "out", "columns": []},
        "policies": names,
        "model": model,
        "cascade": [{"reason": {"budget": load.budget}}],
        "windows": {"tokens": 2 * max(1024, load.content_tokens), "overlap": 128, "max": 1},
        "unit": {"rows": min(64, max(4, load.rows // 64))},
        "limits": {"max_failed": 1},
    }
    Job.model_validate(sections)
    return sections


def random_model(folder: Path, name: str) -> Path:
    """A model's config, for vLLM to fill with random weights when it loads: nothing is fetched.

    Without harmony's vocabulary it has tiny's.
    """
    folder.mkdir(parents=True)
    config = json.loads((TINY_FOLDER / "config.json").read_text()) | MODELS[name]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    # A file of weights must be there, and may be empty: nothing is read from it.
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    if config["vocab_size"] != HARMONY["vocab_size"]:
        for file in ("vocabulary.json", "control_tokens.json"):
            shutil.copy(TINY_FOLDER / file, folder / file)
    return folder


def _contents(load: Workload, vocab: Vocabulary) -> Iterator[str | None]:
    rng = random.Random(0)
    broken = round(load.rows * load.broken)
    places = dict(enumerate(rng.sample(range(load.rows), broken)))
    kinds = {row: place % 2 for place, row in places.items()}
    violating = set(rng.sample(range(load.rows), round(load.rows * load.violating)))
    for row in range(load.rows):
        if row in kinds:
            too_long = " ".join(["a very long text."] * (2 * max(1024, load.content_tokens)))
            yield too_long if kinds[row] else None
        else:
            drawn = _drawn(rng, POLICIES[load.first], row in violating)
            yield _long_enough(rng, f"{row}. {drawn.text}", load.content_tokens, vocab)


def _drawn(rng: random.Random, policy: str, violates: bool) -> Example:
    while True:
        drawn = example(rng, DEMO, ambiguous=False)
        if (drawn.odds(policy) >= 0.5) == violates:
            return drawn


def _long_enough(rng: random.Random, text: str, tokens: int, vocab: Vocabulary) -> str:
    """With harmless sentences behind it, where it is much shorter than it should be."""
    while (missing := tokens - len(vocab.encode(text))) > 20:
        more = " ".join(rng.choices(DEMO.neutral, k=max(1, missing // 20)))
        text = f"{text} {more}"
    return text


def _policy(folder: Path, number: int, load: Workload, vocab: Vocabulary) -> str:
    """A shipped policy with another id and title, and as much more text as is wanted.

    Whole: of a part of it `tiny`'s answers do not parse. The number is in its title, where its text
    begins, so that no two share a prefix.
    """
    name, shipped = f"policy_{number}", POLICIES[(load.first + number) % len(POLICIES)]
    text = (ROOT / "policies" / shipped / "policy.md").read_text()
    _, front, body = text.split("---\n", 2)
    title, rest = body.strip().split("\n", 1)
    body = f"{title} ({number})\n{rest}\n"
    missing, rng = load.policy_tokens - len(vocab.encode(body)), random.Random(number)
    while missing > 0:
        line = f"- Safe: {rng.choice(DEMO.neutral)}.\n"
        body += line
        missing -= len(vocab.encode(line))
    (folder / name).mkdir()
    front = front.replace(f"id: {shipped}\n", f"id: {name}\n")
    (folder / name / "policy.md").write_text(f"---\n{front}---\n{body}")
    return name


def contents(folder: Path) -> list[str | None]:
    """What stands in the corpus, in order."""
    texts: list[str | None] = pq.read_table(folder / "in/a.parquet").column("text").to_pylist()
    return texts
