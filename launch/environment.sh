# Sourced by the other scripts.

# make_environment DIRECTORY EXTRAS: a virtual environment with jaxlm and the exact versions it was tested with.
# Does nothing when it is there and what it was made from has not changed.
make_environment() {
  local directory=$1 extras=$2 python=${PYTHON:-python3} stamp
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "$python is older than 3.11: set PYTHON to a newer one" >&2; exit 2; }
  stamp=$(cat pyproject.toml launch/constraints.txt | cksum)" $extras"
  if [ "$(cat "$directory/.jaxlm" 2>/dev/null)" = "$stamp" ]; then
    echo "== environment $directory is up to date"
    return
  fi
  echo "== environment $directory: pip install -e .[$extras]"
  "$python" -m venv "$directory"
  "$directory/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint launch/constraints.txt --editable ".[$extras]"
  echo "$stamp" >"$directory/.jaxlm"
  echo "== installed $(du -sm "$directory" | cut -f1) MB"
}
