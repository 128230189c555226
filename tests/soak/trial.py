"""One trial: its folder, its random numbers, the processes it started, what went wrong."""

import random
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.folders import broken_files, differences
from tests.soak.processes import Ended, Launcher, Process, Shot, finish
from tests.soak.scenarios import SCENARIOS, Scenario

LIMIT = 120.0  # seconds after which a process hangs
STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Reference:
    """What a scenario leaves when nothing happens to it, and the seconds from its first line."""

    folder: Path
    seconds: float


@dataclass
class Bench:
    """What all trials share.

    Attributes:
        work: the folder of everything.
        seed: of everything random.
        references: by scenario.
        import_seconds: that a fresh process takes longer than a copy.
        kept: finished things that several trials start from, by name.
    """

    work: Path
    seed: int
    references: dict[str, Reference] = field(default_factory=dict)
    import_seconds: float = 0.0
    kept: dict[str, Path] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


@dataclass
class Trial:
    """One trial of a kind; `rng` depends on seed, kind and number alone.

    Attributes:
        bench: what all share.
        launcher: of the worker.
        kind, number: which trial.
        subject: what it was tried on.
        story: commands, signals and damage, in order.
        problems: what went wrong.
        waits: seconds from a signal to the end, where these count.
        signals, processes, early: how many; `early` ones came before the script could catch them.
        killed: whether a process was ended wherever it was, so that it may have left traces.
    """

    bench: Bench
    launcher: Launcher
    kind: str
    number: int
    subject: str = ""
    story: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    signals: int = 0
    processes: int = 0
    early: int = 0
    killed: bool = False
    folder: Path | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.bench.seed} {self.kind} {self.number}")
        if self.folder is None:
            self.folder = self.bench.work / "trials" / f"{self.kind}_{self.number}"
        shutil.rmtree(self.folder, ignore_errors=True)  # of an earlier call
        self.folder.mkdir(parents=True)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.number}"

    def choose(self, names: Sequence[str]) -> Scenario:
        """Draw a scenario."""
        self.subject = self.rng.choice(names)
        return SCENARIOS[self.subject]

    def start(self, words: Sequence[str], fresh: bool = False, memory: int | None = None
              ) -> Process:
        """Start a script; see Launcher."""
        self.processes += 1
        self.story.append(f"{'' if fresh else '(copy) '}python {shlex.join(words)}")
        return self.launcher.start(words, self.folder / f"{self.processes}", fresh, memory)

    def run(self, words: Sequence[str], shots: Sequence[Shot] = (), fresh: bool = False,
            limit: float = LIMIT, memory: int | None = None) -> Ended:
        """Run a script to its end; that it hangs is a problem."""
        return self.wait(self.start(words, fresh, memory), shots, limit)

    def wait(self, process: Process, shots: Sequence[Shot] = (), limit: float = LIMIT) -> Ended:
        """Wait for a script's end; that it hangs is a problem."""
        ended = finish(process, shots, limit)
        self.signals += len(ended.shots)
        self.story += [f"    {shot} ({at:.3f} s after the first line)" for shot, at in ended.shots]
        self.story.append(f"    ended with {ended.code} after {ended.seconds:.2f} s"
                          f" [{process.log.name}.err]")
        if ended.code is None:
            self.problems.append(f"{process.log.name}: hung for {limit:.0f} s")
        if "Traceback" in ended.err:
            last = ended.err.rstrip().splitlines()[-1]
            self.problems.append(f"{process.log.name}: traceback ({last:.150})")
        return ended

    def pause(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
        self.story.append(f"    {seconds:.3f} s later")

    def expect(self, fine: bool, problem: str) -> bool:
        """Note a problem unless all is fine."""
        if not fine:
            self.problems.append(problem)
        return fine

    def expect_whole(self, killed: bool = False) -> None:
        """Check that the files left so far are whole."""
        self.problems += broken_files(self.folder, killed)

    def expect_same(self, name: str) -> None:
        """Check that a scenario has left what its reference run left."""
        self.problems += differences(self.bench.references[name].folder, self.folder)

    def expect_refused(self, ended: Ended, codes: Sequence[int] = (1, 2)) -> None:
        """Check that a script ended with one message and without a traceback."""
        self.expect(ended.code in codes, f"ended with {ended.code}, expected "
                                         f"{' or '.join(map(str, codes))}: {ended.err[-300:]!r}")
        lines = ended.err.strip().splitlines()
        self.expect(bool(lines) and lines[0].startswith("error: "),
                    f"the message does not begin with 'error: ': {ended.err[:300]!r}")
        self.expect(sum(line.startswith("error: ") for line in lines) <= 1,
                    f"there are several messages: {ended.err[:300]!r}")
