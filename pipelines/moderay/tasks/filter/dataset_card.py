"""A filtered data set's card: Markdown with YAML front matter, as the hubs read it.

Made from `filter.json` alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator
from typing import Any

# Not `DatasetCard`, which only reads what is given here: its import takes 0.1 s.
from huggingface_hub import DatasetCardData

from moderay.core.wording import are, counted
from moderay.labels.manifest_record import PolicyRecord, RunRecord
from moderay.labels.prevalence_records import PrevalenceEstimate
from moderay.tasks.filter.records import FilterCard, Reasons

# Bounds of the hubs' size categories.
_BOUNDS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def dataset_card(card: FilterCard) -> str:
    """The text of README.md, such as `huggingface_hub.DatasetCard` reads."""
    front_matter = DatasetCardData(
        pretty_name=f"{card.name}, filtered",
        size_categories=[_size(_kept(card))],
        tags=["content-moderation", "filtered", *sorted(card.policies)],
        configs=[_config(end, len(card.files) == 1) for end in card.files],
    )
    body = "\n".join(_body(card))
    return f"---\n{front_matter.to_yaml()}\n---\n{body}\n"


def _config(end: str, alone: bool) -> dict[str, Any]:
    """Files of one format: readers of data sets take no two at once."""
    name = "default" if alone else end.strip(".")
    return {"config_name": name, "data_files": [{"split": "train", "path": f"kept/**/*{end}"}]}


def _size(rows: int) -> str:
    power = len(str(rows)) - 4  # over a thousand
    return f"n<{_BOUNDS[0]}" if power < 0 else f"{_BOUNDS[power]}<n<{_BOUNDS[power + 1]}"


def _kept(card: FilterCard) -> int:
    """Rows in `kept/`."""
    return card.rows.kept + (card.rows.unselected if card.rule.unselected == "kept" else 0)


def _body(card: FilterCard) -> Iterator[str]:
    yield f"# {card.name}, filtered\n"
    yield "Rows of a data set that were judged under the policies below, and kept by this rule:\n"
    yield f"    {card.rule.keep}\n"
    yield from _rows(card)
    yield from _reasons("removed", "label", "it violates", card.removed)
    yield from _reasons("held", "status", "could not judge it", card.held)
    yield from _prevalence(card.prevalence.values())
    yield "## How it was judged\n"
    yield from _model(card.run)
    for name, policy in card.policies.items():
        yield from _policy(name, policy)
    yield "## Known limits\n"
    yield from (f"- {limit}" for limit in _limits(card))


def _rows(card: FilterCard) -> Iterator[str]:
    rows = card.rows
    yield "| rows | | where |\n|---|---:|---|"
    yield f"| in {counted(card.shards, 'file')} | {rows.input:,} | the input |"
    yield f"| kept: the rule is true | {rows.kept:,} | `kept/` |"
    yield f"| removed: the rule is false | {rows.removed:,} | `removed/` |"
    yield f"| held: the rule is null: not judged, or not known | {rows.held:,} | `held/` |"
    if card.rule.unselected:
        yield f"| not selected for judging | {rows.unselected:,} | `{card.rule.unselected}/` |"
    yield (
        "\nEach file has the name of its input file, and its rows in the same order; removed "
        "and held ones say why in the column `moderay`.\n"
    )


def _reasons(fate: str, by: str, each: str, reasons: Reasons) -> Iterator[str]:
    if not reasons:
        return
    yield f"## Why rows were {fate}\n"
    yield f"A row counts once for each policy that {each}.\n"
    yield f"| policy | {by} | rows |\n|---|---|---:|"
    for policy, counts in reasons.items():
        for reason, count in counts.items():
            yield f"| {policy} | {reason or 'none'} | {count:,} |"
    yield ""


def _prevalence(estimates: Collection[PrevalenceEstimate]) -> Iterator[str]:
    """What people found in rows that were drawn by chance."""
    for number, each in enumerate(estimates):
        if not number:
            yield "## What people found\n"
            yield (
                "Rows of the judged data were drawn by chance and reviewed by people. Kept and "
                "removed are here what the policy's verdict says at the threshold beside it.\n"
            )
            yield "| policy | threshold | of | reviews | truly violate | interval |"
            yield "|---|---:|---|---:|---:|---:|"
        shares = (("all", each.corpus), ("kept", each.kept), ("removed", each.removed))
        for name, share in shares:
            if share is not None:
                yield (
                    f"| {each.policy} | {each.threshold:g} | {name} | {share.reviews:,} | "
                    f"{share.share:.2%} | {share.low:.2%} to {share.high:.2%} "
                    f"({each.confidence:.0%}) |"
                )
    if estimates:
        yield ""


def _model(run: RunRecord) -> Iterator[str]:
    model = run.model
    assert model is not None  # a run that ended says it
    source = model.source or ""
    # A folder's name, and not where somebody keeps it.
    name = posixpath.basename(source) if source.startswith("/") else source or model.name
    yield (
        f"With the model `{name}`, revision {model.revision or 'not pinned'}, at last on "
        f"{(run.started or '')[:10]}."
    )
    versions = ", ".join(f"{name} {version}" for name, version in run.libraries.items())
    yield f"Libraries: {versions}.\n"


def _policy(name: str, policy: PolicyRecord) -> Iterator[str]:
    judges = ", ".join(judge.judge for judge in policy.cascade)
    yield f"### {policy.title or name}\n"
    yield (
        f"`{name}`, version {policy.version}, threshold {policy.threshold:g} on P(violates); "
        f"judges: {judges}; key `{policy.cascade_key}`.\n"
    )
    text = (policy.text or "").replace("```", "'''")
    yield f"```markdown\n{text}\n```\n"


def _limits(card: FilterCard) -> Iterator[str]:
    yield (
        "The verdicts are a model's: some rows that violate are kept, and some that do not are "
        "removed."
    )
    if card.run.model is not None and card.run.model.source == "tiny":
        yield (
            "The model is `tiny`, which is for trying and testing: its labels on real content "
            "mean nothing."
        )
    for name, policy in card.policies.items():
        for judge, miss in policy.promises.items():
            was = "estimated" if judge in policy.estimated else "calibrated"
            yield f"{name}: {judge} was {was} to miss at most {miss:.1%} of the violations."
    for what, value in (("where", card.selection.where), ("sample", card.selection.sample)):
        if value and card.rule.unselected:
            yield (
                f"Only rows with `{what}: {value}` were judged; the others went to "
                f"`{card.rule.unselected}/` unseen."
            )
    if card.missing or card.failed:
        names = sorted({**card.missing, **card.failed})
        yield (
            f"{counted(len(names), 'input file')} could not be read, labelled or filtered, and "
            f"{are(len(names))} not in here, such as {names[0]}."
        )
