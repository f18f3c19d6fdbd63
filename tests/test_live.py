"""What `studies/live` makes of two searches: no training, but real databases."""

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import optuna
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "studies" / "live" / "run.py"


@pytest.fixture(scope="module")
def live() -> ModuleType:
    spec = importlib.util.spec_from_file_location("live_run", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_run"] = module
    spec.loader.exec_module(module)
    return module


def test_only_trials_that_were_trained_in_every_fold_have_a_score(live: ModuleType, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(study_name="live", storage=storage, direction="maximize")
    began = time.time()
    for score, pruned in ((0.5, False), (0.9, True), (0.7, False)):
        trial = study.ask()
        trial.report(score, 0)
        if pruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, score)
    study.ask()
    storage.remove_session()
    storage.engine.dispose()
    found = live.trials_of(tmp_path / "study.db", "live", began)
    assert [(one.state, one.score) for one in found] == [
        ("complete", 0.5), ("pruned", None), ("complete", 0.7)
    ]  # fmt: skip
    assert [score for _, score in live.best_over_time(found)] == [0.5, 0.7]
    assert live.trials_of(tmp_path / "study.db", "other", began) == []


def test_the_table_tells_when_the_scripts_score_was_reached(live: ModuleType, tmp_path: Path) -> None:
    def ended(*told: tuple[float, float | None]) -> list[object]:
        return [
            live.Ended(number, "pruned" if score is None else "complete", second, score)
            for number, (second, score) in enumerate(told)
        ]

    runs = {
        (0, "script"): ended((600, 0.6), (1200, 0.8)),
        (0, "automed"): ended((60, 0.5), (90, None), (300, 0.81), (900, 0.85)),
        (0, "no pruner"): ended((600, 0.7)),
    }
    live.write(tmp_path / "runs.csv", runs, 40)
    assert live.read(tmp_path / "runs.csv") == runs
    table = list(live.table(runs))
    assert "| 0 | script | 2 | 0 | 0.8000 | 20.0 min | 1.00 |" in table
    assert "| 0 | automed | 3 | 1 | 0.8500 | 5.0 min | 0.25 |" in table
    assert "| 0 | no pruner | 1 | 0 | 0.7000 | never |  |" in table
    assert "| median | automed | | | | | 0.25 (1 seeds) |" in table
    drawn = live.figure(runs, 40)
    assert "script ends at 0.800; automed ends at 0.850" in drawn.alt
    assert drawn.marks[1].points[-1] == (40, 0.8)
