"""Mutated job files, policies, rules and golden sets end in sentences or in sound ones, and soon.

MODERAY_FUZZ sets how many of each; what they find is kept as a test of its own.
"""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import ROOT

from moderay.config.job_file import load_job
from moderay.config.policy import load_golden, load_policy
from moderay.core.errors import UserError
from moderay.judges.rules_file import load_rules

NUMBER = int(os.environ.get("MODERAY_FUZZ", "250"))
SLOWEST = 5.0
POLICY = load_policy(ROOT / "policies/spam")

JOB = """\
name: tweets
input: {path: in/*.parquet, content: "{title}\\n\\n{body}", where: lang = 'en', sample: 0.5}
output: {path: "${HOME}/labels", columns: [id, &lang lang], reasoning: flagged}
policies: [policies/spam, policies/harassment]
model:
  source: tiny
  revision: null
  effort: low
  sampling: {temperature: 1.0, top_p: 1.0}
  replicas: {min: 1, max: 8}
  engine: {tensor_parallel_size: 1, language: *lang}
cascade:
  - rules: {}
  - glance: {below: 0.01}
  - reason: {budget: 512}
windows: {tokens: 8192, overlap: 256, max: 32}
unit: {rows: 512, bytes: 64MiB}
limits: {request_s: 120, stall_s: 600, max_failed: 0.05, gpu_hours: null, until: 2026-11-27T06:00}
audit: 0.01
reuse: [labels/a, labels/b]
storage: {anon: true}
filter: {keep: NOT (spam.violates OR spam.probability > 0.8), out: clean, thresholds: {spam: 0.7}}
alarms: {}
"""
RULES = """\
rules:
  - {id: block, label: SP4, any_of: [free prize, "buy now"], words: true}
  - {id: link, label: SP2, pattern: 'https?://\\S+\\.(zip|top)\\b'}
  - {id: short, label: SP0, shorter_than: 4}
  - {id: where, pass: true, where: "lang IN ('en', 'de') AND NOT (n > 3 OR text LIKE '%a%')"}
"""
GOLDEN = """\
{"content": "Buy now", "label": "SP4"}
{"content": "Hello \\u00e4 \\"there\\"", "label": "SP0", "boundary": true}
"""
PIECES = """\
&a *a !!int !!python/object:os.system ? : - [ ] { } , | > ' " \\ # % @ ` --- ... << ~ .nan
.inf 1e999 -0 0x1 0o7 1_0 1:30 2026-11-27 null true yes ${HOME} ${ \0 \ud800 \u2028 \ufeff
\x85 ä 😀 "\\0" "\\ud800" ( ) ; -- /* */ $$ E' x' OR AND NOT NULL SELECT EXISTS read_csv('x')
now() AVG(n) (?=a) a{1000}{1000} * ^ $ .. / ../../x \\1 (a+)+ [[:x:]] id label pass where
pattern any_of text spam -1 1e5 99999999999999999999999 [[[[[[[[ {{{{{{{{ ((((((((""".split()


def mutated(text: str, chance: random.Random) -> str:
    """A text with one to four parts cut, doubled, moved or put in."""
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + int(chance.expovariate(1 / 6)))
        piece = chance.choice(PIECES) * chance.choice([1, 1, 1, 2, 40])
        lines = text.split("\n")
        line = chance.randrange(len(lines))
        text = chance.choice(
            [
                text[:start] + text[end:],
                text[:end] + text[start:end] * chance.choice([1, 3, 200]) + text[end:],
                text[:start] + piece + text[start:],
                text[:start] + piece + text[end:],
                text[:start] + f" {piece} " + text[end:],
                "\n".join([*lines[:line], lines[line], *lines[line:]]),
                "\n".join([*lines[:line], "  " + lines[line], *lines[line + 1 :]]),
                "\n".join([*lines[:line], *lines[line + 1 :]]),
            ]
        )[:200_000]
    return text


def read_job(folder: Path) -> object:
    return load_job(folder / "job.yaml")


def read_rules(folder: Path) -> object:
    return load_rules(POLICY, folder)


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("job.yaml", JOB, read_job),
        ("policy.md", (ROOT / "policies/spam/policy.md").read_text("utf-8")[:900], load_policy),
        ("rules.yaml", RULES, read_rules),
        ("golden.jsonl", GOLDEN, load_golden),
    ],
)
def test_mutated_document_is_sound_or_refused_in_a_sentence(
    name: str, text: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    for policy in ("spam", "harassment"):
        shutil.copytree(ROOT / "policies" / policy, tmp_path / "policies" / policy)
    shutil.copy(ROOT / "policies/spam/policy.md", tmp_path)
    chance = random.Random(name)
    ends = [end(tmp_path / name, mutated(text, chance), read) for _ in range(NUMBER)]
    assert {"sound", "refused"} <= set(ends)


def end(file: Path, text: str, read: Callable[[Path], object]) -> str:
    """How a document ends; what is neither is the test's failure, with the document."""
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    began = time.process_time()
    try:
        read(file.parent)
    except UserError as error:
        assert str(error).strip() and "Traceback" not in str(error)
        outcome = "refused"
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{text[:2_000]}") from error
    else:
        outcome = "sound"
    assert time.process_time() - began < SLOWEST, text[:2_000]
    return outcome
