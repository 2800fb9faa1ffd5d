import datetime
import json
import os
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.outputs import plain
from support.project import ROOT

from moderay.config.job import job_schema
from moderay.config.job_file import load_again, load_job
from moderay.config.yaml_document import Document, DocumentOrigin, put
from moderay.core.errors import Problems
from moderay.pipeline.check import check

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
  - scren: screens/hate
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
def test_input_problems_are_reported(
    name: str, sections: dict, job, corpus: Path, tmp_path: Path, golden
) -> None:
    golden(f"input-{name}", plain(problems(job(**sections)), tmp_path))
    assert not (tmp_path / "out").exists()


def test_output_column_in_the_input_is_refused_with_the_way_out(
    job, tmp_path: Path, golden
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"text": ["a"], "row": [1], "spam": [2]}), tmp_path / "in" / "a.parquet"
    )
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


def test_set_and_environment_fill_in_the_job(
    job, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERAY_TEST_OUT", "elsewhere")
    checked = check(
        job(output={"path": "${MODERAY_TEST_OUT}/labels"}), ["model.effort=high", "unit.bytes=2KiB"]
    )
    assert checked.job.output.path.endswith("/elsewhere/labels")
    assert (checked.job.model.effort, checked.job.unit.bytes) == ("high", 2048)
    assert [shard.name for shard in checked.scan.shards] == [
        "a.parquet",
        "b.parquet",
        "day=2/c.parquet",
    ]


def test_set_takes_the_place_of_a_variable_that_is_not_set(
    job, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODERAY_TEST_UNSET", raising=False)
    file = job(input={"path": "${MODERAY_TEST_UNSET}", "content": "text"})
    assert "MODERAY_TEST_UNSET is not set" in problems(file)
    assert check(file, ["input.path=in"]).scan.rows == 105


def test_set_with_mistakes_names_set(job, corpus: Path, tmp_path: Path, golden) -> None:
    sets = [
        "input.sample=3",
        "name",
        "name.first=x",
        "model.efort=low",
        "cascade.7.reason.budget=3",
        "unit.rows=${MODERAY_TEST_UNSET}",
    ]
    golden("set-wrong", plain(problems(job(), *sets), tmp_path))


def test_set_reaches_list_items_and_empty_sections(job, corpus: Path) -> None:
    checked = check(
        job(cascade=[{"reason": {"budget": 9}}], limits=None),
        ["cascade.0.reason.budget=7", "limits.request_s=3"],
    )
    assert (checked.job.cascade[0].reason.budget, checked.job.limits.request_s) == (7, 3)


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS,
        lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
        max_leaves=6,
    )
)
def test_set_puts_any_yaml_value_as_it_is(value: Any) -> None:
    document = Document(
        {"model": {"engine": 1}}, DocumentOrigin("job.yaml", {"model": 1, "model.engine": 2})
    )
    put(document, f"model.engine={yaml.safe_dump(value)}")
    assert (document.data, document.problems) == ({"model": {"engine": value}}, [])
    assert "model.engine" not in document.origin.lines


@pytest.mark.parametrize(
    "text",
    ["", "- a", "name: !tag x", "name: 2026-13-45", "name: \x00", "? [a, b]\n: c", "name: \xff"],
)
def test_job_file_of_any_text_gives_problems_not_a_traceback(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(text.encode("latin-1"))
    assert problems(tmp_path / "job.yaml").startswith(f"{tmp_path}/job.yaml")
    assert problems(tmp_path).startswith(f"{tmp_path}: is a folder, not a file")


def test_values_out_of_bounds_and_missing_models_are_reported(
    job, corpus: Path, tmp_path: Path, golden
) -> None:
    model = {
        "source": "./none",
        "sampling": {"temperature": float("inf"), "top_p": 0},
        "replicas": {"min": 3, "max": 2},
    }
    wrong = problems(
        job(
            model=model,
            storage="secret-word",
            cascade=[{"glance": {}}, {"reason": {"budget": 0}}],
            policies=[],
        )
    )
    assert "secret-word" not in wrong
    later = problems(
        job(
            audit=0.1,
            reuse=[],
            filter={},
            colours={},
            limits={"gpu_hours": 1, "until": "x"},
            model={"source": "scripted:none.yaml"},
        )
    )
    golden("job-bounds", plain(wrong + later, tmp_path))


def test_policies_of_one_id_are_refused_and_loaded_again_from_the_job(
    job, corpus: Path, tmp_path: Path
) -> None:
    checked = check(job())
    assert load_again(checked.job) == (checked.job, checked.policies)
    assert "two policies have the id 'spam'" in problems(
        job(policies=[checked.job.policies[0]] * 2)
    )


def test_job_survives_pickling_with_its_lines(job, corpus: Path) -> None:
    loaded = check(job()).job
    assert pickle.loads(pickle.dumps(loaded)).problem("input.content", "x").line == 4


def test_schema_for_editors_is_up_to_date_and_fits_every_job_file() -> None:
    file = ROOT / "jobs/job.schema.json"
    if os.environ.get("MODERAY_GOLDEN") == "write":
        file.write_text(json.dumps(job_schema(), indent=1) + "\n")
    schema = json.loads(file.read_text())
    assert schema == job_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for job_file in sorted((ROOT / "jobs").glob("**/*.yaml")):
        above = "" if job_file.parent.name == "jobs" else "../"
        first = f"# yaml-language-server: $schema={above}job.schema.json\n"
        assert job_file.read_text().startswith(first)
        assert not list(validator.iter_errors(yaml.safe_load(job_file.read_text())))
    assert list(validator.iter_errors({"unit": {"rows": 0}}))


def test_a_night_is_today_unless_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = "input: {path: 'in/${DATE}', content: text}\noutput: {path: 'out/${YESTERDAY}'}\n"
    (tmp_path / "job.yaml").write_text(
        f"date: ${{DATE}}\n{places}policies: ['{ROOT}/policies/spam']\n"
    )
    for variables, date, before in (
        ({"DATE": "2026-03-01"}, "2026-03-01", "2026-02-28"),
        ({"DATE": "2026-03-01", "YESTERDAY": "2026-02-27"}, "2026-03-01", "2026-02-27"),
        ({}, str(datetime.datetime.now(datetime.UTC).date()), None),
    ):
        with monkeypatch.context() as patch:
            for name in ("DATE", "YESTERDAY"):
                patch.delenv(name, raising=False)
            for name, value in variables.items():
                patch.setenv(name, value)
            job, _ = load_job(tmp_path / "job.yaml")
        assert str(job.date) == date and job.input.path == f"{tmp_path}/in/{date}"
        assert before is None or job.output.path == f"{tmp_path}/out/{before}"
