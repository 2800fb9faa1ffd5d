"""Records: what moderay writes to storage beside the labels, for itself and for other programs.

A record is a frozen model with a schema version, written as JSON. It is read in one way only, so
that a file of another version, or one that is damaged, ends in a sentence and not in a KeyError.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from moderay.core.errors import UserError

# Problems of a damaged file that are named.
MOST_PROBLEMS = 3


class RecordRefusedError(UserError):
    """A file that is damaged or of another version.

    Attributes:
        reason: What is wrong, as the predicate of a sentence about the file.
        remedy: What a person may do, in the imperative.
    """

    def __init__(self, where: str, reason: str, first: str, remedy: str) -> None:
        """An error about one file.

        Args:
            where: Its path or URL.
            reason: As the attribute.
            first: What to try before the remedy, in the imperative.
            remedy: As the attribute.
        """
        super().__init__(f"{where} {reason}: {first}, or {remedy}")
        self.reason = reason
        self.remedy = remedy


class OtherVersionError(RecordRefusedError):
    """A file that is whole, and of a version that this moderay does not know."""


class RecordPart(BaseModel):
    """What a record consists of; its meaning is under the version of the record it lies in.

    Frozen. The string under a field is its description in the JSON Schema. Fields that are not
    known are kept, and written again: a file of this version from a moderay that knows more
    optional fields loses nothing.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Record(RecordPart):
    """A file on storage.

    A model states its version as `schema_version: Literal[1] = 1`. An optional field that is added
    does not raise it: files without the field, and with fields that are not known here, are read.
    A field whose meaning changes does raise it, and files of another version are refused.
    """

    remedy: ClassVar[str] = "write to a new output.path"
    """What a person may do about a file that cannot be read, in the imperative."""
    indent: ClassVar[int | None] = 1
    """Spaces of the JSON; None for files of which there are many."""

    schema_version: int
    """Version of this file's schema; another one is refused."""

    def to_json(self) -> bytes:
        """The file's content, in UTF-8."""
        return self.model_dump_json(indent=self.indent).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Read a file's content.

        Args:
            data: JSON, as `to_json` writes it.
            where: Path or URL of the file, for the error.

        Raises:
            RecordRefusedError: The file is of another version, or damaged.
        """
        try:
            record = cls.model_validate_json(data)
        except ValidationError as error:
            raise cls._refusal(data, where, error) from error
        if "schema_version" not in record.model_fields_set:
            raise cls._damaged(where, "no schema_version in it")
        return record

    @classmethod
    def version(cls) -> int:
        """The schema version that this model writes and reads."""
        version: int = cls.model_fields["schema_version"].default
        return version

    @classmethod
    def _refusal(cls, data: bytes, where: str, error: ValidationError) -> RecordRefusedError:
        """Why a file could not be read: its version explains more than its fields do."""
        try:
            content = from_json(data)
        except ValueError as broken:
            return cls._damaged(where, f"no JSON: {broken}")
        if not isinstance(content, dict) or "schema_version" not in content:
            return cls._damaged(where, "no schema_version in it")
        version, known = content["schema_version"], cls.version()
        if version != known:
            return OtherVersionError(
                where,
                f"was written by another version of moderay (its schema version is {version!r}, "
                f"this one knows {known})",
                "use that version",
                cls.remedy,
            )
        problems = [
            ".".join(str(name) for name in problem["loc"]) + f": {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        return cls._damaged(where, "; ".join(problems[:MOST_PROBLEMS]))

    @classmethod
    def _damaged(cls, where: str, problem: str) -> RecordRefusedError:
        return RecordRefusedError(where, f"is damaged ({problem})", "restore it", cls.remedy)


def record_schema(model: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a record's file, for other programs."""
    schema = model.model_json_schema(mode="serialization")
    schema["required"] = ["schema_version", *schema.get("required", ())]
    return schema
