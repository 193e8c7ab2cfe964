# make search   a real search from nothing: makes .venv, installs, runs `mlpspace search spaces/hybrid.yaml`
# make test     the same environment and the developers' tools; runs the tests
# make lint     ruff and mypy
#
# TORCH="torch==2.13.0"   the torch to install; without it the newest, or the one that .venv already has
# PYTHON=python3.12       the Python to make .venv with, 3.10 or newer
# SPACE=spaces/mixer.yaml ARGS="--workers 1"   what `make search` searches, and how
# ARGS="-x tests/test_space.py"   for pytest in `make test`; without it all quick tests, a process for each core up to four

PYTHON = python3
TORCH =
SPACE = spaces/hybrid.yaml
ARGS =

PIP = .venv/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: search test lint environment FORCE
.DELETE_ON_ERROR:

search: .venv/installed
	@exec .venv/bin/mlpspace search "$(SPACE)" $(ARGS)

test: .venv/installed-dev
	@OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest $(or $(ARGS),-n auto --maxprocesses 4 --dist worksteal)

lint: .venv/installed-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

.venv/installed: pyproject.toml .venv/torch
	@echo "Installing $$(cat .venv/torch) and mlpspace into .venv: once, a few minutes."
	@$(PIP) install $$(cat .venv/torch)
	@$(PIP) install -e .
	@touch $@

.venv/installed-dev: pyproject.toml .venv/torch
	@echo "Installing $$(cat .venv/torch), mlpspace and its tests' tools into .venv: once, a few minutes."
	@$(PIP) install $$(cat .venv/torch)
	@$(PIP) install -e '.[dev]'
	@touch .venv/installed $@

# Changes only when the pin does, so that a second `make search` installs nothing.
.venv/torch: FORCE | environment
	@if [ -n '$(TORCH)' ] || [ ! -e $@ ]; then \
	  pin='$(or $(TORCH),torch)'; \
	  [ "$$pin" = "$$(cat $@ 2>/dev/null)" ] || printf '%s\n' "$$pin" >$@; \
	fi

# pip is the last thing that venv puts there: with it the environment is whole. Another PYTHON makes it anew.
AGAIN = make $(or $(MAKECMDGOALS),search) PYTHON=python3.12
environment:
	@if [ -x .venv/bin/pip ]; then \
	  [ '$(origin PYTHON)' = file ] && exit 0; \
	  [ '$(PYTHON)' = "$$(cat .venv/made-with 2>/dev/null)" ] && exit 0; \
	fi; \
	say() { echo "$$1" >&2; exit 2; }; \
	command -v '$(PYTHON)' >/dev/null 2>&1 || \
	  say 'There is no $(PYTHON) here. Install Python 3.10 or newer, or name one that is here: $(AGAIN)'; \
	version=$$('$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])') || exit 2; \
	'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  say "$(PYTHON) is Python $$version, mlpspace takes 3.10 or newer. If one is here, name it: $(AGAIN)"; \
	'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || \
	  say "$(PYTHON) cannot make environments. On Debian and Ubuntu type: sudo apt install python$$version-venv"; \
	'$(PYTHON)' -m venv --clear .venv && printf '%s\n' '$(PYTHON)' >.venv/made-with
