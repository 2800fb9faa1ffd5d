"""Others over the same prompts: `ray.data.llm` and Daft, each in an environment of its own.

`python -m benchmarks.peers --install` makes the environments (`make bench-peers`): everything of
infra/requirements-cpu.txt, so that the engine is the same, and over it the peer's own pins, where
they say otherwise. A peer's script, peer_NAME.py, knows nothing of moderay. It reads work.json,
which names the prompts, the engine's arguments and the sampling, and prints what it measured.

By itself this module runs everyone over a corpus of which 1% cannot be judged, null or longer than
any prompt may be: which of them end, and how many rows come out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from support.project import ROOT
from tokenizers import AddedToken, Tokenizer

from benchmarks.engine_work import EngineWork
from benchmarks.measured import Deadline, measure, module
from benchmarks.records import Case, Figure, Part, finish
from moderay.engines.checkpoint import TINY_FOLDER

HERE = Path(__file__).parent
ENVIRONMENTS = ROOT / ".venv-peers"
TORCH = "torch==2.13.0+cpu"


@dataclass(frozen=True)
class Peer:
    """A library that runs prompts through vLLM.

    Attributes:
        title: For people.
        name: Of its environment, its script and its pins.
    """

    title: str
    name: str

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.name / "bin/python"

    @property
    def pins(self) -> Path:
        return HERE / f"requirements-{self.name}.txt"

    def install(self) -> None:
        """Make its environment, unless that is there with these pins."""
        stamp = ENVIRONMENTS / self.name / "pins.txt"
        shared = ROOT / "infra/requirements-cpu.txt"
        wanted = shared.read_text() + self.pins.read_text()
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        shutil.rmtree(ENVIRONMENTS / self.name, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / self.name], check=True)
        pip: list[str | Path] = [self.python, "-m", "pip", "install", "--quiet", "--no-deps"]
        for what in ([TORCH], ["-r", shared], ["-r", self.pins]):
            subprocess.run([*pip, *what], check=True)
        stamp.write_text(wanted)

    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        if not self.python.is_file():
            return f"{self.title}: it has no environment here (make bench-peers)"
        return None

    def command(self, job: Path, number: int) -> Sequence[str]:
        return [
            str(self.python),
            str(HERE / f"peer_{self.name.replace('-', '_')}.py"),
            str(work(job)),
        ]


PEERS = (Peer("ray.data.llm", "ray-llm"), Peer("Daft", "daft"))


def contenders() -> tuple[dict[str, Callable[[Path, int], Sequence[str]]], tuple[str, ...]]:
    """Those that can be measured here, by title, and why the others cannot."""
    missing = {peer.title: peer.missing() for peer in PEERS}
    return (
        {peer.title: peer.command for peer in PEERS if missing[peer.title] is None},
        tuple(why for why in missing.values() if why is not None),
    )


def work(job: Path) -> Path:
    """What a peer is to do, written beside the job: ids for who takes them, texts for others."""
    file = job.with_name("work.json")
    if file.is_file():
        return file
    asked = EngineWork(job)
    vocab = asked.judges[0].safeguard.vocab
    prompts = asked.prompts()
    table = {
        "ids": [ids for _, ids in prompts],
        "text": [vocab.decode(ids) for _, ids in prompts],
    }
    pq.write_table(pa.table(table), job.with_name("prompts.parquet"))
    arguments = asked.arguments()
    arguments["model"] = str(with_tokenizer(job.parent / "tokenizer", Path(arguments["model"])))
    told = {
        "prompts": str(job.with_name("prompts.parquet")),
        "policies": len(asked.judges),
        "arguments": arguments,
        "max_tokens": max(judge.max_tokens for judge in asked.judges),
        "stop": asked.stop,
        "in_flight": 2 * asked.spec.max_num_seqs,
    }
    file.write_text(json.dumps(told))
    return file


def with_tokenizer(folder: Path, model: Path) -> Path:
    """A copy of a checkpoint of ours with a tokenizer of Hugging Face's form and the same ids."""
    folder.mkdir()
    for file in model.iterdir():
        if file.suffix in (".json", ".safetensors"):
            shutil.copy(file, folder / file.name)
    control = json.loads((TINY_FOLDER / "control_tokens.json").read_text())
    tokenizer = Tokenizer.from_file(str(TINY_FOLDER / "vocabulary.json"))
    names = sorted(control, key=control.__getitem__)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    assert all(tokenizer.token_to_id(name) == control[name] for name in names)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|return|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


COLUMNS = ("ends", "rows out", "seconds")


def broken(job: Path, rows: int, deadline: Deadline, hung_s: float, threads: int) -> Part:
    """Everyone once over rows of which some cannot be judged."""
    there, missing = contenders()
    cases, left_out = [], list(missing)
    for title, command in {"moderay": lambda job, _: module("ours", job), **there}.items():
        if not deadline.allows(hung_s):
            left_out.append(f"{title}: there was no time to tell whether it hangs")
            continue
        outcome = measure(command(job, 0), hung_s, threads)
        out = outcome.result.get("rows", 0) - outcome.result.get("errors", 0)
        cases.append(
            Case(
                name=title,
                figures={
                    "ends": Figure(value=float(bool(outcome.result))),
                    "rows out": Figure(value=out),
                    "seconds": Figure(value=outcome.seconds),
                },
                note=outcome.wrong,
            )
        )
    return Part(
        part="broken",
        title="One row in a hundred cannot be judged",
        settings={"rows": rows, "threads of each engine": threads, "hung after s": hung_s},
        columns=COLUMNS,
        cases=tuple(cases),
        notes=("half of them are null, half longer than any prompt may be",),
        left_out=tuple(left_out),
        seconds=deadline.spent,
    )


def main() -> None:
    from benchmarks import speed, workload

    parser = argparse.ArgumentParser(description=__doc__)
    speed.add_options(parser)
    parser.add_argument("--install", action="store_true", help="make the environments, and end")
    parser.add_argument("--rows", type=int, default=1000)
    options = parser.parse_args()
    if options.install:
        for peer in PEERS:
            peer.install()
        return
    deadline = Deadline(options.seconds)
    rows = max(100, round(options.rows * options.size))
    with tempfile.TemporaryDirectory(prefix="moderay-peers-") as folder:
        job = workload.write(Path(folder) / "work", workload.Workload(rows=rows, broken=0.01))
        finish(broken(job, rows, deadline, options.hung, options.threads), options.json)


if __name__ == "__main__":
    main()
