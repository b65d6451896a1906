# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
# Short names for the scripts. `make demo` and `make test` are all that a newcomer needs.
PREFIX ?= /usr/local
# More arguments for ctest, as in: make test TESTS="-R gguf"
TESTS ?=
SHELL := /bin/bash

.PHONY: help build test demo install format lint asan tsan nightly clean

help:
	@echo 'make demo     compress the bundled model, generate from it, score it'
	@echo 'make test     build everything and run all tests'
	@echo 'make build    build build/release/bin/winnow'
	@echo 'make install  install to PREFIX (/usr/local) below DESTDIR'
	@echo 'make format   rewrite the sources with clang-format'
	@echo 'make lint     clang-format and clang-tidy, as CI runs them'
	@echo 'make asan     all tests under the address and undefined-behaviour sanitizers'
	@echo 'make tsan     all tests under the thread sanitizer'
	@echo 'make nightly  the slow checks; results go to docs/nightly.md'
	@echo 'make clean    remove build/'

build:
	@scripts/setup
	@scripts/build release winnow

test:
	@scripts/setup
	@scripts/test release $(TESTS)

demo: build
	@scripts/demo

install:
	@scripts/setup
	@scripts/build release winnow winnow_docs
	DESTDIR=$(DESTDIR) cmake --install build/release --prefix $(PREFIX)

format:
	git ls-files --cached --others --exclude-standard '*.cc' '*.h' '*.inl' | xargs clang-format-14 -i

lint:
	@scripts/lint

asan:
	@scripts/setup --ci
	@scripts/test asan

tsan:
	@scripts/setup --ci
	@scripts/test tsan

nightly:
	@scripts/setup --ci --nightly
	@scripts/nightly

clean:
	rm -rf build
