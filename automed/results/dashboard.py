"""optuna-dashboard on a study's database, for this machine only unless told otherwise."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import typer

from automed.errors import StudyError
from automed.results.overlay import Overlay
from automed.results.status import find_study
from automed.study.embedded import served
from automed.study.open import OpenStudy, reopen_study


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Every refresh of the page would be a line."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers while a wall of maps is drawn."""

    daemon_threads = True


def serve_dashboard(
    studies: Path, name: str | None, *, storage: str | None, host: str, port: int, allow_edit: bool = False
) -> None:
    """Serve until Ctrl-C.

    Raises:
        StudyError: there is no such study, or the port is taken.
    """
    folder = find_study(studies, name)
    with (
        served(storage, folder) as url,
        contextlib.closing(reopen_study(folder, storage=url)) as opened,
        _server(opened, host, port, allow_edit) as server,
    ):
        if not _is_loopback(host):
            verb = "read and delete" if allow_edit else "read"
            typer.echo(f"Anyone who reaches {host} can {verb} this study.", err=True)
        address = f"http://{host}:{server.server_port}/dashboard/studies/{opened.study._study_id}"
        typer.echo(f"'{opened.name}' at {address} (Ctrl-C ends it)")
        server.serve_forever()


def _server(opened: OpenStudy, host: str, port: int, allow_edit: bool) -> WSGIServer:
    from optuna_dashboard import wsgi

    try:
        app = Overlay(wsgi(opened.study._storage), opened, allow_edit=allow_edit)
        return make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
    except (OSError, OverflowError) as error:
        raise StudyError(f"cannot serve on {host}:{port}: {error}; try --port 0") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False
