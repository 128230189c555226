# Two commands: `make demo` (about six minutes on two CPU cores) and `make test`.
# Each creates a virtual environment in .venv. `make test-lowest` tests the lower bounds of the
# requirements in .venv-lowest, which needs Python 3.11 (PYTHON=python3.11) and about 6 GB.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
SEEDS := slivit,densenet,resnet18_narrow,plain,volume,shape_boosting  # run with two seeds

.PHONY: demo test test-lowest lint results gpu

demo: .venv/run.stamp
	$(BIN)/python -m demo

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-lowest: .venv-lowest/run.stamp
	$(LOWEST)/python -m pytest -n 2 --dist worksteal

results: .venv/dev.stamp  # from the finished benchmark jobs
	$(BIN)/python -m benchmarks.archive
	$(BIN)/python -m benchmarks.accuracy --summary
	$(BIN)/python -m benchmarks.accuracy --summary --seeds 0,1 --methods $(SEEDS)
	$(BIN)/python -m benchmarks.learning_curve --summary
	$(BIN)/python -m benchmarks.regions --summary
	$(BIN)/python -m benchmarks.regions_search --summary
	$(BIN)/python -m benchmarks.ratings --summary
	$(BIN)/python -m benchmarks.search --summary
	$(BIN)/python -m benchmarks.precision --summary --seeds 0,1
	$(BIN)/python -m benchmarks.results

gpu: .venv/run.stamp  # what a GPU can break, and its speed; exit code 1 if a check fails
	$(BIN)/python -m benchmarks.gpu

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/run.stamp
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

.venv-lowest/run.stamp: requirements.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11) and 'takes Python 3.11')"
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST)/python -m pip install --quiet uv
	$(LOWEST)/uv pip install --quiet --python $(LOWEST)/python --resolution lowest-direct \
		-r requirements-dev.txt
	touch $@
