"""Reports are written through what is there: devices, links, pipes, modes; whole or not at all."""

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.running import ROOT, environment, printed, write
from ttt_proofs.cli.files import Target
from ttt_proofs.cli.requests import RequestError

TEXT = "η and more\n"


def test_a_new_file_and_its_folders_are_made(tmp_path):
    file = tmp_path / "deep" / "er" / "report.json"
    target = Target(file)
    assert not (tmp_path / "deep").exists()  # nothing is left if the work does not end
    target.write(TEXT)
    assert file.read_text("utf-8") == TEXT


@pytest.mark.parametrize("before", ["", "short", TEXT * 100])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o755])
def test_a_file_keeps_its_mode_its_links_and_itself(tmp_path, before, mode):
    file, twin, link = (tmp_path / name for name in ("a.json", "twin.json", "link.json"))
    file.write_text(before, "utf-8")
    file.chmod(mode)
    twin.hardlink_to(file)
    link.symlink_to("a.json")
    for path in (file, link, twin):
        known = file.stat()
        target = Target(path)
        assert file.read_text("utf-8") == before  # until it is written
        target.write(TEXT)
        found = file.stat()
        assert (found.st_ino, found.st_mode) == (known.st_ino, known.st_mode)
        assert twin.read_text("utf-8") == TEXT and link.is_symlink()
        file.write_text(before, "utf-8")


def test_through_a_link_to_nothing_its_target_is_made(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "new" / "real.json")
    Target(link).write(TEXT)
    assert link.is_symlink() and (tmp_path / "new" / "real.json").read_text("utf-8") == TEXT


def test_a_device_stays_a_device(tmp_path):
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("")
    except OSError:
        pytest.skip("devices cannot be made here")
    Target(null).write(TEXT)
    assert stat.S_ISCHR(null.stat().st_mode) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("by_number", [True, False])
def test_a_pipe_takes_the_whole_report_once(tmp_path, by_number):
    """By name, and as `>(command)` gives it."""
    long = TEXT * 20_000  # more than a pipe holds
    got = []
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def read():
        with fifo.open(encoding="utf-8") as stream:
            got.append(stream.read())

    reader = threading.Thread(target=read)
    reader.start()
    if by_number:
        number = os.open(fifo, os.O_WRONLY)
        Target(Path(f"/dev/fd/{number}")).write(long)
        os.close(number)
    else:
        Target(fifo).write(long)
    reader.join(30)
    assert got == [long] and stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_pipe_whose_reader_has_left_is_no_fault():
    out, into = os.pipe()
    target = Target(Path(f"/dev/fd/{into}"))
    kept = os.dup(into)
    os.close(out)
    try:
        target.write(TEXT)
    except RequestError as error:  # Linux does not open it anew without a reader
        assert "can be written" in str(error)
    finally:
        os.close(into)
        os.close(kept)


def targets_refused(folder: Path):
    """Paths at which nothing can be written."""
    (folder / "file").write_text("kept")
    (folder / "loop").symlink_to("loop")
    endpoint = socket.socket(socket.AF_UNIX)
    endpoint.bind(str(folder / "socket"))
    endpoint.close()
    yield from (folder, folder / "file" / "x.json", folder / "loop", folder / "socket")
    yield from (folder / ("long" * 100), Path("~nobodyofthisname/x.json"), Path())
    if Path("/proc/self").exists():
        yield from (Path("/proc/x.json"), Path("/proc/new/x.json"))
    if os.geteuid():
        (folder / "closed").mkdir(mode=0o500)
        (folder / "fixed").write_text("kept")
        (folder / "fixed").chmod(0o400)
        yield from (folder / "closed" / "x.json", folder / "closed" / "y" / "x.json")
        yield folder / "fixed"


def test_what_cannot_be_written_is_refused_and_left(tmp_path):
    paths = list(targets_refused(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    for path in paths:
        with pytest.raises(RequestError, match="`--json` must be a file that can be written; got"):
            Target(path)
            pytest.fail(f"{path} was taken")
    assert sorted(tmp_path.rglob("*")) == before


FULL = """
import resource, signal, sys
from pathlib import Path
from ttt_proofs.cli.files import Target
from ttt_proofs.cli.requests import RequestError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    Target(Path(sys.argv[1])).write("x" * 2000)
except RequestError as error:
    print(error)
"""


@pytest.mark.parametrize("before", ["old " * 100, None])
def test_without_room_for_all_of_it_nothing_changes(tmp_path, before):
    file = tmp_path / "a.json"
    if before is not None:
        file.write_text(before)
    done = subprocess.run(
        [sys.executable, "-c", FULL, file],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "must be a file that can be written" in done.stdout
    assert (file.read_text() if file.exists() else None) == before


@pytest.mark.parametrize("exists", [True, False])
def test_a_run_that_fails_leaves_the_file_as_it_was(monkeypatch, tmp_path, exists):
    """An empty file too: it is not ours to remove."""
    (tmp_path / "broken.py").write_text("raise OSError('broken on purpose')")
    report = tmp_path / "report.json"
    if exists:
        report.touch(mode=0o600)
    words = ("verify", "--derivations", str(tmp_path), "--json", str(report))
    assert printed(monkeypatch, tmp_path / "out", "utf-8", *words) == (2, "")
    assert report.exists() is exists


def test_nothing_is_verified_for_a_report_that_cannot_be_written(monkeypatch, tmp_path):
    """`derive()` would leave a trace."""
    file = write(tmp_path, "traced")
    file.write_text(file.read_text() + "\nopen(__file__ + '.ran', 'w')\n")
    words = ("verify", "--derivations", str(tmp_path), "--json", str(tmp_path))
    assert printed(monkeypatch, tmp_path / "out", "utf-8", *words) == (2, "")
    assert not list(tmp_path.glob("*.ran"))


@pytest.mark.parametrize("name", ["/dev/stdout", "out.txt"])
def test_a_report_on_standard_output_is_all_of_it(tmp_path, name):
    """The table goes to standard error, and neither is written over the other."""
    if name == "/dev/stdout" and not Path(name).exists():
        pytest.skip("there is no /dev/stdout")
    write(tmp_path, "one")
    words = ["verify", "--derivations", ".", "--witness", "proof", "--json", name]
    (tmp_path / "out.txt").write_text("kept\n")
    with (tmp_path / "out.txt").open("a") as out:
        done = subprocess.run(
            [sys.executable, "-m", "ttt_proofs", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0 and b"1 of 1 as stated" in done.stderr
    kept, _, report = (tmp_path / "out.txt").read_text("utf-8").partition("\n")
    assert kept == "kept" and json.loads(report)["schema"] == 1


def test_standard_output_may_be_a_socket():
    """It cannot be opened by its name."""
    ours, theirs = socket.socketpair()
    words = ["verify", "sum_order", "--witness", "proof", "--json", "/dev/stdout"]
    with ours, theirs:
        subprocess.run(
            [sys.executable, "-m", "ttt_proofs", *words],
            cwd=ROOT,
            env=environment(),
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=120,
            check=True,
        )
        theirs.close()
        assert json.loads(ours.makefile(encoding="utf-8").read())["schema"] == 1


def test_the_shells_process_substitution(tmp_path):
    bash = "/bin/bash"
    if not Path(bash).exists():
        pytest.skip("there is no bash")
    script = '"$0" -m ttt_proofs verify sum_order --witness proof --json >(cat >"$1"); sleep 1'
    subprocess.run(
        [bash, "-c", script, sys.executable, tmp_path / "got"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert json.loads((tmp_path / "got").read_text("utf-8"))["summary"]["as_stated"] == 1
