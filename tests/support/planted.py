"""Judges whose errors are planted, by content and seed: every figure is known beforehand."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from moderay.config.policy import Policy

UNKNOWN = -1


@dataclass(frozen=True)
class Errors:
    """How often a judge errs.

    Attributes:
        miss: Share of violations that it calls safe.
        false: Share of safe rows that it flags.
        seed: Of the rows on which it does.
    """

    miss: float = 0.0
    false: float = 0.0
    seed: int = 0

    def chance(self, violates: np.ndarray) -> np.ndarray:
        """That it flags each row; what nobody knows is safe to it."""
        return np.where(violates == 1, 1 - self.miss, self.false)

    def said(self, keys: np.ndarray, violates: np.ndarray) -> np.ndarray:
        """Whether it flags each row: bool.

        Args:
            keys: uint64: of the contents, from `keys_of`.
            violates: 1, 0 or `UNKNOWN`.
        """
        return np.asarray(uniform(keys, self.seed) < self.chance(violates))


def keys_of(policy: str, contents: Sequence[str]) -> np.ndarray:
    """A number for each content under a policy: uint64."""
    hashes = (
        hashlib.blake2b(f"{policy}\n{content}".encode(), digest_size=8).digest()
        for content in contents
    )
    return np.frombuffer(b"".join(hashes), np.uint64)


def uniform(keys: np.ndarray, seed: int) -> np.ndarray:
    """From 0 to below 1, by key and seed (https://prng.di.unimi.it/splitmix64.c)."""
    with np.errstate(over="ignore"):
        mixed = _mixed(keys + _mixed(np.uint64(seed) * _STEP + _STEP))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


_STEP = np.uint64(0x9E3779B97F4A7C15)


def _mixed(x: np.ndarray | np.uint64) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def answer_text(policy: Policy, label: str) -> str:
    """What a judge under a policy writes."""
    return label if policy.answer == "label" else json.dumps({"label": label, "rationale": ""})


def write_answers(
    folder: Path, answers: Sequence[tuple[Policy, Mapping[str, str]]], p: float = 0.9
) -> Path:
    """A script of the scripted engine.

    Args:
        folder: Where it and its files are put.
        answers: For policies, the label of each content; two of one policy have other contents.
        p: Of each answer.
    """
    rules: dict[str, dict[str, object]] = {}
    for policy, labels in answers:
        heading = policy.text.strip().splitlines()[0].strip()
        file = f"{hashlib.blake2b(heading.encode(), digest_size=8).hexdigest()}.jsonl"
        rules[heading] = {"policy": f"^{re.escape(heading)} *$", "answers": file, "p": p}
        with (folder / file).open("a", encoding="utf-8") as lines:
            for content, label in labels.items():
                line = {"content": content, "answer": answer_text(policy, label)}
                lines.write(json.dumps(line) + "\n")
    script = folder / "planted.yaml"
    script.write_text(yaml.safe_dump({"rules": list(rules.values())}))
    return script
