"""Which files a source names: links, odd names, and what is passed over."""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.core.errors import Problems
from moderay.core.storage import FileState, filesystem, listing
from moderay.corpus.formats import format_of, input_file, label_file
from moderay.corpus.names import MOST_BYTES, storable
from moderay.corpus.scan import Scan
from moderay.pipeline.check import check

MakeJob = Callable[..., Path]


def put(file: Path, text: str = "a") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as opened:  # pyarrow takes no name that is no text
        pq.write_table(pa.table({"text": [text]}), opened)
    return file


def scan(file: Path, *sets: str) -> Scan:
    return check(file, sets).scan


def names(found: Scan) -> list[str]:
    return [shard.name for shard in found.shards]


def texts(found: Scan) -> dict[str, str]:
    """What is read of each shard, by its label file."""
    read = {}
    for shard in found.shards:
        tables = format_of(shard.url).tables(
            *shard.located({}), ["text"], shard.schema, listed=shard.state
        )
        read[shard.name] = pa.concat_tables(tables).column("text")[0].as_py()
    return read


def test_links_of_a_hub_cache_are_followed(job: MakeJob, tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    put(cache / "blobs/0123", "one")
    snapshot = cache / "snapshots/main/data"
    snapshot.mkdir(parents=True)
    (snapshot / "x.parquet").symlink_to("../../../blobs/0123")
    for source in ("hub", "hub/snapshots/main", "hub/snapshots/*/data/*.parquet"):
        found = scan(job(), f"input.path={source}")
        assert list(texts(found).values()) == ["one"], source
    found = scan(job(), "input.path=hub")
    assert found.notes == ("passed over, as hidden or of another kind: blobs/0123",)
    before = found.shards[0].identity
    put(cache / "blobs/4567", "two two")
    (snapshot / "x.parquet").unlink()
    (snapshot / "x.parquet").symlink_to("../../../blobs/4567")
    assert scan(job(), "input.path=hub").shards[0].identity != before


def test_linked_folders_are_followed_and_loops_end(job: MakeJob, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/a.parquet")
    folder = tmp_path / "in"
    put(folder / "b.parquet")
    (folder / "one").symlink_to("../elsewhere")
    (folder / "two").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to("..")
    (tmp_path / "elsewhere/back").symlink_to("../in")
    (folder / "self").symlink_to(".")
    found = scan(job(output={"path": "/nowhere/out"}))
    assert names(found)[:3] == ["b.parquet", "one/a.parquet", "two/a.parquet"]
    # Through `up`, which is no folder above `in`'s own files, each place is come to once more.
    assert len(set(names(found))) == len(found.shards) < 10
    assert "self" in found.notes[0]
    assert names(scan(job(output={"path": "/nowhere/out"}), "input.path=in/*/*.parquet")) == [
        "one/a.parquet",
        "two/a.parquet",
    ]


def test_links_that_double_the_ways_are_cut(
    job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_WAYS", 20)  # of a thousand, the test would take long
    put(tmp_path / "in/a.parquet")
    before = tmp_path / "in"
    for number in range(30):
        after = tmp_path / f"deep/{number}"
        after.mkdir(parents=True)
        for name in ("x", "y"):
            (before / name).symlink_to(after)
        before = after
    put(before / "last.parquet")
    found = scan(job())
    assert 1 < len(found.shards) <= 21
    assert "in more than 20 ways" in found.unreadable[0][1]


def test_what_is_not_there_behind_a_link_is_named(job: MakeJob, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    put(folder / "a.parquet")
    (folder / "b.parquet").symlink_to("gone.parquet")
    (folder / "disk").symlink_to("/no/such/disk")
    (folder / "round").symlink_to("round")
    (folder / "notes.txt").symlink_to("/no/such/notes")
    os.mkfifo(folder / "c.parquet")
    found = scan(job())
    assert names(found) == ["a.parquet"]
    assert {name: why.split(",")[0] for name, why in found.unreadable} == {
        "b.parquet": "a link to gone.parquet",
        "disk": "a link to /no/such/disk",
        "round": "too many levels of symbolic links",
    }
    assert found.notes == ("passed over, as hidden or of another kind: c.parquet, notes.txt",)
    # Labels of what may come back are not those of files that are gone.
    labels = ["a.parquet", "b.parquet", "d.parquet", "disk/x.parquet", "disks/x.parquet"]
    assert found.gone(labels) == ["d.parquet", "disks/x.parquet"]


def test_what_is_passed_over_is_counted_and_the_first_are_named(
    job: MakeJob, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    put(tmp_path / "in/a.parquet")
    for number in range(50):
        put(tmp_path / f"in/_old/{number}.parquet")
    for name in ("_SUCCESS", ".a.parquet.crc", "readme.md", "new\nline"):
        (tmp_path / "in" / name).write_text("x")
    result = cli("check", job())
    assert result.returncode == 0 and result.stderr.splitlines() == [
        "note: passed over, as hidden or of another kind: _old/, .a.parquet.crc, _SUCCESS, ... "
        "(5 in all)"
    ]


@pytest.mark.parametrize("path", ["in", "in/*.parquet"])
def test_output_behind_a_link_in_the_input_is_refused(
    path: str, job: MakeJob, tmp_path: Path
) -> None:
    put(tmp_path / "in/a.parquet")
    (tmp_path / "labels/x").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to(tmp_path / "labels")
    file = job(input={"path": path, "content": "text"}, output={"path": "labels/x"})
    if path == "in":
        with pytest.raises(Problems, match=r"the output .* lies inside the input"):
            scan(file)
    else:
        assert names(scan(file)) == ["a.parquet"]


def test_labels_never_replace_what_a_link_in_the_input_leads_to(
    job: MakeJob, tmp_path: Path
) -> None:
    put(tmp_path / "in/b.parquet")
    put(tmp_path / "out/b.parquet")
    (tmp_path / "in/a.parquet").symlink_to(tmp_path / "out/b.parquet")
    with pytest.raises(Problems, match=r"b\.parquet would replace the input file .*a\.parquet"):
        scan(job())


# Each is one name; none may be taken for anything else.
ODD = [
    "new\nline.parquet",
    "a.parquet::x.parquet",
    "file::memory.parquet",
    "s3::b.parquet",
    "a..%2fx.parquet",
    "%2e%2e.parquet",
    "x#y.parquet",
    "x?y.parquet",
    "x?sig=1&token=2.parquet",
    "*.parquet",
    "[ab].parquet",
    "{a,b}.parquet",
    "a b+c%20d.parquet",
    "~.parquet",
    "\\.parquet",
    "\x1b[2J.parquet",
    "\udcff\udc80.parquet",
    "%FF%80.parquet",
    "a=b.parquet",
    "ä\u0301\u202e.parquet",
    f"{'n' * 247}.parquet",
]


def test_each_odd_name_is_read_as_itself_under_a_label_file_of_its_own(
    job: MakeJob, tmp_path: Path
) -> None:
    for name in (*ODD, "x.parquet", "a.parquet", "b.parquet"):
        put(tmp_path / "in" / name, name.encode("utf-8", "replace").decode())
    found = scan(job())
    assert not found.unreadable and not found.notes
    assert sorted(texts(found).values()) == sorted(
        name.encode("utf-8", "replace").decode()
        for name in (*ODD, "x.parquet", "a.parquet", "b.parquet")
    )
    for label in names(found):
        assert label.isprintable() or "\u202e" in label
        assert len(label.encode()) <= MOST_BYTES
    kept = [name for name in ODD if storable(name) == name]
    assert len(kept) == len(ODD) - 3 and set(kept) <= set(names(found))


@pytest.mark.parametrize("name", [name for name in ODD if name.isascii() and name.isprintable()])
def test_odd_name_in_the_job_is_that_file_too(name: str, job: MakeJob, tmp_path: Path) -> None:
    put(tmp_path / "in" / name, name)
    put(tmp_path / "in/x.parquet")
    found = scan(job(input={"path": f"in/{name}", "content": "text"}))
    assert list(texts(found).values()) == [name]


def test_odd_names_in_a_store_are_read_as_themselves(
    job: MakeJob, bucket: str, tmp_path: Path
) -> None:
    fs, root = filesystem(bucket)
    odd = ["a.parquet::x.parquet", "a..%2fx.parquet", "x#y.parquet", "x?y.parquet", "*.parquet"]
    odd += ["x.parquet", f"{'k' * 300}.parquet"]
    for name in (*odd, "x.parquet?versionId=1.parquet", "a//b.parquet", "../c.parquet"):
        # By its own interface: s3fs cuts some names.
        data = put(tmp_path / "made" / "file.parquet", name).read_bytes()
        bucket_name, prefix = root.split("/", 1)
        fs.call_s3("put_object", Bucket=bucket_name, Key=f"{prefix}/in/{name}", Body=data)
    found = scan(job(input={"path": f"{bucket}/in", "content": "text"}))
    assert sorted(texts(found).values()) == sorted(odd)
    assert [why for _, why in found.unreadable] == [
        "a part of its path is empty",
        "what begins with ?versionId= is not taken for a part of its name",
    ]
    assert "../" in found.notes[0]


def test_files_of_one_label_file_are_left_out_and_named_unless_there_are_no_others(
    job: MakeJob, tmp_path: Path
) -> None:
    for name in ("b.jsonl", "b.ndjson"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text('{"text": "a"}\n')
    with pytest.raises(Problems, match=r"would share the label file b\.parquet"):
        scan(job())
    put(tmp_path / "in/a.parquet")
    found = scan(job())
    assert names(found) == ["a.parquet"]
    assert [name for name, _ in found.unreadable] == ["b.jsonl", "b.ndjson"]
    assert not found.gone(["b.parquet"])


@given(
    st.text(st.characters(codec="utf-8", blacklist_characters="/"), min_size=1, max_size=300)
    | st.binary(min_size=1, max_size=300).map(
        lambda data: data.replace(b"/", b"-").decode("utf-8", "surrogateescape")
    ),
    st.sampled_from(["", ".parquet", ".jsonl", ".jsonl.gz", ".NDJSON"]),
)
def test_label_files_have_names_that_any_store_holds(stem: str, end: str) -> None:
    name = stem + end
    label = label_file(name)
    assert len(label.encode()) <= MOST_BYTES
    assert label_file(label) == label
    own = input_file(label, f"/x/{label.removesuffix('.parquet')}{end}")
    assert label_file(own) == label
    if len(name.encode("utf-8", "surrogateescape")) <= MOST_BYTES:
        assert storable(storable(name)) == storable(name)


def test_part_of_the_path_with_two_values_has_none(job: MakeJob, tmp_path: Path) -> None:
    put(tmp_path / "in/a=1/a=2/b=3/b=3/x.parquet")
    assert scan(job()).shards[0].partitions == (("b", "3"),)
    with pytest.raises(Problems, match="no column 'a'"):
        scan(job(input={"path": "in", "content": "{a}: {text}"}))


@pytest.mark.parametrize("source", ["in", "in/*.parquet", "in/a.parquet", "in/link.parquet"])
def test_file_is_known_by_when_it_was_changed_last_however_it_is_named(
    job: MakeJob, tmp_path: Path, source: str
) -> None:
    file = put(tmp_path / "in/a.parquet")
    (tmp_path / "in/link.parquet").symlink_to("a.parquet")
    if source != "in/link.parquet":
        (tmp_path / "in/link.parquet").unlink()
    [shard] = scan(job(), f"input.path={source}").shards
    assert shard.ctime_ns == file.stat().st_ctime_ns
    assert shard.state == FileState(*shard.identity[1:], file.stat().st_ctime_ns)
