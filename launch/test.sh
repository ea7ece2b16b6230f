#!/usr/bin/env bash
# The test suite in an environment of its own, with the minutes of each part at the end.
#
#   launch/test.sh [--parity] [--compiler] [arguments of pytest]
#
# --parity adds torch and transformers, the references that layers and models are compared with, and
# lm-evaluation-harness (230 MB with what it brings); --compiler adds the one for TPUs, for which two small steps are
# planned. (That for GPUs warns of missing drivers in every process.)
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
extras=report,serve,test
if [ "${1:-}" = --parity ]; then extras=$extras,parity,eval; shift; fi
if [ "${1:-}" = --compiler ]; then extras=$extras,tpu; shift; fi
start=$SECONDS
make_environment .venv-test "$extras"
installed=$SECONDS
echo "== ruff"
.venv-test/bin/ruff check .
.venv-test/bin/ruff format --check .
echo "== pytest $*"
status=0
.venv-test/bin/python -m pytest -n "${JAXLM_TEST_PROCESSES:-2}" -m "not nightly" "$@" || status=$?
printf '== minutes: install %.1f, tests %.1f\n' \
  "$(((installed - start) * 10 / 60))e-1" "$(((SECONDS - installed) * 10 / 60))e-1"
exit "$status"
