#!/bin/sh
# Puts the Lua scripts into the form in which argocd-cm takes actions. Called by deploy/generate.sh.
set -eu
cd "$(dirname "$(readlink -f "$0")")"

indent() { sed "s/^\(.\)/$1\1/"; }

# One definition: the action's name in Argo CD, the command's action, for Promote whether full, and for Approve which
# plan.
definition() {
    echo "- name: $1"
    echo "  action.lua: |"
    { echo "local name, action, full, approval = \"$1\", \"$2\", ${3:-nil}, ${4:-nil}"; cat command.lua; } | indent '    '
}

{
    echo "# Made from discovery.lua and command.lua by \`make generate\`."
    echo "discovery.lua: |"
    indent '  ' < discovery.lua
    echo "definitions:"
    definition promote Promote
    definition promote-full Promote true
    definition abort Abort
    definition undo Undo
    definition retry Retry
    definition approve Approve
    definition approve-migration Approve nil '"Migration"'
    definition approve-migrate-down Approve nil '"MigrateDown"'
    definition approve-restore Approve nil '"Restore"'
    definition pause Pause
    definition resume Resume
    definition skip Skip
} > actions.yaml
