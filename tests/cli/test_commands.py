"""The command line end to end on tiny input, with the real quantizer and runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mfn_compile.bundle.manifest import verify_bundle
from mfn_compile.cli.app import app
from mfn_compile.report.document import load
from mfn_compile.results import Gates
from tests.conftest import FaceFolder

FILES = {
    "manifest.json", "model/model_int8.bin", "model/model_int8.xml", "onnx/model_fp32.onnx",
    "onnx/model_int8_qdq.onnx", "recipe.json", "report.html", "report.json", "target.json",
}  # fmt: skip


def mfn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def data_options(checkpoint: Path, faces: FaceFolder) -> list[object]:
    return ["--checkpoint", checkpoint, "--images", faces.images, "--pairs", faces.pairs]


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, faces: FaceFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "bundle"
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", out]
    found = mfn("--target", "intel", "--tune", 0, *options)
    assert found.exit_code == 0, found.output
    assert str(out) in found.stdout.replace("\n", "")
    return out


def test_a_run_writes_a_whole_bundle(bundle: Path) -> None:
    written = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()}
    assert written == FILES
    verify_bundle(bundle)
    result = load(bundle / "report.json")
    assert result.target == "intel"
    assert result.checkpoint.layout == "mfn-compile"
    assert result.quantization.method == "ptq"
    assert result.backend is not None
    precision, use = result.backend.precision, result.backend.openvino
    assert use is not None
    assert use.float_layers == precision.float_layers == ()
    assert precision.int8_layers == 17
    assert result.backend.judge_cosine > 0.98
    assert result.evaluation is not None
    assert result.evaluation.pairs == 120
    assert result.evaluation.cosine.mean > 0.9
    assert result.evaluation.all_pairs is not None
    assert result.latency is not None
    assert result.latency.kind == "measured"
    assert {row.role for row in result.inputs} >= {"checkpoint", "recipe", "evaluation pairs"}


def test_the_second_run_reuses_everything_and_says_the_same(
    bundle: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "again"]
    found = mfn("--target", "intel", "--tune", 0, *options, "--json")
    assert found.exit_code == 0, found.output
    assert found.stdout == (bundle / "report.json").read_text()
    assert "quantizing" not in found.stderr


def test_json_prints_the_report_and_nothing_else_even_when_a_budget_is_missed(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    options = [*data_options(checkpoint, faces), "--max-drop", 100, "--out", tmp_path / "b"]
    found = mfn(
        "--target", "intel", "--tune", 0, *options, "--json", "--quiet", "--max-latency-ms", 1e-6
    )
    assert found.exit_code == 5
    assert not json.loads(found.stdout)["gates"]["latency"]["passed"]
    assert "latency budget is missed" in found.stderr
    assert found.stderr.count("\n") == 1
    verify_bundle(tmp_path / "b")


def test_a_missed_accuracy_budget_exits_4(tmp_path: Path, bundle: Path) -> None:
    from mfn_compile import gates
    from mfn_compile.errors import AccuracyBudgetError

    evaluation = load(bundle / "report.json").evaluation
    assert evaluation is not None
    lossy = evaluation.model_copy(update={"drop": 0.31})

    def judged(limit: float) -> Gates:
        return gates.judge(lossy, None, None, max_drop=limit, max_latency_ms=18.0, strict=False)

    assert gates.missed(judged(0.31)) is None
    error = gates.missed(judged(0.3))
    assert isinstance(error, AccuracyBudgetError)
    assert error.exit_code == 4


def test_the_api_takes_single_numbers_and_refuses_nonsense(tmp_path: Path) -> None:
    import mfn_compile
    from mfn_compile.errors import UsageError

    for wrong in (
        {"threads": 0},
        {"max_drop": -1.0},
        {"max_latency_ms": 0.0},
        {"mean": (1.0, 2.0)},
    ):
        with pytest.raises(UsageError):
            mfn_compile.compile(out=tmp_path / "o", **wrong)  # type: ignore[arg-type]


def test_the_api_returns_the_report(
    bundle: Path, checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    import mfn_compile

    result = mfn_compile.compile(
        checkpoint, "intel", images=faces.images, pairs=faces.pairs, out=tmp_path / "o",
        max_drop=100, tune=0,
    )  # fmt: skip
    assert result == load(bundle / "report.json")


def test_export_prints_what_was_recognised(checkpoint: Path, tmp_path: Path) -> None:
    found = mfn("export", "--checkpoint", checkpoint, "--out", tmp_path)
    assert found.exit_code == 0, found.output
    for word in ("mfn-compile", "112x112 RGB", "multiply-adds", "opset 17", "parity"):
        assert word in found.stdout
    assert (tmp_path / "model_fp32.onnx").stat().st_size > 1000
    document = json.loads((tmp_path / "export.json").read_text())
    assert document["checkpoint"]["layout"] == "mfn-compile"


def test_export_takes_an_onnx_back_and_overrides(checkpoint: Path, tmp_path: Path) -> None:
    mfn("export", "--checkpoint", checkpoint, "--out", tmp_path)
    again = mfn(
        "export", "--checkpoint", tmp_path / "model_fp32.onnx", "--json", "--color", "bgr",
        "--mean", "100", "--std", "50,60,70",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    shape = json.loads(again.stdout)["checkpoint"]["preprocessing"]
    assert (shape["color"], shape["mean"], shape["std"]) == ("BGR", [100.0] * 3, [50.0, 60.0, 70.0])


def test_quantize_then_evaluate_with_the_outside_judge(
    checkpoint: Path, faces: FaceFolder, tmp_path: Path
) -> None:
    out = tmp_path / "q"
    found = mfn("quantize", *data_options(checkpoint, faces), "--out", out)
    assert found.exit_code == 0, found.output
    assert "held-out cosine" in found.stdout
    verify_bundle(out)
    for engine in ("onnxruntime", "openvino"):
        judged = mfn(
            "evaluate", out, "--images", faces.images, "--pairs", faces.pairs, "--engine", engine,
            "--json",
        )  # fmt: skip
        assert judged.exit_code == 0, judged.output
        assert json.loads(judged.stdout)["cosine"]["mean"] > 0.9


def test_evaluate_prints_a_table(bundle: Path, faces: FaceFolder) -> None:
    found = mfn("evaluate", bundle, "--images", faces.images, "--pairs", faces.pairs)
    assert found.exit_code == 0, found.output
    assert "INT8" in found.stdout
    assert "Accuracy" in found.stdout


def test_evaluate_refuses_a_damaged_bundle(bundle: Path, faces: FaceFolder, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = bytearray((copy / "onnx" / "model_int8_qdq.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "onnx" / "model_int8_qdq.onnx").write_bytes(content)
    found = mfn("evaluate", copy, "--images", faces.images, "--pairs", faces.pairs)
    assert found.exit_code == 7
    assert "model_int8_qdq.onnx" in found.stderr


def test_report_prints_and_renders_again(bundle: Path, tmp_path: Path) -> None:
    found = mfn("report", bundle, "--html", tmp_path / "r.html")
    assert found.exit_code == 0, found.output
    assert "INT8" in found.stdout
    assert (tmp_path / "r.html").read_text() == (bundle / "report.html").read_text()


def test_lists_and_single_entries() -> None:
    for command in ("targets", "recipes"):
        listed = mfn(command, "--json")
        assert listed.exit_code == 0
        names = [entry["name"] for entry in json.loads(listed.stdout)]
        assert len(names) >= 2
        shown = mfn(command, names[0])
        assert json.loads(shown.stdout)["name"] == names[0]
        assert names[0] in mfn(command).stdout


def test_doctor_finds_what_is_installed() -> None:
    found = mfn("doctor", "--json")
    assert found.exit_code == 0, found.output
    checks = {check["name"]: check for check in json.loads(found.stdout)}
    assert checks["openvino"]["ok"]
    assert checks["openvino"]["found"][0].isdigit()
    assert "data folders" in mfn("doctor").stdout


def test_doctor_exits_6_and_says_how_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    from mfn_compile import doctor

    monkeypatch.setattr(doctor, "PACKAGES", (("no-such-package", True, "does something"),))
    found = mfn("doctor")
    assert found.exit_code == 6
    assert "no-such-package" in found.stderr
    assert "pip install" in found.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mfn_compile.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch','onnx','onnxruntime','openvino','nncf','numpy','scipy','PIL',"
        "'pydantic','matplotlib'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--target" in done.stdout
