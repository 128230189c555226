"""What the trials run: the scripts with tiny options, on tiny tables."""

from dataclasses import dataclass
from pathlib import Path

from tests.support.helpers import RUN_2D, RUN_3D

BACKBONE = ["--bb_path", "{work}/references/images/run/backbone.safetensors"]
CHECKPOINT = ["--checkpoint", "{work}/references/plain/run/slivit.safetensors"]
IMAGES = ["--meta_csv", "{work}/images/images.csv"]
VOLUMES = ["--meta_csv", "{work}/volumes/volumes.csv"]
OUT = ["--out_dir", "{out}"]
FROZEN = [*RUN_3D[4:], *BACKBONE, "--freeze_backbone"]


@dataclass(frozen=True)
class Scenario:
    """A script with its options.

    Attributes:
        name: of the scenario.
        script: of the repository, or -m and a module.
        options: {work}, {out} and {cache} stand for folders.
        trains: whether it leaves a run that --resume goes on with.
        needs: the scenario whose reference run it reads.
    """

    name: str
    script: tuple[str, ...]
    options: tuple[str, ...]
    trains: bool = True
    needs: str | None = None

    def words(self, work: Path, trial: Path, *more: str) -> list[str]:
        """Return its command line, after `python`; the trial's folder is for `run` and `cache`."""
        places = {"work": work, "out": trial / "run", "cache": trial / "cache"}
        return [*self.script, *(option.format(**places) for option in self.options), *more]


def _train(name: str, *options: str, needs: str | None = None) -> Scenario:
    script, table = ("finetune.py", VOLUMES)
    if name.startswith("images"):
        script, table = ("bb_train.py", IMAGES)
    return Scenario(name, (script,), (*table, *options, "--patience", "0", "--quiet", *OUT),
                    needs=needs)


def _scenarios() -> list[Scenario]:
    a = ("--pathologies", "A", "--b_size", "2")
    return [
        _train("images", *RUN_2D, "--b_size", "2", "--n_epochs", "3"),
        _train("images_batchnorm", *RUN_2D, "--backbone", "convnext_zepto_rms_bn", "--b_size", "2",
               "--n_epochs", "3", "--ema", "0.8"),
        _train("images_cache", *RUN_2D, "--b_size", "3", "--n_epochs", "3", "--mixup", "0.3",
               "--cache_dir", "{cache}"),
        _train("plain", *RUN_3D, *a, "--n_epochs", "4", "--dropout", "0.1", "--drop_path", "0.2"),
        _train("ema", *RUN_3D, *a, "--n_epochs", "4", "--ema", "0.9", "--mixup", "0.2"),
        _train("accumulate", *RUN_3D, *a, "--b_size", "1", "--accumulate", "2", "--n_epochs", "3",
               "--emb_dropout", "0.3", "--select", "loss"),
        _train("regression", *RUN_3D, "--pathologies", "size", "--b_size", "2", "--n_epochs", "3"),
        _train("workers", *RUN_3D, *a, "--n_epochs", "3", "--n_cpu", "2", "--mixup", "0.2"),
        _train("frozen", *FROZEN, *a, "--n_epochs", "6", "--dropout", "0.1",
               "--feature_augments", "1", needs="images"),
        _train("frozen_cache", *FROZEN, *a, "--n_epochs", "6", "--mixup", "0.2",
               "--cache_dir", "{cache}", needs="images"),
        _train("unfreeze", *FROZEN, *a, "--n_epochs", "4", "--unfreeze_after", "2", "--ema", "0.9",
               needs="images"),
        _train("folds", *RUN_3D, "--pathologies", "B", "--b_size", "4", "--n_epochs", "2",
               "--folds", "3"),
        _train("folds_frozen", *FROZEN, "--pathologies", "B", "--b_size", "2", "--n_epochs", "3",
               "--folds", "3", "--cache_dir", "{cache}", needs="images"),
        Scenario("evaluate", ("evaluate.py",),
                 (*CHECKPOINT, *VOLUMES, "--split", "all", "--explain", "1", "--gpu_id", "cpu",
                  "--n_cpu", "0", *OUT), trains=False, needs="plain"),
        Scenario("volume", ("evaluate.py",),
                 (*CHECKPOINT, "--volume", "{work}/volumes/volumes/v1.npy", "--gpu_id", "cpu",
                  *OUT), trains=False, needs="plain"),
        Scenario("check", ("-m", "slivit.check"), (*VOLUMES, *OUT), trains=False),
        Scenario("convert", ("-m", "slivit.convert"),
                 ("{work}/original.pth", "{out}.safetensors", "--overwrite", "--tiling", "width",
                  "--task", "binary", "--label", "A"), trains=False),
        Scenario("folder_meta", ("data/make_folder_meta.py",),
                 ("{work}/classes", "--out", "{out}.csv", "--overwrite"), trains=False)]


SCENARIOS = {scenario.name: scenario for scenario in _scenarios()}
TRAININGS = tuple(name for name, scenario in SCENARIOS.items() if scenario.trains)
