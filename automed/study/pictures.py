"""Before the first trial: the prepared pictures that a space can ask for, made in one go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from automed.config import TrialConfig, from_flat
from automed.data.cache import ELSEWHERE, LIMIT, cache_limit, cache_root, most_room
from automed.data.images import kinds, prepare_images
from automed.data.manifest import Manifest
from automed.data.prepare import Way
from automed.data.scan import Progress
from automed.errors import DataError, Fault
from automed.settings import inspect_settings
from automed.sizes import size_text
from automed.space.sample import SearchSpace, combinations

_SIZE = "model.image_size"
_MOST = 50  # kinds made ahead of the trials: a fine grid has thousands, each for one trial


@dataclass(frozen=True)
class Stock:
    """What is prepared now. `size` is in bytes, `missing` are the kinds not there yet, `later` the others."""

    manifest: Manifest
    now: tuple[Way, ...]
    missing: int
    size: int
    later: bool

    def line(self) -> str:
        """All of it in one line."""
        if not self.now:
            return "pictures are prepared when a trial first asks for them"
        count = len(self.now)
        what = f"{count} kind{'s' if count > 1 else ''} of prepared pictures, {size_text(self.size)}"
        there = "" if self.missing == count else f"; {count - self.missing} there already"
        there = there if self.missing else "; all there already"
        later = "; others are prepared when a trial first asks for them" if self.later else ""
        return f"{what}, in {cache_root()} (limit {size_text(cache_limit())}){there}{later}"

    def prepare(self, progress: Progress | None = None) -> None:
        """Build what is missing.

        Raises:
            DataError: a picture changed or went away, or there is no room any more.
        """
        if self.missing:
            prepare_images(self.manifest, self.now, progress)


def take_stock(space: SearchSpace, manifest: Manifest, trials: int) -> Stock:
    """Choose what to prepare for so many trials: what is used most, as far as the cache holds it at once."""
    uses, vague = _uses(space)
    now: list[Way] = []
    size = missing = 0
    room, seen = most_room(), set()
    for wanted, _ in uses.most_common():
        (kind,) = kinds(manifest, [wanted])
        if kind.file in seen:
            continue
        seen.add(kind.file)
        if len(now) < min(_MOST, trials) and size + kind.bytes <= room:
            now.append(wanted)
            size += kind.bytes
            missing += kind.mapped() is None
    return Stock(manifest, tuple(now), missing, size, vague or len(now) < len(seen))


def refuse_crowded(space: SearchSpace, manifest: Manifest) -> None:
    """Refuse a space that asks for prepared pictures which the cache cannot hold.

    Raises:
        DataError: with every kind of them, and what there is room for; or there can be no cache.
    """
    try:
        room, wanted = most_room(), kinds(manifest, _uses(space)[0])
    except OSError as error:
        message = f"there can be no cache here: {error.strerror or error}"
        raise DataError(Fault(message, file=str(cache_root()), hint=ELSEWHERE)) from None
    crowded = {kind.bytes: kind for kind in wanted if kind.bytes > room}
    holds, hint = size_text(max(0, room)), f"${LIMIT} allows more, and {ELSEWHERE}"
    faults = []
    for size, kind in sorted(crowded.items()):
        what = f"the prepared pictures of {'x'.join(map(str, kind.shape[1:]))}"
        message = f"{what} need {size_text(size)}, but the cache holds {holds}"
        faults.append(Fault(message, file=str(cache_root()), hint=hint))
    if faults:
        raise DataError(faults, str(manifest.source))


def _uses(space: SearchSpace) -> tuple[Counter[Way], bool]:
    """How often trials will ask for each kind, and whether some kinds are too many to count."""
    settings = inspect_settings(TrialConfig)
    names = [name for name in settings if name == _SIZE or name.startswith("preprocess.")]
    defaults = {name: one.default for name, one in settings.items() if one.default is not None}
    drawn = combinations(space, names, defaults, countable=True)
    uses: Counter[Way] = Counter()
    for values, count in drawn.items():
        config = from_flat({"model.name": "any", **dict(zip(names, values, strict=True))})
        uses[config.preprocess, config.model.image_size] += count
    return uses, any(knob.name in names and knob.points() is None for knob in space.knobs)
