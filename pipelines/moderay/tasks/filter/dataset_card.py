"""A filtered data set's card: Markdown with YAML front matter, as the hubs read it. Made from
`filter.json` alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

# Bounds of the hubs' size categories.
_BOUNDS = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")


def dataset_card(summary: Mapping[str, Any]) -> str:
    """The text of README.md."""
    return (
        f"---\n{yaml.safe_dump(_front_matter(summary), sort_keys=False, allow_unicode=True)}---\n"
        + "\n".join(_body(summary))
        + "\n"
    )


def _front_matter(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pretty_name": f"{summary['name']}, filtered",
        "size_categories": [_size(_kept(summary))],
        "tags": ["content-moderation", "filtered", *sorted(summary["policies"])],
        "configs": [_config(end, len(summary["files"]) == 1) for end in summary["files"]],
    }


def _config(end: str, alone: bool) -> dict[str, Any]:
    """Files of one format: readers of data sets take no two at once."""
    name = "default" if alone else end.strip(".")
    return {"config_name": name, "data_files": [{"split": "train", "path": f"kept/**/*{end}"}]}


def _size(rows: int) -> str:
    power = len(str(rows)) - 4  # over a thousand
    return f"n<{_BOUNDS[0]}" if power < 0 else f"{_BOUNDS[power]}<n<{_BOUNDS[power + 1]}"


def _kept(summary: Mapping[str, Any]) -> int:
    rows = summary["rows"]
    return int(
        rows["kept"] + (rows["unselected"] if summary["rule"]["unselected"] == "kept" else 0)
    )


def _body(summary: Mapping[str, Any]) -> Iterator[str]:
    rows, rule, run = summary["rows"], summary["rule"], summary["run"]
    yield f"# {summary['name']}, filtered\n"
    yield "Rows of a data set that were judged under the policies below, and kept by this rule:\n"
    yield f"    {rule['keep']}\n"
    yield "| rows | | where |\n|---|---:|---|"
    yield f"| in {summary['shards']:,} files | {rows['in']:,} | the input |"
    for fate, what in (
        ("kept", "the rule is true"),
        ("removed", "the rule is false"),
        ("held", "the rule is null: not judged, or not known"),
    ):
        yield f"| {fate}: {what} | {rows[fate]:,} | `{fate}/` |"
    if rule["unselected"]:
        yield f"| not selected for judging | {rows['unselected']:,} | `{rule['unselected']}/` |"
    yield (
        "\nEach file has the name of its input file, and its rows in the same order; removed "
        "and held ones say why in the column `moderay`.\n"
    )
    for fate, by, each in (
        ("removed", "label", "it violates"),
        ("held", "status", "could not judge it"),
    ):
        if summary[fate]:
            yield f"## Why rows were {fate}\n"
            yield f"A row counts once for each policy that {each}.\n"
            yield f"| policy | {by} | rows |\n|---|---|---:|"
            yield from (
                f"| {policy} | {reason or 'none'} | {count:,} |"
                for policy, reasons in summary[fate].items()
                for reason, count in reasons.items()
            )
            yield ""
    yield "## How it was judged\n"
    model = run["model"]
    # A folder's name, and not where somebody keeps it.
    name = (
        posixpath.basename(model["source"])
        if model.get("source", "").startswith("/")
        else model.get("source") or model["name"]
    )
    yield (
        f"With the model `{name}`, revision {model.get('revision') or 'not pinned'}, at last "
        f"on {run['started'][:10]}."
    )
    yield (
        "Libraries: "
        f"{', '.join(f'{name} {version}' for name, version in run['libraries'].items())}.\n"
    )
    for name, policy in summary["policies"].items():
        judges = ", ".join(judge["judge"] for judge in policy["cascade"])
        yield f"### {policy['title'] or name}\n"
        yield (
            f"`{name}`, version {policy['version']}, threshold {policy['threshold']:g} on "
            f"P(violates); judges: {judges}; key `{policy['cascade_key']}`.\n"
        )
        yield "```markdown\n" + policy["cascade"][-1]["policy"].replace("```", "'''") + "\n```\n"
    yield "## Known limits\n"
    yield from (f"- {limit}" for limit in _limits(summary))


def _limits(summary: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "The verdicts are a model's: some rows that violate are kept, and some that do not are "
        "removed."
    )
    if summary["run"]["model"].get("source") == "tiny":
        yield (
            "The model is `tiny`, which is for trying and testing: its labels on real content "
            "mean nothing."
        )
    for name, policy in summary["policies"].items():
        for judge, miss in policy["promises"].items():
            yield f"{name}: {judge} was calibrated to miss at most {miss:.1%} of the violations."
    selection = summary["selection"]
    for what in ("where", "sample"):
        if selection[what] and summary["rule"]["unselected"]:
            yield (
                f"Only rows with `{what}: {selection[what]}` were judged; the others went to "
                f"`{summary['rule']['unselected']}/` unseen."
            )
    if summary["missing"] or summary["failed"]:
        names = sorted({**summary["missing"], **summary["failed"]})
        yield (
            f"{len(names):,} input files are not in here, such as {names[0]}: they could not "
            "be read, labelled or filtered."
        )
