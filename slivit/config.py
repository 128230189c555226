"""The plain records that describe data, model and training; all of them JSON-serialisable."""

from dataclasses import dataclass, field

TASKS = ("binary", "multilabel", "multiclass", "regression")
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
        views: how a volume is cut into slices, each of readers.orientation.VIEWS; `n_slices` of
            each view are taken.
        channels: what the three channels of a slice show, `repeat`: the slice itself, or
            `adjacent`: the slice before it, itself, the one after it (of those taken, in its view;
            the first and the last stand for the missing ones; colours become grey).
    """

    img_size: int
    window: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    n_slices: int = 0
    slice_sampling: str = "uniform"
    views: tuple[str, ...] = ("acquisition",)
    channels: str = "repeat"


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of training scans (see transforms.augment).

    Attributes:
        flips: any of h (left-right), v (up-down), z (order of slices).
        jitter: strength of the small changes of geometry and grey values; 0 for none.
    """

    flips: str = "h"
    jitter: float = 1.0


@dataclass(frozen=True)
class IntegratorConfig:
    """Sizes of the integrator (Vision Transformer over slice tokens).

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
    """

    token: str = "flatten"
    dim: int = 256
    depth: int = 5
    heads: int = 20
    head_dim: int = 64
    mlp_dim: int = 512
    dropout: float = 0.0
    emb_dropout: float = 0.0

    @property
    def tokens_are_slices(self) -> bool:
        """Whether each token is of one slice; not so in models of the original SLIViT."""
        return self.token not in TILINGS.values()


@dataclass(frozen=True)
class Target:
    """What a model predicts.

    Attributes:
        task: one of TASKS.
        labels: names of the outputs, in the order of the model's K outputs.
        column: for a multi-class table with one column of class numbers, that column.
        mean, std: of the training labels, for regression only: outputs are standardised.
        shift: what weighted training adds to each logit, taken off in prediction; empty for none
            (see objective.logit_shift).
    """

    task: str
    labels: tuple[str, ...]
    column: str | None = None
    mean: tuple[float, ...] = field(default=())
    std: tuple[float, ...] = field(default=())
    shift: tuple[float, ...] = field(default=())

    def first(self, count: int) -> "Target":
        """Return the target of the first outputs alone."""
        if count == len(self.labels):
            return self
        task = "binary" if self.task == "multilabel" and count == 1 else self.task
        return Target(task, self.labels[:count], self.column, self.mean[:count], self.std[:count],
                      self.shift[:count])


@dataclass(frozen=True)
class FitOptions:
    """Options of the training loop.

    Attributes:
        n_epochs: at most.
        b_size: scans per batch, over all processes.
        warmup_epochs: of linear warm-up of the learning rate.
        patience: epochs without a better score after which to stop; 0 for never.
        seed: of everything random.
        select: `score` or `loss`, the measure on validation by which the best epoch is chosen.
        accumulate: batches per step.
        clip_grad: largest norm of a step's gradient.
        amp: `off`, or the type of autocast, `bf16` or `fp16`.
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
    amp: str = "off"
    compile: bool = False
    ema: float = 0.0
    mixup: float = 0.0
