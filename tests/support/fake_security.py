"""The fake Windows with security: tokens, access control lists that are obeyed, AppContainers. What stands in quotation marks is the title of
the page of Microsoft's documentation that says so.

Files are kept in memory, with drives that exist; what the caller does with them is checked against their lists.
"""

from __future__ import annotations

import hashlib
import ntpath
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proc_sandbox.backends.windows import acl
from proc_sandbox.backends.windows.security import (
    CHANGE_NOTIFY,
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    LOW,
    MEDIUM,
    MITIGATION_BITS,
    MITIGATION_POLICIES,
    READ_CONTROL,
    SE_GROUP_USE_FOR_DENY_ONLY,
    WRITE_DAC,
    WRITE_OWNER,
    Group,
)
from proc_sandbox.backends.windows.tools import Tools, make_tools
from proc_sandbox.backends.windows.winapi import (
    DELETE,
    ERROR_ACCESS_DENIED,
    ERROR_ALREADY_EXISTS,
    ERROR_FILE_NOT_FOUND,
    ERROR_INVALID_PARAMETER,
    ERROR_PROC_NOT_FOUND,
    ERROR_SHARING_VIOLATION,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_SHARE_DELETE,
    GENERIC_READ,
    GENERIC_WRITE,
    Created,
    Creation,
    Win32Error,
)
from support.fake_win32 import FakeFile, FakeProcess, FakeWin32, OpenFile, Program

ERROR_DIR_NOT_EMPTY = 145
USER = "S-1-5-21-10-20-30-1001"
ADMINISTRATORS = "S-1-5-32-544"
DOMAIN_ADMINS = "S-1-5-21-10-20-30-512"
USERS = "S-1-5-32-545"
OWN_GROUPS = tuple(Group(sid, 7) for sid in (ADMINISTRATORS, DOMAIN_ADMINS, USERS, "S-1-1-0"))
OWN_PRIVILEGES = (CHANGE_NOTIFY, "SeDebugPrivilege", "SeBackupPrivilege", "SeShutdownPrivilege")

NAMES = {"FA": 0x1F01FF, "FR": 0x120089, "FX": 0x1200A0, "FW": 0x120116}
"""Rights by their names. "ACE Strings" """
ALIASES = {"SY": "S-1-5-18", "OW": "S-1-3-4", "BA": ADMINISTRATORS, "AC": "S-1-15-2-1", "BU": USERS}
"""SIDs by their names. "SID Strings" """
LIST, ADD_FILE, ADD_DIRECTORY, DELETE_CHILD = 0x1, 0x2, 0x4, 0x40
WRITE_DATA = 0x2
"""Of a file. "File Access Rights Constants" """
OWNER_RIGHTS = "S-1-3-4"


@dataclass(eq=False)
class Token:
    """An access token."""

    groups: tuple[Group, ...] = OWN_GROUPS
    privileges: tuple[str, ...] = OWN_PRIVILEGES
    integrity: str = MEDIUM
    package: str = ""
    capabilities: tuple[str, ...] = ()
    restricted: bool = False


@dataclass(eq=False)
class Object(FakeFile):
    """A file or directory with its access control."""

    attributes: int = FILE_ATTRIBUTE_NORMAL
    dacl: str = f"D:AI(A;OICIID;FA;;;{USER})"
    label: str = ""
    owner: str = USER
    opened: list[int] = field(default_factory=list)
    """How each handle to it shares it."""


@dataclass(eq=False)
class Mutex:
    lock: threading.Lock = field(default_factory=threading.Lock)


def rights_of(text: str) -> int:
    return int(text, 16) if text.startswith("0x") else NAMES[text]


def allows(dacl: str, sids: Sequence[str], wanted: int, *, owner: bool = False) -> bool:
    """Whether a list gives all that is wanted to who has these SIDs: entry by entry, a denial ends it. "AccessCheck"

    An owner reads the list and changes it, unless the list has an entry for what owners may. "Owner Rights"
    """
    _, entries = acl.split(dacl)
    held = {*sids, *([OWNER_RIGHTS] if owner else [])}
    parts = [entry[1:-1].split(";")[:6] for entry in entries]
    left = wanted
    if owner and not any(ALIASES.get(part[5], part[5]) == OWNER_RIGHTS for part in parts):
        left &= ~(READ_CONTROL | WRITE_DAC)
    for kind, flags, rights, _, _, sid in parts:
        if "IO" in flags or ALIASES.get(sid, sid) not in held:
            continue
        if kind == "D" and rights_of(rights) & left:
            return False
        if kind == "A":
            left &= ~rights_of(rights)
    return not left


def inherited(dacl: str, *, directory: bool) -> str:
    """What a new object in a directory gets from it. "ACE Inheritance Rules" """
    found = []
    for entry in acl.split(dacl)[1]:
        kind, flags, *rest = entry.strip("()").split(";")
        if directory and "CI" in flags:
            found.append(";".join((kind, "OICIID" if "OI" in flags else "CIID", *rest)))
        elif not directory and "OI" in flags:
            found.append(";".join((kind, "ID", *rest)))
    return "D:AI" + "".join(f"({entry})" for entry in found)


class SecureWin32(FakeWin32):
    """FakeWin32 with files that have access control, and processes with tokens."""

    def __init__(self, programs: dict[str, Program] | None = None) -> None:
        super().__init__(programs)
        self.tree: dict[str, Object] = {}
        self.tokens: dict[int, Token] = {}  # by process
        self.mitigated: dict[int, int] = {}
        self.sids: dict[int, str] = {}
        self.lies: set[str] = set()
        """What is accepted and not done: "privileges", "integrity", "mitigations", "package"."""

    # files

    def at(self, path: str, function: str = "CreateFileW") -> Object:
        """What a path is, following no link in its last component."""
        self.calls.append(function)
        found = self.tree.get(self.reach(path).lower())
        if found is None:
            raise Win32Error(function, ERROR_FILE_NOT_FOUND)
        return found

    def reach(self, path: str) -> str:
        """Where a path leads, but for its last component."""
        plain = path.removeprefix("\\\\?\\")
        head, name = ntpath.split(plain)
        if len(plain) <= 3 or not name:
            return plain
        parent = self.reach(head)
        above = self.tree.get(parent.lower())
        while above is not None and above.link:
            parent = self.reach(above.link)
            above = self.tree.get(parent.lower())
        return ntpath.join(parent, name)

    def may(self, found: Object, wanted: int, function: str) -> None:
        if wanted and not allows(found.dacl, [USER], wanted, owner=True):
            raise Win32Error(function, ERROR_ACCESS_DENIED)

    def open_file(self, path: str, access: int, share: int, disposition: int, flags: int = 0) -> int:
        if path.upper() == "NUL":
            return super().open_file(path, access, share, disposition, flags)
        with self.changed:
            found = self.at(path)
            if found.link and not flags & FILE_FLAG_OPEN_REPARSE_POINT:
                return self.open_file(found.link, access, share, disposition, flags)
            if found.attributes & FILE_ATTRIBUTE_DIRECTORY and not flags & FILE_FLAG_BACKUP_SEMANTICS:
                raise Win32Error("CreateFileW", ERROR_ACCESS_DENIED)
            wanted = access & (READ_CONTROL | WRITE_DAC | WRITE_OWNER | DELETE)
            wanted |= LIST if access & GENERIC_READ else 0
            wanted |= WRITE_DATA if access & GENERIC_WRITE else 0
            self.may(found, wanted, "CreateFileW")
            # "CreateFileW", dwShareMode: without FILE_SHARE_DELETE nobody can rename or delete it until the handle is closed.
            found.opened.append(share)
            return self.open(OpenFile(found, access))

    def drop(self, handle: Any) -> None:
        if isinstance(handle.target, OpenFile) and isinstance(handle.target.file, Object):
            handle.target.file.opened.pop()
        super().drop(handle)

    def is_link(self, path: str) -> bool:
        with self.changed:
            return self.at(path, "GetFileAttributesW").link is not None

    # processes

    def create_process(self, creation: Creation) -> Created:
        # "CreateProcessAsUserW": a restricted version of the caller's own token needs no privilege.
        token = self.find("CreateProcessAsUserW", creation.token, Token) if creation.token else Token()
        assert not creation.token or token.restricted
        made = super().create_process(creation)
        token = replace(token)
        if "privileges" in self.lies:
            token.privileges = OWN_PRIVILEGES
        if "integrity" in self.lies:
            token.integrity = MEDIUM
        if creation.package and "package" not in self.lies:
            token.package, token.integrity = self.sids[creation.package], LOW
            token.capabilities = tuple(self.sids[address] for address in creation.capabilities)
        self.tokens[made.pid] = token
        self.mitigated[made.pid] = 0 if "mitigations" in self.lies else creation.mitigations
        return made

    def wait(self, handle: int, milliseconds: int) -> bool:
        target = self.me.handles[handle].target if handle in self.me.handles else None
        if isinstance(target, Mutex):
            return target.lock.acquire()
        return super().wait(handle, milliseconds)


class FakeSecurity:
    """The Security of backends/windows/security.py, over the files and handles of a SecureWin32."""

    def __init__(self, win32: SecureWin32) -> None:
        self.win32 = win32
        self.lacks: set[str] = set()
        """Functions that this Windows does not have."""
        self.profiles: set[str] = set()
        self.mutexes: dict[str, Mutex] = {}
        self.next_sid = iter(range(0x10000, 1 << 30, 16))

    def has(self, function: str) -> None:
        self.win32.calls.append(function)
        if function in self.lacks:
            raise Win32Error(function, ERROR_PROC_NOT_FOUND)

    # tokens

    def process_token(self, process: int) -> int:
        self.has("OpenProcessToken")
        if process == self.win32.current_process():
            return self.win32.open(Token())
        return self.win32.open(self.win32.tokens[self.win32.find("OpenProcessToken", process, FakeProcess).pid])

    def token(self, handle: int) -> Token:
        return self.win32.find("GetTokenInformation", handle, Token)

    def user(self, token: int) -> str:
        self.token(token)
        return USER

    def groups(self, token: int) -> tuple[Group, ...]:
        return self.token(token).groups

    def privileges(self, token: int) -> tuple[str, ...]:
        return self.token(token).privileges

    def integrity(self, token: int) -> str:
        return self.token(token).integrity

    def is_app_container(self, token: int) -> bool:
        return bool(self.token(token).package)

    def restricted_token(self, token: int, deny_only: Sequence[str]) -> int:
        """ "CreateRestrictedToken": DISABLE_MAX_PRIVILEGE leaves SeChangeNotifyPrivilege; groups get
        SE_GROUP_USE_FOR_DENY_ONLY, one that the token has not is an error of the caller's here."""
        self.has("CreateRestrictedToken")
        own = self.token(token)
        assert set(deny_only) <= {group.sid for group in own.groups}
        groups = tuple(
            Group(group.sid, SE_GROUP_USE_FOR_DENY_ONLY if group.sid in deny_only else group.attributes) for group in own.groups
        )
        return self.win32.open(replace(own, groups=groups, privileges=(CHANGE_NOTIFY,), restricted=True))

    def set_integrity(self, token: int, sid: str) -> None:
        self.token(token).integrity = sid

    def mitigation(self, process: int, policy: int) -> int:
        found = self.win32.mitigated[self.win32.find("GetProcessMitigationPolicy", process, FakeProcess).pid]
        name = next(name for name, number in MITIGATION_POLICIES.items() if number == policy)
        return 1 if found & MITIGATION_BITS[name] else 0

    # files

    def opened(self, handle: int, access: int, function: str) -> Object:
        found = self.win32.find(function, handle, OpenFile)
        assert isinstance(found.file, Object)
        if found.access & access != access:
            raise Win32Error(function, ERROR_ACCESS_DENIED)
        return found.file

    def dacl(self, handle: int) -> str:
        return self.opened(handle, READ_CONTROL, "GetKernelObjectSecurity").dacl

    def set_dacl(self, handle: int, text: str) -> None:
        """ "SetKernelObjectSecurity"; AI stays with AR only: "Automatic Propagation of Inheritable ACEs"."""
        found = self.opened(handle, WRITE_DAC, "SetKernelObjectSecurity")
        acl.split(text)
        found.dacl = text.replace("D:ARAI", "D:AI", 1) if text.startswith("D:ARAI") else text.replace("D:AI", "D:", 1)

    def owner(self, handle: int) -> str:
        return self.opened(handle, READ_CONTROL, "GetKernelObjectSecurity").owner

    def label(self, handle: int) -> str:
        return self.opened(handle, READ_CONTROL, "GetKernelObjectSecurity").label

    def set_label(self, handle: int, text: str) -> None:
        """ "SetKernelObjectSecurity": LABEL_SECURITY_INFORMATION needs WRITE_OWNER."""
        self.opened(handle, WRITE_OWNER, "SetKernelObjectSecurity").label = text

    def attributes(self, handle: int) -> int:
        return self.opened(handle, 0, "GetFileInformationByHandle").attributes

    def names(self, path: str) -> tuple[str, ...]:
        """ "FindFirstFileW": of "directory\\*", in which the directory is on the way, so that a junction is followed."""
        with self.win32.changed:
            top = self.win32.at(ntpath.dirname(self.win32.reach(f"{path}\\*")), "FindFirstFileW")
            self.win32.may(top, LIST, "FindFirstFileW")
            return tuple(sorted(ntpath.basename(found.path) for found in self.below(top) if ntpath.dirname(found.path) == top.path))

    def below(self, top: Object) -> Iterator[Object]:
        place = top.path.lower().rstrip("\\") + "\\"
        return iter([found for path, found in self.win32.tree.items() if path.startswith(place)])

    def path_attributes(self, path: str) -> int:
        with self.win32.changed:
            return self.win32.at(path, "GetFileAttributesW").attributes

    def set_path_attributes(self, path: str, attributes: int) -> None:
        with self.win32.changed:
            found = self.win32.at(path, "SetFileAttributesW")
            kept = found.attributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)
            found.attributes = attributes & FILE_ATTRIBUTE_READONLY | kept

    def leave(self, path: str, function: str) -> Object:
        """What may be taken out of its directory: by its own list, or its directory's ("Access Rights and Access Masks")."""
        found = self.win32.at(path, function)
        above = self.win32.tree.get(ntpath.dirname(found.path).lower())
        if not allows(found.dacl, [USER], DELETE, owner=True) and not (above and allows(above.dacl, [USER], DELETE_CHILD, owner=True)):
            raise Win32Error(function, ERROR_ACCESS_DENIED)
        if any(not share & FILE_SHARE_DELETE for share in found.opened):
            raise Win32Error(function, ERROR_SHARING_VIOLATION)
        return found

    def delete_file(self, path: str) -> None:
        with self.win32.changed:
            found = self.leave(path, "DeleteFileW")
            # "DeleteFileW": a read-only file fails with ERROR_ACCESS_DENIED, and so does a directory.
            if found.attributes & (FILE_ATTRIBUTE_READONLY | FILE_ATTRIBUTE_DIRECTORY):
                raise Win32Error("DeleteFileW", ERROR_ACCESS_DENIED)
            del self.win32.tree[found.path.lower()]

    def remove_directory(self, path: str) -> None:
        with self.win32.changed:
            found = self.leave(path, "RemoveDirectoryW")
            if not found.attributes & FILE_ATTRIBUTE_DIRECTORY:
                raise Win32Error("RemoveDirectoryW", ERROR_INVALID_PARAMETER)
            if found.attributes & FILE_ATTRIBUTE_READONLY:
                raise Win32Error("RemoveDirectoryW", ERROR_ACCESS_DENIED)
            if not found.link and any(self.below(found)):
                raise Win32Error("RemoveDirectoryW", ERROR_DIR_NOT_EMPTY)
            del self.win32.tree[found.path.lower()]

    def move(self, path: str, place: str) -> None:
        with self.win32.changed:
            found = self.leave(path, "MoveFileExW")
            target = place.removeprefix("\\\\?\\")
            if target.lower() in self.win32.tree:
                raise Win32Error("MoveFileExW", ERROR_ALREADY_EXISTS)
            # "MoveFileExW": what is open below a directory keeps it where it is.
            moved = [found, *self.below(found)]
            if any(item.opened for item in moved):
                raise Win32Error("MoveFileExW", ERROR_ACCESS_DENIED)
            before = found.path
            for item in moved:
                del self.win32.tree[item.path.lower()]
                item.path = target + item.path[len(before) :]
                self.win32.tree[item.path.lower()] = item

    def create_directory(self, path: str, descriptor: str) -> None:
        """ "CreateDirectoryW": the owner is the token's, which for an administrator is a group, where the descriptor has none."""
        owner, dacl = descriptor[: descriptor.index("D:")].removeprefix("O:"), descriptor[descriptor.index("D:") :]
        with self.win32.changed:
            plain = path.removeprefix("\\\\?\\")
            if plain.lower() in self.win32.tree:
                raise Win32Error("CreateDirectoryW", ERROR_ALREADY_EXISTS)
            self.win32.may(self.win32.at(ntpath.dirname(plain)), ADD_DIRECTORY, "CreateDirectoryW")
            self.win32.tree[plain.lower()] = Object(plain, attributes=FILE_ATTRIBUTE_DIRECTORY, dacl=dacl, owner=owner or ADMINISTRATORS)

    def create_mutex(self, name: str) -> int:
        return self.win32.open(self.mutexes.setdefault(name, Mutex()))

    def release_mutex(self, handle: int) -> None:
        self.win32.find("ReleaseMutex", handle, Mutex).lock.release()

    # AppContainers

    def create_profile(self, name: str) -> None:
        """ "CreateAppContainerProfile": a name of at most 64 characters, once."""
        self.has("CreateAppContainerProfile")
        assert 0 < len(name) <= 64
        if name in self.profiles:
            raise Win32Error("CreateAppContainerProfile", ERROR_ALREADY_EXISTS)
        self.profiles.add(name)

    def delete_profile(self, name: str) -> None:
        self.has("DeleteAppContainerProfile")
        self.profiles.discard(name)

    def container_sid(self, name: str) -> str:
        self.has("DeriveAppContainerSidFromAppContainerName")
        return "S-1-15-2-" + numbers(name, 7)

    def capability_sid(self, name: str) -> str:
        self.has("DeriveCapabilitySidsFromName")
        return "S-1-15-3-1024-" + numbers(name, 8)

    def allocate_sid(self, text: str) -> int:
        address = next(self.next_sid)
        self.win32.sids[address] = text
        return address

    def free(self, address: int) -> None:
        del self.win32.sids[address]

    # for tests

    def make(self, path: str, *, directory: bool = False, link: str | None = None, dacl: str | None = None) -> Object:
        """Have a file, directory or junction, with what it inherits."""
        above = self.win32.tree.get(ntpath.dirname(path).lower())
        attributes = FILE_ATTRIBUTE_DIRECTORY if directory or link else FILE_ATTRIBUTE_NORMAL
        attributes |= FILE_ATTRIBUTE_REPARSE_POINT if link else 0
        found = Object(path, link=link, attributes=attributes)
        if dacl or above:
            found.dacl = dacl or inherited(above.dacl if above else "", directory=directory)
        self.win32.tree[path.lower()] = found
        return found

    def may(self, path: str, wanted: int, *sids: str) -> bool:
        """Whether a list gives what is wanted to an AppContainer that has these SIDs: by them alone, beside the user's own."""
        return allows(self.win32.tree[path.lower()].dacl, sids, wanted)


def numbers(name: str, count: int) -> str:
    """Numbers that are the same for the same name."""
    digest = hashlib.sha256(name.encode()).digest()
    return "-".join(str(int.from_bytes(digest[index * 4 : index * 4 + 4], "little")) for index in range(count))


def fake_tools(journal: str, programs: dict[str, Program] | None = None) -> Tools:
    """The tools of the backend over a fake Windows, with a drive C: and a few directories; the journal is a real directory."""
    win32 = SecureWin32(programs)
    security = FakeSecurity(win32)
    for path in ("C:\\", "C:\\Windows", "C:\\Temp", "C:\\data"):
        security.make(path, directory=True)
    return make_tools(win32, security, journal, "C:\\Temp")
