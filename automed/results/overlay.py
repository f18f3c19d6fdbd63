"""What optuna-dashboard is told beside what stands in the database, and that nobody may write.

Nothing of it is kept: notes, plots and pictures are put into the answers as they leave, so that a study that
is looked at stays as it is, and a search that goes on is not slowed down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from automed.errors import AutomedError
from automed.page.figure import Figure, Line, Mark, Whiskers
from automed.page.markdown import grid
from automed.results import figures
from automed.results.artifacts import Artifacts
from automed.results.bounds import bound_lines
from automed.results.judge import standing_verdict
from automed.results.mattered import contrasts, sentence
from automed.results.one_trial import cost_line, score_lines, state
from automed.results.outcome import outcomes_of
from automed.results.show import told, verdict_lines
from automed.results.signs import Signs
from automed.results.status import headline
from automed.study import record
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord
from automed.study.winner import winner_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_READS = ("GET", "HEAD", "OPTIONS")
_PICTURE = re.compile(r"/artifacts/(\d+)/(?:\d+/)?([0-9a-f]{32})")
_PORT = re.compile(r":\d*$")
_ALONE = [
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ("X-Content-Type-Options", "nosniff"),
]
"""What a picture that is opened by itself may do: nothing."""


class OnlyHosts:
    """An application that answers only to some names of this machine.

    A page of another site may have its own name lead to 127.0.0.1 once it is open (DNS rebinding), and would
    then be let read what is served there: but it cannot choose another name for the header Host.

    Args:
        inner: the application.
        hosts: the names, lower case, without a port; an IPv6 address in brackets.
    """

    def __init__(self, inner: WSGIApplication, hosts: Iterable[str]) -> None:
        self._inner, self._hosts = inner, frozenset(hosts)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request, or refuse it."""
        if _PORT.sub("", environ.get("HTTP_HOST", "")).lower() in self._hosts:
            return self._inner(environ, start)
        return _send(start, "403 Forbidden", {"reason": "unknown host: open it as localhost or 127.0.0.1"})


class Overlay:
    """The dashboard's application with ours around it.

    Args:
        inner: the dashboard's.
        opened: the study that is told more of.
        allow_edit: whether requests that write are let through.
    """

    def __init__(self, inner: WSGIApplication, opened: OpenStudy, *, allow_edit: bool) -> None:
        self._inner, self._opened, self._allow_edit = inner, opened, allow_edit
        self._id = opened.study._study_id
        self._path = f"/api/studies/{self._id}"
        self._artifacts = Artifacts(opened)
        self._told: tuple[object, str, list[Figure]] = (None, "", [])

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if environ["REQUEST_METHOD"] not in _READS and not self._allow_edit:
            return _send(start, "403 Forbidden", {"reason": "read-only: start it with --allow-edit"})
        path = environ["PATH_INFO"].rstrip("/")
        asked = _PICTURE.fullmatch(path)
        if environ["REQUEST_METHOD"] == "GET" and asked and int(asked[1]) == self._id:
            picture = self._artifacts.read(asked[2])
            if picture is not None:
                return _give(start, "200 OK", *picture, _ALONE)
        if environ["REQUEST_METHOD"] != "GET" or path not in (self._path, "/api/meta"):
            return self._inner(environ, start)
        status, body = _answer(self._inner, environ)
        told = json.loads(body)
        if path == "/api/meta":
            told["artifact_is_available"] = True
        elif status.startswith("200"):
            self._add(told)
        return _send(start, status, told)

    def _add(self, told: dict[str, Any]) -> None:
        """Notes where nobody wrote one, our plots, and pictures."""
        trials = self._opened.study.get_trials(deepcopy=False)
        records = record.records_of(trials)
        metric, best = self._opened.experiment.study.metric, winner_of(self._opened, records)
        numbers = _numbers(trials)
        self._artifacts.look(best)
        for one in told["trials"]:
            if one["number"] not in numbers:
                continue
            trial = records[numbers[one["number"]]]
            if not one["note"]["body"]:
                one["note"]["body"] = trial_note(trial, metric)
            one["artifacts"] += self._artifacts.of_trial(trial)
        told["artifacts"] += self._artifacts.of_study(best)
        now = sum(one.ended for one in records), best
        if now != self._told[0]:
            self._told = now, study_note(self._opened, records, best), _plots(records, metric)
        if not told["note"]["body"]:
            told["note"]["body"] = self._told[1]
        told["objective_names"] = told.get("objective_names") or [metric]
        told["plotly_graph_objects"] += [
            {"id": f"automed-{number}", "graph_object": json.dumps(plotly(figure))}
            for number, figure in enumerate(self._told[2])
        ]


def _plots(records: Sequence[TrialRecord], metric: str) -> list[Figure]:
    cost = figures.cost(records)
    return figures.course(records, metric, outcomes_of(records)) + ([] if cost is None else [cost])


def _numbers(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Optuna's number of every attempt -> the number of the trial that it is one at."""
    first = sorted({record.origin(one) for one in trials})
    return {one.number: first.index(record.origin(one)) for one in trials}


def trial_note(trial: TrialRecord, metric: str) -> str:
    """One trial as markdown."""
    title = f"**Trial {trial.number}: {state(trial)}**, {trial.config.get('model.name', '')}"
    lines = [title, "", *(f"- {line}" for line in [*score_lines(trial, metric), cost_line(trial)]), ""]
    return "\n".join([*lines, *grid(("setting", "value"), [list(pair) for pair in told(trial.config)])])


def study_note(opened: OpenStudy, trials: Sequence[TrialRecord], best: TrialRecord | None) -> str:
    """The study as markdown: how far it is, what the winner scores, what mattered, what stands out."""
    lines = [f"**{headline(opened.name, trials)}**", ""]
    lines += [f"- {line}" for line in bound_lines(opened.experiment.objective, trials, best)]
    verdict = standing_verdict(opened.folder, best)
    if verdict is not None:
        lines += [*(f"- {line}" for line in verdict_lines(verdict)), ""]
    try:
        signs = Signs(opened, trials).lines(best)
    except AutomedError:
        signs = []
    found = [sentence(one) for one in contrasts(trials, opened.experiment.space) if one.stands]
    for title, some in (("What mattered", found), ("What stands out", signs)):
        if some:
            lines += [f"### {title}", "", *(f"- {line}" for line in some), ""]
    return "\n".join(lines)


def plotly(figure: Figure) -> dict[str, Any]:
    """A plot as plotly has it."""
    axes = {
        name: {"title": {"text": axis.label}, "range": [axis.low, axis.high]}
        for name, axis in (("xaxis", figure.x), ("yaxis", figure.y))
    }
    return {
        "data": [_trace(mark) for mark in figure.marks],
        "layout": {"title": {"text": figure.title}, **axes, "legend": {"orientation": "h", "y": -0.25}},
    }


def _trace(mark: Mark) -> dict[str, Any]:
    if isinstance(mark, Whiskers):
        middle = [(low + high) / 2 for _, low, high in mark.spans]
        half = [(high - low) / 2 for _, low, high in mark.spans]
        return {"type": "scatter", "mode": "markers", "name": mark.name, "x": [x for x, _, _ in mark.spans],
                "y": middle, "error_y": {"type": "data", "array": half}}  # fmt: skip
    trace: dict[str, Any] = {
        "type": "scatter", "name": mark.name, "x": [x for x, _ in mark.points],
        "y": [y for _, y in mark.points],
    }  # fmt: skip
    if isinstance(mark, Line):
        return {**trace, "mode": "lines", "line": {"dash": "dash" if mark.dashed else "solid"}}
    symbol = {"dot": "circle", "ring": "circle-open", "cross": "x"}[mark.shape]
    return {**trace, "mode": "markers", "marker": {"symbol": symbol}, "text": list(mark.titles)}


def _answer(app: WSGIApplication, environ: WSGIEnvironment) -> tuple[str, bytes]:
    """The status and the whole body of an answer."""
    heard: list[str] = []

    def start(status: str, *_: Any) -> Callable[[bytes], object]:
        heard.append(status)
        return lambda _: None

    parts = app(environ, start)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return heard[-1], body


def _send(start: StartResponse, status: str, told: dict[str, Any]) -> list[bytes]:
    return _give(start, status, "application/json", json.dumps(told).encode())


def _give(
    start: StartResponse, status: str, kind: str, body: bytes, more: Sequence[tuple[str, str]] = ()
) -> list[bytes]:  # fmt: skip
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
    return [body]
