"""A run on a terminal of its own, moved by the event loop: what types and reads is what a thread would step, in smaller steps."""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING, cast

from proc_sandbox.aio.descriptors import DescriptorDriver, may_touch, move
from proc_sandbox.backends.unix.terminal import LOOK_AGAIN, PATIENCE, TerminalStreams, Typist, standard, wanted
from proc_sandbox.config import INHERIT, Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.streams import Choice, is_constant, named, shown

if TYPE_CHECKING:
    from proc_sandbox.aio.pieces import Input
    from proc_sandbox.text import Decoding

__all__ = ["TerminalDriver"]


class TerminalDriver(DescriptorDriver):
    """Types and reads.

    Attributes: watched, the events that the loop tells of, by descriptor; always, those that it need not tell of and will come at once.
    """

    def __init__(self, config: Config, given: Input | None, how: Decoding | None = None) -> None:
        """See DescriptorDriver.

        Raises:
            ConfigError: the command would have to do with the caller's own terminal.
        """
        check_not_the_callers(config)
        super().__init__(config, given, how)
        self.watched: dict[int, int] = {}
        self.always: set[tuple[int, int]] = set()
        self.taking = False
        self.timer: asyncio.TimerHandle | None = None

    def begin_moving(self) -> None:
        """Begin to type and to read."""
        self.terminal = cast("TerminalStreams", self.streams)
        self.typist = Typist(self.terminal)
        self.look()

    def look(self) -> None:
        """Have the loop tell of what can be done from now on."""
        if self.killed or self.over.is_set():
            return
        self.fill()
        masks = wanted(self.terminal, self.typist)
        if self.taking:  # nothing more is read until what was read is taken
            masks[self.terminal.master] = masks.get(self.terminal.master, 0) & ~select.POLLIN
        for descriptor in {*masks, *self.watched}:
            self.watch(descriptor, masks.get(descriptor, 0))
        if self.typist.over and self.timer is None:
            self.timer = self.loop.call_later(LOOK_AGAIN / 1000, self.do, self.look_again)

    def look_again(self) -> None:
        """A terminal does not tell whether the end of the input was met."""
        self.timer = None
        self.look()

    def fill(self) -> None:
        """Have the next piece of the input typed when the one before is."""
        if self.source is None:
            self.typist.fill()
        elif not self.typist.left and self.fetching is None:
            self.fetching = self.wait_for(self.source(), self.fetched)

    def fetched(self, piece: bytes) -> None:
        """The next piece of input has come."""
        self.fetching = None
        self.typist.left += piece
        if not piece:
            self.source, self.terminal.source = None, iter(())
        self.look()

    # --- what the loop calls ---

    def act(self, descriptor: int, event: int) -> None:
        """Do what can be done."""
        self.always.discard((descriptor, event))
        if self.killed or self.over.is_set():
            return
        streams = self.terminal
        if descriptor == streams.master and event == select.POLLIN:
            self.read_some()
        elif descriptor == streams.master:
            self.typist.write()
        elif descriptor == streams.input and self.typist.listens:
            self.typist.read()
        elif descriptor == streams.output and streams.waiting:
            self.watch(descriptor, 0)  # it may be closed
            streams.write_out()
        self.look()

    def read_some(self) -> None:
        _, waits = move(self.terminal.master, self.terminal.readers[self.terminal.master])
        if waits is not None:
            self.taking = True
            self.wait_for(waits, self.took)

    def took(self, result: object) -> None:
        """What was awaited has taken what was read: go on."""
        del result
        self.taking = False
        self.look()

    # --- the end ---

    def close_ends(self) -> None:
        """Keep the slave until what was printed is read."""

    async def take_rest(self) -> None:
        """Take what the terminal still holds, and give it to whom it belongs, as long as that takes it."""
        await super().take_rest()
        streams = self.terminal
        if streams.output in streams.inner:
            streams.write_what_fits()
            streams.hang_up()
        while streams.waiting and streams.output >= 0 and await self.takes(streams.output):
            streams.write_out()
        streams.tell_of_loss()

    async def takes(self, output: int) -> bool:
        """Wait until something can be written; return False where nothing could be for long."""
        free = asyncio.Event()
        try:
            self.loop.add_writer(output, free.set)
        except PermissionError:
            return True
        try:
            await asyncio.wait_for(free.wait(), PATIENCE)
        except asyncio.TimeoutError:
            return False
        finally:
            if may_touch(self.loop, self.owner):
                self.loop.remove_writer(output)
        return True

    # --- what is watched ---

    def watch(self, descriptor: int, mask: int) -> None:
        """Have the loop tell of these events and no others."""
        before = self.watched.pop(descriptor, 0)
        for event, add, remove in (
            (select.POLLIN, self.loop.add_reader, self.loop.remove_reader),
            (select.POLLOUT, self.loop.add_writer, self.loop.remove_writer),
        ):
            if before & event and not mask & event:
                remove(descriptor)
            elif mask & event and not before & event:
                try:
                    add(descriptor, self.do, self.act, descriptor, event)
                except PermissionError:  # a regular file, which is always ready: epoll_ctl(2), EPERM
                    mask &= ~event
                    self.be_called(descriptor, event)
        if mask:
            self.watched[descriptor] = mask

    def be_called(self, descriptor: int, event: int) -> None:
        if (descriptor, event) not in self.always:
            self.always.add((descriptor, event))
            self.loop.call_soon(self.do, self.act, descriptor, event)

    def mute(self) -> None:
        """Watch nothing of the terminal any more."""
        super().mute()
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()
        touch = may_touch(self.loop, self.owner)
        for descriptor in list(self.watched):
            if touch:
                self.watch(descriptor, 0)
        self.watched.clear()


def check_not_the_callers(config: Config) -> None:
    """Refuse the caller's own terminal: it is asked questions before it is given back, for whose answers the loop would have to wait, and
    looked after by handlers of signals, which are the loop's.

    Raises:
        ConfigError: a stream is that.
    """
    for number, name in enumerate(("stdin", "stdout")):
        stream = getattr(config, name)
        choice = Choice("inherit") if is_constant(stream, INHERIT) else named(stream)
        if choice is not None and os.isatty(standard(choice, number)):
            raise ConfigError(name, shown(stream), "it is your own terminal, which a loop does not look after; use proc_sandbox.run()")
