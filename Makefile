# make run    the whole job on ML-100K; options go in ARGS:  make run ARGS="-m GRU4Rec -d ml-100k"
# make test   the tests, a worker a processor, 4 at most;    make test ARGS="tests/test_compat.py -k numpy"
#             in one process, as pytest alone runs them:     make test WORKERS= ARGS="--pdb"
# make clean  removes the environment and what Python leaves behind; results and datasets stay
#
# Either of the first two makes the environment, .venv, when it is absent or when what it is made from has changed.
# Another Python than python3:  make run PYTHON=python3.12

PYTHON = python3
VENV = .venv
ARGS =
# One thread each: the tests' tensors are too small to share. A worker takes about 1 GB.
WORKERS = --numprocesses logical --maxprocesses 4 --dist worksteal

run: $(VENV)/.installed
	$(VENV)/bin/python run_farzi.py $(ARGS)

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(WORKERS) $(ARGS)

# On Python 3.12 and newer RecBole is installed without its requirements (setup.py says why), so that `pip check` could
# only repeat that Ray is absent.
$(VENV)/.installed: setup.py pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	    { echo "recbole-farzi needs Python 3.10 to 3.13, which $(PYTHON) is not; try: make PYTHON=python3.11" >&2; exit 1; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e .
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
	    $(VENV)/bin/python -m pip install -c constraints.txt --no-deps 'recbole>=1.2.0,<1.3'; \
	else \
	    $(VENV)/bin/python -m pip check; \
	fi
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: run test clean
