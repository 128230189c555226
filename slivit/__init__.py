"""SLIViT: diagnose clinical features from limited 3D biomedical imaging.

    import slivit
    model = slivit.load("slivit.safetensors")
    result = model.predict("scan.nii.gz")

What is here is imported when it is first used, since that takes seconds; see api.
"""

from typing import TYPE_CHECKING

from slivit.version import __version__

if TYPE_CHECKING:
    from slivit.api import Explanation, Model, Result, load
    from slivit.utils.errors import RunError, UserError

__all__ = ["Explanation", "Model", "Result", "RunError", "UserError", "__version__", "load"]


def __getattr__(name: str) -> object:
    """Import what is asked for."""
    if name in ("RunError", "UserError"):
        from slivit.utils import errors as module
    elif name in __all__:
        from slivit.utils.startup import wait_asleep

        wait_asleep()
        from slivit import api as module
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(module, name)


def __dir__() -> list[str]:
    """List what is here, imported or not."""
    return sorted({*globals(), *__all__})
