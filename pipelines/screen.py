"""What a person sees of a run: which stage of how many, what runs now and for how long, and at the end what
came out of it.
"""

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO

from crops.report import headline
from crops.stages.plug import MARK

NUMBERS_SHOWN = 4
EVERY_S = 0.5
# Without a terminal, a stage that takes long says so after this many seconds, then after twice as many, ...
SIGN_OF_LIFE_S = 60.0
# Seconds per stage of the quick start: what the time left is taken from until this folder knows its own.
USUAL_S = {"validate": 12.0, "augment": 8.0, "theta": 50.0, "score": 20.0, "knowledge": 15.0, "train": 45.0}
USUAL_OTHER_S = 8.0
KFP = re.compile(r"Executing task .*?'(?P<name>[\w-]+)'")
# Lines that say nothing about the stage: KFP's own and what it dumps as JSON, loggers' of libraries, and what
# is no sentence.
OF_LIBRARIES = re.compile(
    r"""^\W*$|KFP Executor|^\d\d:\d\d:\d\d\.\d+ - |^["{}\[]|^\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d"""
)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")

Voice = Literal["quiet", "normal", "verbose"]


class Screen:
    """A text stream in place of standard output: keeps a log of all that comes, and shows the stages.

    total: how many stages there are; usual: seconds that they took the last time, by name.
    """

    def __init__(
        self, log: TextIO, screen: TextIO, *, total: int, usual: Mapping[str, float], voice: Voice
    ) -> None:
        self.log, self.screen, self.total, self.usual, self.voice = log, screen, total, usual, voice
        self.live = voice == "normal" and screen.isatty()
        self.error, self.reported = "", ""
        self.seconds: dict[str, float] = {}
        self.begun, self.done = 0, 0
        self._name, self._since, self._sign, self._last = "", time.monotonic(), SIGN_OF_LIFE_S, ""
        self._started, self._buffer = time.monotonic(), ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Part of the file protocol; the stages' marks are read line by line."""
        with self._lock:
            self.log.write(text)
            self.log.flush()
            if self.voice == "verbose":
                self.screen.write(text)
            self._buffer += text
            *lines, self._buffer = self._buffer.split("\n")
            for line in lines:
                self._read(COLOURS.sub("", line).strip())
        return len(text)

    def flush(self) -> None:
        """Part of the file protocol."""
        self.log.flush()

    def isatty(self) -> bool:
        """Part of the file protocol: what is written here is no terminal's, bars would only fill the log."""
        return False

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Keeps the line of the running stage moving while the block runs."""
        over = threading.Event()

        def tick() -> None:
            while not over.wait(EVERY_S):
                with self._lock:
                    self._tick()

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._wipe()

    def _read(self, line: str) -> None:
        if MARK in line:
            self._task(json.loads(line.split(MARK, 1)[1]))
        elif match := KFP.search(line):
            self._begin(match["name"])
        elif not OF_LIBRARIES.search(line):
            self._last = line

    def _task(self, entry: dict[str, Any]) -> None:
        if "begins" in entry:
            self._begin(entry["stage"])
            return
        if "error" in entry:
            self.error, self.reported = entry["error"].split(": ", 1)[1], entry["stage"]
            return
        self.done, self._name = self.done + 1, ""
        name, seconds = entry["stage"], entry["seconds"]
        self.seconds[name] = seconds
        shown = list(entry["numbers"].items())[:NUMBERS_SHOWN]
        numbers = "  ".join(f"{k} {v:,.4g}" if isinstance(v, float) else f"{k} {v:,}" for k, v in shown)
        took = f"{seconds:7.1f} s {entry['memory_gb']:5.1f} GB"
        self._say(f"[{self.done:>2}/{self.total}] {name:<26} {took}  {numbers}")
        for note in entry["notes"]:
            self._say(f"        note: {note}")

    def _begin(self, name: str) -> None:
        """A task's process starts under its component's name, and says later which stage it is."""
        if not name.startswith(self._name) or not self._name:
            self._since, self._sign = time.monotonic(), SIGN_OF_LIFE_S
        self._name, self._last = name, ""

    def cached(self, name: str) -> None:
        """A stage whose result is there already."""
        with self._lock:
            if name not in ("finish", "importer"):
                self.done += 1
                self._say(f"[{self.done:>2}/{self.total}] {name:<26} as before")

    def _say(self, line: str) -> None:
        if self.voice != "quiet":
            self._wipe()
            self.screen.write(line + "\n")
            self.screen.flush()

    def _tick(self) -> None:
        runs_s = time.monotonic() - self._since
        if not self._name or self.done >= self.total:
            return
        now = f"[{min(self.done + 1, self.total):>2}/{self.total}] {self._name} {clock(runs_s)}"
        if self.live:
            remaining = f", about {clock(self._left(runs_s))} left" if self.done < self.total else ""
            whole = f"{now}  (in all {clock(time.monotonic() - self._started)}{remaining})  {self._last}"
            self.screen.write(f"\r\x1b[K{whole[: width() - 1]}")
            self.screen.flush()
        elif self.voice == "normal" and runs_s >= self._sign:
            self._sign *= 2
            self._say(f"{now} and still at it")

    def _left(self, runs_s: float) -> float:
        """Seconds, from what the stages took the last time, corrected by how this run compares so far."""
        took = sum(self.seconds.values())
        guess = sum(usual_s(name, self.usual) for name in self.seconds)
        pace = took / guess if guess >= 1 else 1.0
        numbers = (
            sum(self.usual.values()) - guess if self.usual else USUAL_OTHER_S * (self.total - self.done) + 120
        )
        return max(5.0, numbers * pace - runs_s)

    def _wipe(self) -> None:
        if self.live:
            self.screen.write("\r\x1b[K")


def usual_s(name: str, earlier: Mapping[str, float]) -> float:
    """How long the stage took the last time, or takes in the quick start."""
    return earlier.get(name, USUAL_S.get(name.split()[0], USUAL_OTHER_S))


def width() -> int:
    """Columns of the terminal."""
    import shutil

    return shutil.get_terminal_size().columns


def clock(seconds: float) -> str:
    """65 -> 1:05.

    >>> clock(65), clock(3_700)
    ('1:05', '1:01:40')
    """
    whole = int(seconds)
    hours, rest = divmod(whole, 3_600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


# What each set holds, in the words of the report.
SETS = {
    "truth": "all held-out queries, all relevant documents",
    "unseen": "queries not seen in training",
    "no_click": "queries that nobody clicked for in training",
    "cold_start": "only documents that training had no positive of",
    "qr_relevant": "consumed after a reformulation, relevant",
    "qr": "consumed after a reformulation, kept by the discriminator",
    "qr_raw": "consumed after a reformulation",
    "ct": "clicked (a guardrail)",
}


def outcome(report: Mapping[str, Any], out: Path, registry: str, default: str) -> list[str]:
    """The end of a run: recall of every system on every set that was measured, the verdict with its reasons,
    where the report is and what to type next. `registry`, `default`: the run's registry, and that of all
    verbs.
    """
    recall = {name: row for name, row in (report.get("recall_at_100") or {}).items() if row}
    systems = list(dict.fromkeys(system for row in recall.values() for system in row))
    lines = ["", *(_table(recall, systems) if recall else ["no recall was measured"]), ""]
    if report.get("headline"):
        lines += [headline.sentence(report["headline"]), ""]
    verdict, reasons = report["gate"]["verdict"], report["gate"]["reasons"]
    lines += [f"verdict: {verdict.upper()}", *(f"  {reason}" for reason in reasons)]
    lines += ["", f"report:  {out / 'report.html'}"]
    at = "" if registry == default else f" --registry {registry}"
    uri = (report.get("release") or {}).get("uri")
    if uri:
        lines.append(f"next:    crops serve{at} --challenger {uri}    # search it beside the champion")
    else:
        lines.append(f"next:    look into the report why; `crops serve{at}` searches with the champion")
    return lines


def _table(recall: Mapping[str, Mapping[str, float | None]], systems: list[str]) -> list[str]:
    columns = [max(6, len(system)) for system in systems]
    first = max(len(name) for name in recall)
    head = "  ".join(f"{system:>{n}}" for system, n in zip(systems, columns, strict=True))
    lines = [f"{'recall@100, %':<{max(first, 13)}}  {head}"]
    for name in sorted(recall, key=lambda name: [*SETS, name].index(name)):
        values = (recall[name].get(system) for system in systems)
        cells = ("–" if value is None else f"{100 * value:.1f}" for value in values)
        row = "  ".join(f"{cell:>{n}}" for cell, n in zip(cells, columns, strict=True))
        lines.append(f"{name:<{max(first, 13)}}  {row}   {SETS.get(name, '')}".rstrip())
    return lines
