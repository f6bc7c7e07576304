"""The planner: pure decisions from Config, Host and Paths, one table of expectations per kind of host."""

from __future__ import annotations

from dataclasses import replace

import pytest

import proc_sandbox as ps
from proc_sandbox.host import CgroupHost, Feature, Grant, Hidden, Host, Paths, SystemPath
from proc_sandbox.planner import capabilities_of, compile_plan
from proc_sandbox.planner.linux.mechanisms import LADDER

FEATURES = {
    name: Feature(True)
    for name in ("root", "home", "userns", "mountns", "pidns", "ipcns", "utsns", "netns", "cgroupns", "openat2", "seccomp",
                 "idmap", "close_range", "landlock", "proc", "oom_score_adj", "sysfs", "cgroup1", "cgroup2")
}  # fmt: skip
V1 = CgroupHost(1, tuple((name, f"/sys/fs/cgroup/{name}") for name in ("memory", "cpuacct", "cpu", "pids", "blkio")))
V2 = CgroupHost(2, tuple((name, "/sys/fs/cgroup/a.scope") for name in ("memory", "cpu", "pids", "io")))
NO_V2 = Feature(False, "cgroup2 has no controllers here", "boot otherwise")
ROOT_V1 = Host("linux", {**FEATURES, "cgroup2": NO_V2}, root=True, landlock_abi=7, uid_range=(0x70000000, 64), cgroup=V1)
USER_V2 = Host("linux", FEATURES, landlock_abi=7, cgroup=V2)
USER = Host("linux", {**FEATURES, "cgroup1": Feature(False, "no", "do"), "cgroup2": Feature(False, "no", "do")}, landlock_abi=7)
REFUSED = {name: Feature(False, "refused", "allow it") for name in ("userns", "mountns", "pidns", "ipcns", "netns", "idmap", "root", "setuid")}
ROOT = replace(USER, root=True, uid_range=(0x70000000, 64))
CONTAINED_USER = replace(USER, features={**USER.features, **REFUSED})
"""In a container as its engine makes it: no namespaces."""
CONTAINED_ROOT = replace(CONTAINED_USER, features={**CONTAINED_USER.features, "setuid": Feature(True)}, uid_range=(0x70000000, 64))
OWN = ("pids", "metadata")
PATHS = Paths((SystemPath("/usr", "dir"), SystemPath("/bin", "symlink", "usr/bin")), executable="/usr/bin/true")
LIMITS = {"memory_limit": "64M", "cpu_limit": 50, "cpu_time_limit": 2, "max_processes": 10, "timeout": 5}
GRANT = Grant("/srv/data", "/srv/data", "read", True, 0, 0)


def plan(host: Host, paths: Paths = PATHS, **config: object) -> ps.Plan:
    config.setdefault("hidden_paths", [item.path for item in paths.hidden])
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


DISKS = PATHS._replace(disks=("8:0", "253:1"))


def test_every_disk_is_limited() -> None:
    made = plan(USER_V2, DISKS, read_bps="1M", write_bps=8192)
    assert made.cgroup
    limits = [setting for setting in made.cgroup.settings if setting[0] == "io.max"]
    assert limits == [("io.max", "8:0 rbps=1048576 wbps=8192"), ("io.max", "253:1 rbps=1048576 wbps=8192")]
    one = plan(USER_V2, DISKS, write_bps="1M").cgroup
    assert one
    assert ("io.max", "8:0 rbps=max wbps=1048576") in one.settings
    none = plan(USER_V2, DISKS, **LIMITS).cgroup
    assert none
    assert not any(name == "io.max" for name, _ in none.settings)


def test_cgroup_v1_limits_reading_and_says_what_it_cannot() -> None:
    made = plan(ROOT_V1, DISKS, read_bps="1M").cgroup
    assert made
    assert ("blkio.throttle.read_bps_device", "253:1 1048576") in made.settings
    assert "blkio" in dict(made.directories)
    without = plan(ROOT_V1, DISKS, **LIMITS).cgroup
    assert without
    assert "blkio" not in dict(without.directories), "joining it costs time"
    with pytest.raises(ps.UnsupportedError, match="page cache") as caught:
        plan(ROOT_V1, DISKS, write_bps="1M")
    assert caught.value.remedy == "boot otherwise"
    lenient = plan(ROOT_V1, DISKS, write_bps="1M", read_bps="1M", enforcement=ps.best_effort("write_bps"))
    assert isinstance(lenient.enforcement["write_bps"], ps.Unenforced)
    assert isinstance(lenient.enforcement["read_bps"], ps.Enforced)


def test_what_is_missing_to_limit_disks() -> None:
    not_delegated = replace(USER_V2, cgroup=CgroupHost(2, V2.directories[:3]))
    with pytest.raises(ps.UnsupportedError, match="controller io") as caught:
        plan(not_delegated, DISKS, read_bps="1M")
    assert "Delegate=" in caught.value.remedy
    blind = replace(USER_V2, features={**FEATURES, "sysfs": Feature(False, "no /sys", "mount it")})
    with pytest.raises(ps.UnsupportedError, match="no /sys"):
        plan(blind, DISKS, write_bps="1M")
    with pytest.raises(ps.UnsupportedError, match="more disks"):
        plan(USER_V2, PATHS._replace(disks=tuple(f"8:{n}" for n in range(2000))), read_bps="1M")


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
        (ROOT_V1, PATHS, {}, {"unix", "connect", "memfd", "ipc", "buffers", "timers", *OWN, "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT,)), {}, {"unix", "memfd", "ipc", "buffers", "timers", *OWN, "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT._replace(access="write"),)), {}, {"unix", "memfd", "ipc", "buffers", "timers", *OWN}),
        (ROOT_V1, PATHS, {"network_access": True}, {"inet", "unix", "connect", "memfd", "ipc", "buffers", "timers", *OWN, "setid"}),
        (replace(ROOT_V1, landlock_abi=5), PATHS, {"network_access": True}, {"inet", "memfd", "ipc", "buffers", "timers", *OWN, "setid"}),
        (ROOT_V1, PATHS._replace(grants=(GRANT,)), {"network_access": "loopback"}, {"inet", "memfd", "ipc", "buffers", "timers", *OWN, "setid"}),
        (CONTAINED_USER, PATHS, {}, {"memfd", "buffers", "timers", "setid"}),
        (CONTAINED_USER, PATHS, {"network_access": True}, {"inet", "memfd", "buffers", "timers", "setid"}),
        (replace(CONTAINED_USER, landlock_abi=9), PATHS, {}, {"memfd", "buffers", "timers", "setid"}),
        (CONTAINED_ROOT, PATHS, {}, {"memfd", "buffers", "timers", "setid", "metadata"}),
    ],
)  # fmt: skip
def test_what_the_filter_lets_through(host: Host, paths: Paths, config: dict[str, object], options: set[str]) -> None:
    made = plan(host, paths, **config)
    assert made.seccomp
    assert set(made.seccomp.options) == options


def test_what_cannot_be_enforced_is_refused_or_said() -> None:
    nothing = replace(CONTAINED_USER, landlock_abi=5)
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(nothing, memory_limit="64M")
    assert (caught.value.field, caught.value.remedy) == ("memory_limit", "do")
    assert "sampled: memory of the tree and its tmpfs, every 2 to 10 ms: refused" in caught.value.reason
    no_seccomp = replace(USER, features={**USER.features, "seccomp": Feature(False, "old kernel", "a newer one")})
    with pytest.raises(ps.UnsupportedError, match="old kernel"):
        plan(no_seccomp)
    lenient = plan(no_seccomp, enforcement=ps.best_effort("syscalls"))
    assert lenient.enforcement["syscalls"] == ps.Unenforced("seccomp allowlist: old kernel", "a newer one")
    assert lenient.seccomp is None


def test_only_where_the_command_owns_nothing_may_landlocks_search_end_early() -> None:
    """As root, whose runs have a uid of their own, and where nothing that a Config names lies in it."""

    def rules(host: Host, *grants: Grant) -> tuple[tuple[str, str], ...]:
        made = plan(host, PATHS._replace(grants=grants))
        assert made.landlock
        return made.landlock.rules

    foreign = ("/usr", "foreign")
    assert foreign in rules(ROOT)
    assert foreign not in rules(USER)
    assert foreign not in rules(ROOT, GRANT._replace(path="/usr/local/data", source="/usr/local/data"))
    assert foreign not in plan(ROOT, PATHS._replace(system=())).landlock.rules  # type: ignore[union-attr]


def test_without_namespaces_landlock_names_what_the_host_shows() -> None:
    zero, null = SystemPath("/dev/zero", "device"), SystemPath("/dev/null", "device")
    paths = PATHS._replace(system=(*PATHS.system, zero, null), grants=(GRANT, GRANT._replace(path="/srv/rw", source="/srv/rw", access="write")))
    made = plan(CONTAINED_USER, paths)
    assert (made.namespaces, made.mounts, made.sysctls, made.cwd) == ((), (), (), "/")
    assert made.landlock
    assert made.landlock.rules == (
        ("/usr", "system"), ("/dev/zero", "read"), ("/dev/zero", "device"), ("/dev/null", "read"), ("/dev/null", "device"),
        ("/srv/data", "read"), ("/srv/rw", "write"),
    )  # fmt: skip
    assert all(isinstance(how, ps.Enforced) for how in made.enforcement.values())
    sampled = plan(CONTAINED_USER, paths, memory_limit="64M")
    assert sampled.landlock
    assert not [path for path, _ in sampled.landlock.rules if path == "/dev/zero"], "to map it is shared memory that nobody sees"


def test_without_namespaces_a_sandbox_has_its_directory_where_it_is() -> None:
    own = Grant("/tmp/own", "/tmp/own", "write", True, 0x70000020, 0x70000020)
    made = plan(CONTAINED_ROOT, PATHS._replace(grants=(own,), private="/tmp/own"))
    assert made.cwd == dict(made.environment)["HOME"] == dict(made.environment)["TMPDIR"] == "/tmp/own"
    assert made.identity.host_range == (0x70000020, 1), "its owner"
    assert plan(CONTAINED_ROOT).identity.host_range == (0x70000000, 32)
    foreign = PATHS._replace(grants=(own._replace(path="/srv/work", uid=0),))
    with pytest.raises(ps.UnsupportedError, match="the run's own user may not write there"):
        plan(CONTAINED_ROOT, foreign, working_dir="/srv/work")


def test_without_namespaces_the_runs_of_a_sandbox_share_a_user_and_no_budget() -> None:
    own = Grant("/tmp/own", "/tmp/own", "write", True, 0x70000020, 0x70000020)
    made = plan(CONTAINED_ROOT, PATHS._replace(grants=(own,), private="/tmp/own"), max_processes=10)
    assert made.sampling
    assert made.sampling.tasks == 10


def test_without_namespaces_tasks_are_counted_for_the_runs_user_or_sampled() -> None:
    limits = {limit.name: limit.value for limit in plan(CONTAINED_ROOT, max_processes=10).rlimits}
    assert limits["RLIMIT_NPROC"] == 11
    made = plan(CONTAINED_USER, max_processes=10)
    assert "RLIMIT_NPROC" not in {limit.name for limit in made.rlimits}, "it would count the caller's own"
    assert made.sampling
    assert made.sampling.tasks == 10


@pytest.mark.parametrize(("abi", "missing"), [(5, "processes"), (2, "files")])
def test_without_namespaces_an_older_landlock_is_not_enough(abi: int, missing: str) -> None:
    old = replace(CONTAINED_USER, landlock_abi=abi)
    with pytest.raises(ps.UnsupportedError, match=f"Landlock has ABI {abi} here"):
        plan(old)
    said = plan(old, enforcement="best-effort").enforcement
    assert isinstance(said[missing], ps.Unenforced)


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
    assert set(capabilities_of(ROOT_V1)) >= set(LADDER) - {"hostname", "hidden_paths"}  # which are asked for by who names one
    for host, missing in ((ROOT_V1, {"write_bps"}), (USER_V2, set()), (USER, {"read_bps", "write_bps"})):
        assert {name for name, how in capabilities_of(host).items() if isinstance(how, ps.Unenforced)} == missing


def test_how_strong_each_mechanism_is_and_what_would_be_stronger() -> None:
    with_remedy = replace(USER, features={**USER.features, "cgroup2": Feature(False, "no manager", "loginctl enable-linger u")})
    said = capabilities_of(with_remedy)
    for name in ("memory_limit", "cpu_limit", "cpu_time_limit"):
        how = said[name]
        assert isinstance(how, ps.Enforced)
        assert (how.strength, how.remedy) == ("sampled", "loginctl enable-linger u")
    for host in (ROOT_V1, USER_V2):
        for name, how in capabilities_of(host).items():
            if name == "write_bps":
                assert isinstance(how, ps.Unenforced) or how.strength == "partial"
                continue
            assert isinstance(how, ps.Enforced), name
            assert (how.strength, how.remedy) == ("kernel", ""), name


def test_a_name_of_its_own_needs_a_namespace() -> None:
    closed = replace(USER, features={**USER.features, "utsns": Feature(False, "no UTS namespaces", "a kernel with CONFIG_UTS_NS")})
    with pytest.raises(ps.UnsupportedError, match="hostname"):
        compile_plan(ps.Config(hostname="mine"), ["true"], closed, Paths())
    assert isinstance(compile_plan(ps.Config(hostname="mine"), ["true"], USER, Paths()).enforcement["hostname"], ps.Enforced)


HIDDEN = PATHS._replace(
    grants=(GRANT._replace(path="/srv/data", access="write"), GRANT._replace(path="/srv/link", source="/srv/data", access="write")),
    hidden=(
        Hidden("/srv/data/.env", "/srv/data/.env", False),
        Hidden("/srv/data/a/keys", "/srv/data/a/keys", True),
        Hidden("/srv/data/a/keys/in", "/srv/data/a/keys/in", False),
        Hidden("/srv/other", "/srv/other", False),
        Hidden("/usr/share/x", "/usr/share/x", True),
    ),
)


def test_what_is_hidden_is_covered_last_and_by_every_name() -> None:
    made = plan(ROOT_V1, HIDDEN)
    aliases = {mount.target: mount.source for mount in made.mounts if mount.source.startswith("/tmp/.empty")}
    file, directory = "/tmp/.empty/file", "/tmp/.empty/directory"
    assert aliases == {
        "/srv/data/.env": file, "/srv/data/a/keys": directory, "/srv/link/.env": file, "/srv/link/a/keys": directory,
        "/usr/share/x": directory,
    }  # fmt: skip
    kinds = [(mount.kind, mount.target) for mount in made.mounts]
    first = kinds.index(("alias", "/srv/data/.env"))
    assert kinds.index(("seal", "/tmp/.empty")) < first, "an alias of what is read-only is read-only"
    assert not [mount for mount in made.mounts[first:] if mount.kind == "bind"], "what is mounted later would cover it"
    assert not any(mount.shared for mount in made.mounts if "/.empty" in mount.source)
    assert made.enforcement["hidden_paths"] == ps.Enforced("a read-only mount of nothing over each")


def test_what_is_on_the_way_to_it_and_writable_keeps_its_name() -> None:
    made = plan(ROOT_V1, HIDDEN)
    binds = {mount.target: (mount.source, mount.options) for mount in made.mounts if mount.kind == "bind" and mount.target.startswith("/srv")}
    assert binds.keys() == {"/srv/data", "/srv/link", "/srv/data/a", "/srv/link/a"}
    assert binds["/srv/link/a"] == ("/srv/data/a", binds["/srv/data"][1])
    read = plan(ROOT_V1, HIDDEN._replace(grants=(GRANT,)))
    assert not [mount for mount in read.mounts if mount.target == "/srv/data/a"], "there nothing is renamed"


def test_what_is_hidden_needs_a_namespace() -> None:
    with pytest.raises(ps.UnsupportedError, match="takes nothing away") as caught:
        plan(CONTAINED_USER, HIDDEN)
    assert caught.value.field == "hidden_paths"
    assert isinstance(plan(CONTAINED_USER, HIDDEN, enforcement=ps.best_effort("hidden_paths")).enforcement["hidden_paths"], ps.Unenforced)
    beside = HIDDEN._replace(hidden=HIDDEN.hidden[3:4])
    assert plan(CONTAINED_USER, beside).enforcement["hidden_paths"] == ps.Enforced("nothing of it is to be seen"), "for it is not granted"


def test_what_is_to_be_hidden_and_is_not_there_is_told() -> None:
    assert "hidden_paths" not in plan(ROOT).enforcement
    nowhere = PATHS._replace(missing=("/srv/data/.evn",))
    told = plan(CONTAINED_USER, nowhere, hidden_paths=["/srv/data/.evn"])
    assert told.enforcement["hidden_paths"] == ps.Enforced("nothing of it is to be seen; not there: '/srv/data/.evn'")
    assert "not there: '/srv/data/.evn'" in told.describe()
    both = plan(CONTAINED_USER, HIDDEN._replace(missing=("/srv/data/.evn",)), enforcement="best-effort").enforcement["hidden_paths"]
    assert isinstance(both, ps.Unenforced)
    assert both.reason.endswith("; not there: '/srv/data/.evn'")


def test_a_hidden_path_below_usr_keeps_landlocks_search_going() -> None:
    made = plan(ROOT, PATHS._replace(hidden=HIDDEN.hidden[4:]))
    assert made.landlock
    assert ("/usr", "foreign") not in made.landlock.rules


def test_a_terminal_is_in_the_view_of_its_run_alone() -> None:
    without = plan(USER).words()
    assert "terminal" not in without
    assert not any("/dev/pts" in word for word in without)
    looked_at = plan(ROOT, pty=True)
    assert "<new>" in looked_at.describe()
    made = looked_at.at_terminal("/dev/pts/7")
    assert ("terminal", "/dev/pts/7") in zip(made.words(), made.words()[1:], strict=False)
    own = [(mount.kind, mount.target, mount.source) for mount in made.mounts if not mount.shared and mount.target.startswith("/dev/pts")]
    assert own == [
        ("tmpfs", "/dev/pts", "-"),
        ("file", "/dev/pts/7", ""),
        ("bind", "/dev/pts/7", "/dev/pts/7"),
        ("seal", "/dev/pts", "-"),
    ]
    assert not any("<new>" in word for word in made.words())


@pytest.mark.parametrize("name", ["", "/dev/tty1", "/tmp/pts/3"])
def test_a_terminal_without_a_name_that_is_one(name: str) -> None:
    for host in (ROOT, CONTAINED_USER):
        made = plan(host, pty=True, enforcement="best-effort").at_terminal(name)
        assert ("terminal", "-") in zip(made.words(), made.words()[1:], strict=False)
        assert not any(word.startswith("/dev/pts/") for word in made.words())


def test_without_namespaces_the_terminal_can_be_opened_again() -> None:
    made = plan(CONTAINED_USER, pty=True, enforcement="best-effort").at_terminal("/dev/pts/7")
    assert {access for path, access in made.landlock.rules if path == "/dev/pts/7"} == {"read", "device"}


def test_a_terminal_changes_nothing_for_other_plans() -> None:
    made = plan(USER)
    assert made.at_terminal("/dev/pts/7") is made
