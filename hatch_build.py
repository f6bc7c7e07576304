"""The build hook: compiles launcher/ into the package and tags the wheel for this platform.

"python hatch_build.py" does the same in place, for a working tree.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where hatchling is not needed
    BuildHookInterface = object  # type: ignore[assignment,misc,unused-ignore]

ROOT = Path(__file__).resolve().parent
FLAGS = ["-std=gnu17", "-O2", "-g0", "-Wall", "-Wextra", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fno-plt", "-Wl,-z,relro,-z,now,-z,noexecstack"]
# Linked statically where there is a libc.a: a dynamic linker's work costs as much as the whole confinement.
LINKS = (["-static-pie", "-fPIE"], ["-static"], ["-pie", "-fPIE"])


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


def build_launcher(target: Path) -> None:
    """Compile the launcher to target."""
    sources = sorted(map(str, (ROOT / "launcher").glob("*.c"))) + sorted(map(str, (ROOT / "launcher/linux").glob("*.c")))
    flags = [*FLAGS, f'-DVERSION="{version()}"'] + ["-Werror"] * (os.environ.get("PROC_SANDBOX_WERROR") == "1")
    target.parent.mkdir(parents=True, exist_ok=True)
    errors = []
    for link in LINKS:
        # Beside the target and renamed: a launcher that runs is never written to.
        handle, made = tempfile.mkstemp(dir=target.parent)
        os.close(handle)
        command = [compiler(), *flags, *link, *sources, "-o", made, "-lpthread"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            os.chmod(made, 0o755)
            os.replace(made, target)
            return
        os.unlink(made)
        errors.append(f"$ {' '.join(command)}\n{done.stderr}")
    raise SystemExit("proc-sandbox: the launcher cannot be compiled:\n" + "\n".join(errors))


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """Puts the launcher into wheels; a source distribution carries its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and tag."""
        del version
        if self.target_name != "wheel" or not sys.platform.startswith("linux"):
            return
        target = ROOT / "src/proc_sandbox/_bin/launcher"
        build_launcher(target)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-linux_{platform.machine()}"
        build_data["force_include"][str(target)] = "proc_sandbox/_bin/launcher"


if __name__ == "__main__":
    build_launcher(ROOT / "src/proc_sandbox/_bin/launcher")
