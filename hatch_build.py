"""The build hook: compiles launcher/ into the package and tags the wheel for this platform.

"python hatch_build.py" does the same in place, for a working tree.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import struct
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


# --- the wheel's tag ---

MACHINES = {62: "x86_64", 183: "aarch64"}
"""EM_X86_64 and EM_AARCH64: elf(5)."""
PT_INTERP = 3
OLDEST_MACOS = "11.0"
"""What the C compiler is told on macOS, unless MACOSX_DEPLOYMENT_TARGET says otherwise: the oldest that has both processors."""
if sys.platform == "darwin":
    os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", OLDEST_MACOS)


def platform_tag(program: Path | None, system: str = sys.platform) -> str:
    """Return for which platforms a wheel is that carries this program; the Python in it is for all of them (PEP 425).

    Windows: nothing is compiled, so that one wheel is for every processor. Not "any": other systems would take it and lack theirs.
    """
    if system.startswith("linux") and program:
        return linux_tag(program.read_bytes())
    if system == "win32":
        return "win32.win_amd64.win_arm64"
    if system == "darwin":
        major, minor = f"{os.environ.get('MACOSX_DEPLOYMENT_TARGET') or OLDEST_MACOS}.0".split(".")[:2]
        return f"macosx_{major}_{minor if int(major) < 11 else 0}_{platform.machine()}"
    return re.sub(r"[^a-z0-9_]", "_", sysconfig.get_platform().lower())


def linux_tag(program: bytes) -> str:
    """Return the tag for an ELF program, by what it says of itself.

    One that asks for no interpreter uses no library of the system, neither glibc's nor musl's: it starts wherever the kernel and
    the processor are right, which is more than the oldest tags of both still promise (PEP 600: glibc 2.17, PEP 656: musl 1.1). What it
    needs of the kernel it finds out when it runs. Any other is for the system that it was made on.
    """
    machine = MACHINES.get(struct.unpack_from("<H", program, 18)[0], "")
    if not machine or needs_interpreter(program):
        return f"linux_{machine or platform.machine()}"
    return f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"


def needs_interpreter(program: bytes) -> bool:
    """Return whether a 64-bit ELF program is linked dynamically: its program headers name what loads it."""
    (start,) = struct.unpack_from("<Q", program, 32)  # e_phoff
    size, count = struct.unpack_from("<HH", program, 54)  # e_phentsize, e_phnum
    return any(struct.unpack_from("<I", program, start + size * index)[0] == PT_INTERP for index in range(count))


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg,misc,unused-ignore]
    """Puts the launcher into wheels; a source distribution carries its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and tag."""
        del version
        if self.target_name != "wheel":
            return
        target = None
        if sys.platform.startswith("linux"):
            target = ROOT / "src/proc_sandbox/_bin/launcher"
            build_launcher(target)
            build_data["force_include"][str(target)] = "proc_sandbox/_bin/launcher"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(target)}"


if __name__ == "__main__":
    build_launcher(ROOT / "src/proc_sandbox/_bin/launcher")
