# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What bash offers for vfioctl: the program knows, and is asked. Needs nothing of bash-completion's.

# A word as the program would be given it, into REPLY. What it expands to is not asked: that could run something.
_vfioctl_unquote() {
    local text=$1 quote='' character
    REPLY=''
    while [[ -n $text ]]; do
        character=${text:0:1}
        text=${text:1}
        case $quote$character in
            "''" | '""') quote='' ;;
            "'" | '"') quote=$character ;;
            # Between double quotes it is for these alone.
            \\ | '"'\\)
                if [[ -z $quote || $text == [\$\`\"\\]* ]]; then
                    character=${text:0:1}
                    text=${text:1}
                fi
                REPLY+=$character
                ;;
            *) REPLY+=$character ;;
        esac
    done
}

_vfioctl() {
    local rest=${COMP_LINE:0:COMP_POINT} words=() word answer index
    # Bash divides words at the ':' of addresses and the '=' of options. What no blank is between is one.
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        if ((index == 0)) || [[ $rest == [[:blank:]]* ]]; then
            words+=("")
            rest=${rest#"${rest%%[![:blank:]]*}"}
        fi
        # Up to the cursor.
        ((index < COMP_CWORD)) || word=$rest
        words[${#words[@]} - 1]+=$word
        rest=${rest#"$word"}
    done
    local REPLY
    for ((index = 0; index < ${#words[@]} - 1; index++)); do
        _vfioctl_unquote "${words[index]}"
        words[index]=$REPLY
    done
    # What bash takes for the word, and replaces, is the end of it.
    local start=${words[${#words[@]} - 1]%"$2"}
    # Programs for root are not on everyone's PATH.
    answer=$(PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin vfioctl --complete "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    case $answer in
        :directories | :files)
            local kind=-f
            [[ $answer == :files ]] || kind=-d
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen $kind -- "$2")
            return
            ;;
    esac
    while IFS=$'\t' read -r word _; do
        [[ -z $word ]] || COMPREPLY+=("${word#"$start"}")
    done <<<"$answer"
    # A value comes right behind it.
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *= ]] || compopt -o nospace
}

# -o nosort, which keeps the best driver first, is of bash 4.4.
complete -o nosort -F _vfioctl vfioctl 2>/dev/null || complete -F _vfioctl vfioctl
