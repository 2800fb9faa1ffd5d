"""The fine-tuning recipe from end to end on `tiny`: does it get better at what people taught it?

A policy that `tiny` knows badly: it tells topics apart, and of one topic this policy forbids a part
and allows the rest. CORRECTIONS texts are labelled by `tiny`, reviewed by a rule that stands for a
person, exported by `moderay export sft`, trained on by `infra/fine_tuning/lora.py`, and the merged
model is served by vLLM. Both models judge texts that nobody has reviewed: `moderay eval` beside the
rule, and `moderay diff` of the two. Prompts that were exported are held against `moderay render`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.corpus.content import content_hash
from moderay.engines.checkpoint import TINY_FOLDER
from moderay.engines.tiny.corpus import CUES, TRAINING, example
from moderay.labels.corrections import ReviewedPolicy
from moderay.labels.layout import Layout
from moderay.labels.review_records import Review, review_id, review_time, session_id
from moderay.labels.reviews import ReviewStore

CORRECTIONS, HELD_OUT = 200, 600
# What of the topic spam violates; the rest of it is allowed.
BAIT = ("promises a prize behind a link", "poses as a bank or a platform to get a password")
POLICY = """---
id: bait
title: Bait
labels:
  SP0: {violates: false, title: No bait}
  SP2: {violates: true, title: Bait}
---
# Bait

## INSTRUCTIONS
Decide whether the content baits its reader.

## VIOLATES
- Promises a prize or a refund behind a link.
- Poses as a bank or as support to get a password or a fee.

## SAFE
- Advertises a shop, a discount or a channel.
- Promises profit.
- Quotes or reports any of it.
"""
FIGURES = ("accuracy", "balanced_accuracy", "precision", "recall", "roc_auc")


def texts(seed: int, rows: int) -> list[dict[str, Any]]:
    """Distinct texts, half of which violate; of the others most are of the same topic."""
    random_ = random.Random(seed)
    sides: dict[bool, dict[str, bool]] = {True: {}, False: {}}
    assert {cue.says for cue in CUES["spam"]}.issuperset(BAIT)
    while min(map(len, sides.values())) < rows // 2:
        drawn = example(random_, TRAINING)
        violates = drawn.cue is not None and drawn.cue.says in BAIT and not drawn.quoted
        is_near = drawn.topic == "spam" or random_.random() < 0.3
        if is_near and len(sides[violates]) < rows // 2:
            sides[violates][drawn.text] = violates
    found = [*sides[True].items(), *sides[False].items()]
    random_.shuffle(found)
    return [{"content": text, "is_bait": violates} for text, violates in found]


def write(folder: Path) -> None:
    """The policy, both corpora, and their jobs, which differ in the corpus alone."""
    (folder / "bait").mkdir()
    (folder / "bait/policy.md").write_text(POLICY)
    (folder / "bait/golden.jsonl").write_text("")
    found = texts(3, CORRECTIONS + HELD_OUT)
    for name, rows in (("taught", found[:CORRECTIONS]), ("held_out", found[CORRECTIONS:])):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "texts.parquet")
        job = {
            "input": {"path": name, "content": "content"},
            "output": {"path": f"labels-{name}", "columns": ["is_bait"]},
            "policies": ["bait"],
            "model": {"source": "tiny"},
            "cascade": ["glance"],
            "gold": {"bait": "is_bait"},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))


def review(folder: Path) -> None:
    """Every taught text is answered by the rule."""
    policy, session = load_policy(folder / "bait"), session_id()
    rows = pq.read_table(folder / "taught/texts.parquet").to_pylist()
    reviews = [
        Review(
            id=review_id(),
            session=session,
            reviewer="rule",
            time=review_time(),
            policy="bait",
            policy_hash=ReviewedPolicy.of(policy).hash,
            content_hash=content_hash([row["content"]]),
            shard="texts.parquet",
            row=number,
            label="SP2" if row["is_bait"] else "SP0",
            queue="api",
        )
        for number, row in enumerate(rows)
    ]
    ReviewStore(Layout(str(folder / "labels-taught"))).add_all(session, reviews)


def moderay(folder: Path, *words: str) -> str:
    """A command; what it printed."""
    return run(folder, sys.executable, "-m", "moderay", *words)


def run(folder: Path, *words: str) -> str:
    env = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def differing_prompts(folder: Path) -> Iterator[str]:
    """Exported contents whose ids are not those of `moderay render`."""
    taught = pq.read_table(folder / "taught/texts.parquet").column("content").to_pylist()
    by_hash = {content_hash([text]): text for text in taught}
    rows = pq.read_table(folder / "sft/validation.parquet").to_pylist()
    for row in rows[:10]:
        text = by_hash[row["content_hash"]]
        rendered = moderay(folder, "render", "bait", "--content", text, "--model", "tiny", "--ids")
        if json.loads(rendered) != row["prompt_ids"]:
            yield text


def train(folder: Path, epochs: int) -> float:
    """Seconds that it took."""
    began = time.monotonic()
    options = {"--epochs": epochs, "--learning-rate": 2e-3, "--batch": 8, "--accumulate": 1}
    run(
        folder,
        sys.executable,
        str(ROOT / "infra/fine_tuning/lora.py"),
        *("--model", str(TINY_FOLDER), "--data", "sft", "--out", "tuned"),
        *[str(word) for option in options.items() for word in option],
    )
    return time.monotonic() - began


def figures(folder: Path, model: str) -> dict[str, Any]:
    """What `moderay eval` finds of a model on texts that nobody has reviewed."""
    sets = (f"--set=model.source={model}", f"--set=output.path=labels-{model}")
    found = json.loads(moderay(folder, "eval", "held_out.yaml", *sets, "--json", "--quiet"))
    whole: dict[str, Any] = found["policies"]["bait"]["whole"]["figures"]
    return {name: whole[name] for name in FIGURES if name in whole}


def measured(folder: Path, epochs: int) -> dict[str, Any]:
    """All figures."""
    write(folder)
    moderay(folder, "run", "taught.yaml", "--quiet")
    review(folder)
    moderay(folder, "export", "sft", "labels-taught", "--out", "sft", "--split", "0.8/0.2/0")
    differing = list(differing_prompts(folder))
    seconds = train(folder, epochs)
    models = {model: figures(folder, model) for model in ("tiny", "tuned")}
    diff = json.loads(
        moderay(folder, "diff", "labels-tiny", "labels-tuned", "--gold", "is_bait", "--json")
    )
    return {
        "corrections": CORRECTIONS,
        "held_out": HELD_OUT,
        "prompts_that_differ_from_render": len(differing),
        "training_seconds": round(seconds),
        "models": models,
        "diff_beside_gold": diff["policies"]["bait"]["gold"],
    }


def show(found: dict[str, Any]) -> None:
    """A line for each figure."""
    for name in FIGURES:
        both = [found["models"][model].get(name) for model in ("tiny", "tuned")]
        texts_ = [
            "-" if at is None else f"{at['value']:.3f} ({at['low']:.3f} to {at['high']:.3f})"
            for at in both
        ]
        print(f"{name:20} tiny {texts_[0]:26} tuned {texts_[1]}")
    print(json.dumps(found["diff_beside_gold"], indent=1))
    print(
        f"{found['corrections']} corrections, trained for {found['training_seconds']} s; "
        f"{found['held_out']} texts held out; {found['prompts_that_differ_from_render']} of 10 "
        "prompts differ from render"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, help="a folder that is kept")
    options = parser.parse_args()
    if options.out is not None:
        options.out.mkdir(parents=True)
        show(measured(options.out, options.epochs))
        return
    with tempfile.TemporaryDirectory() as folder:
        show(measured(Path(folder), options.epochs))


if __name__ == "__main__":
    main()
