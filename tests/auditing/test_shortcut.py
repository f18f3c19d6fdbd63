from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.naive_bayes import CategoricalNB

from automed.auditing.chance import parts
from automed.auditing.material import load
from automed.auditing.shortcut import _indicators, _score, find_shortcuts

Paint = Callable[..., Path]


def test_a_clean_set_has_no_shortcut_and_says_what_does_not_vary(clean: Path) -> None:
    material = load(clean)
    cues, findings = find_shortcuts(material, material.manifest.groups)
    assert findings == []
    still = {cue.name for cue in cues if cue.score is None}
    assert still == {"image mode", "colour", "file type", "size", "aspect"}


def test_brightness_that_tells_the_class(tmp_path: Path, paint: Paint) -> None:
    for seed in range(80):
        paint(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed, level=100 + 60 * (seed % 2))
    material = load(tmp_path)
    cues, findings = find_shortcuts(material, material.manifest.groups)
    told = {cue.name: cue for cue in cues}["brightness"]
    assert told.told and told.score is not None and told.score > 0.9
    (finding,) = [one for one in findings if one.evidence["cue"] == "brightness"]
    assert finding.severity == "high"
    assert [{picture.label for picture in cluster.pictures} for cluster in finding.clusters] == [{"a"}, {"b"}]


def test_a_mode_that_a_third_of_one_class_has_alone(tmp_path: Path, paint: Paint) -> None:
    for seed in range(120):
        label = "abc"[seed % 3]
        paint(tmp_path / label / f"{seed}.png", seed, mode="L" if label == "a" and seed % 9 == 0 else "RGB")
    material = load(tmp_path)
    _, (finding,) = find_shortcuts(material, material.manifest.groups)
    assert (finding.kind, finding.evidence["value"], finding.evidence["label"]) == ("shortcut", "L", "a")
    assert finding.count == finding.evidence["in_all"] == 14
    assert "all 14 pictures stored as L are in one class, 'a'" in finding.sentence


def test_one_patients_mode_is_no_shortcut(tmp_path: Path, paint: Paint) -> None:
    for patient in range(24):
        for cut in range(5):
            file = tmp_path / "ab"[patient % 2] / f"P{patient:02}_{cut}.png"
            paint(file, 100 * patient + cut, mode="L" if patient in (2, 4) else "RGB")
    material = load(tmp_path)
    assert material.known == "guessed"
    assert find_shortcuts(material, material.manifest.groups)[1] == []


@pytest.mark.parametrize("values", ["words", "numbers"])
def test_the_classifier_is_scikit_learns(values: str) -> None:
    rng = np.random.default_rng(3)
    labels = np.column_stack([rng.integers(0, 3, 90) for _ in range(4)])
    numbers = rng.normal(size=(90, 3)) + labels[:, :1]
    words = [f"w{number}" for number in rng.integers(0, 4, 90) + labels[:, 0]]
    onehot = _indicators(words if values == "words" else numbers)
    assert onehot is not None
    deals = list(parts(np.arange(90), 5, 0))
    ours = _score("", onehot, labels, deals, 3)
    widths, start, columns = [], 0, []
    while start < onehot.shape[1]:
        widths.append(int(onehot[-1, start]))
        columns.append(onehot[:-1, start : start + widths[-1]].argmax(axis=1))
        start += widths[-1]
    table = np.column_stack(columns)
    for column in range(4):
        guess = np.zeros(90, int)
        for learn, judge in deals:
            model = CategoricalNB(fit_prior=False, min_categories=widths)
            guess[judge] = model.fit(table[learn], labels[learn, column]).predict(table[judge])
        expected = balanced_accuracy_score(labels[:, column], guess)
        assert [ours.score, *ours.null][column] == pytest.approx(expected)
