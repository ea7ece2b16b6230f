#!/usr/bin/env bash
# The long drills: real processes killed, stopped and starved by the dozen, fully optimized programs.
#
#   launch/drills.sh [arguments of pytest]
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment .venv-test report,test
# An empty value is one: the drills of the test suite compile with less care.
export XLA_FLAGS=${XLA_FLAGS-}
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.venv-test/compiled-drills}
mkdir -p "$JAX_COMPILATION_CACHE_DIR"
exec .venv-test/bin/python -m pytest -m nightly --durations=0 tests/drills "$@"
