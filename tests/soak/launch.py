"""Start a script as Python does: anew, or as a copy of a process that has imported its packages.

    python tests/soak/launch.py MARK SCRIPT ...      # or MARK -m MODULE ...
    python tests/soak/launch.py                      # makes copies, as standard input asks

MARK is a file that is made right before the script's first line runs. A copy saves the seconds in
which a script imports other people's packages; this project's own modules it imports itself.
Requests and answers are a line of JSON each: {"preload": [module, ...]} -> threads running;
{"words", "mark", "out", "err", "memory"} -> process id; {"poll": process id} -> exit code or null.
"""

import atexit
import contextlib
import importlib
import json
import os
import resource
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run one script, or answer requests until there are no more."""
    if len(sys.argv) > 1:
        become(sys.argv[2:], sys.argv[1])
        return
    ending = {}
    atexit.register(leave, ending)  # as the first, so that it is called as the last
    for line in sys.stdin:
        request = json.loads(line)
        if "preload" in request:
            answer = preload(request["preload"])
        elif "poll" in request:
            found, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        else:
            answer = os.fork()
            if answer == 0:
                detach(request)
                break
        print(json.dumps(answer), flush=True)
    else:
        return
    ending["code"] = 1  # of any error
    try:  # here, so that the copy ends as a script does
        become(request["words"], request["mark"])
        ending["code"] = 0
    except SystemExit as error:
        ending["code"] = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


def leave(ending: dict[str, int]) -> None:
    """End a copy when all else is done, without taking apart what was imported: that takes long."""
    if ending:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(ending["code"])


def preload(names: list[str]) -> int:
    """Import modules; return how many threads there are (a copy has but one)."""
    for name in names:
        with contextlib.suppress(Exception):  # parts of packages that cannot be had alone
            importlib.import_module(name)
    return len(os.listdir("/proc/self/task")) if Path("/proc/self/task").is_dir() else 1


def detach(request: dict) -> None:
    """Give a copy a session and files of its own, and a limit of its memory in bytes."""
    os.setsid()
    for number, path, mode in ((0, os.devnull, os.O_RDONLY),
                               (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
                               (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        file = os.open(path, mode, 0o666)
        os.dup2(file, number)
        os.close(file)
    if request["memory"]:
        resource.setrlimit(resource.RLIMIT_AS, (request["memory"],) * 2)


def become(words: list[str], mark: str) -> None:
    """Run a script as the main program."""
    sys.path[0] = str((ROOT / words[0]).parent)  # for -m, too, that is the root
    Path(mark).touch()
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
