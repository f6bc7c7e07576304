"""What this machine can do: the launcher's greeting, in which it tells what it tried, and the cgroups."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from proc_sandbox.backends.linux.cgroup import find_cgroups
from proc_sandbox.host import Feature, Host

__all__ = ["host_from_greeting", "with_cgroups"]

USERNS = (
    "allow user namespaces: sysctl user.max_user_namespaces=15000; on Ubuntu 24.04 also an AppArmor profile with 'userns,' "
    "(or sysctl kernel.apparmor_restrict_unprivileged_userns=0); in a container: --security-opt seccomp=unconfined"
)
REMEDIES = {
    "userns": USERNS,
    "mountns": USERNS,
    "pidns": USERNS + "; in a container /proc must not be masked: --security-opt systempaths=unconfined",
    "seccomp": "a kernel with CONFIG_SECCOMP_FILTER",
    "landlock": "a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in the lsm= kernel argument",
    "idmap": "a kernel from 5.12 and a file system that can be idmapped (ext4, xfs, btrfs, tmpfs from 6.3)",
    "openat2": "Linux 5.6 or newer",
}
# A range that systemd leaves free (systemd.io, "UIDS-GIDS"): 0x70000000 to 0x7fffffff, 64 for each process id.
FIRST_UID = 0x70000000
UIDS_EACH = 64


def uid_range() -> tuple[int, int] | None:
    """Return host uids for this process's runs: where uids are few (inside a container), the last that is mapped."""
    pid = os.getpid() & 0x3FFFFF
    first = FIRST_UID + pid * UIDS_EACH
    last = 0
    with open("/proc/self/uid_map", encoding="utf-8") as file:
        for line in file:
            inside, _, count = map(int, line.split())
            if inside <= first and first + UIDS_EACH <= inside + count:
                return first, UIDS_EACH
            last = max(last, inside + count - 1)
    return (last, 1) if last > 0 else None


NOT_LOOKED_FOR = Feature(False, "no limit asked for it, so it was not looked for")


def host_from_greeting(greeting: dict[str, str]) -> Host:
    """Return the Host that a launcher's greeting tells of, without cgroups."""
    features = {}
    for name, result in greeting.items():
        if name in ("version", "landlock-abi"):
            continue
        code = int(result)
        reason = f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]" if code else ""
        features[name] = Feature(code == 0, reason, REMEDIES.get(name, USERNS if name.endswith("ns") else ""))
    abi = int(greeting.get("landlock-abi", "0"))
    features["landlock"] = Feature(abi > 0, "" if abi else "the kernel has no Landlock", REMEDIES["landlock"])
    features["proc_keys"] = Feature(os.path.exists("/proc/keys"), "the kernel keeps no keys")
    features["cgroup1"] = features["cgroup2"] = NOT_LOOKED_FOR
    root = bool(features.get("root"))
    range_ = uid_range() if root else None
    return Host("linux", features, root=root, landlock_abi=abi, uid_range=range_)


def with_cgroups(host: Host, launcher: int) -> Host:
    """Return the Host with the cgroups that the launcher of that process id can use."""
    cgroup, features = find_cgroups(launcher)
    return replace(host, features={**host.features, **features}, cgroup=cgroup)
