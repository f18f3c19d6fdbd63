"""What MLflow and TensorBoard have of trials, read back with their own readers."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY, MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from automed.errors import StudyError
from automed.loggers.choose import find_loggers
from automed.loggers.journal import Journal
from automed.loggers.told import Facts
from automed.study.record import Result, TrialRecord

# MLflow's models use what SQLAlchemy 2.1 means to drop.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

CONFIG = {"model.name": "small_cnn", "optim.lr": 1e-3, "freeze.depth": 0.0, "augment.policy": None}
FIRST = TrialRecord(
    number=0, state="running", params={"optim.lr": 1e-3}, config=CONFIG, score=None, fold_scores=(),
    curve=(), epochs=2, folds=2, result=Result(), lease=None, source="start_from 1", same_as=None,
    attempts=1, start=datetime(2026, 1, 2, 3, 4, 5), finish=None,
)  # fmt: skip
CURVE = ((0, 0, 0.25), (0, 1, 0.5), (1, 0, 0.125), (1, 1, math.nan))
LATER = [
    replace(FIRST, curve=CURVE[:1]),
    replace(FIRST, curve=CURVE[:3], fold_scores=(0.5,)),
    replace(
        FIRST, state="complete", curve=CURVE, fold_scores=(0.5, 0.75), score=0.625,
        result=Result(scores={"macro_f1": 0.625, "auroc": 0.875}, seconds=12.0, peak_memory=1000),
        finish=datetime(2026, 1, 2, 3, 5, 0),
    ),
]  # fmt: skip
_WHOLE = {
    "fold_0/macro_f1": [0.25, 0.5], "fold_1/macro_f1": [0.125, math.nan], "fold_score": [0.5, 0.75],
    "fold_0/train_loss": [1.5, 1.25], "fold_0/val_loss": [2.5, 2.25], "fold_0/lr": [0.5, 0.25],
    "score": [0.625], "macro_f1": [0.625], "auroc": [0.875], "seconds": [12.0], "peak_memory": [1000.0],
}  # fmt: skip

WHOLE = {(metric, step): value for metric, values in _WHOLE.items() for step, value in enumerate(values)}
Found = dict[tuple[str, int], float]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    find_loggers([f"mlflow=sqlite:///{file}"])
    return file


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    trial = tmp_path / "study" / "trials" / "00000"
    trial.mkdir(parents=True)
    rows = [
        "fold,epoch,train_loss,val_loss,score,lr,seconds",
        "0,0,1.5,2.5,0.25,0.5,1",
        "0,1,1.25,2.25,0.5,0.25,1",
    ]
    (trial / "curve.csv").write_text("\n".join(rows) + "\n")
    return Facts(study="small", identity="12345678", metric="macro_f1", folder=tmp_path / "study", data="abc")


Tell = Callable[..., list[str]]


@pytest.fixture
def tell(database: str, facts: Facts, tmp_path: Path) -> Tell:
    """Tells both of a search that is seen so often, each time by a journal of its own unless `at_once`."""

    def run(*seen: Sequence[TrialRecord], wished: Sequence[str] = (), at_once: bool = False) -> list[str]:
        said: list[str] = []
        wished = wished or (f"mlflow={database}", f"tensorboard={tmp_path / 'runs'}")
        journal = Journal(find_loggers(wished), facts, said.append)
        for trials in seen:
            journal.see(trials)
            if not at_once:
                journal.close()
                journal = Journal(find_loggers(wished), facts, said.append)
        journal.close()
        return said

    return run


def runs(database: str, study: str = "small") -> list[Run]:
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)


def in_mlflow(database: str, run: Run) -> Found:
    """The value of each metric at each step, and there must be one a step."""
    client = MlflowClient(database)
    there = [one for name in run.data.metrics for one in client.get_metric_history(run.info.run_id, name)]
    found = {(one.key, one.step): one.value for one in there}
    assert len(found) == len(there)
    return found


def in_tensorboard(folder: Path) -> Found:
    """Likewise."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    there = [(tag, one) for tag in reader.Tags()["scalars"] for one in reader.Scalars(tag)]
    found = {(tag, one.step): one.value for tag, one in there}
    assert len(found) == len(there)
    return found


@pytest.mark.parametrize("at_once", [True, False], ids=["one search", "a search a look"])
def test_each_number_is_told_once_by_whoever_looks(
    tell: Tell, database: str, tmp_path: Path, at_once: bool
) -> None:
    assert tell([FIRST], *([one] for one in LATER), LATER[-1:], at_once=at_once) == []
    (run,) = runs(database)
    assert in_mlflow(database, run) == pytest.approx(WHOLE, nan_ok=True)
    assert in_tensorboard(tmp_path / "runs/small-12345678/00000") == pytest.approx(WHOLE, nan_ok=True)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small 00000"
    assert run.info.start_time == 1767323045000  # 2026-01-02 03:04:05 UTC
    assert run.info.end_time - run.info.start_time == 55_000
    assert run.data.params == {name: str(value) for name, value in CONFIG.items()}
    tags = {key: value for key, value in run.data.tags.items() if key.startswith("automed.")}
    assert len(tags.pop("automed.config")) == 16
    tags.pop("automed.version")
    assert tags == {
        "automed.study": "small", "automed.id": "12345678", "automed.trial": "0", "automed.state": "complete",
        "automed.data": "abc", "automed.source": "start_from 1",
    }  # fmt: skip


def test_tensorboard_shows_settings_and_what_a_trial_was(tell: Tell, tmp_path: Path) -> None:
    tell([LATER[-1]])
    reader = EventAccumulator(str(tmp_path / "runs/small-12345678/00000"))
    reader.Reload()
    (text,) = reader.Tensors("trial")
    assert b"automed.state: complete" in text.tensor_proto.string_val[0]
    content = reader.PluginTagToContent("hparams")
    assert set(content) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}


def test_pruned_and_untrainable_trials_are_told_apart(tell: Tell, database: str) -> None:
    ended = replace(LATER[1], state="pruned", finish=datetime(2026, 1, 2, 4))
    tell(
        [
            replace(ended, result=Result(scores={"macro_f1": 0.5}, reason="behind the best trial")),
            replace(ended, number=1, result=Result(fault="memory", reason="one image does not fit")),
            replace(FIRST, number=2, config={}, params={}),
        ]
    )
    pruned, broken = runs(database)
    assert (pruned.info.status, broken.info.status) == ("KILLED", "FAILED")
    assert pruned.data.tags["automed.reason"] == "behind the best trial"
    assert broken.data.tags["automed.state"] == "untrainable"
    assert "score" not in pruned.data.metrics
    assert "macro_f1" not in pruned.data.metrics, "of some folds only, it would stand beside that of all"
    assert pruned.data.metrics["fold_score"] == 0.5


def test_more_settings_and_numbers_than_a_request_may_hold(tell: Tell, database: str) -> None:
    config = {f"knob.{number}": number for number in range(230)}
    curve = tuple((0, epoch, epoch / 2000) for epoch in range(1200))
    assert tell([replace(FIRST, config=config, curve=curve)]) == []
    (run,) = runs(database)
    assert len(run.data.params) == 230
    assert in_mlflow(database, run) == {("fold_0/macro_f1", epoch): score for _, epoch, score in curve}


def test_two_studies_of_one_name_do_not_mix(tell: Tell, database: str, facts: Facts, tmp_path: Path) -> None:
    tell([LATER[-1]])
    other = replace(facts, identity="87654321")
    wished = (f"mlflow={database}", f"tensorboard={tmp_path / 'runs'}")
    journal = Journal(find_loggers(wished), other, lambda line: pytest.fail(line))
    journal.see([LATER[0]])
    journal.close()
    assert sorted(run.info.status for run in runs(database)) == ["FINISHED", "RUNNING"]
    found = [in_tensorboard(tmp_path / "runs" / f"small-{one}" / "00000") for one in ("12345678", "87654321")]
    assert [len(one) for one in found] == [len(WHOLE), 1]


def test_an_event_file_that_was_cut_short_is_gone_on_from(tell: Tell, tmp_path: Path) -> None:
    tell([LATER[1]])
    folder = tmp_path / "runs/small-12345678/00000"
    file = max(folder.iterdir(), key=lambda one: one.stat().st_size)
    file.write_bytes(file.read_bytes()[:-7])
    tell([LATER[-1]])
    assert in_tensorboard(folder) == pytest.approx(WHOLE, nan_ok=True)


def test_a_second_search_of_the_study_leaves_the_writing_to_the_first(
    tell: Tell, database: str, facts: Facts
) -> None:
    first = Journal(find_loggers([f"mlflow={database}"]), facts, lambda line: pytest.fail(line))
    first.see([LATER[0]])
    while not written(database):
        time.sleep(0.05)
    assert tell([LATER[1]], wished=[f"mlflow={database}"]) == []
    assert set(in_mlflow(database, runs(database)[0])) == {("fold_0/macro_f1", 0)}
    first.close()
    tell([LATER[1]], wished=[f"mlflow={database}"])
    assert ("fold_score", 0) in in_mlflow(database, runs(database)[0])


def written(database: str) -> bool:
    there = MlflowClient(database).get_experiment_by_name("small")
    return there is not None and any(run.data.metrics for run in runs(database))


def test_a_fault_is_told_once_and_the_other_logger_goes_on(tell: Tell, tmp_path: Path, database: str) -> None:
    (tmp_path / "study" / "tensorboard").write_text("no folder")
    said = tell(*([one] for one in LATER), wished=["tensorboard", f"mlflow={database}"], at_once=True)
    assert len(said) == 1
    assert said[0].startswith("tensorboard is told no more of this search: ")
    (run,) = runs(database)
    assert run.info.status == "FINISHED"


def test_a_database_that_goes_away_is_told_once(database: str, facts: Facts, tmp_path: Path) -> None:
    said: list[str] = []
    journal = Journal(find_loggers([f"mlflow={database}"]), facts, said.append)
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    for one in LATER:
        journal.see([one])
    journal.close()
    journal.close()
    assert len(said) == 1
    assert said[0].startswith("mlflow is told no more of this search: ")
    assert "\n" not in said[0]


@pytest.mark.parametrize(
    ("wished", "words"),
    [
        (["mlflw"], "hint: did you mean 'mlflow'?"),
        (["mlflow=runs"], "'runs' is no address"),
        (["mlflow=http://me:secret@host/"], "me:***@host"),
        (["mlflow=http://127.0.0.1:9"], "cannot be used"),
        (["mlflow"], "hint: write mlflow=URI, or set $MLFLOW_TRACKING_URI"),
        (["tensorboard=/dev/null/x"], "/dev/null: --log tensorboard: this is no folder"),
        (["tensorboard=a", "tensorboard=b"], "said twice"),
    ],
)
def test_what_cannot_work_is_refused(wished: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StudyError) as told:
        find_loggers(wished)
    assert words in str(told.value)
    assert "secret" not in str(told.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(StudyError) as told:
        find_loggers(["wandb", "tensorboard=/dev/null", "mlflow=runs"])
    assert len(told.value.faults) == 3


def test_mlflow_tells_nobody_else_and_prints_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        monkeypatch.setenv(name, "")  # put back in the end as it was
        monkeypatch.delenv(name)
    find_loggers([f"mlflow={database}"])
    assert MLFLOW_DISABLE_TELEMETRY.get() is True
    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get() is True
