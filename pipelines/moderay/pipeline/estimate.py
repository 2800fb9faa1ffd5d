"""`moderay plan`: what a run will cost, before it.

A part of what is left is read and counted (`sample`); the rest is taken to be like it. From counts
to cost it is arithmetic, in pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moderay.config.job import JUDGES
from moderay.engines.base import WITH_THE_ANSWER
from moderay.judges.cascade import Cascade, EngineJudge
from moderay.judges.glance import Glance
from moderay.judges.reason import Reason
from moderay.labels.manifest_record import Manifest, RunRecord
from moderay.pipeline.check import Checked
from moderay.pipeline.control.unit_size import chosen
from moderay.pipeline.plan import Plan, earlier_manifests
from moderay.pipeline.sample import SampleCounts, read_sample


@dataclass(frozen=True)
class Cost:
    """What an engine is asked.

    Attributes:
        requests: Requests.
        prompt_tokens: Tokens of their prompts.
        cached_tokens: Those of them that the prefix cache has.
        output_tokens: Tokens it writes.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
        )

    def scaled(self, factor: float) -> Cost:
        """So many times as much, in whole numbers."""
        return Cost(
            round(self.requests * factor),
            round(self.prompt_tokens * factor),
            round(self.cached_tokens * factor),
            round(self.output_tokens * factor),
        )


@dataclass(frozen=True)
class JudgeProfile:
    """What one judge does on an engine.

    Attributes:
        name: The judge's name.
        settles: The share, 0 to 1, of the contents it is asked about; of the last judge 1.
        prefix_tokens: Tokens of a prompt that are the policy's, and the same each time.
        requests: Requests a window; of two, the second's prompt is the first's and its answer.
        output_tokens: Tokens it writes a window.
    """

    name: str
    settles: float
    prefix_tokens: int
    requests: int
    output_tokens: float


@dataclass(frozen=True)
class EarlierRuns:
    """What one output's runs show of the judges.

    Attributes:
        settled: By policy and judge, the verdicts it settled.
        output_tokens: By policy, tokens written for all of its verdicts.
        tokens_per_s: Tokens a second of one GPU, or of one engine without GPUs, in the last run
            that judged something; None where none did.
        probability_by: How P of a label came about in the last run that says so.
    """

    settled: Mapping[str, Mapping[str, int]]
    output_tokens: Mapping[str, int]
    tokens_per_s: float | None
    probability_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Forecast:
    """What is left to do; all but `rows` and `read` is scaled up from the rows that were read.

    Attributes:
        rows: Rows left, before where and sample.
        read: Rows that were read.
        selected: Rows that where and sample leave.
        distinct: Distinct contents of the selected rows.
        verdicts: By policy, verdicts that are `reused` and `duplicates`, and what each judge
            settles.
        cost: What the engine is asked.
        guesses: What had to be assumed, a sentence each.
        tokens_per_s: Of one GPU (or engine); None where nobody knows.
    """

    rows: int
    read: int
    selected: int
    distinct: int
    verdicts: Mapping[str, Mapping[str, int]]
    cost: Cost
    guesses: tuple[str, ...]
    tokens_per_s: float | None

    @property
    def requests(self) -> int:
        """Requests to the engine."""
        return self.cost.requests

    @property
    def prompt_tokens(self) -> int:
        """Tokens of prompts, the cached ones included."""
        return self.cost.prompt_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens of prompts that the prefix cache has."""
        return self.cost.cached_tokens

    @property
    def output_tokens(self) -> int:
        """Tokens that the engine writes."""
        return self.cost.output_tokens

    @property
    def gpu_hours(self) -> float | None:
        """Hours of one GPU, or None where its rate is not known."""
        if self.tokens_per_s is None:
            return None
        return (self.prompt_tokens + self.output_tokens) / self.tokens_per_s / 3600


def forecast(checked: Checked, plan: Plan, most: int, rate: float | None) -> Forecast:
    """What a run of this plan will cost.

    Args:
        checked: The job.
        plan: What is left of it.
        most: Rows to read for it, about.
        rate: Tokens a second of one GPU; None takes an earlier run's, of this output or of one that
            is reused.
    """
    sample = read_sample(checked, plan, most)
    factor = plan.rows_left / max(1, sample.rows)
    earlier = _earlier_runs(checked, plan)
    verdicts: dict[str, Mapping[str, int]] = {}
    cost = Cost()
    _, unit = chosen(checked.job.unit, earlier_manifests(checked, plan))
    guesses: dict[str, None] = dict.fromkeys([unit] if unit else [])
    for cascade in checked.cascades:
        counts = sample.policies[cascade.policy.id]
        profiles, assumed = judge_profiles(cascade, earlier)
        settled = {**counts.settled, **settled_on_engine(profiles, counts)}
        verdicts[cascade.policy.id] = {
            name: round(factor * count) for name, count in settled.items()
        }
        cost += engine_cost(profiles, counts).scaled(factor)
        guesses |= dict.fromkeys(assumed)
    return Forecast(
        rows=plan.rows_left,
        read=sample.rows,
        selected=round(factor * sample.selected),
        distinct=round(factor * sample.distinct),
        verdicts=verdicts,
        cost=cost,
        guesses=tuple(guesses),
        tokens_per_s=rate or known_rate(earlier),
    )


def settled_on_engine(judges: Sequence[JudgeProfile], counts: SampleCounts) -> dict[str, int]:
    """By judge, how many of the distinct contents it settles; judges that settle none left out."""
    settled: dict[str, int] = {}
    left = 1.0
    for judge in judges:
        if count := round(counts.contents * left * judge.settles):
            settled[judge.name] = count
        left *= 1 - judge.settles
    return settled


def engine_cost(judges: Sequence[JudgeProfile], counts: SampleCounts) -> Cost:
    """What judging these contents costs, each judge being asked what those before it leave.

    The last is asked for the audited contents too, whoever settles them.
    """
    total = Cost()
    left = 1.0
    for judge in judges:
        contents = counts.contents * left
        if judge is judges[-1]:
            contents += counts.audited * (1 - left)
        total += judge_cost(judge, counts, contents)
        left *= 1 - judge.settles
    return total


def judge_cost(judge: JudgeProfile, counts: SampleCounts, contents: float) -> Cost:
    """What one judge costs.

    Args:
        judge: The judge.
        counts: How long contents are, on average.
        contents: How many it judges.
    """
    counted = max(1, counts.contents)
    windows = contents * counts.windows / counted
    prefix = windows * judge.prefix_tokens
    prompt = prefix + contents * counts.tokens / counted
    output = windows * judge.output_tokens
    # A further request's prompt is the first's and its answer, all of it in the cache.
    further = (judge.requests - 1) * (prompt + output)
    return Cost(
        requests=round(judge.requests * windows),
        prompt_tokens=round(prompt + further),
        cached_tokens=round(prefix + further),
        output_tokens=round(output),
    )


def judge_profiles(
    cascade: Cascade, earlier: Sequence[EarlierRuns]
) -> tuple[list[JudgeProfile], list[str]]:
    """The judges on the engine, in order, and what had to be assumed of them."""
    profiles: list[JudgeProfile] = []
    guesses: list[str] = []
    policy = cascade.policy.id
    for judge in cascade.on_engine:
        settles: float | None = 1.0 if judge is cascade.last else _share(cascade, judge, earlier)
        if settles is None:
            guesses.append(
                f"{policy}: nobody knows yet what {judge.name} settles; nothing was assumed"
            )
        requests = 1
        output_tokens = 1.0
        if isinstance(judge, Reason):
            requests = answer_requests(judge, earlier)
            longest = judge.budget if judge.explains_apart else judge.max_tokens
            known = answer_tokens(policy, judge.name, earlier)
            output_tokens = longest if known is None else known
            if known is None:
                guesses.append(
                    f"{policy}: no earlier run shows how long the reasoning is; the whole budget "
                    "was assumed"
                )
        prefix_tokens = len(judge.safeguard.prompt.prefix)
        profiles.append(
            JudgeProfile(judge.name, settles or 0.0, prefix_tokens, requests, output_tokens)
        )
    return profiles, guesses


def _share(cascade: Cascade, judge: EngineJudge, earlier: Sequence[EarlierRuns]) -> float | None:
    """Of what it is asked, the share a judge settles: from its card, or from an earlier run."""
    if isinstance(judge, Glance) and judge.card is not None:
        return judge.card.settled
    names = [other.name for other in cascade.on_engine]
    return settled_share(cascade.policy.id, judge.name, names, earlier)


def settled_share(
    policy: str, judge: str, on_engine: Sequence[str], earlier: Sequence[EarlierRuns]
) -> float | None:
    """The share one judge settled of all that the judges on the engine did; None if unknown."""
    for runs in earlier:
        settled = runs.settled.get(policy, {})
        total = sum(settled.get(name, 0) for name in on_engine)
        if judge in settled and total:
            return settled[judge] / total
    return None


def answer_tokens(policy: str, judge: str, earlier: Sequence[EarlierRuns]) -> float | None:
    """Tokens of one answer with its reasoning, in earlier runs; None where none tells."""
    for runs in earlier:
        settled = runs.settled.get(policy, {}).get(judge, 0)
        tokens = runs.output_tokens.get(policy, 0)
        if settled and tokens:
            return tokens / settled
    return None


def answer_requests(judge: Reason, earlier: Sequence[EarlierRuns]) -> int:
    """Requests for a window: two, unless P comes with the answer, as far as earlier runs know."""
    ways = next((runs.probability_by for runs in earlier if runs.probability_by), ())
    with_answer = ways == (WITH_THE_ANSWER,) and not judge.explains_apart
    return 1 if judge.safeguard.in_words or with_answer else 2


def known_rate(earlier: Sequence[EarlierRuns]) -> float | None:
    """Tokens a second, of the first that knows."""
    return next((runs.tokens_per_s for runs in earlier if runs.tokens_per_s is not None), None)


def _earlier_runs(checked: Checked, plan: Plan) -> list[EarlierRuns]:
    """Of this output, then of those that are reused."""
    return [earlier_runs(manifest) for manifest in earlier_manifests(checked, plan)]


def earlier_runs(manifest: Manifest) -> EarlierRuns:
    """What a manifest shows of the judges."""
    return EarlierRuns(
        settled={
            policy: {name: report[name].settled for name in JUDGES if name in report}
            for policy, report in manifest.judges.items()
        },
        output_tokens={policy: counts.output_tokens for policy, counts in manifest.counts.items()},
        tokens_per_s=_rate_of_last_run(manifest.runs),
        probability_by=next(
            (run.probability_by for run in reversed(manifest.runs) if run.probability_by), ()
        ),
    )


def _rate_of_last_run(runs: Sequence[RunRecord]) -> float | None:
    for run in reversed(runs):
        if run.rates and run.hardware is not None and run.hardware.engines:
            engines = max(run.hardware.gpus, run.hardware.engines)
            return sum(rate.tokens_per_s for rate in run.rates.values()) / engines
    return None
