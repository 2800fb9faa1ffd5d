"""Text of other people's as a page may show it: nothing in it is obeyed, and nothing is hidden."""

from __future__ import annotations

import re

# Line ends and tabs are what they are. Everything else that has no shape of its own: control
# characters (a terminal obeys them), what turns the direction of text, spaces without width, tag
# characters (a model reads them and a person does not), and halves of a surrogate pair, which are
# no text at all. Marks and joiners, which Arabic, Persian, Hindi and emoji need, stay.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def safe_text(text: str) -> str:
    """Text with visible symbols in the place of characters that have no shape.

    It is not escaped for HTML: a template does that. Line ends are single line feeds.
    """
    return _HIDDEN.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u27e8U+{code:04X}\u27e9"
