"""One YAML file: what is searched, on which images, and how."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec

from automed.config import TrialConfig
from automed.data.settings import Data
from automed.errors import Fault, SpaceError, nearest
from automed.settings import Scalar, inspect_settings, setting
from automed.space.read import Complaint, read_file
from automed.space.sample import SearchSpace
from automed.space.schema import file_schema
from automed.space.table import print_table
from automed.study import objective
from automed.study.objective import Metric, Objective


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the search goes. Not searched itself."""

    name: Annotated[str, setting("the folder of the study below studies/")]
    folds: Annotated[int, setting("parts of the cross-validation", ge=2, le=100)] = 5
    seed: Annotated[int, setting("where all chance of the study comes from", ge=0, le=2**32 - 1)] = 0
    metric: Annotated[Metric, setting("what is maximised, on average over the folds")] = "macro_f1"
    trials: (
        Annotated[
            int,
            setting(
                "how many trials the study has in the end, 50 by default; auto: until noise hides any gain",
                ge=1, le=1_000_000, words=("auto",),
            ),
        ] | Literal["auto"] | None
    ) = None  # fmt: skip
    hours: (
        Annotated[
            float, setting("how long the search runs; without trials, as many as fit", gt=0, le=10_000)
        ] | None
    ) = None  # fmt: skip
    cost: Annotated[
        Literal["auto", "aware", "ignored"],
        setting("choose by expected gain for the operations it takes; auto: where hours are the budget"),
    ] = "auto"
    sampler: Annotated[Literal["tpe", "random"], setting("learns from earlier trials, or does not")] = "tpe"
    pruner: Annotated[
        Literal["kfold", "none"], setting("stops trials that fall behind, or lets all of them finish")
    ] = "kfold"
    start: Annotated[
        Literal["none", "portfolio"],
        setting("portfolio: configurations that did well on other images are tried first"),
    ] = "none"
    finalists: (
        Annotated[
            int,
            setting(
                "how many of the best are scored again on fresh folds; by default 5, at most a tenth of all",
                ge=0, le=100,
            ),
        ]
        | None
    ) = None  # fmt: skip


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where pretrained weights come from."""

    path: Annotated[
        str | None, setting("a folder of weight files named after models; else $AUTOMED_WEIGHTS or the hub")
    ] = None


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "study": Study, "objective": Objective, "data": Data, "weights": Weights,
}  # fmt: skip
"""The sections beside `space:` and `start_from:`."""


_PLAIN = Objective()


@dataclass(frozen=True)
class Experiment:
    """A file without a fault. `text` is what stands in it, comments and all."""

    file: Path
    text: str
    study: Study
    data: Data
    weights: Weights
    space: SearchSpace
    objective: Objective = _PLAIN


def read_experiment(path: Path) -> Experiment:
    """Read one file.

    Raises:
        SpaceError: with every fault there is.
    """
    # Relative paths in a file are meant from where the file lies.
    read = read_file(path, sections=SECTIONS, space=TrialConfig, check=_check)
    study, wanted = cast("Study", read.sections["study"]), cast("Objective", read.sections["objective"])
    if wanted.metric is not None:
        study = msgspec.structs.replace(study, metric=wanted.metric)
    return Experiment(
        file=path,
        text=read.text,
        study=study,
        objective=wanted,
        data=cast("Data", _from_here(read.sections["data"], path.parent)),
        weights=cast("Weights", _from_here(read.sections["weights"], path.parent)),
        space=read.space,
    )


def _from_here(section: Any, folder: Path) -> Any:
    if section.path is None:
        return section
    return msgspec.structs.replace(section, path=str((folder / Path(section.path).expanduser()).absolute()))


def with_study(experiment: Experiment, **changes: Scalar | None) -> Experiment:
    """The same file with some of its `study` section changed, as the command line may.

    Raises:
        SpaceError: the file itself could not say so either.
    """
    study = msgspec.structs.replace(experiment.study, **changes)
    complaints = list(_check({f"study.{name}": value for name, value in changes.items()}))
    faults = [Fault(f"{one.message}: '{changes['name']}'", hint=one.hint) for one in complaints]
    if faults:
        raise SpaceError(faults)
    return replace(experiment, study=study)


def _check(values: Mapping[str, Scalar | None]) -> Iterator[Complaint]:
    """What the types of the sections cannot tell."""
    name = str(values.get("study.name", "study"))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        tame = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100]
        hint = "letters, digits, '-', '_' and '.', no folder" + (f"; such as {tame}" if tame else "")
        yield Complaint("study.name", "study.name must be good as the name of a folder", hint)
    column, pattern = values.get("data.group.column"), values.get("data.group.pattern")
    if column is not None and pattern is not None:
        yield Complaint("data.group.pattern", "data.group has both a column and a pattern", "keep one")
    undecided = column is None and pattern is None and not values.get("data.group.look_alikes")
    for place in ("data.group.column", "data.group.pattern", "data.group.look_alikes"):
        if place in values and undecided:
            hint = "or write 'group: look_alikes' or 'group: none'"
            yield Complaint(place, "data.group names neither a column nor a pattern", hint)
    yield from (Complaint(*fault) for fault in objective.faults(values))
    yield from _check_split(values)
    if pattern is not None:
        yield from _check_pattern(str(pattern))
    for place in ("data.path", "weights.path"):
        try:
            Path(str(values.get(place) or "")).expanduser()
        except RuntimeError:
            yield Complaint(place, f"{place} begins with the home of a user who is not known here")


def _check_split(values: Mapping[str, Scalar | None]) -> Iterator[Complaint]:
    split, test = values.get("data.split"), values.get("data.test", "none")
    if split == "pooled" and test != "none":
        hint = "leave data.test out, or write 'split: official'"
        yield Complaint("data.test", "data.split is pooled: it draws a test part of its own", hint)
    if split == "official" and test == "none":
        hint = "say which one with data.test, or leave data.split out"
        yield Complaint("data.split", "data.split is official, but data.test names no split", hint)
    if split != "pooled" and "data.test_share" in values:
        hint = "write 'split: pooled', or leave it out"
        yield Complaint("data.test_share", "data.test_share has no effect without data.split: pooled", hint)


def _check_pattern(pattern: str) -> Iterator[Complaint]:
    try:
        with warnings.catch_warnings(action="ignore"):
            groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        yield Complaint("data.group.pattern", f"data.group.pattern is no regular expression: {error}")
        return
    if groups == 0:
        hint = "put the part that names the patient in brackets, such as (P[0-9]+)_"
        yield Complaint("data.group.pattern", "data.group.pattern has no group", hint)


def schema_text() -> str:
    """The JSON schema of a file, for editors."""
    schema = file_schema(SECTIONS, TrialConfig)
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()


def print_experiment(experiment: Experiment) -> None:
    """Show the file as a table on standard output, with the count of its knobs."""
    print_table(experiment.space, inspect_settings(TrialConfig))


def find_space(name: str) -> Path:
    """A file by its path; a bare word that is no file names a shipped one."""
    path = Path(name)
    return path if path.suffix or path.is_file() or len(path.parts) > 1 else shipped(name)


def shipped(name: str) -> Path:
    """The file of a space that comes with automed, by its name without `.yaml`.

    Raises:
        SpaceError: there is none of that name.
    """
    here = Path(__file__).resolve()
    folders = (here.parents[1] / "search_spaces", here.parents[2] / "search_spaces")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in names:
        close = nearest(name, names)
        raise SpaceError(
            f"no search space called '{name}' comes with automed" + (f"; {close}" if close else "")
        )
    return folder / f"{name}.yaml"
