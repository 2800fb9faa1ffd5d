"""Pages: what is other people's is escaped, visible and obeyed by nobody."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from moderay.tasks.pages.forms import percent
from moderay.tasks.pages.page import content_security_policy, render
from moderay.tasks.pages.text import safe_text


def test_page_runs_only_the_script_and_styles_that_its_policy_has_the_hashes_of() -> None:
    text = render("base.html.j2", data={"x": "</script><script>alert(1)</script>"})
    policy = content_security_policy()
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        [body] = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.replace("'", "&#39;") in text
    assert "unsafe" not in policy and "default-src 'none'" in policy
    [data] = re.findall(r'<script type="application/json" id="page-data">(.*?)</script>', text)
    assert json.loads(data) == {"x": "</script><script>alert(1)</script>"}
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x07\x00", "␛[2J␇␀"),
        ("a\tb\nc\r\nd\re", "a\tb\nc\nd␍e"),
        ("\x9b31m\x7f", "⟨U+009B⟩31m␡"),
        ("\u202eevil\u2066", "⟨U+202E⟩evil⟨U+2066⟩"),
        ("pay\u200bpal", "pay⟨U+200B⟩pal"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("نمی\u200cخواهم 👩\u200d👧 שלום\u200f", "نمی\u200cخواهم 👩\u200d👧 שלום\u200f"),
    ],
)
def test_characters_without_a_shape_are_shown(text: str, shown: str) -> None:
    assert safe_text(text) == shown
    safe_text(text).encode()


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0%"), (1, "100.0%"), (0.123, "12.3%"), (0.0042, "0.42%"), (0.99999, "100.00%"),
     (2e-6, "0.0002%"), (None, "–")],
)  # fmt: skip
def test_percent_tells_little_from_nothing(share: float | None, text: str) -> None:
    assert percent(share) == text
