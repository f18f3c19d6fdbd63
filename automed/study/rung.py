"""A cheap first rung (`train.rungs`): tried on small pictures, and the best third goes on at full size.

The rung is a study of its own in the folder `rung-SIDE` of the study that it is for, under the name
`NAME-SIDEpx`: with its own trials, sampler and pruner, so that no score on small pictures ever stands beside
one on large ones. What goes on is enqueued in the study itself, with the same values, and is trained from the
start. `--trials 40` are 30 at the small size and 10 at the full one.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from automed.errors import Fault, SpaceError
from automed.space.knob import Knob
from automed.space.source import compose, open_source
from automed.study import record
from automed.study.budget import Budget
from automed.study.experiment import Experiment, read_experiment, with_study
from automed.study.ledger import Ledger
from automed.study.open import OpenStudy, read_note, reopen_study
from automed.study.record import TrialRecord
from automed.study.storage import sqlite_file
from automed.study.winner import leaders

RUNGS, SIZE = "train.rungs", "model.image_size"
_CAME = re.compile(r"rung \d+ px, trial (\d+)$")


def side_of(experiment: Experiment) -> int:
    """The side of the rung's pictures; 0 where there is no rung.

    Raises:
        SpaceError: there cannot be one.
    """
    space, file = experiment.space, str(experiment.file)
    searched = {knob.name for knob in space.knobs}
    if RUNGS in searched:
        raise SpaceError(Fault(f"{RUNGS} is not searched: it takes one value", file=file), file)
    side, full = int(space.fixed.get(RUNGS, 0)), space.fixed.get(SIZE)
    if not side:
        return 0
    faults = []
    if full is None:
        faults.append(
            Fault(f"{RUNGS} needs one {SIZE}, which is searched or not said", file, hint=f"fix {SIZE}")
        )
    elif not 16 <= side < int(full):
        faults.append(Fault(f"{RUNGS} is {side}: it has to be at least 16, and less than {SIZE}", file))
    budget = Budget.of(experiment.study)
    if budget.auto or budget.hours is not None:
        faults.append(Fault(f"{RUNGS} shares out a number of trials, and takes neither auto nor hours", file))
    elif budget.trials < 2:
        faults.append(Fault(f"{RUNGS} needs at least two trials, one at each size", file))
    if faults:
        raise SpaceError(faults, file)
    return side


def sides(experiment: Experiment) -> tuple[int, int]:
    """The side of the rung's pictures, and that of the full ones."""
    fixed = experiment.space.fixed
    return int(fixed[RUNGS]), int(fixed[SIZE])


def shares(trials: int) -> tuple[int, int]:
    """How many of so many trials are at the small size, and how many at the full one: a third of those."""
    full = -(-trials // 4)
    return trials - full, full


def rung_folder(study: Path, side: int) -> Path:
    """Where in a study's folder its rung is."""
    return study / f"rung-{side}"


def at_full_size(experiment: Experiment) -> Experiment:
    """The study itself: its total counts what goes on."""
    return with_study(experiment, trials=shares(Budget.of(experiment.study).trials)[1])


def at_rung(experiment: Experiment, side: int) -> Experiment:
    """The rung's study: the same file with small pictures."""
    text = _resized(experiment, side)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.yaml"
        file.write_text(text, encoding="utf-8")
        small = read_experiment(file)
    low, _ = shares(Budget.of(experiment.study).trials)
    name = f"{experiment.study.name}-{side}px"
    study = with_study(experiment, name=name, trials=low, finalists=0).study
    return replace(small, file=experiment.file, study=study, data=experiment.data, weights=experiment.weights)


def both_sizes(experiment: Experiment, side: int) -> Experiment:
    """A space that has both sizes, to be looked over and prepared for at once."""
    space = experiment.space
    fixed = {name: value for name, value in space.fixed.items() if name not in (SIZE, RUNGS)}
    size = Knob(SIZE, "int", choices=(side, space.fixed[SIZE]))
    return replace(experiment, space=replace(space, fixed=fixed, knobs=(size, *space.knobs)))


def _resized(experiment: Experiment, side: int) -> str:
    """The file's text with the rung's size in the place of the full one."""
    source = open_source(experiment.file)
    root = compose(replace(source, text=experiment.text))
    assert root is not None
    places = sorted(_places(root, side), key=lambda one: -one[0].start_mark.index)
    text = experiment.text
    for node, value in places:
        text = text[: node.start_mark.index] + str(value) + text[node.end_mark.index :]
    return text


def _places(root: Node, side: int) -> Iterator[tuple[ScalarNode, int]]:
    """The scalars that tell a size or the rung, each with what stands there in the rung's file."""
    space = _child(root, "space")
    for group, name, value in (("model", "image_size", side), ("train", "rungs", 0)):
        node = _child(_child(space, group), name)
        node = _child(node, "value") or node
        if isinstance(node, ScalarNode):
            yield node, value
    starts = _child(root, "start_from")
    for entry in getattr(starts, "value", []):
        for name, value in ((SIZE, side), (RUNGS, 0)):
            node = _child(entry, name)
            if isinstance(node, ScalarNode):
                yield node, value


def _child(node: Node | None, name: str) -> Node | None:
    if not isinstance(node, MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)


def hold(study: OpenStudy, reason: str) -> None:
    """Keep workers that join from drawing trials at full size before it is known who goes on."""
    Ledger(study.study, study.storage, study.lock, "launcher").halt(reason)


def promote(study: OpenStudy, rung: OpenStudy, side: int) -> list[TrialRecord]:
    """Enqueue the rung's best at full size, until as many went on as the study is to have; those of now.

    Complete trials go on by their score; where there are too few, those that came furthest follow.
    """
    trials = record.records(rung.study)
    with study.lock.held():
        gone = {came_from(one) for one in record.records(study.study)}
        left = [one for one in _ranked(trials) if one.number not in gone]
        now = left[: max(0, Budget.of(study.experiment.study).trials - len(gone - {None}))]
        for one in now:
            record.enqueue(study.study, one.params, source=f"rung {side} px, trial {one.number}")
    return now


def came_from(one: TrialRecord) -> int | None:
    """The number of the rung's trial that it went on from."""
    found = _CAME.match(one.source)
    return None if found is None else int(found[1])


def _ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    pruned = [
        one for one in trials if one.state == "pruned" and one.same_as is None and not one.result.fault
    ]  # fmt: skip
    pruned.sort(key=lambda one: (-len(one.fold_scores), -one.epoch, -(one.latest or 0.0), one.number))
    return leaders(trials) + pruned


def promotions(trials: Sequence[TrialRecord], rung: Sequence[TrialRecord]) -> list[list[str]]:
    """Who went on, the best of the rung first: its number and score there, and its number and score here."""
    there = {one.number: one for one in rung}
    rows = []
    for one in trials:
        number = came_from(one)
        if number is not None and number in there:
            small = there[number].score
            rows.append((-(small or 0.0), [
                str(number), "" if small is None else f"{small:.4f}", str(one.number),
                one.state if one.score is None else f"{one.score:.4f}",
            ]))  # fmt: skip
    return [row for _, row in sorted(rows)]


def rung_trials(study: OpenStudy) -> list[TrialRecord]:
    """The trials of a study's rung; none where there is no rung, or none of it on this machine."""
    side = int(study.experiment.space.fixed.get(RUNGS, 0))
    folder = rung_folder(study.folder, side)
    if not side or read_note(folder) is None:
        return []
    alone = sqlite_file(study.url) == study.folder / "study.db"
    with contextlib.closing(reopen_study(folder, storage=None if alone else study.url)) as rung:
        return record.records(rung.study)
