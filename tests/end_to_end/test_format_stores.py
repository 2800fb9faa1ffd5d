"""The same rows in every format, from an S3 server to it: killed, resumed and filtered."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import get, put
from support.held import PATIENT
from support.outputs import compared
from support.project import kill_all
from support.scripted import write_job

from moderay.core.storage import filesystem

ROWS, UNIT, WAITING = 50, 10, 45
ANSWERS = 2  # of the scripted engine, for a row
NAMES = ("a.parquet", "b.arrow", "c.arrows", "d.jsonl.gz", "e.csv", "f.txt", "g.text.zst")


def texts_of(name: str) -> list[str]:
    """Other ones in each file, so that each is asked."""
    return [
        f"{'visit my shop' if i % 3 else 'hello'} {name[0]}{i}" + " waiting" * (i == WAITING)
        for i in range(ROWS)
    ]


def write_file(folder: Path, name: str) -> None:
    texts = texts_of(name)
    table = pa.table({"text": texts})
    if name.endswith(".parquet"):
        pq.write_table(table, folder / "in" / name, row_group_size=20)
    elif ".arrow" in name:
        new = pa.ipc.new_file if name.endswith(".arrow") else pa.ipc.new_stream
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with new(str(folder / "in" / name), table.schema, options=options) as writer:
            writer.write_table(table, 20)
    elif "json" in name:
        put(folder, name, [{"text": text} for text in texts])
    else:
        lines = {".csv": ["text", *texts, ""], ".zst": [*texts, ""]}.get(name[-4:], texts)
        put(folder, name, ("\r\n" if name == "f.txt" else "\n").join(lines).encode())


@pytest.mark.slow
def test_every_format_from_store_to_store_is_resumed_and_filtered(
    bucket: str, tmp_path: Path, cli, s3
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    for name in NAMES:
        write_file(tmp_path, name)
    fs, path = filesystem(bucket)
    fs.put(f"{tmp_path}/in/", f"{path}/in/", recursive=True)
    (hold := tmp_path / "hold").touch()
    script: dict[str, Any] = {
        "default": {"answer": '{"label": "SP0", "rationale": "Nothing."}'},
        "rules": [
            {"content": "waiting", "fail": "hang", "while": str(hold)},
            {"content": "shop", "answer": '{"label": "SP2", "rationale": "A shop."}', "p": 0.7},
        ],
        "log": str(tmp_path / "log"),
    }
    file = write_job(
        tmp_path,
        script,
        input={"path": f"{bucket}/in", "content": "text", "text": "lines"},
        output={"path": f"{bucket}/out"},
        unit={"rows": UNIT},
        limits=PATIENT,
        filter={"keep": "NOT spam.violates", "out": f"{bucket}/clean"},
    )
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    saved = len(NAMES) * (ROWS // UNIT - 1)
    deadline = time.monotonic() + 180
    while _units(fs, path) < saved and time.monotonic() < deadline:
        time.sleep(0.5)
    kill_all(driver)
    assert _units(fs, path) == saved
    asked = _asked(tmp_path)
    hold.unlink()
    assert cli("filter", file, **s3).returncode == 0
    # Of each file the unit in which the driver was killed, and no other.
    assert _asked(tmp_path) - asked == len(NAMES) * UNIT
    fs.invalidate_cache()
    fs.get(f"{path}/", f"{tmp_path}/copy/", recursive=True)
    first = pq.read_table(f"{tmp_path}/copy/out/a.parquet")
    for name in NAMES:
        table = pq.read_table(f"{tmp_path}/copy/out/{name[0]}.parquet")
        assert table["text"].to_pylist() == texts_of(name)
        assert compared(table, "spam") == compared(first, "spam")
        assert _texts(tmp_path / "copy/clean/kept" / name) == texts_of(name)[::3]
    kept = "".join(f"{text}\r\n" for text in texts_of("f.txt")[::3])
    assert get(tmp_path / "copy/clean/kept/f.txt") == kept.encode()
    [line] = [
        line
        for line in get(tmp_path / "copy/clean/removed/f.txt").splitlines()
        if line.startswith(b"visit my shop f49\t")  # the last one, which no newline ends
    ]
    assert json.loads(line.partition(b"\t")[2])["moderay"]["row"] == 49
    assert cli("verify", f"{bucket}/out", **s3).returncode == 0


def _units(fs: Any, path: str) -> int:
    fs.invalidate_cache()
    return len(fs.glob(f"{path}/out/_moderay/units/**/*.arrow"))


def _asked(folder: Path) -> int:
    log = folder / "log"
    return log.stat().st_size // ANSWERS if log.exists() else 0


def _texts(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        texts: list[str] = pq.read_table(file)["text"].to_pylist()
        return texts
    if file.suffix in (".arrow", ".arrows"):
        opened = pa.ipc.open_file if file.suffix == ".arrow" else pa.ipc.open_stream
        with pa.OSFile(str(file)) as source:
            found: list[str] = opened(source).read_all()["text"].to_pylist()
            return found
    lines = get(file).decode().splitlines()
    if ".jsonl" in file.name:
        return [json.loads(line)["text"] for line in lines]
    return lines[1:] if file.suffix == ".csv" else lines
