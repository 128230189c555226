# Two commands: `make demo` (about six minutes on two CPU cores) and `make test`.
# Each makes its own virtual environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
SEEDS := slivit,densenet,resnet18_narrow,plain,volume,shape_boosting  # with two seeds

.PHONY: demo test lint results

demo: .venv/run.stamp
	$(BIN)/python -m slivit.demo

test: .venv/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist worksteal

results: .venv/dev.stamp  # of the finished jobs of the benchmarks
	$(BIN)/python -m benchmarks.accuracy --summary
	$(BIN)/python -m benchmarks.accuracy --summary --seeds 0,1 --methods $(SEEDS)
	$(BIN)/python -m benchmarks.learning_curve --summary
	$(BIN)/python -m benchmarks.ratings --summary
	$(BIN)/python -m benchmarks.search --summary
	$(BIN)/python -m benchmarks.results

lint: .venv/dev.stamp
	$(BIN)/ruff check .

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

.venv/dev.stamp: requirements-dev.txt .venv/run.stamp
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@
