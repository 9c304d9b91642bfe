#!/usr/bin/env bash
# Installs the rig and runs everything about the Neovim plugin: format, types, help file, and the tests on each
# Neovim of the rig, against the programs that S0_BIN and S0_LSP_BIN name. Words name tests, as in run.lua.
# The last line is "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
RIG=${S0_NEOVIM_RIG:-$PWD/target/rigs/neovim}
export S0_BIN=${S0_BIN:-$PWD/target/debug/s0}
export S0_LSP_BIN=${S0_LSP_BIN:-${S0_BIN%/*}/s0-sync-lsp}

passed=0
failed=0

# check NAME COMMAND…: a test that is one command.
check() {
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "ok     $name"
    else
        failed=$((failed + 1))
        echo "FAILED $name"
    fi
}

if ! tests/neovim/install.sh; then
    echo "the rig could not be installed"
    echo "0 passed, 1 failed"
    exit 1
fi

lua() { git ls-files --cached --others --exclude-standard -- '*.lua'; }
nvim() { "$RIG/nvim-$1/nvim" --headless -u NONE -i NONE -l "${@:2}"; }
types() {
    VIMRUNTIME=$RIG/nvim-forky/root/usr/share/nvim/runtime "$RIG/cargo/bin/emmylua_check" \
        --config neovim/.emmyrc.json --warnings-as-errors neovim
}

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046 # names without spaces
    check "the Lua is formatted" node tests/neovim/stylua.mjs "$RIG" $(lua)
    if [ -x "$RIG/cargo/bin/emmylua_check" ]; then
        check "the types fit" types
    else
        echo "the types are checked by \`tests/run long neovim\`, which builds the checker"
    fi
    check "the help file is up to date" nvim forky neovim/scripts/gen_doc.lua --check
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
for suite in trixie forky; do
    nvim "$suite" tests/neovim/run.lua "$@" 2>&1 | tee "$log" | sed '$d'
    read -r good bad < <(tail -n 1 "$log" | sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p')
    if [ -z "${good:-}" ]; then
        # It died before it could count.
        tail -n 1 "$log"
        good=0 bad=1
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
