"""What bb_train.py and finetune.py share: a training from its records to its report."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.header import CheckpointHeader, Validation
from slivit.checkpoints.model_card import epoch_chosen, training_facts
from slivit.checkpoints.patient_key import patient_key, write_key
from slivit.checkpoints.pretrained import PretrainedBackbone
from slivit.checkpoints.subjects import subject_facts
from slivit.checkpoints.trained import load_trained
from slivit.config import Augmentation, FitOptions, Target
from slivit.data.scan_table import ScanTable
from slivit.data.targets import check_validation
from slivit.models.slivit import ImageClassifier, SLIViT
from slivit.report.evaluation import ReportOptions
from slivit.report.writer import closing_split, measure
from slivit.training.calibration import temperature_of
from slivit.training.losses import Objective
from slivit.training.progress import Plan
from slivit.training.resume import find_state
from slivit.training.self_supervised.method import SelfSupervisedMethod, WithoutLabels
from slivit.training.trackers import TrackerOptions, open_trackers
from slivit.training.train_step import Phase
from slivit.training.trainer import Outputs, fit
from slivit.utils.files import write_json
from slivit.utils.log import LOG
from slivit.utils.output_dir import check_resume, make_config, open_out_dir
from slivit.utils.precision import precision_name
from slivit.utils.runtime import versions
from slivit.utils.session import Session

SOLVED = ("train_fraction", "amp", "freeze_backbone", "feature_augments", "weights")  # options
FILES = {"bb_train": "backbone.safetensors", "finetune": "slivit.safetensors"}
# Made when the model is on its device; what it opens is closed when the training ends.
MakePhases = Callable[[contextlib.ExitStack], list[Phase]]


@dataclass(frozen=True)
class Experiment:
    """A training: what learns what from which scans, and where its files go.

    Attributes:
        script: `bb_train` or `finetune`.
        model: with the weights it starts from.
        start: those weights of the backbone.
        scans: with the labels that are learned.
        target: what is predicted; without labels, nothing.
        auxiliary: labels that are learned too, but neither predicted nor scored.
        objective, augmentation, fit: see there.
        weights: of the training scans in sampling, or None.
        starts: the first epoch of each phase.
        settings: all options of the script by name, for config.json.
        out_dir: where files go.
        trackers: where the log goes beside log.csv.
    """

    script: str
    model: ImageClassifier | SLIViT | SelfSupervisedMethod
    start: PretrainedBackbone
    scans: ScanTable
    target: Target
    objective: Objective | WithoutLabels
    augmentation: Augmentation
    fit: FitOptions
    weights: np.ndarray | None
    settings: Mapping[str, object]
    out_dir: Path
    auxiliary: tuple[str, ...] = ()
    starts: tuple[int, ...] = (1,)
    trackers: TrackerOptions = field(default_factory=TrackerOptions)

    @property
    def best(self) -> Path:
        """Where the checkpoint of the best epoch goes."""
        return self.out_dir / FILES[self.script]

    @property
    def scored(self) -> ScanTable:
        """The scans with the labels that are predicted."""
        return self.scans.select_labels(self.target.labels) if self.auxiliary else self.scans


def run_experiment(one: Experiment, run: Session, make_phases: MakePhases) -> None:
    """Train on the train split, keep the best epoch on val, evaluate on test, write all files.

    What predicts nothing is not evaluated.

    Args:
        one: see Experiment.
        run: where it runs.
        make_phases: gives what is trained in which epochs.

    Raises:
        UserError: the output folder, or the run in it, is not what is needed.
        RunError: the training failed; the last good files stay.
        Stopped: a signal came; last.pt holds the last whole step.
    """
    scans = one.scored
    data = checkpoint.data_facts(scans, scans.fingerprint(), one.settings["split_ratio"],
                                 one.fit.seed)
    config = _config(one, data, run)
    key = patient_key(one.out_dir, run.resume, one.start.patient_key)
    patients = subject_facts(scans, key, one.start.card)
    plan = _plan(one)
    if one.target.labels and one.fit.select != "last" and not _is_solved(one.model):
        check_validation(one.scans)  # the loss counts auxiliary labels too
    if run.resume and run.world.is_main:
        check_resume(one.out_dir, config)
    start = find_state(one.out_dir, one.model, one.best, run, plan)
    save_best = _keep_best(one, data | patients, config)
    with contextlib.ExitStack() as stack:
        track = None
        if run.world.is_main:
            stack.enter_context(open_out_dir(one.out_dir, run.resume, run.overwrite,
                                             chain(run.inputs, scans.read.files())))
            write_json(one.out_dir / "config.json", config)
            if patients["patients"]:
                write_key(one.out_dir, key)
            one.scans.save_split(one.out_dir / "split.csv")
            track = stack.enter_context(open_trackers(one.trackers, config, one.out_dir))
        run.world.barrier()
        one.model.precision = run.precision
        one.model.to(run.device)
        fit(one.model, make_phases(stack), one.objective, one.fit, run,
            Outputs(one.out_dir, save_best, track), start)
        run.world.barrier()
        LOG.info("%s: %s", "backbone" if one.script == "bb_train" else "model", one.best)
        if not one.target.labels:
            LOG.info("it was trained without labels, so there is nothing to score; fine-tune it "
                     "with finetune.py --bb_path %s", one.best)
            return
        trained = load_trained(one.best, run.device, one.settings["amp"])
        split = closing_split(scans, epoch_chosen(trained.card))
        measure([trained], scans, split, run, one.fit.b_size, one.out_dir,
                ReportOptions(one.fit.seed))


def _is_solved(model: nn.Module) -> bool:
    """Return whether a model is solved at once, without steps."""
    return isinstance(model, SLIViT) and model.config.kind == "linear"


def _plan(one: Experiment) -> Plan:
    if _is_solved(one.model):
        return Plan(0)
    return Plan.of(one.scans, one.fit.b_size, one.fit.accumulate, one.starts,
                   one.objective.drop_last)


def _config(one: Experiment, data: dict, run: Session) -> dict:
    """Return the content of config.json."""
    integrator = {"integrator": one.model.config} if isinstance(one.model, SLIViT) else {}
    return make_config(one.settings, script=one.script, backbone=one.start.backbone,
                       target=one.target, preprocess=one.model.preprocess,
                       augmentation=one.augmentation, data=data, versions=versions(),
                       backbone_data=one.start.trained_on,
                       precision=precision_name(run.precision), **integrator)


def _keep_best(one: Experiment, data: dict, config: dict
               ) -> Callable[[int, dict, nn.Module, Validation | None], None]:
    """Return what writes the checkpoint of an epoch that is the best so far."""
    options = config
    if one.script == "finetune":
        options = {**config, "auxiliary": ", ".join(one.auxiliary) or None}
    augmentation = one.augmentation
    if _is_solved(one.model):
        options = {key: value for key, value in options.items() if key in SOLVED}
        if not options["feature_augments"]:
            augmentation = Augmentation(flips="", jitter=0.0)
    facts = training_facts(one.scored, one.target, augmentation, options,
                           one.start.trained_on)
    volumes = isinstance(one.model, SLIViT)

    def save(epoch: int, scores: dict, best: nn.Module, validation: Validation | None) -> None:
        if _is_solved(best):
            facts["options"]["penalty"] = best.integrator.penalty
        header = CheckpointHeader(
            "slivit" if volumes else "backbone", one.start.backbone,
            one.model.config if volumes else None, one.target, one.model.preprocess, data, epoch,
            scores, one.fit.seed, versions(), facts,
            temperature_of(validation, one.target) if validation else None,
            precision=config["precision"])
        checkpoint.save(one.best, best, header, validation)

    return save
