"""Columns of a DataFrame go through `moderay.spark.label` as they are, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import DataFrame, SparkSession
from support.project import ROOT
from support.scripted import SCRIPT

import moderay.spark

POLICIES = [str(ROOT / "policies" / "spam")]
ADDED = ["content_hash", "flagged", "spam"]
# Of every type that Arrow carries; each stands there filled, null where it may be, and in a list.
VALUES = {
    "boolean": "true",
    "byte": "cast(-128 as byte)",
    "short": "cast(32767 as short)",
    "int": "-2147483648",
    "long": "9223372036854775807",
    "float": "cast('NaN' as float)",
    "double": "double('-Infinity')",
    "decimal": "cast('-9999999999999999999999999999.9999999999' as decimal(38,10))",
    "small_decimal": "cast(1.25 as decimal(5,2))",
    "string": "'caf\u00e9 \U0001f600'",
    "collated": "'A' collate UTF8_LCASE",
    "char": "cast('ab' as char(5))",
    "varchar": "cast('ab' as varchar(5))",
    "binary": "unhex('00ff80')",
    "date": "date'0001-01-01'",
    "timestamp": "timestamp'2024-03-31 01:30:00.123456'",
    "timestamp_ntz": "timestamp_ntz'9999-12-31 23:59:59.999999'",
    "interval_day": "interval '-3 04:05:06.789' day to second",
    "interval_hour": "interval '3' hour",
    "array": "array(array(1, null), null)",
    "map": "map('a', 1, 'b', null)",
    "map_of_structs": "map(named_struct('k', 1), array(date'2020-01-01', null))",
    "struct": "named_struct('x', 1, 'y', named_struct('z', 'q', 'n', cast(null as int)))",
    "variant": 'parse_json(\'{"a": [1, 2.5, null, "x"]}\')',
    "geometry": "st_geomfromwkb(unhex('0101000000000000000000F03F0000000000000040'))",
    "geography": "st_geogfromwkb(unhex('0101000000000000000000F03F0000000000000040'))",
}
# Spark has them, and Arrow, or Spark's way to it, does not.
REFUSED = {
    "months": "interval '1-2' year to month",
    "calendar": "make_interval(1, 2, 3, 4, 5, 6, 7.5)",
    "months in a list": "array(interval '1' year)",
    "an empty list of nothing": "array()",
}


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., DataFrame]:
    """Label with a scripted engine under the spam policy."""
    script = tmp_path_factory.mktemp("columns") / "script.yaml"
    script.write_text(yaml.safe_dump(SCRIPT))

    def labelled(df: DataFrame, content: str = "text", **settings: Any) -> DataFrame:
        given = {"policies": POLICIES, "model": f"scripted:{script}", **settings}
        return moderay.spark.label(df, content, **given)

    return labelled


@pytest.fixture(scope="module")
def texts(spark: SparkSession) -> DataFrame:
    rows = [("claim your prize",), ("hello there",), (None,)]
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, 1), "text string")


def test_every_type_is_carried_as_it_was(texts: DataFrame, label: Callable[..., DataFrame]) -> None:
    some = "text = 'hello there'"
    df = texts.selectExpr(
        "text",
        "null as nothing",
        *[f"{value} as {name}" for name, value in VALUES.items()],
        *[f"case when {some} then {value} end as {name}_null" for name, value in VALUES.items()],
        *[f"array({value}) as {name}_list" for name, value in VALUES.items()],
    )
    labelled = label(df)
    assert labelled.schema[: len(df.columns)] == df.schema
    assert labelled.columns == [*df.columns, *ADDED]
    before, after = df.collect(), labelled.collect()
    assert len(after) == 3
    for row, same in zip(before, after, strict=True):
        # As texts: NaN is not itself, and a variant has no equality.
        assert [str(value) for value in row] == [str(value) for value in same[: len(row)]]
    assert [row["spam"]["label"] for row in after] == ["SP4", "SP0", None]


def test_names_that_spark_stumbles_over_are_carried(
    texts: DataFrame, label: Callable[..., DataFrame]
) -> None:
    names = ["text", "a.b", "text", "with `ticks`", "\u00fc\u4e2d", " "]
    df = texts.selectExpr("text", *["text as x"] * 5).toDF("the text", *names[1:])
    labelled = label(df.coalesce(1), "the text")
    assert labelled.columns == ["the text", *names[1:], *ADDED]
    first = labelled.collect()[0]
    assert list(first)[:6] == ["claim your prize"] * 6 and first[-1]["label"] == "SP4"


def test_content_may_be_a_conversation_bytes_or_a_template(
    texts: DataFrame, label: Callable[..., DataFrame]
) -> None:
    df = texts.selectExpr(
        "text",
        "array(named_struct('role', 'user', 'content', text, 'n', 1)) as turns",
        "cast(text as binary) as data",
    )
    for content in ("turns", "data", "{text} and {text}"):
        rows = label(df, content).collect()
        assert [row["spam"]["label"] for row in rows] == ["SP4", "SP0", None], content
        assert rows[2]["spam"]["status"] == "empty"


def test_what_cannot_be_labelled_is_told_before_spark_begins(
    spark: SparkSession, texts: DataFrame, label: Callable[..., DataFrame], tmp_path: Path
) -> None:
    def begun() -> int:
        return len(spark.sparkContext.statusTracker().getJobIdsForGroup(None))

    before = begun()
    odd = texts.selectExpr("text", *[f"{value} as `{name}`" for name, value in REFUSED.items()])
    cases: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: label(odd), [f"column {name!r} is" for name in REFUSED]),
        (lambda: label(texts, "txt"), ["label: content: no column 'txt'", "did you mean 'text'?"]),
        (lambda: label(texts.selectExpr("1 as text")), ["column 'text' is int32"]),
        (lambda: label(texts.toDF("spam"), "spam"), ["column 'spam' has the name of a column"]),
        (
            lambda: label(texts.selectExpr("text", "1 as Flagged")),
            ["to Spark the DataFrame's column 'Flagged' is 'flagged', which is added"],
        ),
        (lambda: label([{"text": "a"}]), ["df: a DataFrame of Spark is wanted, not list"]),
        (lambda: label(texts, policies=["nowhere"]), ["policy nowhere"]),
        (lambda: label(texts, model="/no/such/model"), ["no such model folder: /no/such/model"]),
        (lambda: label(texts, model="scripted:none.yaml"), ["no such file of scripted answers"]),
        (lambda: label(texts, modle="tiny"), ["unknown setting 'modle'"]),
        (lambda: label(texts, output={"path": "x"}), ["unknown setting 'output.path'"]),
        (
            lambda: label(texts, model="openai/gpt-oss-safeguard-20b"),
            ["needs a GPU", "Spark gives its tasks none: spark.task.resource.gpu.amount"],
        ),
    ]
    for call, messages in cases:
        with pytest.raises(moderay.UserError) as caught:
            call()
        assert all(message in str(caught.value) for message in messages), str(caught.value)
    assert begun() == before


def test_rule_over_a_column_that_is_not_there_is_told(
    texts: DataFrame, label: Callable[..., DataFrame], tmp_path: Path
) -> None:
    folder = tmp_path / "spam"
    folder.mkdir()
    (folder / "policy.md").write_bytes(Path(POLICIES[0], "policy.md").read_bytes())
    rule = {"id": "known", "label": "SP0", "where": "author = 'us'"}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    cascade = [{"rules": {}}, {"reason": {}}]
    with pytest.raises(moderay.UserError, match=r"rule 'known': DataFrame: .*author"):
        label(texts, policies=[str(folder)], cascade=cascade)
    df = texts.selectExpr("text", "if(text like 'claim%', 'us', 'them') as author")
    rows = label(df, policies=[str(folder)], cascade=cascade).collect()
    assert [row["spam"]["trace"]["decided_by"] for row in rows] == ["rules", "reason", None]


def test_session_that_has_ended_is_one_sentence(tmp_path: Path) -> None:
    """In a process of its own, since there is one session in a process."""
    import subprocess
    import sys

    from support.project import environment

    code = """
import moderay, moderay.spark
from pyspark.sql import SparkSession
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
df = spark.createDataFrame([("a",)], "text string")
spark.stop()
try:
    moderay.spark.label(df, "text", ["policies/spam"])
except moderay.UserError as error:
    print("told:", error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment() | {"SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "told: label: the Spark session of df has ended" in done.stdout
