"""`tiny`: the embedded checkpoint of the real gpt-oss architecture, for trying and testing; see CARD.md."""

from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE = "tiny"
NOTICE = "tiny is for trying and testing: its labels on real content mean nothing"


def located(source: str) -> str:
    """A model's source as a library takes it on this machine: `tiny` lies where this package does, on each node elsewhere."""
    return str(FOLDER) if source == SOURCE else source
