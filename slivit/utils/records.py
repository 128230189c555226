"""Records read from files: of the right types and ranges, or refused in plain words."""

import dataclasses
import functools
import json
import reprlib
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

MOST_FIELDS = 20_000  # of one object
LONGEST_NAME, LONGEST_TEXT = 60, 400
LARGEST = sys.float_info.max
UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
T = TypeVar("T")


class Misfit(Exception):
    """What was read is not such a record.

    Attributes:
        faults: a line on each field that does not fit: what was found, what is expected.
        unknown: the fields that this version does not know.
    """

    def __init__(self, faults: Iterable[str], unknown: Iterable[str] = ()) -> None:
        self.faults, self.unknown = list(faults), list(unknown)
        super().__init__("; ".join(self.faults))


def rule(faults: Callable[[T], Iterable[str]]) -> AfterValidator:
    """Return what makes a field's type refuse values of which `faults` says something."""
    def check(value: T) -> T:
        if wrong := list(faults(value)):
            raise ValueError("; ".join(wrong))
        return value

    return AfterValidator(check)


def _plain_faults(value: object) -> list[str]:
    if value is None or isinstance(value, str | bool) or (
            isinstance(value, int | float) and abs(value) <= LARGEST):
        return []
    return [f"found {_shown(value)}, expected text, a finite number, true, false or null"]


Plain = Annotated[object, rule(_plain_faults)]


def parse_object(text: str | bytes) -> dict:
    """Return a JSON object as it is.

    Raises:
        Misfit: not JSON, a name twice in an object, NaN or infinity, or not an object.
    """
    def pairs(items: list[tuple[str, object]]) -> dict:
        content = dict(items)
        if len(content) < len(items) or len(items) > MOST_FIELDS:
            raise ValueError("a field appears twice" if len(items) <= MOST_FIELDS else
                             f"an object of {len(items)} fields")
        return content

    def constant(name: str) -> float:
        raise ValueError(f"{name} is not a JSON number")

    try:
        content = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:  # no UTF-8 is a ValueError too
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Misfit([f"it is not valid JSON ({why[:LONGEST_TEXT]})"]) from None
    if not isinstance(content, dict):
        raise Misfit([f"found {_shown(content)}, expected a JSON object"])
    return content


def parse(kind: type[T], text: str) -> T:
    """Return the record that JSON of `parse_object` describes.

    Raises:
        Misfit: saying of every field what does not fit.
    """
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise _misfit(error) from None


def from_values(kind: type[T], content: object) -> T:
    """Return the record that plain values (dicts, lists, numbers) describe.

    Raises:
        Misfit: saying of every field what does not fit.
    """
    try:
        text = json.dumps(content)
    except (TypeError, ValueError, RecursionError):
        raise Misfit([f"found {_shown(content)}, expected plain values"]) from None
    return parse(kind, text)


def check(record: object) -> None:
    """Refuse a dataclass that could not be read again once it is written.

    Raises:
        Misfit: saying of every field what does not fit.
    """
    parse(type(record), json.dumps(dataclasses.asdict(record)))


@functools.cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def _misfit(error: ValidationError) -> Misfit:
    errors = error.errors(include_url=False)
    unknown = [_place(one["loc"]) for one in errors if one["type"] in UNKNOWN]
    return Misfit((_line(one) for one in errors), unknown)


def _line(error: dict) -> str:
    """Return what pydantic found wrong with a field, in a line."""
    place, text = _place(error["loc"]), error["msg"]
    if error["type"] in UNKNOWN:
        text = "unknown to this version"
    elif error["type"] == "missing":
        text = "missing"
    elif error["type"] == "value_error":  # of a rule
        text = str(error["ctx"]["error"])
    elif text.startswith("Input should be "):
        expected = text.removeprefix("Input should be ")
        text = f"found {_shown(error['input'])}, expected {expected}"
    else:
        text = f"found {_shown(error['input'])}: {text[:1].lower()}{text[1:]}"
    return f"{place}: {text[:LONGEST_TEXT]}" if place else text[:LONGEST_TEXT]


def _place(parts: Iterable[str | int]) -> str:
    """Return where a field stands, as in `target.std[1]`."""
    place = ""
    for part in parts:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            name = part if part.isidentifier() else repr(part)
            place += f"{'.' if place else ''}{name[:LONGEST_NAME]}"
    return place


def _shown(value: object) -> str:
    """Return a short text of any value."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = LONGEST_NAME
    short.maxlevel = short.maxlist = short.maxdict = short.maxtuple = 3
    return short.repr(value)
