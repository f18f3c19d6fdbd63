"""The items of two reporting guidelines that a search can answer, answered; the others are the authors'.

CLAIM: Tejani et al. (2024), Checklist for Artificial Intelligence in Medical Imaging: 2024 update.
TRIPOD+AI: Collins et al. (2024), TRIPOD+AI statement: updated guidance for reporting clinical prediction
models that use regression or machine learning methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass

from automed.data.settings import Group
from automed.results.evidence import Evidence
from automed.results.interval import interval_text
from automed.results.show import told
from automed.space.knob import word

Answer = str | Callable[[Evidence], str]

_PROTOCOL = "experiment.yaml and folds.csv in the study's folder say all that the search was asked to do"
_AVAILABLE = (
    "the weights are winner/model.safetensors; whether they and the data are handed on, the authors have to "
    "say"
)
_UNCERTAINTY = (
    "95 % intervals over resampled groups; the cross-validated score is corrected for the choice among "
    "trials (BBC-CV, Tsamardinos et al. 2018)"
)


@dataclass(frozen=True)
class Item:
    """One item of a guideline: its number, what it asks for, and the answer; empty: the authors have to.

    `partly`: there is more to it than a search can know.
    """

    number: str
    topic: str
    answer: str
    partly: bool = False


def claim(evidence: Evidence) -> list[Item]:
    """The 44 items of CLAIM 2024."""
    return _answered(_CLAIM, _CLAIM_PARTLY, evidence)


def tripod(evidence: Evidence) -> list[Item]:
    """The items of TRIPOD+AI."""
    return _answered(_TRIPOD, _TRIPOD_PARTLY, evidence)


def _answered(items: dict[str, tuple[str, Answer]], partly: Set[str], of: Evidence) -> list[Item]:
    return [
        Item(number, topic, answer if isinstance(answer, str) else answer(of), number in partly)
        for number, (topic, answer) in items.items()
    ]


def _goal(of: Evidence) -> str:
    classes = of.manifest.classes
    return f"to tell {len(classes)} classes of pictures apart ({', '.join(classes)}), one class a picture"


def _sources(of: Evidence) -> str:
    kind = {"folder": "a folder a class", "csv": "a CSV", "npz": "an npz file"}[of.manifest.kind]
    return (
        f"{len(of.manifest.items):,} pictures from {kind}, fingerprint {of.manifest.fingerprint}; where and "
        "when they were taken, the authors have to say"
    )


def _excluded(of: Evidence) -> str:
    skipped = len(of.manifest.skipped)
    return (
        f"{skipped:,} pictures were left out, for they cannot be read" if skipped else "every file was read"
    )


def _preprocessing(of: Evidence) -> str:
    size = of.verdict.config.get("model.image_size")
    settings = [f"{name} {value}" for name, value in told(of.verdict.config) if name.startswith("preprocess")]
    return f"squeezed to {size} x {size} pixels; " + (", ".join(settings) or "no other step")


def _missing(of: Evidence) -> str:
    return f"{_excluded(of)}; nothing is filled in, and no label is guessed"


def _partition(of: Evidence) -> str:
    test = f"; held out: {of.manifest.held_out_as}" if len(of.manifest.test) else "; nothing was held out"
    return (
        f"{of.folds.count} folds of like class shares, dealt at random by group with seed "
        f"{of.experiment.study.seed}{test}"
    )


def _disjoint(of: Evidence) -> str:
    group = of.experiment.data.group
    by = "copies, and nothing else, so one patient may stand in several folds"
    if isinstance(group, Group) and (group.column or group.pattern):
        by = f"patients (the column '{group.column}')" if group.column else ""
        by = f"patients (file names, by {group.pattern})" if group.pattern else by
        by = ", ".join(filter(None, (by, "near copies" if group.look_alikes else "", "copies")))
    elif of.experiment.data.look_alikes:
        by = "near copies and copies; one patient may stand in several folds"
    split = of.certificate.split_patients
    several = f"; {split:,} suspected patients have pictures in several folds" if split else ""
    return f"disjoint by {by}{several}"


def _sample_size(of: Evidence) -> str:
    curve = of.certificate.curve
    if curve is None or curve.gain is None:
        return ""
    gain, low, high = (100 * value for value in curve.gain)
    return (
        f"not planned; by the learning curve, twice as many groups would bring {gain:.1f} points of "
        f"{curve.metric} (95 % interval {low:.1f} to {high:.1f})"
    )


def _settings(of: Evidence, *sections: str) -> str:
    """All settings of the winner in some sections; of those that are off by being 0, nothing."""
    values = of.verdict.config.items()
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {word(value)}"
        for name, value in values
        if name.startswith(sections) and not (name.startswith("augment.") and value == 0)
    )


def _model(of: Evidence) -> str:
    return _settings(of, "model.", "dropout.", "freeze.", "preprocess.")


def _software(of: Evidence) -> str:
    versions = {**of.versions_here, **of.versions}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _initialisation(of: Evidence) -> str:
    seed = of.experiment.study.seed
    weights = [pin for pin in of.pins if pin.startswith("weights.")]
    if of.verdict.config.get("model.pretrained"):
        named = f" ({', '.join(weights)})" if weights else ""
        return f"pretrained weights{named}; the new head at random, seed {seed}"
    return f"at random, seed {seed}, trial {of.verdict.trial}"


def _training(of: Evidence) -> str:
    return _settings(of, "train.", "optim.", "schedule.", "loss.", "imbalance", "augment.")


def _selection(of: Evidence) -> str:
    states = Counter(one.state for one in of.trials)
    study = of.experiment.study
    how = (
        ""
        if of.verdict.finals is None
        else (
            f"the simplest within one standard error of the best, on fresh folds, among the "
            f"{len(of.verdict.finals.finalists)} with "
        )
    )
    return (
        f"{how}the best mean {study.metric} over the folds, of {states['complete']} complete trials "
        f"({states['pruned']} were stopped early) that {study.sampler} proposed; then refitted on all "
        f"searched pictures for {of.verdict.epochs} epochs"
    )


def _metrics(of: Evidence) -> str:
    chosen = of.experiment.study.metric
    return (
        f"{chosen}, by which was chosen; sensitivity, specificity and precision of every class; calibration "
        "error and Brier score"
    )


def _robustness(of: Evidence) -> str:
    certificate = of.certificate
    done = [f"trained again on fresh folds: {interval_text(certificate.on_fresh)}"]
    if certificate.shuffled:
        found = "which were learnt: a leak" if certificate.leak else "which scored chance"
        done.append(f"on shuffled labels, {found}")
    if any(part.subgroups for part in of.parts):
        done.append("scored by subgroup")
    return ", ".join(done)


def _internal(of: Evidence) -> str:
    honest = of.verdict.honest
    if honest is None:
        return ""
    return f"cross-validated {honest.metric}, corrected for the choice: {interval_text(honest.corrected)}"


def _held_out(of: Evidence) -> str:
    honest = of.verdict.honest
    if honest is None or not honest.held_out:
        return "nothing was held out"
    scores = [f"{one.name}: {interval_text(one.score)}" for one in honest.held_out]
    return "; ".join(scores) + "; whether that is external data, the authors have to say"


def _numbers(of: Evidence) -> str:
    parts = [f"{part.name}: {part.pictures:,} pictures of {part.groups:,} groups" for part in of.parts]
    return "; ".join([*parts, _excluded(of)])


def _characteristics(of: Evidence) -> str:
    columns = list(dict.fromkeys(one.column for part in of.parts for one in part.subgroups))
    return f"by {', '.join(columns)}: see the subgroups" if columns else ""


def _imbalance(of: Evidence) -> str:
    value = of.verdict.config.get("imbalance", "none")
    counts = {part.name: [one.pictures for one in part.classes] for part in of.parts[:1]}
    shares = "; ".join(" : ".join(f"{count:,}" for count in each) for each in counts.values())
    return f"imbalance {value}; pictures a class {shares}"


def _fairness(of: Evidence) -> str:
    return _characteristics(of) and f"scored {_characteristics(of)}"


def _output(of: Evidence) -> str:
    return (
        f"a probability for each class, the largest is the prediction; the temperature is "
        f"{of.temperature.value:.2f}"
    )


def _differences(of: Evidence) -> str:
    if not len(of.manifest.test):
        return "nothing was held out"
    seen = len(of.manifest.straddling)
    shared = of.certificate.shared_pictures
    return (
        f"held out is {of.manifest.held_out_as}, {len(of.manifest.test):,} pictures; of {seen:,} the search "
        f"has a copy, or what was declared to be the same patient, and of {shared:,} a suspected patient, by "
        "names and near copies"
    )


_CLAIM: dict[str, tuple[str, Answer]] = {
    "1": ("title names the AI method", ""),
    "2": ("abstract", ""),
    "3": ("background", ""),
    "4": ("aims and hypotheses", ""),
    "5": ("prospective or retrospective", ""),
    "6": ("goal of the study", _goal),
    "7": ("data sources", _sources),
    "8": ("inclusion and exclusion", _excluded),
    "9": ("preprocessing", _preprocessing),
    "10": ("selection of data subsets", ""),
    "11": ("de-identification", ""),
    "12": ("missing data", _missing),
    "13": ("image acquisition", ""),
    "14": ("reference standard: definition", ""),
    "15": ("reference standard: rationale", ""),
    "16": ("reference standard: annotators", ""),
    "17": ("annotation of the test set", ""),
    "18": ("rater variability", ""),
    "19": ("assignment to partitions", _partition),
    "20": ("level at which partitions are disjoint", _disjoint),
    "21": ("intended sample size", _sample_size),
    "22": ("model", _model),
    "23": ("software", _software),
    "24": ("initialisation", _initialisation),
    "25": ("training", _training),
    "26": ("selection of the final model", _selection),
    "27": ("ensembling", "none: one network"),
    "28": ("metrics", _metrics),
    "29": ("uncertainty", _UNCERTAINTY),
    "30": ("robustness", _robustness),
    "31": ("explainability", ""),
    "32": ("evaluation on internal data", _internal),
    "33": ("testing on external data", _held_out),
    "34": ("registration", ""),
    "35": ("numbers included and excluded", _numbers),
    "36": ("characteristics in each partition", _characteristics),
    "37": ("performance and its uncertainty", "see the scores, with their intervals"),
    "38": (
        "diagnostic performance",
        "see the classes: sensitivity, specificity, precision, with their intervals",
    ),
    "39": ("failure analysis", "which classes are taken for which: see the confusion matrix"),
    "40": ("limitations", ""),
    "41": ("implications for practice", ""),
    "42": ("protocol", _PROTOCOL),
    "43": ("availability of software, model, data", _AVAILABLE),
    "44": ("funding", ""),
}

_TRIPOD: dict[str, tuple[str, Answer]] = {
    "1": ("title", ""),
    "2": ("abstract", ""),
    "3": ("background", ""),
    "4": ("objectives", _goal),
    "5": ("sources and dates of the data", _sources),
    "6": ("participants", ""),
    "7": ("data preparation", _preprocessing),
    "8": ("outcome and how it was assessed", ""),
    "9": ("predictors", _preprocessing),
    "10": ("sample size", _sample_size),
    "11": ("missing data", _missing),
    "12a": ("how data were used and partitioned", _partition),
    "12b": ("handling of predictors", _preprocessing),
    "12c": ("model, building and internal validation", _selection),
    "12d": ("heterogeneity between clusters", ""),
    "12e": ("performance measures", _metrics),
    "12f": ("model updating", ""),
    "12g": ("how predictions are calculated", _output),
    "13": ("class imbalance", _imbalance),
    "14": ("fairness", _fairness),
    "15": ("model output", _output),
    "16": ("development against evaluation data", _differences),
    "17": ("ethics", ""),
    "18a-d": ("funding, conflicts, protocol, registration", ""),
    "18e": ("data sharing", ""),
    "18f": ("code sharing", ""),
    "19": ("patient involvement", ""),
    "20a": ("flow of participants", _numbers),
    "20b": ("characteristics", _characteristics),
    "20c": ("comparison with the evaluation data", _differences),
    "21": ("participants and outcomes in each analysis", _numbers),
    "22": ("full model", _model),
    "23a": ("performance with intervals", "see the scores, with their intervals"),
    "23b": ("heterogeneity of performance", ""),
    "24": ("model updating results", ""),
    "25": ("interpretation", ""),
    "26": ("limitations", ""),
    "27": ("usability", ""),
}

_CLAIM_PARTLY = frozenset({"6", "7", "8", "9", "12", "21", "30", "33", "36", "39", "42", "43"})
_TRIPOD_PARTLY = frozenset({"4", "5", "7", "9", "10", "11", "14", "16", "20a", "20b", "20c"})
