"""What a training says of the backbone that it starts from: patients and images it has seen."""

from pathlib import Path

from slivit.checkpoints.pretrained import PretrainedBackbone
from slivit.checkpoints.subjects import also_in_training, seen_in_training, subject_word
from slivit.config import Preprocess
from slivit.data.scan_table import ScanTable
from slivit.utils.log import LOG


def warn_of_seen(start: PretrainedBackbone, scans: ScanTable) -> None:
    """Warn if the weights were trained on some of those who are to be predicted, scans of test.

    Args:
        start: the weights.
        scans: of the run.
    """
    if start.card is None or not len(scans.rows("test")):
        return
    subjects = scans.subjects_of("test")
    seen = seen_in_training(scans, subjects, start.card, Path(start.source))
    if seen.found:
        LOG.warning("warning: %sthe scores on test are too optimistic", also_in_training(
            scans, len(seen.found), len(subjects), " of test",
            f"the backbone {start.source}, or of what it started from"))
    if seen.untold:
        LOG.info("cannot tell whether %s%s of test were in the training of the backbone %s: %s",
                 "more " * bool(seen.found), subject_word(scans), start.source, seen.untold)


def tell_of_input(start: PretrainedBackbone, preprocess: Preprocess) -> None:
    """Say in what the images that the weights were trained on differ from those here.

    Windows of images that are shown in their full range, such as PNG, are not compared.

    Args:
        start: the weights.
        preprocess: of the run.
    """
    if start.card is None:
        return
    own = start.card.preprocess
    if "full" not in (own.window, preprocess.window) and own.window != preprocess.window:
        LOG.warning("warning: the backbone %s was trained on grey values in the window %s, but "
                    "here the window is %s. If the scans are of one kind, give both trainings the "
                    "same --window", start.source, own.window, preprocess.window)
    if own.img_size != preprocess.img_size:
        LOG.info("the backbone was trained on images of %d pixels a side (--img_size %d); here "
                 "they have %d", own.img_size, own.img_size, preprocess.img_size)
