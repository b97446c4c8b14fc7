"""Options become the request that they name."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from mfn_compile.cli import app, options, stage_commands, tune_command
from mfn_compile.errors import UsageError
from mfn_compile.request import CompileRequest, DataSource, ModelSource

MODEL: dict[str, object] = dict.fromkeys(field.name for field in fields(ModelSource))


def test_every_field_of_a_request_is_an_option_of_a_whole_run() -> None:
    known = inspect.signature(app.compile_command).parameters
    for kind in (CompileRequest, DataSource, ModelSource):
        assert {field.name for field in fields(kind)} - {"model", "data"} <= set(known)


@pytest.mark.parametrize(
    "command", [app.compile_command, stage_commands.quantize, tune_command.tune]
)
def test_commands_have_the_options_of_a_model(command: object) -> None:
    assert callable(command)
    assert set(MODEL) <= set(inspect.signature(command).parameters)


def test_values_arrive_where_they_belong() -> None:
    given = MODEL | {"target": "arm64", "color": "bgr", "mean": "1,2,3", "lfw": Path("l"), "qat": 1}
    found = options.compile_request(given | {"quiet": True, "debug": True})
    assert found == CompileRequest(
        "arm64", ModelSource(color="BGR", mean=(1.0, 2.0, 3.0)), DataSource(Path("l")), qat=True
    )


def test_nonsense_is_wrong_usage() -> None:
    for wrong in ({"color": "HSV"}, {"std": "1,2"}, {"images": Path("i")}, {"tuned": 1, "tune": 1}):
        with pytest.raises(UsageError):
            options.compile_request(MODEL | {"target": "intel", **wrong})
