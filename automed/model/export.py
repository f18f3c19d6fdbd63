"""A model as one file for another runtime: ONNX or TorchScript, checked against torch before it is told.

The graph takes pictures as they are prepared, (N, size, size, C) uint8, and holds everything after that:
scaling, normalisation, the networks, their mean, the temperature. What comes before stays outside, for it
cannot be exact in a graph: decoding, cropping, CLAHE, and the resize, whose filter is Pillow's. `pictures` in
the file's metadata says how each input is prepared; `automed.data.prepare.prepare` is what does it.

The metadata names the study's data by its fingerprint and the model by its identity, so that a file is not
taken for one of another model. It is no signature.
"""

from __future__ import annotations

import io
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch

from automed.data.cache import replacing
from automed.data.decode import BadPictureError, decoding
from automed.data.prepare import Way
from automed.data.settings import Preprocess
from automed.data.stream import open_stream
from automed.errors import Fault, ModelError
from automed.model.card import CARD, Card, Exported, write_card
from automed.model.combined import ways_of
from automed.model.folder import sha256
from automed.model.loaded import LoadedModel

Form = Literal["onnx", "torchscript"]
Arrays = Sequence[np.ndarray]
Run = Callable[[Arrays], tuple[np.ndarray, np.ndarray]]
"""What takes prepared pictures, an array a way, and gives what `Combined` gives."""
KEY = "automed"
_EXTRA = "automed.json"
_NAMES = {"onnx": "model.onnx", "torchscript": "model.torchscript.pt"}
_MOST = 64  # pictures that it is checked on
_TIMES = 7
_OPSET = 18
_SHRUNK = ["Conv", "MatMul", "Gemm"]


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """How the pictures of one input are prepared."""

    name: str
    size: int
    preprocess: Preprocess


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What an exported file says of itself."""

    identity: str
    study: str
    data: str
    classes: tuple[str, ...]
    temperature: float
    pictures: tuple[Input, ...]
    int8: bool = False


@dataclass(frozen=True)
class Report:
    """What was exported, and how it compares with torch.

    `difference` is the largest in any probability, over so many `pictures`; `agree` the share of them with
    the same label. `ours` and `theirs` are milliseconds a picture, in batches of 1 and of 16.
    """

    file: Path
    bytes: int
    real: bool
    pictures: int
    difference: float
    agree: float
    ours: tuple[float, float]
    theirs: tuple[float, float]


def export_model(
    folder: Path, form: Form, *, out: Path | None = None, images: Sequence[Path] = (), int8: bool = False
) -> Report:
    """Write a model as one file, and check it.

    Args:
        folder: the model folder.
        form: of the file.
        out: where; by default into the folder, whose card then names it.
        images: real pictures to check it on (and to calibrate int8 with); noise, if there are none.
        int8: compute with whole numbers: smaller, and less exact.

    Raises:
        ModelError: the folder is not what its card says, or a package is missing.
    """
    _refuse(form, int8=int8, images=images)
    model = LoadedModel(folder, device="cpu")
    name = _NAMES[form].replace("model.", "model.int8.") if int8 else _NAMES[form]
    file = out or folder / name
    if not file.absolute().parent.is_dir():
        raise ModelError(Fault("there is no such folder to write to", file=str(file.parent)))
    pictures = _pictures(model, images)
    label = _label(model.card, int8=int8)
    content = _onnx(model, pictures, label) if form == "onnx" else _torchscript(model, pictures, label)
    if int8:
        content = _whole_numbers(content, pictures, label)
    run = _runner(content, form)
    report = _compare(model, run, pictures, file, len(content), real=bool(images))
    with replacing(file) as stream:
        stream.write(content)
    if out is None:
        others = tuple(one for one in model.card.exports if one.file != name)
        write_card(
            folder,
            msgspec.structs.replace(model.card, exports=(*others, Exported(file=name, sha256=sha256(file)))),
        )  # fmt: skip
    return report


def _refuse(form: Form, *, int8: bool, images: Sequence[Path]) -> None:
    if form != "onnx" and int8:
        raise ModelError("--int8 is for --format onnx")
    if int8 and not images:
        raise ModelError("--int8 needs --images: real pictures, to learn the range of every value from")
    if form == "onnx":
        require("onnx", "onnxscript", "onnxruntime")


def require(*packages: str) -> None:
    """Refuse to go on without packages of the extra `export`.

    Raises:
        ModelError: one is missing.
    """
    import importlib.util

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        hint = "pip install 'automed[export]'"
        raise ModelError(Fault(f"ONNX needs {', '.join(missing)}, which is not installed", hint=hint))


def _pictures(model: LoadedModel, images: Sequence[Path]) -> Arrays:
    """Prepared pictures to check with, an array a way: real ones, from all over the sources, or noise."""
    if not images:
        random = np.random.default_rng(0)
        return [
            random.integers(0, 256, (16, size, size, preprocess.channels), np.uint8)
            for preprocess, size in model.ways
        ]
    stream = open_stream(images)
    step = max(1, stream.count // _MOST)
    prepared: list[list[np.ndarray]] = []
    with decoding():
        for number, picture in enumerate(stream):
            if number % step == 0 and len(prepared) < _MOST:
                try:
                    prepared.append(model.prepare(picture.read()))
                except BadPictureError:
                    continue
    if not prepared:
        raise ModelError("none of the pictures to check with can be read")
    return [np.stack([one[way] for one in prepared]) for way in range(len(model.ways))]


def _label(card: Card, *, int8: bool) -> Label:
    return Label(
        identity=card.identity, study=card.source.study, data=card.source.data, classes=card.classes,
        temperature=card.temperature, int8=int8,
        pictures=tuple(
            Input(name=f"pictures{number}", size=size, preprocess=preprocess)
            for number, (preprocess, size) in enumerate(ways_of(card))
        ),
    )  # fmt: skip


def _examples(pictures: Arrays) -> tuple[torch.Tensor, ...]:
    """Two of each: the exporters take one picture for a fixed size."""
    return tuple(torch.from_numpy(np.resize(array, (2, *array.shape[1:]))) for array in pictures)


def _onnx(model: LoadedModel, pictures: Arrays, label: Label) -> bytes:
    import onnx

    examples = _examples(pictures)
    many = torch.export.Dim("pictures")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of deprecations inside torch, and of names for dimensions
        program = torch.onnx.export(
            model.module, examples, dynamo=True, opset_version=_OPSET, verbose=False,
            dynamic_shapes=(tuple({0: many} for _ in examples),),
            input_names=[one.name for one in label.pictures], output_names=["probability", "members"],
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    return _labelled(onnx, proto, label)


def _labelled(onnx: Any, proto: Any, label: Label) -> bytes:
    onnx.helper.set_model_props(proto, {KEY: msgspec.json.encode(label).decode()})
    content: bytes = proto.SerializeToString()
    return content


def _torchscript(model: LoadedModel, pictures: Arrays, label: Label) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch is about to leave TorchScript; others still run it
        jit: Any = torch.jit
        traced = jit.trace(model.module, _examples(pictures), check_trace=False)
        jit.save(traced, stream, _extra_files={_EXTRA: msgspec.json.encode(label)})
    return stream.getvalue()


def _whole_numbers(content: bytes, pictures: Arrays, label: Label) -> bytes:
    """Weights and values as int8, ranges from real pictures (static quantisation, a scale a channel).

    The few values that lie farthest out do not set a range. What hardly shrinks and suffers most stays as it
    is: depthwise convolutions, the first layer and the last.
    """
    import contextlib
    import tempfile

    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            names = [one.name for one in label.pictures]
            self._batches = iter(
                [
                    {name: array[start : start + 8] for name, array in zip(names, pictures, strict=True)}
                    for start in range(0, len(pictures[0]), 8)
                ]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    aside = contextlib.redirect_stdout(io.StringIO())  # it prints what it does
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), aside:
        warnings.simplefilter("ignore")
        whole, ready, small = (str(Path(folder) / name) for name in ("whole", "ready", "small"))
        Path(whole).write_bytes(content)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, small, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=_SHRUNK, activation_type=QuantType.QUInt8,
            nodes_to_exclude=_delicate(onnx.load(ready).graph.node),
            calibrate_method=CalibrationMethod.Percentile, extra_options={"CalibPercentile": 99.99},
        )  # fmt: skip
        return _labelled(onnx, onnx.load(small), label)


def _delicate(nodes: Sequence[Any]) -> list[str]:
    """The names of the first and last layers and of depthwise convolutions."""
    layers = [node for node in nodes if node.op_type in _SHRUNK]
    apart = [
        node for node in layers
        if any(one.name == "group" and one.i > 1 for one in node.attribute)
    ]  # fmt: skip
    return list(dict.fromkeys(node.name for node in [*layers[:1], *apart, *layers[-1:]]))


def _runner(content: bytes, form: Form) -> Run:
    if form == "onnx":
        session = open_session(content)
        return lambda arrays: run_session(session, arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        loaded = jit.load(io.BytesIO(content))

    def run(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            probability, members = loaded(*(torch.from_numpy(array) for array in arrays))
        return probability.numpy(), members.numpy()

    return run


def open_session(content: bytes) -> Any:
    """An onnxruntime session with as many threads as torch has.

    Raises:
        ModelError: it is no ONNX file.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises errors of its own for each thing that is wrong
        why = " ".join(str(error).split())[:200]
        raise ModelError(f"is not an ONNX file, or a damaged one: {why}") from None


def run_session(session: Any, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """What `Combined` would give."""
    names = [one.name for one in session.get_inputs()]
    probability, members = session.run(["probability", "members"], dict(zip(names, arrays, strict=True)))
    return probability, members


def _compare(
    model: LoadedModel, run: Run, pictures: Arrays, file: Path, size: int, *, real: bool
) -> Report:  # fmt: skip
    def ours(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            probability, members = model.module(*(torch.from_numpy(array) for array in arrays))
        return probability.numpy(), members.numpy()

    one, other = ours(pictures)[0], run(pictures)[0]
    return Report(
        file=file, bytes=size, real=real, pictures=len(one), difference=float(np.abs(one - other).max()),
        agree=float((one.argmax(axis=1) == other.argmax(axis=1)).mean()),
        ours=(_pace(ours, pictures, 1), _pace(ours, pictures, 16)),
        theirs=(_pace(run, pictures, 1), _pace(run, pictures, 16)),
    )  # fmt: skip


def _pace(run: Run, pictures: Arrays, count: int) -> float:
    """Milliseconds a picture in batches of so many: the median of some runs, after one to warm up."""
    batch = [np.resize(array, (count, *array.shape[1:])) for array in pictures]
    run(batch)
    seconds = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        run(batch)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds) / count


def report_lines(report: Report) -> list[str]:
    """A report in words."""
    what = "real pictures" if report.real else "pictures of noise (--images checks it on real ones)"
    return [
        f"largest difference to torch in any probability: {report.difference:.2g}, on {report.pictures} "
        f"{what}; the same label for {report.agree:.1%}",
        f"{report.bytes / 1e6:.1f} MB; ms a picture alone and in batches of 16: {report.theirs[0]:.2f} and "
        f"{report.theirs[1]:.2f} (torch {report.ours[0]:.2f} and {report.ours[1]:.2f})",
        "decoding, cropping and resizing are not in the graph: it takes pictures as "
        "automed.data.prepare.prepare gives them",
        f"written: {report.file}",
    ]


def ways_in(label: Label) -> list[Way]:
    """How pictures are prepared for an exported file."""
    return [(one.preprocess, one.size) for one in label.pictures]


def read_label(session: Any, file: Path, card: Card) -> Label:
    """What an ONNX file says of itself, held against a card.

    Raises:
        ModelError: it was not exported by automed, or from another model.
    """
    told = session.get_modelmeta().custom_metadata_map.get(KEY)
    try:
        label = msgspec.json.decode(told or b"", type=Label)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ModelError(Fault("was not exported by automed", file=str(file))) from None
    mine = card.source
    if label.data != mine.data:
        message = f"is of another study: '{label.study}' on data {label.data[:12]}, and {CARD} is of "
        raise ModelError(Fault(f"{message}'{mine.study}' on data {mine.data[:12]}", file=str(file)))
    if label.identity != card.identity:
        raise ModelError(Fault(f"was exported from another model of '{label.study}'", file=str(file)))
    return label
