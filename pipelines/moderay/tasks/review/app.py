"""What the review page asks: the next content, and to keep an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from moderay.core.errors import ModerayError
from moderay.labels.review_records import Review
from moderay.tasks.output_contents import FoundContent
from moderay.tasks.review.agreement import agreements
from moderay.tasks.review.contents import content_of
from moderay.tasks.review.desk import Answer, Desk, OtherAnswerError, UnknownItemError
from moderay.tasks.review.items import Item, Key
from moderay.tasks.review.output import ReviewedOutput
from moderay.tasks.review.verdicts import verdict_of

# Characters of a text that a browser is sent; of a longer one the page says so.
LONGEST_TEXT = 1_000_000
LONGEST_NOTE = 4_000
_ASSETS = {"review.js": "text/javascript", "review.css": "text/css"}
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class PostedAnswer(BaseModel):
    """An answer as the page sends it."""

    model_config = ConfigDict(extra="forbid")
    id: _Id
    policy: str
    content_hash: _Id
    label: str | None = None
    note: str | None = Field(default=None, max_length=LONGEST_NOTE)
    withdraws: _Id | None = None


def review_app(desk: Desk, output: ReviewedOutput, name: str) -> FastAPI:
    """The pages and answers of a review server, for whoever `Guard` lets through.

    Args:
        desk: Where reviewers answer.
        output: That is reviewed.
        name: Of the output, for people.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(ModerayError, _told)
    for path, handler in {
        "/": _file("review.html", "text/html"),
        "/favicon.ico": lambda: Response(status_code=204),
        **{f"/static/{asset}": _file(asset, kind) for asset, kind in _ASSETS.items()},
    }.items():
        app.add_api_route(path, handler, methods=["GET"], response_model=None)
    pages = _Pages(desk, output, name)
    app.add_api_route("/api/sitting", pages.sitting, methods=["GET"])
    app.add_api_route("/api/item", pages.item, methods=["GET"])
    app.add_api_route("/api/answers", pages.answer, methods=["POST"], status_code=201)
    return app


def _file(name: str, kind: str) -> Callable[[], Response]:
    data = (files("moderay.tasks.review") / "page" / name).read_bytes()
    return lambda: Response(data, media_type=kind)


def _told(_: Request, error: Exception) -> JSONResponse:
    """What was not done, in words; all but what can never be done is worth another try."""
    status = 503
    if isinstance(error, UnknownItemError):
        status = 404
    elif isinstance(error, OtherAnswerError):
        status = 409
    return JSONResponse({"error": str(error)}, status)


class _Pages:
    """The requests of the page. Handlers are no coroutines: they wait for storage in threads."""

    def __init__(self, desk: Desk, output: ReviewedOutput, name: str) -> None:
        self._desk = desk
        self._output = output
        self._name = name

    def sitting(self, request: Request) -> dict[str, Any]:
        """Who reviews what, how far they are, and how far people agree."""
        reviewer = request.state.reviewer
        self._desk.refresh()
        return {
            "reviewer": reviewer,
            "output": self._name,
            "assisted": self._desk.assisted,
            "policies": {name: asdict(policy) | {"labels": _labels(policy.labels)}
                         for name, policy in self._desk.policies.items()},
            "agreement": [
                asdict(pair)
                for pair in agreements(self._desk.answers(), self._desk.policies)
                if reviewer in pair.people
            ],
            **self._place(reviewer),
        }  # fmt: skip

    def item(
        self, request: Request, policy: str | None = None, content_hash: str | None = None
    ) -> dict[str, Any]:
        """What is asked next, or the item that is named; null where all are answered."""
        reviewer = request.state.reviewer
        if policy is None or content_hash is None:
            item = self._desk.next_item(reviewer)
        elif (item := self._desk.items.get(Key(policy, content_hash))) is None:
            raise UnknownItemError(f"{policy}: no content {content_hash} is asked about here")
        return {
            "item": None if item is None else self._shown(reviewer, item),
            **self._place(reviewer),
        }

    def answer(self, request: Request, posted: PostedAnswer) -> dict[str, Any]:
        """Keep an answer. When this is read, it is kept."""
        reviewer = request.state.reviewer
        key = Key(posted.policy, posted.content_hash)
        given = self._desk.give(
            reviewer, Answer(posted.id, key, posted.label, posted.note, posted.withdraws)
        )
        is_open = given.label is None  # skipped or taken back: nothing is shown yet
        return {
            "id": given.id,
            "revealed": None if is_open else self._revealed(reviewer, self._desk.items[key]),
            **self._place(reviewer),
        }

    def _place(self, reviewer: str) -> dict[str, Any]:
        """How far a person is, and what undo would take back."""
        last = self._desk.last_of(reviewer)
        return {
            "progress": asdict(self._desk.progress(reviewer)),
            "last": None if last is None else _said(last),
        }

    def _shown(self, reviewer: str, item: Item) -> dict[str, Any]:
        """An item without what the model said of it, unless people may see that beforehand."""
        policy, content_hash = item.key
        return {
            "policy": policy,
            "content_hash": content_hash,
            "shard": item.shard,
            "row": item.row,
            "content": _bounded(content_of(self._output, item)),
            "revealed": self._revealed(reviewer, item) if self._desk.assisted else None,
        }

    def _revealed(self, reviewer: str, item: Item) -> dict[str, Any]:
        """What the model said of an item, and what others did."""
        verdict = verdict_of(self._output, item)
        others = [
            {"reviewer": review.reviewer, "label": review.label, "note": review.note}
            for review in self._desk.answers()
            if Key(review.policy, review.content_hash) == item.key
            and review.reviewer != reviewer
            and review.label is not None
        ]
        return {
            "queue": item.queue,
            "verdict": None if verdict is None else asdict(verdict),
            "others": others,
        }


def _labels(labels: Any) -> list[dict[str, Any]]:
    return [{"name": name, **label.model_dump()} for name, label in labels.items()]


def _said(review: Review) -> dict[str, Any]:
    return {
        "id": review.id,
        "policy": review.policy,
        "content_hash": review.content_hash,
        "label": review.label,
        "note": review.note,
    }


def _bounded(content: FoundContent) -> dict[str, Any]:
    """A content as far as a browser is sent it, and how long it is as a whole."""
    text = "" if content.turns else content.text or ""
    left = LONGEST_TEXT
    turns = []
    for turn in content.turns:
        turns.append({"role": turn.role[:200], "content": turn.content[:left]})
        left -= len(turns[-1]["content"])
        if left <= 0:
            break
    return {
        "text": text[:LONGEST_TEXT],
        "turns": turns,
        "length": len(text) + sum(len(turn.content) for turn in content.turns),
        "sent": len(text[:LONGEST_TEXT]) + sum(len(turn["content"]) for turn in turns),
        "problem": content.missing,
    }
