"""Archives: found, fetched by the real pip and a stand-in apt, verified, unpacked, killed."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from dataclasses import replace

import pytest
from archive_files import ar_bytes, archive_of, deb_bytes, tar_bytes, wheel_bytes

from speechadapt.errors import FetchError
from speechadapt.fetch import fetch, unpack, unpack_deb

FILES = {"usr/share/a.txt": b"one\n", "usr/share/deep/b.bin": bytes(range(256)) * 400}


@pytest.fixture
def deb(tmp_path):
    path = tmp_path / "debs" / "tiny-data_1-1_all.deb"
    path.parent.mkdir()
    path.write_bytes(deb_bytes(FILES))
    return path


@pytest.fixture
def apt(tmp_path, monkeypatch, deb):
    """An apt-get of its own on the PATH, which copies the package slowly and writes what it did."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "apt-get"

    def write(body):
        script.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n{textwrap.dedent(body)}\n")
        script.chmod(0o755)

    write(f"head -c 500 {deb} > {deb.name}; sleep 0.5; cp {deb} .")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return write


def calls(tmp_path):
    path = tmp_path / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_file_in_the_archives_is_taken_where_it_lies(tmp_path, deb):
    assert fetch(archive_of(deb), tmp_path / "downloads", deb.parent) == deb
    assert fetch(archive_of(deb), deb.parent) == deb
    assert not (tmp_path / "downloads").exists()


def test_the_environment_may_name_the_archives(tmp_path, deb, monkeypatch):
    monkeypatch.setenv("SPEECHADAPT_ARCHIVES", str(deb.parent))
    assert fetch(archive_of(deb), tmp_path / "downloads") == deb


def test_archives_given_mean_no_download(tmp_path, deb, apt):
    with pytest.raises(FetchError, match=r"has no tiny.*`apt-get download tiny-data=1-1`"):
        fetch(archive_of(deb), tmp_path / "downloads", tmp_path)
    assert calls(tmp_path) == 0


def test_another_hash_names_both(tmp_path, deb, apt):
    archive = archive_of(deb)
    deb.write_bytes(deb.read_bytes() + b"x")
    with pytest.raises(FetchError) as caught:
        fetch(archive, tmp_path / "downloads", deb.parent)
    assert archive.sha256 in str(caught.value)
    assert archive_of(deb).sha256 in str(caught.value)
    with pytest.raises(FetchError, match=archive.sha256):  # what apt brings is verified as well
        fetch(archive, tmp_path / "downloads")
    assert visible(tmp_path / "downloads") == []


def test_apt_brings_it_once_and_says_so(tmp_path, deb, apt, capsys):
    downloads = tmp_path / "downloads"
    path = fetch(archive_of(deb), downloads)
    assert path == downloads / deb.name
    assert path.read_bytes() == deb.read_bytes()
    assert visible(downloads) == [deb.name]
    said = capsys.readouterr().err
    assert "fetching tiny-data 1-1" in said and "(free)" in said
    assert fetch(archive_of(deb), downloads) == path
    assert calls(tmp_path) == 1


def test_two_processes_at_once_fetch_once(tmp_path, deb, apt):
    threads = [
        threading.Thread(target=fetch, args=(archive_of(deb), tmp_path / "downloads"))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls(tmp_path) == 1
    assert visible(tmp_path / "downloads") == [deb.name]


def test_a_failing_apt_says_what_to_do(tmp_path, deb, apt):
    apt("echo 'Reading...'; echo 'E: Unable to locate package tiny-data' >&2; exit 100")
    with pytest.raises(FetchError) as caught:
        fetch(archive_of(deb), tmp_path / "downloads")
    message = str(caught.value)
    for part in (deb.name, "E: Unable to locate package", "`apt-get update`", "--archives"):
        assert part in message
    assert "\n" not in message
    assert visible(tmp_path / "downloads") == []


def test_an_apt_that_brings_nothing(tmp_path, deb, apt):
    apt("exit 0")
    with pytest.raises(FetchError, match="left 0 packages"):
        fetch(archive_of(deb), tmp_path / "downloads")


def test_a_system_without_apt(tmp_path, deb, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match="has no apt-get; install it, or fetch tiny-data_1-1"):
        fetch(archive_of(deb), tmp_path / "downloads")


def test_pip_brings_a_wheel(tmp_path, monkeypatch):
    wheel = tmp_path / "index" / "tiny_data-1.0.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(wheel_bytes(FILES))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    archive = archive_of(wheel, "wheel")
    path = fetch(archive, tmp_path / "downloads")
    assert path.read_bytes() == wheel.read_bytes()
    unpacked = contents(unpack(path, tmp_path / "unpacked"))
    assert FILES.items() <= unpacked.items()
    other = replace(archive, name="other-2-py3-none-any.whl", version="2.0.0")
    with pytest.raises(FetchError, match=r"pip could not download it \(ERROR: .*--archives"):
        fetch(other, tmp_path / "downloads")


def test_a_killed_download_leaves_nothing_under_the_name(tmp_path, deb, apt):
    downloads = tmp_path / "downloads"
    apt(f"cp {deb} .; sleep 60")
    archive = archive_of(deb)
    code = f"""
        from pathlib import Path
        from speechadapt.fetch import Archive, fetch
        fetch({archive!r}, Path({str(downloads)!r}))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.DEVNULL, process_group=0
    )
    try:
        deadline = time.monotonic() + 30
        while not list(downloads.glob(f".*/{deb.name}")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(downloads.glob(f".*/{deb.name}"))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (downloads / deb.name).exists()
    apt(f"cp {deb} .")
    fetch(archive, downloads)
    assert visible(downloads) == [deb.name]


@pytest.fixture(params=["filters of Python", "older Python"])
def filters(request, monkeypatch):
    """Debian 12's Python has no filters for tar files."""
    if request.param == "older Python":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filters")


def linked(name, kind, target):
    """A package with one link, then a file below it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        link = tarfile.TarInfo(name)
        link.type, link.linkname = kind, target
        tar.addfile(link)
        inner = tarfile.TarInfo(f"{name}/out.txt")
        inner.size = 1
        tar.addfile(inner, io.BytesIO(b"x"))
    return ar_bytes({"data.tar.gz": stream.getvalue()})


@pytest.mark.parametrize(
    ("name", "kind", "target"),
    [
        ("a", tarfile.SYMTYPE, "../.."),
        ("a", tarfile.SYMTYPE, "/tmp"),
        ("a", tarfile.LNKTYPE, "../../etc/passwd"),
        ("a", tarfile.CHRTYPE, ""),
        ("../a", tarfile.SYMTYPE, "x"),
    ],
)
def test_links_and_devices_must_not_lead_out(tmp_path, filters, monkeypatch, name, kind, target):
    path = tmp_path / "x.deb"
    path.write_bytes(linked(name, kind, target))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(path, tmp_path / "unpacked")
    assert visible(tmp_path) == ["x.deb"]


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2", ""])
def test_a_deb_unpacks_with_and_without_dpkg(tmp_path, compression, filters, monkeypatch):
    path = tmp_path / "x.deb"
    path.write_bytes(deb_bytes(FILES, compression))
    (tmp_path / "plain").mkdir()
    unpack_deb(path, tmp_path / "plain")
    assert contents(tmp_path / "plain") == FILES
    if shutil.which("dpkg-deb"):
        assert contents(unpack(path, tmp_path / "dpkg")) == FILES
    monkeypatch.setenv("PATH", "")
    assert contents(unpack(path, tmp_path / "no dpkg")) == FILES


def test_what_is_unpacked_is_not_unpacked_again(tmp_path, deb):
    folder = unpack(deb, tmp_path / "unpacked")
    (folder / "usr/share/a.txt").unlink()
    deb.unlink()
    assert unpack(deb, folder) == folder
    assert not (folder / "usr/share/a.txt").exists()


DAMAGED = {
    "empty": b"",
    "text": b"no package\n" * 100,
    "cut in a header": deb_bytes(FILES)[:90],
    "cut in the data": deb_bytes(FILES)[:-200],
    "no data": ar_bytes({"debian-binary": b"2.0\n"}),
    "a size that is no number": deb_bytes(FILES).replace(b"4         `\n", b"4x        `\n"),
    "data is no tar": ar_bytes({"debian-binary": b"2.0\n", "data.tar.xz": b"x" * 1000}),
    "climbs": ar_bytes({"data.tar.gz": tar_bytes({"../out.txt": b"x"}, "gz")}),
}


@pytest.mark.parametrize("tools", ["with dpkg", "without"])
@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_packages_leave_nothing(tmp_path, case, tools, filters, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "x.deb"
    path.write_bytes(DAMAGED[case])
    if tools == "without":
        monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchError) as caught:
        unpack(path, folder / "unpacked")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible(folder) == ["x.deb"]
    assert not (tmp_path / "out.txt").exists()


def test_zstd_needs_dpkg(tmp_path, monkeypatch):
    path = tmp_path / "x.deb"
    path.write_bytes(ar_bytes({"data.tar.zst": b"\x28\xb5\x2f\xfd" + bytes(100)}))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FetchError, match=r"zstd; install dpkg|cannot be unpacked"):
        unpack(path, tmp_path / "unpacked")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt"])
def test_a_wheel_must_not_climb(tmp_path, name):
    path = tmp_path / "x.whl"
    path.write_bytes(wheel_bytes({name: b"x"}))
    with pytest.raises(FetchError, match="climbs out"):
        unpack(path, tmp_path / "unpacked")
    assert visible(tmp_path) == ["x.whl"]


def test_a_cut_wheel(tmp_path):
    path = tmp_path / "x.whl"
    path.write_bytes(wheel_bytes(FILES)[:-50])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack(path, tmp_path / "unpacked")
