"""The folder that a run writes: what may be done with one that is not empty."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from slivit.config import PRECISIONS
from slivit.utils.errors import UserError, listing
from slivit.utils.files import kind_of_file, recorded
from slivit.utils.manifest import MANIFEST, Manifest, is_plain, read_manifest, written_by_runs
from slivit.utils.records import Misfit, check, parse_object

MAY_CHANGE = {"resume", "overwrite", "out_dir", "gpu_id", "n_cpu", "amp", "deterministic",
              "n_epochs", "patience", "data_root", "cache_dir", "check_scans", "versions", "quiet",
              "tensorboard", "wandb"}

RUN_FILES = ("config.json", "split.csv", "patient_key.txt", "log.csv", "history.png", "last.pt",
             "backbone.safetensors", "slivit.safetensors", "metrics.json", "predictions.csv",
             "roc.png", "pr.png", "calibration.png", "scatter.png", "data_report.csv",
             "contact_sheet.png", "folds.csv", "confusion.png", "bland_altman.png",
             "report.html", "report.md")
# What --resume reads, and refuses in its own words where it is damaged.
READ_BACK = ("config.json", "patient_key.txt", "last.pt", "backbone.safetensors",
             "slivit.safetensors")
RUN_FOLDERS = ("worst", "explain")  # of pictures and heat maps
BY_HAND = "Move away, or delete by hand, what is not needed, or name another --out_dir"


def check_out_dir(out_dir: Path, resume: bool = False, overwrite: bool = False,
                  inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output folder that cannot be written, or would lose files that no run wrote.

    Nothing is made or removed here: that waits until all input has been found good.

    Args:
        out_dir: that need not be there yet.
        resume: continue the run that is there.
        overwrite: start again there: the files that manifest.csv lists are going to be removed.
        inputs: files that the run reads.

    Raises:
        UserError: not a folder; not empty, without `resume` and `overwrite`; not writable; in use
            by another run; with `overwrite`, not listed what would be replaced, or read by this
            run what would be removed.
    """
    check_place(out_dir)  # before what it holds is looked at
    listed = read_manifest(out_dir) if out_dir.is_dir() else None
    _check_content(out_dir, listed, resume, overwrite)
    if overwrite:
        check_inputs(out_dir, listed or {}, inputs)
    check_writable(out_dir, "--out_dir")
    if listed is not None:
        Manifest(out_dir).close()  # refuses where another run has it open


def check_place(out_dir: Path, flag: str = "--out_dir") -> None:
    """Refuse a path that cannot be a folder.

    Raises:
        UserError: a file; below a broken link, or a file; a name that is too long.
    """
    for path in (out_dir, *out_dir.absolute().parents):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            if path.is_symlink():
                raise UserError(f"{flag} {out_dir}: {path} is a broken symbolic "
                                "link. Name another folder") from None
            continue
        except NotADirectoryError:
            continue  # reported for the file above it
        except (OSError, ValueError) as error:  # ValueError: a NUL in it
            raise UserError(f"{flag} {str(out_dir)!r}: cannot be a folder "
                            f"({getattr(error, 'strerror', None) or error})") from None
        if not path.is_dir():
            raise UserError(f"{flag} {out_dir}: {'' if path == out_dir else f'{path} '}is "
                            f"{kind_of_file(mode)}, expected a folder")
        return


def _check_content(out_dir: Path, listed: dict[str, set[int | None]] | None, resume: bool,
                   overwrite: bool) -> None:
    """Refuse what is in a folder, by what is to be done with it."""
    if is_empty(out_dir, listed or {}):
        return
    if not (resume or overwrite):
        raise UserError(f"--out_dir {out_dir}: is not empty. Name another folder, or add "
                        "--overwrite to start again there (the training scripts also take "
                        "--resume to go on)")
    bad = [name for name in RUN_FILES
           if os.path.lexists(out_dir / name) and not is_plain(out_dir, name)]
    bad += [name for name in RUN_FOLDERS if os.path.lexists(out_dir / name)
            and ((out_dir / name).is_symlink() or not (out_dir / name).is_dir())]
    if bad:
        what = "\n".join(f"  {name} is {kind_of_file((out_dir / name).lstat().st_mode)}"
                         for name in bad)
        raise UserError(f"--out_dir {out_dir}: contains entries of a kind that no run writes:\n"
                        f"{what}\n{BY_HAND}.")
    there = [name for name in RUN_FILES if is_plain(out_dir, name)]
    if listed is None and resume:  # of an earlier version
        return
    if listed is None:
        there += [f"{name}/" for name in RUN_FOLDERS if (out_dir / name).is_dir()]
        if there:
            raise UserError(f"--out_dir {out_dir}: --overwrite removes the files that a run has "
                            f"listed in {MANIFEST}, but there is no {MANIFEST}. These have names "
                            f"that a run uses:\n{listing(there)}\n{BY_HAND}.")
    own = {*written_by_runs(out_dir, listed or {}), *(READ_BACK if resume else ())}
    foreign = sorted(set(there) - own)
    if foreign:
        flag = "--overwrite" if overwrite else "--resume"
        raise UserError(f"--out_dir {out_dir}: {flag} would replace files that no run wrote, "
                        f"or that were changed since:\n{listing(foreign)}\n{BY_HAND}.")


def check_inputs(out_dir: Path, listed: dict[str, set[int | None]],
                 inputs: Iterable[Path | None]) -> None:
    """Refuse to remove what the run reads, by whatever path it is reached.

    Args:
        out_dir, listed: the folder, and what its manifest lists.
        inputs: files; those that are not there are passed over. Not looked at where nothing would
            be removed.

    Raises:
        UserError: naming them.
    """
    doomed = {_identity(out_dir / name): name for name in written_by_runs(out_dir, listed)}
    if not doomed:
        return
    lost = [str(path) for path in inputs if path is not None and _identity(path) in doomed]
    if lost:
        raise UserError(f"--out_dir {out_dir}: --overwrite would remove "
                        f"{', '.join(sorted(set(lost)))}, which this run reads. Name another "
                        "--out_dir")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return None
    return stat.st_dev, stat.st_ino


def is_empty(out_dir: Path, listed: dict[str, set[int | None]]) -> bool:
    """Return whether a folder is missing, or contains only what a killed run began with.

    That is its manifest.csv, and temporary files that `listed`, its content, names.
    """
    if not out_dir.is_dir():
        return True
    names = {entry.name for entry in out_dir.iterdir()}
    return all(None in listed.get(name, ()) for name in names - {MANIFEST})


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises:
        UserError: with the flag that named it; and see check_place.
    """
    check_place(folder, flag)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):  # os.access knows too little: root, full disks
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write in {existing}: {error.strerror}") from error


@contextlib.contextmanager
def open_out_dir(out_dir: Path, resume: bool = False, overwrite: bool = False,
                 inputs: Iterable[Path | None] = ()) -> Iterator[None]:
    """Make the output folder, and within this block list every file that is written there.

    Other runs are kept out. What killed runs have left half-made is removed and, with `overwrite`,
    all that runs have written there; nothing else is.

    Raises:
        UserError: see check_out_dir, with the files that are going to be read as `inputs`.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out_dir {out_dir}: cannot be created ({error.strerror})") from None
    known = (out_dir / MANIFEST).exists()
    with contextlib.closing(Manifest(out_dir)) as manifest:
        _check_content(out_dir, manifest.sizes if known else None, resume, overwrite)
        manifest.clear_temporary()
        if overwrite:
            check_inputs(out_dir, manifest.sizes, inputs)
            manifest.remove(written_by_runs(out_dir, manifest.sizes))
        elif resume and not known:  # a run of an earlier version
            pictures = (path.relative_to(out_dir).as_posix()
                        for path in out_dir.glob("worst/worst_*.png"))
            manifest.adopt((*RUN_FILES, *pictures))
        with recorded(manifest.record):
            try:
                yield
            except BaseException as error:
                error.can_resume = True  # for what is said of it: see Stopped, and failures
                raise


def make_config(settings: Mapping[str, object], **resolved: object) -> dict:
    """Return what `config.json` holds: every option, then what was resolved from them.

    Raises:
        UserError: a size that no checkpoint may hold.
    """
    config = dict(settings)
    for key, value in resolved.items():
        if dataclasses.is_dataclass(value):
            try:
                check(value)
            except Misfit as error:
                raise UserError(f"{key}: {error}") from None
        config[key] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    return json.loads(json.dumps(config, default=str))  # paths as text


def check_resume(out_dir: Path, config: dict) -> None:
    """Refuse to resume a run that was started with other options or other data.

    Raises:
        UserError: listing every option that differs.
    """
    path = out_dir / "config.json"
    if not path.exists() and not path.is_symlink():
        if not is_empty(out_dir, read_manifest(out_dir) or {}):
            raise UserError(f"--resume: {out_dir} is not empty and contains no config.json, so it "
                            "is not a run of this script")
        return
    try:
        if not path.is_file():
            raise Misfit(["it is not a regular file"])
        before = parse_object(path.read_bytes())
    except (Misfit, OSError) as error:
        raise UserError(f"--resume: {path} is damaged ({error}); start again with --overwrite"
                        ) from None
    if isinstance(before.get("data"), dict):
        before["data"].pop("patients", None)  # stood there in earlier versions
    if "precision" in config:  # in earlier versions it was --amp alone that told
        before.setdefault("precision", PRECISIONS.get(str(before.get("amp"))))
    flags = {name: f"; give --amp {amp}" for amp, name in PRECISIONS.items()}
    changed = [f"{key}: was {before.get(key)!r}, now {config.get(key)!r}"
               + flags.get(str(before.get(key)), "") * (key == "precision")
               for key in sorted(set(before) | set(config))
               if key not in MAY_CHANGE and before.get(key) != config.get(key)]
    if changed:
        raise UserError(f"--resume: the run in {out_dir} was started differently:\n"
                        f"{listing(changed)}\nGive the same options (only "
                        f"{', '.join('--' + key for key in ('n_epochs', 'patience', 'n_cpu'))} "
                        "and --gpu_id may change), or another --out_dir")
