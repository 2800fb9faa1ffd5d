"""URLs are shown without what opens them."""

import json
import logging
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moderay.core.errors import Problem, UserError, first_line
from moderay.core.events import event, of_run
from moderay.core.redaction import shown
from moderay.core.storage import filesystem, listed_file, listed_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://user:word@bucket/x", "s3://bucket/x"),
        ("https://u:p@ss@host/x", "https://host/x"),
        ("https://:token@host/x", "https://host/x"),
        ("HTTPS://U:P@HOST/x", "HTTPS://HOST/x"),
        ("s3://AKIA:ab/c+d@bucket/k", "s3://bucket/k"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("https://[::1]:80/x@y", "https://[::1]:80/x@y"),
        (
            "s3://arn:aws:s3:eu:1:accesspoint/x/k@y",
            "s3://arn:aws:s3:eu:1:accesspoint/x/k@y",
        ),
        (
            "https://host/x.parquet?X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Signature=s&versionId=3",
            "https://host/x.parquet?versionId=3",
        ),
        ("https://host/x?sv=2020&st=1&se=2&sr=b&sp=r&sig=abc%3D", "https://host/x"),
        ("https://host/x?AWSAccessKeyId=A&Signature=s&Expires=3", "https://host/x"),
        ("https://host/x?Expires=1&Signature=s&Key-Pair-Id=K&Policy=p", "https://host/x"),
        ("https://host/x?GoogleAccessId=g&Signature=s", "https://host/x"),
        ("https://host/x?access_token=abc#part", "https://host/x#part"),
        ("https://host/x?apiKey=5&page=3", "https://host/x?page=3"),
        ("https://host/x?id=5&st=3&design=7", "https://host/x?id=5&st=3&design=7"),
        (
            "404, message='Not Found', url='https://u:p@host/x?sig=abc' here",
            "404, message='Not Found', url='https://host/x' here",
        ),
    ],
)
def test_secrets_of_a_url_are_not_shown(url: str, expected: str) -> None:
    assert shown(url) == shown(shown(url)) == expected


def test_nothing_that_is_told_has_a_secret(tmp_path: Path) -> None:
    url = "https://u:hunter2@host/x?sig=hunter2"
    error = UserError(f"{url}: refused")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "https://host/x: refused"
    assert "hunter2" not in error.message.text
    assert "hunter2" not in str(Problem(url, 3, url, url))
    assert "hunter2" not in first_line(ValueError(url))
    with of_run("job", 0, tmp_path / "events.jsonl"):
        event("shard unreadable", reason=url)
        logging.getLogger("moderay").warning("lost: %s", url)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 2 and "hunter2" not in "".join(lines)


paths = st.lists(
    st.binary(min_size=1)
    .map(lambda data: data.replace(b"/", b"-").replace(b"\0", b"-"))
    .map(lambda data: data.decode("utf-8", "surrogateescape"))
    | st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1),
    min_size=1,
    max_size=3,
).map(lambda parts: "/" + "/".join(parts))


@given(paths)
def test_any_local_path_comes_back_from_its_url(path: str) -> None:
    fs, _ = filesystem("/")
    url = listed_url(fs, path, "/")
    assert url.encode().decode() == url
    back, there = listed_file(url)
    assert (type(back), there) == (type(fs), path)


@pytest.mark.parametrize("path", ["b/a.parquet::x.parquet", "b/x::memory://y", "b/a?sig=1", "b/#"])
def test_name_of_a_stored_file_is_never_a_chain_of_urls(path: str) -> None:
    fs, _ = filesystem("s3://b")
    back, there = listed_file(listed_url(fs, path, "s3://b"))
    assert (type(back), there) == (type(fs), path)
