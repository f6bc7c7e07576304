"""A command that goes on: talk to it, see what it uses, stop it and let it go on, end it."""

import proc_sandbox as ps

ANSWER = "while read -r line; do echo \"you said $line\"; done; echo bye; exit 3"
SAVE_AND_GO = "trap 'echo saved; exit 0' TERM; echo working; while :; do sleep 0.05; done"


def example() -> list[tuple[str, ps.Result[str], bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    with ps.Popen(["sh", "-c", ANSWER], stdin=ps.PIPE, stdout=ps.PIPE, text=True, bufsize=1, timeout=60) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said: list[str] = []
        for word in ("one", "two"):
            process.stdin.write(f"{word}\n")
            said.append(process.stdout.readline())
        tasks = process.usage().tasks
        process.stdin.close()
        rest = process.stdout.read()
        answered = process.wait()

    with ps.Popen(["sh", "-c", SAVE_AND_GO], stdout=ps.PIPE, text=True, timeout=60) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is up
        process.pause()
        process.resume()
        process.terminate()  # SIGTERM to the command itself; kill() ends the whole tree
        last_words = process.stdout.read()
        ended = process.wait()

    return [
        ("a conversation", answered, said == ["you said one\n", "you said two\n"] and rest == "bye\n" and tasks == 1),
        ("its exit status comes with wait()", answered, answered.exit_code == 3),
        ("terminate(): it saves its work", ended, ended.ok and last_words == "saved\n"),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {result.reason.value} {result.returncode}, {as_expected=}")
