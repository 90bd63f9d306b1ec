# Sourced by bin/minidist and bin/test, with $root set to the checkout: makes sure that .venv is there and current.
#
# Every start of a daemon from bin/ passes here, so the usual case, nothing to do, costs one small process (cmp). The
# environment is current when it was made for this path (scripts in it hold absolute paths), for exactly this
# pyproject.toml, and its interpreter still exists. Anything else is decided, and repaired, by setup.py.

# is_current WHAT: whether .venv has WHAT ("base": the program; "test": what bin/test needs as well).
is_current() {
    [ -z "${PYTHON-}" ] && [ -x "$root/.venv/bin/python" ] &&
        IFS= read -r made_for 2>/dev/null <"$root/.venv/made-for/path" && [ "$made_for" = "$root" ] &&
        cmp -s "$root/pyproject.toml" "$root/.venv/made-for/$1"
}

# find_python: sets $python to an interpreter that is new enough: the user's choice, the usual name, the newest.
find_python() {
    for python in ${PYTHON:+"$PYTHON"} "$root/.venv/bin/python" python3 python python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return 0
        elif [ -n "${PYTHON-}" ]; then
            echo "minidist: PYTHON=$PYTHON is not a Python 3.11 or newer" >&2
            return 1
        fi
    done
    echo "minidist: needs Python 3.11 or newer: install it (apt install python3, brew install python), or name it in PYTHON" >&2
    return 1
}

# set_up WHAT: 0 when .venv is current, else a failure has been explained on stderr in one line.
set_up() {
    is_current "$1" && return 0
    find_python || return 1
    "$python" -I "$root/bin/lib/setup.py" "$root" "$1"
}
