"""What this machine can do: the launcher's greeting, in which it tells what it tried, and the cgroups."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from proc_sandbox.backends.linux.cgroup import find_cgroups
from proc_sandbox.backends.linux.container import apparmor_profile, in_container, is_filtered
from proc_sandbox.host import RUN_UIDS, Feature, Host
from proc_sandbox.launcher.process import launcher_path

__all__ = ["host_from_greeting", "userns_remedy", "with_cgroups"]

FILTERED = (
    "run it outside of what filters its system calls: another sandbox, or a service with SystemCallFilter= or RestrictNamespaces="
)
CONTAINER = "start the container with: docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
APPARMOR = (
    "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile proc-sandbox %s flags=(unconfined) {{\\n  userns,\\n}}\\n' {launcher} "
    "| sudo tee /etc/apparmor.d/proc-sandbox && sudo apparmor_parser -r /etc/apparmor.d/proc-sandbox"
)
"""Ubuntu from 23.10: who is not named by a profile gets a user namespace without capabilities. Only the launcher needs one."""
SWITCHES = (
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", APPARMOR),
)
"""Below /proc/sys: the value with which a switch keeps user namespaces from us, and the command that turns it."""
REMEDIES = {
    "close_range": "Linux 5.10 or newer",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER",
    "landlock": "a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= kernel argument",
    "idmap": "Linux 5.12 or newer and a file system that can be idmapped (ext4, xfs, btrfs, tmpfs from 6.3)",
    "openat2": "Linux 5.6 or newer",
    "clone3": CONTAINER,
}


def container_remedy(profile: str) -> str:
    """Return the flags with which a container lets us make namespaces; profile: the AppArmor profile that it has now."""
    return CONTAINER + " --security-opt apparmor=unconfined" * bool(profile)


def userns_remedy(sysctl: Callable[[str], str | None], container: bool, *, profile: str = "", filtered: bool = False) -> str:
    """Return the command that opens user namespaces to us, as far as it can be told what keeps them closed."""
    switch = next((command for name, closed, command in SWITCHES if sysctl(name) == closed), "").format(launcher=launcher_path())
    around = container_remedy(profile) if container else FILTERED if filtered else ""
    if around or switch:
        return f"{around}; and on the host: {switch}" if around and switch else around or switch
    return "allow this user to make user namespaces (user_namespaces(7))"


def read_sysctl(name: str) -> str | None:
    try:
        with open(f"/proc/sys/{name}", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return None


UIDS_EACH = 64
"""Of RUN_UIDS for each process id."""


def uid_range() -> tuple[int, int] | None:
    """Return host uids for this process's runs: where uids are few (inside a container), the last that is mapped."""
    pid = os.getpid() & 0x3FFFFF
    first = RUN_UIDS.start + pid * UIDS_EACH
    last = 0
    if not os.path.exists("/proc/self/uid_map"):
        return first, UIDS_EACH  # no /proc: whether they are mapped is found out by the first run
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        for line in file:
            inside, _, count = map(int, line.split())
            if inside <= first and first + UIDS_EACH <= inside + count:
                return first, UIDS_EACH
            last = max(last, inside + count - 1)
    spare = 2 * UIDS_EACH  # below "nobody" and its like at the end of what a container has
    return (last - spare, UIDS_EACH) if last > 10 * spare else (last, 1) if last > 0 else None


NOT_LOOKED_FOR = Feature(False, "no limit asked for it, so it was not looked for")


def host_from_greeting(greeting: dict[str, str]) -> Host:
    """Return the Host that a launcher's greeting tells of, without cgroups."""
    features = {}
    proc = Feature(os.path.exists("/proc/self/stat"), "/proc is not mounted", "mount -t proc proc /proc")
    namespaces = proc.remedy
    if proc:
        namespaces = userns_remedy(read_sysctl, in_container(), profile=apparmor_profile(), filtered=is_filtered())
    if proc and greeting.get("children", "0") != "0":
        proc = Feature(False, "/proc hides our own children: another sandbox around us, or hidepid (proc(5))", FILTERED)
    for name, result in greeting.items():
        if name in ("version", "landlock-abi"):
            continue
        code = int(result)
        reason = f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]" if code else ""
        features[name] = Feature(code == 0, reason, REMEDIES.get(name, namespaces if name.endswith("ns") else ""))
    abi = int(greeting.get("landlock-abi", "0"))
    features["landlock"] = Feature(abi > 0, "" if abi else "the kernel has no Landlock", REMEDIES["landlock"])
    features["proc"] = proc
    features["proc_keys"] = Feature(os.path.exists("/proc/keys"), "the kernel keeps no keys")
    features["sysfs"] = Feature(os.path.isdir("/sys/block"), "/sys/block is not there", "mount -t sysfs sysfs /sys")
    features["cgroup1"] = features["cgroup2"] = NOT_LOOKED_FOR
    root = bool(features.get("root"))
    range_ = uid_range() if root or features.get("setuid") else None
    return Host("linux", features, root=root, landlock_abi=abi, uid_range=range_)


def with_cgroups(host: Host, launcher: int) -> Host:
    """Return the Host with the cgroups that the launcher of that process id can use."""
    try:
        cgroup, features = find_cgroups(launcher)
    except OSError as error:  # no /proc, or a sandbox around us that hides what it tells of
        hidden = Feature(False, f"{error.filename}: {error.strerror}", host.feature("proc").remedy or FILTERED)
        return replace(host, features={**host.features, "cgroup1": hidden, "cgroup2": hidden})
    if cgroup and cgroup.version == 2 and not host.feature("clone3"):  # a process is born into a cgroup by it alone
        cgroup, features = None, {**features, "cgroup2": host.feature("clone3")}
    return replace(host, features={**host.features, **features}, cgroup=cgroup)
