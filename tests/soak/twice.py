"""Trials of two runs in one --out_dir: one ends well, the other is refused."""

from tests.soak.scenarios import TRAININGS
from tests.soak.trial import Trial

SOON = 0.5   # seconds between two starts, at most
SHARE = 0.5  # of a run's time in which a second one begins that may replace it or go on with it
BESIDE = ("", "", "--resume", "--overwrite")  # how the second one is started


def twice(trial: Trial) -> None:
    """Start two runs; the folder is to be that of a run alone."""
    rng = trial.rng
    scenario = trial.choose((*TRAININGS, "evaluate"))
    options = [option for option in BESIDE if scenario.trains or option != "--resume"]
    beside = rng.choice(options)
    trial.subject = f"{scenario.name} {beside}".strip()
    seconds = trial.bench.references[scenario.name].seconds
    delay = rng.random() * (SHARE * seconds if beside else SOON)
    words = scenario.words(trial.bench.work, trial.folder)
    first = trial.start(words)
    trial.pause(delay)
    second = trial.start([*words, beside] if beside else words)
    ended = [trial.wait(first), trial.wait(second)]
    codes = [one.code for one in ended]
    if trial.expect(sorted(map(str, codes)) == ["0", "2"],
                    f"ended with {codes}, expected one 0 and one 2"):
        trial.expect_refused(ended[codes.index(2)], codes=(2,))
        trial.expect_same(scenario.name)
