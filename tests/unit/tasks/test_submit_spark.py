"""What a job on Spark is refused for, before Spark or Ray is started."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyspark
import pytest
from support.project import environment
from support.ray_cluster import free_port

import moderay
import moderay.spark
from moderay.core.errors import Problems, StoppedError, TryAgainError, UserError
from moderay.tasks.submit import spark_session, spark_workers
from moderay.tasks.submit.ray_on_spark import Signals
from moderay.tasks.submit.spark import run_on_spark
from moderay.tasks.submit.spark_session import assert_master
from moderay.tasks.submit.spark_workers import RayWorkers, executor_error, ray_workers


@pytest.fixture
def portable(job: Callable[..., Path], tmp_path: Path) -> Path:
    """A job whose paths mean the same on every machine."""
    return job(
        input={"path": str(tmp_path / "in"), "content": "text"},
        output={"path": str(tmp_path / "out")},
    )


def _refusal(portable: Path) -> str:
    with pytest.raises(UserError) as caught:
        run_on_spark(portable)
    assert not (portable.parent / "out").exists()
    return str(caught.value)


def test_spark_that_is_not_installed_or_too_old_is_named(
    portable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pyspark, "__version__", "3.3.4")
        assert "needs Spark 3.4 or newer, and PySpark here is 3.3.4" in _refusal(portable)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyspark" else real(name)
    )
    assert "pip install 'moderay[spark]'" in _refusal(portable)


def test_machine_without_java_is_told_of_it(
    portable: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("JAVA_HOME", "PYSPARK_GATEWAY_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no `java` here nor JAVA_HOME" in _refusal(portable)


def test_job_with_paths_of_this_machine_is_refused_before_spark_is_looked_for(
    job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Problems, match="lies beside the job file"):
        run_on_spark(job())


@pytest.mark.parametrize(
    ("master", "message"),
    [
        (None, "its master is not set"),
        ("local[*]", "`moderay run` needs no Spark"),
        ("k8s://https://host:443", "moderay submit --kuberay"),
    ],
)
def test_spark_that_ray_cannot_run_on_is_refused(master: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        assert_master(master)
    for fit in ("spark://a:7077,b:7077", "yarn", "local-cluster[2,1,4096]"):
        assert_master(fit)


def test_masters_of_which_none_answers_are_named() -> None:
    masters = f"spark://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with pytest.raises(TryAgainError, match="no Spark master answers") as caught:
        spark_session._await_master(masters)
    assert masters in str(caught.value)


class FakeSpark:
    """A session with executors of some cores, whose tasks run here."""

    def __init__(self, cores: list[int], **conf: str) -> None:
        executors = [
            SimpleNamespace(id=lambda number=number: str(number), totalCores=lambda n=n: n)
            for number, n in enumerate(cores)
        ]
        executors.append(SimpleNamespace(id=lambda: "driver", totalCores=lambda: 0))
        listed = SimpleNamespace(size=lambda: len(executors), apply=executors.__getitem__)
        store = SimpleNamespace(executorList=lambda _: listed)
        self.task_error: Exception | None = None
        self.sparkContext = SimpleNamespace(
            getConf=lambda: SimpleNamespace(
                get=lambda key, default=None: conf.get(key.replace(".", "_"), default)
            ),
            _jsc=SimpleNamespace(sc=lambda: SimpleNamespace(statusStore=lambda: store)),
            parallelize=lambda rows, _: SimpleNamespace(
                map=lambda task: SimpleNamespace(collect=lambda: self._run(task, rows))
            ),
        )

    def _run(self, task: Callable[[int], Any], rows: list[int]) -> list[Any]:
        if self.task_error is not None:
            raise self.task_error
        return [task(row) for row in rows]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment()["PATH"])
    monkeypatch.setattr(spark_workers, "EXECUTORS_S", 0.3)
    monkeypatch.setattr(spark_workers, "SETTLED_S", 0.0)
    monkeypatch.setattr(spark_workers, "LOOK_S", 0.01)


def _workers(spark: FakeSpark, wanted: int | None = None) -> RayWorkers:
    return ray_workers(spark, wanted)  # type: ignore[arg-type]


@pytest.mark.usefixtures("soon")
def test_each_executor_is_a_worker_as_large_as_the_smallest() -> None:
    gpus = {"spark_executor_resource_gpu_amount": "2"}
    assert _workers(FakeSpark([8, 4, 8], **gpus)) == RayWorkers(3, 4, 2)
    assert _workers(FakeSpark([4, 4]), 1) == RayWorkers(1, 4, 0)
    elastic = FakeSpark([4], spark_dynamicAllocation_enabled="true")
    assert _workers(elastic, 5) == RayWorkers(5, 4, 0)


@pytest.mark.usefixtures("soon")
def test_more_workers_than_executors_are_refused() -> None:
    with pytest.raises(UserError, match="--workers 3: there are 2 executors"):
        _workers(FakeSpark([1, 1]), 3)
    with pytest.raises(UserError, match="say how many with --workers"):
        _workers(FakeSpark([1], spark_dynamicAllocation_enabled="true"))
    with pytest.raises(TryAgainError, match="Spark gave no executor"):
        _workers(FakeSpark([]))


@pytest.mark.usefixtures("soon")
def test_executors_that_lack_what_a_run_needs_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spark = FakeSpark([1])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no `ray`.*spark\.executorEnv\.PATH"):
        _workers(spark)
    spark.task_error = RuntimeError("PythonException: ...\nNo module named 'ray'\n")
    with pytest.raises(UserError, match="no Python module 'ray'"):
        _workers(spark)
    assert isinstance(executor_error(RuntimeError("[PYTHON_VERSION_MISMATCH] ...")), UserError)
    assert "executor lost" in str(executor_error(RuntimeError("executor lost\nat ...")))


def test_signals_are_counted_and_raised_where_nothing_else_ends_the_work() -> None:
    signals = Signals()
    before = signal.getsignal(signal.SIGTERM)
    with signals.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.count == 1
        signals.raises = True
        with pytest.raises(StoppedError, match="stopped by SIGINT") as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert caught.value.exit_status == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_example_of_run_does_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(moderay.spark.run) or ""
    example = doctest.DocTestParser().get_doctest(text, {"moderay": moderay}, "run", None, None)
    wrong: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=wrong.append)
    assert example.examples and not wrong, "".join(wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--spark", "--address", "http://head:8265"), "leave --address and --kuberay out"),
        (("--spark", "--kuberay"), "leave --address and --kuberay out"),
        (("--address", "http://head:8265", "--workers", "2"), "--workers belongs to --spark"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    portable: Path, cli: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    refused = cli("submit", portable, *options)
    assert refused.returncode == 2 and message in refused.stderr
