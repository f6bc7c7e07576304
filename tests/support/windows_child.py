"""What a real child of the Windows tests does, word for word of its arguments; support/windows.py has the same for the fake.

Runs alone, by the Windows CPython: `python -I -S windows_child.py WORD...`.
"""

import ctypes
import faulthandler
import json
import os
import subprocess
import sys
import time

kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
children = []
memory = []


def say(text, number=1):
    os.write(number, text.encode())


def spawn(words, flags=0):
    command = [sys.executable, "-I", "-S", __file__, *words.split(";")]
    try:
        # Without a console: Wine has another process in the job for each.
        children.append(subprocess.Popen(command, creationflags=flags | subprocess.DETACHED_PROCESS))
    except OSError as error:
        say(f"refused {error.winerror}\n")
    else:
        say("spawned\n")


def echo():
    while data := os.read(0, 1 << 16):
        os.write(1, data)


def nothing():
    kernel32.GetStdHandle.restype = ctypes.c_void_p
    kernel32.WriteFile.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p]
    count = ctypes.c_uint32()
    assert kernel32.WriteFile(kernel32.GetStdHandle(-11), b"", 0, ctypes.byref(count), None)


def flood(size, number=1):
    left = int(size)
    while left:
        left -= os.write(number, b"x" * min(left, 1 << 16))


def allocate(size):
    kernel32.VirtualAlloc.restype = ctypes.c_void_p
    kernel32.VirtualAlloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32]
    address = kernel32.VirtualAlloc(None, int(size), 0x3000, 4)  # MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE
    say("allocated\n" if address else f"refused {ctypes.get_last_error()}\n")


def burn(milliseconds):
    end = time.process_time() + int(milliseconds) / 1000
    while time.process_time() < end:
        pass


def has_handle(number):
    kernel32.GetHandleInformation.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    flags = ctypes.c_uint32()
    say("open\n" if kernel32.GetHandleInformation(int(number), ctypes.byref(flags)) else "closed\n")


ACTS = {
    "print": say,
    "error": lambda text: say(text, 2),
    "nothing": lambda: nothing(),
    "flood": flood,
    "flood-error": lambda size: flood(size, 2),
    "echo": lambda: echo(),
    "read": lambda size: say(os.read(0, int(size)).decode()),
    "arguments": lambda: say(json.dumps(sys.argv)),
    "environment": lambda name: say(os.environ.get(name, "(unset)")),
    "directory": lambda: say(os.getcwd()),
    "spawn": spawn,
    "spawn-free": lambda words: spawn(words, subprocess.CREATE_BREAKAWAY_FROM_JOB),
    "wait": lambda: [child.wait() for child in children],
    "hang": lambda: time.sleep(3600),
    "allocate": allocate,
    "burn": burn,
    "handle": has_handle,
    "crash": lambda: faulthandler._raise_exception(0xC0000005),
    "exit": lambda code: os._exit(int(code)),
}

if __name__ == "__main__":
    kernel32.SetErrorMode(2)  # SEM_NOGPFAULTERRORBOX
    for word in sys.argv[1:]:
        name, colon, value = word.partition(":")
        if name in ACTS:
            ACTS[name](*([value] if colon else []))
