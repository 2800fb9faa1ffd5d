"""The manifest as it lies in an output: the run as a whole, and the runs before it.

`pipeline/manifest.py` fills it. Its JSON Schema lies in `jobs/`, since other programs read it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import JsonValue

from moderay.core.calibration import Calibration, Method
from moderay.core.decision_rule import DecisionRule
from moderay.core.records import Record, RecordPart
from moderay.labels.counts import PolicyCounts
from moderay.labels.records import Histogram, LabelCounts

RunStatus = Literal["running", "finished", "stopped", "killed"]


class JudgeRecord(RecordPart):
    """A judge of a cascade, with everything that can change its verdict.

    Fields that are not named here depend on the judge.
    """

    judge: str
    """rules, screen, glance or reason."""
    policy: str | None = None
    """The policy's text as the model reads it."""
    labels: dict[str, bool] | list[tuple[str, bool]] | None = None
    """Whether each label violates."""
    answer: str | None = None
    """The form of the model's answer: label or rationale."""


class CalibrationRecord(RecordPart):
    """How P of one judge was read when it was decided."""

    judge: str
    """Whose P."""
    method: Method
    """platt: a line in log-odds. isotonic: straight between points that never fall."""
    numbers: tuple[tuple[float, float], ...]
    """Of platt, slope and intercept; of isotonic, points: P before and after."""
    rows: int
    """Contents of which people had said what violates, to which it was fitted."""
    violations: int
    """Of these, those that violate."""

    @property
    def calibration(self) -> Calibration:
        """The map."""
        return Calibration(self.judge, self.method, self.numbers)


class PolicyRecord(RecordPart):
    """A policy as it was judged."""

    title: str
    """For people."""
    version: int
    """Of the policy file."""
    threshold: float
    """On P(violates)."""
    cascade_key: str
    """Hash of the judges and their bands."""
    cascade: tuple[JudgeRecord, ...]
    """The judges, in order of cost."""
    promises: dict[str, float]
    """By calibrated judge: the share of violations that it may miss."""
    estimated: tuple[str, ...] = ()
    """Of these judges, those whose promise is an estimate: no theorem says that it holds."""
    calibration: CalibrationRecord | None = None
    """How P of reason was read when it was decided; null: as the model gave it."""
    label_titles: dict[str, str] = {}
    """For people, by label; empty where nothing says what a label means."""

    @property
    def asked(self) -> JudgeRecord | None:
        """The last judge that a model is asked for; None where there is none."""
        return next((judge for judge in reversed(self.cascade) if judge.policy), None)

    @property
    def text(self) -> str | None:
        """The policy as the model reads it; None where no model is asked."""
        return None if self.asked is None else self.asked.policy

    @property
    def sides(self) -> dict[str, bool]:
        """Whether each label violates, mildest first; nothing where no judge says it."""
        return dict(next((judge.labels for judge in reversed(self.cascade) if judge.labels), {}))

    def rule(self, policy: str) -> DecisionRule:
        """How its verdicts were decided.

        Args:
            policy: Its id.
        """
        labels = self.sides
        made = None if self.calibration is None else self.calibration.calibration
        return DecisionRule(policy, tuple(labels), tuple(labels.values()), self.threshold, made)


class ModelRecord(RecordPart):
    """The model that glance and reason asked."""

    source: str | None = None
    """Hub id, folder or URL; null for an endpoint."""
    endpoint: str | None = None
    """URL of the endpoint, where one was asked."""
    name: str | None = None
    """The model's name at the endpoint."""
    revision: str | None = None
    """Pinned commit."""
    concurrency: int | None = None
    """Requests that the endpoint is sent at once."""
    engine: dict[str, JsonValue] = {}
    """Further arguments of vLLM's."""


class HardwareRecord(RecordPart):
    """What a run had."""

    cpus: int | None = None
    """Cores of the driver's machine."""
    machine: str = ""
    """Architecture of the driver's machine."""
    gpus: int = 0
    """GPUs of the cluster."""
    engines: int = 0
    """Engines at most."""


class RunOrigin(RecordPart):
    """Of a run, what explains its verdicts; null where it was killed before it could say so."""

    run: int
    """Its number: `trace.run` of its rows."""
    started: str | None = None
    """UTC, ISO 8601."""
    python: str | None = None
    """Version."""
    libraries: dict[str, str] = {}
    """Versions by name."""
    model: ModelRecord | None = None
    """The model."""
    hardware: HardwareRecord | None = None
    """The machines."""


class TableRecord(RecordPart):
    """A table of the input, as a run read it."""

    path: str
    """Its URL, as the job has it, without secrets."""
    version: int | None
    """Delta's version or Iceberg's snapshot id; null: there was none yet."""
    time: str = ""
    """When that was written, UTC, ISO 8601; empty where the table does not say."""


class ReusedOutput(RecordPart):
    """An output from which verdicts were taken."""

    output: str
    """Its URL."""
    policies: dict[str, PolicyRecord]
    """Its policies."""
    runs: tuple[RunOrigin, ...]
    """Its runs."""


class NewLabels(LabelCounts):
    """What a run added to the labels."""

    shards: int
    """Shards published for the first time."""
    changed: int
    """Shards published again; of these the rows that were judged count."""


class RateRecord(RecordPart):
    """How fast one policy was judged, the engines' start included."""

    rows_per_s: float
    """Rows a second."""
    tokens_per_s: float
    """Tokens a second, prompts and answers together."""


class GateFigure(RecordPart):
    """A figure of a policy on its golden set, held against its floor."""

    policy: str
    """The policy's id."""
    figure: str
    """recall or precision."""
    k: int
    """Cases that were found and violate."""
    n: int
    """Of so many that violate (recall), or were found to (precision)."""
    value: float | None
    """k of n; null of none."""
    low: float
    """Lower end of the exact 95% interval (Clopper-Pearson)."""
    high: float
    """Upper end."""
    floor: float
    """What the lower end must reach."""
    passed: bool
    """Whether it does."""
    not_judged: int = 0
    """Cases of the golden set without a verdict: none of them is found."""


class RunEnd(RecordPart):
    """What a run says of itself when it ends."""

    ended: str | None = None
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """Of the whole run, its start included."""
    judged: int = 0
    """Rows."""
    reused_verdicts: int = 0
    """Verdicts taken from before."""
    engine_restarts: int = 0
    """Engines that were started again."""
    usage: dict[str, int] = {}
    """What the engines were asked: requests, tokens, milliseconds by what they did."""
    actors: int = 0
    """Engine actors that were started."""
    most_bytes_ahead: int = 0
    """Bytes that were read and not yet judged, at most."""
    rates: dict[str, RateRecord] = {}
    """By policy."""
    probability_by: tuple[str, ...] = ()
    """How its engines came to P of a label: with the answer, by a second request (and why), or as
    the endpoint says.
    """
    stopped: str | None = None
    """Why it ended early."""
    pruned: tuple[str, ...] = ()
    """Shards that were gone from the input, and whose labels were removed."""
    gate: tuple[GateFigure, ...] = ()
    """What the job's gate found before the corpus was judged; empty without one, and where the run
    ended before it was known.
    """


class DecidedRecord(RecordPart):
    """What `moderay decide` did, which judges nothing."""

    thresholds: dict[str, float]
    """By policy, the threshold that was set; empty where none was."""
    corrections: str
    """Hash of what people's answers decided."""
    shards: int = 0
    """Shards that were written again."""


class RunRecord(RunEnd, RunOrigin):
    """One run. What it says of its end is there when it has ended."""

    status: RunStatus
    """killed: it never wrote its end."""
    date: str | None = None
    """The night it counts to, ISO 8601: the job's date, or the day it began."""
    host: str | None = None
    """The driver's machine."""
    part: tuple[int, int] | None = None
    """(i, n): the run was to judge the shards whose slots are i modulo n. Null: all."""
    audit: float = 0.0
    """Share of what earlier judges settled that the last one judged too."""
    tables: tuple[TableRecord, ...] = ()
    """The tables among the input, and which version of them it read."""
    reuse: tuple[ReusedOutput, ...] = ()
    """Outputs it took verdicts from, and those that these took theirs from."""
    new: NewLabels | None = None
    """What it added to the labels."""
    decided: DecidedRecord | None = None
    """Of a run that only decided what was judged before."""


class Selection(RecordPart):
    """Which of the input is judged, as the job says it."""

    content: str
    """Column, or template of columns."""
    where: str | None
    """Condition in SQL."""
    sample: float | None
    """Share of rows."""


class JudgeReport(RecordPart):
    """What a judge settled, and what the audit says of it.

    Intervals are (low, estimate, high) with 95% confidence (Clopper-Pearson); they are null where
    nothing was audited.
    """

    settled: int
    """Rows."""
    share: float
    """Of the rows with a verdict."""
    promised_miss: float | None = None
    """The share of violations that it may miss, where it was calibrated."""
    estimated: bool = False
    """Whether this promise is an estimate: no theorem says that it holds."""
    audited: int = 0
    """Distinct contents that it settled and the last judge judged too."""
    overruled: int = 0
    """Of those, where the last judge came to another result."""
    missed: int = 0
    """Of those, violations that it took for safe."""
    missed_violations: tuple[float, float, float] | None = None
    """Violations among the settled rows that were not audited: interval."""
    miss: tuple[float, float, float] | None = None
    """Share of all violations that these are: interval."""
    alarm: bool = False
    """Whether the interval excludes what was promised."""


class Manifest(Record):
    """The runs, and what the labels add up to.

    Counts are those of all published shards as of the end of the run that ended last.
    """

    remedy: ClassVar[str] = (
        "delete it: the one before it counts then, and the next run adds up anew"
    )

    schema_version: Literal[2] = 2
    """Version of this file's schema; another one is refused."""
    id: str = ""
    """Of this content, like no other's."""
    name: str
    """The job's."""
    complete: bool
    """Whether the labels of the whole input are here, as the last run saw it."""
    input_shards: int = 0
    """Input files of the job, as the last run saw them."""
    cascade_key: str
    """Hash of all policies' cascades."""
    selection: Selection
    """Which of the input is judged."""
    policies: dict[str, PolicyRecord]
    """The policies, by id."""
    shards: int = 0
    """Published shards."""
    input_rows: int = 0
    """Rows of their input files."""
    rows: int = 0
    """Label rows."""
    flagged: int = 0
    """Rows that violate some policy."""
    counts: dict[str, PolicyCounts] = {}
    """By policy."""
    histograms: dict[str, Histogram] = {}
    """By policy: rows by bin of P(violates), as in the markers."""
    judges: dict[str, dict[str, JudgeReport]] = {}
    """By policy and judge."""
    alarms: tuple[str, ...] = ()
    """What somebody should look at."""
    unreadable: dict[str, str] = {}
    """Input files that cannot be read, and why."""
    failed: dict[str, str] = {}
    """Input files whose shards could not be judged or published, and why."""
    gone: tuple[str, ...] = ()
    """Shards whose labels are here, but which the input no longer has."""
    corrections: str = ""
    """Hash of what people's answers decided when all labels were last made to hold it; empty where
    nobody has answered."""
    runs: tuple[RunRecord, ...]
    """All runs, by number."""

    @property
    def last_run(self) -> RunRecord:
        """The run that began last, of those that judge."""
        judging = [run for run in self.runs if run.decided is None]
        return (judging or self.runs)[-1]

    @property
    def status(self) -> RunStatus:
        """running: some run has not ended yet; else as the last one ended."""
        is_running = any(run.status == "running" for run in self.runs)
        return "running" if is_running else self.last_run.status
