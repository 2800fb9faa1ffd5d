"""A policy's judges at work, with judges whose verdicts are known beforehand."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.verdicts import VERDICTS, Status, Verdict, verdict_array
from moderay.judges.cascade import Cascade
from moderay.judges.settle import settle_columns, settle_on_engine

POLICY = load_policy(ROOT / "policies" / "spam")


@dataclass(frozen=True)
class WordJudge:
    """Settles texts that have its word."""

    word: str
    seen: list[str] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return self.word

    key = "key"

    def identity(self) -> Mapping[str, object]:
        return {}

    def settle(self, texts: pa.Array, table: pa.Table) -> pa.StructArray:
        assert len(texts) == len(table) and texts.null_count == 0
        assert texts.to_pylist() == table.column("text").to_pylist()
        self.seen.extend(texts.to_pylist())
        rows = [
            verdict_array([Verdict(Status.OK, decided_by=self.word)], 0)
            if self.word in text
            else pa.nulls(1, VERDICTS)
            for text in texts.to_pylist()
        ]
        return pa.concat_arrays(rows)


class Probability:
    """Stands for `Safeguard` in what an audit asks of it."""

    def probability(self, scores: Sequence[float]) -> float:
        return scores[1]


@dataclass
class EngineStub:
    """A judge on an engine with one verdict; counts what it is asked."""

    name: str
    verdict: Verdict
    sure: bool = True
    asked: int = 0
    key = "key"
    max_model_len = 10
    safeguard: Any = field(default_factory=Probability)

    def identity(self) -> Mapping[str, object]:
        return {}

    def settles(self, verdict: Verdict) -> bool:
        return self.sure

    async def judge(self, host: Any, ids: Sequence[int], row: str) -> Verdict:
        self.asked += 1
        return self.verdict


def reply(name: str, p: float = 0.5, **fields: Any) -> Verdict:
    return Verdict(
        Status.OK, [1 - p, p], decided_by=name, prompt_tokens=10, output_tokens=2, **fields
    )


def columns(cascade: Cascade, texts: list[str | None], known: pa.StructArray | None = None) -> Any:
    array = pa.array(texts, pa.large_string())
    return settle_columns(
        cascade,
        array,
        pa.table({"text": array}),
        [None if text is None else f"hash of {text}" for text in texts],
        pa.nulls(len(texts), VERDICTS) if known is None else known,
    )


def test_each_judge_is_asked_what_the_one_before_passes_on() -> None:
    first, second = WordJudge("ad"), WordJudge("shop")
    cascade = Cascade(POLICY, (first, second), (EngineStub("reason", reply("reason")),))
    settled = columns(cascade, ["an ad in a shop", "a shop", None, "quiet"])
    by = [row and row["decided_by"] for row in settled.verdicts.to_pylist()]
    assert by == ["ad", "shop", None, None]
    assert first.seen == ["an ad in a shop", "a shop", "quiet"]
    assert second.seen == ["a shop", "quiet"]
    assert not settled.audited.any()


def test_a_known_verdict_stands_and_is_not_audited() -> None:
    judge = WordJudge("ad")
    cascade = Cascade(POLICY, (judge,), (EngineStub("reason", reply("reason")),), audit=1.0)
    known = pa.concat_arrays([verdict_array([reply("before")], 0), pa.nulls(1, VERDICTS)])
    settled = columns(cascade, ["an ad", "another ad"], known)
    assert [row["decided_by"] for row in settled.verdicts.to_pylist()] == ["before", "ad"]
    assert settled.audited.tolist() == [False, True] and judge.seen == ["another ad"]


@given(st.lists(st.none() | st.sampled_from(["ad", "shop", "quiet"]), max_size=30), st.floats(0, 1))
def test_only_what_was_settled_is_audited_and_by_hash(
    texts: list[str | None], share: float
) -> None:
    last = EngineStub("reason", reply("reason"))
    cascade = Cascade(POLICY, (WordJudge("ad"), WordJudge("shop")), (last,), share)
    settled = columns(cascade, texts)
    expected = [text in ("ad", "shop") and cascade.audited(f"hash of {text}") for text in texts]
    assert settled.audited.tolist() == expected
    is_settled = settled.verdicts.is_valid().to_numpy(zero_copy_only=False)
    assert np.array_equal(is_settled, [text in ("ad", "shop") for text in texts])


def on_engine(
    judges: Sequence[EngineStub], earlier: Verdict | None = None, audit: float = 0.0
) -> Verdict:
    cascade = Cascade(POLICY, (), tuple(judges), audit)
    host: Any = None
    return asyncio.run(settle_on_engine(cascade, host, [1, 2], "hash", earlier))


def test_a_judge_that_is_sure_ends_it() -> None:
    glance = EngineStub("glance", reply("glance"))
    last = EngineStub("reason", reply("reason"))
    assert on_engine([glance, last]) == reply("glance")
    assert (glance.asked, last.asked) == (1, 0)


def test_a_judge_that_is_not_sure_passes_on_and_its_tokens_are_counted() -> None:
    glance = EngineStub("glance", reply("glance"), sure=False)
    verdict = on_engine([glance, EngineStub("reason", reply("reason"))])
    assert verdict == reply("reason")._replace(prompt_tokens=20, output_tokens=4)
    assert verdict.audit is None


def test_the_audit_s_verdict_stands_with_the_earlier_one_beside_it() -> None:
    glance = EngineStub("glance", reply("glance", 0.1))
    verdict = on_engine([glance, EngineStub("reason", reply("reason", 0.9))], audit=1.0)
    assert verdict.decided_by == "reason" and verdict.prompt_tokens == 20
    assert verdict.audit == {"judge": "glance", "probability": 0.1}


def test_what_a_judge_on_columns_settled_goes_to_the_last_alone() -> None:
    glance = EngineStub("glance", reply("glance"))
    last = EngineStub("reason", reply("reason"))
    ruled = Verdict(Status.OK, answer="SP4", decided_by="rules")
    verdict = on_engine([glance, last], ruled, audit=1.0)
    assert (glance.asked, last.asked) == (0, 1)
    assert verdict.decided_by == "reason" and verdict.prompt_tokens == 10
    assert verdict.audit == {"judge": "rules", "probability": None}


def test_where_the_audit_fails_the_earlier_verdict_stands() -> None:
    failed = Verdict(Status.TIMEOUT, prompt_tokens=10)
    verdict = on_engine(
        [EngineStub("glance", reply("glance")), EngineStub("reason", failed)], audit=1.0
    )
    assert verdict == reply("glance")._replace(prompt_tokens=20, output_tokens=2)


def test_a_failure_of_the_last_is_the_verdict_where_nobody_settled_it() -> None:
    failed = Verdict(Status.TIMEOUT)
    glance = EngineStub("glance", Verdict(Status.UNPARSED), sure=False)
    assert on_engine([glance, EngineStub("reason", failed)]) == failed
