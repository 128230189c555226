"""Ultrasound videos: frames, their order, and what is refused."""

import av
import numpy as np
import pytest
from scan_files import read_both, refused, write_video

from slivit.data.readers import read_volume, volume_header

GREY = np.random.default_rng(0).integers(0, 255, (9, 32, 48), dtype=np.uint8)
STEPS = np.stack([np.full((32, 48), 20 + 25 * k, np.uint8) for k in range(9)])
COLOUR = np.repeat(STEPS[..., None], 3, axis=-1) // np.array([1, 2, 4], np.uint8)


@pytest.mark.parametrize(("name", "codec", "pix_fmt", "frames"), [
    ("x.avi", "ffv1", "gray", GREY), ("x.mkv", "ffv1", "gray", GREY),
    ("x.mov", "png", "rgb24", np.stack([GREY, GREY[::-1], GREY], axis=-1)),
    ("x.AVI", "ffv1", "gray10le", GREY),
])
def test_frames_come_as_they_were_written(tmp_path, name, codec, pix_fmt, frames):
    volume = read_both(write_video(tmp_path / name.lower(), frames, codec, pix_fmt
                                   ).rename(tmp_path / name))
    assert volume.slices.dtype == np.uint8
    assert (volume.slices == frames).all()
    assert (volume_header(tmp_path / name).kind, volume.axes) == ("video", None)


def test_motion_jpeg_of_grey_frames_is_grey(tmp_path):
    """As EchoNet-Dynamic stores them."""
    volume = read_both(write_video(tmp_path / "x.avi", STEPS, "mjpeg", "yuvj420p"))
    assert volume.slices.shape == STEPS.shape
    assert np.abs(volume.slices.astype(int) - STEPS).max() <= 3


@pytest.mark.parametrize(("name", "codec", "options"), [
    ("x.mp4", "mpeg4", {"bf": "2"}), ("x.mp4", "libx264", {"bf": "3"}),
    ("x.webm", "libvpx-vp9", {}), ("x.wmv", "wmv2", {}), ("x.mpg", "mpeg1video", {"bf": "2"}),
])
def test_colour_frames_come_in_the_order_of_the_film(tmp_path, name, codec, options):
    """Also where the file stores them in another one."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    rate = {"mpeg1video": 25}.get(codec, 10)
    frames = COLOUR.repeat(2, axis=0)[:rate]
    volume = read_both(write_video(tmp_path / name, frames, codec, "yuv420p", rate, **options))
    assert volume.slices.shape == frames.shape
    assert np.abs(volume.slices.astype(int) - frames).mean() < 12
    assert (np.diff(volume.slices[::2, 10:20, 10:20, 0].mean(axis=(1, 2))) > 10).all()


@pytest.mark.parametrize(("name", "codec"), [("x.avi", "mjpeg"), ("x.mp4", "mpeg4")])
def test_picked_frames_are_those_of_the_whole(tmp_path, name, codec):
    path = write_video(tmp_path / name, COLOUR, codec,
                       "yuvj420p" if codec == "mjpeg" else "yuv420p")
    whole = read_volume(path).slices
    picked = read_volume(path, lambda count: np.array([0, 3, count - 1])).slices
    assert (picked == whole[[0, 3, 8]]).all()


def test_one_colour_frame_makes_a_colour_video(tmp_path):
    frames = np.repeat(GREY[..., None], 3, axis=-1)
    frames[4, 0, 0] = (1, 2, 3)
    assert (read_volume(write_video(tmp_path / "x.mov", frames, "png", "rgb24")).slices
            == frames).all()


def write_sound(path, with_video=False):
    """Write a second of silence, and beside it a film that never begins."""
    with av.open(str(path), "w") as box:
        stream = box.add_stream("pcm_s16le", rate=8000)
        if with_video:
            film = box.add_stream("mjpeg", rate=10)
            film.width, film.height, film.pix_fmt = 32, 32, "yuvj420p"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        box.mux(stream.encode(frame))
        box.mux(stream.encode(None))


@pytest.mark.parametrize(("name", "make", "message"), [
    ("empty.mp4", lambda path: path.write_bytes(b""), "cannot be read as a video"),
    ("sound.avi", write_sound, "contains no video"),
    ("still.avi", lambda path: write_sound(path, True), "is a video without frames"),
    ("absent.mp4", lambda path: None, "does not exist"),
])
def test_what_is_no_video_is_refused(tmp_path, name, make, message):
    make(tmp_path / name)
    refused(tmp_path / name, f"{name}: {message}")


@pytest.mark.parametrize(("name", "kept"), [("x.mp4", 0.02), ("x.mp4", 0.5), ("x.mp4", 0.9),
                                            ("x.avi", 0.02), ("x.avi", 0.5), ("x.avi", 0.999)])
def test_a_video_that_breaks_off_is_refused(tmp_path, name, kept):
    codec = "mpeg4" if name == "x.mp4" else "ffv1"
    path = write_video(tmp_path / name, GREY, codec, "yuv420p" if codec == "mpeg4" else "gray")
    content = path.read_bytes()
    path.write_bytes(content[:int(kept * len(content))])
    refused(path, f"{name}: ")
