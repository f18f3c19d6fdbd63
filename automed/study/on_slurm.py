"""Workers as Slurm jobs, by submitit: an array; or processes of this machine (`cluster=local`).

The jobs go on when the launcher is killed, and end by themselves at the total. The database's address reaches
them in the environment alone: it stands neither in the batch script nor in what submitit writes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from automed.errors import AutomedError, StudyError
from automed.study.cluster import STORAGE, Errand, Station, errand, last_line, refuse_apart, refuse_unknown
from automed.study.crew import Orders, Site
from automed.study.machine import room
from automed.study.storage import mask

_DAY = 24 * 60  # minutes, where the user does not say
_PATIENCE = 60.0  # seconds that cancelled jobs get to hand their trials back
_ASK_AGAIN = 5.0  # seconds between two questions to a busy scheduler
_LISTS = ("slurm_setup", "slurm_teardown", "slurm_srun_args", "local_setup")


def find_slurm(options: Mapping[str, Any], *, workers: int | None, alone: bool) -> Callable[[Orders], Site]:
    """Find Slurm, and try the options.

    Args:
        options: submitit's own (`timeout_min`, `slurm_partition`); `cluster=local` for processes of this
            machine.
        workers: how many jobs; has to be said.
        alone: all workers have to run on this machine.

    Raises:
        StudyError: submitit or Slurm is not here, or an option is wrong.
    """
    try:
        import submitit
    except ImportError:
        raise StudyError("launcher slurm needs a package: pip install 'automed[slurm]'") from None
    logging.getLogger("submitit").setLevel(logging.ERROR)
    told = {key: [str(value)] if key in _LISTS and not isinstance(value, list) else value
            for key, value in options.items()}  # fmt: skip
    cluster = told.pop("cluster", "slurm")
    if cluster not in ("slurm", "local"):
        raise StudyError(f"launcher option cluster={cluster}: slurm or local")
    if cluster == "slurm" and alone:
        raise refuse_apart("Slurm")
    if cluster == "slurm" and workers is None:
        raise StudyError("say with --workers how many jobs Slurm is to run")
    parameters = {"timeout_min": _DAY, "stderr_to_stdout": True, **told}
    with tempfile.TemporaryDirectory() as folder:
        _executor(submitit, Path(folder), cluster, parameters)
    return lambda orders: SlurmSite(submitit, orders, cluster, parameters)


def _executor(submitit: Any, folder: Path, cluster: str, parameters: Mapping[str, Any]) -> Any:
    general = submitit.AutoExecutor._typed_parameters()
    special = [f"slurm_{name}" for name in submitit.SlurmExecutor._valid_parameters()]
    refuse_unknown(parameters, [*general, *sorted(special), "cluster"], "submitit")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except RuntimeError:
        raise StudyError("there is no Slurm on this machine: srun is not on the path") from None
    except (AssertionError, NameError, TypeError, ValueError) as error:
        raise StudyError(f"submitit refuses an option: {_first_line(error)}") from None
    return executor


class SlurmSite:
    """The jobs of one launch."""

    def __init__(self, submitit: Any, orders: Orders, cluster: str, parameters: Mapping[str, Any]) -> None:
        self.number = orders.workers or room()
        self._orders = orders
        # A job of Slurm's has its cores to itself.
        self._neighbours = self.number if cluster == "local" else 1
        folder = orders.opened.folder / "slurm"
        folder.mkdir(exist_ok=True)
        named = {"name": f"automed-{orders.opened.name}", **parameters}
        self._executor = _executor(submitit, folder, cluster, named)

    def start(self, ranks: Sequence[int]) -> list[SlurmPost]:
        """Submit a job for each, as one array."""
        work = [SlurmWork(errand(self._orders, rank, neighbours=self._neighbours)) for rank in ranks]
        try:
            with _in_environment(STORAGE, self._orders.opened.url):
                jobs = self._executor.submit_array(work)
        except Exception as error:  # a partition that is not there, a full queue: whatever sbatch may say
            raise StudyError(f"the jobs cannot be submitted: {_first_line(error)}") from None
        return [SlurmPost(job) for job in jobs]

    def close(self) -> None:
        """Nothing is shared."""


@contextlib.contextmanager
def _in_environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class SlurmWork:
    """What a job calls; submitit writes it to a file, so there is no secret in it."""

    def __init__(self, errand: Errand) -> None:
        self._errand = errand
        self._station: Station | None = None

    def __call__(self) -> tuple[int, str]:
        """Run the worker: its exit code, and the last it said."""
        storage = os.environ.get(STORAGE)
        if not storage:
            raise AutomedError(f"the job has no {STORAGE}; sbatch has to hand on the environment")
        station = self._station = Station()
        # scancel; and what submitit's local executor makes of it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: station.leave())
        try:
            return station.work(self._errand, storage)
        finally:
            station.leave()

    def checkpoint(self) -> Any:
        """At the time limit: hand back the trial, and stand in the queue again."""
        from submitit.helpers import DelayedSubmission

        if self._station is not None:
            self._station.leave()
        return DelayedSubmission(SlurmWork(self._errand))


class SlurmPost:
    """One job. What a signal handler asks for is sent by the next look at it."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._code: int | None = None
        self._said = ""
        self._asked, self._patience = False, _PATIENCE
        self._cancelled = self._asked_again = 0.0

    def poll(self) -> int | None:
        """Its exit code; None while it runs or waits in the queue."""
        now = time.monotonic()
        if self._code is None and self._asked and not self._cancelled:
            self._cancelled = now
            self._job.cancel(check=False)
        if self._code is None and self._job.done(force_check=self._ask_scheduler(now)):
            self._code, self._said = (0, "") if self._cancelled else self._result()
        if self._code is None and self._cancelled and now - self._cancelled > self._patience:
            self._code = 1  # the scheduler does not tell; the trial is reaped by whoever looks next
        return self._code

    def _ask_scheduler(self, now: float) -> bool:
        """A cancelled job that never began leaves no result: only the scheduler knows of its end."""
        if not self._cancelled or now - self._asked_again < _ASK_AGAIN:
            return False
        self._asked_again = now
        return True

    def _result(self) -> tuple[int, str]:
        try:
            code, said = self._job.result()
        except Exception as error:  # whatever a job may die of
            return 1, f"{last_line(error)} (see {self._job.paths.stdout})"
        return code, said

    def stop(self) -> None:
        """Cancel it: it hands back its trial, its last checkpoint kept."""
        self._asked = True

    def kill(self) -> None:
        """Do not wait for it."""
        self._asked, self._patience = True, 0.0

    def close(self) -> None:
        """Cancel it."""
        self._asked = True

    def wait(self) -> None:
        """Until it has gone, or a minute after it was cancelled."""
        while self.poll() is None:
            time.sleep(0.1)

    def words(self) -> str:
        """The last that it said."""
        return self._said


def _first_line(error: BaseException) -> str:
    return mask(str(error).strip().partition("\n")[0]) or type(error).__name__
