import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mfn_compile.bundle import manifest
from mfn_compile.bundle.manifest import (
    FileEntry,
    Manifest,
    check_name,
    check_names,
    read_manifest,
    verify_bundle,
)
from mfn_compile.bundle.writer import write_bundle
from mfn_compile.errors import BadInputError, InternalCheckError


@pytest.fixture
def bundle(tmp_path, files, info):
    return write_bundle(tmp_path / "bundle", files, info)


def test_an_untouched_bundle_is_right(bundle):
    assert verify_bundle(bundle) is None


def test_manifest_tells_the_integrator_what_the_graph_leaves_out(bundle):
    document = json.loads((bundle / "manifest.json").read_text())
    assert next(iter(document)) == "schema"
    assert document["schema"] == "mfn-compile/bundle/1"
    assert document["normalization"] == "outside of the graph"
    assert document["preprocessing"]["mean"] == [127.5, 127.5, 127.5]
    assert document["preprocessing"]["color"] == "RGB"
    assert document["input"] == "float32 [1, 3, 112, 96]"
    assert document["tools"] == {"mfn-compile": "0.1.0", "openvino": "2026.4.1"}
    assert list(document["tools"]) == sorted(document["tools"])
    assert [entry["name"] for entry in document["files"]] == [
        "models/model.bin",
        "models/model.xml",
        "report.json",
    ]


def test_manifest_is_read_back_equal(bundle):
    found = read_manifest(bundle)
    assert found.to_json() == (bundle / "manifest.json").read_text()
    with pytest.raises(ValidationError, match="frozen"):
        found.target = "other"


@pytest.mark.parametrize("bit", [0, 3999, 7999])
def test_one_flipped_bit_is_found(bundle, bit):
    path = bundle / "models/model.bin"
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(InternalCheckError, match=r"models/model\.bin differs") as caught:
        verify_bundle(bundle)
    assert caught.value.exit_code == 7
    assert "model.xml" not in str(caught.value)


def test_every_problem_is_named(bundle):
    (bundle / "models/model.bin").unlink()
    (bundle / "report.json").write_bytes(b"{ }")
    (bundle / "models/new").mkdir()
    (bundle / "models/new/extra.txt").write_text("x")
    with pytest.raises(InternalCheckError) as caught:
        verify_bundle(bundle)
    text = str(caught.value)
    assert "models/model.bin is missing" in text
    assert "models/new/extra.txt is not in the manifest" in text
    assert "report.json has 3 bytes instead of 2" in text


def test_links_are_no_files_of_a_bundle(bundle, tmp_path):
    same = tmp_path / "same"
    same.write_bytes(b"{}")
    (bundle / "report.json").unlink()
    (bundle / "report.json").symlink_to(same)
    (bundle / "away.link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InternalCheckError) as caught:
        verify_bundle(bundle)
    assert "report.json is a link" in str(caught.value)
    assert "away.link is not in the manifest" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(bundle, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(manifest, "file_sha256", refuse)
    with pytest.raises(InternalCheckError, match="cannot be read: Permission denied"):
        verify_bundle(bundle)


def _rewrite(bundle, change):
    path = bundle / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "c:x", "", "a\n", "a/"],
)
def test_names_that_leave_the_bundle_are_refused(bundle, name):
    _rewrite(bundle, lambda document: document["files"][0].update(name=name))
    with pytest.raises(BadInputError, match=r"files\.0\.name") as caught:
        verify_bundle(bundle)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(schema="mfn-compile/bundle/2"),
        lambda d: d.update(surprise=1),
        lambda d: d.pop("target"),
        lambda d: d["files"][0].update(sha256="A" * 64),
        lambda d: d["files"][0].update(bytes=-1),
        lambda d: d["files"].append(d["files"][0]),
    ],
)
def test_a_damaged_manifest_is_bad_input(bundle, change):
    _rewrite(bundle, change)
    with pytest.raises(BadInputError, match=r"manifest\.json"):
        verify_bundle(bundle)


def test_what_is_no_bundle_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match="not a bundle"):
        verify_bundle(tmp_path / "absent")
    with pytest.raises(BadInputError, match="not a bundle"):
        verify_bundle(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInputError, match="not a bundle"):
        verify_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadInputError, match="damaged"):
        verify_bundle(tmp_path)


def test_a_linked_manifest_is_not_followed(bundle, tmp_path):
    (bundle / "manifest.json").rename(tmp_path / "elsewhere.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BadInputError, match="not a regular file"):
        verify_bundle(bundle)


@given(st.text(max_size=30))
def test_an_accepted_name_stays_inside(tmp_path_factory, name):
    try:
        check_name(name)
    except ValueError:
        return
    base = tmp_path_factory.getbasetemp()
    assert (base / name).is_relative_to(base)
    assert ".." not in name.split("/")
    assert name != "manifest.json"


@pytest.mark.parametrize(
    "names", [["a", "a/b"], ["A.bin", "a.BIN"], ["manifest.json"], ["Manifest.json"], ["D/x", "d"]]
)
def test_names_that_do_not_fit_together(names):
    with pytest.raises(ValueError, match=r"twice|both|written"):
        check_names(names)


def test_manifest_model_refuses_twins(info):
    entry = FileEntry(name="a", bytes=0, sha256="0" * 64)
    with pytest.raises(ValidationError, match="twice"):
        Manifest(files=(entry, entry), **info.model_dump())
