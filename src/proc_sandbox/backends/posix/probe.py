"""What a POSIX system without anything better can do: what there is to know beforehand, and a trial of Seatbelt."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys

from proc_sandbox.config import Config
from proc_sandbox.errors import UnsupportedError
from proc_sandbox.host import Feature, Host, Paths
from proc_sandbox.planner.posix import seatbelt

__all__ = ["look_at_host", "psutil_directory"]

TRIAL_SECONDS = 30.0
NO_ISOLATION = "this is not macOS, and POSIX has no mechanism for it"
ON_LINUX = "name no backend: Linux has one of its own; best-effort runs without"
ELSEWHERE = "Linux or macOS; best-effort runs without"


def psutil_directory() -> str:
    """Return the directory from which psutil is imported.

    Raises:
        UnsupportedError: it is not installed.
    """
    here = os.path.realpath(os.getcwd())
    # The current directory is on the path of many callers (python -m, python -c), and often what a command may write to.
    places = [place for place in sys.path if place and os.path.realpath(place) != here]
    found = importlib.machinery.PathFinder.find_spec("psutil", places)
    if found is None or not found.origin:
        raise UnsupportedError("backend", "the POSIX backend looks at processes through psutil, which is missing", "pip install 'proc-sandbox[posix]'")
    return os.path.dirname(os.path.dirname(found.origin))


def look_at_host() -> Host:
    """Return what this machine can do.

    Raises:
        UnsupportedError: psutil is missing; nothing can be run.
    """
    psutil_directory()
    root = os.geteuid() == 0
    features = {
        "linux": Feature(sys.platform == "linux", "this is not Linux"),
        "pss": Feature(sys.platform == "linux", "this system does not tell of shared memory by how many it is shared", "Linux"),
        "uss": Feature(sys.platform in ("linux", "darwin"), "this system does not tell what is shared", "Linux or macOS"),
        "nproc": Feature(not root, "root has no RLIMIT_NPROC (getrlimit(2))", "run as another user"),
        "seatbelt": try_seatbelt(),
    }
    return Host("posix", features, root=root)


def try_seatbelt() -> Feature:
    """Return whether a program runs under the profile that grants nothing, as tried."""
    if sys.platform != "darwin":
        return Feature(False, NO_ISOLATION, ON_LINUX if sys.platform == "linux" else ELSEWHERE)
    program = "/usr/bin/true"
    profile = seatbelt.profile(Config(), Paths(executable=program, program=program))
    command = [seatbelt.SANDBOX_EXEC, *seatbelt.command_line(profile, program, [program])[1:]]
    try:
        done = subprocess.run(command, env={}, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", timeout=TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return seatbelt.trial_feature(None, "")
    return seatbelt.trial_feature(done.returncode, done.stderr.decode("utf-8", "replace"))
