from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from automed.study.experiment import schema_text, shipped

GOLDEN = Path(__file__).parents[1] / "golden" / "space"
SEES = ("bounds", "hopeless", "list", "missing", "ranges", "types", "unknown", "words")
"""The faulty files whose faults an editor can see, one value at a time."""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(io.StringIO(text))


@pytest.mark.parametrize("name", ["brain", "brain_cpu", "minimal", "phantom"])
def test_a_shipped_file_conforms(name: str, validator: jsonschema.Draft202012Validator) -> None:
    found = list(validator.iter_errors(load(shipped(name).read_text(encoding="utf-8"))))
    assert [error.message for error in found] == []


@pytest.mark.parametrize("name", SEES)
def test_an_editor_sees_what_is_wrong(name: str, validator: jsonschema.Draft202012Validator) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text(encoding="utf-8").replace("    [a, b]: 1\n", "")
    assert not validator.is_valid(load(text))


@pytest.mark.parametrize(
    "line",
    [
        "lr: 1e-3",
        "lr: [1e-3, 1e-2]",
        "lr: {low: 1e-4, high: 1, log: true}",
        "lr: {low: 1, high: 2, step: 0.5, when: {model.name: [vit_*]}, unless: {train.batch: 16}}",
        "lr: {value: 1, when: {model.pretrained: true}}",
        "lr: {choices: [1, 2], when: {optim.name: sgd}}",
    ],
)
def test_every_shape_of_a_line_conforms(line: str, validator: jsonschema.Draft202012Validator) -> None:
    head = "study: {name: x}\ndata: {group: {column: p}}\n"
    validator.validate(load(f"{head}space: {{model: {{name: resnet18}}, optim: {{{line}}}}}"))


@pytest.mark.parametrize(
    "line", ["lr: [1]", "lr: {low: 1}", "lr: {low: 1, high: 2, when: {lr: 1}}", "lr: fast", "name: adamm"]
)
def test_a_wrong_line_does_not(line: str, validator: jsonschema.Draft202012Validator) -> None:
    text = (
        f"study: {{name: x}}\ndata: {{group: none}}\nspace: {{model: {{name: resnet18}}, optim: {{{line}}}}}"
    )
    assert not validator.is_valid(load(text))
