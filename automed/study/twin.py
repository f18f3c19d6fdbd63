"""A configuration that was drawn before is not trained again: what came of it is taken over.

Only what has ended counts. A trial that still runs may yet be pruned, break or be lost: the same
configuration that is drawn meanwhile is trained, rather than have a worker wait for what may never come.
One that failed by itself is tried anew, for the reason may have gone. And where the earlier one's files are
not on this machine there is nothing to copy, so it is trained as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from automed.data.cache import replacing
from automed.settings import Scalar
from automed.study import record
from automed.study.record import Result

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_RESULT = "result.json"  # read first and written last: a folder that has it has the others


def take_over(
    there: Sequence[FrozenTrial], config: Mapping[str, Scalar], into: Path, *, to_the_end: bool
) -> tuple[FrozenTrial, int] | None:
    """Copy the files of a trial that was trained with this configuration; that trial and what it is called.

    Args:
        there: the trials of the study.
        config: every setting by dotted name.
        into: the folder of the trial that has this configuration now.
        to_the_end: the study lets all its trials finish, so one that was pruned will not do.
    """
    for twin in twins(there, config, to_the_end=to_the_end):
        number = record.number_of(record.origin(twin), there)
        if take_files(twin, number, into.with_name(record.folder_name(number)), into):
            return twin, number
    return None


def twins(
    there: Sequence[FrozenTrial], config: Mapping[str, Scalar], *, to_the_end: bool
) -> list[FrozenTrial]:  # fmt: skip
    """The trials that were trained with this whole configuration, and ended without a fault."""
    states = ("COMPLETE",) if to_the_end else ("COMPLETE", "PRUNED")
    same = [trial for trial in there if trial.user_attrs.get(record.CONFIG) == config]
    return [
        trial for trial in same
        if trial.state.name in states and record.SHAPE in trial.user_attrs
        and record.SAME_AS not in trial.user_attrs and not record.result(trial).fault
    ]  # fmt: skip


def take_files(twin: FrozenTrial, number: int, source: Path, into: Path) -> bool:
    """Copy what a trial left in its folder; False, and nothing is copied, if it is not all on this machine.

    Args:
        twin: the trial.
        number: what it is called, which `result.json` tells as `same_as`.
        source: its folder.
        into: the folder of the trial that has the same configuration.
    """
    try:
        told = msgspec.json.decode((source / _RESULT).read_bytes(), type=dict[str, Any])
        names = ["curve.csv"] + ["out_of_fold.npz"] * bool(told["fold_scores"])
        files = {name: (source / name).read_bytes() for name in names}
        # An attempt that was lost to another machine may have left what the study does not know.
        if (
            told["fold_scores"] != twin.user_attrs.get(record.FOLD_SCORES, [])
            or len(files["curve.csv"].splitlines()) != 1 + len(twin.intermediate_values)
        ):  # fmt: skip
            return False
    except (OSError, KeyError, TypeError, msgspec.DecodeError):
        return False
    told.update(seconds=0.0, same_as=number)
    files[_RESULT] = msgspec.json.format(msgspec.json.encode(told))
    for name, content in files.items():
        with replacing(into / name) as stream:
            stream.write(content)
    return True


def taken_result(twin: FrozenTrial, number: int) -> Result:
    """How the twin ended, as the result of the trial that takes it over, which trained for no time."""
    result = record.result(twin)
    reason = f"the same configuration as trial {number}" + (f": {result.reason}" if result.reason else "")
    return msgspec.structs.replace(result, seconds=0.0, reason=reason)
