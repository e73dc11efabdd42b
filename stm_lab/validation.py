"""From pydantic's report to one line that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from stm_lab.errors import UserError, nearest

Schema = TypeVar("Schema", bound=BaseModel)


def validated(schema: type[Schema], values: Mapping[str, Any], where: str) -> Schema:
    """An instance of `schema` from `values`, which came from `where` (a file, a preset's name, "the command line").

    Raises:
        UserError: one line with `where`, the field, the value and what was expected; for an unknown key the nearest.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        details = _without_consequences(error.errors(include_url=False))
        # A misspelt key often causes the other complaints (its right name is "missing"), so it is told first.
        first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
        told = [detail for detail in details if detail["type"] == "missing"] if first["type"] == "missing" else [first]
        more = f" (and {len(details) - len(told)} more)" if len(details) > len(told) else ""
        sentence = _missing(told) if len(told) > 1 else _sentence(schema, first)
        raise UserError(f"{where}: {sentence}{more}") from None


def _without_consequences(details: list[Any]) -> list[Any]:
    """Complaints without those on a list or mapping of which an item is complained about: it was only left out."""
    inner = {detail["loc"][:length] for detail in details for length in range(1, len(detail["loc"]))}
    return [detail for detail in details if detail["loc"] not in inner]


def _missing(details: list[Mapping[str, Any]]) -> str:
    *names, last = (repr(".".join(map(str, detail["loc"]))) for detail in details)
    return f"{', '.join(names)} and {last} are missing"


def _sentence(schema: type[BaseModel], detail: Mapping[str, Any]) -> str:
    field = ".".join(map(str, detail["loc"]))
    value = repr(detail["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    if detail["type"] == "extra_forbidden":
        return f"unknown key {field!r}; {nearest(detail['loc'][-1], _keys_beside(schema, detail['loc']))}"
    if detail["type"] == "missing":
        return f"{field!r} is missing"
    if detail["type"] == "value_error":  # a validator of ours: its own words
        return f"{field}: {detail['ctx']['error']}" if field else str(detail["ctx"]["error"])
    message = detail["msg"][0].lower() + detail["msg"][1:]
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        choices = _choices(schema, detail["loc"])
        message = f"{message}; {nearest(detail['input'], choices)}" if choices else message
    return f"{field} = {value}: {message}"


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
    return [name for model in _models(_field(schema, loc[:-1])) for name in model.model_fields]


def _choices(schema: type[BaseModel], loc: tuple) -> list[str]:
    return [choice for choice in get_args(_field(schema, loc)) if isinstance(choice, str)]
