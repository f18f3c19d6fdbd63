"""Whom the dashboard answers, and that a wall that is drawn keeps nobody else waiting."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from automed.results.artifacts import Artifact, Artifacts
from automed.results.overlay import OnlyHosts


def asked(host: str | None) -> str:
    heard: list[str] = []

    def inner(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b""]

    environ = {} if host is None else {"HTTP_HOST": host}
    list(
        OnlyHosts(inner, ("localhost", "127.0.0.1", "[::1]"))(environ, lambda status, _: heard.append(status))
    )
    return heard[0]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]", "[::1]:8080"])
def test_names_of_this_machine_are_answered(host: str) -> None:
    assert asked(host) == "200 OK"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.nip.io", "", None]
)
def test_a_name_that_was_rebound_is_refused(host: str | None) -> None:
    assert asked(host) == "403 Forbidden"


def test_a_wall_keeps_no_other_picture_waiting_and_is_drawn_once() -> None:
    begun, go, drawn = threading.Event(), threading.Event(), []

    def wall() -> bytes:
        drawn.append(1)
        begun.set()
        assert go.wait(60)
        return b"wall"

    study: Any = SimpleNamespace(folder=None, experiment=SimpleNamespace(study=SimpleNamespace(metric="")))
    artifacts = Artifacts(study)
    artifacts._known = {
        "w": Artifact("w", "wall.jpg", "image/jpeg", wall),
        "s": Artifact("s", "loss.svg", "image/svg+xml", lambda: b"svg"),
    }
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(artifacts.read("w"))) for _ in range(2)]
    for one in threads:
        one.start()
    try:
        assert begun.wait(60)
        beside: list[Any] = []
        other = threading.Thread(target=lambda: beside.append(artifacts.read("s")), daemon=True)
        other.start()
        other.join(60)
        assert beside == [("image/svg+xml", b"svg")]
    finally:
        go.set()
        for one in threads:
            one.join(60)
    assert found == [("image/jpeg", b"wall")] * 2
    assert drawn == [1]
