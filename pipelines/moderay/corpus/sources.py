"""Sources -> files: what a job's `input.path` names, and where labels must not go."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from moderay.config.job import Job
from moderay.core.errors import Problem
from moderay.core.storage import (
    canonical_url,
    ctime_ns,
    details,
    filesystem,
    find,
    is_glob,
    is_local,
    patiently,
    plain_errors,
    version,
)
from moderay.corpus.formats import is_input, label_file
from moderay.corpus.shard import Shard

_ONE_ROOT = "name a folder above both"


def input_files(job: Job) -> tuple[list[Shard], list[Problem]]:
    """Every file of every source, by name, without its footer; and what is wrong with sources.

    Raises:
        UserError: A storage refuses.
        TryAgainError: A storage does not answer.
    """
    by_name: dict[str, Shard] = {}
    by_url: dict[str, Shard] = {}
    problems: list[Problem] = []
    for source in job.input.paths:
        shards, root = list_source(source, job)
        if not shards:
            problems.append(
                job.problem(
                    "input.path",
                    f"no Parquet or JSON lines files at {source}",
                    "a file, a folder, or a glob such as data/*.parquet",
                )
            )
        for shard in shards:
            same_name = by_name.setdefault(shard.name, shard)
            same_url = by_url.setdefault(shard.url, shard)
            problems += _clashes(job, shard, same_name, same_url)
        problems += _output_problems(job, source, root, shards)
    return sorted(by_name.values(), key=lambda shard: shard.name), problems


def _clashes(job: Job, shard: Shard, same_name: Shard, same_url: Shard) -> Iterator[Problem]:
    """Where another file has its label file, or another source names the same file otherwise."""
    if same_name.url != shard.url:
        same_folder = posixpath.dirname(same_name.url) == posixpath.dirname(shard.url)
        yield job.problem(
            "input.path",
            f"{same_name.url} and {shard.url} would share the label file {shard.name}",
            "rename one of them" if same_folder else _ONE_ROOT,
        )
    if same_url.name != shard.name:
        yield job.problem(
            "input.path",
            f"{shard.url} is in two sources, as {same_url.file} and as {shard.file}",
            _ONE_ROOT,
        )


def list_source(source: str, job: Job) -> tuple[list[Shard], str]:
    """A source's files, and the URL of the folder (or the file) it begins at.

    A file or folder whose name begins with `_` or `.` is no input.
    """
    fs, path = filesystem(source, job.storage)
    with plain_errors(source):
        fs.invalidate_cache()
        if is_glob(fs, path):
            base = root = _glob_root(path)
            files = patiently(fs, lambda: fs.glob(path, detail=True))
        elif (info := _info(fs, path)).get("type") == "file":
            base = path
            root = fs._parent(path)
            files = {path: info}
        else:
            base = root = path
            files = {name: info for name, info in find(fs, path).items() if is_input(name)}
    shards = []
    for file, info in files.items():
        name = posixpath.relpath(file, root)
        hidden = any(part.startswith(("_", ".")) for part in name.split("/"))
        if info.get("type") == "file" and not hidden:
            shards.append(_shard(_url(fs, file), name, info, ctime_ns(fs, file)))
    return shards, _url(fs, base)


def _shard(url: str, name: str, info: dict[str, Any], ctime: int | None) -> Shard:
    parts = [part.partition("=") for part in name.split("/")[:-1]]
    return Shard(
        url=url,
        name=label_file(name),
        size=int(info["size"]),
        version=version(info),
        partitions=tuple((key, value) for key, equals, value in parts if equals),
        ctime_ns=ctime,
    )


def _url(fs: Any, path: str) -> str:
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def _info(fs: Any, path: str) -> dict[str, Any]:
    """A file's or a folder's details; nothing where there is none.

    fsspec's own `isfile` takes every failure for a no.
    """
    try:
        return details(fs, path)
    except FileNotFoundError:
        return {}


def _glob_root(path: str) -> str:
    """The folder above the first part of a path that is a pattern."""
    parts = path.split("/")
    is_pattern = [any(char in part for char in "*?[") for part in parts]
    return "/".join(parts[: is_pattern.index(True)]) or "/"


def _output_problems(
    job: Job, source: str, root: str, shards: Sequence[Shard]
) -> Iterator[Problem]:
    """Labels must neither become input of the next run nor replace the input."""
    if not job.output.path:
        return
    output = canonical_url(job.output.path, job.storage)
    if output.startswith(canonical_url(root, job.storage)):
        yield job.problem(
            "output.path",
            f"the output {job.output.path} lies inside the input {source}",
            "write it elsewhere",
        )
        return
    for shard in shards:
        if canonical_url(shard.url, job.storage) == f"{output}{shard.name}/":
            yield job.problem(
                "output.path",
                f"the labels of {shard.url} would replace the input file itself",
                "write them to another folder",
            )
            return
