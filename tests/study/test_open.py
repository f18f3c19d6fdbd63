from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import msgspec
import optuna
import pytest

from automed.errors import StudyError
from automed.study import record
from automed.study.ledger import halted
from automed.study.open import heirs, open_study, reopen_study


def renamed(experiment, **changes: object):
    """What the command line does to a file."""
    return replace(experiment, study=msgspec.structs.replace(experiment.study, **changes))


def waiting(opened) -> list[tuple[str, dict]]:
    return [
        (trial.user_attrs[record.SOURCE], record.drawn(trial))
        for trial in opened.study.get_trials(deepcopy=False)
    ]  # fmt: skip


def run(opened, scores: list[float], **values: object) -> None:
    """Finish trials as a worker would, with these values where they are given."""
    from automed.config import from_flat, to_flat
    from automed.space.sample import sample
    from automed.study.sampler import make_sampler, suggester

    for score in scores:
        if values:
            record.enqueue(opened.study, values)
        trial = opened.study.ask()
        opened.study.sampler = make_sampler("random", 0, trial.number)
        config = to_flat(from_flat(sample(opened.experiment.space, suggester(trial))))
        record.write(opened.storage, trial._trial_id, record.CONFIG, config)
        opened.study.tell(trial, score)


def test_a_new_study_is_pinned_and_its_first_trials_wait(open_here) -> None:
    opened = open_here()
    assert opened.study.direction.name == "MAXIMIZE"
    assert waiting(opened) == [("start_from 1", {"model.name": "resnet18", "optim.lr": 0.01})]
    assert (opened.folder / "experiment.yaml").read_text() == opened.experiment.text
    assert (opened.folder / "study.db").exists()


def test_opening_again_goes_on_and_enqueues_nothing_twice(open_here, reopen) -> None:
    open_here()
    opened = open_here()
    assert len(waiting(opened)) == 1
    again = reopen(opened.folder)
    assert again.experiment.space == opened.experiment.space
    assert again.study.user_attrs == opened.study.user_attrs


def test_a_start_that_was_killed_half_way_is_made_whole(open_here, reopen) -> None:
    opened = open_here()
    opened.study.set_user_attr("ready", False)
    with pytest.raises(StudyError, match="not whole"):
        reopen_study(opened.folder)
    assert len(waiting(open_here())) == 1
    assert len(waiting(reopen(opened.folder))) == 1


def test_comments_trials_sampler_and_pruner_may_change(open_here, write_space, reopen) -> None:
    open_here()
    text = {"seed: 7}": "seed: 7, sampler: random, pruner: none, trials: 9}  # quicker"}
    opened = open_here(write_space(**text))
    assert "quicker" in (opened.folder / "experiment.yaml").read_text()
    assert isinstance(reopen(opened.folder).study.pruner, optuna.pruners.NopPruner)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "high: 1,",
            "high: 0.1,",
            ["-space.optim.lr: from 1e-05 to 1", "+space.optim.lr: from 1e-05"],
        ),
        ("vgg11, resnet18", "resnet18, vgg11", ["+space.model.name: one of alexnet_mini, resnet18, vgg11"]),
        ("folds: 3", "folds: 3, metric: accuracy", ["-study.metric: macro_f1", "+study.metric: accuracy"]),
        ("seed: 7", "seed: 8", ["-study.seed: 7", "+study.seed: 8"]),
        ("optim.lr: 0.01}", "optim.lr: 0.02}", ["-start_from 1:", "+start_from 1:"]),
    ],
)
def test_a_changed_file_is_refused_with_a_diff(open_here, write_space, old, new, expected) -> None:
    opened = open_here()
    before = (opened.folder / "experiment.yaml").read_text()
    with pytest.raises(StudyError) as caught:
        open_here(write_space(**{old: new}))
    message = str(caught.value)
    assert all(line in message for line in expected), message
    assert "--fork NEW-NAME" in message
    assert (opened.folder / "experiment.yaml").read_text() == before


def test_changed_images_and_folds_are_refused_with_a_diff(open_here, manifest, folds, write_space) -> None:
    opened = open_here()
    items = (replace(manifest.items[0], digest="another picture"), *manifest.items[1:])
    with pytest.raises(StudyError, match=r"\+data.fingerprint"):
        open_study(write_space(), replace(manifest, items=items), folds, folder=opened.folder)
    with pytest.raises(StudyError, match=r"\+folds.fingerprint"):
        open_study(
            write_space(), manifest, replace(folds, test_fold=(folds.test_fold + 1) % 3), folder=opened.folder
        )


def test_changed_weights_are_refused_with_a_diff_and_others_do_not_matter(
    open_here, write_space, tmp_path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "resnet18.a1_in1k.safetensors").write_bytes(b"one")
    pretrained = {"name: [alexnet_mini, vgg11, resnet18]": "name: resnet18\n    pretrained: true"}
    pretrained["{model.name: resnet18, "] = "{"
    pretrained["data: {group: none}"] = f"data: {{group: none}}\nweights: {{path: {folder}}}"
    open_here(write_space(**pretrained))
    (folder / "resnet50.safetensors").write_bytes(b"of another network")
    open_here(write_space(**pretrained))
    (folder / "resnet18.a1_in1k.safetensors").write_bytes(b"other")
    with pytest.raises(StudyError, match=r"-weights\.resnet18\.a1_in1k\.safetensors: [0-9a-f]{64}"):
        open_here(write_space(**pretrained))


def test_the_same_images_elsewhere_are_welcome(open_here, manifest, folds, write_space, tmp_path) -> None:
    opened = open_here()
    moved = replace(manifest, source=tmp_path / "elsewhere")
    told: list[Path] = []
    open_study(write_space(), moved, folds, folder=opened.folder, write_job=told.append).close()
    assert told == [opened.folder]


def test_what_the_command_line_changed_is_kept_for_the_workers(open_here, write_space, reopen) -> None:
    opened = open_here(renamed(write_space(), seed=99, pruner="none"))
    again = reopen(opened.folder)
    assert again.experiment == replace(opened.experiment, file=opened.folder / "experiment.yaml")
    assert (again.experiment.study.seed, again.experiment.study.pruner) == (99, "none")


def test_a_missing_study_and_a_missing_database_are_one_line(open_here, tmp_path) -> None:
    with pytest.raises(StudyError, match="there is no study in"):
        reopen_study(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    opened = open_here()
    opened.close()
    (opened.folder / "study.db").unlink()
    with pytest.raises(StudyError, match=r"study\.db is missing"):
        reopen_study(opened.folder)
    assert not (opened.folder / "study.db").exists()


def test_a_study_that_automed_did_not_make_is_refused(open_here, tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/mine.db"
    storage = optuna.storages.RDBStorage(url)
    optuna.create_study(study_name="demo", storage=storage).add_trial(optuna.create_trial(value=1.0))
    storage.engine.dispose()
    with pytest.raises(StudyError, match="was not made by automed"):
        open_here(storage=url)


def test_other_versions_are_refused_with_a_diff_and_anothers_torch_is_not(open_here) -> None:
    opened = open_here()
    installed = opened.study.user_attrs["versions"]
    opened.study.set_user_attr("versions", {**installed, "torch": "1.0"})
    open_here()
    opened.study.set_user_attr("versions", {**installed, "automed": "0.0.1", "optuna": "4.8.0"})
    with pytest.raises(StudyError, match=r"(?s)-version\.automed: 0\.0\.1\n-version\.optuna: 4\n\+version"):
        open_here()


def test_what_a_worker_elsewhere_has_to_know_stands_in_the_database(open_here, write_space, manifest) -> None:
    opened = open_here(renamed(write_space(), trials=77, seed=3))
    attributes = opened.study.user_attrs
    assert (attributes["study"]["trials"], attributes["study"]["seed"]) == (77, 3)
    assert attributes["experiment"] == opened.experiment.text
    assert attributes["places"] == {
        "folder": str(opened.folder), "data": str(manifest.source), "weights": None,
    }  # fmt: skip
    assert set(attributes["versions"]) == {"automed", "optuna", "torch"}


def test_a_folder_belongs_to_one_database(open_here, tmp_path) -> None:
    open_here(storage=f"sqlite:///{tmp_path}/one.db")
    with pytest.raises(StudyError, match=r"is kept in sqlite:.*/one\.db, not in"):
        open_here()
    assert not (tmp_path / "studies" / "demo" / "study.db").exists()


def test_a_moved_folder_is_still_the_study(open_here, reopen) -> None:
    opened = open_here()
    opened.close()
    moved = opened.folder.with_name("moved")
    opened.folder.rename(moved)
    assert reopen(moved).name == "demo"


def test_a_fork_starts_from_the_old_best_that_is_legal(open_here, write_space, tmp_path, reopen) -> None:
    old = open_here()
    run(old, [0.1])
    run(old, [0.5, 0.6], **{"model.name": "vgg11", "optim.lr": 0.5, "train.batch": 8, "train.epochs": 6})
    run(old, [0.9], **{"model.name": "alexnet_mini", "optim.lr": 1e-4, "train.batch": 16, "train.epochs": 9})
    found = record.records(old.study)
    # vgg11 went away, and a knob came that the old trials had fixed at a value that is not legal here.
    changed = write_space(
        **{"vgg11, ": "", "low: 1e-5": "low: 5e-5", "  optim:": "  augment: {mixup: [0.1, 1]}\n  optim:"}
    )
    fork = open_here(renamed(changed, name="child"), folder=tmp_path / "studies" / "child", old=found)
    assert fork.name == "child"
    sources = dict(waiting(fork))
    assert list(sources) == ["start_from 1", "fork 1", "fork 2"]
    assert sources["fork 1"] == {
        "model.name": "alexnet_mini", "optim.lr": 1e-4, "train.batch": 16, "train.epochs": 9,
    }  # fmt: skip
    assert sources["fork 2"]["model.name"] == "resnet18"
    assert reopen(fork.folder).name == "child"


def test_heirs_are_the_best_five_without_repeats(open_here) -> None:
    opened = open_here()
    run(opened, [0.1 * rank for rank in range(8)])
    found = record.records(opened.study)
    legal = heirs(opened.experiment.space, [*found, *found])
    assert legal == [one.params for one in sorted(found, key=lambda one: -(one.score or 0))[:5]]


def test_a_halt_is_lifted_when_the_search_is_started_again(open_here, reopen) -> None:
    opened = open_here()
    opened.study.set_user_attr("halted", "the disk is gone")
    assert halted(reopen(opened.folder).study) == "the disk is gone"
    assert halted(open_here().study) == ""


def _open_in_process(space: Path, manifest, folds, folder: Path) -> int:
    from automed.study.experiment import read_experiment

    opened = open_study(read_experiment(space), manifest, folds, folder=folder, write_job=lambda _: None)
    return len(opened.study.get_trials())


def test_processes_that_open_at_once_make_one_study(write_space, manifest, folds, tmp_path) -> None:
    experiment = write_space()
    job = (experiment.file, manifest, folds, tmp_path / "studies" / "demo")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(_open_in_process, [job] * 2) == [1, 1]
