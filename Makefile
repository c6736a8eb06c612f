# The only place where commands are spelled; `make` alone lists the targets.

# A distribution builds its Python with profile-guided optimisation, a version manager
# mostly does not: then a drain takes a sixth more time. So the former, where it will do.
WILL_DO := import ensurepip, sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach each,/usr/bin/python3 python3,$(shell \
  $(each) -c '$(WILL_DO)' 2>/dev/null && echo $(each))) python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Debian packages that tests need, each with a command that only it brings; Debian keeps
# PostgreSQL's commands off PATH, so that the place of its initdb stands for it.
INITDB := $(firstword $(wildcard /usr/lib/postgresql/*/bin/initdb) initdb-absent)
TEST_PACKAGES := postfix:postfix postfix:smtp-sink openssl:openssl \
  postgresql:$(INITDB) mariadb-server:mariadbd xz-utils:xz zstd:zstd \
  chromium:chromium chromium-driver:chromedriver curl:curl \
  systemd:systemd-analyze prometheus:promtool prometheus-alertmanager:amtool \
  keepalived:keepalived monit:monit nagios4-core:nagios4 cron:crontab \
  docker-compose:docker-compose kubernetes-client:kubectl \
  opendkim:opendkim pyspf-milter:pyspf-milter dovecot-lmtpd:/usr/lib/dovecot/lmtp \
  debhelper:dh lintian:lintian fish:fish man-db:man nodejs:node npm:npm rspamd:rspamd \
  clamav-daemon:clamd gcc:cc libc6-dev:cc slapd:slapd spamd:spamd

# Other mail servers and Postfix shut each other out as packages; unpacked here they run
# all the same. Haraka is a package of Node.js.
EXIM := .exim/usr/sbin/exim4
EXIM_PACKAGES := exim4-daemon-light exim4-base libidn12
OPENSMTPD := .opensmtpd/usr/sbin/smtpd
OPENSMTPD_PACKAGES := opensmtpd
HARAKA := .haraka/node_modules/Haraka/bin/haraka
HARAKA_VERSION := 3.0.3

# Of `make fuzz` and `make soak`: how long, and only what has a word in its name.
SECONDS ?= 300
WORDS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Every test process loads the same modules: they are compiled once, and tests too.
export PYTHONDONTWRITEBYTECODE :=
export PATH := $(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup fmt check fast test services fuzz soak wheel deb demo bench docs shots clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
	  | while IFS='|' read -r name words; do printf '%-8s %s\n' "$$name" "$$words"; done

setup: $(READY) ## a virtual environment in .venv with everything that Python needs

# On Debian the venv module is a package of its own; root gets it, others are told.
$(READY): pyproject.toml
	@if ! $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(call install,python3-venv); fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
# pip compiles what it installs, but not what it leaves where it lies.
	$(BIN)/python -m compileall -q drainer
	@touch $@

fmt: setup ## format the code, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup ## formatting, lint, strict types: fast, changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fast: setup ## the tests that need no server: seconds
	$(BIN)/python -m pytest -q tests/unit tests/contract tests/test_layers.py tests/test_docs.py

# Tests wait for servers more than half of their time, so that six run on two processors;
# whoever has none left takes over another's. What counts time or memory runs before that,
# alone; this also leaves the compiled tests for the six. Servers and ledgers wait for a
# disk all the time, so that their files are in memory, if 4 GB are free.
MEMORY := /dev/shm
test: setup services ## every test; as root it installs what is missing, and nothing is skipped
	free=$$(df --output=avail $(MEMORY) 2>/dev/null | sed 1d); \
	[ "$${free:-0}" -lt 4000000 ] || { \
	  TMPDIR=$$(mktemp -d $(MEMORY)/drainer-XXXXXX) && export TMPDIR && \
	  chmod 1777 "$$TMPDIR" && trap 'rm -rf "$$TMPDIR"' EXIT INT TERM; }; \
	$(BIN)/python -m pytest -m alone && \
	$(BIN)/python -m pytest -m "not alone" -n 6 --dist worksteal

# The extra is no part of `setup`: atheris has no wheel for every Python. Without it
# inputs are drawn by chance.
fuzz: setup ## spoilt inputs for every parser, for SECONDS (300); exit 1 for a finding
	-$(BIN)/python -m pip install --quiet --editable '.[dev,fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(WORDS)

soak: setup services ## drains that are killed, starved and lied to, for SECONDS (300); exit 1 for a loss
	$(BIN)/python -m tests.soak --seconds $(SECONDS) $(WORDS)

# The same time for the same commit, so that a second build is the same.
EPOCH := $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
DIST := dist
DEB := build/deb

wheel: setup ## wheel and source distribution, in dist/
	rm -rf $(DIST)
	SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/python -m build --no-isolation --outdir $(DIST)

deb: wheel ## the Debian package, in dist/; needs debhelper, checks with lintian if present
	@command -v dh >/dev/null || { $(call install,debhelper lintian); }
	rm -rf $(DEB) && mkdir -p $(DEB)/drainer
	cp -r deploy docs README.md drainer.toml $(DIST)/*.whl $(DEB)/drainer
	mv $(DEB)/drainer/deploy/debian $(DEB)/drainer/debian
	for each in sysusers tmpfiles; do \
	  cp deploy/systemd/drainer.$$each $(DEB)/drainer/debian/; done
	version=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' drainer/__init__.py) && \
	  printf 'drainer (%s) stable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' "$$version" \
	  'See /usr/share/doc/drainer/docs/changelog.md.' \
	  "$$(sed -n 's/^Maintainer: //p' deploy/debian/control)" \
	  "$$(date --utc --rfc-email --date=@$(EPOCH))" >$(DEB)/drainer/debian/changelog
	cd $(DEB)/drainer && SOURCE_DATE_EPOCH=$(EPOCH) \
	  PIP='$(abspath $(BIN))/python -m pip' dpkg-buildpackage -us -uc -b
	mv $(DEB)/drainer_*.deb $(DIST)/
	! command -v lintian >/dev/null || lintian --fail-on error,warning $(DIST)/drainer_*.deb

demo: setup ## drain a sample spool into a local primary; needs Python alone
	$(BIN)/python -m tests.demo

bench: setup services ## drainer against `postqueue -f`: speed, rate, and false bounces at sick primaries
	$(BIN)/python -m tests.bench

docs: setup ## write the generated parts of docs/ again
	$(BIN)/python -m tests.support.docs

shots: setup services ## make the pictures of the status page in docs/images again
	$(BIN)/python -m tests.support.web.screenshots

clean: ## remove what these targets made
	rm -rf $(VENV) .exim .opensmtpd .haraka .fuzz demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Tests start servers of their own, in folders of their own; the system's are not started.
services:
	@missing=; for pair in $(TEST_PACKAGES); do \
	  command -v "$${pair#*:}" >/dev/null || missing="$$missing $${pair%:*}"; done; \
	if [ -n "$$missing" ]; then $(call install,$$missing); fi
	@$(BIN)/python -c 'import ldap' 2>/dev/null || { \
	  $(call install,libldap-dev libsasl2-dev python3-dev gcc) && \
	  $(BIN)/python -m pip install --quiet --editable '.[ldap]'; } || \
	  echo "make: python-ldap cannot be built here; its tests will be skipped" >&2
	@$(call unpack,$(EXIM),$(EXIM_PACKAGES))
	@$(call unpack,$(OPENSMTPD),$(OPENSMTPD_PACKAGES))
	@[ -e $(HARAKA) ] || { mkdir -p .haraka && npm install --silent --no-audit --no-fund \
	  --omit=dev --omit=optional --ignore-scripts --prefix .haraka \
	  Haraka@$(HARAKA_VERSION); } || \
	  echo "make: Haraka cannot be had here; its test will be skipped" >&2

# unpack PROGRAM, PACKAGES: the first part of the program's path is where they go.
define unpack
	if [ ! -x $(1) ] && command -v apt-get >/dev/null; then \
	  mkdir -p $(firstword $(subst /, ,$(1)))/packages && \
	  cd $(firstword $(subst /, ,$(1)))/packages && \
	  { apt-get download --quiet $(2) || \
	    { apt-get update --quiet && apt-get download --quiet $(2); }; } && \
	  for each in *.deb; do dpkg --extract "$$each" ..; done || \
	  echo "make: $(2) cannot be had here; tests will be skipped" >&2; fi
endef

# install PACKAGES: as root on Debian; anybody else is told, and goes on without.
define install
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "make: missing here:" $(1) "(as root, make installs it)" >&2; \
	else \
	  export DEBIAN_FRONTEND=noninteractive; policy=/usr/sbin/policy-rc.d; \
	  if [ ! -e $$policy ]; then \
	    trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	    printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 755 $$policy; \
	  fi; \
	  apt-get install --yes --quiet --no-install-recommends $(1) </dev/null || \
	    { apt-get update --quiet && \
	      apt-get install --yes --quiet --no-install-recommends $(1) </dev/null; }; \
	fi
endef
