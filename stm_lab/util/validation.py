"""From pydantic's report to one line that a person can act on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from stm_lab.util.errors import UserError, check_known, nearest, shown

Schema = TypeVar("Schema", bound=BaseModel)


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
        known: fields that are not the user's to give, such as a name that follows from the file's; refused in `values`.
        also: keys that may stand there beside the schema's fields, such as `extends`; offered for a misspelt one.

    Raises:
        UserError: one line with `where`, the field, the value and what was expected; for an unknown key the nearest.
    """
    known = known or {}
    if given := sorted(known.keys() & values.keys()):
        raise UserError(f"{where}: {given[0]!r} is not a key; it follows from where this stands")
    try:
        return schema.model_validate({**known, **values})
    except ValidationError as error:
        details = _without_consequences(error.errors(include_url=False))
        # A misspelt key often causes the other complaints (its right name is "missing"), so it is told first.
        first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
        alike = "missing" if first["type"] == "missing" else None
        place = _place(values, first)
        told = [each for each in details if each["type"] == alike or _place(values, each) == place]
        more = f" (and {len(details) - len(told)} more)" if len(details) > len(told) else ""
        if alike:
            sentence = _missing([_place(values, each) for each in told])
        elif first["type"] == "extra_forbidden":
            keys = set(_keys_beside(schema, first["loc"]))
            keys = keys if len(first["loc"]) > 1 else keys - known.keys() | set(also)
            sentence = f"unknown key {shown(place)}; {nearest(first['loc'][-1], keys)}"
        else:
            sentence = _sentence(schema, place, told)
        raise UserError(f"{where}: {sentence}{more}") from None


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
            details = [{**detail, "loc": (name, *detail["loc"])} for detail in error.errors(include_url=False)]
            details = _without_consequences(details)
            place = _place(values, details[0])
            told = [each for each in details if _place(values, each) == place]
            raise UserError(f"{where}: {_sentence(types[name], place, told)}") from None
    return found


def can_check(annotation: Any) -> bool:
    """Whether `checked` takes an annotation as a type; Python lets anything stand there."""
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


def _without_consequences(details: list[Any]) -> list[Any]:
    """Complaints without those on a list or mapping of which an item is complained about: it was only left out."""
    inner = {detail["loc"][:length] for detail in details for length in range(1, len(detail["loc"]))}
    return [detail for detail in details if detail["loc"] not in inner]


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


def _missing(places: list[str]) -> str:
    *names, last = map(repr, places)
    return f"{', '.join(names)} and {last} are missing" if names else f"{last} is missing"


def _sentence(schema: type[BaseModel], place: str, told: list[Mapping[str, Any]]) -> str:
    first = told[0]
    if first["type"] == "value_error":  # a validator of ours: its own words
        return f"{place}: {first['ctx']['error']}" if place else str(first["ctx"]["error"])
    wanted = list(dict.fromkeys(_expected(detail) for detail in told))
    message = " or ".join([wanted[0], *(each.removeprefix("should be ") for each in wanted[1:])])
    value = first["input"]
    if first["type"] == "literal_error" and isinstance(value, str):
        choices = _choices(schema, first["loc"])
        message = f"{message}; {nearest(value, choices)}" if choices else message
    if any(detail["type"] == "string_type" for detail in told) and isinstance(value, int | float):
        message = f"{message}; write it in quotes: '{value}'"
    return f"{place} = {shown(value)}: {message}"


def _expected(detail: Mapping[str, Any]) -> str:
    """Pydantic's words without those that are of use to programmers alone."""
    if detail["type"] == "model_type":
        return "should be a mapping"
    message = detail["msg"].replace(" after validation", "").removeprefix("Input ")
    return message[0].lower() + message[1:]


def _field(schema: Any, loc: tuple) -> Any:
    """The annotation at `loc`: nested models are entered by field name, or by the one value of their tag in a union;
    all else (places in a list) is passed through."""
    for part in loc:
        models = _models(schema)
        fields = {name: field for model in models for name, field in model.model_fields.items()}
        tagged = [m for m in models if any(get_args(field.annotation) == (part,) for field in m.model_fields.values())]
        schema = fields[part].annotation if part in fields else tagged[0] if tagged else schema
    return schema


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation allows: itself, or members of its union, also inside a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _keys_beside(schema: type[BaseModel], loc: tuple) -> list[str]:
    fields = [item for model in _models(_field(schema, loc[:-1])) for item in model.model_fields.items()]
    return [field.alias or name for name, field in fields]


def _choices(schema: type[BaseModel], loc: tuple) -> list[str]:
    return [choice for choice in get_args(_field(schema, loc)) if isinstance(choice, str)]
