# make demo | test | test-jax | test-programs | test-next | test-all | durations | lint | bench | lock
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PYTEST = -m pytest -p tests.durations $(DURATIONS) -n 2 --dist loadfile -q
# By default the files of the fewest tests come last, which are those that take longest here.
IN_ORDER = --no-loadscope-reorder
# Markers that select the tests of a leg; without -m the long ones would be skipped.
QUICK = "not long and not programs"
QUICK_JAX = "not long and not tensorflow"
PROGRAMS = "programs and not long"
NEXT = "not long and not locked"
NEXT_JAX = "not long and not locked and not tensorflow"
ALL = "long or not long"
CORE = tests/test_backend.py tests/test_functional.py tests/test_sampling.py \
	tests/test_likelihoods.py tests/test_golden.py tests/layers tests/models
ON_JAX_TOO = tests/test_data_parallel.py tests/test_metrics.py tests/test_spectral.py
EXPORT = tests/test_export.py
# What one set of versions exports the other serves.
PROGRAM = tests/serving/test_versions.py

.PHONY: demo test test-jax test-programs test-next test-all durations lint bench lock clean

demo: .venv/installed
	.venv/bin/python examples/image_reconstruction.py --out runs/demo
	.venv/bin/python examples/image_generation.py runs/demo

# What protects a change, in 8 minutes on two cores.
test: .venv/installed
	KERAS_BACKEND=tensorflow .venv/bin/python $(PYTEST) --leg test --eager -m $(QUICK) tests

# The core on JAX.
test-jax: .venv/installed
	KERAS_BACKEND=jax .venv/bin/python $(PYTEST) $(IN_ORDER) --leg test-jax -m $(QUICK_JAX) \
		$(ON_JAX_TOO) $(CORE)

# Whole programs (examples, workers, servers) and exported models.
test-programs: .venv/installed
	KERAS_BACKEND=tensorflow .venv/bin/python $(PYTEST) --leg test-programs --eager -m $(PROGRAMS) \
		tests

# The newest TensorFlow and JAX: the core, export, and one program.
test-next: .venv-next/installed
	KERAS_BACKEND=tensorflow .venv-next/bin/python $(PYTEST) $(IN_ORDER) --leg test-next --eager \
		-m $(NEXT) $(PROGRAM) $(EXPORT) $(CORE)
	KERAS_BACKEND=jax .venv-next/bin/python $(PYTEST) --leg test-next-jax -m $(NEXT_JAX) $(CORE)

# Everything, compiled, on both backends; on the newest versions all but what is long: two hours.
test-all: export KERAS_VQVAE_REQUIRE_NAMESPACES = 1
test-all: export KERAS_VQVAE_REQUIRE_GCC = 1
test-all: export KERAS_VQVAE_REQUIRE_OPENVINO = 1
test-all: export KERAS_VQVAE_REQUIRE_BOTH_VERSIONS = 1
test-all: .venv/installed .venv-next/installed .venv-kserve/installed
	KERAS_BACKEND=tensorflow .venv/bin/python $(PYTEST) -m $(ALL) tests
	KERAS_BACKEND=jax .venv/bin/python $(PYTEST) -m "not tensorflow" tests
	KERAS_BACKEND=tensorflow .venv-next/bin/python $(PYTEST) -m "not long" tests
	KERAS_BACKEND=jax .venv-next/bin/python $(PYTEST) -m "not long and not tensorflow" tests

# Seconds of every test of CI, as tables in docs/testing.md.
durations:
	rm -rf runs/durations
	$(MAKE) test test-jax test-programs test-next DURATIONS="--durations-to $(CURDIR)/runs/durations"
	.venv/bin/python -m tests.durations runs/durations

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy keras_vqvae

bench: .venv/installed .venv-peers/installed
	.venv/bin/python benchmarks/quantizer.py
	.venv/bin/python benchmarks/quantizer_memory.py
	.venv/bin/python benchmarks/training_step.py
	.venv/bin/python benchmarks/sampling.py
	.venv/bin/python benchmarks/distribution.py
	.venv/bin/python benchmarks/batch_size.py
	.venv/bin/python benchmarks/input.py
	.venv/bin/python benchmarks/audio.py
	.venv/bin/python benchmarks/audio_input.py
	.venv/bin/python benchmarks/video.py
	.venv/bin/python benchmarks/video_bound.py
	.venv/bin/python benchmarks/serving.py

.venv/installed: requirements/lock.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -r requirements/lock.txt
	.venv/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

.venv-next/installed: requirements/next.txt pyproject.toml
	$(PYTHON) -m venv .venv-next
	.venv-next/bin/python -m pip install -r requirements/next.txt
	.venv-next/bin/python -m pip install --no-deps --no-build-isolation -e .
	touch $@

.venv-peers/installed: requirements/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --no-deps -r requirements/peers.txt
	touch $@

.venv-kserve/installed: requirements/kserve.txt
	$(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip install --no-deps -r requirements/kserve.txt
	touch $@

# Freezes the versions that the two .in files ask for; needs uv (pip install uv).
EXTRAS = --extra examples --extra dev
lock:
	uv pip compile -q --python-version 3.11 --no-emit-package pip requirements/lock.in pyproject.toml \
		$(EXTRAS) --extra audio --extra video --extra probability --extra serving -o requirements/lock.txt
	uv pip compile -q --python-version 3.11 --no-emit-package pip requirements/next.in pyproject.toml \
		$(EXTRAS) --extra video --extra serving -o requirements/next.txt

clean:
	rm -rf .venv .venv-next .venv-peers .venv-kserve build dist runs
