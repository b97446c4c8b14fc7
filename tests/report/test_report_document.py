import json
import math

import jsonschema
import pytest
import sample
from helpers import DOCS, GOLDEN, golden

from mfn_compile.errors import BadInputError
from mfn_compile.report import document

RESULTS = [sample.complete, sample.demo, sample.minimal]


@pytest.mark.parametrize("make", RESULTS)
def test_what_is_written_is_read_back_equal(make):
    result = make()
    assert document.from_json(document.to_json(result)) == result


def test_text_is_the_golden_one():
    text = document.to_json(sample.complete())
    assert text == golden(GOLDEN / "report.json", text)
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")


def test_keys_that_others_rely_on():
    report = json.loads(document.to_json(sample.complete()))
    assert next(iter(report)) == "schema"
    assert report["schema"] == "mfn-compile/report/1"
    assert report["checkpoint"]["sha256"]
    evaluation = report["evaluation"]
    for key in ("protocol", "pairs", "accuracy_at_fp32_threshold"):
        assert key in evaluation
    for model in ("fp32", "int8"):
        assert {"accuracy", "accuracy_flip"} <= evaluation[model].keys()
        assert "1e-3" in evaluation[model]["tar_at_far"]
    assert {"mean", "p01", "min"} <= evaluation["cosine"].keys()
    assert {"kind", "device", "threads", "p50_ms"} <= report["latency"].keys()
    assert report["gates"]["drop"]["passed"] is True
    assert report["gates"]["latency"]["passed"] is True


def test_what_was_not_taken_is_absent():
    report = json.loads(document.to_json(sample.minimal()))
    assert "evaluation" not in report
    assert "null" not in document.to_json(sample.complete())
    assert "low_ms" not in json.loads(document.to_json(sample.complete()))["latency"]


def test_order_of_free_keys_does_not_matter():
    result = sample.complete()
    turned = dict(reversed(result.environment.packages.items()))
    other = result.model_copy(
        update={"environment": result.environment.model_copy(update={"packages": turned})}
    )
    assert document.to_json(other) == document.to_json(result)


def test_committed_schema_is_the_one_of_the_code():
    text = document.schema_text()
    assert json.loads(golden(DOCS / "report.schema.json", text)) == json.loads(text)


@pytest.mark.parametrize("make", RESULTS)
def test_reports_follow_the_schema(make):
    schema = json.loads((DOCS / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(document.to_json(make())), schema)


def test_schema_refuses_a_missing_and_an_unknown_key():
    schema = document.json_schema()
    report = json.loads(document.to_json(sample.minimal()))
    for broken in (
        {k: v for k, v in report.items() if k != "schema"},
        {k: v for k, v in report.items() if k != "checkpoint"},
        report | {"surprise": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def _with(**changes):
    return json.dumps(json.loads(document.to_json(sample.minimal())) | changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a report of mfn-compile"),
        ("{}", "not a report of mfn-compile"),
        ('{"schema": "other/1"}', "not a report of mfn-compile"),
        ('{"schema": "mfn-compile/report/9"}', "another version"),
        ('{"schema": "mfn-compile/report/1"}', "target"),
        (_with(version=7), "version"),
        (_with(surprise=1), "surprise"),
        (_with(size={"model": math.nan, "fp32_model": 1}), "size"),
    ],
)
def test_what_is_no_report_is_bad_input(text, says):
    with pytest.raises(BadInputError, match=says) as caught:
        document.from_json(text, source="some.json")
    assert "some.json" in str(caught.value)
    assert caught.value.exit_code == 3


def test_many_problems_are_counted_not_listed():
    with pytest.raises(BadInputError, match=r"and \d+ more"):
        document.from_json('{"schema": "mfn-compile/report/1"}')


def test_load(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(document.to_json(sample.complete()), encoding="utf-8")
    assert document.load(path) == sample.complete()


def test_load_of_what_cannot_be_read(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        document.load(tmp_path / "absent.json")
    with pytest.raises(BadInputError, match="cannot be read"):
        document.load(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInputError, match="UTF-8"):
        document.load(tmp_path / "binary")
