"""The whole verdict on a winner: judged, and a gap between its scores explained, where there is one, once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock

from automed.auditing.finding import Shift
from automed.data.manifest import Manifest
from automed.data.settings import Data
from automed.errors import AutomedError
from automed.results.gap import Gap, find_gap
from automed.results.judge import judge
from automed.results.verdict import Verdict
from automed.screen import progress_bar
from automed.study.open import OpenStudy
from automed.study.record import TrialRecord

if TYPE_CHECKING:
    from rich.console import Console

    from automed.auditing.examine import Tell


def full_verdict(opened: OpenStudy, winner: TrialRecord, console: Console) -> Verdict:
    """Judge the winner of a study, and explain what has to be explained, under bars.

    Raises:
        AutomedError: the refit could not be trained.
    """
    with progress_bar(console, f"refitting trial {winner.number} on all searched pictures") as advance:
        verdict = judge(opened, winner, on_epoch=advance)
    with contextlib.ExitStack() as bars:

        def tell(what: str) -> Callable[[int, int], None]:
            bars.close()
            return bars.enter_context(progress_bar(console, what))

        return explain(opened, verdict, tell)


def explain(opened: OpenStudy, verdict: Verdict, tell: Tell) -> Verdict:
    """The verdict with its gap, if it has one, which is then kept in `winner/verdict.json`.

    Looking at the pictures takes a while, so it is done where there is a gap, and only if it was not before.
    """
    with FileLock(opened.folder / "winner.lock"):
        manifest = Manifest.read(opened.folder / "data.json")
        gap = find_gap(verdict, manifest)
        if gap is not None:
            gap = _measured(gap, verdict.gap, manifest, opened.experiment.data, tell)
        if gap != verdict.gap:
            verdict = msgspec.structs.replace(verdict, gap=gap)
            verdict.write(opened.folder / "winner" / "verdict.json")
    return verdict


def _measured(gap: Gap, before: Gap | None, manifest: Manifest, settings: Data, tell: Tell) -> Gap:
    """The gap with the shift of every class: that of the gap `before` where it was measured."""
    if before is not None and not before.unmeasured:
        return msgspec.structs.replace(gap, shifts=before.shifts)
    if manifest.split == "pooled":
        why = "the part was drawn from all splits at random, by group"
        return msgspec.structs.replace(gap, unmeasured=why)
    try:
        return msgspec.structs.replace(gap, shifts=_shifts(manifest, settings, tell))
    except (AutomedError, OSError) as error:
        why = " ".join(str(error).partition("\n")[0].split()).rstrip(".")
        return msgspec.structs.replace(gap, unmeasured=why)


def _shifts(manifest: Manifest, settings: Data, tell: Tell) -> list[Shift]:
    """What `automed audit` says of every class.

    Raises:
        AutomedError: the pictures cannot be read any more, or are others.
        OSError: likewise.
    """
    from automed.auditing.examine import look_for_shift
    from automed.auditing.material import load

    material = load(manifest.source, settings, tell("looking at the pictures"))
    there = {item.path: item.digest for item in material.manifest.items}
    if any(there.get(item.path) != item.digest for item in manifest.items):
        raise AutomedError(f"the pictures in {manifest.source} are no longer those of the study")
    return look_for_shift(material, tell)
