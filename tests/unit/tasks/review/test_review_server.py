"""The desk at which people answer, and who may come to it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.reviewing import HOSTILE, files_of, items_of, kept, spam_output, spam_rows

from moderay.core.errors import NoRoomError, UserError
from moderay.labels.reviews import ReviewStore
from moderay.tasks.review.agreement import agreements
from moderay.tasks.review.desk import Answer, Desk, OtherAnswerError, UnknownItemError
from moderay.tasks.review.guard import HEADERS
from moderay.tasks.review.items import Key
from moderay.tasks.review.output import ReviewedOutput
from moderay.tasks.review.serving import ReviewRequest, ReviewServer, is_loopback

numbers = itertools.count()


def new_id() -> str:
    """An answer's."""
    return f"{next(numbers):032x}"


@pytest.fixture
def output(tmp_path: Path) -> ReviewedOutput:
    """Twelve rows, some of them hostile."""
    return spam_output(tmp_path / "labels", {"a.parquet": spam_rows(12, HOSTILE)})


def desk_of(output: ReviewedOutput, *reviewers: str, assisted: bool = False) -> Desk:
    """A desk at which these sit down."""
    store = ReviewStore(output.layout)
    return Desk(store, items_of(output), output.policies, reviewers or ("anna",), assisted)


def say(desk: Desk, reviewer: str, label: str | None, note: str | None = None) -> Answer:
    """Answer what is asked next."""
    item = desk.next_item(reviewer)
    assert item is not None
    answer = Answer(new_id(), item.key, label, note)
    desk.give(reviewer, answer)
    return answer


def test_an_answer_lies_in_a_file_of_its_own_and_at_the_end_in_one_of_the_sitting(
    output: ReviewedOutput,
) -> None:
    folder = Path(output.layout.url)
    desk = desk_of(output)
    first = say(desk, "anna", "SP4", "a prize")
    assert files_of(folder) == [f"{first.id}.json"]
    say(desk, "anna", None)
    desk.close()
    [name] = files_of(folder)
    assert name.startswith(f"{desk.sessions['anna']}-") and name.endswith(".jsonl")
    given, skipped = kept(folder)
    item = desk.items[first.key]
    assert given.model_dump() == {
        "schema_version": 1,
        "id": first.id,
        "session": desk.sessions["anna"],
        "reviewer": "anna",
        "time": given.time,
        "policy": "spam",
        "policy_hash": output.policies["spam"].hash,
        "content_hash": first.key.content_hash,
        "shard": "a.parquet",
        "row": item.row,
        "label": "SP4",
        "note": "a prize",
        "queue": item.queue,
        "plan": None,
        "assisted": False,
        "withdraws": None,
    }
    assert (skipped.label, skipped.withdraws) == (None, None)
    assert desk.progress("anna") == dataclasses.replace(
        desk.progress("anna"), total=12, labelled=1, skipped=1
    )


def test_a_post_that_comes_again_doubles_nothing_and_another_one_of_its_id_is_refused(
    output: ReviewedOutput,
) -> None:
    desk = desk_of(output)
    answer = say(desk, "anna", "SP4")
    again = [desk.give("anna", answer), desk_of(output).give("anna", answer)]
    assert [review.id for review in again] == [answer.id] * 2
    assert len(kept(Path(output.layout.url))) == 1
    with pytest.raises(OtherAnswerError):
        desk.give("anna", dataclasses.replace(answer, label="SP0"))
    with pytest.raises(OtherAnswerError):
        desk_of(output, "ben").give("ben", answer)


def test_an_answer_that_was_kept_though_its_end_got_lost_is_kept_once(
    output: ReviewedOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage fails after it wrote; the page sends the answer again."""
    desk = desk_of(output)
    store = ReviewStore(output.layout)

    def lost(review: Any) -> None:
        store.add(review)
        raise NoRoomError("the storage does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(desk._store, "add", lost)
        with pytest.raises(NoRoomError):
            answer = Answer(new_id(), next(iter(desk.items)), "SP4")
            desk.give("anna", answer)
    assert desk.next_item("anna") == next(iter(desk.items.values()))
    desk.give("anna", answer)
    assert [review.id for review in kept(Path(output.layout.url))] == [answer.id]


def test_undo_takes_back_one_answer_after_the_other_and_what_was_seen_counts_as_seen(
    output: ReviewedOutput,
) -> None:
    desk = desk_of(output)
    first, second = say(desk, "anna", "SP4"), say(desk, "anna", "SP0")
    for answer in (second, first):
        last = desk.last_of("anna")
        assert last is not None and last.id == answer.id
        desk.give("anna", Answer(new_id(), answer.key, None, withdraws=last.id))
        next_item = desk.next_item("anna")
        assert next_item is not None and next_item.key == answer.key
    assert desk.last_of("anna") is None
    again = say(desk, "anna", "SP2")
    said = {review.id: review for review in kept(Path(output.layout.url))}
    assert (said[first.id].assisted, said[again.id].assisted) == (False, True)
    assert len(said) == 5
    with pytest.raises(UnknownItemError, match="ben gave no answer"):
        other = desk_of(output, "ben")
        other.give("ben", Answer(new_id(), again.key, None, withdraws=again.id))


def test_people_are_asked_apart_and_their_agreement_is_counted(output: ReviewedOutput) -> None:
    anna, ben = desk_of(output, "anna"), desk_of(output, "ben")
    for one, other in (("SP4", "SP4"), ("SP4", "SP2"), ("SP0", "SP0"), ("SP0", "SP4")):
        say(anna, "anna", one)
        say(ben, "ben", other)
    say(anna, "anna", "SP0")
    anna.refresh()
    [pair] = agreements(anna.answers(), output.policies)
    assert (pair.people, pair.both, pair.same, pair.same_side) == (("anna", "ben"), 4, 2, 3)
    # By hand: half agree, and by chance (2*1 + 0*1 + 2*2) / 16 would.
    assert pair.kappa == pytest.approx((1 / 2 - 6 / 16) / (1 - 6 / 16), abs=1e-3)


def test_answers_to_another_text_of_the_policy_are_asked_again(output: ReviewedOutput) -> None:
    desk = desk_of(output)
    answer = say(desk, "anna", "SP4")
    spam = dataclasses.replace(output.policies["spam"], hash="0" * 16)
    other = desk_of(dataclasses.replace(output, policies={"spam": spam}))
    item = other.next_item("anna")
    assert item is not None and item.key == answer.key
    assert other.progress("anna").labelled == 0


def test_what_is_not_asked_is_not_taken(output: ReviewedOutput) -> None:
    desk = desk_of(output)
    key = next(iter(desk.items))
    for answer in (
        Answer(new_id(), Key("spam", "0" * 32), "SP0"),
        Answer(new_id(), Key("other", key.content_hash), "SP0"),
        Answer(new_id(), key, "SP9"),
    ):
        with pytest.raises(UnknownItemError):
            desk.give("anna", answer)
    assert kept(Path(output.layout.url)) == []


@dataclasses.dataclass
class Asked:
    """A server that is asked without a socket between."""

    server: ReviewServer
    client: TestClient

    @property
    def origin(self) -> dict[str, str]:
        return {"Origin": str(self.client.base_url).rstrip("/")}

    def post(self, item: dict[str, Any], **more: Any) -> Any:
        """Answer an item."""
        asked = {name: item[name] for name in ("policy", "content_hash")}
        body = {"id": new_id(), **asked, **more}
        return self.client.post("/api/answers", json=body, headers=self.origin)


@pytest.fixture
def asked(
    output: ReviewedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Asked]:
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))
    request = ReviewRequest(output, items_of(output), ("anna", "ben"), port=0)
    server = ReviewServer(request)
    link = server.links["anna"]
    with TestClient(server.app(), base_url=link.partition("/?")[0]) as client:
        client.get(link)
        yield Asked(server, client)
    server.close()


def test_the_link_becomes_a_cookie_that_no_script_reads(asked: Asked) -> None:
    link = asked.server.links["ben"]
    response = asked.client.get(link, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert asked.client.get("/api/sitting").json()["reviewer"] == "ben"


def test_without_a_token_of_this_server_nothing_is_told(asked: Asked, tmp_path: Path) -> None:
    port = asked.client.base_url.port
    asked.client.cookies.clear()
    for path in ("/", "/?token=wrong", "/api/sitting", "/api/item", "/static/review.js", "/docs"):
        response = asked.client.get(path)
        assert response.status_code == 403 and "link" in response.text
    asked.client.cookies.set(f"moderay_review_{port}", "wrong")
    assert asked.client.get("/api/sitting").status_code == 403
    files = [*(tmp_path / "cache/review").iterdir()]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:80"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Content-Length": "100000"}, 413),
        ({}, 201),
    ],
)
def test_answers_are_taken_from_the_servers_own_page_alone(
    asked: Asked, headers: dict[str, str], status: int
) -> None:
    item = asked.client.get("/api/item").json()["item"]
    body = {"id": new_id(), "policy": "spam", "content_hash": item["content_hash"], "label": "SP0"}
    response = asked.client.post("/api/answers", json=body, headers={**asked.origin, **headers})
    assert response.status_code == status
    said = kept(Path(asked.server.desk._store._layout.url))
    assert len(said) == int(status == 201)


def test_every_answer_forbids_what_a_page_could_do_with_it(asked: Asked) -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy
    for path in ("/", "/api/item", "/static/review.css", "/nothing", "/favicon.ico"):
        response = asked.client.get(path)
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
    foreign = asked.client.get("/", headers={"Host": "evil.example"})
    assert {name: foreign.headers[name] for name in HEADERS} == HEADERS


def test_the_models_verdict_is_told_after_the_answer_alone(asked: Asked) -> None:
    before = asked.client.get("/api/item").text
    for word in ("probability", "rationale", "queue", "verdict", "flagged", "borderline"):
        assert word not in before
    item = asked.client.get("/api/item").json()["item"]
    assert item["revealed"] is None
    skipped = asked.post(item, label=None).json()
    assert skipped["revealed"] is None
    item = asked.client.get("/api/item").json()["item"]
    told = asked.post(item, label="SP0", note="plain").json()
    assert told["revealed"]["verdict"]["rationale"].startswith("why ")
    assert told["progress"] == {"total": 12, "labelled": 1, "skipped": 1}
    assert told["last"]["note"] == "plain"


def test_an_assisted_sitting_shows_it_beforehand_and_says_so_in_the_review(
    output: ReviewedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))
    request = ReviewRequest(output, items_of(output), ("anna",), assisted=True, port=0)
    server = ReviewServer(request)
    link = server.links["anna"]
    with TestClient(server.app(), base_url=link.partition("/?")[0]) as client:
        client.get(link)
        item = client.get("/api/item").json()["item"]
        assert item["revealed"]["verdict"]["status"] == "ok"
        Asked(server, client).post(item, label="SP0")
    server.close()
    assert [review.assisted for review in kept(tmp_path / "labels")] == [True]


def test_a_refused_answer_says_why_and_a_failing_storage_is_worth_another_try(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = asked.client.get("/api/item").json()["item"]
    assert asked.post(item, label="SP9").status_code == 404
    assert asked.post({**item, "content_hash": "0" * 32}, label="SP0").status_code == 404
    assert asked.post(item, label="SP0", note="x" * 5000).status_code == 422
    assert asked.post(item, id="short").status_code == 422

    def full(_: Any) -> None:
        raise NoRoomError("the disk is full")

    monkeypatch.setattr(asked.server.desk._store, "add", full)
    response = asked.post(item, label="SP0")
    assert (response.status_code, response.json()) == (503, {"error": "the disk is full"})


def test_a_long_content_is_sent_in_part_and_said_so(tmp_path: Path, asked: Asked) -> None:
    long = "é" * 1_000_001
    output = spam_output(tmp_path / "long", {"a.parquet": spam_rows(1, [long])})
    request = ReviewRequest(output, items_of(output), ("anna",), port=0)
    server = ReviewServer(request)
    link = server.links["anna"]
    with TestClient(server.app(), base_url=link.partition("/?")[0]) as client:
        client.get(link)
        content = client.get("/api/item").json()["item"]["content"]
    server.close()
    assert (content["sent"], content["length"]) == (1_000_000, 1_000_001)
    assert content["text"] == long[:1_000_000]


def test_a_port_that_is_taken_is_told(asked: Asked, output: ReviewedOutput) -> None:
    port = asked.client.base_url.port
    assert port is not None
    with pytest.raises(UserError, match=f"127.0.0.1 port {port} cannot be listened on: .*--port"):
        ReviewServer(ReviewRequest(output, items_of(output), ("anna",), port=port))


def test_a_token_that_a_killed_server_left_is_taken_up_and_an_ended_ones_is_not(
    output: ReviewedOutput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERAY_CACHE", str(tmp_path / "cache"))

    def token() -> tuple[ReviewServer, str]:
        server = ReviewServer(ReviewRequest(output, items_of(output), ("anna",), port=0))
        return server, server.links["anna"].partition("token=")[2]

    killed, first = token()
    ended, second = token()
    ended.close()
    later, third = token()
    later.close()
    killed._socket.close()
    assert first == second != third and len(first) >= 32


def test_which_addresses_nobody_else_comes_to() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "name")] == [False] * 4
