#!/bin/sh
# Connects @TITLE@ on this machine to the lumeproxy at @URL@, and takes that back.
#
#   curl -fsS @URL@/setup/@TOOL@.sh | sh
#   curl -fsS @URL@/setup/@TOOL@.sh | sh -s -- --undo
#
# Shows what would change and asks. Options: --dry-run, --yes, --undo. The key is taken from LUME_KEY, else asked for.
# Needs node, which most of these tools come with; without it, the lines to put in by hand are shown.
set -eu

url=@QUOTED_URL@
tool=@TOOL@

program() {
    cat <<'END_OF_PROGRAM'
@PROGRAM@
END_OF_PROGRAM
}

by_hand() {
    cat <<'END_OF_TEXT'
@BY_HAND@
END_OF_TEXT
}

run() {
    program | node --input-type=module - "$tool" "$url" "$1"
}

fail() {
    printf 'lumeproxy: %s\n' "$1" >&2
    exit "${2:-1}"
}

has_terminal() {
    (: </dev/tty) 2>/dev/null
}

ask_key() {
    has_terminal || fail 'There is nobody to ask for the key; put it into LUME_KEY.'
    echo_on=$(stty -g </dev/tty)
    trap 'stty "$echo_on" </dev/tty' EXIT
    trap 'exit 1' HUP INT TERM
    stty -echo </dev/tty # before the prompt: whoever sees that may type at once
    printf 'API key: ' >/dev/tty
    IFS= read -r LUME_KEY </dev/tty || fail 'No key was given. Nothing was changed.'
    stty "$echo_on" </dev/tty
    trap - EXIT HUP INT TERM
    printf '\n' >/dev/tty
    export LUME_KEY
}

confirm() {
    has_terminal || fail 'There is nobody to ask; say --yes to go ahead, or --dry-run to look only.'
    printf 'Set it up so? [Y/n] ' >/dev/tty
    IFS= read -r reply </dev/tty || reply=n
    case $reply in
        '' | y | Y | yes | Yes) ;;
        *) fail 'Nothing was changed.' ;;
    esac
}

main() {
    yes='' dry_run='' undo=''
    for option in "$@"; do
        case $option in
            --yes) yes=1 ;;
            --dry-run) dry_run=1 ;;
            --undo) undo=1 ;;
            *) fail 'The options are --dry-run, --yes and --undo.' 2 ;;
        esac
    done
    if ! command -v node >/dev/null 2>&1 || ! node -e 'process.exit(parseInt(process.versions.node, 10) < 18 ? 1 : 0)'; then
        by_hand
        fail 'node (18 or newer) is not there. Nothing was changed; do by hand what is said above.'
    fi
    if [ -n "$undo" ]; then
        run undo-plan
        [ -n "$dry_run" ] || run undo
        return
    fi
    [ -n "${LUME_KEY:-}" ] || ask_key
    export LUME_KEY
    status=0
    run plan || status=$?
    case $status in
        0) [ -n "$dry_run$yes" ] || confirm ;;
        3) echo 'Nothing has to change.' ;;
        *) exit "$status" ;;
    esac
    [ -n "$dry_run" ] || run apply
}

# All of the above is read before anything is done: a download that breaks off does nothing.
main "$@"
