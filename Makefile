# `make run` and `make test` install everything that they need, on a fresh Debian or Ubuntu with python3 (3.11 or newer)
# and make. PYTHON names another Python to start from.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help run cluster test check style format types layers unit-pure unit-rest coverage tests rest javascript announce sanitize web wstest conformance dist distributions packaging docs pythons fuzz simulate bench soak pictures clean commands

bin := .venv/bin
# The slowest tests with real processes: browsers, HTTP and several servers.
web_tests := $(addprefix tests/end_to_end/test_,$(addsuffix .py,client cluster console event_list firefox http openapi page publishing recipes redis rolling_restart socketio streams workers))
# The tests of the pure packages, which they cover completely.
pure_tests := $(addprefix tests/,auth codecs limits pubsub session cli/test_memory_estimate.py test_errors.py test_stats.py)
# Run beside them by make check, so that its two halves take the same time.
light_tests := tests/behaviours tests/metrics tests/webhooks
pytest := $(bin)/pytest -q --show-failures-at-once
# What an installation is made from, besides the modules in Python, which are used where they are.
package := setup.cfg setup.py pyproject.toml twistedsock/_speed.c
pip_install := $(bin)/python -m pip install --quiet --disable-pip-version-check

# Containers often set it. Every server that a test starts would compile all of its modules: 40 % of its time to start.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: .venv/for-run ## start the server in the foreground; make run ARGS="--help" lists its options
	@$(bin)/twistd -n --pidfile= sockbridge $(ARGS)

cluster: .venv/for-cluster ## start a Redis, two servers on it, and a page that shows both
	@command -v redis-server >/dev/null || tools/apt-install redis-server
	@$(bin)/python tools/cluster.py -- $(ARGS)

test: announce commands node_modules/.package-lock.json .venv/for-test ## run all checks and tests; prints first what it installs
	@$(bin)/python tools/run_tests.py $(MAKE_COMMAND) test

check: .venv/for-test ## check style, types and layers, and run the unit tests: one minute
	@$(bin)/python tools/run_tests.py $(MAKE_COMMAND) check

announce:
	@tools/install-commands --announce

style: .venv/for-test ## check format and lint
	$(bin)/ruff check .
	$(bin)/ruff format --check .

format: .venv/for-test ## format the code and fix lint
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

types: .venv/for-test ## check types
	$(bin)/mypy

layers: .venv/for-test ## check that a package imports only from packages below it
	$(bin)/lint-imports --no-logo

# The sanitizer must be the first library of the process, and see each object of Python as a block of its own.
sanitize: .venv/for-test ## compare the compiled module with its twins in Python, built with sanitizers for addresses and undefined behaviour
	CFLAGS="-g -fsanitize=address,undefined -fno-sanitize-recover=all" LD_PRELOAD=$$(cc -print-file-name=libasan.so) \
		ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc $(pytest) -k "not leaked" tests/codecs/test_speedups.py

coverage: .venv/for-test ## test the pure packages, which their tests must cover completely
	$(pytest) --cov --cov-report=term $(pure_tests)

unit-pure: .venv/for-test
	HYPOTHESIS_PROFILE=short $(pytest) -m "not slow" $(pure_tests) $(light_tests)

unit-rest: .venv/for-test
	HYPOTHESIS_PROFILE=short $(pytest) -m "not end_to_end and not slow" $(addprefix --ignore=,$(pure_tests) $(light_tests) tests/end_to_end)

tests: commands node_modules/.package-lock.json coverage rest web javascript ## run all tests of this Python, and those in JavaScript

rest: .venv/for-test
	$(pytest) $(addprefix --ignore=,$(pure_tests)) --ignore=tests/test_packaging.py $(addprefix --ignore=,$(web_tests))

javascript: node_modules/.package-lock.json
	timeout 300 node --test --test-reporter=spec tests/js/*.test.mjs

web: .venv/for-test
	$(pytest) $(web_tests)

wstest: .venv/for-run ## run the quick set of the Autobahn WebSocket TestSuite; needs Python 2.7
	@$(bin)/python -m tests.conformance --quick

conformance: .venv/for-run ## run all of the Autobahn WebSocket TestSuite
	@$(bin)/python -m tests.conformance

dist: packaging distributions ## build the distributions, install them in a clean environment, try the command

# Works in a copy of the checkout, so that other tests can run meanwhile.
packaging: .venv/for-test
	$(pytest) tests/test_packaging.py

distributions: .venv/for-test
	rm -rf dist
	$(bin)/python -m build --quiet --outdir dist .

pythons: .venv/for-test ## run the unit tests under every supported Python on this machine
	nice -n 19 $(bin)/python tools/pythons.py

fuzz: .venv/for-test ## try random input for MINUTES=10; make fuzz ONLY="frames lines" MINUTES=1 selects properties
	@$(bin)/python tools/fuzz.py --minutes $(or $(MINUTES),10) $(addprefix --only ,$(ONLY)) $(if $(REPEAT),--repeat $(REPEAT))

simulate: .venv/for-test ## simulate nodes, clients and a failing backplane for MINUTES=1; SEED=7 repeats a run, ENGINE=redis simulates one backplane, FAULTS=1 plants faults
	@$(bin)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(ENGINE),--engine $(ENGINE)) $(if $(FAULTS),--faults) --minutes $(or $(MINUTES),$(if $(SEED),0,1))

docs: .venv/for-test ## build the documentation site in build/docs; broken links and anchors fail
	$(bin)/sphinx-build -q -E -W --keep-going -n -d build/.doctrees docs build/docs

bench: .venv/for-test ## compare with other servers; make bench BENCH="fan-out pairs" ROUNDS=1 SERVERS="sockbridge nats" runs a part
	@$(if $(filter-out sockbridge bare,$(or $(SERVERS),all)),bench/install $(filter crossbar,$(or $(SERVERS),crossbar)))
	@$(if $(filter-out sockbridge bare,$(or $(SERVERS),all)),$(bin)/pytest -q bench/tests)
	@$(if $(filter-out durable cluster,$(or $(BENCH),all)),$(bin)/python -m bench $(filter-out durable cluster,$(BENCH)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SERVERS),--servers $(SERVERS)))
	@$(if $(filter durable,$(or $(BENCH),durable)),$(if $(SERVERS),,$(bin)/python -m bench.durable $(if $(ROUNDS),--rounds $(ROUNDS))))
	@$(if $(filter cluster,$(or $(BENCH),cluster)),$(if $(SERVERS),,$(bin)/python -m bench.cluster $(if $(ROUNDS),--rounds $(ROUNDS))))

soak: .venv/for-run ## load a server for ten minutes with clients that come and go, and check that memory stays flat; make soak MINUTES=60
	@$(bin)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES))

pictures: .venv/for-test commands ## take the screenshots of README and docs again, on the usual ports; make pictures MINUTES=1 waits less for charts
	@$(bin)/python tools/pictures.py $(if $(MINUTES),--minutes $(MINUTES))

clean: ## remove all generated files
	rm -rf .venv .venvs twistedsock/_speed*.so node_modules bench/.peers bench/results build dist *.egg-info .coverage .hypothesis .*_cache _trial_temp* twistd.log* twistd.pid
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

commands: .venv/for-test
	@tools/install-commands $(bin)/python

# Packages for the tests of the JavaScript client. npm writes this file, but does not touch it if nothing has changed.
node_modules/.package-lock.json: package.json package-lock.json | commands
	@npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# An environment is updated when its requirements or its Python have changed.
.venv/for-run: $(package) $(bin)/python
	$(pip_install) --editable .
	@touch $@

.venv/for-cluster: $(package) $(bin)/python
	$(pip_install) --editable '.[redis]'
	@touch .venv/for-run $@

.venv/for-test: $(package) $(bin)/python
	@tools/install-compiler $(bin)/python
	$(pip_install) --editable '.[test]'
	@touch .venv/for-run .venv/for-cluster $@

$(bin)/python: | tools/make-environment
	@tools/make-environment .venv
