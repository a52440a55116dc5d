.PHONY: demo test host lint bench campaign setup clean
PY := .venv/bin/python

demo: setup
	$(PY) scripts/demo.py

test: setup
	$(PY) scripts/test.py

host:
	@bash scripts/host.sh

lint: setup
	$(PY) scripts/test.py --only lint

bench: setup
	$(PY) bench/run.py

campaign: setup
	$(PY) -m campaign $(PARTS) $(if $(HOURS),--hours $(HOURS)) $(if $(SEED),--seed $(SEED))

setup:
	@bash scripts/setup.sh

clean:
	rm -rf .venv node_modules output .pytest_cache .ruff_cache .hypothesis *.egg-info
