"""Windows hosts as the probe describes them, for what is decided without one."""

from __future__ import annotations

from dataclasses import replace

from proc_sandbox.host import Feature, Grant, Host, Paths, SystemPath

FEATURES = {
    name: Feature(True)
    for name in ("job", "job_memory", "job_processes", "job_cpu_rate", "job_time", "job_ui", "job_priority", "job_exceptions",
                 "job_list", "restricted_token", "low_integrity", "appcontainer", "mitigations")
}  # fmt: skip
NOT_KEPT = Feature(False, "accepted and not kept", "run on Windows itself")

WINDOWS = Host("windows", FEATURES, processors=8)
"""Windows 10 or newer."""
NO_APP_CONTAINER = replace(WINDOWS, features={**FEATURES, "appcontainer": Feature(False, "not there", "Windows 8 or newer")})
"""Where AppContainers are closed: a service without a profile, Server Core of old."""
WINE = Host("windows", {name: Feature(True) if name in ("job", "job_list") else NOT_KEPT for name in FEATURES}, processors=2)
"""Wine: what it accepts without doing it, it does not have."""

SYSTEM = (
    SystemPath("C:\\Windows", "dir"),
    SystemPath("C:\\Program Files", "dir"),
    SystemPath("C:\\Users\\me\\Python311", "dir", private=True),
)
PATHS = Paths(SYSTEM, executable="C:\\Windows\\System32\\whoami.exe", path_prefix=("C:\\Users\\me\\Python311",))


def grant(path: str, access: str) -> Grant:
    """A directory that a Config names."""
    return Grant(path, path, access, True, 0, 0)
