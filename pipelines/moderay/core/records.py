"""Records: what moderay writes to storage beside the labels, for itself and for other programs.

A record is a frozen model with a schema version, written as JSON. It is read in one way only, so
that a file of another version, or one that is damaged, ends in a sentence and not in a KeyError.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from moderay.core.errors import UserError


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
    """What a person may do about a file that cannot be read, as the end of a sentence."""

    schema_version: int
    """Version of this file's schema; another one is refused."""

    def to_json(self) -> bytes:
        """The file's content: UTF-8, indented."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Read a file's content.

        Args:
            data: JSON, as `to_json` writes it.
            where: path or URL of the file, for the error.

        Raises:
            UserError: the file is of another version, or damaged.
        """
        try:
            content = from_json(data)
        except ValueError as error:
            raise UserError(cls._damaged(where, f"no JSON: {error}")) from error
        if not isinstance(content, dict) or "schema_version" not in content:
            raise UserError(cls._damaged(where, "no schema_version in it"))
        version, known = content["schema_version"], cls.version()
        if version != known:
            raise UserError(
                f"{where} was written by another version of moderay (its schema version is "
                f"{version!r}, this one knows {known}): use that version, or {cls.remedy}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(name) for name in first["loc"])
            raise UserError(cls._damaged(where, f"{field}: {first['msg']}")) from error

    @classmethod
    def version(cls) -> int:
        """The schema version that this model writes and reads."""
        version: int = cls.model_fields["schema_version"].default
        return version

    @classmethod
    def _damaged(cls, where: str, reason: str) -> str:
        return f"{where} is damaged ({reason}): restore it, or {cls.remedy}"


def record_schema(model: type[Record]) -> dict[str, Any]:
    """The JSON Schema of a record's file, for other programs."""
    return model.model_json_schema(mode="serialization")
