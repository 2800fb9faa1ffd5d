"""`input:` and `output:`: what is judged, and where the labels go."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from moderay.config.paths import JobPath
from moderay.config.sections.base import Section


class Input(Section):
    """What is judged."""

    path: JobPath | Annotated[list[JobPath], Field(min_length=1)]
    """File, directory, glob, or a list of them; any fsspec URL. Parquet (*.parquet), Arrow IPC
    (*.arrow, *.feather, *.ipc, *.arrows), JSON lines (*.jsonl, *.ndjson), CSV (*.csv, *.tsv) and
    plain text (*.txt, *.text), the latter three also .gz or .zst; of a directory all files of these
    names, at any depth, those of plain text only with `text`. A table: delta://FOLDER,
    delta://s3://BUCKET/FOLDER, or iceberg://CATALOG/NAMESPACE/TABLE.
    """
    version: int | AwareDatetime | None = None
    """Which state of the table that `path` names: Delta's version, Iceberg's snapshot id, or a time
    with its zone such as 2026-11-28T06:00:00Z. Default: the latest.
    """
    content: str = Field(min_length=1)
    r"""A column of text, bytes or conversations, or a template of text columns such as
    "{title}\n\n{body}".
    """
    text: Literal["lines", "file"] | None = None
    """What a row of plain text is: a line, or a whole file; its column is named `text`. Default: a
    line, and in a directory such files are passed over, since licences and notes lie beside data.
    """
    where: str | None = None
    """Rows to judge: Polars SQL over input columns, true or false for each row by itself. Default:
    all rows.
    """
    sample: float | None = Field(default=None, gt=0, le=1)
    """Share of rows, 0 to 1, chosen by content hash, so the same ones each time. Default: all rows.
    """
    allow_empty: bool | None = None
    """Whether an input without files or rows is no mistake: a run then ends with 0 and says so.
    Default: true where the job has a `date`.
    """

    @property
    def paths(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else self.path


class Output(Section):
    """Where the labels go and what stands beside them."""

    path: JobPath
    """A folder, outside the input; one label file for each input file, of the same relative path.
    """
    columns: Literal["all"] | list[str] = "all"
    """Input columns carried over. Default: all, so that the labels can be read without the input.
    """
    reasoning: Literal["all", "flagged", "none"] = "flagged"
    """Whose reasoning is stored. Default: that of flagged rows, which people read."""
    rationale: Literal["all", "flagged", "none"] = "all"
    """For which rows the model writes a rationale. Under `flagged` and `none` an answer ends at its
    label, which spares the tokens behind it, and the verdicts are those of another judge key.
    """
    rationale_from: float | None = Field(default=None, ge=0, le=1)
    """With `rationale: flagged`: the P(violates) from which on there is one, where that is to be
    lower than the threshold, which may then be lowered later.
    """

    table: (
        Literal["delta"] | Annotated[str, Field(pattern=r"^iceberg://[^/]+(/[^/]+)+/[^/]+$")] | None
    ) = None
    """A table of the label files, which every run brings up to what is published: `delta` for a
    Delta table in the output's folder, or `iceberg://CATALOG/NAMESPACE/TABLE`, whose catalog
    pyiceberg's configuration knows.
    """

    @model_validator(mode="after")
    def _for_some(self) -> Self:
        if self.rationale_from is not None and self.rationale != "flagged":
            raise ValueError("rationale_from is for rationale: flagged")
        return self
