"""Memory of this process as Linux sees it, mapped files included."""

from pathlib import Path


def resident_mb() -> float:
    """MB of 10**6 bytes that are in memory now."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """The most that it was since `forget_peak`, or since the process began."""
    return _status_mb("VmHWM")


def mapped_mb() -> float:
    """The part of what is resident that belongs to mapped files: the page cache's, not ours."""
    return _status_mb("RssFile")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status_mb(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"/proc/self/status has no {name}")
