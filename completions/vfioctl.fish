# SPDX-License-Identifier: MIT OR Apache-2.0
# What fish offers for vfioctl: the program knows, and is asked.

function __vfioctl_complete
    set -l word (commandline -ct)
    # Programs for root are not on everyone's PATH.
    set -lx PATH $PATH /usr/local/sbin /usr/sbin /sbin
    set -l answer (vfioctl --complete (commandline -opc) "$word" 2>/dev/null)
    switch "$answer[1]"
        case :directories
            __fish_complete_directories "$word"
        case :files
            __fish_complete_path "$word"
        case '*'
            printf '%s\n' $answer
    end
end

# As they come: the best driver first.
complete -c vfioctl -f -k -a '(__vfioctl_complete)'
