"""What the Windows backend asks of the system's security: tokens, access control, AppContainers; as winapi.py, a Protocol in plain values.

`native_security.py` is the real thing; the tests' strict fake is tests/support/fake_security.py. SIDs and access control are text, as
Microsoft writes them ("Security Descriptor String Format"): text can be compared, kept in a journal, and decided upon anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

READ_CONTROL = 0x00020000
WRITE_DAC = 0x00040000
WRITE_OWNER = 0x00080000

FILE_ATTRIBUTE_READONLY = 0x1
FILE_ATTRIBUTE_DIRECTORY = 0x10
FILE_ATTRIBUTE_NORMAL = 0x80
FILE_ATTRIBUTE_REPARSE_POINT = 0x400

LOW = "S-1-16-4096"
MEDIUM = "S-1-16-8192"
"""Integrity levels. "Mandatory Integrity Control" """
ALL_APPLICATION_PACKAGES = "S-1-15-2-1"
"""Every AppContainer: "Well-known SIDs"."""
NETWORK_SIDS = {
    "internetClient": "S-1-15-3-1",
    "internetClientServer": "S-1-15-3-2",
    "privateNetworkClientServer": "S-1-15-3-3",
}
"""Capabilities that have had a SID before there were names for them. "Well-known SIDs" """

SE_GROUP_LOGON_ID = 0xC0000000
SE_GROUP_USE_FOR_DENY_ONLY = 0x10
CHANGE_NOTIFY = "SeChangeNotifyPrivilege"
"""To pass through directories that cannot be listed; DISABLE_MAX_PRIVILEGE leaves it. CreateRestrictedToken"""

MITIGATION_BITS = {"extension_points": 1 << 32, "fonts": 1 << 48}
"""PROCESS_CREATION_MITIGATION_POLICY_..._ALWAYS_ON: UpdateProcThreadAttribute."""
MITIGATION_POLICIES = {"extension_points": 6, "fonts": 9}
"""PROCESS_MITIGATION_POLICY: by which it is read back, as the first bit. GetProcessMitigationPolicy"""


class Group(NamedTuple):
    """One group of a token."""

    sid: str
    attributes: int


class Tokens(Protocol):
    """ "Access Tokens". Each method raises Win32Error."""

    def process_token(self, process: int) -> int:
        """OpenProcessToken, to be looked at, duplicated and assigned."""

    def user(self, token: int) -> str:
        """GetTokenInformation, TokenUser."""

    def groups(self, token: int) -> tuple[Group, ...]:
        """GetTokenInformation, TokenGroups."""

    def privileges(self, token: int) -> tuple[str, ...]:
        """GetTokenInformation, TokenPrivileges, by their names."""

    def integrity(self, token: int) -> str:
        """GetTokenInformation, TokenIntegrityLevel."""

    def is_app_container(self, token: int) -> bool:
        """GetTokenInformation, TokenIsAppContainer."""

    def restricted_token(self, token: int, deny_only: Sequence[str]) -> int:
        """CreateRestrictedToken with DISABLE_MAX_PRIVILEGE."""

    def set_integrity(self, token: int, sid: str) -> None:
        """SetTokenInformation, TokenIntegrityLevel."""

    def mitigation(self, process: int, policy: int) -> int:
        """GetProcessMitigationPolicy: the flags of a policy."""


class Files(Protocol):
    """ "Access Control" of files, by handles: what a name leads to may change meanwhile. Each method raises Win32Error."""

    def dacl(self, handle: int) -> str:
        """GetKernelObjectSecurity, DACL_SECURITY_INFORMATION: as text, "D:..."."""

    def set_dacl(self, handle: int, text: str) -> None:
        """SetKernelObjectSecurity: of this object alone; nothing is handed down to what lies below."""

    def owner(self, handle: int) -> str:
        """GetKernelObjectSecurity, OWNER_SECURITY_INFORMATION: a SID in full, for SDDL has short names for some users ("SID Strings")."""

    def label(self, handle: int) -> str:
        """GetKernelObjectSecurity, LABEL_SECURITY_INFORMATION: "S:(ML;...)", "" without one."""

    def set_label(self, handle: int, text: str) -> None:
        """SetKernelObjectSecurity, LABEL_SECURITY_INFORMATION; "" takes it away."""

    def attributes(self, handle: int) -> int:
        """GetFileInformationByHandle: FILE_ATTRIBUTE_..., of a link itself where it was opened by FILE_FLAG_OPEN_REPARSE_POINT."""

    def names(self, path: str) -> tuple[str, ...]:
        """FindFirstFileW: what a directory holds."""

    def path_attributes(self, path: str) -> int:
        """GetFileAttributesW: of a link itself."""

    def set_path_attributes(self, path: str, attributes: int) -> None:
        """SetFileAttributesW: of a link itself."""

    def delete_file(self, path: str) -> None:
        """DeleteFileW: of a link itself; ERROR_ACCESS_DENIED for what is read-only."""

    def remove_directory(self, path: str) -> None:
        """RemoveDirectoryW: an empty one, or a junction itself."""

    def move(self, path: str, place: str) -> None:
        """MoveFileExW, within a volume; never over something."""

    def create_directory(self, path: str, descriptor: str) -> None:
        """CreateDirectoryW with a security descriptor, "O:...D:...": never there with another one."""

    def create_mutex(self, name: str) -> int:
        """CreateMutexW, or what is there by that name; owned by who waits for it."""

    def release_mutex(self, handle: int) -> None:
        """ReleaseMutex, by the thread that has waited."""


class Containers(Protocol):
    """ "AppContainer Isolation". Each method raises Win32Error."""

    def create_profile(self, name: str) -> None:
        """CreateAppContainerProfile, without capabilities; ERROR_ALREADY_EXISTS when there is one."""

    def delete_profile(self, name: str) -> None:
        """DeleteAppContainerProfile; harmless when there is none."""

    def container_sid(self, name: str) -> str:
        """DeriveAppContainerSidFromAppContainerName: the same for the same name."""

    def capability_sid(self, name: str) -> str:
        """DeriveCapabilitySidsFromName: the capability, not its group."""

    def allocate_sid(self, text: str) -> int:
        """ConvertStringSidToSidW: its address, to be freed."""

    def free(self, address: int) -> None:
        """LocalFree."""


class Security(Tokens, Files, Containers, Protocol):
    """All of it."""
