"""What you call from Python: the verbs of the command line, as functions.

    import automed

    found = automed.search(space="brain.yaml", data="brain-tumor-mri", trials=200)
    model = automed.load(automed.fit(found.study).folder)
    probability = model.predict_proba("new-images")

Each does what its command does, through the same code, and returns what the command shows. They are quiet
unless told otherwise (`quiet=False`). What is wrong is raised: `automed.errors` draws the tree, and a
`UserError` holds all faults at once, in `faults`. `studies` and `storage` are taken from `$AUTOMED_STUDIES`
and `$AUTOMED_STORAGE` where they are not told, as by the command line. Nothing heavy is imported before it is
needed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from automed.errors import Interrupted, UserError
from automed.given import Place, console, one_of, path, refuse_outside, storage_address, studies_folder, texts

if TYPE_CHECKING:
    from automed.auditing.finding import Audit
    from automed.model.card import Score
    from automed.results.calibrate import Calibration
    from automed.results.certify import Certificate
    from automed.results.report import Format
    from automed.results.verdict import Verdict
    from automed.settings import Scalar
    from automed.study.experiment import Experiment
    from automed.study.limits import Limits
    from automed.study.record import TrialRecord

_MOST = 2**32 - 1  # seeds
_ONE_ON = (1, None)


@dataclass(frozen=True)
class SearchResult:
    """What a search came to.

    `folder` is the study's. `trial` is the number of the winner, `settings` its configuration by dotted name,
    and `fold_scores` its metric in each fold. `cross_validated` is their mean, by which it was chosen;
    `corrected` what is left of it without the luck of the choice, with a 95 % interval; `held_out` the scores
    of the refit on pictures that were held out, all and those that are new, with intervals. `winner` is the
    folder with the refit (`model.safetensors`) and `verdict.json`; `automed.fit` makes a model of it.
    """

    study: str
    folder: Path
    trial: int
    metric: str
    settings: dict[str, Scalar]
    fold_scores: tuple[float, ...]
    cross_validated: Score
    corrected: Score | None
    held_out: tuple[Score, ...]
    winner: Path


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is: `done` of its `total` trials. `result` is None before the winner was judged.

    Where hours end a study, or `auto`, it will hardly come to its `total`.
    """

    study: str
    folder: Path
    total: int
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    result: SearchResult | None

    @property
    def done(self) -> int:
        """Trials that count towards the total: complete or pruned."""
        return sum(one.ended for one in self.trials)


def search(
    space: Place = "phantom", data: Place | None = None, *,
    trials: int | Literal["auto"] | None = None, hours: float | None = None, workers: int | None = None,
    name: str | None = None, seed: int | None = None, fork: str | None = None,
    memory: int | str | None = None, trial_timeout: float = 60, storage_patience: float = 10,
    launcher: Literal["local", "ray", "slurm"] = "local", launcher_options: str | Sequence[str] = (),
    log: str | Sequence[str] = (), learn_from: str | Sequence[str] = (), storage: str | None = None,
    studies: Place | None = None, quiet: bool = True,
) -> SearchResult:  # fmt: skip
    """Search until the study has its trials, then judge the winner; call it again to go on.

    Workers are processes of their own that do not run your script again: it needs no `__main__` guard.
    Ctrl-C lets every worker finish its epoch and hand its trial back (a second one ends them at once), and is
    then raised; nothing is lost.

    Args:
        space: a space file, or the name of a shipped one.
        data: a folder of images, a CSV or an npz file; where left out, the space file says.
        trials: finished trials in the study, in total; `auto`: until there is no more to gain than noise.
        hours: how long it is searched, in total; without it and `trials` the space file says.
        workers: processes that train: by default one a GPU, or one a core up to eight.
        name: the study's name, instead of the file's.
        seed: the study's seed, instead of the file's.
        fork: begin a new study of this name with the best of the old one.
        memory: what one training process may hold: bytes, or text such as `4GB`.
        trial_timeout: minutes without an epoch after which a trial hangs.
        storage_patience: minutes that a worker waits for a database that is away.
        launcher: where the workers run.
        launcher_options: for the cluster, `KEY=VALUE`, one or several.
        log: `mlflow`, `mlflow=URI`, `tensorboard`, `tensorboard=FOLDER`; one that fails is given up.
        learn_from: try the best of these studies first: a name, a folder or `URL#NAME`, one or several.
        storage: the address of a database; by default `studies/NAME/study.db`.
        studies: the folder that holds the studies.
        quiet: show nothing.

    Raises:
        UserError: an argument, the file, the images or the study have to change; nothing was run.
        KeyboardInterrupt: Ctrl-C; the study stands, and the same call goes on with it.
        AutomedError: the search could not go on, or no trial ran to its end.
    """
    refuse_outside(
        trials=(_counted(trials), 1, 1_000_000), hours=(hours, 1e-9, 10_000),
        workers=(workers, *_ONE_ON), seed=(seed, 0, _MOST),
    )  # fmt: skip
    from automed.searching import Wish, run_search

    root, limits = studies_folder(studies), _limits(memory, trial_timeout, storage_patience)
    wish = Wish(
        space=str(space), data=path(data), trials=trials, hours=hours, workers=workers, name=name,
        seed=seed, fork=fork, storage=storage_address(storage), studies=root, limits=limits,
        launcher=launcher, options=texts(launcher_options), log=texts(log), learn_from=texts(learn_from),
    )  # fmt: skip
    complaints: list[str] = []  # warned of at the end: a warning may be an error, and must not stop a search
    try:
        verdict = run_search(wish, console(quiet=quiet), warn=complaints.append if quiet else None)
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None
    for complaint in complaints:
        warnings.warn(complaint, RuntimeWarning, stacklevel=2)
    return _result((root / verdict.study).absolute(), verdict)


def _counted(trials: int | str | None) -> int | None:
    """The number of trials that was asked for, if it was a number."""
    if isinstance(trials, str):
        one_of("trials", trials, ("auto",))
        return None
    return trials


def status(
    study: str | None = None, *, storage: str | None = None, studies: Place | None = None
) -> StudyStatus:
    """How far a study is and what it has found, at any time.

    Args:
        study: its name; may be left out where there is only one.
        storage: the address of its database, where it is not in the study's folder.
        studies: the folder that holds the studies.

    Raises:
        StudyError: there is no such study.
    """
    from automed.results.judge import standing_verdict
    from automed.results.status import find_study
    from automed.study import record
    from automed.study.budget import Budget
    from automed.study.embedded import served
    from automed.study.open import reopen_study
    from automed.study.winner import winner_of

    folder = find_study(studies_folder(studies), study)
    with (
        served(storage_address(storage), folder) as url,
        contextlib.closing(reopen_study(folder, storage=url)) as opened,
    ):
        trials = tuple(record.records(opened.study))
        best = winner_of(opened, trials)
    verdict = standing_verdict(opened.folder, best)
    result = None if verdict is None else _result(opened.folder, verdict)
    total = Budget.of(opened.experiment.study).trials
    return StudyStatus(opened.name, opened.folder, total, trials, best, result)


def check(space: Place) -> Experiment:
    """Read a space file; what comes back holds its sections and its knobs.

    Raises:
        SpaceError: with every fault in it, line and column.
    """
    from automed.study.experiment import find_space, read_experiment
    from automed.study.rung import side_of

    experiment = read_experiment(find_space(str(space)))
    side_of(experiment)
    return experiment


def audit(
    data: Place, *, space: Place | None = None, json: Place | None = None, html: Place | None = None,
    cost_of_leaks: bool = False, quiet: bool = True,
) -> Audit:  # fmt: skip
    """Look for copies, leaks, shift and shortcuts in a data set.

    Args:
        data: a folder of images, a CSV or an npz file.
        space: a space file: its data section says who is whose, and what is held out.
        json: where to write all of it.
        html: where to write a page that shows the pictures.
        cost_of_leaks: train as well, to tell what the leaks are worth.
        quiet: show nothing.

    Raises:
        UserError: the data cannot be used, or a file cannot be written there.
        AutomedError: it could not be trained.
    """
    from automed.auditing.command import run_audit

    experiment = None if space is None else check(space)
    price = None
    if cost_of_leaks:
        from automed.results.leaks import Plan, price_of

        price = price_of(Plan.of(experiment))
    return run_audit(
        Path(data), None if experiment is None else experiment.data, json=path(json), html=path(html),
        price=price, console=console(quiet=quiet),
    )  # fmt: skip


def phantom(out: Place, *, patients: int = 128, seed: int = 0) -> Path:
    """Draw a synthetic brain-MRI set into a new folder: four classes, several slices a patient.

    Raises:
        UserError: something stands there, or there are fewer than 8 patients.
    """
    refuse_outside(patients=(patients, 8, None), seed=(seed, 0, None))
    from automed.data.phantom import draw_phantom

    return draw_phantom(Path(out), patients=patients, seed=seed)


def report(
    study: str | None = None, *, out: Place | None = None, format: Literal["html", "md"] = "html",  # noqa: A002
    storage: str | None = None, studies: Place | None = None,
) -> Path:  # fmt: skip
    """Write what came of a search as one file, and return its path: by default `report.html` in its folder.

    Raises:
        StudyError: there is no such study, or its files cannot be read.
        OSError: the file cannot be written.
    """
    form: Format = one_of("format", format, ("html", "md"))
    from automed.results.report import write_report

    return write_report(studies_folder(studies), study, path(out), form, storage=storage_address(storage))


def calibrate(
    study: str | None = None, *, coverage: float = 0.9, of: str | None = None,
    sensitivity: float | None = None, storage: str | None = None, studies: Place | None = None,
) -> Calibration:  # fmt: skip
    """Tell how far the winner's probabilities may be trusted, and which labels to look at; trains nothing.

    Args:
        study: its name; may be left out where there is only one.
        coverage: how often a prediction set holds the true class, 0.5 to 0.99.
        of: the class that must not be missed.
        sensitivity: the share of that class that is to be found, 0.5 to 0.99; 0.95 if left out.
        storage: the address of its database, where it is not in the study's folder.
        studies: the folder that holds the studies.

    Raises:
        UserError: there is no such study, no winner yet, or no class of that name.
        AutomedError: predictions are not on this machine, or damaged.
    """
    refuse_outside(coverage=(coverage, 0.5, 0.99), sensitivity=(sensitivity, 0.5, 0.99))
    from automed.results.calibrate import Wish
    from automed.results.calibrate import calibrate as assess

    wish = Wish(coverage, sensitivity, of)
    return assess(studies_folder(studies), study, wish, storage=storage_address(storage))[0]


def certify(
    study: str | None = None, *, deals: int = 1, shuffles: int = 1, curve: bool = True,
    storage: str | None = None, studies: Place | None = None, quiet: bool = True,
) -> Certificate:  # fmt: skip
    """Train the winner again on fresh folds, shuffled labels and fewer patients; see `leak` of the result.

    Args:
        study: its name; may be left out where there is only one.
        deals: trainings on fresh folds.
        shuffles: trainings on shuffled labels.
        curve: train on fewer patients too.
        storage: the address of its database, where it is not in the study's folder.
        studies: the folder that holds the studies.
        quiet: show nothing.

    Raises:
        UserError: there is no such study, or no trial of it ran to its end.
        AutomedError: something could not be trained.
    """
    refuse_outside(deals=(deals, *_ONE_ON), shuffles=(shuffles, 0, None))
    from automed.results.certificate import run_certify
    from automed.results.certify import Wanted

    return run_certify(
        studies_folder(studies), study, Wanted(deals, shuffles, curve), storage=storage_address(storage),
        console=console(quiet=quiet),
    )  # fmt: skip


def _result(folder: Path, verdict: Verdict) -> SearchResult:
    from automed.results.fit import chosen_scores, verdict_scores

    chosen = chosen_scores(verdict)
    return SearchResult(
        study=verdict.study, folder=folder, trial=verdict.trial, metric=verdict.metric,
        settings=dict(verdict.config), fold_scores=tuple(verdict.fold_scores), cross_validated=chosen[0],
        corrected=chosen[1] if len(chosen) > 1 else None, held_out=tuple(verdict_scores(verdict)),
        winner=folder / "winner",
    )  # fmt: skip


def _limits(memory: int | str | None, trial_timeout: float, storage_patience: float) -> Limits:
    from automed.sizes import read_size
    from automed.study.limits import Limits

    refuse_outside(trial_timeout=(trial_timeout, 0.1, None), storage_patience=(storage_patience, 0.0, None))
    try:
        room = read_size(memory) if isinstance(memory, str) else memory or 0
    except ValueError as error:
        raise UserError(f"memory: {error}") from None
    refuse_outside(memory=(room, 0, None))
    return Limits(memory=room, trial_timeout=60 * trial_timeout, storage_patience=60 * storage_patience)
