"""Access control as text: entries put into a list and taken out of it again. Pure ("Security Descriptor String Format").

A list is "D:" with flags, then entries in parentheses: kind;flags;rights;object;inherited object;SID, and for some a condition.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["entries", "label", "with_entries", "without"]

READ = "0x1200a9"
"""FILE_GENERIC_READ and FILE_GENERIC_EXECUTE. "File Access Rights Constants" """
MODIFY = "0x1301bf"
"""READ, FILE_GENERIC_WRITE and DELETE; not FILE_DELETE_CHILD, by which what must only be read could be deleted from above."""
MODIFY_TOP = "0x1201bf"
"""The same without DELETE: what was granted itself stays."""
CHANGES = "0xd0156"
"""What changes a file: FILE_WRITE_DATA, _APPEND_DATA, _WRITE_EA, _WRITE_ATTRIBUTES, _DELETE_CHILD, DELETE, WRITE_DAC, WRITE_OWNER."""

LABELS = {"low": "LW", "medium": "ME"}


def entries(kind: str, sid: str, *, directory: bool, top: bool) -> tuple[str, ...]:
    """Return the entries that give a SID what an Access of the plan says.

    Args:
        directory: it hands down to what is made in it.
        top: it is what was granted itself, not something below it.
    """
    below = "OICI" if directory else ""
    if kind == "read":
        return (f"(A;{below};{READ};;;{sid})",)
    if kind == "deny_write":
        return (f"(D;{below};{CHANGES};;;{sid})",)
    assert kind == "write"
    if not top:
        return (f"(A;{below};{MODIFY};;;{sid})",)
    return (f"(A;;{MODIFY_TOP};;;{sid})", *([f"(A;OICIIO;{MODIFY};;;{sid})"] if directory else []))


def label(kind: str, *, directory: bool) -> str:
    """Return the mandatory label of an integrity: those below may not write. "SYSTEM_MANDATORY_LABEL_ACE" """
    return f"S:(ML;{'OICI' if directory else ''};NW;;;{LABELS[kind]})"


def split(text: str) -> tuple[str, list[str]]:
    """Return what stands before the entries, and the entries."""
    first = text.find("(")
    if first < 0:
        return text, []
    found, depth, start, quoted = [], 0, first, False
    for index in range(first, len(text)):
        quoted ^= text[index] == '"'  # a text in a condition, in which a quotation mark is written %0022
        depth += 0 if quoted else {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0 and text[index] == ")" and not quoted:
            found.append(text[start : index + 1])
            start = index + 1
    if depth or start != len(text):
        raise ValueError(f"not an access control list: {text!r}")
    return text[:first], found


def kept(head: str) -> str:
    """Return the flags such that setting them leaves AI as it is: it is taken over with AR alone. "Automatic Propagation" """
    flags = head.removeprefix("D:")
    return f"D:AR{flags}" if "AI" in flags and "AR" not in flags else head


def with_entries(text: str, added: Sequence[str]) -> str:
    """Return a list with more entries in their order: denials first, then what is allowed, then what is inherited.

    A file without any list ("D:NO_ACCESS_CONTROL") is open to all already, and stays so.
    """
    head, found = split(text)
    if "NO_ACCESS_CONTROL" in head:
        return text
    denied = [entry for entry in added if entry.startswith("(D;")]
    allowed = [entry for entry in added if not entry.startswith("(D;")]
    cut = next((index for index, entry in enumerate(found) if not is_own_denial(entry)), len(found))
    return kept(head) + "".join((*denied, *found[:cut], *allowed, *found[cut:]))


def is_own_denial(entry: str) -> bool:
    kind, flags = entry.strip("()").split(";")[:2]
    return kind in ("D", "XD", "OD") and "ID" not in flags


def without(text: str, sid: str) -> str:
    """Return a list without the entries of a SID, inherited ones as well."""
    head, found = split(text)
    left = [entry for entry in found if sid_of(entry) != sid]
    return text if len(left) == len(found) else kept(head) + "".join(left)


def sid_of(entry: str) -> str:
    return entry[1:-1].split(";")[5]
