"""What a paper's methods section has to say of a search, as sentences."""

from __future__ import annotations

from collections import Counter

from automed import __version__
from automed.results.bounds import bounds_text
from automed.results.cells import proposed
from automed.results.reported import Reported
from automed.space.knob import word
from automed.study.rung import promotions, sides


def methods(of: Reported) -> list[str]:
    """Two paragraphs: how was searched, and how was scored."""
    study, manifest, states = of.experiment.study, of.manifest, Counter(one.state for one in of.trials)
    groups = len(set(manifest.groups[manifest.search].tolist()))
    held = (
        f" {len(manifest.test):,} pictures were held out ({manifest.held_out_as}), never seen by the search."
        if len(manifest.test) else " No pictures were held out."
    )  # fmt: skip
    beyond = sum(one.infeasible for one in of.trials)
    searched = ", ".join(knob.name for knob in of.experiment.space.searched) or "nothing"
    pruned = (
        f"; {states['pruned'] - beyond:,} were stopped early, where their curve and the folds that they had "
        "ended, levelled by how easy each fold is, left them behind the best trial"
        if states["pruned"] > beyond else ""
    )  # fmt: skip
    if of.experiment.objective.bounds:
        pruned += (
            f"; {beyond:,} were not trained, for bounds were set ({bounds_text(of.experiment.objective)})"
        )
    how = {"tpe": "a tree-structured Parzen estimator", "random": "uniform sampling"}[study.sampler]
    first = (
        f"Networks were searched with automed {__version__} (torch {of.versions.get('torch', '')}, timm "
        f"{of.versions.get('timm', '')}, Optuna {of.versions.get('optuna', '')}). {len(manifest.search):,} "
        f"pictures of {groups:,} groups and {len(manifest.classes)} classes were divided into "
        f"{of.folds.count} stratified folds that split no group (seed {study.seed}).{held} "
        f"Configurations of {searched} were tried: {proposed(of.rung or of.trials, how)}. "
        f"{_small(of)}{states['complete']:,} were cross-validated to the end{pruned}."
    )
    return [first, *_scored(of)]


def _small(of: Reported) -> str:
    """Of a first rung, how many were tried there, and how many of them again."""
    if not of.rung:
        return ""
    small, large = sides(of.experiment)
    again = len(promotions(of.trials, of.rung))
    return (
        f"These {len(of.rung):,} were cross-validated on pictures of {small} px, and the best {again:,} of "
        f"them again at {large} px, from the start; of those "
    )


def _scored(of: Reported) -> list[str]:
    if of.winner is None:
        return []
    verdict = of.winner.verdict
    honest = verdict.honest
    settings = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {word(value)}"
        for name, value in (of.best.params if of.best is not None else {}).items()
    )
    chosen = f"The configuration with the best mean {verdict.metric} over the folds was chosen"
    if verdict.finals is not None:
        chosen = (
            f"The {len(verdict.finals.finalists)} configurations with the best mean {verdict.metric} over "
            "the folds were cross-validated again on folds of the same groups, dealt anew, and the simplest "
            "(by learnt weights, all weights, side of the pictures) within one standard error of the best "
            "was chosen"
        )
    text = (
        f"{chosen} ({settings or 'all fixed'}) and refitted on all searched pictures for {verdict.epochs} "
        "epochs."
    )
    if honest is not None:
        text += (
            f" Its cross-validated score was corrected for the choice among {honest.trials:,} trials by "
            f"bootstrap bias-corrected cross-validation (Tsamardinos et al. 2018; {honest.replicates:,} "
            "resamplings of whole groups); 95 % intervals are Wilson's, with the number of groups that the "
            "variance is worth."
        )
    return [text]
