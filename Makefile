.PHONY: demo test lint bench setup clean
PY := .venv/bin/python

demo: setup
	$(PY) scripts/demo.py

test: setup
	$(PY) scripts/test.py

lint: setup
	$(PY) scripts/test.py --only lint

bench: setup
	$(PY) bench/run.py

setup:
	@bash scripts/setup.sh

clean:
	rm -rf .venv node_modules output .pytest_cache .ruff_cache .hypothesis *.egg-info
