"""Make the gallery's pictures again: real pages in a real Chromium, and only drawn pictures on them.

In an empty folder, with REPO for this repository::

    export PYTHONPATH=REPO
    automed search && automed certify phantom
    automed search --space REPO/studies/brain-tumor-mri/frozen.yaml --data brain-tumor-mri
    python REPO/studies/report/fabricate.py . --trials 200
    python REPO/.docs/shots.py [NAME ...]

Of the brain-tumour study only sections without pictures are taken.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from automed.data.phantom import draw_phantom
from tests.browser import Browser, browser

IMAGES = Path(__file__).resolve().parent / "pages" / "images"
SPACE = """
study: {name: hospital}
data: {group: {pattern: "^(P[0-9]+)_"}, test: Testing}
space: {model: {name: small_cnn}}
"""
_COPIES: tuple[Callable[[Image.Image], Image.Image], ...] = (
    lambda picture: picture.resize((96, 96)),
    ImageOps.mirror,
    lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    lambda picture: picture.crop((5, 4, 122, 121)),
    lambda picture: picture,
)


def plant(out: Path) -> None:
    """Draw a set and spoil it as real ones are: copies across, two labels, a scanner, a size that tells."""
    draw_phantom(out, patients=280, slices=2, size=128, seed=3)
    random = np.random.default_rng(0)
    searched, held_out = (sorted((out / split).rglob("*.png")) for split in ("Training", "Testing"))
    for number, index in enumerate(random.choice(len(searched), 14, replace=False)):
        copy = _COPIES[number % len(_COPIES)](Image.open(searched[index]))
        copy.save(out / "Testing" / searched[index].parent.name / f"P{5000 + number}_00.png")
    gliomas = [file for file in searched if file.parent.name == "glioma_tumor"]
    for index in random.choice(len(gliomas), 3, replace=False):
        shutil.copy(gliomas[index], out / "Training" / "meningioma_tumor" / f"P9{gliomas[index].name[2:]}")
    for file in [file for file in held_out if file.parent.name == "glioma_tumor"]:
        pale = ImageEnhance.Contrast(Image.open(file)).enhance(0.7)
        ImageEnhance.Brightness(pale).enhance(0.8).save(file)
    for file in (out / "Training" / "no_tumor").iterdir():
        Image.open(file).resize((112, 112)).save(file)


def shoot(page: Browser, name: str, *, top: float, height: float, width: int) -> None:
    """Keep a part of the page, as small as it gets."""
    clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
    shot = page.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    kept = []
    for how in ({"lossless": True}, {"quality": 85}):
        buffer = io.BytesIO()
        picture.save(buffer, "webp", method=6, **how)
        kept.append(buffer.getvalue())
    (IMAGES / f"{name}.webp").write_bytes(min(kept, key=len))


def sections(page: Browser, name: str, file: Path, first: str, after: str, size: dict[str, int]) -> None:
    """One or several sections of a page, light and dark: from `first` (else the top) to before `after`."""
    for dark in (False, True):
        page.open(file.resolve().as_uri(), width=size["width"], dark=dark)
        page.probe()  # until its pictures are there
        start, end = (
            page.run(f"document.{place}.getBoundingClientRect().top + scrollY")
            for place in (f"getElementById('{first}')" if first else "body", f"getElementById('{after}')")
        )
        height = min(end - start, size["most"])
        shoot(page, name + "-dark" * dark, top=start, height=height, width=size["width"])


def dashboard(page: Browser, study: str) -> None:
    """The dashboard's first page, light: it has its own switch for the dark."""
    process = subprocess.Popen(
        [sys.executable, "-m", "automed", "dashboard", study, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = re.findall(r"http://\S+", process.stdout.readline())[0]
        page.open(address, width=1280)
        time.sleep(10)  # until its plots have moved to where they stay
        shoot(page, "dashboard", top=0, height=1230, width=1280)
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Take the pictures of these names, or all of them, of the studies in this folder."""
    studies = Path("studies")
    phantom, made_up = studies / "phantom", studies / "made-up"
    wide, phone = {"most": 1100, "width": 1000}, {"most": 1100, "width": 420}
    plan: dict[str, tuple[Path, str, str, dict[str, int]]] = {
        "audit": (Path("audit.html"), "", "finding-4", wide),
        "copies": (Path("audit.html"), "finding-2", "finding-4", wide),
        "report": (phantom / "report.html", "", "mistakes", wide),
        "learnt": (phantom / "report.html", "learnt", "calibration", wide),
        "mistakes": (phantom / "report.html", "mistakes", "cost", {"most": 700, "width": 1000}),
        "phone": (phantom / "report.html", "answer", "course", phone),
        "certificate": (phantom / "winner" / "certificate.html", "", "subgroups", wide),
        "mattered": (made_up / "report.html", "mattered", "learnt", wide),
        "brain": (studies / "brain-frozen" / "report.html", "", "searched", wide),
    }
    names = sys.argv[1:] or [*plan, "dashboard"]
    write_pages()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        for name in names:
            if name == "dashboard":
                dashboard(page, "phantom")
            else:
                sections(page, name, *plan[name])


def write_pages() -> None:
    """The audit of a spoilt set, and the studies' reports, where they are not there yet."""
    automed = [sys.executable, "-m", "automed"]
    if not Path("audit.html").exists():
        Path("hospital.yaml").write_text(SPACE)
        plant(Path("hospital"))
        asked = ["--space", "hospital.yaml", "--html", "audit.html"]
        subprocess.run([*automed, "audit", "hospital", *asked], check=False)  # 1: it has findings
    for folder in Path("studies").iterdir():
        if not (folder / "report.html").exists():
            subprocess.run([*automed, "report", folder.name], check=True)


if __name__ == "__main__":
    main()
