"""The launcher, compiled with the address and undefined-behaviour sanitizers, does all it does without a fault."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.processes import output_of
from support.programs import compile_launcher

# The launcher gets no environment, so its options are compiled in; what it keeps until its end is no leak.
OPTIONS = """
const char *__asan_default_options(void) { return "detect_leaks=0:abort_on_error=1"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:abort_on_error=1"; }
"""

CODE = """
import sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
import proc_sandbox as ps
from proc_sandbox.launcher import process
process.launcher_path = lambda: sys.argv[1]

def one(number):
    kind = number % 6
    limits = {"memory_limit": (40 << 20) + number * 4096, "max_processes": 20} if number % 2 else {}
    if kind == 0:
        return ps.run(["sleep", "60"], timeout=0.2, **limits).timed_out
    if kind == 1:
        return ps.run(["head", "-c", "300000", "/dev/urandom"], tmp_size=(1 << 20) + number * 4096, **limits).ok
    if kind == 2:
        with tempfile.TemporaryDirectory() as directory:
            return ps.run(["touch", "x"], working_dir=directory, **limits).ok
    if kind == 3:
        try:
            ps.run(["./missing"], **limits)
        except FileNotFoundError:
            return True
    if kind == 4:
        return ps.run(["cat"], input=b"x" * 200000, env={"N": "v" * 70000}, cpu_time_limit=5, **limits).ok
    return ps.run(["sh", "-c", "kill -9 $$"], cpu_limit=50, network_access="loopback", **limits).signal == 9

with ThreadPoolExecutor(12) as pool:
    results = list(pool.map(one, range(120)))
for number in range(60):  # prepared ones: used, killed, in the wrong place, too many
    time.sleep(number % 3 * 0.004)
    results.append(ps.run(["true"], prepared=number % 4, umask=number % 5).ok)
print(all(results), len(results))
"""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("launcher")
    options = directory / "options.c"
    options.write_text(OPTIONS)
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-static-libasan", "-static-libubsan"]
    try:
        compile_launcher(directory / "launcher", "-g", "-O1", "-pthread", *sanitize, options)
    except subprocess.CalledProcessError as error:
        if b"cannot find" in error.stderr:
            pytest.skip("gcc has no sanitizer libraries here")
        raise
    directory.chmod(0o755)
    return directory / "launcher"


def test_no_fault_in_the_launchers_memory(launcher: Path) -> None:
    assert output_of(CODE, str(launcher)) == "True 180\n"
