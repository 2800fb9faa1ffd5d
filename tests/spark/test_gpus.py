"""GPUs that Spark gives to tasks: made up, since what Spark does with them needs none.

In a process of its own: a cluster says at its start what its workers have.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from support.executors import SHORT_LIVED, spark_home
from support.project import ROOT, environment
from support.scripted import SCRIPT

CODE = """
import json, os, sys
import moderay, moderay.spark
from pyspark.sql import SparkSession

folder, policy, amount = sys.argv[1:]
gpus = {
    "spark.worker.resource.gpu.amount": "2",
    "spark.worker.resource.gpu.discoveryScript": f"{folder}/found",
    "spark.executor.resource.gpu.amount": "2",
    "spark.task.resource.gpu.amount": amount,
    **json.loads(os.environ["SHORT_LIVED"]),
}
builder = SparkSession.builder.master("local-cluster[1,2,2048]")
for name, value in gpus.items():
    builder = builder.config(name, value)
spark = (
    builder.config("spark.ui.enabled", "false")
    .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"])
    .getOrCreate()
)
texts = spark.sparkContext.parallelize([(f"claim your prize {n}",) for n in range(8)], 4)
df = spark.createDataFrame(texts, "text string")
try:
    two = {"source": "tiny", "engine": {"tensor_parallel_size": 2}}
    moderay.spark.label(df, "text", [policy], two)
except moderay.UserError as error:
    print("refused:", error)
labelled = moderay.spark.label(df, "text", [policy], f"scripted:{folder}/script.yaml")
print("labels:", sorted({row.spam.label for row in labelled.collect()}))
spark.stop()
"""


def test_engine_sees_the_gpu_of_its_task_and_no_other(tmp_path: Path) -> None:
    script = {**SCRIPT, "delay": {"mean_s": 0.5}}
    (tmp_path / "script.yaml").write_text(yaml.safe_dump(script))
    found = tmp_path / "found"
    found.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["4", "5"]}\'\n')
    found.chmod(0o755)
    (tmp_path / "home").mkdir()
    java = shutil.which("java")
    assert java is not None
    variables = {
        "SPARK_HOME": str(spark_home(tmp_path / "home")),
        "JAVA_HOME": str(Path(java).resolve().parents[1]),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SHORT_LIVED": json.dumps(SHORT_LIVED),
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), str(ROOT / "policies" / "spam"), "1"],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert "labels: ['SP4']" in done.stdout, done.stderr
    assert "refused: label: an engine takes 2 GPU(s) for itself, and Spark gives" in done.stdout
    logs = [log.read_text() for log in (tmp_path / "home" / "work").glob("*/*/stderr")]
    lines = [json.loads(line) for log in logs for line in log.splitlines() if line[:1] == "{"]
    engines = [line for line in lines if line["event"] == "worker has an engine"]
    assert sorted(line["gpus"] for line in engines) == ["4", "5"], logs
    assert len({line["process"] for line in engines}) == 2
