import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mfn_compile.bundle import guard, swap, workspace, writer
from mfn_compile.bundle.guard import check_replaceable
from mfn_compile.bundle.manifest import verify_bundle
from mfn_compile.bundle.writer import write_bundle
from mfn_compile.errors import BadInputError, DeviceError, UsageError

LOSE = "the machine stops here"


@pytest.fixture
def place(tmp_path):
    """A folder with nothing else in it, so that what is left over can be seen."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_files_arrive_unchanged(place, files, info):
    out = write_bundle(place / "deep" / "er" / "bundle", files, info)
    assert out == place / "deep" / "er" / "bundle"
    assert (out / "models/model.xml").read_text() == "<net/>"
    assert (out / "models/model.bin").read_bytes() == b"\x00\x01" * 500
    assert _names(out.parent) == ["bundle"]
    verify_bundle(out)


def test_relative_output_is_under_the_current_folder(place, files, info, monkeypatch):
    monkeypatch.chdir(place)
    assert write_bundle(Path("build/x"), files, info) == place / "build/x"


def test_same_content_same_manifest(place, files, info):
    one = write_bundle(place / "one", files, info)
    two = write_bundle(place / "two", dict(reversed(files.items())), info)
    assert (one / "manifest.json").read_bytes() == (two / "manifest.json").read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(place, files, info, umask):
    program = files["models/model.xml"]
    program.chmod(0o700)
    before = os.umask(umask)
    try:
        out = write_bundle(place / "bundle", files, info)
    finally:
        os.umask(before)
    mode = {p: stat.S_IMODE(p.stat().st_mode) for p in (out, *out.rglob("*"))}
    assert mode[out] == mode[out / "models"] == 0o777 & ~umask
    assert mode[out / "report.json"] == mode[out / "manifest.json"] == 0o666 & ~umask
    assert mode[out / "models/model.xml"] == 0o777 & ~umask


def test_a_linked_source_is_copied_not_linked(place, files, info, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(files["models/model.xml"])
    out = write_bundle(place / "bundle", {"model.xml": link}, info)
    assert not (out / "model.xml").is_symlink()
    verify_bundle(out)


@pytest.mark.parametrize("without_exchange", [False, True])
def test_previous_bundle_is_replaced(place, files, info, monkeypatch, without_exchange):
    if without_exchange:
        monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    write_bundle(place / "bundle", files | {"gone.txt": b"x"}, info)
    out = write_bundle(place / "bundle", {"new.txt": b"y"}, info)
    assert _names(out) == ["manifest.json", "new.txt"]
    assert _names(place) == ["bundle"]
    verify_bundle(out)


def test_an_empty_folder_is_taken(place, files, info):
    (place / "bundle").mkdir()
    verify_bundle(write_bundle(place / "bundle", files, info))


def test_bundle_of_a_later_version_is_replaced(place, files, info):
    out = write_bundle(place / "bundle", files, info)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"schema": "mfn-compile/bundle/9"}))
    verify_bundle(write_bundle(out, files, info))


@pytest.mark.parametrize(
    "manifest",
    [None, "{}", "[]", "not json", '{"schema": "other", "files": []}', '{"schema": 1}',
     '{"schema": "mfn-compile/bundle/1"}', '{"schema": "mfn-compile/bundle/1", "files": [1]}'],
)  # fmt: skip
def test_a_folder_of_others_is_never_deleted(place, files, info, manifest):
    out = place / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_text("dear")
    if manifest is not None:
        (out / "manifest.json").write_text(manifest)
    with pytest.raises(UsageError, match="not a bundle") as caught:
        write_bundle(out, files, info)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert (out / "holiday.jpg").read_text() == "dear"
    assert _names(place) == ["photos"]


def test_a_file_put_into_a_bundle_is_not_deleted(place, files, info):
    out = write_bundle(place / "bundle", files, info)
    (out / "models/my notes.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"models/my notes\.txt"):
        write_bundle(out, files, info)
    assert (out / "models/my notes.txt").exists()


def test_a_manifest_that_is_a_link_proves_nothing(place, files, info):
    real = write_bundle(place / "real", files, info)
    fake = place / "fake"
    fake.mkdir()
    (fake / "manifest.json").symlink_to(real / "manifest.json")
    with pytest.raises(UsageError, match="not a bundle"):
        write_bundle(fake, files, info)


def test_a_link_inside_a_bundle_is_not_followed(place, files, info):
    precious = place / "precious"
    precious.mkdir()
    (precious / "report.json").write_text("dear")
    out = write_bundle(place / "bundle", files, info)
    (out / "report.json").unlink()
    (out / "report.json").symlink_to(precious / "report.json")
    write_bundle(out, files, info)
    assert (precious / "report.json").read_text() == "dear"
    verify_bundle(out)


def test_output_that_is_a_link_is_refused(place, files, info):
    real = write_bundle(place / "real", files, info)
    for name, target in (("link", real), ("dangling", place / "absent")):
        (place / name).symlink_to(target)
        with pytest.raises(UsageError, match="symbolic link"):
            write_bundle(place / name, files, info)
        assert (place / name).is_symlink()
    verify_bundle(real)


def test_output_that_is_a_file_is_refused(place, files, info):
    (place / "bundle").write_text("dear")
    with pytest.raises(UsageError, match="not a folder"):
        write_bundle(place / "bundle", files, info)
    assert (place / "bundle").read_text() == "dear"


def test_the_current_folder_is_refused(place, files, info, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(UsageError, match="current folder"):
        write_bundle(Path("."), files, info)
    with pytest.raises(UsageError, match="mount point"):
        write_bundle(Path("/"), files, info)


def test_a_file_for_a_parent_is_told(place, files, info):
    (place / "file").write_text("dear")
    with pytest.raises(DeviceError):
        write_bundle(place / "file" / "bundle", files, info)


def test_bad_names_are_refused_before_anything_is_written(place, info):
    for name in ("../x", "/x", "manifest.json"):
        with pytest.raises(UsageError, match="cannot hold"):
            write_bundle(place / "bundle", {name: b""}, info)
    assert _names(place) == []


def test_a_missing_source_leaves_nothing(place, files, info):
    for source in (place.parent / "absent.bin", place.parent):
        with pytest.raises(BadInputError, match="cannot be read"):
            write_bundle(place / "bundle", files | {"z.bin": source}, info)
        assert _names(place) == []


def test_another_run_in_between_is_no_foreign_file(place, files, info, monkeypatch):
    out = write_bundle(place / "bundle", files, info)
    other = write_bundle(place / "other", {"new.txt": b"y"}, info)
    real, swapped = guard.walk_files, []

    def swap_first(folder):
        if not swapped:
            swapped.append(swap.exchange(out, other) or pytest.skip("no exchange here"))
        return real(folder)

    monkeypatch.setattr(guard, "walk_files", swap_first)
    check_replaceable(out)
    assert swapped


def test_check_replaceable_wraps_what_the_system_says(monkeypatch, place):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DeviceError, match="cannot be looked at"):
        check_replaceable(place)


# Full and read-only disks


def test_full_disk_leaves_no_trace(small_disk, files, info):
    with pytest.raises(DeviceError, match="no room") as caught:
        write_bundle(small_disk / "bundle", files | {"big.bin": b"x" * 1_000_000}, info)
    assert caught.value.exit_code == 6
    assert "needs 1.00 MB" in str(caught.value)
    assert "are free" in str(caught.value)
    assert _names(small_disk) == []


def test_full_disk_keeps_the_previous_bundle(small_disk, files, info):
    out = write_bundle(small_disk / "bundle", files, info)
    before = (out / "manifest.json").read_bytes()
    with pytest.raises(DeviceError, match="no room"):
        write_bundle(out, files | {"big.bin": b"x" * 1_000_000}, info)
    assert (out / "manifest.json").read_bytes() == before
    assert _names(small_disk) == ["bundle"]
    verify_bundle(out)


def test_mount_point_is_refused(small_disk, files, info):
    with pytest.raises(UsageError, match="mount point") as caught:
        write_bundle(small_disk, files, info)
    assert str(small_disk / "bundle") in caught.value.hint


@pytest.mark.parametrize("name", ["bundle", "old", "new/bundle"])
def test_read_only_disk(read_only_disk, files, info, name):
    with pytest.raises(DeviceError, match="cannot be written") as caught:
        write_bundle(read_only_disk / name, files, info)
    assert caught.value.exit_code == 6
    assert _names(read_only_disk) == ["old"]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no room"),
        (errno.EDQUOT, "no room"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
        (errno.EIO, "failed"),
    ],
)
def test_what_the_system_says_becomes_one_of_our_errors(
    place, files, info, monkeypatch, number, says
):
    out = write_bundle(place / "bundle", files, info)

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DeviceError, match=says) as caught:
        write_bundle(out, files, info)
    assert str(out) in str(caught.value)
    assert caught.value.hint
    assert _names(place) == ["bundle"]
    verify_bundle(out)


# Interruptions


@pytest.mark.parametrize("point", ["_write", "_fill", "swap_in", "check_replaceable"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_interruption_keeps_the_previous_bundle(place, files, info, monkeypatch, point, kind):
    out = write_bundle(place / "bundle", files, info)
    before = (out / "manifest.json").read_bytes()
    real, calls = getattr(writer, point), []

    def interrupt(*args):
        calls.append(args)
        if len(calls) == 2 or point in ("_fill", "swap_in"):
            raise kind(LOSE)
        return real(*args)

    monkeypatch.setattr(writer, point, interrupt)
    with pytest.raises(kind, match=LOSE):
        write_bundle(out, {"new.txt": b"y", "other.txt": b"z"}, info)
    assert (out / "manifest.json").read_bytes() == before
    assert _names(place) == ["bundle"]
    verify_bundle(out)


def _break_second_rename(monkeypatch, error, also_restore=False):
    """Without the exchange: moving the old one aside works, moving the new one in does not."""
    monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    real = os.rename

    def rename(source, target, **options):
        aside = Path(target).name == workspace.OLD
        restore = Path(source).name == workspace.OLD
        if aside or (restore and not also_restore) or Path(target).exists():
            return real(source, target, **options)
        raise error

    monkeypatch.setattr(os, "rename", rename)


def test_failed_replacement_restores_the_previous_bundle(place, files, info, monkeypatch):
    out = write_bundle(place / "bundle", files, info)
    with monkeypatch.context() as patch:
        _break_second_rename(patch, OSError(errno.EIO, "Input/output error"))
        with pytest.raises(DeviceError, match="failed"):
            write_bundle(out, {"new.txt": b"y"}, info)
    assert _names(place) == ["bundle"]
    assert "report.json" in _names(out)
    verify_bundle(out)


def test_a_bundle_that_cannot_be_restored_is_kept_and_found_again(place, files, info, monkeypatch):
    out = write_bundle(place / "bundle", files, info)
    with monkeypatch.context() as patch:
        _break_second_rename(patch, OSError(errno.EIO, "Input/output error"), also_restore=True)
        with pytest.raises(DeviceError, match="could not be put back") as caught:
            write_bundle(out, {"new.txt": b"y"}, info)
    (left,) = place.iterdir()
    assert str(left / workspace.OLD) in caught.value.hint
    verify_bundle(left / workspace.OLD)
    workspace.clear_stale(out)
    assert _names(place) == ["bundle"]
    verify_bundle(out)


KILLED = """
import os, sys
from pathlib import Path
from mfn_compile.bundle import guard, swap, writer
from mfn_compile.bundle.manifest import read_manifest, BundleInfo

out, point = Path(sys.argv[1]), sys.argv[2]
manifest = read_manifest(out)
info = BundleInfo(**{name: getattr(manifest, name) for name in BundleInfo.model_fields})
rename = os.rename
def kill(*args):
    os.kill(os.getpid(), 9)
def kill_between(source, target):
    if Path(target).name == "old":
        rename(source, target)
        kill()
    rename(source, target)
if point == "between":
    swap.exchange = lambda first, second: False
    os.rename = kill_between
else:
    setattr(writer, point, kill)
writer.write_bundle(out, {"new.txt": b"y"}, info)
"""


@pytest.mark.parametrize("point", ["_fill", "swap_in", "between"])
def test_kill_9_is_cleared_up_by_the_next_run(place, files, info, point):
    out = write_bundle(place / "bundle", files, info)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(out), point],
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == -9
    assert len(_names(place)) == 2 - (point == "between")
    if point != "between":
        verify_bundle(out)
    write_bundle(out, {"newer.txt": b"z"}, info)
    assert _names(place) == ["bundle"]
    assert _names(out) == ["manifest.json", "newer.txt"]


def test_a_work_folder_in_use_is_left_alone(place, files, info):
    with workspace.workspace(place / "bundle") as work:
        (work / "new").mkdir()
        write_bundle(place / "bundle", files, info)
        assert (work / "new").is_dir()
    assert _names(place) == ["bundle"]


def test_a_work_folder_taken_by_another_run_is_not_used(place, monkeypatch):
    real, answers = workspace._lock, [False, True]
    monkeypatch.setattr(workspace, "_lock", lambda handle: real(handle) and answers.pop(0))
    with workspace.workspace(place / "bundle") as work:
        assert work.is_dir()
    assert answers == []


def test_a_file_system_without_locks(place, files, info, monkeypatch):
    stale = place / ".bundle.mfn-stale"
    stale.mkdir()

    def no_locks(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(workspace.fcntl, "flock", no_locks)
    verify_bundle(write_bundle(place / "bundle", files, info))
    assert stale.is_dir(), "without locks nobody knows whether it is in use"


def test_links_that_look_like_work_folders_are_left_alone(place, files, info):
    (place / "precious").mkdir()
    (place / ".bundle.mfn-link").symlink_to(place / "precious")
    write_bundle(place / "bundle", files, info)
    assert _names(place) == [".bundle.mfn-link", "bundle", "precious"]


def test_two_runs_at_once_end_with_one_whole_bundle(place, info):
    script = KILLED.split("rename =")[0].replace("out, point", "out, tag") + (
        "for i in range(30):\n"
        "    writer.write_bundle(out, {'a.txt': tag.encode(), f'{tag}.txt': b'x'}, info)\n"
    )
    out = write_bundle(place / "bundle", {"a.txt": b""}, info)
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(out), tag], cwd=Path(__file__).parents[2]
        )
        for tag in ("one", "two")
    ]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    assert _names(place) == ["bundle"]
    verify_bundle(out)


# The exchange itself


def test_exchange_swaps_or_says_that_it_cannot(place, monkeypatch):
    for name in "ab":
        (place / name).mkdir()
        (place / name / name).touch()
    if swap.exchange(place / "a", place / "b"):
        assert _names(place / "a") == ["b"]
    assert not swap.exchange(place / "a", place / "absent")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not swap.exchange(place / "a", place / "b")


def test_exchange_tells_other_errors(place):
    (place / "a").mkdir()
    with pytest.raises(OSError, match="File name too long"):
        swap.exchange(place / "a", place / ("x" * 300))


def test_swap_gives_up_when_others_never_stop(place, monkeypatch):
    for name in ("new", "out"):
        (place / name).mkdir()
        (place / name / "file").touch()
    monkeypatch.setattr(swap, "exchange", lambda first, second: False)
    monkeypatch.setattr(swap, "_replace", lambda new, out, aside: False)
    with pytest.raises(OSError, match="other runs"):
        swap.swap_in(place / "new", place / "out", place / "old")


def test_folders_that_cannot_be_synced_are_accepted(place, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    swap.sync_folder(place)
