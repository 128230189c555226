"""The plain records that describe data, model and training; all of them JSON-serialisable.

Types and ranges are those that a file may hold (records.parse checks them, where one is read); the
records themselves check nothing. No size is beyond what a machine could train.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, Lt, MaxLen, MinLen

PLANES = {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}  # slices, rows, columns run to
VIEWS = ("acquisition", *PLANES, "0", "1", "2")

LabelTask = Literal["binary", "multilabel", "multiclass", "regression"]
Task = Literal[LabelTask, "ssl"]  # ssl: a backbone was pre-trained without labels
Precision = Literal["float32", "bfloat16", "float16"]
Rate = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(0), Le(2 ** 53)]
Moderate = Annotated[float, Ge(-1e6), Le(1e6)]
Scale = Annotated[float, Ge(1e-6), Le(1e6)]
Label = Annotated[float, Ge(-3e38), Le(3e38)]  # of regression: float32
Spread = Annotated[float, Ge(1e-38), Le(3e38)]
Shift = Annotated[float, Ge(-100), Le(100)]    # of a logit, the logarithm of a weight
MOST_LABELS = 10_000
Text = Annotated[str, MaxLen(1000)]
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # how pydantic reads a record

TASKS = get_args(LabelTask)
PRECISIONS = dict(zip(("off", "bf16", "fp16"), get_args(Precision), strict=True))  # of --amp
COLUMNS = ("id", "patient", "split")  # of predictions.csv, beside the labels
TILINGS = {"height": "channels_height", "width": "channels_width"}  # as IntegratorConfig.token


@dataclass(frozen=True)
class Preprocess:
    """How a scan becomes the backbone's input; stored in checkpoints and applied again.

    Attributes:
        img_size: side in pixels to which slices are resized.
        window: grey values mapped to 0..255: `percentile` (2nd to 98th of the scan),
            `full` (the data type's range; the scan's own for floats) or `LOW,HIGH`.
        mean, std: per channel, of the 0..1 image.
        n_slices: slices per volume (0 for 2D images).
        slice_sampling: `uniform` or `middle`; which slices of a longer volume are taken.
        views: how a volume is cut into slices, each of VIEWS; `n_slices` of
            each view are taken.
        channels: what the three channels of a slice show, `repeat`: the slice itself, or
            `adjacent`: the slice before it, itself, the one after it (of those taken, in its view;
            the first and the last stand for the missing ones; colours become grey).
    """

    __pydantic_config__ = STRICT

    img_size: Annotated[int, Ge(32), Le(2 ** 14)]
    window: Text
    mean: tuple[Moderate, Moderate, Moderate]
    std: tuple[Scale, Scale, Scale]
    n_slices: Annotated[int, Ge(0), Le(2 ** 16)] = 0
    slice_sampling: Literal["uniform", "middle"] = "uniform"
    views: Annotated[tuple[str, ...], MinLen(1), MaxLen(10)] = ("acquisition",)
    channels: Literal["repeat", "adjacent"] = "repeat"


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of training scans (see transforms.augment).

    Attributes:
        flips: any of h (left-right), v (up-down), z (order of slices).
        jitter: strength of the small changes of geometry and grey values; 0 for none.
    """

    __pydantic_config__ = STRICT

    flips: Text = "h"
    jitter: Annotated[float, Ge(0)] = 1.0


@dataclass(frozen=True)
class IntegratorConfig:
    """Kind and sizes of the integrator.

    Attributes:
        token: what a token is made of. `flatten`: the whole feature map of a slice; `pool`: its
            average. Of models of the original SLIViT alone, `channels_height` or
            `channels_width`: the n slices of a volume are tiled along the height or the width into
            one picture, the backbone maps it as one image, and its map (C, h, w) is read in memory
            order as n tokens of C * h * w / n numbers: a token is a block of C / n channels over
            all slices.
        dim: width of the tokens.
        depth: transformer blocks.
        heads, head_dim: attention heads, and the width of each.
        mlp_dim: hidden width of the MLP.
        dropout: in attention and MLP.
        emb_dropout: of the tokens.
        kind: `transformer`: a Vision Transformer over the slices' tokens. `linear`: a linear layer
            on the mean and the maximum of the slices' features, to which the sizes mean nothing.
    """

    __pydantic_config__ = STRICT

    token: Literal["flatten", "pool", "channels_height", "channels_width"] = "flatten"
    dim: Annotated[int, Ge(1), Le(2 ** 16)] = 256
    depth: Annotated[int, Ge(1), Le(2 ** 10)] = 5
    heads: Annotated[int, Ge(1), Le(2 ** 12)] = 20
    head_dim: Annotated[int, Ge(1), Le(2 ** 16)] = 64
    mlp_dim: Annotated[int, Ge(1), Le(2 ** 20)] = 512
    dropout: Rate = 0.0
    emb_dropout: Rate = 0.0
    kind: Literal["transformer", "linear"] = "transformer"

    @property
    def tokens_are_slices(self) -> bool:
        """Whether each token is of one slice; not so in models of the original SLIViT."""
        return self.token not in TILINGS.values()


@dataclass(frozen=True)
class Target:
    """What a model predicts.

    Attributes:
        task: one of TASKS, or `ssl`.
        labels: names of the outputs, in the order of the model's K outputs; none for `ssl`.
        column: for a multi-class table with one column of class numbers, that column.
        mean, std: of the training labels, for regression only: outputs are standardised.
        shift: what weighted training adds to each logit, taken off in prediction; empty for none
            (see losses.logit_shift).
    """

    __pydantic_config__ = STRICT

    task: Task
    labels: Annotated[tuple[Text, ...], MaxLen(MOST_LABELS)]
    column: Text | None = None
    mean: Annotated[tuple[Label, ...], MaxLen(MOST_LABELS)] = field(default=())
    std: Annotated[tuple[Spread, ...], MaxLen(MOST_LABELS)] = field(default=())
    shift: Annotated[tuple[Shift, ...], MaxLen(MOST_LABELS)] = field(default=())

    def first(self, count: int) -> "Target":
        """Return the target of the first outputs alone."""
        if count == len(self.labels):
            return self
        task = "binary" if self.task == "multilabel" and count == 1 else self.task
        return Target(task, self.labels[:count], self.column, self.mean[:count], self.std[:count],
                      self.shift[:count])

    def faults(self) -> list[str]:
        """Return how the fields contradict each other, in words."""
        count, bad = len(self.labels), label_name_faults(self.labels)
        least, most = {"binary": (1, 1), "multiclass": (2, MOST_LABELS), "ssl": (0, 0)}.get(
            self.task, (1, MOST_LABELS))
        if not least <= count <= most:
            bad.append(f"{count} labels, expected {least}{' or more' * (most > least)} for "
                       f"{self.task}")
        moments = count if self.task == "regression" else 0
        bad += [f"{name} of {len(values)} numbers, expected {moments} for {self.task} of "
                f"{count} labels" for name, values in (("mean", self.mean), ("std", self.std))
                if len(values) != moments]
        if self.shift and (len(self.shift) != count or self.task == "regression"):
            bad.append(f"shift of {len(self.shift)} numbers, expected none"
                       + f" or {count}" * (self.task != "regression"))
        if self.column is not None and self.task != "multiclass":
            bad.append(f"column {self.column!r} for {self.task}, expected none")
        return bad


def label_name_faults(names: Sequence[str]) -> list[str]:
    """Return what is wrong with names of labels, in words.

    Each is a column of predictions.csv, and `NAME_pred` another.
    """
    taken = {*COLUMNS, *(f"{name}_pred" for name in names)}
    bad = [name for name in names if name in taken]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    return [text for text in (
        f"{', '.join(bad)} cannot be a label: predictions.csv has a column of that name"
        if bad else "",
        f"these labels appear twice: {', '.join(twice)}" if twice else "",
        "a label without a name" if any(not name.strip() for name in names) else "") if text]


@dataclass(frozen=True)
class FitOptions:
    """Options of the training loop.

    Attributes:
        n_epochs: at most.
        b_size: scans per batch, over all processes.
        warmup_epochs: of linear warm-up of the learning rate.
        patience: epochs without a better score after which to stop; 0 for never.
        seed: of everything random.
        select: `score` or `loss`, the measure on validation by which the best epoch is chosen, or
            `last` for the last epoch.
        accumulate: batches per step.
        clip_grad: largest norm of a step's gradient.
        compile: whether torch.compile is used.
        ema: decay of the moving average of weights that is validated and kept; 0 for none.
        mixup: alpha of mixup's Beta distribution; 0 for none.
    """

    n_epochs: int
    b_size: int
    warmup_epochs: float
    patience: int
    seed: int
    select: str = "score"
    accumulate: int = 1
    clip_grad: float = 1.0
    compile: bool = False
    ema: float = 0.0
    mixup: float = 0.0


