"""What a method of learning without labels has to be, and how the training loop meets it.

Another method is another module beside vicreg.py, and METHOD in bb_train.py; one to be tried is
given to bb_train.main.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from tqdm import tqdm

from slivit.config import Preprocess
from slivit.data.batch import Batch
from slivit.data.datasets import TrainingSet
from slivit.models.backbone import create_backbone
from slivit.training.losses import Validated
from slivit.utils.log import LOG
from slivit.utils.runtime import derive_seed
from slivit.utils.session import Session


class SelfSupervisedMethod(nn.Module):
    """A backbone with whatever a method needs beside it; its `forward` gives the loss of a batch.

    Random numbers of its own, such as masks, come from torch's generator, whose state is kept for
    `--resume`. What has to be remembered is a parameter or a buffer.

    Args:
        backbone_name: timm's name.
        preprocess: how slices become input.
        drop_path: stochastic depth rate of the backbone.

    Attributes:
        name: that config.json and the checkpoint give.
        views: of each slice that a batch has; see slice_sets.SliceSampling, also for
        reach: how far away their slices may be.
        select: which epoch is kept unless `--select` says otherwise; see config.FitOptions.
        preprocess, precision: as of models.slivit.ImageClassifier.
        backbone: all that is kept in the end.
    """

    name: ClassVar[str]
    views: ClassVar[int] = 1
    reach: ClassVar[int] = 0
    select: ClassVar[str] = "last"

    def __init__(self, backbone_name: str, preprocess: Preprocess, drop_path: float = 0.0) -> None:
        super().__init__()
        self.preprocess, self.precision = preprocess, torch.float32
        self.backbone = create_backbone(backbone_name, 0, drop_path)

    def heads(self) -> nn.Module:
        """Return what is trained beside the backbone; a teacher, for example, is not."""
        raise NotImplementedError

    def forward(self, views: torch.Tensor, places: torch.Tensor, scans: torch.Tensor
                ) -> dict[str, torch.Tensor]:
        """Return the mean loss of some slices as `loss`, and other scalars for the log by name.

        Args:
            views: uint8 (n, views, C, img_size, img_size), each transformed at random.
            places: float32 (n, views), where in its volume the slice of a view is, 0 to 1.
            scans: int64 (n,), which scan of the batch a slice is of.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Do what follows each step of the optimizer, such as moving a teacher; here nothing."""

    def complaint(self, terms: dict[str, float]) -> str:
        """Return what is wrong with a training of such terms on validation; empty for nothing."""
        return ""


@dataclass(frozen=True)
class WithoutLabels:
    """What training without labels minimises; it stands where losses.Objective does.

    Attributes:
        seed: of the random numbers that a method takes in validation.
        score, drop_last: as of losses.Objective.
    """

    seed: int
    score: ClassVar[None] = None
    drop_last: ClassVar[bool] = True

    def count(self, batch: Batch) -> int:
        """Return the number of views in a batch, by which its summed loss is divided."""
        return int(batch.mask.sum())

    def loss_sum(self, terms: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, summed over its views."""
        return terms["loss"] * self.count(batch)

    def after_step(self, model: SelfSupervisedMethod) -> None:
        """Let the method do what follows each step of the optimizer."""
        model.after_step()

    @torch.no_grad()
    def validate(self, module: SelfSupervisedMethod, data: TrainingSet, run: Session, epoch: int
                 ) -> Validated:
        """Return the terms of the loss on the validation scans, each the mean over all views.

        In every epoch the views, and the random numbers, are the same.

        Raises:
            Stopped: a signal came.
        """
        sums, total = {}, 0
        with run.stop.allowed(run.world), torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed))
            for batch in tqdm(data.validation(), desc="validation", leave=False,
                              disable=run.quiet or None):
                terms = module(*data.inputs(batch.to(run.device)))
                count = self.count(batch)
                total += count
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * count
        run.stop.check(run.world)
        means = {name: value / total for name, value in sums.items()}
        if fault := module.complaint(means):
            LOG.warning("warning: epoch %d: %s", epoch, fault)
        return Validated(means.pop("loss"), means)
