import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outputs import plain

from moderay.core import storage
from moderay.core.errors import ModerayError, Problems, TryAgainError, UserError
from moderay.corpus.formats import parquet_footer
from moderay.corpus.scan import Scan
from moderay.corpus.sources import list_source
from moderay.pipeline.check import check

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def put(folder: Path, name: str, **columns: Any) -> Path:
    file = folder / "in" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"text": ["a", "b"]}), file)
    return file


def scan(file: Path, *sets: str) -> Scan:
    return check(file, sets).scan


def problems(file: Path, *sets: str) -> str:
    with pytest.raises(Problems) as caught:
        check(file, sets)
    return str(caught.value) + "\n"


def test_source_file_folder_glob_or_list_gives_names_below_its_root(job, tmp_path: Path) -> None:
    for name in (
        "a.parquet",
        "day=1/b.parquet",
        "day=2/x/c.parquet",
        "_old/d.parquet",
        ".e.parquet",
        "_f.parquet",
    ):
        put(tmp_path, name)
    (tmp_path / "in" / "readme.txt").write_text("no input")

    def names(path: str) -> list[str]:
        return [shard.name for shard in scan(job(), f"input.path={path}").shards]

    assert names("in") == ["a.parquet", "day=1/b.parquet", "day=2/x/c.parquet"]
    assert names("in/day=*/*.parquet") == ["day=1/b.parquet"]
    assert names("in/**/*.parquet") == ["a.parquet", "day=1/b.parquet", "day=2/x/c.parquet"]
    assert names("in/day=1/b.parquet") == ["b.parquet"]
    assert names("[in/a.parquet, in/day=1]") == ["a.parquet", "b.parquet"]


def test_folder_named_like_a_glob_is_a_folder(job, tmp_path: Path) -> None:
    put(tmp_path, "part[1]/a.parquet")
    assert [shard.name for shard in scan(job(), "input.path='in/part[1]'").shards] == ["a.parquet"]


def test_shard_holds_what_the_run_needs_of_its_footer(job, tmp_path: Path) -> None:
    file = tmp_path / "in" / "day=2026-11-20" / "a.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(
        pa.table({"text": ["x" * 100] * 25, "text.long": ["y" * 900] * 25, "n": range(25)}),
        file,
        row_group_size=10,
        use_dictionary=False,
    )
    (shard,) = scan(job()).shards
    assert (shard.row_groups, shard.rows, shard.size) == ((10, 10, 5), 25, file.stat().st_size)
    assert shard.partitions == (("day", "2026-11-20"),)
    assert not shard.conversation
    assert (
        scan(job(input={"path": "in", "content": "text.long"})).shards[0].content_bytes > 25 * 900
    )
    before = shard.identity
    os.utime(file, (1, 1))
    assert scan(job()).shards[0].identity != before


def test_footer_larger_than_the_first_read_is_read_whole(job, tmp_path: Path) -> None:
    wide = {f"column_{i}_{'x' * 40}": [i] for i in range(600)}
    file = put(tmp_path, "a.parquet", text=["a"], **wide)
    assert int.from_bytes(file.read_bytes()[-8:-4], "little") > parquet_footer.TAIL
    assert len(scan(job()).columns) == 601


def test_content_kind_may_differ_only_where_it_is_not_carried(job, tmp_path: Path, golden) -> None:
    put(tmp_path, "a.parquet", text=["a"], id=["1"])
    put(
        tmp_path, "b.parquet", text=pa.array([[{"role": "user", "content": "hi"}]], TURNS), id=["2"]
    )
    assert [shard.conversation for shard in scan(job(), "output.columns=[id]").shards] == [
        False,
        True,
    ]
    golden("input-kinds", plain(problems(job()), tmp_path))


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        TURNS,
        pa.large_list(TURNS.value_type),
    ],
)
def test_every_kind_of_text_and_conversation_is_content(
    kind: pa.DataType, job, tmp_path: Path
) -> None:
    put(tmp_path, "a.parquet", text=pa.nulls(1, kind))
    assert scan(job()).rows == 1


def test_template_needs_each_of_its_columns_as_text(job, tmp_path: Path, golden) -> None:
    put(
        tmp_path,
        "a.parquet",
        title=["a"],
        body=["b"],
        n=[1],
        text=pa.array([[{"role": "user", "content": "hi"}]], TURNS),
    )
    assert scan(job(input={"path": "in", "content": "{title}\n\n{body}"})).rows == 1
    golden(
        "input-template",
        plain(problems(job(input={"path": "in", "content": "{titel} {n} {text}"})), tmp_path),
    )


def test_many_shards_with_one_problem_are_counted(job, tmp_path: Path, golden) -> None:
    for number in range(9):
        put(tmp_path, f"{number}.parquet", other=["a"])
    golden("input-many", plain(problems(job()), tmp_path))


@pytest.mark.parametrize(
    "where",
    [
        "n > 1",
        "lang IN ('en', 'de') AND NOT (n = 1 OR n IS NULL)",
        "text LIKE '%.over(%' AND LOWER(lang) = 'en'",
        "LOWER(lang) IN ('en') AND NOT n IN (2, 3)",
        "CASE WHEN n > 1 THEN TRUE ELSE FALSE END",
        "COALESCE(n, 0) BETWEEN 0 AND 2 AND day >= '2026-01-01'",
    ],
)
def test_where_over_columns_and_path_parts_is_accepted(where: str, job, tmp_path: Path) -> None:
    put(tmp_path, "day=2026-11-20/a.parquet", text=["a"], lang=["en"], n=[1])
    assert scan(job(input={"path": "in", "content": "text", "where": where})).rows == 1


@pytest.mark.parametrize(
    "where",
    [
        "n >",
        "n + 1",
        "TRUE",
        "MAX(n) > 1",
        "n > AVG(n)",
        "n IN (1) AND n < MAX(n)",
        "COUNT(*) > 1",
        "LAG(n) OVER (ORDER BY n) = 1",
        "ROW_NUMBER() OVER (ORDER BY n) = 1",
        "n IN (SELECT 1)",
        "text > 1",
    ],
)
def test_where_that_is_no_condition_on_one_row_is_refused(where: str, job, tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", text=["a"], n=[1])
    assert problems(job(input={"path": "in", "content": "text", "where": where})).startswith(
        f"{tmp_path}/job.yaml:5: "
    )


def test_where_needs_its_columns_in_every_shard(job, tmp_path: Path, golden) -> None:
    put(tmp_path, "a.parquet", text=["a"], lang=["en"])
    put(tmp_path, "b.parquet", text=["a"], lang=[1])
    put(tmp_path, "c.parquet", text=["a"])
    golden(
        "input-where-shards",
        plain(
            problems(
                job(
                    input={"path": "in", "content": "text", "where": "lang = 'en'"},
                    output={"path": "out", "columns": ["text"]},
                )
            ),
            tmp_path,
        ),
    )


def test_column_of_the_file_counts_before_the_path(job, tmp_path: Path) -> None:
    put(tmp_path, "n=1/a.parquet", text=["a"], n=[1])
    assert (
        scan(job(input={"path": "in", "content": "text", "where": "n = 1"})).shards[0].partitions
        == ()
    )


def test_carried_column_is_nullable_where_one_shard_has_nulls(job, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    strict = pa.schema(
        [pa.field("text", pa.string(), nullable=False), pa.field("id", pa.string(), nullable=False)]
    )
    pq.write_table(
        pa.table({"text": ["a"], "id": ["1"]}, schema=strict), tmp_path / "in" / "a.parquet"
    )
    pq.write_table(
        pa.table(
            {"text": [None], "id": ["1"]}, schema=strict.set(0, pa.field("text", pa.string()))
        ),
        tmp_path / "in" / "b.parquet",
    )
    assert [field.nullable for field in scan(job()).columns] == [True, False]


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("in", "in"),
        ("in", "in/labels"),
        ("in/*.parquet", "in"),
        ("in/a.parquet", "in"),
        ("in/../in", "in/x"),
        ("in", "link"),
        ("in", "FILE/in/x"),
        ("in/a.parquet", "FILE/in"),
    ],
)
def test_output_in_or_over_the_input_is_refused(path: str, out: str, job, tmp_path: Path) -> None:
    put(tmp_path, "a.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    text = problems(
        job(
            input={"path": path, "content": "text"},
            output={"path": out.replace("FILE", f"file://{tmp_path}")},
        )
    )
    assert text.startswith(f"{tmp_path}/job.yaml:6: ")


def test_output_beside_or_above_the_input_is_fine(job, tmp_path: Path) -> None:
    put(tmp_path, "a.parquet")
    for out in ("input", "in-labels", "."):
        assert scan(job(), f"output.path={out}").rows == 2


def test_two_sources_that_clash_are_refused(job, tmp_path: Path, golden) -> None:
    put(tmp_path, "x/a.parquet")
    put(tmp_path, "y/a.parquet")
    put(tmp_path, "x/sub/b.parquet")
    clash = problems(job(input={"path": ["in/x", "in/y"], "content": "text"}))
    golden(
        "input-clash",
        plain(
            clash + problems(job(input={"path": ["in/x", "in/x/sub"], "content": "text"})), tmp_path
        ),
    )


def test_columns_of_one_name_are_a_problem(job, tmp_path: Path, golden) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]),
        tmp_path / "in" / "a.parquet",
    )
    golden("input-twice", plain(problems(job()), tmp_path))


def test_file_that_is_no_parquet_is_named_and_the_rest_is_read(job, tmp_path: Path) -> None:
    whole = put(tmp_path, "a.parquet").read_bytes()
    broken = {
        "b": b"",
        "c": b"hello",
        "d": b"PAR1" * 20,
        "e": whole[:-9],
        "f": whole[:-40] + b"\xff" * 32 + whole[-8:],
    }
    for name, data in broken.items():
        (tmp_path / "in" / f"{name}.parquet").write_bytes(data)
    actual = scan(job())
    assert [name for name, _ in actual.unreadable] == [f"{name}.parquet" for name in broken]
    assert [shard.name for shard in actual.shards] == ["a.parquet"]
    (tmp_path / "in" / "a.parquet").unlink()
    assert "none of 5 files can be read" in problems(job())


def test_store_that_fails_is_no_unreadable_file(
    job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.parquet")

    def lost(*_: object) -> bytes:
        raise ConnectionResetError("lost")

    monkeypatch.setattr(parquet_footer, "_tail", lost)
    with pytest.raises(TryAgainError, match=r"a\.parquet: the storage does not answer \(lost\)"):
        check(job())


def test_problems_of_job_and_input_are_told_together(job, tmp_path: Path, golden) -> None:
    put(tmp_path, "a.parquet")
    file = job(
        input={"path": "in", "content": "txt"},
        output={"path": "in/labels", "columms": []},
        modle={},
        policies=["nowhere"],
    )
    golden("job-and-input", plain(problems(file), tmp_path))


def test_same_files_on_s3_are_the_same_shards(
    job, tmp_path: Path, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("day=1/a.parquet", "day=2/b.parquet"):
        put(tmp_path, name)
    local = scan(job())
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    fs, path = storage.filesystem("s3://data/scan")
    fs.put(str(tmp_path / "in"), path, recursive=True)
    for source in ("s3://data/scan", "s3://data/scan/day=*/*.parquet"):
        actual = scan(job(), f"input.path={source}", "output.path=s3://data/labels")
        assert [(s.name, s.size, s.row_groups, s.partitions) for s in actual.shards] == [
            (s.name, s.size, s.row_groups, s.partitions) for s in local.shards
        ]
        assert actual.columns == local.columns
        assert all(len(shard.version) == 32 for shard in actual.shards)
    assert "lies inside the input" in problems(
        job(), "input.path=s3://data/scan", "output.path=s3a://data/scan/labels"
    )


@pytest.mark.slow
def test_s3_errors_are_one_sentence(
    job, s3: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    storages = {
        "none": {"endpoint_url": s3["AWS_ENDPOINT_URL"], "skip_instance_cache": True},
        "bucket": {
            "s3": {"endpoint_url": s3["AWS_ENDPOINT_URL"], "key": "test", "secret": "test-secret"}
        },
        "silent": {
            "endpoint_url": "http://127.0.0.1:1",
            "key": "test",
            "secret": "test-secret",
            "config_kwargs": {"retries": {"max_attempts": 1}},
        },
    }
    result: dict[str, ModerayError] = {}
    for name, options in storages.items():
        with pytest.raises(ModerayError) as caught:
            check(job(storage=options, input={"path": "s3://no-such-bucket/x", "content": "text"}))
        result[name] = caught.value
        assert "test-secret" not in str(caught.value)
    assert isinstance(result["none"], UserError)
    assert "credentials" in str(result["none"])
    assert isinstance(result["bucket"], UserError)
    assert "s3://no-such-bucket/x" in str(result["bucket"])
    assert isinstance(result["silent"], TryAgainError)


def test_options_of_one_protocol_reach_only_that_protocol() -> None:
    fs, path = storage.filesystem(
        "memory://a/b", {"s3": {"key": "x"}, "memory": {"skip_instance_cache": True}}
    )
    assert (fs.protocol, path) == ("memory", "/a/b")
    assert storage.shown("s3://user:word@bucket/x") == "s3://bucket/x"


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b=1", "_x", "in", "é", "a b"]), max_size=4),
    st.sampled_from(["*.parquet", "**/*.parquet", "p.parquet", ""]),
)
@settings(deadline=None)
def test_shard_names_never_leave_the_output(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], last: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "names" / "deep"
    for folder in ("a", "a/b=1", "in/a"):
        if not (root / folder).exists():
            (root / folder).mkdir(parents=True)
            (root / folder / "p.parquet").write_bytes(b"")
    from moderay.config.job import Job

    source = "/".join([str(root), *parts, last]).rstrip("/")
    job = Job.model_validate(
        {
            "input": {"path": source, "content": "text"},
            "output": {"path": str(root / "out")},
            "policies": ["none"],
        }
    )
    for shard in list_source(source, job).shards:
        assert not shard.name.startswith("/")
        assert not {"..", ".", "", "_x"} & set(shard.name.split("/"))
        assert os.path.normpath(root / "out" / shard.name).startswith(f"{root}/out/")
