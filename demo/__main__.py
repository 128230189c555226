"""The demonstration behind `make demo`: the three scripts on the embedded real data.

    python -m demo         # writes runs/demo/tables, pretrain, finetune and evaluate

Its settings, recipes/nodules_images and recipes/nodules_volumes, were chosen on patients of the
training and validation splits only; the test split is evaluated once, at the end.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd

from slivit.cli import types
from slivit.cli.parser import RECIPES
from slivit.config import Target
from slivit.data.named_sets import DATA_DIR
from slivit.metrics.comparison import compare
from slivit.metrics.evaluation import evaluate
from slivit.report.formatting import score_text
from slivit.utils.cells import read_table
from slivit.utils.errors import RunError, run_script
from slivit.utils.signals import Stopped


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("--out_dir", type=types.path, default=Path("runs/demo"),
                        metavar="DIR", help="output folder (default %(default)s)")
    parser.add_argument("--gpu_id", type=types.gpu, metavar="N", help="which GPU, or cpu, as in "
                                                                      "the three scripts")
    parser.add_argument("--seed", type=types.seed_number, default=0, metavar="N",
                        help="random seed (default %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write tables, pre-train, fine-tune, evaluate, and print what was found."""
    args = build_parser().parse_args(argv)
    common = ["--seed", str(args.seed)] + (["--gpu_id", args.gpu_id] if args.gpu_id else [])
    start = time.monotonic()
    model, measured = train(args.out_dir, common), args.out_dir / "evaluate"
    run("evaluate.py", "--meta_csv", str(args.out_dir / "tables/volumes.csv"), "--checkpoint",
        str(model), "--explain", "2", "--out_dir", str(measured), *common)
    print(summary(measured, time.monotonic() - start))
    pictures = [path for folder in (args.out_dir / "pretrain", model.parent, measured)
                for path in sorted([*folder.glob("*.png"), *folder.glob("explain/*.png")])]
    print("Pictures:", *(f"  {path}" for path in pictures), sep="\n")
    print(f"Report: {measured / 'report.html'}")


def train(out_dir: Path, common: Sequence[str]) -> Path:
    """Write the tables, pre-train and fine-tune by the recommended recipes; return the checkpoint.

    Args:
        out_dir: gets tables, pretrain and finetune.
        common: options of both trainings.
    """
    tables, pretrain, finetune = (out_dir / name for name in ("tables", "pretrain", "finetune"))
    run("-m", "demo.nodule_tables", str(tables))
    recipes = os.path.relpath(RECIPES)
    run("bb_train.py", "--meta_csv", str(tables / "images.csv"), f"@{recipes}/nodules_images",
        "--out_dir", str(pretrain), *common)
    run("finetune.py", "--meta_csv", str(tables / "volumes.csv"), "--bb_path",
        str(pretrain / "backbone.safetensors"), f"@{recipes}/nodules_volumes", "--out_dir",
        str(finetune), *common)
    return finetune / "slivit.safetensors"


def run(*words: str) -> None:
    """Run a script at the top level, or a module, starting again in its output folder.

    Raises:
        RunError: it failed; its own message is above.
    """
    words = (*words, "--overwrite")
    print("\n$", shlex.join(["python", *words]), flush=True)
    first = [] if words[0] == "-m" else [str(DATA_DIR.parent / words[0])]
    with subprocess.Popen([sys.executable, *first, *words[len(first):]]) as process:
        try:
            failed = process.wait()
        except Stopped:
            process.terminate()  # it saves what it has
            raise
    if failed:
        raise RunError(f"{' '.join(words[:2])} failed")


def summary(measured: Path, seconds: float) -> str:
    """Return the closing table: SLIViT beside nodule volume alone, on the same test volumes."""
    metrics = json.loads((measured / "metrics.json").read_text(encoding="utf-8"))
    predictions = read_table(measured / "predictions.csv")
    sizes = pd.read_csv(DATA_DIR / "noduleshapes3d.csv").set_index("nodule")["volume_mm3"]
    volume = sizes.loc[predictions["id"]].to_numpy()
    truth = predictions["malignant"].to_numpy(dtype=np.float32)
    pred = predictions[["malignant_pred"]].to_numpy(dtype=np.float64)
    size, target = volume / volume.max(), Target("binary", ("malignant",))
    alone = evaluate(truth[:, None], size[:, None], target, predictions["patient"])
    rows = [("SLIViT", metrics["labels"]["malignant"]),
            ("nodule volume alone", alone["labels"]["malignant"])]
    lines = ["", f"Malignant or benign, {metrics['n']} test nodules of {metrics['n_groups']} "
             f"patients not seen in training ({seconds / 60:.1f} minutes):", "",
             "  " + "".ljust(22) + "ROC-AUC (95 % interval)".ljust(28) + "PR-AUC (95 % interval)"]
    lines += ["  " + name.ljust(22) + score_text(scores, "roc_auc").ljust(28)
              + score_text(scores, "pr_auc") for name, scores in rows]
    gain = compare(truth[:, None], [size[:, None], pred],
                   ["volume", "SLIViT"], target, predictions["patient"])[0]
    lines.append("  " + "difference".ljust(22) + score_text(gain, "difference", share=True))
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_script(main)
