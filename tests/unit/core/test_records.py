"""Records on storage: versions, damage, fields that are not known."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

import pytest

from moderay.core.errors import UserError
from moderay.core.records import Record, RecordPart


class Wheel(RecordPart):
    size: int


class Car(Record):
    remedy: ClassVar[str] = "buy another car"

    schema_version: Literal[2] = 2
    name: str
    wheels: tuple[Wheel, ...] = ()


CAR = Car(name="käfer", wheels=(Wheel(size=15), Wheel(size=16)))


def refusal(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        Car.from_json(data, "s3://cars/car.json")
    return str(caught.value)


def test_record_survives_the_way_through_a_file() -> None:
    assert Car.from_json(CAR.to_json(), "car.json") == CAR


def test_record_of_another_version_or_damaged_is_refused_in_one_sentence(golden) -> None:
    whole = json.loads(CAR.to_json())
    files = [
        json.dumps(whole | {"schema_version": 9}).encode(),
        CAR.to_json()[:-20],
        b"[1]",
        b"\xff",
        json.dumps({"name": "a"}).encode(),
        json.dumps(whole | {"wheels": [{"size": 15}, {"size": "large"}]}).encode(),
        json.dumps({"schema_version": 2}).encode(),
    ]
    golden("records-refused", "".join(refusal(data) + "\n" for data in files))


def test_fields_that_are_not_known_are_kept() -> None:
    more = json.loads(CAR.to_json()) | {"colour": "red"}
    more["wheels"][0]["rim"] = "steel"
    read = Car.from_json(json.dumps(more).encode(), "car.json")
    assert (read.name, read.wheels[0].size) == ("käfer", 15)
    assert json.loads(read.to_json()) == more
