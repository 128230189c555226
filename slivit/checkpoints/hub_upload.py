"""Uploads to the Hugging Face Hub."""

from pathlib import Path
from typing import TYPE_CHECKING

from slivit.checkpoints.hub import LOGIN, TIMEOUT, HubName, reason, repo_url
from slivit.utils.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo


def upload(folder: Path, repo: str, public: bool, overwrite: bool) -> str:
    """Upload all files of a folder in one commit; the repository is created unless it exists.

    Args:
        folder: without folders in it.
        repo: `owner/name`.
        public: whether everybody may read the repository.
        overwrite: whether files of the same names are replaced (the history keeps them).

    Returns:
        The name of the commit: `hf://owner/name@commit`.

    Raises:
        UserError: the repository is not what is wanted, or the upload fails.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(folder.iterdir())
    api = HfApi(token=token())
    try:
        _check_repository(_created(api, repo, public), public, overwrite,
                          [path.name for path in files])
        commit = api.create_commit(
            repo, [CommitOperationAdd(path.name, str(path)) for path in files],
            commit_message="Upload with slivit.share")
    except UserError:
        raise
    except Exception as error:  # see hub.local_file
        raise UserError(f"--to {repo}: the upload to {repo_url(repo)} failed ({reason(error)}). "
                        "Only files that this page lists are shared. Run the command again, or "
                        "write the files with --out_dir and upload them in a browser") from None
    return str(HubName(repo, revision=commit.oid))


def token() -> str:
    """Return the token with which the Hub knows its user.

    Raises:
        UserError: there is none.
    """
    from huggingface_hub import get_token

    if not (found := get_token()):
        raise UserError("no token for the Hugging Face Hub, which must know who uploads: make one "
                        "that may write at https://huggingface.co/settings/tokens, then "
                        f"{LOGIN}")
    return found


def _created(api: "HfApi", repo: str, public: bool) -> "ModelInfo":
    """Return what the Hub knows of a repository, which is created unless it exists."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo, timeout=TIMEOUT)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not public)
        return api.model_info(repo, timeout=TIMEOUT)


def _check_repository(info: "ModelInfo", public: bool, overwrite: bool, files: list[str]) -> None:
    """Refuse a repository that others may read, or may not read, against what is wanted.

    Raises:
        UserError: that, or it has files of these names.
    """
    there = sorted({one.rfilename for one in info.siblings or ()} & set(files))
    if bool(info.private) == public:
        raise UserError(
            f"--to {info.id}: this repository exists and is {'private' if public else 'public'}; "
            + ("omit --public, or change it in its settings" if public else
               "add --public if everybody may read the model, or name another repository"))
    if there and not overwrite:
        raise UserError(f"--to {info.id}: already has {', '.join(there)}; add --overwrite to "
                        "replace them (its history keeps them), or name another repository")
