"""Input over http: what changed is judged, and no password or signature is written or shown."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels
from support.webserver import Web, serving

PASSWORD = "hunt@r/zwei"
SIGNATURE = "0a1b2c3d4e5f"


@pytest.fixture
def web(corpus: Path) -> Iterator[Web]:
    with serving(Web(corpus)) as started:
        yield started


def swap(file: Path, before: str, after: str) -> None:
    """Put other content of the same size into a file, and leave its time as it is."""
    status = file.stat()
    table = pq.read_table(file)
    texts = [
        text if text is None else text.replace(before, after)
        for text in table.column("text").to_pylist()
    ]
    table = table.set_column(1, "text", pa.array(texts))
    pq.write_table(table, file, compression="none", use_dictionary=False)
    assert file.stat().st_size == status.st_size
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def flagged(folder: Path, name: str = "a.parquet") -> int:
    return sum(bool(flag) for flag in labels(folder)[name].column("flagged").to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("says", [("etag", "time"), ("time",), ()])
def test_new_content_of_the_same_size_is_judged(
    says: tuple[str, ...], job, corpus: Path, tmp_path: Path, web: Web, cli
) -> None:
    web.says = says
    pq.write_table(
        pq.read_table(corpus / "a.parquet"),
        corpus / "a.parquet",
        compression="none",
        use_dictionary=False,
    )
    sections = {"input": {"path": f"http://{web.host}/a.parquet", "content": "text"}}
    result = cli("run", job(**sections))
    assert result.returncode == 0, result.stderr
    assert flagged(tmp_path / "out") == 12
    assert ("read as a whole" in result.stderr) == (not says)
    assert "nothing to do" in cli("run", job(**sections)).stdout
    swap(corpus / "a.parquet", "visit my shop", "visit my home")
    if says == ("time",):  # all that this server says
        os.utime(corpus / "a.parquet", (10**9, 10**9))
    result = cli("run", job(**sections))
    assert result.returncode == 0, result.stderr
    assert flagged(tmp_path / "out") == 6


def test_folder_of_the_web_is_read_by_its_page_of_links(job, tmp_path: Path, web: Web, cli) -> None:
    for path in (f"http://{web.host}/", f"http://{web.host}/*.parquet"):
        result = cli("check", job(input={"path": path, "content": "text"}))
        assert result.returncode == 0, result.stderr
        assert f"ok: {3 if path.endswith('/') else 2} shards" in result.stdout


@pytest.mark.slow
def test_password_of_the_input_is_nowhere(job, tmp_path: Path, web: Web, cli) -> None:
    web.user = f"lektorin:{PASSWORD}"
    url = f"http://lektorin:hunt%40r%2Fzwei@{web.host}/a.parquet"
    sections = {"input": {"path": url, "content": "text"}}
    file = job(**sections)
    events = tmp_path / "events.jsonl"
    said = [
        cli("check", file),
        cli("run", file, "--progress", events),
        cli("run", file, "--brief"),
        cli("filter", file, "--keep", "NOT spam.violates", "--out", tmp_path / "clean"),
        cli("run", job(input={"path": url.replace("a.parquet", "b.parquet"), "content": "text"})),
        cli("run", job(input={"path": url.replace("a.parquet", "x.parquet"), "content": "text"})),
        cli("check", job(input={"path": url.replace("%40", ""), "content": "text"})),
    ]
    assert [result.returncode for result in said] == [0, 0, 0, 0, 0, 2, 2], said
    assert flagged(tmp_path / "out") == 12
    assert "access denied" in said[-1].stderr
    _assert_nowhere(
        tmp_path, "".join(r.stdout + r.stderr for r in said), "hunt", "zwei", "lektorin"
    )
    marker = next((tmp_path / "out/_moderay/shards").glob("a.parquet*"))
    assert json.loads(marker.read_text())["source"] == f"http://{web.host}/a.parquet"


def test_rotated_signature_is_the_same_input_and_is_nowhere(
    job, tmp_path: Path, web: Web, cli
) -> None:
    def signed(signature: str) -> Path:
        web.signature = signature
        query = f"X-Amz-Date={signature[:3]}&X-Amz-Expires=9&X-Amz-Signature={signature}"
        url = f"http://{web.host}/a.parquet?{query}"
        file: Path = job(input={"path": url, "content": "text"})
        return file

    said = [cli("run", signed(SIGNATURE))]
    assert said[0].returncode == 0, said[0].stderr
    said += [cli("run", signed(SIGNATURE[::-1]))]
    assert "nothing to do" in said[1].stdout
    said += [
        cli("filter", signed("77" * 6), "--keep", "NOT spam.violates", "--out", tmp_path / "o")
    ]
    assert said[2].returncode == 0, said[2].stderr
    web.signature = "none"
    said += [cli("check", tmp_path / "job.yaml")]
    assert said[3].returncode == 2 and "access denied" in said[3].stderr
    assert list(labels(tmp_path / "out")) == ["a.parquet"]
    said_text = "".join(result.stdout + result.stderr for result in said)
    _assert_nowhere(tmp_path, said_text, SIGNATURE, SIGNATURE[::-1], "77" * 6, "X-Amz")


def _assert_nowhere(folder: Path, text: str, *secrets: str) -> None:
    """In nothing that was said, nor in any file but the job's and the input's."""
    files = [
        file
        for file in folder.rglob("*")
        if file.is_file() and file.name != "job.yaml" and "in" not in file.parts
    ]
    assert len(files) > 3
    for secret in secrets:
        assert secret not in text
        for file in files:
            assert secret not in str(file)
            assert secret.encode() not in file.read_bytes(), file


def test_server_out_of_order_is_asked_again_and_one_that_is_gone_is_named(
    job, tmp_path: Path, web: Web, cli
) -> None:
    sections = {"input": {"path": f"http://{web.host}/a.parquet", "content": "text"}}
    web.failing = {503: 3}
    assert cli("check", job(**sections)).returncode == 0
    assert not web.failing[503]
    sections["input"]["path"] = f"http://{web.host}/none.parquet"
    result = cli("check", job(**sections))
    assert result.returncode == 2
    assert "no Parquet, Arrow, JSON lines or CSV files at" in result.stderr
