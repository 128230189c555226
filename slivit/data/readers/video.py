"""Ultrasound videos, by PyAV; their frames are the slices."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    codec_threads,
    grey_if_equal,
    picked,
    reason,
)

# From PyAV 17 on, each frame would start threads of its own to convert its colours.
CONVERTING = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
SUFFIXES = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg")


def header(path: Path) -> Header:
    """Return the header of a video; its frames are counted, and the first one is decoded.

    Raises:
        ReadError: missing, not a video, or without frames.
    """
    count = _count(path)
    frame = next(_decode(path), None)
    if not count or frame is None:
        raise ReadError(f"{path}: is a video without frames")
    frame = _pixels(frame)
    expected = _announced(path)
    notes = ()
    if count < 0.9 * expected:
        notes = (f"ends early: {count} of about {expected:.0f} frames",)
    return Header("video", (count, *frame.shape), "uint8", notes=notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a video.

    Returns:
        Volume of uint8 frames, (N, H, W) where all of them are grey, else (N, H, W, 3).

    Raises:
        ReadError: see `header`; or it ends early, or frames differ in size.
    """
    count = _count(path)
    frames, total = _frames(path, picked(count, pick))
    if total != count:  # a packet may hold no frame, or several
        frames, total = _frames(path, picked(total, pick))
    if not frames:
        raise ReadError(f"{path}: is a video without frames")
    if len({frame.shape[:2] for frame in frames}) > 1:
        raise ReadError(f"{path}: its frames differ in size, expected one size per video")
    colour = any(frame.ndim == 3 for frame in frames)
    return Volume(np.stack([np.repeat(frame[..., None], 3, axis=-1)
                            if colour and frame.ndim == 2 else frame for frame in frames]))


def _announced(path: Path) -> float:
    """Return about how many frames a file says it has, 0 where it does not say."""
    with av.open(str(path)) as box:
        rate = box.streams.video[0].average_rate
        return float(box.duration * rate) / av.time_base if box.duration and rate else 0.0


def _frames(path: Path, wanted: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Return the wanted frames, and the number of all."""
    kept, numbers, total = [], set(wanted.tolist()), 0
    for frame in _decode(path):
        if total in numbers:
            kept.append(_pixels(frame))
        total += 1
    return kept, total


def _pixels(frame: av.VideoFrame) -> np.ndarray:
    if frame.format.name in ("gray", "gray10le", "gray12le"):
        return frame.to_ndarray(format="gray", **CONVERTING)
    return grey_if_equal(frame.to_ndarray(format="rgb24", **CONVERTING))


def _count(path: Path) -> int:
    return sum(packet.size > 0 for packet in _guarded(path, lambda box: box.demux(video=0)))


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    return _guarded(path, lambda box: box.decode(video=0))


def _check_length(path: Path) -> None:
    """Refuse an AVI file that is shorter than it says; decoders just stop where it ends."""
    with path.open("rb") as file:
        start = file.read(8)
    expected = int.from_bytes(start[4:], "little") + 8
    if start[:4] == b"RIFF" and path.stat().st_size < expected < 2**32:
        raise ReadError(f"{path}: is truncated: {path.stat().st_size} bytes, expected {expected}")


def _guarded(path: Path, what: callable) -> Iterator:
    """Open a video and go through its packets or frames."""
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    _check_length(path)
    try:
        with av.open(str(path)) as box:
            if not box.streams.video:
                raise ReadError(f"{path}: contains no video")
            box.streams.video[0].thread_type = "AUTO"
            box.streams.video[0].thread_count = codec_threads() or 0  # 0: one on every core
            yield from what(box)
    except ReadError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or reason(error, path)
        raise ReadError(f"{path}: cannot be read as a video ({text})") from None
