"""Progress of a long stage: a bar on a terminal, or a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from multiprocessing import parent_process
from typing import TextIO, TypeVar

from tqdm import tqdm

from medseg_gan.machine.processes import is_first

T = TypeVar("T")


def say(message: str) -> None:
    """Print one line on stderr without tearing a progress bar; of several processes only the first speaks."""
    if is_first():
        tqdm.write(message, file=sys.stderr)


def in_words(seconds: float) -> str:
    """A duration as people say it: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Progress:
    """Progress with speed and time left: a bar on a terminal, elsewhere one plain line per half minute.

    Example:
        with Progress(1000, "synthesize", unit="image") as bar:
            bar.update(8)
    """

    def __init__(
        self,
        total: int | None,
        description: str,
        unit: str = "it",
        initial: int = 0,
        stream: TextIO | None = None,
        line_every: float = 30.0,
    ) -> None:
        """Start counting.

        Args:
            total: number of units to do, None when unknown.
            description: what is being done, usually the stage.
            unit: what is counted, in the singular.
            initial: units already done by an earlier run.
            stream: where to print; stderr by default.
            line_every: seconds between plain lines, where the stream is no terminal.
        """
        self.total, self.description, self.unit = total, description, unit
        self.done = self.initial = initial
        self.stream = stream or sys.stderr
        self.line_every = line_every
        self.started = self.last_line = time.monotonic()
        self.text = ""
        self.bar = None
        if self.stream.isatty() and parent_process() is None and is_first():  # several bars would run into each other
            self.bar = tqdm(
                total=total,
                desc=description,
                unit=unit,
                initial=initial,
                file=self.stream,
                dynamic_ncols=True,
                smoothing=0.05,
            )

    def update(self, count: int = 1) -> None:
        """Count `count` more units."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif is_first() and time.monotonic() - self.last_line >= self.line_every:
            self.last_line = time.monotonic()
            print(self.line(), file=self.stream, flush=True)

    def reach(self, done: int, total: int | None = None) -> None:
        """Stand at `done` units, of `total` where that has only become known on the way."""
        if total is not None:
            self.total = total
            if self.bar is not None:
                self.bar.total = total
        self.update(done - self.done)

    def note(self, text: str) -> None:
        """Show a short text, such as the losses, behind the numbers."""
        self.text = text
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)

    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self.initial) / max(time.monotonic() - self.started, 1e-9)

    def line(self) -> str:
        """The state as one line: `train_gan: 3200/8000 img (40 %), 48.1 img/s, 2 min left`."""
        rate = self.rate()
        if self.total is None:
            parts = [f"{self.done} {self.unit}", f"{rate:.3g} {self.unit}/s"]
        else:
            left = in_words((self.total - self.done) / rate) + " left" if rate > 0 else "starting"
            share = self.done / max(self.total, 1)
            parts = [f"{self.done}/{self.total} {self.unit} ({share:.0%})", f"{rate:.3g} {self.unit}/s", left]
        return f"{self.description}: " + ", ".join([*parts, *([self.text] if self.text else [])])

    def close(self) -> None:
        """Leave the bar as it is and start a new line."""
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Progress:
        """Use as a context manager."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the bar."""
        self.close()


def progress(items: Iterable[T], description: str, unit: str = "it", total: int | None = None) -> Iterator[T]:
    """Yield `items` one by one, showing progress.

    Args:
        items: what to go through.
        description: what is being done, usually the stage.
        unit: what an item is, in the singular.
        total: number of items where `items` does not know its length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(total, description, unit) as bar:
        for item in items:
            yield item
            bar.update()
