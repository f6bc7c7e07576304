"""The build hook: compiles launcher/ into the package and tags the wheel for this platform.

On Linux it makes the launcher and the monitor, on other POSIX systems the monitor alone. "python hatch_build.py" does the same
in place, for a working tree; "python hatch_build.py check-portable" compiles the portable part with each compiler that is here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where hatchling is not needed
    BuildHookInterface = object  # type: ignore[assignment,misc,unused-ignore]

ROOT = Path(__file__).resolve().parent
LINUX = sys.platform.startswith("linux")
FLAGS = ["-std=gnu17", "-O2", "-g0", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
HARDENED = ["-fno-plt", "-Wl,-z,relro,-z,now,-z,noexecstack"] if LINUX else []
# Linked statically where there is a libc.a: a dynamic linker's work costs as much as the whole confinement. On other systems the
# linker does what it does by default; macOS has no static libc.
LINKS = (["-static-pie", "-fPIE"], ["-static"], ["-pie", "-fPIE"]) if LINUX else ([],)
PORTABLE = ["launcher/words.c", "launcher/limits.c", "launcher/report.c", "launcher/posix/*.c"]
"""Of these the monitor is made, on every POSIX system: what POSIX and every BSD have, and glibc without _GNU_SOURCE."""
PROGRAMS = {"launcher": ["launcher/*.c", "launcher/linux/*.c"], "monitor": PORTABLE} if LINUX else {"monitor": PORTABLE}
BIN = ROOT / "src/proc_sandbox/_bin"
STRICT = ["-std=c17", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]


def version() -> str:
    """Return the version that the package says."""
    text = (ROOT / "src/proc_sandbox/version.py").read_text()
    found = re.search(r'__version__ = "([^"]+)"', text)
    assert found
    return found[1]


def compiler() -> str:
    """Return the C compiler."""
    for name in (os.environ.get("CC"), "gcc", "cc", "clang"):
        if name and shutil.which(name):
            return name
    raise SystemExit("proc-sandbox: no C compiler; install gcc (Debian: apt-get install gcc libc6-dev) or set CC")


def sources(patterns: list[str]) -> list[str]:
    """Return the C files of a program."""
    return [str(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def build(name: str) -> Path:
    """Compile a program into the package; return where it is."""
    target = BIN / name
    flags = [*FLAGS, *HARDENED, f'-DVERSION="{version()}"'] + ["-Werror"] * (os.environ.get("PROC_SANDBOX_WERROR") == "1")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors = []
    for link in LINKS:
        # Beside the target and renamed: a program that runs is never written to.
        handle, made = tempfile.mkstemp(dir=target.parent)
        os.close(handle)
        command = [compiler(), *flags, *link, *sources(PROGRAMS[name]), "-o", made, "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.chmod(made, 0o755)
            os.replace(made, target)
            return target
        os.unlink(made)
        errors.append(f"$ {' '.join(command)}\n{done.stderr}")
    raise SystemExit(f"proc-sandbox: the {name} cannot be compiled:\n" + "\n".join(errors))


def check_portable() -> None:
    """Compile the monitor with each compiler that is here, with nothing of GNU's or Linux's to be had, and no warning let pass."""
    for name in filter(shutil.which, ("gcc", "clang", "cc")):
        command = [name, *STRICT, *sources(PORTABLE)]
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"proc-sandbox: the portable part does not compile: $ {' '.join(command)}")
        print(f"{name}: the portable part compiles")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """Puts the launcher into wheels; a source distribution carries its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and tag."""
        del version
        if self.target_name != "wheel" or os.name != "posix":
            return
        for name in PROGRAMS:
            build_data["force_include"][str(build(name))] = f"proc_sandbox/_bin/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}" if LINUX else f"py3-none-{system_tag()}"


def system_tag() -> str:
    """Return the wheel tag of a system that is not Linux: what hatchling's own builder would say (PEP 425)."""
    return re.sub(r"[^a-z0-9_]", "_", sysconfig.get_platform().lower())


if __name__ == "__main__":
    if sys.argv[1:] == ["check-portable"]:
        check_portable()
    else:
        for program in PROGRAMS:
            build(program)
