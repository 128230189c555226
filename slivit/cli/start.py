"""The first thing that a script does, before imports that take seconds."""

import importlib

from slivit.utils.signals import end_at_signals


def begin(script: str, text: str | None) -> None:
    """Have signals end a script, and answer --help and options that are none at once.

    Args:
        script: its name, and that of the module here which has its parser.
        text: that describes it.
    """
    end_at_signals()
    importlib.import_module(f"slivit.cli.{script}").build_parser(text).parse_args()
