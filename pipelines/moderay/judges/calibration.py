"""How P of reason is read: a map that `moderay calibrate --judge reason` fitted, with its card."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from moderay.core.calibration import Calibration, Method
from moderay.core.errors import Problem, Problems
from moderay.core.records import Record, RecordPart, RecordRefusedError
from moderay.judges.cards import CARD, Teacher


class CalibratedFigure(RecordPart):
    """A figure before and after, on contents that maps were not fitted to."""

    before: float
    """Of P as the model gives it."""
    before_low: float
    """Lower end of its 95% interval."""
    before_high: float
    """Upper end."""
    after: float
    """Of P as it is read, by maps of the other folds."""
    after_low: float
    """Lower end of its 95% interval."""
    after_high: float
    """Upper end."""


class CalibrationCard(Record):
    """A map from P(violates) of a judge to the share that violates, and how good it is."""

    remedy: ClassVar[str] = "calibrate again: moderay calibrate --judge reason"

    schema_version: Literal[1] = 1
    """Version of this file's schema; another one is refused."""
    judge: Literal["reason"] = "reason"
    """Whose P it is for."""
    teacher: Teacher
    """Whose word it is fitted to, under which policy; `judge_key` is of the judge whose P it is."""
    method: Method
    """platt: a line in log-odds. isotonic: straight between points that never fall."""
    numbers: tuple[tuple[float, float], ...]
    """Of platt, slope and intercept; of isotonic, points: P before and after."""
    rows: int
    """Contents that it is fitted to."""
    violations: int
    """Of these, those that violate."""
    folds: int = Field(ge=2)
    """In as many parts each content was held out once."""
    log_loss: dict[str, float]
    """On held-out contents, by method, and of raw P; the smaller one was taken."""
    brier: CalibratedFigure
    """Mean of (P - y)^2."""
    calibration_error: CalibratedFigure
    """Mean distance of P from the share that violates, in bins of P."""
    created: date
    """Day, UTC."""

    @model_validator(mode="after")
    def _is_map(self) -> CalibrationCard:
        Calibration(self.judge, self.method, self.numbers)
        return self

    @property
    def calibration(self) -> Calibration:
        """The map."""
        return Calibration(self.judge, self.method, self.numbers)


def load_calibration(folder: str | Path) -> CalibrationCard:
    """Read what `save_calibration` wrote.

    Raises:
        Problems: The folder has no such card.
    """
    file = Path(folder) / CARD
    try:
        return CalibrationCard.from_json(file.read_bytes(), str(file))
    except OSError:
        hint = "a folder made by moderay calibrate --judge reason"
        raise Problems([Problem(str(file), None, "no such card", hint)]) from None
    except RecordRefusedError as error:
        message = f"no card of a calibration: it {error.reason}"
        raise Problems([Problem(str(file), None, message, error.remedy)]) from None


def save_calibration(card: CalibrationCard, folder: str | Path) -> None:
    """Write the card of a calibration."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / CARD).write_bytes(card.to_json())
