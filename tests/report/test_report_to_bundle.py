import sample

from mfn_compile.bundle.manifest import BundleInfo, read_manifest, verify_bundle
from mfn_compile.bundle.writer import write_bundle
from mfn_compile.report import document
from mfn_compile.report.html import render_html


def test_a_result_fills_the_manifest(tmp_path):
    result = sample.demo()
    info = BundleInfo.of(result)
    assert info.checkpoint_sha256 == result.checkpoint.sha256
    assert info.demo
    assert info.input == "uint8 [1, 112, 112, 3], RGB"
    assert info.normalization == "inside of the artifact"
    assert info.openvino == result.backend.openvino
    assert info.knobs == result.backend.knobs
    plain = sample.minimal()
    assert BundleInfo.of(plain).input == "float32 [1, 3, 112, 112]"
    assert BundleInfo.of(plain).normalization == "outside of the graph"
    dynamic = plain.export.model_copy(update={"dynamic_batch": True})
    assert BundleInfo.of(plain.model_copy(update={"export": dynamic})).input.startswith(
        "float32 [N, 3"
    )
    assert info.tools["openvino"] == "2026.4.1"
    files = {
        "report.json": document.to_json(result).encode(),
        "report.html": render_html(result).encode(),
    }
    out = write_bundle(tmp_path / "bundle", files, info)
    verify_bundle(out)
    assert read_manifest(out).knobs == info.knobs
    assert document.load(out / "report.json") == result
