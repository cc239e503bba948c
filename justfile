# Shortcuts for `just` (https://just.systems); each is one plain command, so nothing needs it.
# They use the environment that the README's commands make, and make it where it is missing.

bin := if os_family() == "windows" { ".venv/Scripts" } else { ".venv/bin" }

[private]
default:
    @just --list

# make the environment
environment:
    test -x {{ bin }}/pytest || (python3 -m venv .venv && {{ bin }}/python -m pip install -q -c constraints.txt -e '.[test]')

# lint, types and import layers
check: environment
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .
    {{ bin }}/mypy
    {{ bin }}/lint-imports

# the quick tests; `just test tests/plots -x` passes options on
test *options: environment
    {{ bin }}/pytest {{ options }}

# kills, bit flips and fuzzing
slow *options: environment
    {{ bin }}/pytest -m slow {{ options }}

# format, and fix what the linter can fix
fix: environment
    {{ bin }}/ruff format .
    {{ bin }}/ruff check --fix .

# measure one of the README's claims: generate, reliability, step or train
bench name *options: environment
    {{ bin }}/python -m benchmarks.{{ name }} {{ options }}

# train `small` and make the README's pictures from it
pictures *options: environment
    {{ bin }}/python docs/pictures/make.py {{ options }}
