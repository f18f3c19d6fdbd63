"""Trials as runs of MLflow: one experiment a study, one run a trial, found again by its tags.

Of `mlflow-skinny` the client alone is used, so that nothing of a user's own active run is touched.
"""

from __future__ import annotations

import logging
import os
import urllib.parse
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from automed.errors import Fault, StudyError
from automed.loggers.told import Facts, Point, Told, what_broke
from automed.study.storage import mask

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI = "MLFLOW_TRACKING_URI"
_QUIET = {  # nothing goes to anybody unasked, or onto the screen; and nobody is waited for for minutes
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
_MOST = 500  # metrics in a request; MLflow takes 1,000
_FEW = 100  # params or tags in a request
_LONGEST = 500  # characters of a tag
_STATES = {"complete": "FINISHED", "pruned": "KILLED", "untrainable": "FAILED"}


def find_mlflow(address: str) -> MlflowClient:
    """Reach MLflow.

    Args:
        address: of its server, or of a database (`sqlite:///mlflow.db`); `$MLFLOW_TRACKING_URI` if empty.

    Raises:
        StudyError: nobody said where it is, a password stands in the command line, or it cannot be reached.
    """
    if address and _password(address):
        hint = f"put the address into ${_URI}, and write --log mlflow"
        fault = "a command line can be read by everybody on the machine, and this one holds a password"
        raise StudyError(Fault(f"--log mlflow={mask(address)}: {fault}", hint=hint))
    uri = address or os.environ.get(_URI, "")
    if not uri:
        raise StudyError(Fault("--log mlflow does not say where", hint=f"write mlflow=URI, or set ${_URI}"))
    if "://" not in uri:
        hint = "write sqlite:///mlflow.db, or http://HOST:5000"
        raise StudyError(Fault(f"--log mlflow: '{mask(uri)}' is no address", hint=hint))
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # it sets its own when it is imported
    try:
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except Exception as error:  # MLflow raises what its stores do
        raise StudyError(f"--log mlflow: {mask(uri)} cannot be used: {what_broke(error)}") from None
    return client


def _password(address: str) -> bool:
    try:
        return bool(urllib.parse.urlsplit(address).password)
    except ValueError:
        return False


class MlflowLogger:
    """One study in MLflow.

    Args:
        client: of its server or database.
        facts: of the study.
    """

    def __init__(self, client: MlflowClient, facts: Facts) -> None:
        self._client, self._facts = client, facts
        there = client.get_experiment_by_name(facts.study)
        self._experiment = client.create_experiment(facts.study) if there is None else there.experiment_id
        self._runs: dict[int, str] = {}
        self._ended: set[int] = set()
        token = None
        while token != "":
            page = client.search_runs(
                [self._experiment], f"tags.`automed.id` = '{facts.identity}'", page_token=token
            )
            for run in page:
                number = int(run.data.tags["automed.trial"])
                self._runs[number] = run.info.run_id
                if run.info.status in _STATES.values():
                    self._ended.add(number)
            token = page.token or ""

    def begin(self, trial: Told) -> set[tuple[str, int]] | None:
        """Make the trial's run, or take up the one there is."""
        from mlflow.entities import Param

        if trial.number in self._ended:
            return None
        there: set[tuple[str, int]] = set()
        run = self._runs.get(trial.number)
        if run is None:
            run = self._client.create_run(
                self._experiment, start_time=_milliseconds(trial.start), tags=dict(trial.tags),
                run_name=f"{self._facts.study} {trial.name}",
            ).info.run_id  # fmt: skip
            self._runs[trial.number] = run
        else:
            for metric in self._client.get_run(run).data.metrics:
                there |= {(metric, one.step) for one in self._client.get_metric_history(run, metric)}
        params = [Param(name, str(value)) for name, value in trial.params.items()]
        for first in range(0, len(params), _FEW):  # again if killed in between: equal ones are taken twice
            self._client.log_batch(run, params=params[first : first + _FEW])
        return there

    def add(self, trial: Told, points: Sequence[Point]) -> None:
        """Write points that are not there yet."""
        from mlflow.entities import Metric

        now = _milliseconds(trial.finish)
        metrics = [Metric(point.metric, point.value, now, point.step) for point in points]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._runs[trial.number], metrics=metrics[first : first + _MOST])

    def end(self, trial: Told) -> None:
        """Write how it ended: `pruned` is KILLED, one that could not be trained FAILED."""
        from mlflow.entities import RunTag

        run = self._runs[trial.number]
        self._client.log_batch(run, tags=[RunTag(key, value[:_LONGEST]) for key, value in trial.tags.items()])
        self._client.set_terminated(run, _STATES[trial.end], _milliseconds(trial.finish))

    def close(self) -> None:
        """Nothing is held."""


def _milliseconds(when: datetime) -> int:
    return round(when.timestamp() * 1000)
