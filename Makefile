# Every target of the project. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
VENV_OPENMMLAB := .venv-openmmlab
PY := $(VENV)/bin/python
PY_OPENMMLAB := $(VENV_OPENMMLAB)/bin/python

# Compiled mmcv takes minutes to build, so it is kept outside the checkout.
export MMCV_WHEELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mm-rotssl/wheels

DEMO_CONFIG := configs/rotnet/rotnet_nin-w24_1xb128-15e_digits.py
DEMO_DIR := work_dirs/demo
# how long, and what to measure: shorter where only the commands are checked
DEMO_EPOCHS := 15
DEMO_EVALUATE :=

SCENES := data/digit_scenes
SCENES_CONFIG := configs/rotnet/rotnet_nin-w24_1xb64-10e_digit-scenes.py
SCENES_TASKS := mmdetection/digit_scenes/fcos_nin-w24_1xb8-300i_digit-scenes \
	mmsegmentation/digit_scenes/fcn_nin-w24_1xb8-300i_digit-scenes
TRANSFER_DIR := work_dirs/demo-transfer
TRANSFER_SEEDS := 0 1 2
TRANSFER_EPOCHS := 10
TRANSFER_COMPARE :=
UNLABELED := 2000

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)

.PHONY: demo
# By default glibc hands large blocks back after every step and gets them anew,
# page by page, in the next: up to half of a small network's time on a CPU.
demo demo-transfer: export MALLOC_MMAP_MAX_ := 0
demo demo-transfer: export MALLOC_TRIM_THRESHOLD_ := 17179869184
demo: $(VENV)/.runtime-done ## Train RotNet on real digits and measure it (some minutes)
	$(PY) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR) \
		--epochs $(DEMO_EPOCHS)
	$(PY) tools/evaluation/evaluate.py $(DEMO_CONFIG) \
		$(DEMO_DIR)/epoch_$(DEMO_EPOCHS).pth --out $(DEMO_DIR)/report \
		$(DEMO_EVALUATE)

.PHONY: demo-transfer
demo-transfer: $(VENV)/.test-done ## Fine-tune on detection and segmentation (15 minutes)
	test -d $(SCENES) || $(PY) tools/dataset_converters/digit_scenes.py \
		$(SCENES) --train 40 --unlabeled $(UNLABELED) \
		--preview $(TRANSFER_DIR)/scenes.png
	@set -e; for seed in $(TRANSFER_SEEDS); do \
		folder=$(TRANSFER_DIR)/rotnet-seed$$seed; \
		test ! -f $$folder/backbone.pth || continue; \
		echo "Pre-training with seed $$seed"; mkdir -p $$folder; \
		$(PY) tools/train.py $(SCENES_CONFIG) --work-dir $$folder --resume \
			--epochs $(TRANSFER_EPOCHS) \
			--cfg-options randomness.seed=$$seed > $$folder/train.log 2>&1 \
			|| { tail $$folder/train.log; exit 1; }; \
		$(PY) tools/model_converters/export_backbone.py $(SCENES_CONFIG) \
			$$folder/epoch_$(TRANSFER_EPOCHS).pth --to mmpretrain \
			--out $$folder/backbone.pth > /dev/null; \
	done
	@set -e; for task in $(SCENES_TASKS); do \
		$(PY) tools/evaluation/compare_transfer.py configs/transfer/$$task.py \
			--init random rotnet=$(TRANSFER_DIR)/rotnet-seed{seed}/backbone.pth \
			--seeds $(TRANSFER_SEEDS) --jobs 2 \
			--out $(TRANSFER_DIR)/$$(dirname $$task) $(TRANSFER_COMPARE); \
	done

# Files whose tests share a slow fixture stay in one worker.
PYTEST := -m pytest -n 2 --dist loadfile

.PHONY: test
test: $(VENV)/.test-done ## Run all tests, after installing what they need
	$(PY) $(PYTEST) --junitxml=work_dirs/junit-onedl.xml
	@$(PY) .dev_scripts/compatibility.py onedl work_dirs/junit-onedl.xml

.PHONY: test-openmmlab
test-openmmlab: $(VENV_OPENMMLAB)/.test-done ## Run the tests on OpenMMLab's own releases
	$(PY_OPENMMLAB) $(PYTEST) -m 'not downstream' \
		--junitxml=work_dirs/junit-openmmlab.xml
	@$(PY_OPENMMLAB) .dev_scripts/compatibility.py openmmlab \
		work_dirs/junit-openmmlab.xml

.PHONY: commands
commands: $(VENV)/.test-done ## Run the commands of all pages, on small data
	$(PY) .dev_scripts/page_commands.py

.PHONY: lint
lint: $(VENV)/.dev-done ## Check format, style, spelling and types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m codespell_lib
	$(PY) -m mypy

.PHONY: format
format: $(VENV)/.dev-done ## Rewrite the code in the project's format
	$(PY) -m ruff check --fix-only --exit-zero .
	$(PY) -m ruff format .

.PHONY: docs
docs: $(VENV)/.dev-done ## Build the documentation in docs/_build
	@if $(PY) -c 'import sphinx' 2> /dev/null; then \
		$(PY) -m sphinx --quiet --fail-on-warning --keep-going \
			--conf-dir docs . docs/_build \
		&& echo 'Open docs/_build/docs/index.html'; \
	else \
		echo 'No documentation: it needs Python 3.11 or newer.'; \
	fi

.PHONY: bench
bench: $(VENV)/.runtime-done ## Measure the speed, as ratios
	$(PY) benchmarks/run.py

# Keeps the versions that still fit; delete a .txt first to renew them all.
UV_COMPILE = $(PY) -m uv pip compile --quiet --universal \
	--python-version 3.10 --no-annotate --no-emit-package opencv-python \
	--generate-hashes --custom-compile-command 'make lock' \
	-c requirements/build.in
.PHONY: lock
lock: $(VENV)/.dev-done ## Resolve requirements/*.in into pinned versions
	$(UV_COMPILE) requirements/build.in -o requirements/build.txt
	$(UV_COMPILE) setup.py requirements/onedl.in -o requirements/onedl.txt
	$(UV_COMPILE) requirements/dev.in -c requirements/onedl.txt \
		-o requirements/dev.txt
	$(UV_COMPILE) setup.py requirements/openmmlab.in \
		-c requirements/dev.txt -o requirements/openmmlab.txt
	$(UV_COMPILE) requirements/transfer.in -c requirements/onedl.txt \
		-c requirements/dev.txt -o requirements/transfer.txt

.PHONY: clean
clean: ## Remove what builds and checks leave; environments and runs stay
	rm -rf build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# --- environments -----------------------------------------------------------
# Each step leaves a stamp once it is complete. The files are complete lists,
# so nothing is resolved (--no-deps); sdists are built with the tools of
# build.txt too.
PIP = -m pip --disable-pip-version-check --quiet install
INSTALL = $(PIP) --no-deps --build-constraint requirements/build.in -r
PACKAGE := setup.py pyproject.toml mm_rotssl/version.py

# $(call environment,FOLDER,REQUIREMENTS): an environment with the package.
# A mark stands while pip works: what an interrupted run left may look
# installed and be broken, so it is thrown away. The mark is newer than the
# stamps, which brings make here.
define environment
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
		"Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	@test ! -e $(1)/.unfinished || rm -rf $(1)
	@echo "Installing $(2) into $(1) (minutes the first time)"
	@mkdir -p $(1) && touch $(1)/.unfinished
	@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1)
	@$(1)/bin/python $(PIP) -r requirements/build.txt
	@$(1)/bin/python $(INSTALL) $(2)
	@rm $(1)/.unfinished
	@$(1)/bin/python $(PIP) --quiet --no-deps --no-build-isolation -e .
	@touch $@
endef

# $(call add,FOLDER,REQUIREMENTS): more packages for a finished environment.
define add
	@echo "Installing $(2) into $(1)"
	@touch $(1)/.unfinished
	@$(1)/bin/python $(INSTALL) $(2)
	@rm $(1)/.unfinished
	@touch $@
endef

$(VENV)/.runtime-done: requirements/onedl.txt requirements/build.txt \
		$(PACKAGE) $(wildcard $(VENV)/.unfinished)
	$(call environment,$(VENV),requirements/onedl.txt)

$(VENV)/.dev-done: requirements/dev.txt $(VENV)/.runtime-done
	$(call add,$(VENV),requirements/dev.txt)

# The only step that needs a compiler.
$(VENV)/.test-done: requirements/transfer.txt .dev_scripts/mmcv_ops.sh \
		$(VENV)/.dev-done
	.dev_scripts/mmcv_ops.sh $(PY)
	$(call add,$(VENV),requirements/transfer.txt)

$(VENV_OPENMMLAB)/.runtime-done: requirements/openmmlab.txt \
		requirements/build.txt $(PACKAGE) \
		$(wildcard $(VENV_OPENMMLAB)/.unfinished)
	$(call environment,$(VENV_OPENMMLAB),requirements/openmmlab.txt)

$(VENV_OPENMMLAB)/.test-done: requirements/dev.txt \
		$(VENV_OPENMMLAB)/.runtime-done
	$(call add,$(VENV_OPENMMLAB),requirements/dev.txt)
