"""Trials as runs of TensorBoard: a folder of event files each, written by its own package without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automed.errors import Fault, StudyError
from automed.loggers.told import Facts, Point, Told

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

_ENDED = "ended"  # an empty file in the folder of a run that is whole


def find_tensorboard(folder: str) -> Path | None:
    """Where the runs go; None: into the study's folder.

    Raises:
        StudyError: something that is no folder stands there.
    """
    if not folder:
        return None
    path = Path(folder).expanduser()
    first = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not first.is_dir():
        raise StudyError(Fault("--log tensorboard: this is no folder", file=str(first)))
    return path


class TensorBoardLogger:
    """One study in TensorBoard: `ROOT/STUDY-ID/00042` is a trial.

    Args:
        root: the folder that TensorBoard is shown; `tensorboard` in the study's folder, if None.
        facts: of the study.
    """

    def __init__(self, root: Path | None, facts: Facts) -> None:
        self._folder = (root or facts.folder / "tensorboard") / f"{facts.study}-{facts.identity}"
        self._writers: dict[int, EventFileWriter] = {}

    def begin(self, trial: Told) -> set[tuple[str, int]] | None:
        """Open a file in the trial's folder; what older ones hold is read."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._folder / trial.name
        if (folder / _ENDED).exists():
            return None
        there = _read(folder) if folder.exists() else set()
        self._writers[trial.number] = EventFileWriter(str(folder))
        if not there:  # killed before the first point, it is written once more, which does no harm
            self._write(trial, _given(trial))
        return there

    def add(self, trial: Told, points: Sequence[Point]) -> None:
        """Write points that are not there yet."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            value = Summary.Value(tag=point.metric, simple_value=point.value)
            self._write(trial, Summary(value=[value]), point.step)
        self._writers[trial.number].flush()

    def end(self, trial: Told) -> None:
        """Write how it ended, and let go of its file."""
        lines = [f"- {key}: {value}" for key, value in trial.tags.items()]
        self._write(trial, _text("trial", "\n".join(lines)))
        self._write(trial, _ended(trial))
        self._writers.pop(trial.number).close()
        (self._folder / trial.name / _ENDED).touch()

    def close(self) -> None:
        """Close what is open."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, trial: Told, summary: Any, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        when = trial.finish.timestamp()
        self._writers[trial.number].add_event(Event(wall_time=when, step=step, summary=summary))


def _read(folder: Path) -> set[tuple[str, int]]:
    """The (metric, step) in the event files of a folder; a last one that was cut short is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    return {
        (value.tag, event.step)
        for file in sorted(folder.glob("*tfevents*"))
        for event in LegacyEventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def _given(trial: Told) -> Any:
    """The trial's settings, as the page of hyperparameters wants them."""
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    settings = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in trial.params.items()
    }
    return hparams_pb(settings, trial_id=trial.name, start_time_secs=trial.start.timestamp())


def _ended(trial: Told) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    good = trial.end != "untrainable"
    status = api_pb2.STATUS_SUCCESS if good else api_pb2.STATUS_FAILURE
    info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=trial.finish.timestamp())
    content = plugin_data_pb2.HParamsPluginData(session_end_info=info)
    return _summary(
        metadata.SESSION_END_INFO_TAG, metadata.create_summary_metadata(content), metadata.NULL_TENSOR
    )


def _text(tag: str, markdown: str) -> Any:
    from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2
    from tensorboard.plugins.text import metadata

    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, string_val=[markdown.encode()],
        tensor_shape=tensor_shape_pb2.TensorShapeProto(),
    )  # fmt: skip
    return _summary(tag, metadata.create_summary_metadata(display_name=tag, description=""), tensor)


def _summary(tag: str, metadata: Any, tensor: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
