# SPDX-License-Identifier: MIT OR Apache-2.0
# What fish offers for vfioctl: the program knows, and is asked.

function __vfioctl_complete
    set -l word (commandline -ct)
    # Programs for root are not on everyone's PATH.
    set -lx PATH $PATH /usr/local/sbin /usr/sbin /sbin
    set -l answer (vfioctl --complete (commandline -opc) "$word" 2>/dev/null)
    switch "$answer[1]"
        case :directories :files
            # Behind an option's '=' too.
            set -l lead (string match -r -- '^--[^=]*=' "$word")
            set -l path (string replace -r -- '^--[^=]*=' '' "$word")
            if test "$answer[1]" = :files
                set path (__fish_complete_path "$path")
            else
                set path (__fish_complete_directories "$path")
            end
            set -q path[1]; and printf '%s\n' "$lead"$path
        case '*'
            printf '%s\n' $answer
    end
end

# As they come: the best driver first.
complete -c vfioctl -f -k -a '(__vfioctl_complete)'
