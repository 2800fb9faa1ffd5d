"""URLs as they may be written, logged and shown: without users, passwords and signatures."""

from __future__ import annotations

import re

# `user:password@` after `://`. A password may hold an `@`, and one of a store's keys a `/`, which
# then makes a port that is no number of what stands before it.
_USER = re.compile(r"(?<=://)(?:[^/?#\s]*@|(?!arn:)[^/?#\s:@\[\]]+:(?!\d+(?:[/?#\s]|$))[^\s@]*@)")
# Without the sign behind it in a sentence.
_QUERY = re.compile(r"\?([^?#\s\"'<>]*[^?#\s\"'<>:,.;)\]])")
# Words in the name of a parameter that make its value a secret.
_SECRET = re.compile(
    r"(?:^|[^a-z])(?:sig|signature|sas|token|secret|password|passwd|pwd|passphrase|credentials?|auth|jwt|hmac"
    r"|authorization|cookie|session|api_?key|access_?key(?:_?id)?|access_?id|account_?key)(?:$|[^a-z])"
    r"|^key$"
)
# What stands beside a signature and changes with it: of AWS, Google, Azure and CloudFront.
_BESIDE = re.compile(
    r"x[-_](?:amz|goog|ms|oss|cos|obs)[-_].*|expires|policy|key[-_]pair[-_]id"
    r"|s[vtrpe]|ss|srt|spr|sip|sdd|ses|ske|skt|sks|skv|skoid|sktid|scid|sduoid?|saoid|suoid"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def shown(text: str) -> str:
    """A URL, or any text with URLs in it, without the secrets of these.

    Users and passwords go, and signatures, tokens and keys in a query with whatever changes as they
    are made anew: two URLs that differ in nothing else are shown as the same.
    """
    if "://" in text:
        text = _USER.sub("", text)
    return _QUERY.sub(_without_secrets, text) if "?" in text else text


def _without_secrets(query: re.Match[str]) -> str:
    parameters = query[1].split("&")
    names = [_CAMEL.sub("_", parameter.partition("=")[0]).lower() for parameter in parameters]
    if not any(map(_is_secret, names)):
        return query[0]
    kept = [
        parameter
        for name, parameter in zip(names, parameters, strict=True)
        if not _is_secret(name) and not _BESIDE.fullmatch(name)
    ]
    return "?" + "&".join(kept) if kept else ""


def _is_secret(name: str) -> bool:
    return _SECRET.search(name) is not None
