"""Mutates what strangers may send, runs the real command line on it, and counts what goes wrong.

    python -m tests.hostile                          # 2,400 inputs; exit code 1 if one went wrong
    python -m tests.hostile --count 50 --kind card   # fewer
    python -m tests.hostile --kind card --only 17    # one again, with what it printed

A fault is a traceback, a crash, a hang beyond 20 s, more than 2 GB, a wrong result, or code executed. Inputs are drawn
with fixed seeds, so that a number stands for the same input on every machine.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count

from tests.hostile.children import Call, Outcome, run_call, run_calls
from tests.hostile.subjects import KINDS, Prepared, Subject, build

COUNTS = dict.fromkeys(KINDS, 300) | {"safetensors": 150, "path": 150}
FAULTS = ("traceback", "crash", "hang", "memory", "exit code", "wrong result", "code executed")


@dataclass(frozen=True)
class Result:
    """What became of one input: `fault` is one of FAULTS, or "", and `about` says more of a wrong result."""

    number: int
    call: Call
    outcome: Outcome
    fault: str
    about: str


def run_inputs(subject: Subject, kind: str, numbers: Sequence[int], jobs: int, work: Path) -> Iterator[Result]:
    """Run the inputs with these numbers."""
    prepared: dict[int, Prepared] = {}

    def calls() -> Iterator[tuple[int, Call]]:
        for number in numbers:
            folder = work / f"{kind}-{number}"
            folder.mkdir()
            prepared[number] = KINDS[kind](random.Random(f"{kind}:{number}"), subject, folder)
            yield number, prepared[number].call

    for number, outcome in run_calls(calls(), jobs):
        mine = prepared.pop(number)
        about = "" if outcome.fault() else mine.wrong(outcome)
        fault = outcome.fault() or ("wrong result" if about else "")
        if subject.executed.exists():
            subject.executed.unlink()
            fault = "code executed"
        shutil.rmtree(work / f"{kind}-{number}", ignore_errors=True)
        yield Result(number, mine.call, outcome, fault, about)


def main() -> int:
    """Print a line for each fault, then the counts by kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind; may be repeated")
    parser.add_argument("--count", type=int, help="inputs of each kind")
    parser.add_argument("--only", type=int, help="one input, by its number")
    parser.add_argument("--jobs", type=int, default=cpu_count())
    parser.add_argument("--subject", type=Path, help="where the run that is mutated is kept for the next time")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        subject = build((options.subject or Path(temporary) / "subject").resolve(), run_call)
        work = Path(temporary) / "work"
        work.mkdir()
        for kind in options.kind or KINDS:
            numbers = [options.only] if options.only is not None else range(options.count or COUNTS[kind])
            results = []
            for result in run_inputs(subject, kind, numbers, options.jobs, work):
                results.append(result)
                if result.fault:
                    print(f"{kind}:{result.number} {_described(result)}", flush=True)
                if options.only is not None:
                    print(ascii(result.call.arguments))
                    print(*map(_shown, (result.outcome.stdout, result.outcome.stderr)), sep="\n")
            total += Counter(result.fault for result in results)
            print(f"{kind}: {_summary(results)}", flush=True)
    print(f"all: {total.total()} inputs; {_listed(total)}")
    return int(total.total() != total[""])


def _described(result: Result) -> str:
    last = result.outcome.stderr.decode(errors="replace").strip().splitlines()[-1:]
    about = f" ({result.about})" if result.about else ""
    return f"{result.fault}{about}, exit code {result.outcome.code}: {ascii(''.join(last))[:200]}"


def _shown(text: bytes) -> str:
    return text.decode(errors="backslashreplace")[-6000:]


def _summary(results: Sequence[Result]) -> str:
    codes = sorted(Counter(result.outcome.code for result in results).items())
    slowest_s = max(result.outcome.seconds for result in results)
    most_mb = max(result.outcome.peak_bytes for result in results) / 1e6
    counts = ", ".join(f"{count} with {code}" for code, count in codes)
    faults = _listed(Counter(result.fault for result in results))
    return f"{len(results)} inputs; exit codes: {counts}; slowest {slowest_s:.1f} s, most {most_mb:.0f} MB; {faults}"


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{found[fault]} {fault}" for fault in FAULTS)


if __name__ == "__main__":
    sys.exit(main())
