"""A policy that is being written, on the real engine: a save, and the verdicts that come of it."""

import asyncio
import time
from pathlib import Path

import pytest
from support.project import ROOT
from support.workbenches import policy_folder, save

from moderay.config.job import Model
from moderay.config.policy import load_golden
from moderay.tasks.embedded_job import embedded_job
from moderay.tasks.workbench.rows import DataRows, text_row
from moderay.tasks.workbench.trial import Trial
from moderay.tasks.workbench.workbench import opened

ROWS = 10


@pytest.mark.slow
def test_saving_a_policy_gives_other_verdicts_within_seconds(tmp_path: Path) -> None:
    cases = load_golden(ROOT / "policies/spam")[:: 42 // ROWS][:ROWS]
    rows = tuple(text_row(case.content, f"row {i}") for i, case in enumerate(cases))
    policy = policy_folder(tmp_path)
    patient = {"limits": {"request_s": 600}}  # a machine that is busy
    job, _ = embedded_job("content", [policy], Model(source="tiny"), patient)

    async def tried() -> None:
        async with opened(job) as bench:
            trial = Trial(bench, policy, DataRows(rows, ()), golden=False)
            await trial.judge()
            first = [state.decision for state in trial.states]
            assert [decision and decision["status"] for decision in first] == ["ok"] * ROWS
            save(policy, "## VIOLATES\n", "## VIOLATES\nSP2 is for whatever names a price.\n\n")
            began = time.monotonic()
            assert trial.saved()
            await trial.judge()
            seconds = time.monotonic() - began
            print(f"from the save to {ROWS} verdicts: {seconds:.1f} s")
            second = [state.decision for state in trial.states]
            assert all(
                before and after and before["scores"] != after["scores"]
                for before, after in zip(first, second, strict=True)
            )
            assert all(
                state.before == before for state, before in zip(trial.states, first, strict=True)
            )

            save(policy, "SP2 is for whatever names a price.\n\n", "")
            assert trial.saved()
            await trial.judge()
            assert [state.decision for state in trial.states] == first

    asyncio.run(tried())
