"""A JSON schema of the whole file, made from the settings: an editor then completes and checks it.

The schema is a help while typing. What depends on more than one line (conditions that never hold, knobs
without effect, grids) is checked by `automed.space.read` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from automed.settings import Scalar, Setting, inspect_settings

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def file_schema(sections: Mapping[str, type[msgspec.Struct]], space: type[msgspec.Struct]) -> Schema:
    """The schema of a file with these sections, `space:` and `start_from:` (JSON Schema 2020-12)."""
    settings = inspect_settings(space)
    fixed = {name: _tree(inspect_settings(struct), "", _value) for name, struct in sections.items()}
    required = [name for name, schema in fixed.items() if schema.get("required")]
    return {
        "$schema": _DIALECT,
        "title": "A search space of automed",
        "type": "object",
        "additionalProperties": False,
        "required": [*required, "space"],
        "properties": {
            **{name: schema if name in required else _or_empty(schema) for name, schema in fixed.items()},
            "space": _tree(settings, "", _line),
            "start_from": _or_empty(_starts(settings)),
        },
        "$defs": {
            "condition": {
                "description": "dotted names of other settings, each with the value or values it must have",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"enum": list(settings)},
                "additionalProperties": {
                    "anyOf": [
                        {"$ref": "#/$defs/scalar"},
                        {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/scalar"}},
                    ]
                },
            },
            "scalar": {"type": ["boolean", "number", "string"]},
            **_name_lists(settings),
        },
    }


def _or_empty(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _tree(settings: Mapping[str, Setting], prefix: str, leaf: Any) -> Schema:
    """An object schema of every setting below a prefix; `leaf` makes the schema of one setting."""
    properties: Schema = {}
    required = []
    for name in dict.fromkeys(
        name.removeprefix(prefix).partition(".")[0] for name in settings if name.startswith(prefix)
    ):
        full = prefix + name
        options = [leaf(settings[full])] if full in settings else []
        inner = any(other.startswith(full + ".") for other in settings)
        branch = _tree(settings, full + ".", leaf) if inner else None
        if branch is not None:
            options.append(branch if full in settings or branch.get("required") else _or_empty(branch))
        properties[name] = options[0] if len(options) == 1 else {"anyOf": options}
        if (full in settings and settings[full].required) or (branch is not None and branch.get("required")):
            required.append(name)
    schema: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**schema, "required": required} if required else schema


def _bare(setting: Setting) -> Schema:
    """The schema of one value, without its description."""
    if setting.literals:
        return {"enum": list(setting.literals)}
    if setting.names:
        return {"$ref": f"#/$defs/{setting.name}"}
    bounds = {
        "minimum": setting.ge, "maximum": setting.le,
        "exclusiveMinimum": setting.gt, "exclusiveMaximum": setting.lt,
    }  # fmt: skip
    given = {key: bound for key, bound in bounds.items() if bound is not None}
    bare = {"type": _TYPES[setting.kind], **given}
    return {"anyOf": [bare, {"enum": list(setting.words)}]} if setting.words else bare


def _described(setting: Setting, schema: Schema) -> Schema:
    default: Scalar | None = setting.default
    told = {"description": setting.about} if setting.about else {}
    return {**told, **({} if setting.required else {"default": default}), **schema}


def _value(setting: Setting) -> Schema:
    """A setting that is never searched."""
    schema = _bare(setting)
    return _described(setting, _or_empty(schema) if setting.optional and not setting.required else schema)


def _line(setting: Setting) -> Schema:
    """A setting under `space:`: a value, a list of choices or a range, with conditions if it likes."""
    value = _bare(setting)
    choices = {"type": "array", "minItems": 2, "uniqueItems": True, "items": value}
    conditions = {"when": {"$ref": "#/$defs/condition"}, "unless": {"$ref": "#/$defs/condition"}}
    shapes = [value, choices, _shape({"choices": choices}, conditions), _shape({"value": value}, conditions)]
    if setting.kind in (int, float) and not setting.literals:
        number = {"type": _TYPES[setting.kind]}
        extra = {"log": {"type": "boolean"}, "step": {**number, "exclusiveMinimum": 0}, **conditions}
        shapes.append(_shape({"low": value, "high": value}, extra))
    return _described(setting, {"anyOf": shapes})


def _shape(required: Schema, optional: Schema) -> Schema:
    properties = {**required, **optional}
    return {
        "type": "object", "additionalProperties": False, "required": list(required), "properties": properties,
    }  # fmt: skip


def _starts(settings: Mapping[str, Setting]) -> Schema:
    values = {name: _described(setting, _bare(setting)) for name, setting in settings.items()}
    return {
        "description": "trials to run first, by dotted names; what is left out is drawn",
        "type": "array",
        "items": {"type": "object", "additionalProperties": False, "properties": values},
    }


def _name_lists(settings: Mapping[str, Setting]) -> Schema:
    """The long lists of names, each written once."""
    return {setting.name: {"enum": sorted(setting.names())} for setting in settings.values() if setting.names}
