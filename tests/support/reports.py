"""An output of hostile contents, written without a run, for the tests of its pages."""

from __future__ import annotations

from pathlib import Path

from moderay.config.policy import Policy, load_policy
from support.label_folders import Row, label_folder
from support.project import ROOT

SPAM = load_policy(ROOT / "policies/spam")
HARASSMENT = load_policy(ROOT / "policies/harassment")
POLICIES = (SPAM, HARASSMENT)
# What would be run, loaded or obeyed, if a page or a terminal let it.
HOSTILE = (
    "<script>alert('script')</script>",
    "<img src=http://127.0.0.1:9/image.png onerror=alert('image')>",
    "<svg onload=alert('svg')><use href='http://127.0.0.1:9/use.svg#a'></svg>",
    "<a href=\"javascript:alert('link')\" target=_self>a link</a>",
    "</pre></script><style>*{display:none}</style><iframe src=//127.0.0.1:9></iframe>",
    "{{ 7 * 7 }} ${7*7} <!-- --><form action=//127.0.0.1:9><button>send</button></form>",
    "\x1b[2J\x1b]0;title\x07 terminal escapes",
    "\u202etxt.exe right to left שלום",
)
ROWS = 240


def rows_of(shard: int) -> list[Row]:
    """Rows of all kinds: P from 0 to 1, and some that failed."""
    rows: list[Row] = []
    for number in range(ROWS):
        first = number % len(HOSTILE)
        text = "\n".join([f"{shard}-{number}", *HOSTILE[first:], *HOSTILE[:first]])
        # Among them P that is just at an edge of a bin: 0.7 as float32 is below 0.7.
        p = (number * 37 % 1001) / 1000 if number % 5 else 0.7
        spam = None if number % 40 == 39 else (1 - p, p / 4, 3 * p / 4)
        harassment = (0.0, 1 - p, p) if number % 3 == 0 else (1.0, 0.0, 0.0)
        rows.append((text, {"spam": spam, "harassment": harassment}))
    return rows


def hostile_output(folder: Path, policies: tuple[Policy, ...] = POLICIES) -> Path:
    """Two shards of such rows."""
    shards = {"a.parquet": rows_of(0), "day=2/<b>&.parquet": rows_of(1)}
    return label_folder(folder, policies, shards)
