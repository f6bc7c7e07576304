"""The build hook: compiles launcher/ into the package and tags the wheel for this platform.

On Linux it makes the launcher and the monitor, on other POSIX systems the monitor alone. "python hatch_build.py" does the same
in place, for a working tree; "python hatch_build.py check-portable" compiles the portable part with each compiler that is here.
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
        programs = [build(name) for name in PROGRAMS] if os.name == "posix" else []  # Windows has no program of ours
        for program in programs:
            build_data["force_include"][str(program)] = f"proc_sandbox/_bin/{program.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(programs[0] if programs else None)}"


if __name__ == "__main__":
    if sys.argv[1:] == ["check-portable"]:
        check_portable()
    else:
        for program in PROGRAMS:
            build(program)
