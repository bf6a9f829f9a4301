# Every target installs what it needs.
#
#   make sweep     run a quick sweep, from a search space to a benchmarked ncnn model
#   make ui        open MLflow for the sweeps of this folder
#   make test      run all tests, including the C++ engine
#
#   make setup     create .venv with exactly the packages of requirements.lock, hashes checked
#   make lint      run the static checks
#   make engine    build the C++ engine
#   make clean     remove build outputs; results, .venv and .tools stay
#
# Variables: SPACE=resnet32_cifar and WITHIN=1h (the space of `make sweep` and its time, 5min by default),
# PYTHON=python3.12 (interpreter of .venv), ARGS="..." (further arguments of sweep, test, engine and ui). The
# environment variable CIFAR10_DIR names a folder with CIFAR-10.

PYTHON_OF_VENV := .venv/bin/python
SPACE ?= resnet18_cifar
ARGS ?=

.PHONY: setup sweep test lint engine ui clean

setup:
	@PYTHON="$(PYTHON)" .ci/setup

sweep: setup
	@$(need_compiler)
	$(PYTHON_OF_VENV) -m platform.sweep "$(SPACE)" $(if $(WITHIN),--within $(WITHIN),--quick) $(ARGS)

test: setup
	@$(need_compiler)
	$(PYTHON_OF_VENV) -m pytest -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	@if command -v clang-format >/dev/null; then \
	    echo "clang-format --dry-run --Werror (cpp_engine)"; \
	    find cpp_engine -name 'build*' -prune -o \( -name '*.cpp' -o -name '*.h' -o -name '*.hpp' \) -print0 \
	        | xargs -0 -r clang-format --dry-run --Werror; \
	else echo "clang-format: not installed, the C++ layout was not checked (apt-get install clang-format)"; fi

engine: setup
	@$(need_compiler)
	$(PYTHON_OF_VENV) -m deploy.engine_build.engine $(ARGS)

ui: setup
	@$(PYTHON_OF_VENV) -m platform.ui $(ARGS)

clean:
	rm -rf build dist cpp_engine/build* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name .venv -prune -o -name .tools -prune -o -name __pycache__ -prune -exec rm -rf {} +

define need_compiler
command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || { \
    echo "error: the engine needs a C++ compiler and there is none on PATH."; \
    echo "Install one: apt-get install g++ (Debian, Ubuntu) or dnf install gcc-c++ (Fedora); then run make again."; \
    exit 1; } >&2
endef
