"""Workers as Ray actors: in the cluster that runs, or in one of this machine's own for the time of a launch.

An actor holds a worker process, so that torch and its environment stay apart from Ray's. The database's
address goes to it over Ray's own channel, in memory. Actors die with their driver: if the launcher is killed,
they end, and their trials are reaped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from automed.errors import Fault, StudyError
from automed.study.cluster import Errand, Station, errand, last_line, refuse_apart, refuse_unknown
from automed.study.crew import Orders, Site
from automed.study.machine import MOST_ON_CPU, cores

_OPTIONS = ("address", "num_cpus", "num_gpus")
_PATIENCE = 30.0  # seconds that an actor gets to hand its trial back
_STORE = 100_000_000  # bytes for Ray's object store, which holds nothing of ours


def find_ray(options: Mapping[str, Any], *, workers: int | None, alone: bool) -> Callable[[Orders], Site]:
    """Join the Ray cluster that runs, or start one on this machine.

    Args:
        options: `address` of the cluster; `num_cpus` and `num_gpus` of a worker.
        workers: how many, if that was said.
        alone: all workers have to run on this machine.

    Raises:
        StudyError: Ray is not installed, the cluster cannot be reached, or it has other machines.
    """
    refuse_unknown(options, _OPTIONS, "ray")
    address = _address(options)
    # Ray reads these when it is imported. Nothing is told to anybody; without a cluster to join, it listens
    # on this machine's own address only.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise StudyError("launcher ray needs the package: pip install 'automed[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        _start(ray, address, workers)
    if alone and any(not _is_here(node) for node in _nodes(ray)):
        if ours:
            ray.shutdown()
        raise refuse_apart("this Ray cluster")
    return lambda orders: RaySite(ray, orders, options, ours=ours)


def _address(options: Mapping[str, Any]) -> str | None:
    """That of the cluster to join, by name or because it runs on this machine; None where there is none."""
    named = options.get("address") or os.environ.get("RAY_ADDRESS")
    if named == "local":
        return None
    if named not in (None, "auto"):
        # Ray itself would try for ever.
        if "://" not in str(named) and not _answers(str(named)):
            raise StudyError(f"no Ray cluster answers at {named}")
        return str(named)
    # Where `ray start` leaves the address of the last one.
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    with contextlib.suppress(OSError):
        found = (folder / "ray_current_cluster").read_text().strip()
        if _answers(found):
            return found
    if named == "auto":
        raise StudyError("no Ray cluster runs on this machine")
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(
            address="local", num_cpus=max(cores(), workers or 0), include_dashboard=False,
            object_store_memory=_STORE, **quiet,
        )  # fmt: skip
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        said = str(error).strip().partition("\n")[0]
        # Ray takes its token along only when it is told to.
        hint = "" if os.environ.get("RAY_AUTH_MODE") else "if it asks for a token, set RAY_AUTH_MODE=token"
        fault = Fault(f"the Ray cluster {address} cannot be joined: {said}", hint=hint)
        raise StudyError(fault) from None


def _nodes(ray: Any) -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _is_here(node: Mapping[str, Any]) -> bool:
    return bool(node["NodeManagerHostname"] == socket.gethostname())


class RaySite:
    """The cluster. One actor a GPU; without GPUs, one a core."""

    def __init__(self, ray: Any, orders: Orders, options: Mapping[str, Any], *, ours: bool) -> None:
        self._ray, self._orders, self._ours = ray, orders, ours
        has = ray.cluster_resources()
        gpus = int(has.get("GPU", 0))
        cpus = int(has.get("CPU", 1))
        machines = len(_nodes(ray))
        share = {"num_cpus": options.get("num_cpus", 1), "num_gpus": options.get("num_gpus", int(gpus > 0))}
        on_gpus = int(gpus / share["num_gpus"]) if share["num_gpus"] else 0
        self.number = orders.workers or on_gpus or min(cpus, MOST_ON_CPU * machines)
        # One thread works, another hears of a stop.
        self._actor = ray.remote(Station).options(max_concurrency=2, **share)

    def start(self, ranks: Sequence[int]) -> list[RayPost]:
        """Start an actor for each."""
        url = self._orders.opened.url
        told = [errand(self._orders, rank, neighbours=0) for rank in ranks]
        return [RayPost(self._ray, self._actor.remote(), one, url) for one in told]

    def close(self) -> None:
        """End the cluster, if it is ours."""
        if self._ours:
            self._ray.shutdown()


class RayPost:
    """One actor. What a signal handler asks for is sent by the next look at it."""

    def __init__(self, ray: Any, actor: Any, errand: Errand, url: str) -> None:
        self._ray, self._actor = ray, actor
        self._end = actor.work.remote(errand, url)
        self._code: int | None = None
        self._said = ""
        self._asked, self._sent = 0, 0

    def poll(self) -> int | None:
        """Its exit code; None while it runs or waits for room."""
        if self._code is not None:
            return self._code
        if self._asked > self._sent:
            self._sent = self._asked
            if self._asked > 1:
                self._ray.kill(self._actor)
            else:
                self._actor.stop.remote()
        if self._ray.wait([self._end], timeout=0)[0]:
            try:
                self._code, self._said = self._ray.get(self._end)
            except self._ray.exceptions.RayError as error:
                self._code, self._said = 1, last_line(error)
            self._ray.kill(self._actor)  # makes room
        return self._code

    def stop(self) -> None:
        """Let it end after its epoch."""
        self._asked = max(self._asked, 1)

    def kill(self) -> None:
        """End the actor."""
        self._asked = 2

    def close(self) -> None:
        """Let it hand back its trial and end."""
        if self._code is None:
            self._actor.leave.remote()

    def wait(self) -> None:
        """Until it has gone; one that cannot say so within half a minute is ended."""
        until = time.monotonic() + _PATIENCE
        while self.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if self._code is None:
            self._ray.kill(self._actor)
            self._code = 1

    def words(self) -> str:
        """The last that it said."""
        return self._said
