"""The tiny checkpoint and the script that makes it."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moderay.engines import checkpoint
from moderay.engines.harmony.vocabulary import CONTROL_TOKENS, vocabulary
from moderay.engines.tiny import demo
from moderay.engines.tiny.corpus import DEMO, TRAINING

# In a process of its own, as `make train` is: what other tests leave in one can change a last bit.
TRAIN = """
import json, sys
from pathlib import Path
from moderay.engines.tiny.train import train
print(json.dumps(train(Path(sys.argv[1]), steps=6, seed=0, size=4)))
"""


def trained(folder: Path) -> list[float]:
    """The losses of a short training."""
    command = [sys.executable, "-c", TRAIN, str(folder)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    losses: list[float] = json.loads(ran.stdout.splitlines()[-1])
    return losses


@pytest.mark.slow
def test_training_script_learns_in_a_few_steps_and_is_repeatable(tmp_path: Path) -> None:
    first, second = (trained(tmp_path / name) for name in "ab")
    assert first == second
    assert first[-1] < first[0]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    assert (tmp_path / "a/vocabulary.json").read_bytes() == (
        checkpoint.TINY_FOLDER / "vocabulary.json"
    ).read_bytes()
    assert (tmp_path / "a/model.safetensors").stat().st_size == (
        checkpoint.TINY_FOLDER / "model.safetensors"
    ).stat().st_size


def test_committed_checkpoint_is_small_and_its_control_tokens_lie_above_the_text() -> None:
    assert sum(file.stat().st_size for file in checkpoint.TINY_FOLDER.iterdir()) <= 8 * 2**20
    vocab = vocabulary(str(checkpoint.TINY_FOLDER))
    assert set(vocab.control) == set(CONTROL_TOKENS) and max(vocab.control.values()) == 1023
    assert vocab.decode(vocab.encode("b\u0000\ud7ff\U0010ffff")) == "b\u0000\ud7ff\U0010ffff"


def test_demo_corpus_is_made_of_sentences_that_were_not_trained_on(tmp_path: Path) -> None:
    assert (
        not set(DEMO.plain) & set(TRAINING.plain)
        and not set(DEMO.quoting) & set(TRAINING.quoting)
        and not set(DEMO.neutral) & set(TRAINING.neutral)
    )
    demo.write(tmp_path)
    tables = [pq.read_table(file) for file in sorted(tmp_path.iterdir())]
    assert [table.num_rows for table in tables] == [300] * 4
    ambiguous = sum(sum(table.column("ambiguous").to_pylist()) for table in tables)
    assert 0.17 <= ambiguous / 1200 <= 0.23
    contents = [content for table in tables[:3] for content in table.column("content").to_pylist()]
    assert sum(content is None or not content.strip() for content in contents) == 12
    assert sum(len(content or "") > 10**6 for content in contents) == 1 and any(
        "<|end|>" in (content or "") for content in contents
    )
