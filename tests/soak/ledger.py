"""What was tried and what failed, counted while trials run."""

import shutil
import threading
import time
from collections import Counter, defaultdict

import numpy as np

from tests.soak.trial import Trial

EVERY = 180.0  # seconds between two lines about how it goes
COLUMNS = ("trials", "processes", "signals", "failed")


class Ledger:
    """Counts by kind and subject; the folders of failed trials stay, those of others go."""

    def __init__(self) -> None:
        self.began = self.told = time.monotonic()
        self.counts: dict[tuple[str, str], Counter] = defaultdict(Counter)
        self.waits: list[float] = []
        self.early = 0
        self.failed: list[Trial] = []
        self._lock = threading.Lock()

    def add(self, trial: Trial) -> None:
        """Note a finished trial."""
        with self._lock:
            self.counts[trial.kind, trial.subject] += Counter(
                trials=1, processes=trial.processes, signals=trial.signals,
                failed=int(bool(trial.problems)))
            self.waits += trial.waits
            self.early += trial.early
            if trial.problems:
                self.failed.append(trial)
                text = [*trial.story, "", *trial.problems]
                (trial.folder / "story.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
                print(f"FAILED {trial.name} ({trial.subject}): {trial.problems[0]:.300}",
                      flush=True)
            else:
                shutil.rmtree(trial.folder, ignore_errors=True)
            if time.monotonic() - self.told > EVERY:
                self.told = time.monotonic()
                total = sum(self.counts.values(), Counter())
                print(f"{(self.told - self.began) / 60:.0f} min: {total['trials']} trials, "
                      f"{total['signals']} signals, {total['failed']} failed", flush=True)

    def report(self, again: str) -> str:
        """Return the table of all trials, and how to do each failed one again.

        Args:
            again: the command that does so, but for the trial's name.
        """
        rows = [("kind", "of", *COLUMNS)]
        rows += [(*key, *(str(count[name]) for name in COLUMNS))
                 for key, count in sorted(self.counts.items())]
        total = sum(self.counts.values(), Counter())
        rows.append(("all", "", *(str(total[name]) for name in COLUMNS)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) if k < 2 else cell.rjust(width)
                           for k, (cell, width) in enumerate(zip(row, widths, strict=True)))
                 for row in rows]
        if self.waits:
            half, most = np.percentile(self.waits, (50, 99))
            lines.append(f"single signals: {len(self.waits)}; from signal to end {half:.2f} s "
                         f"(median), {most:.2f} s (99th percentile), {max(self.waits):.2f} s (max)")
        if self.early:
            lines.append(f"{self.early} signals came before the script's first lines had run")
        for trial in self.failed:
            lines += ["", f"{trial.name}, {trial.subject}: {again} {trial.name}",
                      f"  {trial.folder}/story.txt", *(f"  {line}" for line in trial.story),
                      *(f"  ! {problem}" for problem in trial.problems)]
        minutes = (time.monotonic() - self.began) / 60
        lines.append(f"\n{total['trials']} trials in {minutes:.0f} min, {total['failed']} failed")
        return "\n".join(["", *lines])
