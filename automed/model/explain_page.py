"""Maps as one HTML page: whether they mean anything first, then the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from automed import __version__
from automed.model import faithful
from automed.model.explain import Explained
from automed.model.faithful import MAPS, STEPS
from automed.model.maps import NAMES
from automed.page.figure import Figure, Line, Mark, axis
from automed.page.parts import Lines, Page, Part, Plots, Row, Section, Table, Wall
from automed.page.render import render

_WORDS = {"map": "the map", "random": "a random map, as coarse", "centre": "a blob in the middle"}
_READ = (
    "Deletion: the pixels that the map points at most are replaced by the picture's mean colour first. A map "
    "of what the model looks at makes the probability fall early, so its area is small. Insertion: they are "
    "put back first into a blurred picture; its area is large. The same in a random order, and from the "
    "middle outwards, tells what the numbers are worth (Petsiuk et al. 2018)."
)
_DOUBT = (
    "A map shows where the evidence for a class lies in the network's last map of places, coarsely. It does "
    "not show that the network is right, nor why, and a finding outside it is not thereby overlooked."
)


def explain_page(made: Explained) -> str:
    """The HTML of a run."""
    asked, card = made.asked, made.card
    name = NAMES[asked.method]
    of = "of the class that each was taken for" if asked.of is None else f"of {asked.of}"
    read = made.pictures - made.unread
    return render(
        Page(
            title=f"{name}: where {card.source.study} looks",
            lead=[f"{read:,} pictures with a map {of}; {made.unread:,} could not be read", card.source.made],
            sections=[_meaning(made), _walls(made), *_broken(made), _how(made)],
            footer=f"automed {__version__}; model {card.identity[:16]}",
        )
    )


def _meaning(made: Explained) -> Section:
    parts: list[Part] = []
    if made.probes.each:
        parts = [Plots(_plots(made)), _areas(made)]
    return Section("meaning", "Do the maps mean anything?", None, [*made.lines(), _READ], parts)


def _plots(made: Explained) -> list[Figure]:
    shares = [step / STEPS for step in range(STEPS + 1)]
    found = []
    for what, curves in zip(("Deletion", "Insertion"), made.probes.curves(), strict=True):
        marks: list[Mark] = [
            Line(_WORDS[name], list(zip(shares, curve.tolist(), strict=True)), tone, dashed=tone > 1)
            for tone, (name, curve) in enumerate(zip(MAPS, curves, strict=True), 1)
        ]
        middle = [f"{_WORDS[name]} {curve[STEPS // 4]:.2f}" for name, curve in zip(MAPS, curves, strict=True)]
        verb = "gone" if what == "Deletion" else "back"
        alt = f"mean probability with a quarter of the pixels {verb}: {', '.join(middle)}"
        across = axis(f"share of the pixels that are {verb}", [0, 1], low=0, high=1)
        up = axis("probability of the class", [0, float(np.max(curves))], low=0, high=1)
        found.append(Figure(f"{what}, mean of {len(made.probes.each)} pictures", alt, across, up, marks))
    return found


def _areas(made: Explained) -> Table:
    areas = made.probes.areas()
    rows = []
    for place, name in enumerate(MAPS):
        means = [faithful.mean_of(areas[:, place, column]) for column in (0, 1)]
        gain = _text(made.probes.gain(name)) if place else ""
        rows.append([_WORDS[name], *(_text(one) for one in means), gain])
    head = ("", "deletion (small is good)", "insertion (large is good)", "the map's lead over it")
    caption = (
        "Areas under the probability, means over the tested pictures with 95 % intervals (pictures taken as "
        "independent); the lead is in insertion less deletion"
    )
    return Table(head, rows, caption, frozenset({1, 2, 3}))


def _text(one: faithful.Interval) -> str:
    if not np.isfinite(one.low):
        return f"{one.value:.3f}"
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _walls(made: Explained) -> Section:
    shown = sum(map(len, made.walls.values()))
    rows = [
        Row(f"taken for {label}", tiles)
        for label in made.card.classes
        for tiles in (made.walls.get(label, []),)
        if tiles
    ]
    left = made.pictures - made.unread - shown
    note = f"{left:,} more stand in the folder" if left else ""
    text = "Each picture, and beside it the same with its map: the brighter, the more speaks for the class."
    return Section("maps", "The maps", paragraphs=[text, _DOUBT], parts=[Wall(rows, note)] if rows else [])


def _broken(made: Explained) -> list[Section]:
    if not made.unread:
        return []
    more = made.unread - len(made.broken)
    lines = [*made.broken, *([f"and {more:,} more"] if more else [])]
    return [Section("broken", f"{made.unread:,} could not be read", parts=[Lines("Which, and why", lines)])]


def _how(made: Explained) -> Section:
    lines: Sequence[str] = [
        f"Drawn by {NAMES[made.asked.method]} (package grad-cam) from the last map of places that all of a "
        "network's answer flows through, and enlarged.",
        *(f"{line}." for line in dict.fromkeys(made.places)),
        *(f"Without a map: {line}." for line in dict.fromkeys(made.without)),
    ]
    if len(made.card.members) > 1:
        lines = [*lines, "Of several members the mean of their maps is shown, by their shares."]
    return Section("how", "How they were drawn", paragraphs=lines)
