"""The first thing that a script does, before imports that take seconds."""

import contextlib
import importlib
import io
import sys

from slivit.utils.errors import UserError, refuse
from slivit.utils.ranks import global_rank
from slivit.utils.startup import begin_process


def begin(script: str, text: str | None) -> None:
    """Let signals end a script, and answer --help and wrong options at once.

    Of several processes that torchrun started, rank 0 answers.

    Args:
        script: its name, which is also that of the module with its parser.
        text: its description.
    """
    begin_process()
    unseen = io.StringIO() if global_rank() else None
    try:
        with (contextlib.redirect_stdout(unseen or sys.stdout),
              contextlib.redirect_stderr(unseen or sys.stderr)):
            importlib.import_module(f"slivit.cli.{script}").build_parser(text).parse_args()
    except UserError as error:  # of the few options that other code than the parser's reads
        refuse(error)
