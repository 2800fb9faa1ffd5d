"""Filtering: every row ends up kept, removed or held, as it was, in order; nothing is filtered
twice, and nothing wrong is begun.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from support.outputs import manifest_file, plain
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.errors import Problems, UserError
from moderay.pipeline.check import check
from moderay.tasks.filter.filter import filter_labels
from moderay.tasks.filter.records import FATES
from moderay.tasks.filter.request import FilterRequest, check_job, filter_request, read_labels

Cli = Callable[..., subprocess.CompletedProcess[str]]
SPAM = load_policy(ROOT / "policies/spam")
KEEP = "NOT spam.violates"


def files(out: Path, fate: str) -> dict[str, pa.Table]:
    return {
        str(file.relative_to(out / fate)): pq.read_table(file, partitioning=None)
        for file in sorted((out / fate).rglob("*.parquet"))
    }


def summary(out: Path) -> dict[str, Any]:
    actual: dict[str, Any] = json.loads((out / "filter.json").read_text())
    return actual


@pytest.fixture
def labelled(job: Callable[..., Path], corpus: Path, cli: Cli, tmp_path: Path) -> Path:
    result = cli("run", job())
    assert result.returncode == 0, result.stderr
    return tmp_path / "out"


def test_job_is_labelled_and_filtered_at_once_and_another_threshold_asks_no_model(
    job, corpus: Path, cli: Cli, tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    file, out = job(filter={"keep": KEEP, "out": "clean"}), tmp_path / "clean"
    result = cli("filter", file)
    assert result.returncode == 0, result.stderr
    golden("filter", plain(result.stdout.partition("labels: ")[2], tmp_path))
    kept, removed, held = (files(out, fate) for fate in FATES)
    for name, shard in (
        (str(path.relative_to(corpus)), pq.read_table(path, partitioning=None))
        for path in sorted(corpus.rglob("*.parquet"))
    ):
        blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(shard["text"], "")), "")
        bad = pc.fill_null(pc.match_substring_regex(shard["text"], "prize|shop"), False)
        assert kept[name].equals(
            shard.filter(pc.and_not(pc.invert(blank), bad)), check_metadata=True
        )
        assert removed[name].drop_columns("moderay").equals(shard.filter(bad))
        assert held[name].drop_columns("moderay").equals(shard.filter(blank))
        for row in removed[name].to_pylist():
            [reason] = row["moderay"]["reasons"]
            expected = ("SP4", "A prize.") if "prize" in row["text"] else ("SP2", "A shop.")
            assert (reason["policy"], reason["label"], reason["rationale"]) == (
                "spam",
                *expected,
            )
            assert (
                reason["violates"]
                and reason["threshold"] == 0.5
                and shard["id"][row["moderay"]["row"]].as_py() == row["id"]
            )
        assert {
            reason["status"]
            for row in held[name].to_pylist()
            for reason in row["moderay"]["reasons"]
        } == {"empty"}
    counts = summary(out)["rows"]
    assert counts["kept"] + counts["removed"] + counts["held"] == counts["input"] == 105
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (
        front["size_categories"] == ["n<1K"]
        and front["configs"][0]["data_files"][0]["path"] == "kept/**/*.parquet"
    )
    assert KEEP in card and SPAM.text.splitlines()[2] in card and "| spam | SP4 | 18 |" in card
    page = (out / "filter.html").read_text("utf-8")
    assert KEEP in page and f"<bdi>{counts['kept']}</bdi>" in page
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    result = cli("filter", file)
    assert (
        result.returncode == 0
        and "nothing to do: 3 shards with 105 rows are filtered" in result.stdout
    ), result.stdout + result.stderr
    assert {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()
    }.items() <= before.items()
    (tmp_path / "script.yaml").unlink()  # another threshold asks no model
    finished = ("filter", "--labels", tmp_path / "out", "--keep", KEEP, "--out", out)
    stricter = ("--threshold", "spam=0.85", "--verdicts")
    result = cli(*finished, *stricter)
    assert result.returncode == 2 and (
        "clean was filtered by another rule: threshold spam=0.5, without verdicts" in result.stderr
    )
    assert summary(out)["rule"]["thresholds"] == {"spam": 0.5}
    result = cli(*finished, *stricter, "--replace")
    assert result.returncode == 0, result.stderr
    assert cli(*finished, *stricter).returncode == 0
    assert summary(out)["removed"] == {"spam": {"SP4": 18}} and summary(out)["rule"][
        "thresholds"
    ] == {"spam": 0.85}
    for table in files(out, "kept").values():
        for row in table.to_pylist():
            assert (
                row["spam"]["violates"] is False
                and row["spam"]["label"] == "SP0"
                and ("prize" not in row["text"])
            )


def test_rows_outside_a_selection_go_where_they_are_told_to_and_shards_that_go_are_forgotten(
    job, corpus: Path, cli: Cli, tmp_path: Path, monkeypatch
) -> None:  # type: ignore[no-untyped-def]
    file, out = job(input={"path": "in", "content": "text", "where": "n < 10"}), tmp_path / "clean"
    command = ("filter", file, "--keep", KEEP, "--out", out)
    result = cli(*command)
    assert (
        result.returncode == 2
        and "--unselected keep, remove or hold" in result.stderr
        and not (tmp_path / "out").exists()
    )
    assert cli(*command, "--unselected", "keep", "--verdicts").returncode == 0
    for table in files(out, "kept").values():
        assert [row["spam"] and row["spam"]["violates"] for row in table.to_pylist()] == [
            None if row["n"] >= 10 else False for row in table.to_pylist()
        ]
    monkeypatch.setenv("RAY_ADDRESS", "local")  # in threads
    filter_labels(
        read_labels(str(tmp_path / "out"), {}),
        FilterRequest(KEEP, str(out), {}, "keep", False, True),
        {},
    )
    for name, table in files(out, "kept").items():
        source = pq.read_table(corpus / name, partitioning=None)
        texts = source.filter(
            pc.or_(pc.greater_equal(source["n"], 10), pc.is_in(source["n"], pa.array([0, 3, 6, 9])))
        )
        assert table.equals(texts)
    assert summary(out)["rows"] == {
        "input": 105,
        "kept": 12,
        "removed": 12,
        "held": 6,
        "unselected": 75,
    }
    (corpus / "a.parquet").unlink()
    assert cli("run", file, "--prune").returncode == 0
    result = cli(*command, "--unselected", "hold")
    assert result.returncode == 2 and "another rule: unselected rows kept" in result.stderr
    result = cli(*command, "--unselected", "hold", "--replace")
    assert (
        result.returncode == 0 and "removed, since its labels are gone: a.parquet" in result.stdout
    ), result.stdout + result.stderr
    assert (
        sorted(files(out, "kept")) == sorted(files(out, "held")) == ["b.parquet", "day=2/c.parquet"]
    )
    for table in files(out, "held").values():
        assert [row["moderay"]["row"] for row in table.to_pylist()] == [4, 5, *range(10, 35)]


def test_rows_may_go_beside_a_single_input_file_and_not_over_it(job, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "in/clean/kept"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a day"]}), folder / "a.parquet")
    checked = check(job(input={"path": "in/clean/kept/a.parquet", "content": "text"}))

    def ask(out: Path) -> None:
        check_job(filter_request(checked.job, KEEP, str(out), (), None, False), checked)

    ask(folder / "clean")
    with pytest.raises(
        Problems, match=r"holds the input .*kept/a\.parquet, which would be replaced"
    ):
        ask(tmp_path / "in/clean")


def test_everything_wrong_is_told_at_once_and_nothing_is_written(
    labelled: Path, job, corpus: Path, cli: Cli, tmp_path: Path, golden
) -> None:  # type: ignore[no-untyped-def]
    before = sorted(tmp_path.rglob("*"))
    requests = [
        "filter",
        "--labels",
        labelled,
        "--keep",
        "NOT (span.violates OR n > 3)",
        "--out",
        corpus / "clean",
    ]
    refused = cli(*requests, "--threshold", "hate=0.7", "--threshold", "spam=1.5")
    assert refused.returncode == 2
    result = [refused.stderr]

    def messages(call: Callable[[], object]) -> None:
        with pytest.raises(UserError) as caught:
            call()
        result.append(f"{caught.value}\n")

    def filtered(labels: Path, keep: str = KEEP) -> None:
        filter_labels(
            read_labels(str(labels), {}), FilterRequest(keep, str(tmp_path / "clean"), {}), {}
        )

    for keep in (
        "spam.violate IS FALSE",
        "spam",
        "NOT spam.violates AND",
        "SUM(spam.probability) < 1",
        "TRUE",
        "spam.probability",
    ):
        messages(lambda keep=keep: filtered(labelled, keep))
    messages(lambda: filtered(corpus))
    messages(lambda: filter_request(None, None, "clean", (), None, False))
    messages(lambda: filter_request(None, KEEP, "clean", ("spam",), None, False))
    messages(lambda: filter_request(None, KEEP, "clean", (), "drop", False))
    assert sorted(tmp_path.rglob("*")) == before
    table = pq.read_table(corpus / "b.parquet")
    (tmp_path / "named").mkdir()
    pq.write_table(
        table.rename_columns(["moderay", "text", "flagged"]), tmp_path / "named/a.parquet"
    )
    named = check(
        job(input={"path": "named", "content": "text"}, output={"path": "named-out", "columns": []})
    )
    messages(
        lambda: check_job(
            filter_request(
                named.job, KEEP, str(tmp_path / "named/clean"), ("spam=1.5", "hate=0.5"), None, True
            ),
            named,
        )
    )
    pq.write_table(table.slice(0, 20), corpus / "b.parquet")
    (corpus / "a.parquet").unlink()
    messages(lambda: filtered(labelled))
    manifest = manifest_file(labelled)
    data = json.loads(manifest.read_text())
    data["runs"][-1]["status"] = "stopped"
    manifest.write_text(json.dumps(data))
    messages(lambda: filtered(labelled))
    assert not (tmp_path / "clean").exists()
    golden("filter-problems", plain("\n".join(result), tmp_path))


@pytest.mark.slow
def test_killed_filter_goes_on_where_it_stopped(job, cli: Cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    for shard in range(16):
        rows = {
            "text": [f"{'prize' if i % 3 else 'day'} {shard} {i}" for i in range(50)],
            "blob": [os.urandom(20_000)] * 50,
        }
        pq.write_table(pa.table(rows), tmp_path / f"in/{shard:02d}.parquet")
    assert (
        cli("run", job(output={"path": "out", "columns": []}, unit={"rows": 1000})).returncode == 0
    )
    command = [
        "filter",
        "--labels",
        str(tmp_path / "out"),
        "--keep",
        KEEP,
        "--out",
        str(tmp_path / "clean"),
    ]
    markers = tmp_path / "clean/_moderay/shards"
    env = os.environ | {"RAY_ADDRESS": "local"}
    process = subprocess.Popen(
        [sys.executable, "-m", "moderay", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    while len(list(markers.glob("*.json"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "clean/filter.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in markers.glob("*.json")}
    assert 3 <= len(kept) < 16
    result = cli(*command, RAY_ADDRESS="local")
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert summary(tmp_path / "clean")["rows"] == {
        "input": 800,
        "kept": 272,
        "removed": 528,
        "held": 0,
        "unselected": 0,
    }
    assert [len(table) for table in files(tmp_path / "clean", "kept").values()] == [17] * 16
