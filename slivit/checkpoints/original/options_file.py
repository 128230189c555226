"""`finetune_options.txt` of the original SLIViT: what it states about the model beside it.

How it is written is not documented, and has varied. Read are lines of `key: value`, `key = value`
and `key value`, command lines, argparse's `Namespace(key=value, ...)`, and JSON.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from slivit.config import label_name_faults
from slivit.data.named_sets import EMBEDDED, known_sets
from slivit.utils.log import LOG

OPTIONS_FILE = "finetune_options.txt"
LONGEST = 100_000  # bytes; such a file has a few hundred
LONGEST_VALUE = 200
DATASET = ("dataset", "dataset_name", "data_set", "dataset3d", "dataset_3d")
LABEL = ("label", "labels", "pathology", "pathologies", "label3d", "label_3d")
TASKS = {"binary": "binary", "classification": "binary", "binary_classification": "binary",
         "regression": "regression"}
NOTHING = ("", "none", "null")
PAIR = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)\s*(?:[:=]|\s)\s*(.*?)\s*,?\s*$")
FLAG = re.compile(r"--([A-Za-z]\w*)(?:[=\s]+(?!--)('[^']*'|\"[^\"]*\"|\S+))?")
IN_NAMESPACE = re.compile(r"\b(\w++)\s*+=\s*+('[^']*'|\"[^\"]*\"|\[[^\]]*\]|[^,()]*)")


@dataclass(frozen=True)
class Hints:
    """What is known of a model: None where nothing is.

    Attributes:
        tiling: `height` (MedMNIST) or `width` (all other data).
        task: `binary` or `regression`.
        label: name of the output.
        dataset: name of the data set; a MedMNIST flag where it is one.
    """

    tiling: str | None = None
    task: str | None = None
    label: str | None = None
    dataset: str | None = None


def find_hints(path: Path) -> Hints:
    """Read an options file if there is one, and log what is taken from it."""
    if not path.is_file():  # nor a pipe
        return Hints()
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST).decode("utf-8", errors="replace")
    except OSError:
        return Hints()
    options = parse_options(text)
    hints, used = _interpret(options)
    LOG.info("%s: %s", path, (", ".join(f"{key} {options[key]}" for key in used) or "nothing")
             + f" used, {len(options) - len(used)} other options ignored")
    return hints


def parse_options(text: str) -> dict[str, str]:
    """Return keys, in lower case and with underscores, and values as text without quotes."""
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    if isinstance(options, dict):
        pairs = [(key, ",".join(map(str, value)) if isinstance(value, list) else str(value))
                 for key, value in options.items()]
    elif "Namespace(" in text:
        inside = text.partition("Namespace(")[2].rpartition(")")[0]
        pairs = IN_NAMESPACE.findall(inside)
    else:
        matches = (PAIR.match(line) for line in text.splitlines() if "--" not in line)
        pairs = [match.groups() for match in matches if match] + FLAG.findall(text)
    return {key.strip().lower().replace("-", "_"): value.strip().strip("[]\"'").strip()
            for key, value in pairs}


def _interpret(options: dict[str, str]) -> tuple[Hints, list[str]]:
    """Return what options mean, and which of them were used."""
    used = []

    def take(keys: tuple[str, ...]) -> str | None:
        for key in keys:
            value = options.get(key, "")
            if value.lower() not in NOTHING and len(value) <= LONGEST_VALUE:
                used.append(key)
                return value
        return None

    dataset, task, label = take(DATASET), take(("task",)), take(LABEL)
    if task is not None and task.lower() not in TASKS:
        used.remove("task")
        task = None
    tiling = flag = None
    if dataset is not None:
        flag = dataset.lower().removesuffix(".npz")
        tiling = "height" if "mnist" in flag else "width"
        flag = flag if flag in known_sets() and flag not in EMBEDDED else dataset
    if label is not None and ("," in label or ";" in label  # one output, so one of them
                              or label_name_faults([label])):
        used[:] = [key for key in used if key not in LABEL]
        label = None
    return Hints(tiling, task and TASKS[task.lower()], label, flag), used
