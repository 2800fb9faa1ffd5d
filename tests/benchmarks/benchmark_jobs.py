"""Are the figures of the benchmark jobs those that are planted?

Every job of `jobs/benchmarks/` is labelled by the scripted engine, which answers from the gold with
planted errors, and summed up by `moderay eval --summary`. Each figure must be the one that
scikit-learn finds in the gold and the planted answers. The sets are those beside the project; of
ToxicChat and of a set with languages there is none, and made-up rows in their columns are there.

`python -m benchmarks.benchmark_jobs --miss 0.1 --false 0.02 --seed 1`
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn import metrics as sk
from support.planted import UNKNOWN, Errors, keys_of, write_answers
from support.project import ROOT, SHARED

from moderay.config.policy import Policy, load_policy
from moderay.tasks.evaluate.benchmark_records import CellRecord, SummaryRecord

JOBS = ROOT / "jobs/benchmarks"
# Columns of the 2022 moderation set, by policy.
MODERATION = {
    "sexual": "S",
    "hate": "H",
    "violence": "V",
    "harassment": "HR",
    "self_harm": "SH",
    "sexual_minors": "S3",
    "hate_threatening": "H2",
    "violence_graphic": "V2",
}
# Folders of the published sets.
SETS = ("openai_moderation", "hatecheck", "spam_pack")
MADE_UP = 2_000
P = 0.9


@dataclass(frozen=True)
class Judged:
    """A policy's rows: what people say, and what the planted judge does.

    Attributes:
        policy: The policy.
        gold: 1, 0 or `UNKNOWN`.
        gold_labels: Position of the label, where people named one.
        answers: Position of the label that is answered.
    """

    policy: Policy
    gold: np.ndarray
    gold_labels: np.ndarray | None
    answers: np.ndarray

    @property
    def said(self) -> np.ndarray:
        """Whether the answer violates."""
        sides = [label.violates for label in self.policy.labels.values()]
        return np.asarray(np.array(sides)[self.answers])


def judged(
    policy: Policy,
    contents: list[str],
    gold: np.ndarray,
    errors: Errors,
    gold_labels: np.ndarray | None = None,
) -> tuple[Judged, dict[str, str]]:
    """The planted judge's answers, by row and by content.

    A content that stands there twice has one answer: where people contradict themselves, it is
    wrong once.
    """
    sides = [label.violates for label in policy.labels.values()]
    safe, violating = sides.index(False), sides.index(True)
    said = errors.said(keys_of(policy.id, contents), gold)
    answers = np.where(said, violating, safe)
    if gold_labels is not None:
        answers = np.where(said == (gold == 1), gold_labels, answers)
    by_content = dict(zip(contents, answers.tolist(), strict=True))
    answers = np.array([by_content[content] for content in contents])
    names = policy.label_names
    found = {content: names[place] for content, place in by_content.items()}
    return Judged(policy, gold, gold_labels, answers), found


def prepared(sets: Path, data: Path, errors: Errors) -> tuple[dict[str, list[Judged]], Path]:
    """The sets in one folder, what is planted in each, and the script.

    Args:
        sets: Where those are that are published.
        data: The folder.
        errors: What is planted.
    """
    for name in ("openai_moderation", "hatecheck"):
        (data / name).symlink_to(sets / name)
    command("policy", "import", sets / "spam_pack", "--id", "spam_pack", "--out", data / "imported")
    made_up(data)
    planted: dict[str, list[Judged]] = {}
    answers: list[tuple[Policy, Mapping[str, str]]] = []

    def add(job: str, *args: Any) -> None:
        found, by_content = judged(*args)
        planted.setdefault(job, []).append(found)
        answers.append((found.policy, by_content))

    rows = pq.read_table(data / "openai_moderation").to_pydict()
    for name, column in MODERATION.items():
        gold = np.array([UNKNOWN if one is None else int(one) for one in rows[column]])
        policy = load_policy(ROOT / "policies/benchmarks" / name)
        add("moderation-2022", policy, rows["text"], gold, errors)
    rows = pq.read_table(data / "hatecheck").to_pydict()
    hate = load_policy(ROOT / "policies/hate")
    gold = np.array([int(one == "hateful") for one in rows["label"]])
    add("hatecheck", hate, rows["text"], gold, errors)
    rows = pq.read_table(data / "languages").to_pydict()
    add("languages", hate, rows["text"], np.array(rows["violates"], int), errors)
    pack = load_policy(data / "imported/spam_pack")
    cases = [json.loads(line) for line in (data / "imported/spam_pack/golden.jsonl").open()]
    labels = np.array([pack.label_names.index(case["label"]) for case in cases])
    gold = np.array([int(pack.labels[case["label"]].violates) for case in cases])
    add("spam-pack", pack, [case["content"] for case in cases], gold, errors, labels)
    with (data / "toxic_chat/made_up_test.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    gold = np.array([int(line["toxicity"]) for line in lines])
    toxic = load_policy(ROOT / "policies/benchmarks/toxic_chat")
    add("toxic-chat", toxic, [line["user_input"] for line in lines], gold, errors)
    return planted, write_answers(data, answers, P)


def made_up(data: Path) -> None:
    """Rows in the columns of the sets that are not there."""
    (data / "toxic_chat").mkdir()
    rng = np.random.default_rng(0)
    with (data / "toxic_chat/made_up_test.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(
            "conv_id user_input model_output human_annotation toxicity jailbreaking "
            "openai_moderation".split()
        )
        for row in range(MADE_UP):
            toxic, jail = int(rng.random() < 0.07), int(rng.random() < 0.02)
            text = f'Made-up request {row}, with a "quote"\nand a second line'
            lines.writerow([f"c{row}", text, "An answer.", row % 2 == 0, toxic, jail, "[]"])
    (data / "languages").mkdir()
    import pyarrow as pa

    table = {
        "text": [f"made-up text {row}" for row in range(MADE_UP)],
        "violates": (rng.random(MADE_UP) < 0.2).tolist(),
        "language": rng.choice(["de", "en", "es", "hi", "tr"], MADE_UP).tolist(),
    }
    pq.write_table(pa.table(table), data / "languages/made_up.parquet")


def expected(cell: CellRecord, rows: list[Judged]) -> float | None:
    """The figure that scikit-learn finds in what is planted."""
    if cell.figure == "policies_right":
        known = np.logical_and.reduce([one.gold != UNKNOWN for one in rows])
        right = np.logical_and.reduce([one.said == (one.gold == 1) for one in rows])
        return float(right[known].mean())
    if cell.policy is None:
        gold = np.stack([one.gold for one in rows])
        any_gold = np.where((gold == 1).any(axis=0), 1, gold.min(axis=0))
        known = any_gold != UNKNOWN
        any_said = np.any([one.said for one in rows], axis=0)
        return figure(cell.figure, any_gold[known] == 1, any_said[known])
    [one] = [one for one in rows if one.policy.id == cell.policy]
    known = one.gold != UNKNOWN
    if cell.figure == "labels_right":
        assert one.gold_labels is not None
        return float((one.answers == one.gold_labels).mean())
    if cell.at_or_above is not None:
        assert one.gold_labels is not None
        cut = one.policy.label_names.index(cell.at_or_above)
        return figure(cell.figure, one.gold_labels >= cut, one.answers >= cut)
    return figure(cell.figure, one.gold[known] == 1, one.said[known])


def figure(name: str, gold: np.ndarray, said: np.ndarray) -> float | None:
    """Of a binary table; None where it is not defined."""
    if (name == "recall" and not gold.any()) or (name == "precision" and not said.any()):
        return None
    functions: dict[str, Any] = {
        "f1": sk.f1_score,
        "precision": sk.precision_score,
        "recall": sk.recall_score,
        "average_precision": lambda gold, said: sk.average_precision_score(
            gold, np.where(said, P, 1 - P)
        ),
    }
    return float(functions[name](gold, said))


def command(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`moderay`, in a process of its own."""
    line = [sys.executable, "-m", "moderay", *map(str, words)]
    return subprocess.run(line, text=True, check=True, cwd=ROOT, **options)


def main() -> None:
    """Label, sum up, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=Path, default=SHARED, help="where the published sets are")
    parser.add_argument("--miss", type=float, default=0.0, help="share of violations missed")
    parser.add_argument("--false", type=float, default=0.0, help="share of safe rows flagged")
    parser.add_argument("--seed", type=int, default=0, help="of the rows in which they are planted")
    given = parser.parse_args()
    if missing := [name for name in SETS if not (given.sets / name).is_dir()]:
        print(f"skipped, since {given.sets} has no {', '.join(missing)}")
        return
    errors = Errors(given.miss, given.false, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        planted, script = prepared(given.sets, data, errors)
        env = {**os.environ, "DATA": folder, "LABELS": str(data / "labels"), "COLUMNS": "80"}
        words = ["eval", *sorted(JOBS.glob("*.yaml")), "--summary"]
        words += ["--set", f"model.source=scripted:{script}", "--quiet", "--json"]
        began = time.monotonic()
        result = command(*words, env=env, stdout=subprocess.PIPE)
        print(f"labelled and evaluated in {time.monotonic() - began:.0f} s")
        again = time.monotonic()
        command(*[word for word in words if word not in ("--quiet", "--json")], env=env)
        print(f"again, with nothing to label: {time.monotonic() - again:.0f} s")
    record = SummaryRecord.from_json(result.stdout.encode(), "stdout")
    compare(record, planted)


def compare(record: SummaryRecord, planted: Mapping[str, list[Judged]]) -> None:
    """Say where a figure is not the planted one, and end with 1 then."""
    wrong, checked = 0, 0
    for benchmark in record.benchmarks:
        for cell in benchmark.cells:
            true = expected(cell, planted[benchmark.name])
            ours = None if cell.ours is None else cell.ours.value
            checked += 1
            same = (true is None) == (ours is None)
            if not same or (true is not None and ours is not None and abs(true - ours) > 1e-4):
                wrong += 1
                print(f"{benchmark.name} {cell.policy} {cell.figure}: {ours}, planted {true}")
    print(f"{checked - wrong} of {checked} figures are the planted ones")
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()
