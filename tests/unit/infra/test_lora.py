"""The fine-tuning recipe trains, merges and leaves alone what it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.project import ROOT

from moderay.engines.checkpoint import TINY_FOLDER

pytestmark = pytest.mark.slow
RECIPE = ROOT / "infra/fine_tuning/lora.py"


def test_recipe_learns_the_completion_and_merges_all_that_it_trains(tmp_path: Path) -> None:
    # After a prompt of 12 tokens the model is to say 7 or 9; what stands before is not learned.
    rows = [
        {
            "input_ids": [*range(20, 32), 7 + 2 * (number % 2), 11],
            "completion_mask": [*[0] * 12, 1, 1],
            "weight": 1.0 if number % 2 else 0.5,
        }
        for number in range(16)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    pq.write_table(pa.Table.from_pylist(rows[:2]), tmp_path / "validation.parquet")
    out = tmp_path / "tuned"
    options = {"--model": TINY_FOLDER, "--data": tmp_path, "--out": out, "--epochs": 2}
    options |= {"--learning-rate": 1e-2, "--batch": 8, "--accumulate": 1, "--rank": 2}
    done = subprocess.run(
        [sys.executable, RECIPE, *[str(word) for option in options.items() for word in option]],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    log = [each for each in json.loads((out / "training.json").read_text()) if "eval_loss" in each]
    assert len(log) == 2 and log[1]["eval_loss"] < log[0]["eval_loss"]
    _assert_merged(out)


def _assert_merged(out: Path) -> None:
    from safetensors.torch import load_file

    before, after = (load_file(each / "model.safetensors") for each in (TINY_FOLDER, out))
    assert before.keys() == after.keys()
    changed = {name for name in before if not before[name].equal(after[name])}
    layers = range(4)
    assert changed == {
        f"model.layers.{layer}.{name}"
        for layer in layers
        for name in (
            *[f"self_attn.{part}_proj.weight" for part in "qkvo"],
            "mlp.experts.gate_up_proj",
            "mlp.experts.down_proj",
        )
    }
    configs = [json.loads((each / "config.json").read_text()) for each in (TINY_FOLDER, out)]
    assert configs[0] == configs[1]
    assert {str(each.dtype) for each in after.values()} == {"torch.bfloat16"}
    for name in ("vocabulary.json", "control_tokens.json"):
        assert (out / name).read_bytes() == (TINY_FOLDER / name).read_bytes()
    assert not list(out.glob("*.py"))
