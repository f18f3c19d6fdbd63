"""Workers placed by Ray and by submitit: a real Ray cluster of one machine, submitit's own local executor."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.cluster import choose_site, read_options
from automed.study.crew import Orders
from automed.study.limits import Limits

# What it listens on is told while the first trials run.
LAUNCH = """
import sys
import tempfile
from pathlib import Path
import psutil
from automed.study.cluster import choose_site
from automed.study.launch import launch
from automed.study.open import reopen_study

def listening(shown):
    if not heard:
        for process in psutil.Process().children(recursive=True):
            heard.update(c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN")

heard = set()
opened = reopen_study(Path(sys.argv[1]))
launcher, total, *child = sys.argv[2:]
options = ["cluster=local"] if launcher == "slurm" else []
site = choose_site(launcher, options, alone=True, workers=2)
outcome = launch(
    opened, trials=int(total), workers=2, site=site, child=tuple(child), on_tick=listening
)
print(outcome.snapshot.done, outcome.interrupted, *sorted(heard), flush=True)
"""


@pytest.fixture
def start(monkeypatch, tmp_path_factory) -> Callable[..., subprocess.Popen[str]]:
    """Starts a launcher with two workers in a process of its own."""
    monkeypatch.setenv("FAKE_SECONDS", "0.05")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray", dir="/tmp"))

    def start_(opened, launcher: str, total: int, child: tuple[str, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(opened.folder), launcher, str(total), *child],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    return start_


def check_total(opened, total: int) -> None:
    found = record.records(opened.study)
    assert sum(one.state in ("complete", "pruned") for one in found) == total
    assert record.counts(opened.study).running == 0
    for folder in (opened.folder / "trials").iterdir():
        numbers = {line.split()[2] for line in (folder / "runs.txt").read_text().splitlines()}
        assert numbers == {str(int(folder.name))}


def wait_for_two(opened, process: subprocess.Popen[str]) -> None:
    """Until two trials are under way."""
    while sum(bool(one.curve) for one in record.records(opened.study) if one.state == "running") < 2:
        assert process.poll() is None, "the launcher ended"
        time.sleep(0.1)


def interrupt(opened, process: subprocess.Popen[str]) -> str:
    """Ctrl-C once two trials are under way; what the launcher said, once it and all of its own are gone."""
    wait_for_two(opened, process)
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells everyone in it
    said, _ = process.communicate(timeout=120)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    return said


@pytest.mark.parametrize("launcher", ["ray", "slurm"])
def test_two_workers_reach_the_exact_total_also_when_interrupted(
    launcher, open_here, fake_child, start
) -> None:
    opened = open_here()
    said = interrupt(opened, start(opened, launcher, 50, fake_child)).split()
    assert said[1] == "True"
    tally = record.counts(opened.study)
    assert tally.running == 0, "both handed their trials back, if they had not just come to their end"
    assert 1 <= tally.waiting <= 2
    if launcher == "ray":
        assert set(said[2:]) <= {"127.0.0.1", "::ffff:127.0.0.1"} and said[2:]
    total = tally.complete + tally.pruned + 8
    process = start(opened, launcher, total, fake_child)
    if launcher == "slurm":  # its jobs do not need the launcher
        wait_for_two(opened, process)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        psutil.wait_procs(family, timeout=60)
    said, _ = process.communicate(timeout=120)
    if launcher == "ray":
        assert said.split()[:2] == [str(total), "False"]
    check_total(opened, total)
    workers = {one.worker.rpartition("-") for one in record.records(opened.study)}
    assert {rank for _, _, rank in workers} == {"0", "1"}
    assert len({host for host, _, _ in workers}) == 1 and ("", "", "0") not in workers


SBATCH = """#!/bin/sh
# Says what it got, as Slurm's own does, and keeps it: $KEPT/script, $KEPT/storage.
cp "$1" "$KEPT/script"
printf %s "$AUTOMED_STORAGE" > "$KEPT/storage"
test "$REFUSED" || { echo "Submitted batch job 7"; exit 0; }
echo "sbatch: error: invalid partition specified: nowhere" >&2
exit 1
"""
SCANCEL = '#!/bin/sh\necho "$@" >> "$KEPT/cancelled"\n'
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
test -e "$KEPT/cancelled" && state=CANCELLED || state=PENDING
echo "7_0|$state|"; echo "7_1|$state|"
"""
SECRET = "postgresql+psycopg://me:s3cret@db.host/studies"
OPTIONS = ["slurm_partition=gpu", "timeout_min=600", "gpus_per_node=1", "slurm_setup=module load cuda"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch) -> Path:
    """The commands of Slurm stand on the path; they keep what they are given in this folder."""
    folder, commands = tmp_path / "kept", tmp_path / "bin"
    folder.mkdir()
    commands.mkdir()
    for name, text in (
        ("sbatch", SBATCH), ("srun", "#!/bin/sh\n"), ("scancel", SCANCEL), ("sacct", SACCT),
    ):  # fmt: skip
        (commands / name).write_text(text)
        (commands / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("KEPT", str(folder))
    return folder


@pytest.fixture
def orders(open_here, fake_child) -> Orders:
    return Orders(
        replace(open_here(), url=SECRET), trials=9, workers=2, child=fake_child, limits=Limits(memory=10**9)
    )  # fmt: skip


def test_the_jobs_are_what_was_asked_for_and_hold_no_password(kept, orders) -> None:
    site = choose_site("slurm", OPTIONS, alone=False, workers=2)(orders)
    posts = site.start(range(2))
    script = (kept / "script").read_text()
    for line in (
        "--array=0-1%2", "--partition=gpu", "--time=600", "--gpus-per-node=1", "--job-name=automed-demo",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load cuda\n" in script
    assert (kept / "storage").read_text() == SECRET
    assert "AUTOMED_STORAGE" not in os.environ
    written = [file for file in orders.opened.folder.rglob("*") if file.is_file()]
    assert len([file for file in written if file.suffix == ".pkl"]) == 2
    assert not [file for file in written if b"s3cret" in file.read_bytes()]
    # They wait in the queue; then the search is interrupted, and the scheduler says that they are gone.
    assert [post.poll() for post in posts] == [None, None]
    for post in posts:
        post.stop()
        post.wait()
    assert (kept / "cancelled").read_text().split() == ["7_0", "7_1"]
    assert [post.poll() for post in posts] == [0, 0]


def test_a_queue_that_refuses_is_told_in_its_own_words(kept, orders, monkeypatch) -> None:
    monkeypatch.setenv("REFUSED", "yes")
    site = choose_site("slurm", OPTIONS, alone=False, workers=2)(orders)
    with pytest.raises(StudyError, match=r"cannot be submitted: .*invalid partition specified: nowhere"):
        site.start(range(2))


@pytest.mark.parametrize(
    ("launcher", "options", "alone", "said"),
    [
        ("slurm", [], True, "database of this machine: over a network.*\n.*--storage"),
        ("slurm", ["cluster=cloud"], False, "cluster=cloud: slurm or local"),
        ("slurm", ["slurm_partitoin=gpu"], False, "no option 'slurm_partitoin'\n.*'slurm_partition'"),
        ("slurm", ["timeout_min=soon"], False, "refuses an option: .*timeout_min"),
        ("ray", ["adress=here"], False, "no option 'adress'\n.*'address'"),
        ("ray", ["address=127.0.0.1:1"], False, "no Ray cluster answers at 127"),
        ("local", ["cluster=local"], False, "are for ray and slurm"),
        ("local", ["cluster"], False, "write KEY=VALUE"),
        ("swarm", [], False, "there are local, ray, slurm"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(launcher, options, alone, said, kept) -> None:
    with pytest.raises(StudyError, match=said):
        choose_site(launcher, options, alone=alone, workers=2)


def test_slurm_has_to_be_here_and_told_how_many(kept, monkeypatch) -> None:
    with pytest.raises(StudyError, match="say with --workers"):
        choose_site("slurm", [], alone=False, workers=None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(StudyError, match="there is no Slurm on this machine"):
        choose_site("slurm", [], alone=False, workers=2)


@pytest.mark.parametrize(("launcher", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(launcher, package, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with pytest.raises(StudyError, match=rf"pip install 'automed\[{launcher}\]'"):
        choose_site(launcher, [], alone=False, workers=2)


def test_options_are_read_as_what_they_look_like() -> None:
    read = read_options(["a=1", "b=1.5", "c=true", "d=x=y", "e=", "f=1", "f=2"])
    assert read == {"a": 1, "b": 1.5, "c": True, "d": "x=y", "e": "", "f": ["1", "2"]}
