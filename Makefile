# Everything is made in .venv; PYTHON says from which interpreter.
PYTHON ?= python3
BIN := .venv/bin
# What is never imported there, and uses what is not there. All else is type-checked as if it were on each system.
NOT_ON_DARWIN := '/proc_sandbox/(backends/(linux|windows)/|launcher/process)'
NOT_ON_WINDOWS := '/proc_sandbox/(aio/(descriptors|terminal)|backends/(linux|posix|unix)/|launcher/)'

help:        ## list the targets
	@grep -E '^[a-z-]+: .*##' Makefile | sed 's/:.*##/\t/'

.venv/.made: pyproject.toml hatch_build.py $(wildcard launcher/*.[ch] launcher/*/*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[test,lint,demo]'
	touch $@

launcher: .venv/.made   ## compile the launcher and the monitor again
	$(BIN)/python hatch_build.py

launcher-posix: .venv/.made ## compile the portable part with gcc and clang, nothing of Linux's to be had, warnings as errors
	$(BIN)/python hatch_build.py check-portable

demo: .venv/.made       ## run the examples
	$(BIN)/python examples/demo.py

test: .venv/.made       ## run the tests
	$(BIN)/python -m pytest -n 2

lint: .venv/.made       ## ruff, mypy, pyright, layers, and the launcher with warnings as errors
	$(BIN)/ruff check src tests examples bench hatch_build.py
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin --exclude $(NOT_ON_DARWIN)
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 --exclude $(NOT_ON_WINDOWS)
	$(BIN)/lint-imports
	PROC_SANDBOX_WERROR=1 $(BIN)/python hatch_build.py
	$(BIN)/python hatch_build.py check-portable

test-vm: launcher         ## boot every kind of host in QEMU and run the tests there (Debian, root to build)
	tests/vm/build_image --suite trixie --kernel trixie --kernel bookworm --kernel bullseye --kernel sid --pip pytest hypothesis jeepney psutil platformdirs rich shtab
	tests/vm/build_image --suite bookworm --pip pytest hypothesis jeepney psutil platformdirs rich shtab
	$(BIN)/python tests/vm/hosts.py --record docs/hosts.json

test-wine: .venv/.made  ## run the tests of the Windows backend with a Windows Python under Wine (which must be installed)
	tests/windows/wine -- tests/windows tests/behaviour tests/unit/test_windows_*.py

bench: .venv/.made      ## measure, interleaved with subprocess and peers; BENCH="latency --quick": what python -m bench is told
	-$(BIN)/python -m pip install -q -e '.[bench]'
	$(BIN)/python -m bench $(BENCH)

docs: .venv/.made       ## build the site into build/site, warnings as errors (with --quiet they would be none)
	$(BIN)/python -m pip install -q -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: help launcher launcher-posix demo test test-vm test-wine lint bench docs
