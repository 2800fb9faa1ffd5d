"""moderay over a workload: one measurement, printed as JSON. `python -m benchmarks.ours JOB`."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from support.outputs import manifest_of

from benchmarks.engine_work import steady


def labelled(job: Path) -> dict[str, Any]:
    """Run the job in this process, which is its driver."""
    from moderay.pipeline.check import check
    from moderay.pipeline.control.progress import Progress
    from moderay.pipeline.run import run

    marks: list[tuple[float, int]] = []

    class Marks(Progress):
        def add(self, unit: Any) -> None:
            super().add(unit)
            marks.append((time.monotonic(), self.rows))

    began = time.monotonic()
    checked = check(job)
    run(checked, progress=Marks(None))
    rows = marks[-1][1]
    rate, begin, end = steady(marks, rows)
    manifest = manifest_of(job.parent / Path(checked.job.output.path).name)
    usage = manifest["runs"][-1]["usage"]
    counts = manifest["counts"].values()
    answers = sum(count["ok"] for count in counts)
    return {
        "rate": rate,
        "begin": begin,
        "end": end,
        "rows": rows,
        "first": marks[0][0] - began,
        "tokens_in": usage["prompt_tokens"] / rows,
        "tokens_out": usage["output_tokens"] / rows,
        "requests": usage["requests"] / rows,
        "ok": answers / rows / len(counts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", type=Path)
    print(json.dumps(labelled(parser.parse_args().job)))


if __name__ == "__main__":
    main()
