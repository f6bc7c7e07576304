"""What the command finds in its environment: a small clean base, what the Config gives, what it passes on by name."""

from __future__ import annotations

from proc_sandbox.config import Config
from proc_sandbox.host import Paths

__all__ = ["DEFAULT_PATH", "environment"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(config: Config, paths: Paths, home: str, temporary: str = "") -> tuple[tuple[str, str], ...]:
    """Return the variables, sorted; temporary: where the command can write, if that is not /tmp.

    The values of pass_env lie in Config.env by then.
    """
    base = {
        "HOME": home,
        "LANG": "C.UTF-8",
        "LOGNAME": "sandbox",
        "PATH": ":".join((*paths.path_prefix, DEFAULT_PATH)),
        "USER": "sandbox",
    }
    if config.pty:
        base["TERM"] = "dumb"  # nobody is there to interpret what more would bring; else the caller's comes with Config.env
    if temporary:
        base["TMPDIR"] = temporary
    base.update(config.env)
    return tuple(sorted(base.items()))
