"""Real corpora through the committed job files. With a model that knows nothing of them only the
bookkeeping counts.
"""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from benchmarks.filter import assert_whole
from support.outputs import labels, manifest_of, verdicts_of
from support.project import ROOT, SHARED
from support.scripted import SCRIPT

from moderay.engines import checkpoint
from moderay.tasks.filter.filter import filter_labels
from moderay.tasks.filter.request import filter_request, read_labels

pytestmark = pytest.mark.slow


def some(folder: str, shards: int, tmp_path: Path) -> tuple[Path, int]:
    """A copy of a corpus's first shards, and how many rows they have."""
    files = sorted((SHARED / folder).glob("*.parquet"))[:shards]
    if len(files) < shards:
        pytest.skip(f"no {folder} beside the project")
    (tmp_path / "corpus").mkdir()
    copies = [Path(shutil.copy(file, tmp_path / "corpus")) for file in files]
    return tmp_path / "corpus", sum(pq.read_metadata(copy).num_rows for copy in copies)


def assert_labelled(source: Path, out: Path, rows: int, shards: int) -> None:
    """Every row once, in order, with its columns unchanged and a status; and counts that add up."""
    actual = labels(out)
    assert len(actual) == shards and sum(map(len, actual.values())) == rows
    statuses: dict[str, int] = {}
    flagged = 0
    for name, table in actual.items():
        inputs = pq.read_table(source / name, partitioning=None)
        assert table.select(inputs.column_names).equals(inputs)
        assert table.column("row").to_pylist() == list(range(len(inputs)))
        for verdict in verdicts_of(table, "harassment"):
            assert (verdict["status"] == "ok") == (verdict["probability"] is not None)
            statuses[verdict["status"]] = statuses.get(verdict["status"], 0) + 1
        flagged += sum(filter(None, table.column("flagged").to_pylist()))
    manifest = manifest_of(out)
    counts = manifest["counts"]["harassment"]
    assert (
        manifest["complete"]
        and manifest["rows"] == rows
        and manifest["shards"] == shards
        and manifest["flagged"] == flagged
    )
    assert {name: count for name, count in counts.items() if name in statuses} == statuses and sum(
        statuses.values()
    ) == rows


def test_moderation_set_on_the_real_engine(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    corpus, rows = some("openai_moderation", 1, tmp_path)
    # Texts it never saw make tiny write as long as it may.
    short = "--set=cascade=[{reason: {budget: 48}}]"
    result = cli(
        "run",
        ROOT / "jobs/openai-moderation.yaml",
        f"--set=output.path={tmp_path}/out",
        short,
        CORPUS=str(corpus),
    )
    assert result.returncode == 0 and checkpoint.TINY_NOTICE in result.stderr, result.stderr
    assert_labelled(corpus, tmp_path / "out", rows, 1)


def test_tweets_on_the_scripted_engine(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    corpus, rows = some("tweets", 2, tmp_path)
    answer = '{"label": "HA0", "rationale": "Nothing."}'
    insult = {
        "content": "(?i)idiot|stupid",
        "answer": '{"label": "HA1", "rationale": "An insult."}',
        "p": 0.8,
    }
    (tmp_path / "script.yaml").write_text(
        yaml.safe_dump({"default": {**SCRIPT["default"], "answer": answer}, "rules": [insult]})
    )
    result = cli(
        *(
            "run",
            ROOT / "jobs/tweets.yaml",
            f"--set=output.path={tmp_path}/out",
            f"--set=model.source=scripted:{tmp_path}/script.yaml",
        ),
        CORPUS=str(corpus),
    )
    assert result.returncode == 0, result.stderr
    assert_labelled(corpus, tmp_path / "out", rows, 2)
    texts = [
        t
        for file in sorted((tmp_path / "out").glob("*.parquet"))
        for t in pq.read_table(file).select(["text", "flagged"]).to_pylist()
    ]
    assert all(
        row["flagged"] == any(word in row["text"].lower() for word in ("idiot", "stupid"))
        for row in texts
    )
    for threshold, worked in ((), True), ((), False), (("harassment=0.95",), True):
        # Another rule over what is there is asked for.
        request = filter_request(
            None,
            "NOT harassment.violates",
            str(tmp_path / "clean"),
            threshold,
            None,
            False,
            replace=bool(threshold),
        )
        assert filter_labels(read_labels(str(tmp_path / "out"), {}), request, {}).worked is worked
        counts = assert_whole(corpus, tmp_path / "clean")
        assert counts["in"] == rows and counts["removed"] == (
            0 if threshold else sum(row["flagged"] for row in texts)
        )
