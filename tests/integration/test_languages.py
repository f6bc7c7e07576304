"""Runtimes that reserve far more memory than they use, under a limit that they fit into, sampled and by whatever this host has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.programs import HANG, MEGABYTE, inside, sampled, text

JAVA = """
public class Hello {
    public static void main(String[] arguments) throws Exception {
        byte[][] kept = new byte[20][];
        for (int i = 0; i < kept.length; i++) kept[i] = new byte[1 << 20];
        Thread thread = new Thread(() -> System.out.println("hello"));
        thread.start();
        thread.join();
    }
}
"""
GO = """
package main

import (
	"fmt"
	"sync"
)

func main() {
	var all sync.WaitGroup
	kept := make([][]byte, 20)
	for i := range kept {
		all.Add(1)
		go func(i int) {
			kept[i] = make([]byte, 1<<20)
			for j := range kept[i] {
				kept[i][j] = 1
			}
			all.Done()
		}(i)
	}
	all.Wait()
	fmt.Println("hello")
}
"""
NODE = """
const kept = [];
for (let i = 0; i < 20; i++) kept.push(Buffer.alloc(1 << 20, 1));
new (require("worker_threads").Worker)('console.log("hello")', {eval: true});
"""


def build(directory: Path, command: Sequence[str]) -> None:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(directory), "GO111MODULE": "off"}
    subprocess.run(command, cwd=directory, env=environment, check=True, timeout=HANG)


def prepared(language: str, directory: Path) -> list[str]:
    """Write and build the program; return the command that runs it."""
    if language == "java":
        (directory / "Hello.java").write_text(JAVA)
        build(directory, ["javac", "Hello.java"])
        return ["java", "-cp", str(directory), "Hello"]
    if language == "go":
        (directory / "hello.go").write_text(GO)
        build(directory, ["go", "build", "-o", "hello", "hello.go"])
        return [str(directory / "hello")]
    (directory / "hello.js").write_text(NODE)
    return ["node", str(directory / "hello.js")]


@pytest.mark.parametrize(("language", "tool"), [("node", "node"), ("java", "javac"), ("go", "go")])
def test_a_runtime_fits_into_256_megabytes(tmp_path: Path, language: str, tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    command = prepared(language, tmp_path)
    result = inside(command, memory_limit="256M", allowed_dirs=[tmp_path])
    assert text(result) == "hello\n", result
    assert result.ok
    said = sampled(command, 256 * MEGABYTE, allowed_dirs=[tmp_path])
    assert "hello\n" in said, said
    assert "memory_exceeded 0" in said
