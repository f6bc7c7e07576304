"""The planner: pure decisions from Config, Host and Paths, one table of expectations per kind of host."""

from __future__ import annotations

from dataclasses import replace

import pytest

import proc_sandbox as ps
from proc_sandbox.host import CgroupHost, Feature, Grant, Host, Paths, SystemPath
from proc_sandbox.planner import capabilities_of, compile_plan
from proc_sandbox.planner.ladder import LADDER

FEATURES = {
    name: Feature(True)
    for name in ("root", "home", "userns", "mountns", "pidns", "ipcns", "utsns", "netns", "cgroupns", "openat2", "seccomp",
                 "idmap", "close_range", "landlock", "cgroup1", "cgroup2")
}  # fmt: skip
V1 = CgroupHost(1, tuple((name, f"/sys/fs/cgroup/{name}") for name in ("memory", "cpuacct", "cpu", "pids")))
V2 = CgroupHost(2, tuple((name, "/sys/fs/cgroup/a.scope") for name in ("memory", "cpu", "pids")))
ROOT_V1 = Host("linux", FEATURES, root=True, landlock_abi=7, uid_range=(0x70000000, 64), cgroup=V1)
USER_V2 = Host("linux", FEATURES, landlock_abi=7, cgroup=V2)
USER = Host("linux", {**FEATURES, "cgroup1": Feature(False, "no", "do"), "cgroup2": Feature(False, "no", "do")}, landlock_abi=7)
PATHS = Paths((SystemPath("/usr", "dir"), SystemPath("/bin", "symlink", "usr/bin")), executable="/usr/bin/true")
LIMITS = {"memory_limit": "64M", "cpu_limit": 50, "cpu_time_limit": 2, "max_processes": 10, "timeout": 5}
GRANT = Grant("/srv/data", "/srv/data", "read", True, 0, 0)


def plan(host: Host, paths: Paths = PATHS, **config: object) -> ps.Plan:
    return compile_plan(ps.Config(**config), ["true"], host, paths)  # type: ignore[arg-type]


def test_settings_of_cgroup_v1() -> None:
    made = plan(ROOT_V1, **LIMITS)
    assert made.cgroup
    assert dict(made.cgroup.settings) == {
        "memory.memsw.limit_in_bytes": str(64 << 20),
        "memory.limit_in_bytes": str(64 << 20),
        "cpu.cfs_quota_us": "50000",
        "pids.max": "12",
    }
    # Memory with swap is opened first and closed last: it may never be below memory.
    names = [name for name, _ in made.cgroup.settings if name.startswith("memory")]
    assert names == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
    assert made.sampling is None


def test_controllers_that_are_mounted_together_have_one_place() -> None:
    """As systemd mounts them: cpu,cpuacct."""
    together = CgroupHost(1, (("memory", "/m"), ("cpuacct", "/c"), ("cpu", "/c"), ("pids", "/p")))
    made = plan(replace(ROOT_V1, cgroup=together), **LIMITS)
    assert made.cgroup
    assert made.cgroup.directories == (("memory", "/m"), ("cpuacct,cpu", "/c"), ("pids", "/p"))


def test_settings_of_cgroup_v2() -> None:
    made = plan(USER_V2, **LIMITS)
    assert made.cgroup
    assert made.cgroup.version == 2
    assert dict(made.cgroup.settings) == {
        "memory.max": str(64 << 20),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "50000 100000",
        "pids.max": "11",
    }
    assert ("cgroup2", "/sys/fs/cgroup/a.scope") in zip(made.words(), made.words()[1:], strict=False)


def test_without_cgroups_the_rest_of_the_ladder() -> None:
    made = plan(USER, **LIMITS)
    assert made.cgroup is None
    assert made.sampling
    assert (made.sampling.memory, made.sampling.cpu) == (64 << 20, 500)
    assert ("RLIMIT_NPROC", 11) in made.rlimits
    assert made.seccomp
    assert not {"memfd", "ipc", "buffers"} & set(made.seccomp.options), "memory that nobody maps is not seen by sampling"
    assert made.identity.host_range is None


def test_no_cgroup_is_made_where_no_limit_asks_for_one() -> None:
    assert plan(ROOT_V1, timeout=5).cgroup is None


@pytest.mark.parametrize(
    ("host", "paths", "config", "options"),
    [
        (ROOT_V1, PATHS, {}, {"unix", "connect", "memfd", "ipc", "buffers", "timers", "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT,)), {}, {"unix", "memfd", "ipc", "buffers", "timers", "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT._replace(access="write"),)), {}, {"unix", "memfd", "ipc", "buffers", "timers"}),
        (ROOT_V1, PATHS, {"network_access": True}, {"inet", "unix", "connect", "memfd", "ipc", "buffers", "timers", "setid"}),
        (replace(ROOT_V1, landlock_abi=5), PATHS, {"network_access": True}, {"inet", "memfd", "ipc", "buffers", "timers", "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT,)), {"network_access": "loopback"}, {"inet", "memfd", "ipc", "buffers", "timers", "setid"}),
    ],
)  # fmt: skip
def test_what_the_filter_lets_through(host: Host, paths: Paths, config: dict[str, object], options: set[str]) -> None:
    made = plan(host, paths, **config)
    assert made.seccomp
    assert set(made.seccomp.options) == options


def test_what_cannot_be_enforced_is_refused_or_said() -> None:
    nothing = replace(USER, features={**USER.features, "pidns": Feature(False, "masked /proc", "unmask it")})
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(nothing, memory_limit="64M")
    assert caught.value.field == "memory_limit"
    assert "masked /proc" in caught.value.reason
    no_seccomp = replace(USER, features={**USER.features, "seccomp": Feature(False, "old kernel", "a newer one")})
    with pytest.raises(ps.UnsupportedError, match="old kernel"):
        plan(no_seccomp)
    lenient = plan(no_seccomp, enforcement=ps.best_effort("syscalls"))
    assert lenient.enforcement["syscalls"] == ps.Unenforced("seccomp allowlist: old kernel", "a newer one")
    assert lenient.seccomp is None


def test_no_view_no_run_even_when_lenient() -> None:
    blind = replace(USER, features={**USER.features, "mountns": Feature(False, "refused", "allow it")})
    with pytest.raises(ps.UnsupportedError, match="files"):
        plan(blind, enforcement="best-effort")


def test_shared_mounts_come_first_and_know_nothing_of_the_run() -> None:
    paths = PATHS._replace(grants=(GRANT, GRANT._replace(path="/srv/data/rw", source="/srv/data/rw", access="write")))
    made = plan(ROOT_V1, paths)
    shared = [mount.shared for mount in made.mounts]
    assert shared == sorted(shared, reverse=True)
    assert not any("/srv/data" in mount.target for mount in made.mounts if mount.shared)
    own = [mount.target for mount in made.mounts if mount.kind == "bind" and not mount.shared]
    assert own == ["/srv/data", "/srv/data/rw"], "the outer one first, or it would cover the inner"
    other = plan(ROOT_V1, paths, timeout=1, env={"A": "1"}, max_processes=3)
    assert [m for m in other.mounts if m.shared] == [m for m in made.mounts if m.shared]


def test_the_plan_is_data() -> None:
    made = plan(ROOT_V1, **LIMITS)
    assert plan(ROOT_V1, **LIMITS) == made
    assert made.to_dict()["rlimits"][0] == {"name": "RLIMIT_NOFILE", "value": 1024}  # type: ignore[index]
    assert "cgroup v1 pids.max = 12" in made.describe()
    assert made.command_line("/x/launcher").startswith("/x/launcher run version ")
    assert made.words()[-3:] == ("exec", "/usr/bin/true", "true")


def test_everything_asked_for_is_answered_for() -> None:
    assert set(capabilities_of(ROOT_V1)) >= set(LADDER)
    for host in (ROOT_V1, USER_V2, USER):
        assert all(isinstance(how, ps.Enforced) for how in capabilities_of(host).values())


def test_how_strong_each_mechanism_is_and_what_would_be_stronger() -> None:
    with_remedy = replace(USER, features={**USER.features, "cgroup2": Feature(False, "no manager", "loginctl enable-linger u")})
    said = capabilities_of(with_remedy)
    for name in ("memory_limit", "cpu_limit", "cpu_time_limit"):
        how = said[name]
        assert isinstance(how, ps.Enforced)
        assert (how.strength, how.remedy) == ("sampled", "loginctl enable-linger u")
    for host in (ROOT_V1, USER_V2):
        for name, how in capabilities_of(host).items():
            assert isinstance(how, ps.Enforced), name
            assert (how.strength, how.remedy) == ("kernel", ""), name
