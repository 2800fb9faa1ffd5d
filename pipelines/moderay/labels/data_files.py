"""What of an output is data, for a tool that would take every file below a folder for it.

Most tools pass over names that begin with `_`, as `_moderay` does. Hugging Face's `datasets` passes
over names that begin with a dot, and reads this file; nobody else takes it for data.
"""

from __future__ import annotations

from moderay.labels.layout import Layout

NAME = ".huggingface.yaml"
TEXT = """\
# Which files of this folder are data, for datasets.load_dataset.
configs:
- config_name: default
  data_files: "**/*.parquet"
"""


def name_data_files(layout: Layout) -> None:
    """Write it, unless there is one already."""
    layout.create(layout.label(NAME), TEXT.encode())
