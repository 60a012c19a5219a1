"""Measuring time and memory, and comparing implementations side by side."""

import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def cpu_seconds() -> float:
    """Processor time of this program so far, all threads and ended child processes added up."""
    return time.process_time() + sum(os.times()[2:4])


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB of 2^20 bytes; nan on Windows, which has no such count.

    On Linux it is VmHWM: ru_maxrss would start at the memory of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)[1]) / 2**10
    try:
        import resource
    except ImportError:
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_turns(
    ways: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time each way `repeats` times, in turns, so that other load on the machine affects all: {name: seconds}."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            seconds[name].append(clock() - start)
    return seconds


def table_of_times(seconds: Mapping[str, list[float]]) -> str:
    """Median, lowest and highest seconds, and the speed relative to the first way, by medians."""
    reference = statistics.median(seconds[next(iter(seconds))])
    width = max(map(len, seconds))
    lines = [f"{'':<{width}}  median s   lowest  highest   times as fast"]
    for name, values in seconds.items():
        median = statistics.median(values)
        numbers = f"{median:>10.4g}{min(values):>9.4g}{max(values):>9.4g}"
        lines.append(f"{name:<{width}}{numbers}{reference / median:>16.1f}")
    return "\n".join(lines)
