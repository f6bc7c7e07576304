"""What the command finds in its environment on Windows: the base that its programs need, and what the Config gives."""

from __future__ import annotations

import ntpath

from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.host import Host, Paths

__all__ = ["environment"]


def environment(config: Config, host: Host, paths: Paths, own: str) -> tuple[tuple[str, str], ...]:
    """Return the variables, in the order in which Windows wants them; nothing is inherited.

    Without SYSTEMROOT sockets and random numbers fail; PATHEXT is what cmd needs to find programs.

    Raises:
        ConfigError: two names of the Config's are one name to Windows.
    """
    root = paths.system[0].path if paths.system else "C:\\Windows"
    system = f"{root}\\System32"
    base = {
        "COMSPEC": f"{system}\\cmd.exe",
        "NUMBER_OF_PROCESSORS": str(max(1, host.processors)),
        "OS": "Windows_NT",
        "PATH": ";".join((*paths.path_prefix, system, root, f"{system}\\Wbem")),
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "SYSTEMDRIVE": ntpath.splitdrive(root)[0],
        "SYSTEMROOT": root,
        "TEMP": own,
        "TMP": own,
        "USERNAME": "sandbox",
        "USERPROFILE": own,
        "WINDIR": root,
    }
    given: dict[str, str] = {}
    for name, value in config.env:
        if name.upper() in given:
            raise ConfigError("env", name, "Windows knows names of either case as one; name it once")
        given[name.upper()] = name
        base.pop(name.upper(), None)
        base[name] = value
    return tuple(sorted(base.items(), key=lambda item: item[0].upper()))
