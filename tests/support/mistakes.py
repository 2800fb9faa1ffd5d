"""What newcomers get wrong: a small project each, spoilt in one place, and what they type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from moderay.engines.checkpoint import TINY_FOLDER
from moderay.labels.layout import Layout
from moderay.labels.lease import WHOLE, Lease
from moderay.labels.manifest_store import append_manifest
from moderay.pipeline import manifest as manifests
from moderay.pipeline.check import check
from support.project import ROOT

# What the store of the project's server is called in jobs.
STORE = "s3://no-such-bucket"


@dataclass(frozen=True)
class Mistake:
    """One of them.

    Attributes:
        name: What is wrong.
        command: What is typed, after `moderay`.
        spoil: Makes it so in the project, which is the current folder; what it gives is left when
            the command has ended.
    """

    name: str
    command: str
    spoil: Callable[[Path], Any]


def project(folder: Path) -> None:
    """A job that is right: `job.yaml` over `data/`, with `policies/spam`."""
    rows = {"id": [1, 2, 3], "text": ["claim your prize", "hello", "buy now"], "n": [1, 2, 3]}
    (folder / "data").mkdir()
    pq.write_table(pa.table(rows), folder / "data/tweets.parquet")
    shutil.copytree(ROOT / "policies/spam", folder / "policies/spam")
    job(folder)


def job(folder: Path, **sections: Any) -> None:
    """Write the job, with these sections instead of its own."""
    data = {
        "name": "tweets",
        "input": {"path": "data", "content": "text"},
        "output": {"path": "labels"},
        "policies": ["policies/spam"],
        "model": {"source": "tiny"},
        **sections,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def with_sections(**sections: Any) -> Callable[[Path], None]:
    """Spoil the job by these."""
    return lambda folder: job(folder, **sections)


def edit(file: str, before: str, after: str) -> Callable[[Path], None]:
    """Spoil a file of the project by a word."""

    def spoil(folder: Path) -> None:
        text = (folder / file).read_text()
        assert before in text
        (folder / file).write_text(text.replace(before, after, 1))

    return spoil


def model(**config: Any) -> Callable[[Path], None]:
    """A model's folder with this config."""

    def spoil(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model/config.json").write_text(json.dumps(config))
        shutil.copy(TINY_FOLDER / "model.safetensors", folder / "model")
        job(folder, model={"source": "model"})

    return spoil


def file_in_the_way(folder: Path) -> None:
    (folder / "labels").write_text("x")


def begun(folder: Path) -> Lease:
    """Another run's beginning, which lives until it is left."""
    checked = check(folder / "job.yaml")
    layout = Layout(checked.job.output.path)
    held = Lease(layout)
    start = manifests.RunStart(held.run, WHOLE, (), manifests.hardware(0, 1))
    append_manifest(layout, lambda before: manifests.begun(before, checked, "0" * 16, start))
    return held


def edited_policy(folder: Path) -> None:
    """The policy is edited when some of its labels are paid for."""
    with begun(folder):
        layout = Layout(str(folder / "labels"))
        layout.write(layout.unit("tweets.parquet", (0, 3), "0" * 16), b"verdicts")
    edit("policies/spam/policy.md", "## VIOLATES", "Be strict.\n\n## VIOLATES")(folder)


GPT_OSS_20B = {
    "architectures": ["GptOssForCausalLM"],
    "hidden_size": 2880,
    "num_hidden_layers": 24,
    "num_local_experts": 32,
    "quantization_config": {"quant_method": "mxfp4"},
}
AWAY = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:9"}


def nothing(folder: Path) -> None: ...


MISTAKES = [
    Mistake("job file misspelt", "check jobs.yaml", nothing),
    Mistake("a folder for a job file", "check .", nothing),
    Mistake("data for a job file", "check data/tweets.parquet", nothing),
    Mistake(
        "no such column",
        "run job.yaml",
        with_sections(input={"path": "data", "content": "txt"}),
    ),
    Mistake(
        "a column of numbers",
        "run job.yaml",
        with_sections(input={"path": "data", "content": "n"}),
    ),
    Mistake("policy folder misspelt", "run job.yaml", with_sections(policies=["policies/spma"])),
    Mistake(
        "policy's file for its folder",
        "run job.yaml",
        with_sections(policies=["policies/spam/policy.md"]),
    ),
    Mistake(
        "policy without front matter",
        "run job.yaml",
        lambda folder: (folder / "policies/spam/policy.md").write_text("# Spam\n"),
    ),
    Mistake(
        "threshold out of range",
        "run job.yaml",
        edit("policies/spam/policy.md", "threshold: 0.5", "threshold: 50"),
    ),
    Mistake(
        "golden set broken",
        "run job.yaml",
        edit("policies/spam/golden.jsonl", '"label"', '"lable"'),
    ),
    Mistake("key misspelt", "run job.yaml", edit("job.yaml", "content:", "contnet:")),
    Mistake("key misspelt in --set", "run job.yaml --set model.efort=high", nothing),
    Mistake("a colon in a text", "run job.yaml", edit("job.yaml", "name: ", "name: my: ")),
    Mistake(
        "label unknown to the filter's rule",
        "run job.yaml",
        with_sections(filter={"keep": "NOT spma.violates", "out": "clean"}),
    ),
    Mistake("no such model folder", "run job.yaml", with_sections(model={"source": "./model"})),
    Mistake(
        "model of another architecture", "run job.yaml", model(architectures=["LlamaForCausalLM"])
    ),
    Mistake(
        "hub id misspelt, offline",
        "run job.yaml",
        with_sections(model={"source": "openai/gpt-oss-safegard-20b"}),
    ),
    Mistake("no GPU for a 20b", "run job.yaml", model(**GPT_OSS_20B)),
    Mistake("wrong model in label", "label policies/spam --content Hi --model tiny2/", nothing),
    Mistake(
        "output inside the input",
        "run job.yaml",
        with_sections(output={"path": "data/labels"}),
    ),
    Mistake("a file where the output goes", "run job.yaml", file_in_the_way),
    Mistake("no such bucket", "run job.yaml", with_sections(output={"path": f"{STORE}/labels"})),
    Mistake(
        "a store that is away",
        "run job.yaml",
        with_sections(output={"path": f"{STORE}/labels"}, storage=AWAY),
    ),
    Mistake(
        "where with an error",
        "run job.yaml",
        with_sections(input={"path": "data", "content": "text", "where": "n >> 1 AND"}),
    ),
    Mistake(
        "where over no column",
        "run job.yaml",
        with_sections(input={"path": "data", "content": "text", "where": "lang = 'en'"}),
    ),
    Mistake(
        "glob without a match",
        "run job.yaml",
        with_sections(input={"path": "tweets/*.parquet", "content": "text"}),
    ),
    Mistake("policy edited over its labels", "run job.yaml", edited_policy),
    Mistake("two runs at once", "run job.yaml", begun),
    Mistake("part 5/4", "run job.yaml --part 5/4", nothing),
]


@contextmanager
def made(mistake: Mistake, folder: Path) -> Iterator[None]:
    """The project in a folder, with this mistake in it."""
    project(folder)
    with ExitStack() as stack:
        left = mistake.spoil(folder)
        if isinstance(left, Lease):
            stack.enter_context(left)
        yield
