"""The Seatbelt profile of a run on macOS: what sandbox-exec(1) is told. Pure; text in SBPL, Apple's profile language.

Apple documents neither the language nor which operations a program needs, and calls sandbox-exec deprecated (its man page), though
all of the system's own services are confined so. What is relied on here is from where it is used in the open, each with its source:

- Chromium, sandbox/policy/mac/*.sb and sandbox/mac/seatbelt_sandbox_design.md, and Apple's own profiles in
  /System/Library/Sandbox/Profiles: the operations, the filters and the Mach services.
- Of rules that match the last one wins; but one for a wildcard (file-read*) does not take back what a later or earlier one for the exact
  operation (file-read-data) gives (GreyhavenHQ/greywall #20), and filters joined by require-all win over plain ones (navikt/cplt
  #455). So what may be taken back is given and taken by the same operation and plain filters.
- The kernel resolves links before it asks: rules match where a thing lies, so that a link can't lead out. Each link on the way is
  itself asked for by file-read-metadata (akitaonrails/ai-jail #124).
- Rules match names, not files: who may move a directory takes what lies in it out of the rules (anthropic-experimental/
  sandbox-runtime #8), and who may make a hard link has another name for the file. Both are denied below.

None of this could be tried by its authors on a Mac yet.

Paths must be as the file system spells them. APFS ignores case and composition of letters, the rules do not: a directory that is
to stay read-only inside a writable one would not, if it were named in another spelling. realpath(3) may keep the caller's; what
fcntl(2) F_GETPATH says is the kernel's own. Backend.survey sees to that.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.host import Feature, Grant, Host, Paths
from proc_sandbox.planner.ladder import Rung, feature, refuse
from proc_sandbox.result import Enforced, Unenforced

__all__ = [
    "MACH_SERVICES",
    "RUNGS",
    "SANDBOX_EXEC",
    "SYSCTLS",
    "SYSTEM",
    "command_line",
    "network_enforcement",
    "profile",
    "trial_feature",
]

SANDBOX_EXEC = "/usr/bin/sandbox-exec"
"""By its full name: another one on PATH could do nothing at all. The system volume is sealed."""
MAX_PATH = 1023
"""Bytes: PATH_MAX less its NUL (<sys/syslimits.h>). SBPL's reader (TinyScheme) takes no longer strings for granted either."""
MAX_PROFILE = 256 << 10
"""Bytes: the profile is an argument, and all of them with the environment have 1 MiB (ARG_MAX)."""
LINKS = {"/etc": "/private/etc", "/tmp": "/private/tmp", "/var": "/private/var"}
"""Links of the system's own, that are in names which nobody resolved; hier(7)."""


class Place(NamedTuple):
    """A path that every command may read, a whole tree or one file, and why."""

    path: str
    reason: str
    tree: bool = True


class Named(NamedTuple):
    """A name that the kernel or launchd knows something by, and why a command may use it. prefix: and all that begin so."""

    name: str
    reason: str
    prefix: bool = False


PACKAGES = ("/usr/local", "/opt/homebrew", "/opt/local")
"""Where Homebrew (Intel, Apple silicon) and MacPorts install. Not whole: what their services keep lies below var."""
SYSTEM = (
    Place("/", "dyld reads the root itself, or aborts, from macOS 26 (akitaonrails/ai-jail #77)", tree=False),
    Place("/bin", "programs"),
    Place("/sbin", "programs"),
    Place("/usr/bin", "programs; git, clang and python3 are stubs that start those of the developer directory"),
    Place("/usr/sbin", "programs"),
    Place("/usr/lib", "dyld and libraries"),
    Place("/usr/libexec", "what programs start"),
    Place("/usr/share", "data of programs: terminfo, zoneinfo, locales, icu"),
    Place("/System/Library", "frameworks; dyld's shared cache before macOS 13"),
    Place("/System/iOSSupport", "frameworks of Catalyst"),
    Place("/System/Cryptexes", "links to the next"),
    Place("/System/Volumes/Preboot/Cryptexes", "dyld's shared cache from macOS 13"),
    Place("/Library/Apple", "Rosetta"),
    Place("/Library/Developer/CommandLineTools", "git, clang, python3 and the SDK of the command line tools"),
    Place("/Applications/Xcode.app/Contents", "the same of Xcode"),
    Place("/Library/Frameworks", "Python as python.org installs it"),
    Place("/Library/Java/JavaVirtualMachines", "Java"),
    Place("/private/etc/localtime", "the time zone", tree=False),
    Place("/private/etc/protocols", "getprotobyname(3)", tree=False),
    Place("/private/etc/services", "getservbyname(3)", tree=False),
    Place("/private/etc/ssl", "certificates to trust, settings of LibreSSL"),
    Place("/private/var/db/timezone", "the time zones"),
    Place("/private/var/db/xcode_select_link", "which developer directory is taken: xcode-select(1)", tree=False),
    Place("/private/var/select", "which shell /bin/sh is, from macOS 10.15 (NixOS/nix #3429)"),
    *(
        Place(f"{prefix}/{name}", "installed packages")
        for prefix in PACKAGES
        for name in ("bin", "sbin", "lib", "libexec", "include", "share", "opt", "Cellar", "Frameworks")
    ),
    *(Place(f"{prefix}/etc/{name}", "certificates to trust") for prefix in PACKAGES for name in ("openssl@3", "ca-certificates")),
)
NETWORK_PLACES = (
    Place("/private/etc/hosts", "names of hosts", tree=False),
    Place("/private/etc/resolv.conf", "for programs that ask name servers themselves", tree=False),
    Place("/private/var/run/resolv.conf", "where that leads", tree=False),
)
NAME_SERVICE = "/private/var/run/mDNSResponder"
"""The socket by which getaddrinfo(3) asks; Chromium, sandbox/policy/mac/network.sb."""
READABLE_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
WRITABLE_DEVICES = ("/dev/null", "/dev/zero")
STREAM_LINKS = ("/dev/stdin", "/dev/stdout", "/dev/stderr")

MACH_SERVICES = (Named("com.apple.system.opendirectoryd.libinfo", "getpwuid(3) and its like: who the command is; crbug.com/792228"),)
"""All others are out of reach. Left out on purpose, for they act for their client outside of the sandbox, or tell and keep secrets:
launchservicesd and lsd (open(1) starts programs outside), SecurityServer and securityd (keychains), pasteboard, windowserver, cfprefsd,
logd, notification_center, PowerManagement, dirhelper. A job of launchd's and Apple events are refused to every sandboxed process."""
NETWORK_SERVICES = (
    Named("com.apple.SystemConfiguration.configd", "which name servers and proxies are set"),
    Named("com.apple.SystemConfiguration.DNSConfiguration", "the same"),
    Named("com.apple.trustd.agent", "whether a certificate is to be trusted"),
)
SYSCTLS = (
    Named("hw.", "what the processor has; Qt aborts without hw.optional.neon (anthropics/claude-code #82423)", prefix=True),
    Named("machdep.cpu.", "the same", prefix=True),
    Named("machdep.ptrauth_enabled", "whether pointers are signed"),
    Named("kern.argmax", "sysconf(3)"),
    Named("kern.hostname", "uname(3), which has all or nothing"),
    Named("kern.maxfilesperproc", "sysconf(3)"),
    Named("kern.maxproc", "sysconf(3)"),
    Named("kern.ngroups", "sysconf(3)"),
    Named("kern.osproductversion", "which macOS this is"),
    Named("kern.osrelease", "uname(3)"),
    Named("kern.osrevision", "uname(3)"),
    Named("kern.ostype", "uname(3)"),
    Named("kern.osvariant_status", "os_variant(3), asked when a process starts"),
    Named("kern.osversion", "uname(3)"),
    Named("kern.secure_kernel", "asked when a process starts"),
    Named("kern.tcsm_available", "asked by V8"),
    Named("kern.usrstack64", "where threads have their stacks"),
    Named("kern.version", "uname(3)"),
    Named("security.mac.lockdown_mode_state", "asked by WebKit's and V8's compilers"),
    Named("sysctl.proc_cputype", "whether Rosetta translates"),
    Named("sysctl.proc_native", "the same"),
    Named("sysctl.proc_translated", "the same"),
    Named("vm.loadavg", "getloadavg(3)"),
)
"""From Chromium, sandbox/policy/mac/common.sb. Not kern.proc.*: that tells of others' processes."""
NETWORK_SYSCTLS = (Named("net.routetable.", "getifaddrs(3)", prefix=True),)

# --- the way from a path to a filter ---


def quoted(path: str, field: str) -> str:
    """Return a path as an SBPL string.

    A string ends at a quotation mark, and a backslash takes what follows for itself; letters beyond ASCII stand for themselves, as
    UTF-8 (mcncarl/jianying-headless #13: an escape like JSON's matches nothing). What control characters do is told nowhere.

    Raises:
        ConfigError: it cannot be written; nothing was started.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise ConfigError(field, path, "not UTF-8, which a Seatbelt profile cannot hold; name a directory above it, or rename it") from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise ConfigError(field, path, "control characters, which a Seatbelt profile cannot hold; name a directory above it, or rename it")
    if size > MAX_PATH:
        raise ConfigError(field, path, f"more than {MAX_PATH} bytes; name a directory above it")
    if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
        raise ConfigError(field, path, "not an absolute path without links; name where it leads")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def resolved(path: str) -> str:
    """Return a path with the system's own links followed: rules match where a thing lies."""
    top = next((link for link in LINKS if below(path, link)), "")
    return LINKS.get(top, "") + path.removeprefix(top)


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above a path, without the root."""
    parts = path.split("/")
    yield from ("/".join(parts[:count]) for count in range(2, len(parts)))


def below(path: str, directory: str) -> bool:
    """Return whether a path is the directory or lies in it."""
    return path == directory or path.startswith(directory + "/")


def literal(path: str, field: str = "command") -> str:
    """Return the filter for one path."""
    return f"(literal {quoted(path, field)})"


def subpath(path: str, field: str = "command") -> str:
    """Return the filter for a path and all that lies in it.

    Raises:
        ConfigError: it is the root: that would be everything.
    """
    if path == "/":
        raise ConfigError(field, path, "name a directory below the root")
    return f"(subpath {quoted(path, field)})"


def named(kind: str, names: Iterable[Named]) -> list[str]:
    """Return the filters for names of one kind."""
    return [f'({kind}{"-prefix" if item.prefix else ""} "{item.name}")' for item in names]


def rule(verb: str, operations: str, filters: Iterable[str]) -> list[str]:
    """Return a rule as lines; none at all without filters, for then it would be about everything."""
    lines = [f"  {text}" for text in dict.fromkeys(filters)]
    if not lines:
        return []
    lines[-1] += ")"
    return [f"({verb} {operations}", *lines]


# --- what a run is granted, as places ---


class Granted(NamedTuple):
    """A path that a Config or the survey names, where it lies, and the Config's field, for messages."""

    path: str
    tree: bool
    field: str

    def filter(self) -> str:
        """Return what matches it."""
        return subpath(self.path, self.field) if self.tree else literal(self.path, self.field)

    def filters(self) -> list[str]:
        """Return what matches it for certain: whether subpath is about its own top is told nowhere, and a denial must be."""
        return list(dict.fromkeys((literal(self.path, self.field), self.filter())))


def field_of(grant: Grant, config: Config) -> str:
    """Return the field that named a grant."""
    if grant.path == config.working_dir or grant.source == config.working_dir:
        return "working_dir"
    if grant.access == "write":
        return "writable_dirs"
    return "read_only_dirs" if grant.path in config.read_only_dirs else "allowed_dirs"


def system_places(config: Config, paths: Paths) -> list[Granted]:
    """Return what every command may read: the table's places, and what the survey found (the running interpreter)."""
    table = (*SYSTEM, *(NETWORK_PLACES if config.network_access is True else ()))
    found = [Granted(place.path, place.tree, "command") for place in table]
    found += [Granted(path, False, "command") for path in READABLE_DEVICES]
    for entry in paths.system:
        if entry.kind != "symlink":
            found.append(Granted(resolved(entry.path), entry.kind == "dir", "command"))
    return found


def granted_places(config: Config, paths: Paths) -> list[tuple[Grant, Granted]]:
    """Return the grants with their places, outer ones first: the last rule that matches wins."""
    found: dict[tuple[str, str], tuple[Grant, Granted]] = {}
    for grant in paths.grants:  # one that is reached by a link too is there twice
        place = Granted(resolved(grant.source), grant.directory, field_of(grant, config))
        found.setdefault((place.path, grant.access), (grant, place))
    return [found[key] for key in sorted(found, key=lambda key: (key[0].count("/"), key[0], key[1] == "read"))]


def ways(config: Config, paths: Paths, places: Iterable[Granted]) -> list[str]:
    """Return filters for every directory and link on the way to a place: a command asks where it is, and what a link says.

    Names only, no lists: what else lies there stays unseen.
    """
    found = {link: "command" for link in (*LINKS, *STREAM_LINKS, "/dev")}
    named_paths = [(place.path, place.field) for place in places]
    named_paths += [(grant.path, field_of(grant, config)) for grant in paths.grants]
    for entry in paths.system:
        if entry.kind == "symlink":
            found[entry.path] = "command"
        named_paths.append((entry.path, "command"))
    for path, field in named_paths:
        for step in (*ancestors(path), path):
            found.setdefault(step, field)
    known = {place.path for place in places}
    return [literal(path, field) for path, field in sorted(found.items()) if path not in known]


def hidden_places(paths: Paths) -> list[Granted]:
    """Return what is hidden, as places."""
    return [Granted(resolved(item.source), item.directory, "hidden_paths") for item in paths.hidden]


def writing(granted: Sequence[tuple[Grant, Granted]], hidden: Sequence[Granted]) -> list[str]:
    """Return the rules for what can be written and what cannot, in an order in which the inner ones win."""
    lines: list[str] = []
    writable = [place for grant, place in granted if grant.access == "write"]
    for grant, place in granted:
        if grant.access == "write":
            lines += rule("allow", "file-write*", [place.filter()])
        elif any(below(place.path, other.path) for other in writable):
            lines += rule("deny", "file-write*", place.filters())
    if not writable:
        return lines
    lines += rule("deny", "file-write*", (text for place in hidden for text in place.filters()))
    # A grant that is moved away takes the rules off what it holds, and where it was another one can be put.
    fixed: dict[str, str] = {}
    for place in (*(place for _, place in granted), *hidden):
        for path in (*ancestors(place.path), place.path):
            if any(below(path, other.path) for other in writable):
                fixed.setdefault(path, place.field)
    return [*lines, *rule("deny", "file-write-unlink", (literal(path, field) for path, field in sorted(fixed.items())))]


NETWORKS = {
    False: [],
    "loopback": [
        '(allow network-outbound (remote ip "localhost:*"))',
        '(allow network-bind network-inbound (local ip "localhost:*"))',
    ],
    True: [
        "(allow network-outbound (remote ip))",
        "(allow network-bind network-inbound (local ip))",
        f"(allow network-outbound (literal {quoted(NAME_SERVICE, 'network_access')}))",
    ],
}
"""UNIX sockets are never among them: those of the host's services (Docker, ssh-agent) lie in the file system."""


def profile(config: Config, paths: Paths) -> str:
    """Return the profile of a run.

    Raises:
        ConfigError: a path cannot be written in it, or there are more than fit; nothing was started.
    """
    granted = granted_places(config, paths)
    places = [*system_places(config, paths), *(place for _, place in granted)]
    readable = [place.filter() for place in places]
    hidden = hidden_places(paths)
    reading = "file-read* file-test-existence file-map-executable process-exec*"
    network = config.network_access is True
    lines = [
        "(version 1)",
        "(deny default)",
        "; These are allowed by default: crbug.com/799149.",
        "(deny process-info* nvram* iokit-get-properties)",
        "; Processes: the run's own.",
        "(allow process-fork)",
        "(allow process-info* signal (target same-sandbox))",
        "; Names of the kernel and of launchd: no others.",
        *rule("allow", "sysctl-read", named("sysctl-name", (*SYSCTLS, *(NETWORK_SYSCTLS if network else ())))),
        *rule("allow", "mach-lookup", named("global-name", (*MACH_SERVICES, *(NETWORK_SERVICES if network else ())))),
        "; Files: the way, what can be read and executed, devices and streams.",
        *rule("allow", "file-read-metadata file-test-existence", ways(config, paths, places)),
        *rule("allow", reading, readable),
        *rule("deny", reading, (text for place in hidden for text in place.filters())),
        *rule("allow", "file-write-data", map(literal, WRITABLE_DEVICES)),
        *rule("allow", "file-read-data file-write-data", [subpath("/dev/fd")]),
        "; What can be written; no set-ID bits and no second names, which would outlive the run.",
        *writing(granted, hidden),
        "(deny file-link file-write-setugid)",
        f"; Network: {config.network_access}.",
        *NETWORKS[config.network_access],
    ]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > MAX_PROFILE:
        remedy = f"at most {MAX_PROFILE} bytes of rules can be handed over; grant a directory that contains them"
        raise ConfigError("allowed_dirs", f"{len(paths.grants)} directories", remedy)
    return text


def command_line(text: str, executable: str, command: Sequence[str]) -> tuple[str, ...]:
    """Return what is executed, by SANDBOX_EXEC, for a command under a profile.

    sandbox-exec(1) ends with 71 (EX_OSERR) should it not be able to, which could be the command's own status: that the program is there
    is seen to beforehand. It looks for what has no slash on PATH.

    Raises:
        ConfigError: executable is no path.
    """
    if not executable.startswith("/"):
        raise ConfigError("command", executable, "must be the program's full path")
    return ("sandbox-exec", "-p", text, "--", executable, *command[1:])


# --- what the planner's ladder, the probe and docs/systems.md say of it ---


def not_root(host: Host) -> tuple[str, str] | None:
    if host.root:
        return "the caller is root, and so would the command be", "run as another user"
    return feature("seatbelt")(host)


RUNGS = {
    "files": Rung(
        "seatbelt",
        "Seatbelt on the host's own files: nothing else is read, written or asked for by name",
        feature("seatbelt"),
        name="Seatbelt",
    ),
    "privileges": Rung(
        "seatbelt",
        "the caller's user; Seatbelt starts no set-ID program and lets no set-ID bit be made",
        not_root,
        name="Seatbelt",
    ),
    "processes": Rung(
        "seatbelt",
        "Seatbelt: no signal goes out and no process outside is shown, but for the arguments and environment of the same user's "
        "(sysctl kern.procargs2, which it does not ask about)",
        feature("seatbelt"),
        "partial",
        name="Seatbelt",
    ),
    "ipc": Rung(
        "seatbelt",
        "Seatbelt: no shared memory, semaphores or message queues by name, no System V IPC, no Mach services but for user names",
        feature("seatbelt"),
        name="Seatbelt",
    ),
    "syscalls": Rung(
        "seatbelt",
        "Seatbelt: operations that are not granted are denied (mounts, kernel extensions, drivers, tracing, clocks); calls that it has no "
        "operation for are not",
        feature("seatbelt"),
        "partial",
        name="Seatbelt",
    ),
}
"""Each isolation's rung on macOS."""
NOT_ITS_OWN = (
    (
        "there is one loopback network, the host's: its services would be in reach, and what listens could be reached from outside "
        "(in a local address Seatbelt's localhost is every address of the host)"
    ),
    "network_access=False; best-effort lets it connect to and listen on localhost",
)


def network_enforcement(config: Config, host: Host) -> Enforced | Unenforced:
    """Return what is said of network_access on macOS.

    Raises:
        UnsupportedError: it cannot be enforced and enforcement is strict for it; nothing was started.
    """
    if config.network_access is True:
        return Enforced("granted: the host's network")
    lack = feature("seatbelt")(host)
    if lack is not None:
        return refuse("network_access", config, *lack)
    if config.network_access == "loopback":
        return refuse("network_access", config, *NOT_ITS_OWN)
    return Enforced("Seatbelt: no socket is bound or connected, UNIX ones neither")


MISSING = Feature(False, f"there is no {SANDBOX_EXEC}", "macOS has it; on other systems than macOS and Linux best-effort runs without")
NESTED = Feature(
    False,
    "Seatbelt takes no second profile, and this process runs under one already (another sandbox, or an application of the App Store)",
    "start the caller outside of that sandbox, or switch that one off for it; best-effort runs under that one alone",
)


def trial_feature(status: int | None, said: str) -> Feature:
    """Return the feature "seatbelt", from how a trial of `true` under profile(Config(), Paths()) ended; status None: it could not start.

    Only a clean end proves a profile: one that lacks something ends by a signal as one that is not understood does.
    """
    if status is None:
        return MISSING
    if status == 0:
        return Feature(True)
    if "sandbox_apply: Operation not permitted" in said:  # openai/codex #45657; the same outside of it would be no reason either
        return NESTED
    shown = said.strip().splitlines()[-1:] or [f"status {status}"]
    return Feature(False, f"a trial under {SANDBOX_EXEC} failed: {shown[0]}", "report it, with the version of macOS; best-effort runs without")
