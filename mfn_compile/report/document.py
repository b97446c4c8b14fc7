"""report.json: written from a `Result`, read back, and described by a JSON schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mfn_compile.errors import BadInputError
from mfn_compile.results import SCHEMA, Result

MAX_PROBLEMS = 3  # more than these say nothing new
HINT = "Name a report.json that mfn-compile wrote; run the compilation again to get a fresh one"


def to_json(result: Result) -> str:
    """The text of report.json: keys in the order of the model, one trailing newline.

    A key whose value was not taken (no latency was measured, say) is absent, not null.
    """
    return json.dumps(_ordered(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _ordered(value: object) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        pairs = ((field.alias or name, getattr(value, name)) for name, field in fields.items())
        return {key: _ordered(item) for key, item in pairs if item is not None}
    if isinstance(value, dict):
        # Free keys (packages, layer types) come in any order; sorted, two runs compare equal.
        return {key: _ordered(value[key]) for key in sorted(value)}
    if isinstance(value, (tuple, list)):
        return [_ordered(item) for item in value]
    return value


def load(path: Path) -> Result:
    """Read a report.json.

    Raises:
        BadInputError: the file cannot be read or is not a report of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInputError(
            "The report cannot be read", where=str(path), why=error.strerror or "", hint=HINT
        ) from error
    except UnicodeDecodeError as error:
        raise BadInputError(
            "The report is not a text file in UTF-8", where=str(path), why=error.reason, hint=HINT
        ) from error
    return from_json(text, source=str(path))


def from_json(text: str, *, source: str = "report.json") -> Result:
    """The `Result` that a report.json's text holds.

    Raises:
        BadInputError: the text is not a report of this version.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInputError(
            "The report is not JSON", where=source, why=str(error), hint=HINT
        ) from error
    _check_schema(document, source)
    try:
        return Result.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BadInputError(
            "The report does not follow its schema", where=source, why=_problems(error), hint=HINT
        ) from error


def _check_schema(document: object, source: str) -> None:
    found = document.get("schema") if isinstance(document, dict) else None
    if found == SCHEMA:
        return
    if isinstance(found, str) and found.startswith("mfn-compile/report/"):
        raise BadInputError(
            "The report is of another version",
            where=source,
            why=f"it follows {found}, and this mfn-compile reads {SCHEMA}",
            hint="Use the mfn-compile that wrote it, or run the compilation again",
        )
    raise BadInputError(
        "The file is not a report of mfn-compile",
        where=source,
        why=f'its "schema" is not {SCHEMA}',
        hint=HINT,
    )


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [
        f"{'.'.join(str(part) for part in problem['loc']) or 'document'}: {problem['msg']}"
        for problem in found[:MAX_PROBLEMS]
    ]
    rest = len(found) - len(texts)
    return "; ".join(texts) + (f"; and {rest} more" if rest > 0 else "")


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of report.json."""
    schema = Result.model_json_schema(by_alias=True)
    schema["required"] = ["schema", *schema["required"]]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        "description": "What mfn-compile writes as report.json. A key without a value is absent.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def schema_text() -> str:
    """The text of docs/report.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
