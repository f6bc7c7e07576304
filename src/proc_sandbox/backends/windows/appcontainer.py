"""What keeps a run from the host's files and network: an AppContainer of its own, and granted directories that know it.

The profile of an AppContainer is the run's own, so that no run reaches another one's processes, names or files. What is too large to
be changed for each run, the interpreter's directory, knows a capability that all runs of one caller have. Both are undone, by the
journal also where the caller was killed.
"""

from __future__ import annotations

import atexit
import secrets
import threading
import warnings
from collections.abc import Sequence

from proc_sandbox.backends.windows.access import LABELS, AccessControl, postponed
from proc_sandbox.backends.windows.journal import Entry, Journal, Written
from proc_sandbox.backends.windows.security import NETWORK_SIDS, Security
from proc_sandbox.planner.windows.plan import Access

__all__ = ["CallerGrants", "Containment", "undo"]

PREFIX = "proc-sandbox-"


def undo(control: AccessControl, security: Security, entry: Entry) -> None:
    """Take back what an entry of the journal says; harmless where some of it has been already.

    Raises:
        OSError: something could not be taken back; all else is.
    """
    errors: list[OSError] = []
    for path in reversed(entry.paths):
        with postponed(errors):
            control.take_back(path, entry.sid)
    for path in reversed(entry.labelled):
        with postponed(errors):
            control.take_label_back(path, entry.labels)
    with postponed(errors):
        if entry.profile:
            security.delete_profile(entry.profile)
    if errors:
        raise errors[0]


def settle(control: AccessControl, security: Security, written: Written) -> None:
    """Undo an entry of the journal's and take it out; what cannot be undone is left to the next caller, and told."""
    try:
        undo(control, security, written.entry)
    except OSError as error:
        written.leave()
        warnings.warn(f"access control that a run needed could not be taken back, the next run tries again: {error}", ResourceWarning, stacklevel=2)
    else:
        written.done()


class CallerGrants:
    """Directories that all runs of this process may read, by a capability that only they have; until the process ends."""

    def __init__(self, control: AccessControl, security: Security, journal: Journal) -> None:
        self.control = control
        self.security = security
        self.journal = journal
        self.lock = threading.Lock()
        self.sid = ""
        self.written: Written | None = None

    def give(self, items: Sequence[Access]) -> str:
        """See to it that these can be read; return the capability's SID.

        Raises:
            OSError: one could not be changed.
        """
        with self.lock:
            self.sid = self.sid or self.security.capability_sid(f"{PREFIX}caller-{secrets.token_hex(8)}")
            known = self.written.entry.paths if self.written else []
            fresh = [item for item in items if item.path not in known]
            if fresh:
                if self.written is None:
                    self.written = self.journal.begin(Entry(sid=self.sid))
                    atexit.unregister(self.take_back)  # once: another one was taken back by shutdown()
                    atexit.register(self.take_back)
                self.written.entry.paths += [item.path for item in fresh]
                self.written.write()
                self.control.give(fresh, lambda holder: self.sid, lambda path, label: None)
            return self.sid

    def take_back(self) -> None:
        """Take everything back, when no run is under way any more."""
        with self.lock:
            written, self.written = self.written, None
            if written:
                settle(self.control, self.security, written)


class Containment:
    """One run's AppContainer and its entries in the access control of files; undone by close().

    Attributes: package and capabilities, addresses of SIDs for CreateProcess; 0 and () where there is no AppContainer.
    """

    def __init__(
        self,
        control: AccessControl,
        security: Security,
        journal: Journal,
        callers: CallerGrants,
        capabilities: Sequence[str] | None,
        access: Sequence[Access],
    ) -> None:
        self.control = control
        self.security = security
        self.package = 0
        self.capabilities: tuple[int, ...] = ()
        self.written: Written | None = None
        own = [item for item in access if item.holder == "run"]
        if capabilities is None and not own:
            return
        try:
            shared = [item for item in access if item.holder == "caller"]
            sids = [NETWORK_SIDS[name] for name in capabilities or ()]
            if shared:
                sids.append(callers.give(shared))
            self.written = written = journal.begin(self.entry_for(capabilities is not None, own))
            entry = written.entry
            if entry.profile:
                self.security.create_profile(entry.profile)
                self.package = security.allocate_sid(entry.sid)
                self.capabilities = tuple(security.allocate_sid(sid) for sid in sids)
            control.give(own, lambda holder: entry.sid, written.remember_label)
        except BaseException:
            self.close()
            raise

    def entry_for(self, contained: bool, own: Sequence[Access]) -> Entry:
        entry = Entry(
            paths=list(dict.fromkeys(item.path for item in own if item.kind not in LABELS)),
            labelled=list(dict.fromkeys(item.path for item in own if item.kind in LABELS)),
        )
        if contained:
            entry.profile = f"{PREFIX}{secrets.token_hex(8)}"
            entry.sid = self.security.container_sid(entry.profile)
        return entry

    def close(self) -> None:
        """Undo everything; what cannot be is left to the journal."""
        for address in (self.package, *self.capabilities):
            if address:
                self.security.free(address)
        self.package, self.capabilities = 0, ()
        written, self.written = self.written, None
        if written:
            settle(self.control, self.security, written)
