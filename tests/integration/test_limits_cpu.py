"""cpu_limit and cpu_time_limit, whatever the number of processes that share the work."""

from __future__ import annotations

import os
import resource

import pytest
from support.fixtures import Programs
from support.programs import by_cgroup, inside, outside, text

import proc_sandbox as ps

WALL = 3.0
TRIES = 3


def used(result: ps.Result) -> float:
    """CPU time as a share of one core."""
    return result.cpu_time.total / result.execution_time


@pytest.mark.parametrize("processes", [1, 4])
def test_half_a_core_is_half_a_core(programs: Programs, processes: int) -> None:
    """Never more than 60 %; and not less than 40 %, unless the host itself is too busy to give as much."""
    shares = []
    for _ in range(TRIES):
        command = [programs("busy"), "side", str(processes), str(WALL)]
        result = inside(command, cpu_limit=50, allowed_dirs=[programs.directory])
        assert result.ok, result
        assert "DONE" in text(result)
        shares.append(used(result))
        assert shares[-1] <= 0.60, result
        if shares[-1] >= 0.40:
            return
    free = used(inside([programs("busy"), "side", str(processes), "2"], allowed_dirs=[programs.directory]))
    if free < 0.9:
        pytest.skip(f"this host is too busy to give half a core: {free:.2f} of one without a limit")
    pytest.fail(f"less than 40 % in each of {TRIES} runs: {shares}")


def test_without_the_limit_a_core_is_a_core(programs: Programs) -> None:
    """The control: the same work, unlimited, takes more than the limit above would let it have."""
    shares = []
    for _ in range(TRIES):
        shares.append(used(inside([programs("busy"), "side", "4", "2"], allowed_dirs=[programs.directory])))
        if shares[-1] > 0.65:
            return
    pytest.skip(f"this host is too busy to tell: {shares}")


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores to use more than one")
def test_more_than_one_core(programs: Programs) -> None:
    result = inside([programs("busy"), "side", "4", str(WALL)], cpu_limit=120, allowed_dirs=[programs.directory])
    assert result.ok, result
    assert used(result) <= 1.44


def test_a_limit_on_idle_work_costs_nothing(programs: Programs) -> None:
    result = inside(["sleep", "0.3"], cpu_limit=10, allowed_dirs=[programs.directory])
    assert result.ok, result


def test_a_hundred_short_lives_add_up(programs: Programs) -> None:
    """Each child lives for a tenth of a second; together they may have two."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert outside([programs("busy"), "after", "30", "0.1"]).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime > 2.5

    result = inside([programs("busy"), "after", "100", "0.1"], cpu_time_limit=2, allowed_dirs=[programs.directory])
    assert result.cpu_time_exceeded, result
    assert result.reason is ps.Reason.CPU_TIME
    assert not (result.timed_out or result.memory_exceeded or result.ok)
    assert 1.8 <= result.cpu_time.total <= 4
    with pytest.raises(ps.TimeLimitExceeded):
        result.check()


def test_one_process_that_spins(programs: Programs) -> None:
    result = inside([programs("busy"), "side", "1", "600"], cpu_time_limit=1, allowed_dirs=[programs.directory])
    assert result.cpu_time_exceeded, result
    assert result.reason is ps.Reason.CPU_TIME
    assert 0.8 <= result.cpu_time.total <= 3


def test_four_that_spin_side_by_side(programs: Programs) -> None:
    result = inside([programs("busy"), "side", "4", "600"], cpu_time_limit=1, allowed_dirs=[programs.directory])
    assert result.cpu_time_exceeded, result
    assert 0.8 <= result.cpu_time.total <= 4


def test_fractions_of_a_second(programs: Programs) -> None:
    result = inside([programs("busy"), "side", "1", "600"], cpu_time_limit="300ms", allowed_dirs=[programs.directory])
    assert result.cpu_time_exceeded, result
    assert result.cpu_time.total <= 2.5


def test_sleeping_costs_no_cpu_time() -> None:
    result = inside(["sleep", "1.5"], cpu_time_limit=1)
    assert result.ok, result
    assert not result.cpu_time_exceeded


def test_ignoring_sigxcpu_does_not_help() -> None:
    code = "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except (OSError, ValueError): pass\nwhile True: pass"
    result = inside(["python3", "-c", code], cpu_time_limit=1)
    assert result.cpu_time_exceeded, result


def test_a_throttled_program_is_told_from_a_slow_one(programs: Programs) -> None:
    busy = [programs("busy"), "side", "2", "1"]
    throttled = inside(busy, cpu_limit=20, allowed_dirs=[programs.directory])
    free = inside(busy, cpu_limit=1000, allowed_dirs=[programs.directory])
    if not by_cgroup(throttled, "cpu_limit"):
        assert throttled.throttled_time is None
        return
    assert throttled.throttled_time
    assert throttled.throttled_time > 0.2
    assert free.throttled_time == 0
