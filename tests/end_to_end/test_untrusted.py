"""Content, files and checkpoints of others run no code, leave no folder, reach no terminal; secrets
stay where they are.
"""

import json
import os
import pickle
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.outputs import labels
from support.project import ROOT

from moderay.engines import checkpoint


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.slow
def test_checkpoint_of_pickles_and_code_runs_neither(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    model, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(
        checkpoint.TINY_FOLDER,
        model,
        ignore=shutil.ignore_patterns("*.safetensors", "*.py", "__pycache__"),
    )
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark)))
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    result = cli(
        "label",
        ROOT / "policies/spam",
        "--content",
        "hello",
        "--model",
        model,
    )
    assert result.returncode == 2 and "holds no weights" in result.stderr and not mark.exists(), (
        result.stderr
    )
    pickle.loads(pickle.dumps(Evil(mark)))
    assert mark.exists()  # it would have


def test_names_of_shards_are_printed_without_what_a_terminal_obeys(
    job, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["hello"]}), tmp_path / "in/good\x1b[2J.parquet")
    (tmp_path / "in/torn\x1b[2J\u202e.parquet").write_bytes(b"no parquet at all")
    result = cli("run", job())
    assert (
        result.returncode == 1
        and "torn" in result.stderr
        and "\x1b[2J" not in result.stderr + result.stdout
        and "\u202e" not in result.stderr
    )
    [published] = labels(tmp_path / "out")
    assert published.startswith("good%1B[2J-") and published.endswith(".parquet")


@pytest.mark.slow
def test_secrets_are_in_no_file_and_no_message(
    job, tmp_path: Path, cli, s3, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    secret = "do-not-tell-anybody"
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["hello"]}), tmp_path / "in/a.parquet")
    env = {**s3, "AWS_SECRET_ACCESS_KEY": secret}
    storage = {"s3": {"key": "somebody", "secret": secret}}
    result = [
        cli("run", job(storage=storage, output={"path": path}), **env)
        for path in ("out", f"s3://data/{tmp_path.name}", "s3://no-such-bucket/x")
    ]
    assert [one.returncode for one in result] == [0, 0, 2]
    assert not any(secret in one.stdout + one.stderr for one in result)
    from moderay.core.storage import filesystem

    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    fs, path = filesystem(f"s3://data/{tmp_path.name}")
    files = [fs.cat_file(name) for name in fs.find(path)] + [
        file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()
    ]
    assert len(files) > 4 and not any(secret.encode() in data for data in files)


@pytest.mark.slow
def test_workers_without_credentials_say_so_in_one_sentence(
    job, tmp_path: Path, cli, s3, ray_cluster: str
) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"text": ["hello"] * 50}), tmp_path / "in/a.parquet")
    env = {
        **s3,
        "RAY_ADDRESS": ray_cluster,
    }  # a cluster that runs already, without them
    endpoint = {"s3": {"endpoint_url": s3["AWS_ENDPOINT_URL"]}}
    result = cli("run", job(storage=endpoint, output={"path": f"s3://data/{tmp_path.name}"}), **env)
    assert (
        result.returncode == 2
        and "Unable to locate credentials; on " in result.stderr
        and "Traceback" not in result.stderr
    ), result.stderr
