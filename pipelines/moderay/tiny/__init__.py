"""`tiny`: the embedded checkpoint of the real gpt-oss architecture, for trying and testing; see
CARD.md.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SOURCE = "tiny"
NOTICE = "tiny is for trying and testing: its labels on real content mean nothing"
