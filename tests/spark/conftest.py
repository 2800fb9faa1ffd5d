"""One Spark cluster for all tests over it: two executors of one core each, each a process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from support.executors import SHORT_LIVED, spark_home
from support.project import environment

MASTER = "local-cluster[2,1,4096]"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without Java nothing here can run."""
    if shutil.which("java") is None:
        reason = "Spark needs Java: make packages installs it"
        for item in items:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session on the cluster. Executors and their Python have this package and the tests' own."""
    java = shutil.which("java")
    assert java is not None
    variables = {
        "SPARK_HOME": str(spark_home(tmp_path_factory.mktemp("spark-home"))),
        "JAVA_HOME": str(Path(java).resolve().parents[1]),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": environment()["PYTHONPATH"],
        "PATH": environment()["PATH"],
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        session = (
            SparkSession.builder.master(MASTER)
            .appName("moderay tests")
            .config(map=SHORT_LIVED)
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.local.dir", str(tmp_path_factory.mktemp("spark-local")))
            .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.executorEnv.PYTHONPATH", variables["PYTHONPATH"])
            .getOrCreate()
        )
        session.sparkContext.setLogLevel("ERROR")
        yield session
        session.stop()
