"""The script that a careful user writes: what automed is measured against.

    python peer.py --root brain-tumor-mri/Training --storage sqlite:///peer.db --trials 24

Optuna proposes, a network of timm's is trained on every fold, torch's DataLoader decodes the pictures. Frozen
layers get no gradient and keep their norms in evaluation mode, the head starts small, cv2 runs on one thread.
Two processes on one study share the work. Of automed it takes the networks alone, so that both sides start
from the same weights with the same dropout and the same frozen stages, and two steps of `data.prepare`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import resource
import time
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2
import filelock
import numpy as np
import optuna
import torch
from albumentations.pytorch import ToTensorV2
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold
from timm.optim import create_optimizer_v2
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from automed.config import TrialConfig, from_flat
from automed.data.prepare import crop_to_content, resize
from automed.kfold_pruner import KFoldPruner
from automed.models.build import Network, build_network
from automed.models.freeze import thaw
from automed.models.weights import weight_source
from automed.train.random_state import RandomState

EPOCHS = 4  # of the space
Pictures = tuple[list[str], np.ndarray, np.ndarray]  # files, labels (n,), the fold of each (n,)


class Folder(Dataset):
    """Decodes a picture each time it is asked for; or once, where what was shrunk is kept in memory."""

    def __init__(
        self, files: list[str], labels: np.ndarray, steps: albumentations.Compose, crop: bool,
        kept: dict[str, np.ndarray] | None, size: int, resize: str,
    ) -> None:  # fmt: skip
        self.files, self.labels, self.steps, self.crop = files, labels, steps, crop
        self.kept, self.size, self.resize = kept, size, resize

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.steps(image=self._read(self.files[row]))["image"], int(self.labels[row])

    def _read(self, file: str) -> np.ndarray:
        if self.kept is not None and file in self.kept:
            return self.kept[file]
        image = cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB)
        if self.crop:
            image = crop_to_content(image)
        image = shrink(image, self.size, self.resize)
        if self.kept is not None:
            self.kept[file] = image
        return image


MEMORY: dict[tuple[int, bool], dict[str, np.ndarray]] = {}
"""Shrunk pictures by size and crop, with `--memory`."""


def shrink(image: np.ndarray, size: int, how: str) -> np.ndarray:
    """By cv2, or by Pillow as automed does, whose filter widens with the factor."""
    if how == "pillow":
        return resize(image, 3, size)
    return cv2.resize(image, (size, size), interpolation=getattr(cv2, f"INTER_{how.upper()}"))


def steps(config: TrialConfig, network: Network, seed: int, *, training: bool) -> albumentations.Compose:
    """The light policy of automed where it is asked for, normalise."""
    light = [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.Affine(
            rotate=(-10, 10), translate_percent={"x": (-0.05, 0.05), "y": (-0.05, 0.05)},
            scale=(0.9, 1.1), keep_ratio=True, p=1.0,
        ),
        albumentations.RandomBrightnessContrast(
            brightness_limit=(-0.1, 0.1), contrast_limit=(-0.1, 0.1), p=1.0
        ),
    ]  # fmt: skip
    return albumentations.Compose(
        [
            *(light if training and config.augment.policy == "light" else []),
            albumentations.Normalize(mean=network.mean, std=network.std),
            ToTensorV2(),
        ],
        seed=seed,
    )


def read_pictures(root: Path, folds_file: Path | None, folds: int, seed: int) -> Pictures:
    """The pictures below `root`, dealt into folds by a file (path,label,...,fold) or by StratifiedKFold."""
    if folds_file is not None:
        with folds_file.open(newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["fold"]]
        names = sorted({row["label"] for row in rows})
        labels = np.array([names.index(row["label"]) for row in rows])
        return [str(root / row["path"]) for row in rows], labels, np.array([int(row["fold"]) for row in rows])
    files = sorted(file for file in root.glob("*/*") if file.is_file())
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    fold_of = np.empty(len(files), np.int64)
    deal = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, chosen) in enumerate(deal.split(files, labels)):
        fold_of[chosen] = fold
    return [str(file) for file in files], labels, fold_of


def suggest(trial: optuna.Trial) -> dict[str, object]:
    """The space of `search_spaces/brain_cpu.yaml` in Optuna's own words."""
    names = [
        "alexnet", "alexnet_mini", "vgg11_bn", "googlenet", "small_cnn", "resnet18", "mobilenetv3_small_100",
        "tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224", "davit_tiny", "inception_next_atto",
    ]  # fmt: skip
    told: dict[str, object] = {"schedule.warmup": 1, "train.batch": 32, "train.epochs": EPOCHS}
    told["model.name"] = trial.suggest_categorical("model.name", names)
    told["model.image_size"] = trial.suggest_categorical("model.image_size", [64, 96])
    if told["model.name"] == "tf_efficientnet_lite0":
        told["model.pretrained"] = True
        told["freeze.depth"] = trial.suggest_float("freeze.depth", 0, 0.75, step=0.25)
        if told["freeze.depth"]:
            told["freeze.thaw_epoch"] = trial.suggest_categorical("freeze.thaw_epoch", [0, 1])
    told["dropout.placement"] = trial.suggest_categorical(
        "dropout.placement", ["none", "head", "late", "all"]
    )
    if told["dropout.placement"] != "none":
        told["dropout.rate"] = trial.suggest_float("dropout.rate", 0.1, 0.5)
    told["optim.name"] = trial.suggest_categorical("optim.name", ["adam", "adamw", "adamp", "sgd"])
    told["optim.lr"] = trial.suggest_float("optim.lr", 3e-4, 1e-2, log=True)
    told["optim.weight_decay"] = trial.suggest_float("optim.weight_decay", 1e-4, 1e-1, log=True)
    told["schedule.name"] = trial.suggest_categorical("schedule.name", ["constant", "cosine"])
    told["loss.name"] = trial.suggest_categorical("loss.name", ["cross_entropy", "focal", "label_smoothing"])
    told["imbalance"] = trial.suggest_categorical("imbalance", ["none", "class_weights", "oversample"])
    told["preprocess.crop"] = trial.suggest_categorical("preprocess.crop", [False, True])
    told["augment.policy"] = trial.suggest_categorical("augment.policy", ["none", "light"])
    told["augment.mixup"] = trial.suggest_categorical("augment.mixup", [0.0, 0.2])
    return told


def usual_order(module: torch.nn.Module) -> torch.nn.Module:
    """ReLUs before pools, as everybody writes it; automed's plain networks pool first: the same function."""
    features = getattr(module, "features", None)
    for place in range(1, len(features) if isinstance(features, torch.nn.Sequential) else 0):
        if isinstance(features[place - 1], torch.nn.MaxPool2d) and isinstance(features[place], torch.nn.ReLU):
            features[place - 1], features[place] = features[place], features[place - 1]
    return module


def rate(config: TrialConfig, epochs_done: float) -> float:
    """What the learning rate is multiplied by: a linear warm-up, then constant or a cosine."""
    warmup = min(config.schedule.warmup, config.train.epochs)
    if epochs_done < warmup:
        return max(epochs_done, 0.01) / warmup
    if config.schedule.name == "constant":
        return 1.0
    share = min((epochs_done - warmup) / max(config.train.epochs - warmup, 1), 1.0)
    return 0.5 * (1 + math.cos(math.pi * share))


def loss_of(
    config: TrialConfig, logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None
) -> torch.Tensor:
    """Cross-entropy, label smoothing or the focal loss, of soft targets."""
    if config.loss.name != "focal":
        smoothing = config.loss.smoothing if config.loss.name == "label_smoothing" else 0.0
        return functional.cross_entropy(logits, targets, weight=weight, label_smoothing=smoothing)
    log_p = functional.log_softmax(logits, dim=1)
    losses = -targets * (1 - log_p.exp()) ** config.loss.gamma * log_p
    return (losses if weight is None else losses * weight).sum(dim=1).mean()


def mixup(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend each picture with another of the batch."""
    partners = torch.from_numpy(rng.permutation(len(images)))
    shares = torch.from_numpy(rng.beta(alpha, alpha, len(images)).astype(np.float32))
    wide, narrow = shares[:, None, None, None], shares[:, None]
    return (
        wide * images + (1 - wide) * images[partners],
        narrow * targets + (1 - narrow) * targets[partners],
    )


def loaders(
    config: TrialConfig, network: Network, pictures: Pictures, fold: int, seed: int,
    asked: argparse.Namespace,
) -> tuple[DataLoader, DataLoader]:  # fmt: skip
    """What a fold trains on and what it is judged on."""
    files, labels, fold_of = pictures
    training, validation = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
    sampler, count = None, len(training)
    if config.imbalance == "oversample":
        counts = np.bincount(labels[training])
        count = int(counts.max()) * len(counts)
        sampler = WeightedRandomSampler(1 / counts[labels[training]], count)
    common = {"num_workers": asked.loader, "persistent_workers": asked.loader > 0}
    size, crop = config.model.image_size, config.preprocess.crop
    kept = MEMORY.setdefault((size, crop), {}) if asked.memory else None
    sets = [
        Folder([files[row] for row in rows], labels[rows], made, crop, kept, size, asked.resize)
        for rows, made in (
            (training, steps(config, network, seed, training=True)),
            (validation, steps(config, network, seed, training=False)),
        )
    ]
    batch = config.train.batch
    return (
        DataLoader(
            sets[0], batch, sampler=sampler, shuffle=sampler is None, drop_last=count % batch == 1, **common
        ),
        DataLoader(sets[1], 128, **common),
    )


def train_epoch(
    config: TrialConfig, model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader,
    epoch: int, weight: torch.Tensor | None, rng: np.random.Generator, classes: int,
) -> float:  # fmt: skip
    """Train one epoch; returns the seconds spent in forward and backward passes."""
    model.train()
    inside = 0.0
    for step, (images, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = config.optim.lr * rate(config, epoch + step / len(loader))
        targets = functional.one_hot(labels, classes).float()
        if config.augment.mixup:
            images, targets = mixup(images, targets, config.augment.mixup, rng)
        optimizer.zero_grad()
        started = time.perf_counter()
        outputs = model(images)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = loss_of(config, outputs[0], targets, weight)
        for auxiliary in outputs[1:]:  # GoogLeNet's
            loss = loss + 0.3 * loss_of(config, auxiliary, targets, weight)
        loss.backward()
        inside += time.perf_counter() - started
        if not math.isfinite(loss.item()):
            raise optuna.TrialPruned(f"the loss became {loss.item()}")
        optimizer.step()
    return inside


@torch.inference_mode()
def evaluate(model: torch.nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Macro F1, and the seconds spent in forward passes."""
    model.eval()
    predicted, wanted, inside = [], [], 0.0
    for images, labels in loader:
        started = time.perf_counter()
        predicted.append(model(images).argmax(dim=1))
        inside += time.perf_counter() - started
        wanted.append(labels)
    score = f1_score(torch.cat(wanted).numpy(), torch.cat(predicted).numpy(), average="macro")
    return float(score), inside


def objective(
    trial: optuna.Trial, config: TrialConfig, pictures: Pictures, asked: argparse.Namespace
) -> tuple[list[float], float]:
    """Cross-validate one configuration; returns each fold's score and seconds in forward and backward."""
    scores: list[float] = []
    inside, epochs, labels = 0.0, config.train.epochs, pictures[1]
    classes = len(set(labels))
    for fold in range(int(pictures[2].max()) + 1):
        # automed's, so that both draw the same weights
        random_state = RandomState((asked.seed, trial.number, fold))
        with random_state.held():
            network = build_network(
                config.model, config.freeze, config.dropout, classes=classes, channels=3,
                weights=weight_source(asked.weights),
            )  # fmt: skip
        seed = 1000 * trial.number + 10 * asked.seed + fold
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        model = usual_order(network.module)
        frozen = [weight for weight in model.parameters() if not weight.requires_grad]
        later = frozen if config.freeze.thaw_epoch else []
        for one in later:  # the optimiser has to know what will be thawed
            one.requires_grad_(True)
        optimizer = create_optimizer_v2(
            model, config.optim.name, lr=config.optim.lr, weight_decay=config.optim.weight_decay,
            momentum=config.optim.momentum,
        )  # fmt: skip
        for one in later:
            one.requires_grad_(False)
        weight = None
        if config.imbalance == "class_weights":
            counts = np.bincount(labels[pictures[2] != fold])
            weight = torch.from_numpy((counts.sum() / (classes * counts)).astype(np.float32))
        training, validation = loaders(config, network, pictures, fold, seed, asked)
        for epoch in range(epochs):
            if epoch == config.freeze.thaw_epoch > 0:
                thaw(model)
            inside += train_epoch(config, model, optimizer, training, epoch, weight, rng, classes)
            score, judging = evaluate(model, validation)
            inside += judging
            trial.report(score, fold * epochs + epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        scores.append(score)
    return scores, inside


def spent() -> tuple[float, float]:
    """CPU seconds of this process and those it waited for, and the time."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used), time.time()


def search(study: optuna.Study, pictures: Pictures, asked: argparse.Namespace) -> list[dict[str, object]]:
    """Run trials until the study has `asked.trials`; returns what each one cost and scored."""
    fixed = json.loads(asked.fixed.read_text()) if asked.fixed else None
    ended = []
    while True:
        cpu, wall = spent()
        with filelock.FileLock(asked.lock):  # SQLite hands one enqueued trial to two who ask at once
            there = study.get_trials(deepcopy=False)
            begun = sum(one.state != optuna.trial.TrialState.WAITING for one in there)
            if begun >= asked.trials or time.time() >= asked.until:
                return ended
            trial = study.ask()
        config = from_flat(fixed if fixed is not None else suggest(trial))
        scores: list[float] = []
        inside = 0.0
        try:
            scores, inside = objective(trial, config, pictures, asked)
            study.tell(trial, float(np.mean(scores)))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        now = spent()
        ended.append({
            "number": trial.number, "cpu": now[0] - cpu, "wall": now[1] - wall, "fold_scores": scores,
            "forward_backward": inside,
        })  # fmt: skip


def main() -> None:
    """Open the study, search, write down what it cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True, help="a folder a class")
    parser.add_argument("--folds-file", type=Path, help="CSV: path,label,...,fold")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--storage", default="sqlite:///peer.db")
    parser.add_argument("--trials", type=int, default=24, help="the total in the study")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, help="the sampler's seed, if not the same")
    parser.add_argument("--weights", help="folder of safetensors files")
    parser.add_argument("--loader", type=int, default=0, help="processes that decode")
    parser.add_argument("--resize", choices=("linear", "area", "pillow"), default="linear")
    parser.add_argument("--memory", action="store_true", help="decode and shrink every picture once")
    parser.add_argument("--pruner", choices=("median", "none", "kfold"), default="median")
    parser.add_argument("--until", type=float, default=math.inf, help="no trial is begun after this time")
    parser.add_argument("--fixed", type=Path, help="JSON: one configuration instead of the space")
    parser.add_argument("--enqueue", type=Path, help="JSON: a list of parameters to try first")
    parser.add_argument("--out", type=Path, default=Path("peer.json"))
    asked = parser.parse_args()
    asked.lock = asked.storage.removeprefix("sqlite:///") + ".lock"
    cv2.setNumThreads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pictures = read_pictures(asked.root, asked.folds_file, asked.folds, asked.seed)
    with filelock.FileLock(asked.lock):
        study = optuna.create_study(
            study_name="peer", storage=asked.storage, direction="maximize", load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=asked.seed if asked.draws is None else asked.draws),
            pruner={
                "median": optuna.pruners.MedianPruner(), "none": optuna.pruners.NopPruner(),
                "kfold": KFoldPruner(n_folds=int(pictures[2].max()) + 1, n_epochs=EPOCHS),
            }[asked.pruner],
        )  # fmt: skip
        if asked.enqueue and not study.get_trials(deepcopy=False):
            for values in json.loads(asked.enqueue.read_text()):
                study.enqueue_trial(values)
    cpu, now = spent()
    startup = {"startup_cpu": cpu, "startup_wall": now - float(os.environ.get("SPEED_BEGAN", now))}
    ended = search(study, pictures, asked)
    asked.out.write_text(json.dumps({**startup, "trials": ended}))


if __name__ == "__main__":
    main()
