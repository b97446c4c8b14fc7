"""The table of peers, and what is made of a peer that is wrong or missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfn_compile.bench import environments, whole
from mfn_compile.bench.converting import SCRIPTS, Converted
from mfn_compile.bench.environments import host_python, site_of
from mfn_compile.bench.peers import find_peers, peers
from mfn_compile.bench.run import Counted
from mfn_compile.bench.subject import Subject
from mfn_compile.device.spec import parse_virtual
from mfn_compile.errors import DeviceError, UsageError
from mfn_compile.model.preprocessing import Preprocessing

NCNN = find_peers(["ncnn"])[0]
F32, F16, INT8 = NCNN.variants
SUBJECT = Subject(
    "tiny",
    Path("nowhere"),
    "key",
    Path("nowhere/float.onnx"),
    Preprocessing(height=16, width=16, mean=(0, 0, 0), std=(1, 1, 1)),
    "input",
    "embedding",
)
CONVERTED = Converted(Path("nowhere/found.json"), "0" * 64, 1000, "")


def made(variant: int, cosine: float) -> whole._Made:
    return whole._Made(NCNN, NCNN.variants[variant], CONVERTED, cosine=cosine)


def counted(monkeypatch: pytest.MonkeyPatch, cosine: float) -> None:
    found = Counted(cycles=1e6, instructions=10, l1_misses=0, l2_misses=0, cosine=cosine)
    monkeypatch.setattr(whole, "count", lambda *given, **how: found)


def test_every_peer_has_a_converter_and_exact_versions() -> None:
    for peer in peers():
        assert (SCRIPTS / f"to_{peer.name}.py").is_file()
        assert all("==" in pin for pin in (*peer.site, *peer.host))


def test_an_unknown_peer_is_named_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="ncnn, onnxruntime, litert, mnn, openvino") as caught:
        find_peers(["ncnn", "onnxruntme"])
    assert "'onnxruntime'" in caught.value.hint


def test_a_wrong_embedding_gets_no_number_on_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 0.819)
    row = whole._count(made(0, 1.0), SUBJECT, parse_virtual("virtual:cortex-a76"))
    assert (row.cycles, row.instructions) == (None, None)
    assert "0.819" in row.reason


def test_a_right_one_gets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 1.0)
    row = whole._count(made(0, 1.0), SUBJECT, parse_virtual("virtual:cortex-a76"))
    assert (row.cycles, row.reason) == (1e6, "")


def test_a_wrong_model_is_not_even_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "host_python", lambda *given, **how: "python")
    monkeypatch.setattr(whole, "convert", lambda *given, **how: CONVERTED)
    monkeypatch.setattr(whole.PeerOnHost, "facts", lambda self, **how: (0.51, 1))
    monkeypatch.setattr(whole, "count", lambda *given, **how: pytest.fail("it was run"))
    one = whole._make(NCNN, INT8, SUBJECT, install=False)
    row = whole._count(one, SUBJECT, parse_virtual("virtual:cortex-a76"))
    assert row.cycles is None
    assert "cosine 0.510, below 0.99" in row.reason


def test_half_precision_needs_a_core_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, 1.0)
    row = whole._count(made(1, 1.0), SUBJECT, parse_virtual("virtual:cortex-a53"))
    assert row.reason == "the core has no half precision arithmetic"


def test_a_peer_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **how: object) -> str:
        raise DeviceError("The packages cannot be installed", why="no network")

    monkeypatch.setattr(whole, "host_python", fail)
    one = whole._make(NCNN, F32, SUBJECT, install=True)
    row = whole._count(one, SUBJECT, parse_virtual("virtual:cortex-a76"))
    assert "No network" in row.reason


def test_nothing_is_installed_where_it_must_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path))
    with pytest.raises(DeviceError, match="not installed") as caught:
        host_python(NCNN, install=False)
    assert caught.value.exit_code == 6
    assert not list(tmp_path.iterdir())


def test_an_installation_that_fails_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MFN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(environments.venv, "create", lambda *given, **how: None)
    with pytest.raises(DeviceError):
        host_python(NCNN)


def test_other_versions_in_the_root_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "usr" / "bin" / "python3.11"
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "opt" / "site-ncnn" / "ncnn-0.9.dist-info").mkdir(parents=True)
    monkeypatch.setenv("MFN_SYSROOT", str(tmp_path))
    with pytest.raises(DeviceError, match="has no ncnn=="):
        site_of(NCNN)
