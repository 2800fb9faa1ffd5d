"""One Parquet file for people, beside outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from moderay.core.errors import UserError
from moderay.core.storage import is_local
from moderay.labels.layout import Layout


@contextmanager
def whole_parquet(
    file: Path, schema: pa.Schema, outputs: Sequence[Layout], option: str = "--parquet"
) -> Iterator[pq.ParquetWriter]:
    """Write a file that appears when it is whole, and not at all where writing it fails.

    Args:
        file: Its path; a file that is there is replaced.
        schema: Of its rows.
        outputs: Among whose labels it must not lie.
        option: By which people named it.

    Raises:
        UserError: It would lie there.
    """
    for layout in outputs:
        if is_local(layout.fs) and file.resolve().is_relative_to(Path(layout.root).resolve()):
            raise UserError(
                f"{option} {file}: write it outside the output, which holds labels only"
            )
    aside = file.with_name(f".{file.name}.part")
    try:
        with pq.ParquetWriter(aside, schema) as writer:
            yield writer
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
