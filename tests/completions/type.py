#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Types into a real shell on a terminal of its own, and says what became of it.

    type.py SHELL SHARE

SHELL is bash, bash-completion (bash with that package's functions), zsh or fish; SHARE is the directory with the completions
where `make install` puts them below share/. On standard input is a JSON list of keys to be typed, one line of a shell each; on
standard output one of [what ran, what was on the screen] each. The vfioctl in PATH has to print what it was given as
`GOT<WORD><WORD>;`.
"""

import json
import os
import re
import sys

try:
    import pexpect
except ImportError:
    sys.exit("pexpect is missing for this python3: apt-get install python3-pexpect (tests/prerequisites test)")

# A test that waits longer than this for a shell has failed.
PATIENCE = 30
PROMPT = "ready> "
ESCAPES = re.compile(r"\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b\][^\x07]*(\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b[=>78]|[\x07\x0e\x0f]")


def main():
    shell, share = sys.argv[1:]
    child = start(shell, share)
    results = []
    for keys in json.load(sys.stdin):
        child.send(keys + "\r")
        child.expect(r"GOT[^;\r\n]*;", timeout=PATIENCE)
        ran = child.after[3:-1]
        screen = child.before
        child.expect_exact(PROMPT)
        results.append([ran, ESCAPES.sub("", screen)])
    json.dump(results, sys.stdout)


def start(shell, share):
    program = shell.split("-")[0]
    options = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--private", "-i"]}[program]
    environment = dict(os.environ, TERM="xterm", XDG_DATA_DIRS=f"{share}:/usr/local/share:/usr/share", LC_ALL="C.UTF-8")
    child = pexpect.spawn(program, options, env=environment, encoding="utf-8", dimensions=(60, 180), timeout=PATIENCE)
    setup = {
        "bash": [f"source {share}/bash-completion/completions/vfioctl"],
        # It finds ours by its name.
        "bash-completion": ["source /usr/share/bash-completion/bash_completion"],
        "zsh": [f"fpath=({share}/zsh/site-functions $fpath)", "autoload -Uz compinit && compinit -u -D"],
        "fish": ["set -g fish_greeting; set -g fish_autosuggestion_enabled 0"],
    }[shell]
    prompt = {
        "bash": "PS1='rea''dy> '",
        "zsh": "unsetopt zle_bracketed_paste 2>/dev/null; unset zle_bracketed_paste; PROMPT='rea''dy> '",
        "fish": "function fish_prompt; printf '%s%s' rea 'dy> '; end; function fish_right_prompt; end",
    }[program]
    for line in [*setup, prompt]:
        child.send(line + "\r")
    child.expect_exact(PROMPT)
    return child


main()
