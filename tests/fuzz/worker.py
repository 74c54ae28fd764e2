"""Tries inputs in this process, one after the other, and writes down what it finds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jmp_md.errors import JMPError

from . import verbs
from .guard import Guard, Hang
from .readers import Reader, readers

VERB_SECONDS = 60  # of processor time: verbs compute, and say nothing of how long


class Fuzzer:
    """Everything that can be tried, in a folder of its own.

    Args:
        folder: Empty; it becomes the working directory.

    Attributes:
        kinds: What can be tried: readers, and verbs as ``jmp-md NAME``.
        tried: How many inputs of each kind.
        accepted: How many of them were sound after all.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.chdir(folder)
        os.environ["JMP_MD_HOME"] = str(folder / "home")
        os.environ["JMP_MD_OFFLINE"] = "1"
        os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")
        warnings.simplefilter("ignore")
        self.readers: dict[str, Reader] = readers(folder / "seeds")
        self.verbs = {f"jmp-md {name}": parser for name, parser in verbs.verbs().items()}
        self.kinds = [*self.readers, *self.verbs]
        self.tried: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.guard = Guard(folder)
        (folder / "verbs").mkdir()
        verbs.prepare(folder / "verbs")

    def attempt(self, kind: str, seed: int) -> dict[str, Any] | None:
        """Try the input that kind and seed decide; what is wrong with what happened, or None."""
        rng = random.Random(f"{kind}:{seed}")
        self.tried[kind] += 1
        if kind in self.verbs:
            words = verbs.command(rng, kind.removeprefix("jmp-md "), self.verbs[kind])
            return self._in(self.folder / "verbs", kind, seed, lambda: verbs.run(words), str(words))
        reader = self.readers[kind]
        name = rng.choice(list(reader.seeds))
        path = self.folder / "inputs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(reader.change(rng, reader.seeds[name]))
        about = f"{name}, {path.stat().st_size} bytes"
        return self._in(self.folder, kind, seed, lambda: reader.read(path), about)

    def _in(
        self, folder: Path, kind: str, seed: int, call: Callable[[], object], about: str
    ) -> dict[str, Any] | None:
        os.chdir(folder)
        verb = kind in self.verbs
        silent = contextlib.redirect_stdout(io.StringIO())
        found = ""
        trace: list[str] = []
        try:
            with (
                silent,
                contextlib.redirect_stderr(io.StringIO()),
                self.guard.watching(starts=verb, **({"seconds": VERB_SECONDS} if verb else {})),
            ):
                call()
            self.accepted[kind] += 1
        except JMPError as error:
            if len(str(error)) > 100_000:
                found = f"a message of {len(str(error))} characters"
        except (Exception, Hang) as error:
            found = f"{type(error).__name__}: {error!s:.150}"
            frames = traceback.extract_tb(error.__traceback__)
            trace = [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames][-8:]
        finally:
            os.chdir(self.folder)
        if self.guard.violations:
            found = f"{found} {'; '.join(self.guard.violations)}"
        if not found:
            return None
        return {"kind": kind, "seed": seed, "found": found, "input": about, "trace": trace}


def work(folder: Path, seconds: float, seed: int, only: list[str], journal: Path) -> None:
    """Try inputs for a time, each written to the journal before it is tried.

    The journal has a line of JSON per finding, and ``next`` beside it the input in work.
    """
    fuzzer = Fuzzer(folder)
    kinds = [kind for kind in fuzzer.kinds if not only or any(word in kind for word in only)]
    end = time.monotonic() + seconds
    current = journal.with_suffix(".next")
    with journal.open("a") as file:
        while time.monotonic() < end:
            for kind in kinds:
                # Verbs take a thousand times as long as readers.
                for k in range(1 if kind in fuzzer.verbs else 40):
                    current.write_text(json.dumps({"kind": kind, "seed": seed + k}))
                    if finding := fuzzer.attempt(kind, seed + k):
                        file.write(json.dumps(finding) + "\n")
                        file.flush()
                if time.monotonic() > end:
                    break
            seed += 40
    counts = {"tried": fuzzer.tried, "accepted": fuzzer.accepted}
    journal.with_suffix(".counts").write_text(json.dumps(counts))
