"""The knobs of preprocessing and augmentation, and what a file must say of its images."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from automed.settings import Needs, setting


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture tells whose it is: by a column or a pattern, and whether near copies count as well."""

    column: Annotated[str | None, setting("a column of the CSV, such as patient")] = None
    pattern: Annotated[
        str | None, setting("a regular expression over the file name; its first group is the patient")
    ] = None
    look_alikes: Annotated[
        bool, setting("near copies belong together as well: resized, mirrored, slightly cropped pictures")
    ] = False


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which images, and what belongs together. Not searched."""

    group: Annotated[
        Literal["none", "look_alikes"] | Group,
        setting(
            "what never stands on both sides of a split: {column: ...}, {pattern: ...}, look_alikes or none"
        ),
    ]
    path: Annotated[str | None, setting("a folder, a CSV or an npz file; --data overrides it")] = None
    test: Annotated[
        str, setting("the split held out and never searched, such as Testing; none: nothing is held out")
    ] = "none"
    split: Annotated[
        Literal["official", "pooled"],
        setting("hold out the split that test names, or pool all splits and draw a new test part by group"),
    ] = "official"
    test_share: Annotated[
        float,
        setting("share of the pictures in the test part that is drawn of pooled splits", ge=0.05, le=0.5),
    ] = 0.2
    outside: Annotated[bool, setting("pictures of a CSV may lie outside its folder")] = False
    on_bad_image: Annotated[
        Literal["fail", "skip"], setting("stop at a picture that cannot be read, or leave it out")
    ] = "fail"

    @property
    def look_alikes(self) -> bool:
        """Whether near copies belong together."""
        return self.group == "look_alikes" or (isinstance(self.group, Group) and self.group.look_alikes)


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done once to every picture before it is resized."""

    channels: Annotated[Literal[1, 3], setting("grey, or red-green-blue")] = 3
    crop: Annotated[bool, setting("cut away the empty border around the content")] = False
    clahe: Annotated[
        float, setting("clip limit of the local histogram equalisation; 0: off", ge=0, le=40)
    ] = 0.0
    edges: Annotated[float, setting("strength of the high-pass edge enhancement; 0: off", ge=0, le=5)] = 0.0


_CUSTOM = (Needs("augment.policy", among=("custom",)),)


class Augment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is varied at random while training. 0 leaves an operation out."""

    policy: Annotated[
        Literal["none", "light", "strong", "custom"],
        setting("a ready set of operations, or custom: each operation below by its own strength"),
    ] = "none"
    hflip: Annotated[float, setting("probability of a left-right flip", ge=0, le=1, needs=_CUSTOM)] = 0.0
    vflip: Annotated[float, setting("probability of an up-down flip", ge=0, le=1, needs=_CUSTOM)] = 0.0
    rotate: Annotated[float, setting("largest angle in degrees", ge=0, le=180, needs=_CUSTOM)] = 0.0
    shift: Annotated[float, setting("largest shift, as a share", ge=0, le=0.5, needs=_CUSTOM)] = 0.0
    shear: Annotated[float, setting("largest shear in degrees", ge=0, le=45, needs=_CUSTOM)] = 0.0
    zoom: Annotated[float, setting("largest change of scale, as a share", ge=0, le=0.9, needs=_CUSTOM)] = 0.0
    brightness_contrast: Annotated[
        float, setting("largest change of brightness and contrast, as a share", ge=0, le=1, needs=_CUSTOM)
    ] = 0.0
    clahe: Annotated[
        float, setting("probability of a local histogram equalisation", ge=0, le=1, needs=_CUSTOM)
    ] = 0.0
    emboss: Annotated[float, setting("probability of an emboss filter", ge=0, le=1, needs=_CUSTOM)] = 0.0
    sharpen: Annotated[float, setting("probability of a sharpening filter", ge=0, le=1, needs=_CUSTOM)] = 0.0
    blur: Annotated[float, setting("largest Gaussian sigma in pixels", ge=0, le=10, needs=_CUSTOM)] = 0.0
    noise: Annotated[
        float, setting("largest Gaussian noise, as a share of white", ge=0, le=1, needs=_CUSTOM)
    ] = 0.0
    center_crop: Annotated[
        float, setting("largest border cut away all round, as a share", ge=0, le=0.9, needs=_CUSTOM)
    ] = 0.0
    mosaic: Annotated[float, setting("probability of a mosaic of four pictures", ge=0, le=1)] = 0.0
    mixup: Annotated[float, setting("alpha of mixup (Zhang et al. 2018)", ge=0, le=10)] = 0.0
    cutmix: Annotated[float, setting("alpha of CutMix (Yun et al. 2019)", ge=0, le=10)] = 0.0
