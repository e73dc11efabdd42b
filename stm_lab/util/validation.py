"""Values checked by pydantic, whose report becomes one line that a person can act on."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stm_lab.util.errors import UserError, check_known, nearest, shown

Count = Annotated[int, Field(ge=1)]
Schema = TypeVar("Schema", bound=BaseModel)
Details = list[Mapping[str, Any]]  # pydantic's complaints


def validated(
    schema: type[Schema],
    values: Mapping[str, Any],
    where: str,
    *,
    known: Mapping[str, Any] | None = None,
    also: Iterable[str] = (),
) -> Schema:
    """An instance of `schema` from `values`, which came from `where` (a file, a preset's name, "the command line").

    Args:
        known: fields that follow from elsewhere, such as a name from the file's; refused in `values`.
        also: further keys that are allowed there, such as `extends`; offered for a misspelt one.

    Raises:
        UserError: one line with `where`, the field, the value and what was expected; for an unknown key the nearest.
    """
    known = known or {}
    if given := sorted(known.keys() & values.keys()):
        raise UserError(f"{where}: {given[0]!r} is not a key; it follows from where this stands")

    def keys(loc: tuple) -> set[str]:
        found = set(_keys(schema, loc))
        return found if loc else found - known.keys() | set(also)

    try:
        return schema.model_validate({**known, **values})
    except ValidationError as error:
        raise UserError(f"{where}: {_complaint(values, error.errors(include_url=False), keys)}") from None


def checked(types: Mapping[str, Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`values` by name, each strictly of its type: NumPy numbers and lists count as Python numbers and tuples.

    Raises:
        UserError: one line with `where`, the name, the value and what was expected; for an unknown name the nearest.
    """
    found = {}
    for name, value in values.items():
        check_known("option", name, types, f"{where}: ")
        try:
            found[name] = _adapter(types[name]).validate_python(_plain(value))
        except ValidationError as error:
            details = [{**each, "loc": (name, *each["loc"])} for each in error.errors(include_url=False)]
            raise UserError(f"{where}: {_complaint(values, details)}") from None
    return found


def fits(annotation: Any, value: Any) -> bool:
    """Whether `checked` takes a value as one of this type."""
    try:
        _adapter(annotation).validate_python(_plain(value))
    except ValidationError:
        return False
    return True


def can_check(annotation: Any) -> bool:
    """Whether `checked` takes an annotation as a type; Python allows any expression as one."""
    try:
        _adapter(annotation)
    except Exception:
        return False
    return True


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _complaint(values: Any, details: Details, keys: Callable[[tuple], set[str]] = lambda loc: set()) -> str:
    """The first complaint in a sentence, and how many more there are; `keys`: those of the mapping at a place."""
    # a list or mapping whose item is complained about is not at fault itself
    outer = {detail["loc"][:length] for detail in details for length in range(1, len(detail["loc"]))}
    details = [detail for detail in details if detail["loc"] not in outer]
    # A misspelt key often causes the other complaints (its right name is "missing"), so it is told first.
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    place = _place(values, first)
    if first["type"] == "missing":
        told = [detail for detail in details if detail["type"] == "missing"]
        *others, last = (repr(_place(values, detail)) for detail in told)
        sentence = f"{', '.join(others)} and {last} are missing" if others else f"{last} is missing"
    else:
        told = [detail for detail in details if _place(values, detail) == place]
        sentence = _sentence(place, told)
    if first["type"] == "extra_forbidden":
        sentence = f"unknown key {shown(place)}; {nearest(first['loc'][-1], keys(first['loc'][:-1]))}"
    return sentence + (f" (and {len(details) - len(told)} more)" if len(details) > len(told) else "")


def _place(values: Any, detail: Mapping[str, Any]) -> str:
    """The field as the user would call it: pydantic also names members of unions, which are no keys."""
    names = []
    for part in detail["loc"]:
        inside = isinstance(values, Mapping) or (isinstance(values, list | tuple) and isinstance(part, int))
        if inside and (part in values if isinstance(values, Mapping) else part < len(values)):
            values = values[part]
            names.append(str(part))
    if detail["type"] == "missing":
        names.append(str(detail["loc"][-1]))
    return ".".join(name if len(name) <= 40 else f"{name[:37]}..." for name in names)


def _sentence(place: str, told: Details) -> str:
    first, value = told[0], told[0]["input"]
    if first["type"] == "value_error":  # a validator of ours: its own words
        return f"{place}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    wanted = list(dict.fromkeys(map(_expected, told)))
    message = " or ".join([wanted[0], *(each.removeprefix("should be ") for each in wanted[1:])])
    if first["type"] == "literal_error" and isinstance(value, str):
        choices = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        message = f"{message}; {nearest(value, choices)}" if choices else message
    if any(detail["type"] == "string_type" for detail in told) and isinstance(value, int | float):
        message = f"{message}; write it in quotes: '{value}'"
    return f"{place} = {shown(value)}: {message}"


def _expected(detail: Mapping[str, Any]) -> str:
    """Pydantic's words without those that only programmers use."""
    if detail["type"] == "model_type":
        return "should be a mapping"
    message = detail["msg"].replace(" after validation", "").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _keys(schema: Any, loc: tuple) -> list[str]:
    """The keys of the mapping at `loc`: models are entered by field, or by the value of their tag in a union."""
    for part in loc:  # all else, such as a place in a list, is passed through
        models = _models(schema)
        fields = {name: field for model in models for name, field in model.model_fields.items()}
        tagged = [m for m in models if any(get_args(field.annotation) == (part,) for field in m.model_fields.values())]
        schema = fields[part].annotation if part in fields else tagged[0] if tagged else schema
    return [field.alias or name for model in _models(schema) for name, field in model.model_fields.items()]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows: itself, or members of its union, also inside a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
