"""`import moderay`: what it offers is there, loads late, does what its examples show, and refuses
wrong arguments at once.
"""

from __future__ import annotations

import doctest
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import ray
import yaml
from support.project import ROOT
from support.scripted import SCRIPT

import moderay

ROWS = 600
JOB = {
    "input": {"path": "corpus", "content": "text"},
    "output": {"path": "labels"},
    "policies": ["policies/spam"],
    "model": {"source": "scripted:script.yaml"},
}
OF_JOBS = [
    moderay.load_job,
    moderay.Job.from_dict,
    moderay.load_policy,
    moderay.check,
    moderay.plan,
    moderay.diff_policy,
    moderay.diff_repeats,
]
OF_LABELS = [
    moderay.read_labels,
    moderay.diff,
    moderay.filter,
    moderay.trend,
    moderay.plan_prevalence,
    moderay.prevalence,
    moderay.output_status,
    moderay.report,
    moderay.verify,
    moderay.decide,
    moderay.calibrate,
    moderay.tune,
    moderay.voided,
    moderay.explain,
    moderay.export_sft,
    moderay.evaluate,
    moderay.evaluate_benchmarks,
    moderay.evaluate_policies,
    moderay.export_reviews,
    moderay.import_reviews,
    moderay.add_golden,
    moderay.label,
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, joined_ray: None) -> Iterator[Path]:
    """The folder in which examples are run: half of its texts are spam."""
    folder = tmp_path_factory.mktemp("project")
    words = ("claim your prize", "hello there")
    texts = [f"{words[number % 2]} {number}" for number in range(ROWS)]
    (folder / "corpus").mkdir()
    pl.DataFrame({"id": range(ROWS), "text": texts}).write_parquet(folder / "corpus/part-0.parquet")
    shutil.copytree(ROOT / "policies", folder / "policies")
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    (folder / "job.yaml").write_text(yaml.safe_dump(JOB))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def labelled(project: Path) -> None:
    """Its labels, which the example of `run` makes."""
    follow_examples(moderay.run)


def follow_examples(function: Callable[..., object]) -> None:
    """Run what a docstring shows, and compare."""
    text = inspect.getdoc(function) or ""
    names = {"moderay": moderay, "ray": ray, "pl": pl}
    example = doctest.DocTestParser().get_doctest(text, names, function.__name__, None, None)
    assert example.examples, f"{function.__name__} has no example"
    wrong: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=wrong.append)
    assert not wrong, "".join(wrong)


@pytest.mark.parametrize("function", OF_JOBS, ids=lambda function: function.__name__)
def test_examples_of_jobs_and_policies_do_what_they_show(
    project: Path, function: Callable[..., object]
) -> None:
    follow_examples(function)


@pytest.mark.parametrize("function", OF_LABELS, ids=lambda function: function.__name__)
def test_examples_with_labels_do_what_they_show(
    labelled: None, function: Callable[..., object]
) -> None:
    follow_examples(function)


def test_every_function_has_an_example() -> None:
    offered = {getattr(moderay, name) for name in moderay.__all__}
    functions = {value for value in offered if inspect.isfunction(value)}
    assert functions == {moderay.run, *OF_JOBS, *OF_LABELS} - {moderay.Job.from_dict}


def test_import_loads_nothing_heavy_and_offers_what_it_names(tmp_path: Path) -> None:
    code = """
import json, sys, moderay
assert set(moderay.__all__) <= set(dir(moderay))
moderay.UserError, moderay.load_policy, moderay.__version__
heavy = ["ray", "vllm", "torch", "transformers", "pandas", "polars", "pyarrow", "pydantic"]
loaded = [name for name in heavy if name in sys.modules]
print(json.dumps([loaded, [name for name in moderay.__all__ if not hasattr(moderay, name)]]))
"""
    actual = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert json.loads(actual.stdout) == [[], []]


HEAVY = (
    "ray vllm torch transformers scipy sklearn pandas polars aiohttp requests s3fs sqlglot".split()
)
AFTER = f"""
import json, sys
from moderay.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["check", "job.yaml"],
        ["status", "labels"],
        ["plan", "job.yaml"],
        ["run", "job.yaml"],
    ],
    ids=lambda command: command[0],
)
def test_command_that_needs_nothing_heavy_loads_nothing_heavy(
    command: list[str], project: Path, labelled: None
) -> None:
    """The job is finished, so that neither `plan` nor `run` has rows to look at.

    Which modules, and not how many seconds, which depend on the machine: Ray, SciPy, aiohttp,
    pandas and Polars would be half of the time of a run that has nothing to do.
    """
    ended = subprocess.run(
        [sys.executable, "-c", AFTER, *command], capture_output=True, text=True, cwd=project
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == []


def test_name_that_is_not_offered_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'moderay' has no attribute 'rum'"):
        moderay.rum  # noqa: B018  # looked up, and that is all


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moderay.run("none.yaml"), "none.yaml: no such file"),
        (lambda: moderay.run(None), "job: the path of a job file or a Job is wanted, not NoneType"),
        (lambda: moderay.check("job.yaml", "unit.rows=0"), "unit.rows: should be at least"),
        (lambda: moderay.check("job.yaml", ["unit.rwos=1"]), "did you mean 'rows'?"),
        (lambda: moderay.plan("job.yaml", rate=0), "rate: a number above 0 is wanted, not 0"),
        (lambda: moderay.trend(outputs="labels", nights=0), "nights: a number above 0 is wanted"),
        (
            lambda: moderay.Job.from_dict(JOB | {"outptu": {}, "model": {"effort": "some"}}),
            "job: unknown key 'outptu'\n    hint: did you mean 'output'?",
        ),
        (
            lambda: moderay.check(moderay.Job.from_dict(JOB | {"policies": ["policies/none"]})),
            "policies/none: no policy.md in this policy folder",
        ),
        (
            lambda: moderay.check(
                moderay.Job.from_dict(JOB | {"model": {"source": "scripted:none.yaml"}})
            ),
            "no such file of scripted answers",
        ),
        (lambda: moderay.load_policy("corpus"), "corpus: no policy.md in this policy folder"),
    ],
)
def test_wrong_arguments_are_problems_at_once(
    project: Path, call: Callable[[], object], message: str
) -> None:
    with pytest.raises(moderay.Problems) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: moderay.filter(), "either a job file or --labels DIR"),
        (lambda: moderay.filter(labels="labels", out="o"), "filter needs --keep RULE"),
        (lambda: moderay.trend(), "trend takes outputs"),
        (lambda: moderay.read_labels("corpus"), "holds no labels of moderay"),
        (lambda: moderay.read_labels("labels", format="pandas"), "valid are polars, arrow"),
        (
            lambda: moderay.calibrate(
                "job.yaml", policy="spam", out="s", labels="l", judge="rules"
            ),
            "valid are screen, glance",
        ),
    ],
)
def test_calls_that_cannot_be_answered_are_one_sentence(
    project: Path, call: Callable[[], object], message: str
) -> None:
    with pytest.raises(moderay.UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ({"content": "txt"}, ["label: content: no column 'txt'"]),
        ({"ds": [{"text": "a"}]}, ["label: ds: a Dataset of Ray is wanted, not list"]),
        ({"policies": []}, ["label: policies: should name at least 1"]),
        (
            {"policies": ["policies/none"], "model": {"sauce": "tiny"}, "audti": 1},
            ["unknown setting 'audti'", "did you mean 'audit'?", "'model.sauce'", "policies/none"],
        ),
    ],
)
def test_label_refuses_wrong_arguments_before_anything_is_judged(
    project: Path, arguments: dict[str, object], messages: list[str]
) -> None:
    right = {"ds": ray.data.from_items([{"text": "hello"}]), "content": "text"}
    with pytest.raises(moderay.Problems) as caught:
        moderay.label(**(right | {"policies": ["policies/spam"]} | arguments))  # type: ignore[arg-type]
    assert all(message in str(caught.value) for message in messages), str(caught.value)


def test_job_made_in_python_is_the_job_of_the_file(labelled: None) -> None:
    made = moderay.Job.from_dict(JOB)
    assert made.model_dump() == moderay.load_job("job.yaml").model_dump()
    outcome = moderay.run(made)
    assert (outcome.exit_status, outcome.worked) == (0, False)


@pytest.mark.slow
def test_run_ends_with_a_report_unless_the_job_says_none(labelled: None, tmp_path: Path) -> None:
    report = Path("labels/_moderay/report.html")
    assert "600" in report.read_text("utf-8")
    report.unlink()
    # Nothing was left to do, and so nothing is written.
    assert moderay.run("job.yaml").report is None and not report.exists()
    for choice, out in (("html", tmp_path / "with"), ("none", tmp_path / "without")):
        outcome = moderay.run(
            "job.yaml", [f"report={choice}", f"output.path={out}", "reuse=[labels]"]
        )
        assert outcome.worked and not outcome.report_failed
        assert (out / "_moderay/report.html").exists() == (choice == "html")
        assert outcome.report == (f"{out}/_moderay/report.html" if choice == "html" else None)


def test_job_that_is_set_otherwise_leaves_the_first_as_it_is(project: Path) -> None:
    job = moderay.load_job("job.yaml")
    checked = moderay.check(job, ["unit.rows=7"])
    assert (checked.job.unit.rows, job.unit.rows) == (7, 512)
    assert (
        job.problem("unit", "x").line is None and checked.job.problem("unit", "x").file == "--set"
    )


@pytest.mark.slow
def test_labels_in_hive_folders_have_their_keys_as_columns(project: Path, tmp_path: Path) -> None:
    for day in ("2026-11-20", "2026-11-21"):
        folder = tmp_path / "corpus" / f"date={day}"
        folder.mkdir(parents=True)
        pl.DataFrame({"text": [f"hello {day}"]}).write_parquet(folder / "a.parquet")
    data = JOB | {"input": {"path": str(tmp_path / "corpus"), "content": "text"}}
    out = tmp_path / "labels"
    moderay.run(moderay.Job.from_dict(data | {"output": {"path": out, "columns": ["text"]}}))
    frame = moderay.read_labels(out).select("text", "date").collect()
    assert frame.to_dicts() == [
        {"text": f"hello {day}", "date": day} for day in ("2026-11-20", "2026-11-21")
    ]
    table = moderay.read_labels(out, format="arrow").to_table(columns=["text", "date"])
    assert table.to_pylist() == frame.to_dicts()
