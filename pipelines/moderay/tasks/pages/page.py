"""How a page is made of a template: escaped, self-contained, and under a policy of its own.

Contents are hostile. Every value is escaped by the template engine, the browser runs no script but
those whose hash stands in the page's Content-Security-Policy, and no request leaves the page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moderay.tasks.pages import forms
from moderay.tasks.pages.text import safe_text

STYLES = ("page.css",)
SCRIPTS = ("page.js",)


def render(
    template: str,
    *,
    scripts: Sequence[str] = SCRIPTS,
    styles: Sequence[str] = STYLES,
    connect: str = "'none'",
    data: object = None,
    **context: Any,
) -> str:
    """A page.

    Args:
        template: Name of a file in `templates/`, which extends `base.html.j2`.
        scripts: Names of files there that the page runs, one after the other.
        styles: Names of files there with its styles.
        connect: Where its scripts may send requests, as the policy says it: `'self'` for a page
            that a server of ours hands out.
        data: For its scripts, as JSON: `page.data` of page.js.
        context: What the template names.
    """
    script, style = _joined(tuple(scripts)), _joined(tuple(styles))
    return (
        _environment()
        .get_template(template)
        .render(
            csp=content_security_policy(scripts, styles, connect),
            page_script=Markup(script),
            page_style=Markup(style),
            page_data=data,
            **context,
        )
    )


def content_security_policy(
    scripts: Sequence[str] = SCRIPTS, styles: Sequence[str] = STYLES, connect: str = "'none'"
) -> str:
    """The policy of a page with these scripts and styles, also for a server's header.

    What is not named is refused: frames, fonts, media, plug-ins, forms, other styles, and scripts
    made of text.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(_joined(tuple(scripts)))}",
            f"style-src {_hash(_joined(tuple(styles)))}",
            "img-src data:",
            f"connect-src {connect}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _joined(names: tuple[str, ...]) -> str:
    """Files of ours as one text; they hold no end tag, or the page would end there."""
    folder = resources.files("moderay.tasks.pages") / "templates"
    text = "\n".join((folder / name).read_text("utf-8") for name in names)
    assert "</s" not in text, f"{', '.join(names)}: an end tag"
    return text


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("moderay.tasks.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"safe_text": safe_text, **forms.FILTERS}
    return environment
