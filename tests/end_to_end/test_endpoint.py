"""A run on a model that is served elsewhere."""

from pathlib import Path

import pytest
from support.endpoint import NAME, Endpoint, served_beside
from support.faulty import Faults
from support.outputs import labels, manifest_of, verdicts_of

from moderay.engines.remote.access import KEY

pytestmark = pytest.mark.long


def test_run_against_an_endpoint_that_fails_now_and_then_is_complete_and_keeps_the_key_to_itself(
    job, corpus: Path, tmp_path: Path, cli
) -> None:  # type: ignore[no-untyped-def]
    endpoint = Endpoint(key="sk-secret")
    with (
        served_beside(endpoint.handle) as url,
        served_beside(Faults(url, rate=0.2, always="", seed=2, throttle=429).handle) as proxy,
    ):
        file = job(model={"endpoint": f"{proxy}/v1", "name": NAME, "concurrency": 16})
        outcome = cli("run", file, **{KEY: "sk-secret", "RAY_ADDRESS": "local"})
    assert outcome.returncode == 0, outcome.stderr
    actual = labels(tmp_path / "out")
    assert sum(len(table) for table in actual.values()) == 105
    for table in actual.values():
        for text, verdict in zip(
            table.column("text").to_pylist(), verdicts_of(table, "spam"), strict=True
        ):
            label = (
                None
                if not (text or "").strip()
                else "SP4"
                if "prize" in text
                else "SP2"
                if "shop" in text
                else "SP0"
            )
            assert (verdict["label"], verdict["status"]) == (label, "ok" if label else "empty")
    manifest = manifest_of(tmp_path / "out")
    assert (
        manifest["complete"]
        and manifest["runs"][0]["model"]["name"] == NAME
        and manifest["runs"][0]["usage"]["cached_tokens"] > 0
    )
    assert endpoint.keys == {"Bearer sk-secret"}
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"sk-secret" not in written and "sk-secret" not in outcome.stdout + outcome.stderr
