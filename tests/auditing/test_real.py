"""What the audit has to say of real sets, unprompted."""

from collections.abc import Callable
from pathlib import Path

from automed.auditing.examine import examine
from automed.auditing.finding import Audit, Finding
from automed.auditing.material import load

Shared = Callable[[str], Path]


def audited(path: Path) -> tuple[Audit, dict[str, list[Finding]]]:
    audit = examine(load(path))
    found: dict[str, list[Finding]] = {}
    for finding in audit.findings:
        found.setdefault(finding.kind, []).append(finding)
    return audit, found


def test_brain_tumor_mri(shared: Shared) -> None:
    audit, found = audited(shared("brain-tumor-mri"))
    facts = audit.facts
    assert (facts.files, facts.different_files, facts.different_pictures) == (3264, 3027, 2870)
    assert (facts.grey, facts.modes, facts.minority) == (3264, {"RGB": 3264}, "no_tumor")
    (copies,), (across,) = found["copies"], found["copies across"]
    assert (copies.evidence["redundant_files"], copies.evidence["redundant_pictures"]) == (237, 394)
    assert across.evidence == {"pictures": 213, "files": 64, "held_out_seen": 251, "held_out": 394}
    assert "64 files, all 'no_tumor'" in across.sentence
    assert len(across.clusters) == 213
    verdicts = {one.label: one for one in audit.shifts}
    for label in ("glioma_tumor", "meningioma_tumor", "pituitary_tumor"):
        told = verdicts[label].of_all
        assert verdicts[label].verdict == "shifted"
        assert told is not None and told.auc > 0.8 > 0.7 > told.null.high
    healthy = verdicts["no_tumor"]
    assert (healthy.verdict, healthy.new_files, healthy.new_pixels) == ("undecidable", 17, 0)
    assert {finding.evidence["label"] for finding in found["shift"]} == set(verdicts) - {"no_tumor"}
    assert found["imbalance"][0].evidence["minority"] == "no_tumor"


def test_brain_mri_yes_no(shared: Shared) -> None:
    audit, found = audited(shared("brain-mri-yes-no"))
    assert found["copies"][0].count == len(found["copies"][0].clusters) == 22
    assert set(audit.facts.modes) == {"RGB", "L", "RGBA", "P"}
    assert "size" in {finding.evidence["cue"] for finding in found["shortcut"]}
    assert audit.shifts == []


def test_covid19_xray(shared: Shared) -> None:
    _, found = audited(shared("covid19-xray"))
    assert found["copies"][0].count == 10
    (across,) = found["copies across"]
    assert across.count == 6
    assert all({p.split for p in cluster.pictures} == {"train", "val"} for cluster in across.clusters)
    (mode,) = [one for one in found["shortcut"] if one.evidence["cue"] == "image mode"]
    assert (mode.evidence["value"], mode.evidence["label"], mode.evidence["in_all"]) == ("L", "Covid", 42)


def test_breastmnist(shared: Shared) -> None:
    _, found = audited(shared("breastmnist.npz"))
    exact = [one for one in found["contradiction"] if one.severity == "high"]
    assert [one.count for one in exact] == [1]
    (cluster,) = exact[0].clusters
    assert [(p.label, p.split) for p in cluster.pictures] in (
        [("0", "train"), ("1", "test")],
        [("1", "train"), ("0", "test")],
    )
