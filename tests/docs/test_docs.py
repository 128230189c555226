"""README.md and docs/: every flag is in some --help, every file is there, every link leads on."""

import importlib
import re
import sys

import pytest
from converters import DATA, NAMES
from helpers import ROOT, flags_of

import bb_train
import evaluate
import finetune
from demo import __main__ as demo
from demo import nodule_tables
from slivit import check, convert, share

PAGES = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]
BENCHMARKS = ("accuracy", "agreement", "intervals", "job_options", "learning_curve", "loading",
              "ratings", "search", "speed")
NOT_OURS = {"--nproc_per_node", "--nnodes", "--rdzv_backend", "--rdzv_endpoint"}  # torchrun's
MADE = ("runs/", "out/", "nodule/", "nodule_eval/", "cv/", "check/", "data/medmnist", "OCT2017/",
        "EchoNet-Dynamic/", "nodules/", "CellData/", "explain/", "worst/", "tensorboard/", "scans/",
        "a/", "b/", "fold_", "Videos/", "ROOT/", "SPLIT", "train/", "test/", "val/", "report.md",
        "benchmarks/results/gpu.csv")


def text_of(page):
    return page.read_text(encoding="utf-8")


def all_flags():
    """Return every flag of the scripts, commands, converters and benchmarks."""
    sys.path.insert(0, str(DATA))
    modules = [bb_train, finetune, evaluate, check, convert, share, demo, nodule_tables]
    modules += [importlib.import_module(name) for name in NAMES]
    found = set().union(*(flags_of(module.build_parser()) for module in modules))
    for name in BENCHMARKS:
        found |= set(re.findall(r'"(--\w+)"', text_of(ROOT / f"benchmarks/{name}.py")))
    return found


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text_of(page), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_are_those_of_some_program(page):
    named = set(re.findall(r"(?<![\w-])--[a-z]\w+", text_of(page)))
    assert named - all_flags() - NOT_OURS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_on(page):
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            bad.append(target)
    assert bad == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    plain = re.findall(r"`([\w./-]+/[\w.-]+|[\w-]+\.(?:py|md))`", text_of(page))
    bad = [name for name in plain if not name.startswith(MADE) and not any(
        (folder / name).exists() for folder in (ROOT, page.parent, ROOT / "data", ROOT / "slivit"))]
    assert bad == []


def test_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 220
