"""What a training says of the backbone that it starts from: patients and images it has seen."""

from pathlib import Path

from slivit.checkpoints.patient_key import KEY_FILE, known_patients
from slivit.checkpoints.pretrained import PretrainedBackbone
from slivit.checkpoints.sharing import patients_removed
from slivit.config import Preprocess
from slivit.utils.log import LOG


def warn_of_seen(start: PretrainedBackbone, patients: set[str]) -> None:
    """Warn if the weights were trained on some of the patients who are to be predicted.

    Args:
        start: the weights.
        patients: of the test split.
    """
    if start.card is None or not patients:
        return
    seen = known_patients(patients, start.card.data, Path(start.source))
    if seen is None:
        LOG.info("cannot tell whether patients of test were in the backbone's training: the %s "
                 "of that run is not in the folder of %s", KEY_FILE, start.source)
    elif patients_removed(start.card):
        LOG.info("cannot tell whether patients of test were in the backbone's training: %s was "
                 "shared without anything about its patients", start.source)
    elif seen:
        LOG.warning("warning: %d of %d patients of test have ids that also appear in the training "
                    "or validation data of the backbone %s, or of what it started from; if they "
                    "are the same people, the scores on test are too optimistic", len(seen),
                    len(patients), start.source)


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
