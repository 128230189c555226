"""Weights on the Hugging Face Hub: named `hf://owner/name[/file][@revision]`, fetched once.

Files are kept in the cache of huggingface_hub, the library that does all the work here. Its
settings hold: HF_TOKEN for private repositories, HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT.
"""

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from slivit.utils.errors import UserError
from slivit.utils.log import LOG

PREFIX = "hf://"
FORM = "hf://owner/name[/file][@revision]"
FILES = ("slivit.safetensors", "backbone.safetensors")  # looked for where no file is named
TIMEOUT = 10  # seconds
LONGEST_NAME = 96  # of owner and name together
PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")
OTHER_KINDS = ("models", "datasets", "spaces")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
BY_HAND = ("To go on without the Hub, download the file in a browser or on another machine, and "
           "give its path")


@dataclasses.dataclass(frozen=True)
class HubName:
    """A file on the Hub.

    Attributes:
        repo: `owner/name`.
        file: its path in the repository; None for the one that the repository is about.
        revision: a branch, tag or commit; None for the newest commit of the main branch.
    """

    repo: str
    file: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        return (f"{PREFIX}{self.repo}" + (f"/{self.file}" if self.file else "")
                + (f"@{self.revision}" if self.revision else ""))


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name begins with `hf://`, or `hf:/` as a Path writes it."""
    return str(name).startswith(PREFIX[:-1])


def parse_hub_name(name: str | Path) -> HubName:
    """Read `hf://owner/name[/file][@revision]`.

    Raises:
        UserError: saying what does not fit.
    """
    body = str(name)[len(PREFIX) - 1:].removeprefix("/")
    path, at, revision = body.rpartition("@") if "@" in body else (body, "", "")
    owner, _, rest = path.partition("/")
    title, slash, file = rest.partition("/")
    fault = repo_fault(f"{owner}/{title}")
    if owner in OTHER_KINDS:
        fault = f"names of {owner} are not accepted, expected the owner of a model repository"
    elif not fault and slash and not all(part.strip(". ") for part in file.split("/")):
        fault = f"found {file!r}, expected the path of a file in the repository"
    elif not fault and at and not re.fullmatch(r"[^\s@?#%\\]+", revision):
        fault = f"found {revision!r} after the @, expected a branch, a tag or a commit"
    if fault:
        raise UserError(f"{name}: {fault}. The form is {FORM}")
    return HubName(f"{owner}/{title}", file or None, revision or None)


def repo_fault(repo: str) -> str:
    """Return why a text is no `owner/name` of the Hub; empty if it is one."""
    parts = repo.split("/")
    if (len(parts) != 2 or not all(PART.fullmatch(part) for part in parts) or "--" in repo
            or ".." in repo or repo.endswith(".git") or len(repo) > LONGEST_NAME):
        return (f"found {repo[:LONGEST_NAME]!r}, expected owner/name, each of letters, digits and "
                "single -, _ or . within")
    return ""


def local_file(name: str | Path) -> Path:
    """Return where a file is on this machine; one of the Hub is fetched, unless it is cached.

    Without a commit, the Hub is asked for the newest one, unless HF_HUB_OFFLINE is set. If it
    cannot be reached, or does not answer, the cached file is taken, and a warning says so.

    Args:
        name: a path, which need not exist, or `hf://owner/name[/file][@revision]`. Where no file is
            named, it is slivit.safetensors, else the only .safetensors file there is.

    Raises:
        UserError: a wrong name, or the file cannot be had; says how to go on.
    """
    if not is_hub_name(name):
        return Path(name)
    wanted = parse_hub_name(name)
    if (_is_offline() or COMMIT.fullmatch(wanted.revision or "")) and (path := _cached(wanted)):
        return path
    try:
        path = _fetch(wanted)
    except UserError:
        raise
    except Exception as error:  # its HTTP client, another in each version, has kinds of its own
        path = _cached(wanted) if _may_use_cache(error) else None
        if path is None:
            raise UserError(_message(wanted, error)) from None
        LOG.warning("warning: %s: the Hub was not asked whether there is a newer file (%s)",
                    wanted, reason(error))
    LOG.info("%s: %s", wanted, path)
    return path


def pinned(name: str | Path) -> str | Path:
    """Fetch a file of the Hub and return its name with file and commit; a path is returned as is.

    Raises:
        UserError: see local_file.
    """
    return title_of(local_file(name)) if is_hub_name(name) else name


def title_of(path: Path) -> str:
    """Return `hf://owner/name/file@commit` of a file in the Hub's cache; else the path."""
    parts = path.parts
    for k, part in enumerate(parts[1:-2], 1):
        if (part == "snapshots" and parts[k - 1].startswith("models--")
                and COMMIT.fullmatch(parts[k + 1])):
            repo = parts[k - 1].removeprefix("models--").replace("--", "/")
            return str(HubName(repo, "/".join(parts[k + 2:]), parts[k + 1]))
    return str(path)


def reason(error: Exception) -> str:
    """Return in a line why a request failed."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    said = getattr(error, "server_message", None) or str(error)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return textwrap.shorten(lines[0], 200, placeholder=" ...") if lines else type(error).__name__


def repo_url(repo: str) -> str:
    """Return the address of a repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}"


def _fetch(name: HubName) -> Path:
    """Return a file of the Hub, downloaded unless the cache has it."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import OfflineModeIsEnabled

    if _is_offline():
        raise OfflineModeIsEnabled
    info = HfApi().model_info(name.repo, revision=name.revision, timeout=TIMEOUT)  # no retries
    file = _choose_file(name, [one.rfilename for one in info.siblings or ()])
    return Path(hf_hub_download(name.repo, file, revision=name.revision, etag_timeout=TIMEOUT))


def _choose_file(name: HubName, files: Sequence[str]) -> str:
    """Return the file that a name means, of those in the repository.

    Raises:
        UserError: it is not there, or which is meant cannot be told.
    """
    weights = sorted(file for file in files if file.endswith((".safetensors", ".pth", ".bin")))
    if name.file in files:
        return name.file
    if name.file is None:
        if FILES[0] in files:
            return FILES[0]
        only = [file for file in weights if file.endswith(".safetensors")]
        if len(only) == 1:
            return only[0]
    listed = f"weights there: {', '.join(weights[:10])}" if weights else "it has no weights"
    wanted = name.file or f"{FILES[0]}, nor just one .safetensors file"
    raise UserError(f"{name}: {repo_url(name.repo)} has no {wanted} ({listed}). Name a file, as in "
                    f"{FORM}")


def _cached(name: HubName) -> Path | None:
    """Return a file from the Hub's cache, None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    for file in FILES if name.file is None else (name.file,):
        found = try_to_load_from_cache(name.repo, file, revision=name.revision)
        if isinstance(found, str):
            return Path(found)
    return None


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _may_use_cache(error: Exception) -> bool:
    """Return whether a cached file may stand in: not where the Hub says that there is no such."""
    from huggingface_hub.errors import RevisionNotFoundError

    return not isinstance(error, RevisionNotFoundError)


def _message(name: HubName, error: Exception) -> str:
    """Return why a file of the Hub cannot be had, and how to go on."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, RevisionNotFoundError):
        what = (f"the repository has no revision {name.revision}" if name.revision else
                "the repository is empty")
    elif isinstance(error, GatedRepoError):
        what = f"its owner admits those who ask: do so at {repo_url(name.repo)}, then {LOGIN}"
    elif isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        what = ("there is no such repository, or it is private and "
                + ("your token may not read it" if get_token() else f"no token is set ({LOGIN})"))
    elif isinstance(error, OfflineModeIsEnabled):
        what = "HF_HUB_OFFLINE is set, and this file has not been fetched before"
    else:
        what = f"the Hub cannot be reached, or does not answer as expected ({reason(error)})"
    return (f"{name}: {what}. Wanted {name.file or ' or '.join(FILES)} from {repo_url(name.repo)}. "
            f"{BY_HAND}")
