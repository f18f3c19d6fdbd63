"""The same pictures by `automed predict`, by its exported ONNX file, and by timm and torch alone.

    automed export MODEL --images IMAGES
    python studies/predict/agree.py --model MODEL --images IMAGES

timm alone knows of automed only the card and the weights; its pictures are decoded with Pillow here.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from automed.model.predict import predict_files


def written(model: Path, images: Path, folder: Path, onnx: Path | None) -> tuple[list[str], np.ndarray]:
    """Paths and probabilities of a file that `predict` wrote."""
    out = folder / "p.csv"
    predict_files(model, [images], out, onnx=onnx)
    with out.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if not row["reason"]]
    named = [name for name in rows[0] if name.startswith("probability_")]
    return [row["path"] for row in rows], np.array([[float(row[name]) for name in named] for row in rows])


def alone(model: Path, paths: list[str]) -> np.ndarray | None:
    """Probabilities by timm alone; None where a member is a plain network, or pictures are cropped first."""
    card = json.loads((model / "card.json").read_text())
    total = 0.0
    for member in card["members"]:
        prepared = member["preprocess"]
        if member["timm"] is None or prepared["crop"] or prepared["clahe"] or prepared["edges"]:
            return None
        net = timm.create_model(**member["timm"], checkpoint_path=model / member["weights"]).eval()
        size, mode = member["network"]["image_size"], "L" if prepared["channels"] == 1 else "RGB"
        mean, std = (torch.tensor(member[key]).view(-1, 1, 1) for key in ("mean", "std"))
        said = []
        for path in paths:
            picture = Image.open(path).convert(mode).resize((size, size), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(picture)).view(size, size, -1).permute(2, 0, 1) / 255
            with torch.no_grad():
                said.append(net(((pixels - mean) / std)[None]).softmax(1)[0].numpy())
        total = total + member["share"] * np.array(said, np.float64)
    raised = np.asarray(total) ** (1 / card["temperature"])
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        paths, ours = written(asked.model, asked.images, Path(place), None)
        _, onnx = written(asked.model, asked.images, Path(place), asked.model / "model.onnx")
    print(f"{len(paths)} pictures")
    worst = float(np.abs(ours - onnx).max())
    print(f"predict and ONNX: largest difference in any probability {worst:.2g}")
    timms = alone(asked.model, paths)
    if timms is None:
        print("timm alone: it cannot read this model")
    else:
        worst = max(worst, float(np.abs(ours - timms).max()))
        print(f"predict and timm alone: {np.abs(ours - timms).max():.2g}")
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
