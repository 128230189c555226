"""What a checkpoint's header says: typed records, and a check that they agree."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired

import numpy as np
from annotated_types import Ge, Le, MaxLen
from pydantic import AfterValidator, FailFast
from typing_extensions import TypedDict

from slivit.config import (
    MOST_LABELS,
    PLANES,
    STRICT,
    VIEWS,
    Augmentation,
    Count,
    IntegratorConfig,
    Precision,
    Preprocess,
    Target,
    Text,
)
from slivit.data.ratio import parse_ratio
from slivit.data.window import parse_window
from slivit.models.backbone import name_fault
from slivit.utils.errors import UserError
from slivit.utils.records import Plain, rule

FORMAT = 1
TENSOR_FORMAT = 2  # of a file with outputs on validation: they are tensors, see validation.py
LARGEST = float(np.finfo(np.float32).max)
Split = Literal["train", "val", "test"]
Number = Annotated[float, Ge(-LARGEST), Le(LARGEST)]


def _ratio_faults(text: str | None) -> list[str]:
    try:
        parts = () if text is None else parse_ratio(text)
    except UserError as error:
        return [str(error)]
    return [] if all(map(math.isfinite, parts)) else [f"found {text}, expected three fractions"]


def _preprocess_faults(preprocess: Preprocess) -> list[str]:
    bad, views = [], preprocess.views
    try:
        parse_window(preprocess.window)
    except UserError as error:
        bad.append(str(error))
    if set(views) - set(VIEWS) or len(set(views)) < len(views) or (
            len(views) > 1 and set(views) - set(PLANES)):
        bad.append(f"views {', '.join(views)[:100]}: expected one of {', '.join(VIEWS)}, or "
                   f"several of {', '.join(PLANES)}")
    return bad


def _flip_faults(augmentation: Augmentation) -> list[str]:
    flips = augmentation.flips
    return [f"flips {flips!r}, expected letters of h, v, z"] * bool(set(flips) - set("hvz"))


class DataFacts(TypedDict):
    """What a checkpoint remembers of its data: checkpoint.data_facts and subjects.subject_facts.

    `patients` are hashes of people, `subjects` says by what they are known (subjects.subject_kind),
    `patient_key` is the mark of the key of these hashes; those of earlier versions have none.
    `assumed`, of models of the original SLIViT alone, lists what no file states of them.
    """

    __pydantic_config__ = STRICT

    name: Text
    fingerprint: Text
    split_ratio: Annotated[Text | None, rule(_ratio_faults)]
    split_seed: Count
    patients: Annotated[list[Text], FailFast()]
    patient_key: NotRequired[Text | None]
    subjects: NotRequired[Literal["patients", "images", "volumes", "unknown"]]
    assumed: NotRequired[list[Literal["tiling", "task", "label"]]]


class LabelFacts(TypedDict, total=False):
    """How often a label is known, and positive, or its mean and standard deviation."""

    __pydantic_config__ = STRICT

    known: Count
    positive: Count
    mean: float | None
    sd: float | None


class CohortFacts(TypedDict):
    """Counts of scans, patients and labels; see model_card.cohort."""

    __pydantic_config__ = STRICT

    scans: Count
    patients: Count | None
    labels: dict[Text, LabelFacts]


class TrainingFacts(TypedDict, total=False):
    """How a model was trained; see model_card.training_facts. Empty in earlier versions."""

    __pydantic_config__ = STRICT

    cohort: dict[Split, CohortFacts]
    augmentation: Annotated[Augmentation, rule(_flip_faults), AfterValidator(dataclasses.asdict)]
    backbone_data: Text | None
    options: dict[Text, Plain]


@dataclasses.dataclass(frozen=True)
class Validation:
    """A model's outputs on the validation scans, from which thresholds and temperature come.

    Attributes:
        logits: float32 (n, K), as the model gave them.
        labels: float32 (n, K), NaN where unknown.
    """

    logits: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class CheckpointHeader:
    """What a checkpoint's header says.

    Attributes:
        kind: `backbone` (2D classifier) or `slivit` (volumes).
        backbone: timm's name.
        integrator: sizes; None for a backbone.
        target: outputs; of a backbone that was pre-trained without labels, none.
        preprocess: how scans become input.
        data: of checkpoint.data_facts and patient_facts.
        epoch, score: of the saved weights, on validation.
        seed: of the run.
        versions: of the packages that made it.
        training: of model_card.training_facts; empty in files of earlier versions.
        temperature: by which logits are divided where calibrated predictions are asked for; None
            where there is none.
        intended_use: for what the model may be used, and for what not; None for research in
            general.
        thresholds: of each label, by Youden's index on validation, in a file that was shared and
            has no validation outputs; None in others.
        precision: type of number in which the backbone was trained and gave its outputs on
            validation.
    """

    __pydantic_config__ = STRICT

    kind: Literal["backbone", "slivit"]
    backbone: Annotated[Text, rule(lambda name: filter(None, [name_fault(name)]))]
    integrator: IntegratorConfig | None
    target: Annotated[Target, rule(Target.faults)]
    preprocess: Annotated[Preprocess, rule(_preprocess_faults)]
    data: DataFacts
    epoch: Count = 0
    score: dict[Text, float | None] = dataclasses.field(default_factory=dict)
    seed: Count = 0
    versions: dict[Text, Text] = dataclasses.field(default_factory=dict)
    training: TrainingFacts = dataclasses.field(default_factory=dict)
    temperature: Annotated[float, Ge(1e-3), Le(1e3)] | None = None
    intended_use: Text | None = None
    thresholds: Annotated[tuple[Number | None, ...], MaxLen(MOST_LABELS)] | None = None
    precision: Precision = "float32"


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Validation as JSON of earlier versions has it: rows of K numbers, None where unknown."""

    __pydantic_config__ = STRICT

    logits: Annotated[list[Annotated[list[Number], FailFast()]], FailFast()]
    labels: Annotated[list[Annotated[list[Number | None], FailFast()]], FailFast()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fields(CheckpointHeader):
    format: Annotated[int, Ge(FORMAT), Le(TENSOR_FORMAT)]
    validation: Outputs | None = None


def _faults(header: _Fields) -> list[str]:
    """Return how parts of a header contradict each other, in words."""
    bad = []
    volumes = header.kind == "slivit"
    if (header.integrator is not None) != volumes:
        bad.append(f"integrator: {'missing' if volumes else 'found one, expected none'} for kind "
                   f"{header.kind}")
    if header.target.task == "ssl" and volumes:
        bad.append("target.task: found ssl, expected one with labels for kind slivit")
    if bool(header.preprocess.n_slices) != volumes:
        bad.append(f"preprocess.n_slices: found {header.preprocess.n_slices}, expected "
                   f"{'1 or more' if volumes else '0'} for kind {header.kind}")
    wanted = {"mean", "sd"} if header.target.task == "regression" else {"positive"}
    for split, cohort in header.training.get("cohort", {}).items():
        bad += [f"training.cohort.{split}.labels.{name}: {', '.join(sorted(wanted))} missing"
                for name, facts in cohort["labels"].items()
                if "known" not in facts or (facts["known"] and any(
                    facts.get(key) is None for key in wanted))]
    if header.validation is not None:
        bad += _outputs_faults(header.validation, header.target)
    labels = len(header.target.labels)
    if header.thresholds is not None and len(header.thresholds) != labels:
        bad.append(f"thresholds: found {len(header.thresholds)}, expected {labels}, one per label")
    return bad


def _outputs_faults(outputs: Outputs, target: Target) -> list[str]:
    """Return how outputs on validation do not fit the labels, in words."""
    count = len(target.labels)
    bad = [f"validation.{name}: a row of {width} numbers, expected {count}"
           for name, rows in vars(outputs).items()
           if (width := _other_width(rows, count)) is not None]
    if not outputs.logits or len(outputs.logits) != len(outputs.labels):
        bad.append(f"validation: {len(outputs.logits)} rows of logits and {len(outputs.labels)} of "
                   "labels, expected the same number of each, at least one")
    if target.task != "regression" and any(value not in (0, 1, None) for row in outputs.labels
                                           for value in row):
        bad.append("validation.labels: found values other than 0, 1 and null")
    return bad


def _other_width(rows: Sequence[Sequence], count: int) -> int | None:
    """Return the length of the first row that has not `count` numbers; None if there is none."""
    return next((len(row) for row in rows if len(row) != count), None)


Header = Annotated[_Fields, rule(_faults)]
