from pathlib import Path
from typing import Any

import pytest

from moderay.config.job import Job, job_schema
from moderay.config.paths import absolute_path, absolute_source, beside

JOB: dict[str, Any] = {
    "input": {"path": ["in", "/data/*.parquet", "s3://corpus/x"], "content": "text"},
    "output": {"path": "../labels"},
    "policies": ["policies/spam"],
    "cascade": [{"screen": "screens/spam"}, {"glance": {"path": "./bands/spam"}}, "reason"],
    "reuse": ["labels/date=*"],
    "filter": {"keep": "NOT spam.violates", "out": "clean"},
    "model": {"source": "scripted:answers.yaml"},
}


def test_every_path_of_a_job_is_as_seen_from_its_folder(tmp_path: Path) -> None:
    job = Job.model_validate(JOB, context=beside(tmp_path))
    assert job.input.paths == [f"{tmp_path}/in", "/data/*.parquet", "s3://corpus/x"]
    assert job.output.path == f"{tmp_path.parent}/labels"
    assert job.policies == [f"{tmp_path}/policies/spam"]
    screen, glance = job.cascade[0].screen, job.cascade[1].glance
    assert screen is not None and screen.path == f"{tmp_path}/screens/spam"
    assert glance is not None and glance.path == f"{tmp_path}/bands/spam"
    assert job.reuse == [f"{tmp_path}/labels/date=*"]
    assert job.filter is not None and job.filter.out == f"{tmp_path}/clean"
    assert job.model.source == f"scripted:{tmp_path}/answers.yaml"


def test_validation_leaves_what_was_written_alone(tmp_path: Path) -> None:
    before = repr(JOB)
    Job.model_validate(JOB, context=beside(tmp_path))
    assert repr(JOB) == before


def test_job_made_in_python_keeps_its_paths(tmp_path: Path) -> None:
    job = Job.model_validate(JOB)
    assert job.output.path == "../labels" and job.model.source == "scripted:answers.yaml"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/../b/", "/jobs/b"),
        (".", "/jobs"),
        ("/abs//x", "/abs/x"),
        ("s3://bucket/../x", "s3://bucket/../x"),
        ("${CORPUS}/x", "${CORPUS}/x"),
    ],
)
def test_path_is_normal_and_absolute(path: str, expected: str) -> None:
    assert absolute_path(path, Path("/jobs")) == expected


def test_model_source_is_a_path_only_where_it_looks_like_one_or_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    sources = ("tiny", "openai/gpt-oss-safeguard-20b", "s3://models/m", "mine", "./none", "/m")
    assert [absolute_source(source, tmp_path) for source in sources] == [
        "tiny",
        "openai/gpt-oss-safeguard-20b",
        "s3://models/m",
        f"{tmp_path}/mine",
        f"{tmp_path}/none",
        "/m",
    ]


def test_editors_see_paths_as_plain_texts_and_every_key_described() -> None:
    schema = job_schema()
    assert schema["properties"]["policies"]["items"] == {"type": "string"}
    assert schema["$defs"]["Output"]["properties"]["path"]["type"] == "string"
    for name, section in {"Job": schema, **schema["$defs"]}.items():
        for key, spec in section["properties"].items():
            # A section whose key says no more than the section itself is described there.
            own = spec if "description" in spec else schema["$defs"][spec["$ref"].split("/")[-1]]
            assert own["description"] and "\n" not in own["description"], f"{name}.{key}"
