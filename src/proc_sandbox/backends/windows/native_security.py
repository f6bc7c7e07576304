"""The real Security: advapi32, userenv and what else it takes, by ctypes. Declarations and their packing only; no decisions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_int32, c_size_t, c_uint32, c_void_p, c_wchar_p
from typing import Any

from proc_sandbox.backends.windows.security import Group
from proc_sandbox.backends.windows.winapi import ERROR_INSUFFICIENT_BUFFER, ERROR_PROC_NOT_FOUND, Win32Error

__all__ = ["NativeSecurity"]

# Numbers are those of winnt.h, sddl.h and winerror.h. Fixed widths: ctypes.wintypes has its own on other systems.
TOKEN_ASSIGN_PRIMARY, TOKEN_DUPLICATE, TOKEN_QUERY, TOKEN_ADJUST_DEFAULT = 0x0001, 0x0002, 0x0008, 0x0080
TOKEN_USER, TOKEN_GROUPS, TOKEN_PRIVILEGES, TOKEN_INTEGRITY_LEVEL, TOKEN_IS_APP_CONTAINER = 1, 2, 3, 25, 29
DISABLE_MAX_PRIVILEGE = 0x1
SE_GROUP_INTEGRITY = 0x20
OWNER_SECURITY_INFORMATION, DACL_SECURITY_INFORMATION, LABEL_SECURITY_INFORMATION = 0x1, 0x4, 0x10
SDDL_REVISION_1 = 1
INVALID_FILE_ATTRIBUTES = 0xFFFFFFFF
HRESULT_NOT_FOUND = (0x80070002, 0x80070003, 0x80070490)


class SidAndAttributes(Structure):
    """SID_AND_ATTRIBUTES: 16 bytes."""

    _fields_ = [("sid", c_void_p), ("attributes", c_uint32)]


class LuidAndAttributes(Structure):
    """LUID_AND_ATTRIBUTES: 12 bytes."""

    _fields_ = [("low", c_uint32), ("high", c_int32), ("attributes", c_uint32)]


class SecurityAttributes(Structure):
    """SECURITY_ATTRIBUTES: 24 bytes."""

    _fields_ = [("length", c_uint32), ("descriptor", c_void_p), ("inherit", c_int32)]


class FileInformation(Structure):
    """BY_HANDLE_FILE_INFORMATION: 52 bytes; the attributes come first."""

    _fields_ = [("attributes", c_uint32), ("rest", c_uint32 * 12)]


SIGNATURES: dict[str, tuple[str, Any, list[Any]]] = {
    "OpenProcessToken": ("advapi32", c_int32, [c_void_p, c_uint32, POINTER(c_void_p)]),
    "GetTokenInformation": ("advapi32", c_int32, [c_void_p, c_int32, c_void_p, c_uint32, POINTER(c_uint32)]),
    "SetTokenInformation": ("advapi32", c_int32, [c_void_p, c_int32, c_void_p, c_uint32]),
    "CreateRestrictedToken": (
        "advapi32",
        c_int32,
        [c_void_p, c_uint32, c_uint32, c_void_p, c_uint32, c_void_p, c_uint32, c_void_p, POINTER(c_void_p)],
    ),
    "ConvertSidToStringSidW": ("advapi32", c_int32, [c_void_p, POINTER(c_void_p)]),
    "ConvertStringSidToSidW": ("advapi32", c_int32, [c_wchar_p, POINTER(c_void_p)]),
    "GetLengthSid": ("advapi32", c_uint32, [c_void_p]),
    "FreeSid": ("advapi32", c_void_p, [c_void_p]),
    "LookupPrivilegeNameW": ("advapi32", c_int32, [c_wchar_p, c_void_p, c_void_p, POINTER(c_uint32)]),
    "GetKernelObjectSecurity": ("advapi32", c_int32, [c_void_p, c_uint32, c_void_p, c_uint32, POINTER(c_uint32)]),
    "GetSecurityDescriptorOwner": ("advapi32", c_int32, [c_void_p, POINTER(c_void_p), POINTER(c_int32)]),
    "SetKernelObjectSecurity": ("advapi32", c_int32, [c_void_p, c_uint32, c_void_p]),
    "ConvertSecurityDescriptorToStringSecurityDescriptorW": (
        "advapi32",
        c_int32,
        [c_void_p, c_uint32, c_uint32, POINTER(c_void_p), POINTER(c_uint32)],
    ),
    "ConvertStringSecurityDescriptorToSecurityDescriptorW": (
        "advapi32",
        c_int32,
        [c_wchar_p, c_uint32, POINTER(c_void_p), POINTER(c_uint32)],
    ),
    "LocalFree": ("kernel32", c_void_p, [c_void_p]),
    "GetFileInformationByHandle": ("kernel32", c_int32, [c_void_p, POINTER(FileInformation)]),
    "CreateDirectoryW": ("kernel32", c_int32, [c_wchar_p, POINTER(SecurityAttributes)]),
    "GetFileAttributesW": ("kernel32", c_uint32, [c_wchar_p]),
    "SetFileAttributesW": ("kernel32", c_int32, [c_wchar_p, c_uint32]),
    "DeleteFileW": ("kernel32", c_int32, [c_wchar_p]),
    "RemoveDirectoryW": ("kernel32", c_int32, [c_wchar_p]),
    "MoveFileExW": ("kernel32", c_int32, [c_wchar_p, c_wchar_p, c_uint32]),
    "CreateMutexW": ("kernel32", c_void_p, [c_void_p, c_int32, c_wchar_p]),
    "ReleaseMutex": ("kernel32", c_int32, [c_void_p]),
    "GetProcessMitigationPolicy": ("kernel32", c_int32, [c_void_p, c_int32, c_void_p, c_size_t]),
    "CreateAppContainerProfile": (
        "userenv",
        c_int32,
        [c_wchar_p, c_wchar_p, c_wchar_p, c_void_p, c_uint32, POINTER(c_void_p)],
    ),
    "DeleteAppContainerProfile": ("userenv", c_int32, [c_wchar_p]),
    "DeriveAppContainerSidFromAppContainerName": ("userenv", c_int32, [c_wchar_p, POINTER(c_void_p)]),
    "DeriveCapabilitySidsFromName": (
        "kernelbase",
        c_int32,
        [c_wchar_p, POINTER(c_void_p), POINTER(c_uint32), POINTER(c_void_p), POINTER(c_uint32)],
    ),
}
"""Where each function lies, what it returns and takes. Older systems and Wine lack some: those fail when they are called."""


class NativeSecurity:
    """The system's own."""

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}

    def bound(self, name: str) -> Any:
        """Return a function of the system's.

        Raises:
            Win32Error: ERROR_PROC_NOT_FOUND: this Windows does not have it.
        """
        found = self.functions.get(name)
        if found is None:
            library, result, arguments = SIGNATURES[name]
            try:
                found = getattr(ctypes.WinDLL(library, use_last_error=True), name)  # type: ignore[attr-defined,unused-ignore]
            except (AttributeError, OSError):
                raise Win32Error(name, ERROR_PROC_NOT_FOUND) from None
            found.restype, found.argtypes = result, arguments
            self.functions[name] = found
        return found

    def call(self, name: str, *arguments: Any) -> None:
        """Call what returns a BOOL."""
        if not self.bound(name)(*arguments):
            raise Win32Error(name, last_error())

    def sized(self, name: str, before: Sequence[Any]) -> Any:
        """Call what fills a buffer, once to learn its size: (*before, buffer, size, needed)."""
        needed = c_uint32()
        if not self.bound(name)(*before, None, 0, byref(needed)) and last_error() not in (ERROR_INSUFFICIENT_BUFFER, 24):
            raise Win32Error(name, last_error())
        buffer = ctypes.create_string_buffer(max(1, needed.value))
        self.call(name, *before, buffer, needed, byref(needed))
        return buffer

    def hresult(self, name: str, *arguments: Any, fine: Sequence[int] = ()) -> None:
        """Call what returns an HRESULT; those of Win32 carry its code in their low half."""
        result = self.bound(name)(*arguments) & 0xFFFFFFFF
        if result >= 0x80000000 and result not in fine:
            raise Win32Error(name, result & 0xFFFF if result >> 16 == 0x8007 else result)

    def free(self, address: int) -> None:
        """LocalFree."""
        self.bound("LocalFree")(address)

    # --- SIDs ---

    def sid_text(self, address: int | None) -> str:
        """Return a SID as text."""
        text = c_void_p()
        self.call("ConvertSidToStringSidW", address, byref(text))
        return self.taken(text)

    def taken(self, text: c_void_p) -> str:
        """Return the text at an address that is ours to free."""
        try:
            return ctypes.wstring_at(text.value or 0)
        finally:
            self.free(text.value or 0)

    def allocate_sid(self, text: str) -> int:
        """ConvertStringSidToSidW."""
        sid = c_void_p()
        self.call("ConvertStringSidToSidW", text, byref(sid))
        return sid.value or 0

    # --- tokens ---

    def process_token(self, process: int) -> int:
        """OpenProcessToken."""
        token = c_void_p()
        access = TOKEN_ASSIGN_PRIMARY | TOKEN_DUPLICATE | TOKEN_QUERY | TOKEN_ADJUST_DEFAULT
        self.call("OpenProcessToken", process, access, byref(token))
        return token.value or 0

    def token_information(self, token: int, kind: int) -> Any:
        """GetTokenInformation."""
        return self.sized("GetTokenInformation", (token, kind))

    def user(self, token: int) -> str:
        """TokenUser."""
        buffer = self.token_information(token, TOKEN_USER)
        return self.sid_text(SidAndAttributes.from_buffer(buffer).sid)

    def groups(self, token: int) -> tuple[Group, ...]:
        """TokenGroups: a count, then the entries at their own alignment."""
        buffer = self.token_information(token, TOKEN_GROUPS)
        count = c_uint32.from_buffer(buffer).value
        entries = (SidAndAttributes * count).from_buffer(buffer, ctypes.alignment(SidAndAttributes))
        return tuple(Group(self.sid_text(entry.sid), entry.attributes) for entry in entries)

    def privileges(self, token: int) -> tuple[str, ...]:
        """TokenPrivileges."""
        buffer = self.token_information(token, TOKEN_PRIVILEGES)
        count = c_uint32.from_buffer(buffer).value
        entries = (LuidAndAttributes * count).from_buffer(buffer, ctypes.sizeof(c_uint32))
        return tuple(self.privilege_name(entry) for entry in entries)

    def privilege_name(self, entry: LuidAndAttributes) -> str:
        """LookupPrivilegeNameW."""
        size = c_uint32(256)
        buffer = ctypes.create_unicode_buffer(size.value)
        self.call("LookupPrivilegeNameW", None, byref(entry), buffer, byref(size))
        return buffer.value

    def integrity(self, token: int) -> str:
        """TokenIntegrityLevel."""
        buffer = self.token_information(token, TOKEN_INTEGRITY_LEVEL)
        return self.sid_text(SidAndAttributes.from_buffer(buffer).sid)

    def is_app_container(self, token: int) -> bool:
        """TokenIsAppContainer: a DWORD, whose size has to be told."""
        found, needed = c_uint32(), c_uint32()
        self.call("GetTokenInformation", token, TOKEN_IS_APP_CONTAINER, byref(found), 4, byref(needed))
        return bool(found.value)

    def restricted_token(self, token: int, deny_only: Sequence[str]) -> int:
        """CreateRestrictedToken."""
        sids = [self.allocate_sid(text) for text in deny_only]
        try:
            entries = (SidAndAttributes * max(1, len(sids)))(*(SidAndAttributes(sid, 0) for sid in sids))
            made = c_void_p()
            self.call(
                "CreateRestrictedToken", token, DISABLE_MAX_PRIVILEGE, len(sids), entries, 0, None, 0, None, byref(made)
            )
            return made.value or 0
        finally:
            for sid in sids:
                self.free(sid)

    def set_integrity(self, token: int, sid: str) -> None:
        """SetTokenInformation: TOKEN_MANDATORY_LABEL, whose size counts the SID too."""
        address = self.allocate_sid(sid)
        try:
            label = SidAndAttributes(address, SE_GROUP_INTEGRITY)
            size = ctypes.sizeof(label) + self.bound("GetLengthSid")(address)
            self.call("SetTokenInformation", token, TOKEN_INTEGRITY_LEVEL, byref(label), size)
        finally:
            self.free(address)

    def mitigation(self, process: int, policy: int) -> int:
        """GetProcessMitigationPolicy: each policy is a DWORD of bits."""
        found = c_uint32()
        self.call("GetProcessMitigationPolicy", process, policy, byref(found), ctypes.sizeof(found))
        return found.value

    # --- files ---

    def descriptor_text(self, handle: int, kind: int) -> str:
        """Return one part of an object's security descriptor."""
        buffer = self.sized("GetKernelObjectSecurity", (handle, kind))
        text, size = c_void_p(), c_uint32()
        name = "ConvertSecurityDescriptorToStringSecurityDescriptorW"
        self.call(name, buffer, SDDL_REVISION_1, kind, byref(text), byref(size))
        return self.taken(text)

    def descriptor(self, text: str) -> int:
        """Return a security descriptor, to be freed."""
        found = c_void_p()
        name = "ConvertStringSecurityDescriptorToSecurityDescriptorW"
        self.call(name, text, SDDL_REVISION_1, byref(found), None)
        return found.value or 0

    def set_descriptor(self, handle: int, kind: int, text: str) -> None:
        """SetKernelObjectSecurity."""
        descriptor = self.descriptor(text)
        try:
            self.call("SetKernelObjectSecurity", handle, kind, descriptor)
        finally:
            self.free(descriptor)

    def dacl(self, handle: int) -> str:
        """DACL_SECURITY_INFORMATION."""
        return self.descriptor_text(handle, DACL_SECURITY_INFORMATION)

    def set_dacl(self, handle: int, text: str) -> None:
        """DACL_SECURITY_INFORMATION."""
        self.set_descriptor(handle, DACL_SECURITY_INFORMATION, text)

    def owner(self, handle: int) -> str:
        """OWNER_SECURITY_INFORMATION."""
        buffer = self.sized("GetKernelObjectSecurity", (handle, OWNER_SECURITY_INFORMATION))
        sid, defaulted = c_void_p(), c_int32()
        self.call("GetSecurityDescriptorOwner", buffer, byref(sid), byref(defaulted))
        return self.sid_text(sid.value)

    def label(self, handle: int) -> str:
        """LABEL_SECURITY_INFORMATION."""
        text = self.descriptor_text(handle, LABEL_SECURITY_INFORMATION)
        return text if "(" in text else ""

    def set_label(self, handle: int, text: str) -> None:
        """LABEL_SECURITY_INFORMATION; an empty list takes it away."""
        self.set_descriptor(handle, LABEL_SECURITY_INFORMATION, text or "S:")

    def attributes(self, handle: int) -> int:
        """GetFileInformationByHandle."""
        found = FileInformation()
        self.call("GetFileInformationByHandle", handle, byref(found))
        return int(found.attributes)

    def names(self, path: str) -> tuple[str, ...]:
        """os.listdir, which calls FindFirstFileW."""
        try:
            return tuple(os.listdir(path))
        except OSError as error:
            raise Win32Error("FindFirstFileW", getattr(error, "winerror", 0) or 0) from None

    def path_attributes(self, path: str) -> int:
        """GetFileAttributesW."""
        found = int(self.bound("GetFileAttributesW")(path))
        if found == INVALID_FILE_ATTRIBUTES:
            raise Win32Error("GetFileAttributesW", last_error())
        return found

    def set_path_attributes(self, path: str, attributes: int) -> None:
        """SetFileAttributesW."""
        self.call("SetFileAttributesW", path, attributes)

    def delete_file(self, path: str) -> None:
        """DeleteFileW."""
        self.call("DeleteFileW", path)

    def remove_directory(self, path: str) -> None:
        """RemoveDirectoryW."""
        self.call("RemoveDirectoryW", path)

    def move(self, path: str, place: str) -> None:
        """MoveFileExW."""
        self.call("MoveFileExW", path, place, 0)

    def create_directory(self, path: str, descriptor: str) -> None:
        """CreateDirectoryW."""
        address = self.descriptor(descriptor)
        try:
            attributes = SecurityAttributes(ctypes.sizeof(SecurityAttributes), address, 0)
            self.call("CreateDirectoryW", path, byref(attributes))
        finally:
            self.free(address)

    def create_mutex(self, name: str) -> int:
        """CreateMutexW."""
        handle = self.bound("CreateMutexW")(None, 0, name)
        if not handle:
            raise Win32Error("CreateMutexW", last_error())
        return int(handle)

    def release_mutex(self, handle: int) -> None:
        """ReleaseMutex."""
        self.call("ReleaseMutex", handle)

    # --- AppContainers ---

    def create_profile(self, name: str) -> None:
        """CreateAppContainerProfile."""
        sid = c_void_p()
        self.hresult("CreateAppContainerProfile", name, name, "a run of proc-sandbox", None, 0, byref(sid))
        self.bound("FreeSid")(sid)

    def delete_profile(self, name: str) -> None:
        """DeleteAppContainerProfile."""
        self.hresult("DeleteAppContainerProfile", name, fine=HRESULT_NOT_FOUND)

    def container_sid(self, name: str) -> str:
        """DeriveAppContainerSidFromAppContainerName."""
        sid = c_void_p()
        self.hresult("DeriveAppContainerSidFromAppContainerName", name, byref(sid))
        try:
            return self.sid_text(sid.value)
        finally:
            self.bound("FreeSid")(sid)

    def capability_sid(self, name: str) -> str:
        """DeriveCapabilitySidsFromName: two arrays, each with its entries, all of them ours to free."""
        groups, sids, count, others = c_void_p(), c_void_p(), c_uint32(), c_uint32()
        self.call("DeriveCapabilitySidsFromName", name, byref(groups), byref(others), byref(sids), byref(count))
        try:
            return self.sid_text((c_void_p * count.value).from_address(sids.value or 0)[0])
        finally:
            for array, size in ((groups, others.value), (sids, count.value)):
                for sid in (c_void_p * size).from_address(array.value or 0):
                    self.free(sid or 0)
                self.free(array.value or 0)


def last_error() -> int:
    """Return what GetLastError had after the last call of this thread."""
    return int(ctypes.get_last_error())  # type: ignore[attr-defined,unused-ignore]
