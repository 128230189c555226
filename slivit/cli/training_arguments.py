"""Command-line options of training and of the integrator, and the records made of them."""

import argparse
from collections.abc import Mapping

from slivit.cli import arguments, types
from slivit.config import IntegratorConfig


def add_training_options(parser: argparse.ArgumentParser, *, b_size: int, n_epochs: int,
                         lr: float, patience: int, late: Mapping[str, str] | None = None
                         ) -> argparse._ArgumentGroup:
    """Add the options of the training loop; return their group.

    Args:
        parser: gets them.
        b_size, n_epochs, lr, patience: their defaults.
        late: of options whose default the script chooses later, what the help says of it.
    """
    late = late or {}

    def default(name: str, value: object) -> dict:
        return {"default": None if name in late else value}

    def told(name: str) -> str:
        return f"(default {late.get(name, '%(default)s')})"

    group = parser.add_argument_group("training")
    group.add_argument("--b_size", type=types.positive_int, **default("b_size", b_size),
                       metavar="N",
                       help=f"scans per batch, over all processes {told('b_size')}")
    group.add_argument("--accumulate", type=types.positive_int, default=1, metavar="N",
                       help="batches per optimizer step: the gradient of N batches in the memory "
                            "of one (default %(default)s)")
    group.add_argument("--n_epochs", type=types.positive_int, default=n_epochs, metavar="N",
                       help="maximum number of epochs (default %(default)s)")
    group.add_argument("--lr", type=types.positive, default=lr, metavar="X",
                       help="peak learning rate of AdamW (default %(default)s)")
    group.add_argument("--weight_decay", type=types.non_negative, default=0.05, metavar="X",
                       help="weight decay, on matrices only (default %(default)s)")
    group.add_argument("--warmup_epochs", type=types.non_negative, default=1.0, metavar="X",
                       help="epochs of linear warm-up before the cosine decay (default "
                            "%(default)s)")
    group.add_argument("--patience", type=types.natural, **default("patience", patience),
                       metavar="N",
                       help="stop after N epochs without a better validation score; 0: never "
                            f"{told('patience')}")
    group.add_argument("--select", choices=("score", "loss", "last"), **default("select", "score"),
                       help="keep the epoch with the best validation score (mean ROC-AUC or R2) or "
                            "the lowest validation loss, which is steadier with a small validation "
                            f"split, or the last one {told('select')}")
    group.add_argument("--drop_path", type=types.rate, default=0.1, metavar="X",
                       help="stochastic depth of the backbone (default %(default)s)")
    group.add_argument("--flips", type=types.flip_axes, metavar="AXES",
                       help="random flips in training: letters of h (left-right), v (up-down), "
                            "z (order of slices), or none (default h; hvz for the embedded sets)")
    group.add_argument("--jitter", type=types.strength, metavar="X",
                       help="strength of random rotation, scale, shift and brightness; 0: none "
                            "(default 1; 0 for the embedded sets, where size is the signal)")
    group.add_argument("--label_smoothing", type=types.rate, default=0.0, metavar="X",
                       help="fraction of each label spread over all its values (default "
                            "%(default)s)")
    group.add_argument("--pos_weight", type=types.pos_weight, metavar="W",
                       help="weight of positives in the loss: a number, or auto for the ratio of "
                            "negatives to positives of each label (default: none)")
    group.add_argument("--balanced_sampling", action="store_true",
                       help="sample training scans so that all classes appear equally often")
    group.add_argument("--layer_decay", type=types.share, default=1.0, metavar="X",
                       help="factor on the backbone's learning rate from each layer to the one "
                            "before it; 1: no decay (default %(default)s)")
    group.add_argument("--ema", type=types.rate, default=0.0, metavar="X",
                       help="decay of a moving average of the weights, which is validated and "
                            "saved in their place; 0: none (default %(default)s)")
    group.add_argument("--mixup", type=types.non_negative, default=0.0, metavar="A",
                       help="blend pairs of scans and labels with weights drawn from Beta(A, A); "
                            "0: none (default %(default)s)")
    group.add_argument("--train_fraction", type=types.share, default=1.0, metavar="X",
                       help="train on only this fraction of the training patients; smaller "
                            "fractions are subsets of larger ones (default %(default)s)")
    arguments.add_precision_option(group, "bfloat16")
    group.add_argument("--compile", action="store_true", help="use torch.compile")
    group.add_argument("--tensorboard", action="store_true",
                       help="also write the log for TensorBoard, in --out_dir/tensorboard")
    group.add_argument("--wandb", type=types.text, metavar="PROJECT",
                       help="also send the log to this project of Weights & Biases")
    group.add_argument("--quiet", action="store_true", help="one line per epoch, no progress bars")
    return group


def add_integrator_options(parser: argparse.ArgumentParser) -> None:
    """Add kind and sizes of the integrator."""
    group = parser.add_argument_group("integrator")
    default = IntegratorConfig()
    group.add_argument("--integrator", choices=("transformer", "linear"), default=default.kind,
                       help="linear, with --freeze_backbone: a linear layer on the mean and the "
                            "maximum of the slices' features, solved exactly, its L2 penalty "
                            "chosen by cross-validation; for few volumes (default %(default)s)")
    group.add_argument("--token", choices=("flatten", "pool"), default=default.token,
                       help="a slice's token comes from its whole feature map, as in the paper, or "
                            "from the map's average (default %(default)s)")
    for flag, what in (("dim", "width of the tokens"), ("depth", "transformer blocks"),
                       ("heads", "attention heads"), ("head_dim", "width of a head"),
                       ("mlp_dim", "hidden width of the MLP")):
        group.add_argument(f"--vit_{flag}", type=types.size, default=getattr(default, flag),
                           metavar="N", help=f"{what} (default %(default)s)")
    group.add_argument("--dropout", type=types.rate, default=default.dropout, metavar="X",
                       help="dropout in attention and MLP (default %(default)s)")
    group.add_argument("--emb_dropout", type=types.rate, default=default.emb_dropout, metavar="X",
                       help="dropout on the tokens (default %(default)s)")
