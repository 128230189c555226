"""Trials of signals: one, two or three in a row, and kill -9; then --resume to the same bytes."""

import signal

from tests.soak.folders import results
from tests.soak.processes import ROOT, Ended, Shot
from tests.soak.scenarios import SCENARIOS, TRAININGS, Scenario
from tests.soak.trial import STOPS, Trial

AGAIN = 0.3      # seconds between a first and a second signal, at most
TOO_EARLY = 0.1  # seconds after its first line in which a script may not catch signals yet
TOO_LONG = 3.0   # seconds from a signal to the end: one is promised, the machine may be busy
FRESH = 0.15     # share of the trials with processes that import everything
BEGINNING = 5.0  # seconds at the start that get half of the single signals
STRANGE = 0.3    # share of signals that all processes get, as from a terminal


def double(trial: Trial) -> None:
    """Two signals, sometimes three, within a moment; then on to the end, maybe with more."""
    scenario = trial.choose(TRAININGS)
    for attempt in range(trial.rng.choice((1, 1, 1, 2, 2, 3))):
        fresh = trial.rng.random() < FRESH
        shots = [_first_shot(trial, scenario, fresh, trial.rng.choice(STOPS))]
        for _ in range(trial.rng.choice((1, 1, 1, 1, 2))):
            shots.append(Shot(trial.rng.choice(STOPS), trial.rng.uniform(0, AGAIN),
                              group=shots[0].group))
        ended = trial.run(_words(trial, scenario, attempt), shots, fresh)
        if ended.code == 0:
            break
        _check_stopped(trial, ended)
    _go_on(trial, scenario, ended)


def kill(trial: Trial) -> None:
    """One or more times kill -9, then on to the end."""
    scenario = trial.choose(TRAININGS)
    for attempt in range(trial.rng.randint(1, 3)):
        fresh = trial.rng.random() < FRESH
        shot = _first_shot(trial, scenario, fresh, signal.SIGKILL)
        ended = trial.run(_words(trial, scenario, attempt), [shot], fresh)
        if ended.code == 0:
            break
        trial.expect(ended.code == -signal.SIGKILL and bool(ended.shots),
                     f"ended with {ended.code}: {ended.err[-300:]!r}")
        trial.expect_whole(killed=True)
    _go_on(trial, scenario, ended)


def single(trial: Trial) -> None:
    """One signal at any moment, imports included: soon, one message, whole files."""
    scenario = trial.choose(tuple(SCENARIOS))
    fresh = trial.rng.random() < 0.5
    number, group = trial.rng.choice(STOPS), trial.rng.random() < STRANGE
    moment, dense = trial.rng.random(), trial.rng.random() < 0.5
    seconds = _duration(trial, scenario, fresh)
    shot = Shot(number, moment * (min(BEGINNING, seconds) if dense else seconds), group=group)
    ended = trial.run(scenario.words(trial.bench.work, trial.folder), [shot], fresh)
    if not ended.shots or ended.code == 0:
        trial.expect(ended.code == 0 and not ended.err.strip(), f"ended with {ended.code}: "
                                                                f"{ended.err[-300:]!r}")
        trial.expect_same(scenario.name)
    else:
        _check_stopped(trial, ended)
    if ended.shots:
        trial.waits.append(ended.wait)
        trial.expect(ended.wait < TOO_LONG, f"took {ended.wait:.1f} s to end")


def _first_shot(trial: Trial, scenario: Scenario, fresh: bool, number: int) -> Shot:
    """Return a signal at a random time of the run, or right after a random file is written."""
    rng, reference = trial.rng, trial.bench.references[scenario.name]
    by_file, file = rng.random() < 0.4, rng.choice(results(reference.folder))
    moment, soon, group = rng.random(), rng.random() ** 2, rng.random() < STRANGE
    if by_file:
        return Shot(number, 0.1 * soon, trial.folder / file.relative_to(reference.folder), group)
    return Shot(number, moment * _duration(trial, scenario, fresh), group=group)


def _duration(trial: Trial, scenario: Scenario, fresh: bool) -> float:
    seconds = trial.bench.references[scenario.name].seconds
    return seconds + fresh * trial.bench.import_seconds


def _words(trial: Trial, scenario: Scenario, attempt: int) -> list[str]:
    return scenario.words(trial.bench.work, trial.folder, *["--resume"] * (attempt > 0))


def _check_stopped(trial: Trial, ended: Ended) -> None:
    """Check how a process ended that got one signal, or two, or three."""
    if not trial.expect(bool(ended.shots), f"ended with {ended.code}: {ended.err[-300:]!r}"):
        return
    numbers = {shot.number for shot, _ in ended.shots}
    if ended.shots[0][1] < TOO_EARLY and not has_begun(ended.err):
        trial.early += 1
        trial.problems = [text for text in trial.problems if "KeyboardInterrupt" not in text]
        return
    at_once = len(ended.shots) > 2
    codes = {code for number in numbers for code in (128 + number, -number)}  # alike in a shell
    trial.expect(ended.code in codes, f"ended with {ended.code}, expected one of {sorted(codes)}: "
                                      f"{ended.err[-300:]!r}")
    lines = [line for line in ended.err.splitlines() if line.strip()]
    names = tuple(f"stopped by {signal.Signals(number).name}" for number in numbers)
    told = [line for line in lines if line.startswith(names)]
    more = [line for line in lines if not line.startswith((*names, "  python "))]
    trial.expect(at_once or len(told) == 1 and not more, f"expected one line: {ended.err[:500]!r}")
    trial.killed |= at_once  # the next one may be stopped before it clears up
    trial.expect_whole(trial.killed)


def has_begun(errors: str) -> bool:
    """Return whether a process's stderr shows that the script's first lines had run."""
    frames = [line for line in errors.splitlines() if f'File "{ROOT}' in line]
    return "stopped by" in errors or any("tests/soak/launch.py" not in line for line in frames)


def _go_on(trial: Trial, scenario: Scenario, ended: Ended) -> None:
    """Resume where the last process did not end well, and compare with the reference run."""
    if ended.code != 0:
        ended = trial.run(_words(trial, scenario, 1))
    if trial.expect(ended.code == 0, f"--resume ended with {ended.code}: {ended.err[-300:]!r}"):
        trial.expect_same(scenario.name)
