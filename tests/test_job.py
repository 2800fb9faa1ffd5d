from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import plain

from moderay.check import check
from moderay.errors import Problems

WRONG = """\
name: wrong
input:
  path: in
  contnt: text
  sample: 2
output: {path: "${MODERAY_TEST_UNSET}/labels", columns: some}
policies: [nowhere/harasment]
model: {effort: lo, replicas: none}
cascade:
  - screen: screens/hate
unit: {bytes: 64MiX}
windows: {tokens: 100, overlap: 100}
limit: {request_s: 3}
name: again
"""


def problems(file: Path, *sets: str) -> str:
    with pytest.raises(Problems) as caught:
        check(file, sets)
    assert caught.value.exit_status == 2
    return str(caught.value) + "\n"


def test_job_file_with_many_mistakes_reports_all_at_once(tmp_path: Path, golden) -> None:
    (tmp_path / "job.yaml").write_text(WRONG)
    golden("job-wrong", plain(problems(tmp_path / "job.yaml", "outptu.path=x"), tmp_path))


def test_job_file_that_is_no_yaml_or_missing_says_so(tmp_path: Path, golden) -> None:
    (tmp_path / "job.yaml").write_text("a: [1,\nb: 2")
    text = problems(tmp_path / "job.yaml") + problems(tmp_path / "none.yaml")
    golden("job-no-yaml", plain(text, tmp_path))


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("missing-column", {"input": {"path": "in", "content": "txet"}}),
        ("wrong-type", {"input": {"path": "in", "content": "n"}}),
        ("no-files", {"input": {"path": "elsewhere/*.parquet", "content": "text"}}),
        ("output-inside", {"output": {"path": "in/labels"}}),
        ("columns-unknown", {"output": {"path": "out", "columns": ["id", "tetx"]}}),
        ("where-unknown", {"input": {"path": "in", "content": "text", "where": "lang = 'en'"}}),
    ],
)
def test_input_problems_are_reported(name: str, sections: dict, job, corpus: Path, tmp_path: Path, golden) -> None:
    golden(f"input-{name}", plain(problems(job(**sections)), tmp_path))
    assert not (tmp_path / "out").exists()


def test_output_column_in_the_input_is_refused_with_the_way_out(job, tmp_path: Path, golden) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["a"], "row": [1], "spam": [2]}), tmp_path / "in" / "a.parquet")
    golden("input-reserved", plain(problems(job()), tmp_path))
    assert check(job(output={"path": "out", "columns": ["text"]})).scan.columns.names == ["text"]


def test_no_rows_and_another_schema_are_problems(job, tmp_path: Path, golden) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in" / "a.parquet")
    empty = problems(job())
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": ["x"]}), tmp_path / "in" / "b.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "in" / "c.parquet")
    golden("input-schemas", plain(empty + problems(job()), tmp_path))


def test_unreadable_file_is_a_warning(job, corpus: Path) -> None:
    (corpus / "torn.parquet").write_bytes((corpus / "a.parquet").read_bytes()[:-30])
    scan = check(job()).scan
    assert [name for name, _ in scan.unreadable] == ["torn.parquet"]
    assert scan.rows == 105


def test_set_and_environment_fill_in_the_job(job, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODERAY_TEST_OUT", "elsewhere")
    checked = check(job(output={"path": "${MODERAY_TEST_OUT}/labels"}), ["model.effort=high", "unit.bytes=2KiB"])
    assert checked.job.output.path.endswith("/elsewhere/labels")
    assert (checked.job.model.effort, checked.job.unit.bytes) == ("high", 2048)
    assert [shard.name for shard in checked.scan.shards] == ["a.parquet", "b.parquet", "day=2/c.parquet"]
