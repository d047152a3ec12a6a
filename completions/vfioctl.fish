# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vfioctl_global_optspecs
    string join \n root= kernel= json dry-run timeout= color= v/verbose h/help V/version
end

function __fish_vfioctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vfioctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vfioctl_using_subcommand
    set -l cmd (__fish_vfioctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vfioctl -n "__fish_vfioctl_needs_command" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_needs_command" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_needs_command" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_needs_command" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_needs_command" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "list" -d 'List devices: driver, IOMMU group, best VFIO driver'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "show" -d 'Show everything about one device'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "match" -d 'Print the name of the best VFIO driver, and nothing else'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "explain" -d 'Show every driver that matches, in order, with verdict and reasons'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "bind" -d 'Bind devices to their best VFIO driver, and keep the choice'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "unbind" -d 'Give devices back to the kernel\'s own choice, and forget what was kept'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "apply" -d 'Do what the choices kept in vfioctl.d say: at boot, or by hand'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "claim" -d 'Keep native drivers off the devices of vfioctl.d, before they are loaded: at boot'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "probe" -d 'Ask a device on a VFIO driver what it can do; this resets it'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "sriov" -d 'Show PFs and their VFs, or make and bind VFs'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "drivers" -d 'Set the VFIO drivers that exist against those this kernel has'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "groups" -d 'Show IOMMU groups as a tree: what goes to a VM together, and what keeps it from going'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "doctor" -d 'Say whether this host is ready for VFIO, and what mends it where it is not'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "snapshot" -d 'Write down what this program reads of the host, for a bug report or to look at elsewhere with --root'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "initramfs" -d 'Print what an initramfs needs, so that native drivers in it keep off the devices of vfioctl.d'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "libvirt" -d 'Prepare devices for libvirt\'s domains, and say what libvirt would do with them'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "driverctl" -d 'Take driverctl\'s verbs and options; vfio-pci means the best VFIO driver'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "import-driverctl" -d 'Take over the overrides that driverctl keeps in /etc/driverctl.d'
complete -c vfioctl -n "__fish_vfioctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l class -d 'Only devices of this class: a name (network, nvme) or hex digits (0108)' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l driver -d 'Only devices on this driver; none: on no driver' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l group -d 'Only devices of this IOMMU group' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l vfio -d 'Only VFIO devices'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l watch -d 'Go on, and print what changes as it does'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand list" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand show" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l modalias -d 'A modalias in place of a device' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand match" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l modalias -d 'A modalias in place of a device' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand explain" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l driver -d 'Take this driver (\'-\' and \'_\' alike); none: keep all drivers off' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l require -d 'Refuse a driver that does not give this here' -r -f -a "migration\t'Live migration'
dirty-tracking\t'Dirty page tracking by the device itself'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l force -d 'Do it in spite of what speaks against it' -r -f -a "driver\t'The driver does not list the device'
vfio\t'Another framework has made a VFIO device of it'
root-disk\t'The running system lives on it: its root or another file system it cannot do without, or swap'
session\t'It carries the remote session of whoever asks'
disk\t'A file system or another user of a disk'
network\t'A network interface with addresses, routes, traffic or others on top of it'
display\t'What is seen on a screen'
console\t'The kernel\'s console'
input\t'The only keyboard'
tpm\t'The trusted platform module'
sound\t'Sound that plays or is recorded'
watchdog\t'A watchdog that is counting'
process\t'Any other device node that a process has open'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l strict -d 'Take the best driver or none: no fallback'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l no-save -d 'Do not keep the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l group -d 'Take the whole IOMMU group of each device, its bridges left out'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l prepare -d 'Do what is known to be due before the driver comes, and keep that; see vfioctl.d(5)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l no-prepare -d 'Do nothing of that kind, not even what is kept for the device'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand bind" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l driver -d 'Bind to this driver instead of the kernel\'s own choice' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l force -d 'Take it away although this host uses it as that' -r -f -a "root-disk\t'The running system lives on it: its root or another file system it cannot do without, or swap'
session\t'It carries the remote session of whoever asks'
disk\t'A file system or another user of a disk'
network\t'A network interface with addresses, routes, traffic or others on top of it'
display\t'What is seen on a screen'
console\t'The kernel\'s console'
input\t'The only keyboard'
tpm\t'The trusted platform module'
sound\t'Sound that plays or is recorded'
watchdog\t'A watchdog that is counting'
process\t'Any other device node that a process has open'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l no-save -d 'Leave the choice that is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand unbind" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand apply" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l udev -d 'Write nothing; print the driver for this device as the udev rule wants it' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand claim" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l vf-token -d 'The token of a VF whose PF is on a VFIO driver too' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand probe" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l driver -d 'Bind its VFs to this driver; auto: the best VFIO driver; none: keep all drivers off' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l force -d 'Do it in spite of what speaks against it' -r -f -a "driver\t'The driver does not list the device'
vfio\t'Another framework has made a VFIO device of it'
root-disk\t'The running system lives on it: its root or another file system it cannot do without, or swap'
session\t'It carries the remote session of whoever asks'
disk\t'A file system or another user of a disk'
network\t'A network interface with addresses, routes, traffic or others on top of it'
display\t'What is seen on a screen'
console\t'The kernel\'s console'
input\t'The only keyboard'
tpm\t'The trusted platform module'
sound\t'Sound that plays or is recorded'
watchdog\t'A watchdog that is counting'
process\t'Any other device node that a process has open'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l keep-going -d 'Keep the VFs that could be bound if others cannot'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand sriov" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand drivers" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l format -d 'How to print them' -r -f -a "text\t'A tree'
json\t'One JSON document, as with --json'
dot\t'A graph for Graphviz'
svg\t'A picture; Graphviz draws it'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand groups" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand snapshot" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l format -d 'What the image\'s own files are made of' -r -f -a "rules\t'udev rules, for devices that appear while the initramfs runs'
table\t'A device a line, for the script that runs before udev'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand initramfs" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -f -a "hook" -d 'Be libvirt\'s hook for QEMU: bind the devices of a domain before it starts, give them back when it has ended'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -f -a "xml" -d 'Print what a domain\'s XML needs for a device'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -f -a "check" -d 'Say what would happen to the PCI devices of a domain if it were started'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and not __fish_seen_subcommand_from hook xml check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l libvirt-version -d 'For this version of libvirt, like 11.3.0, instead of the one that is installed' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from hook" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l managed -d 'Is libvirt to take the device from its driver, and to give it back?' -r -f -a "yes\t'It does'
no\t'It takes it as it is: on a VFIO driver'"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l libvirt-version -d 'For this version of libvirt, like 11.3.0, instead of the one that is installed' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l interface -d 'An <interface type=\'hostdev\'>, for which libvirt also sets MAC address and VLAN: for VFs of network cards'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from xml" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l libvirt-version -d 'For this version of libvirt, like 11.3.0, instead of the one that is installed' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from check" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from help" -f -a "hook" -d 'Be libvirt\'s hook for QEMU: bind the devices of a domain before it starts, give them back when it has ended'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from help" -f -a "xml" -d 'Print what a domain\'s XML needs for a device'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from help" -f -a "check" -d 'Say what would happen to the PCI devices of a domain if it were started'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand libvirt; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "set-override" -d 'Bind a device to a driver, and keep the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "unset-override" -d 'Give a device back to the kernel\'s own choice, and forget what was kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "load-override" -d 'Do what the choice kept for a device says'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "list-devices" -d 'List devices and their drivers; overridden ones are marked with [*]'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "list-overrides" -d 'List the devices whose driver is overridden'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "list-persisted" -d 'List the devices for which a choice is kept, and the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and not __fish_seen_subcommand_from set-override unset-override load-override list-devices list-overrides list-persisted help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from set-override" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from unset-override" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from load-override" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-devices" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-overrides" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -s b -l bus -d 'The bus that devices are on: pci is the only one taken' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l noprobe -d 'Do not probe: leave the device on no driver until it is probed'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l nosave -d 'Do not keep the choice, or leave what is kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l debug -d 'Like --verbose'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from list-persisted" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "set-override" -d 'Bind a device to a driver, and keep the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "unset-override" -d 'Give a device back to the kernel\'s own choice, and forget what was kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "load-override" -d 'Do what the choice kept for a device says'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "list-devices" -d 'List devices and their drivers; overridden ones are marked with [*]'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "list-overrides" -d 'List the devices whose driver is overridden'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "list-persisted" -d 'List the devices for which a choice is kept, and the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand driverctl; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l root -d 'Look at the host whose root directory is DIR' -r -F
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l kernel -d 'Choose for this kernel release instead of the one that runs' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l timeout -d 'Give up on a call into the kernel after S seconds, not 60' -r
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l color -d 'Colour the output' -r -f -a "auto\t''
always\t''
never\t''"
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l yes -d 'Do it: without, it is only said what would be done'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l json -d 'Print one JSON document'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -l dry-run -d 'Say what would be done, and do nothing'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -s v -l verbose -d 'Say every step, and what was odd in the tables'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -s h -l help -d 'Print help'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand import-driverctl" -s V -l version -d 'Print version'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "list" -d 'List devices: driver, IOMMU group, best VFIO driver'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "show" -d 'Show everything about one device'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "match" -d 'Print the name of the best VFIO driver, and nothing else'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "explain" -d 'Show every driver that matches, in order, with verdict and reasons'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "bind" -d 'Bind devices to their best VFIO driver, and keep the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "unbind" -d 'Give devices back to the kernel\'s own choice, and forget what was kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "apply" -d 'Do what the choices kept in vfioctl.d say: at boot, or by hand'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "claim" -d 'Keep native drivers off the devices of vfioctl.d, before they are loaded: at boot'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "probe" -d 'Ask a device on a VFIO driver what it can do; this resets it'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "sriov" -d 'Show PFs and their VFs, or make and bind VFs'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "drivers" -d 'Set the VFIO drivers that exist against those this kernel has'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "groups" -d 'Show IOMMU groups as a tree: what goes to a VM together, and what keeps it from going'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "doctor" -d 'Say whether this host is ready for VFIO, and what mends it where it is not'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "snapshot" -d 'Write down what this program reads of the host, for a bug report or to look at elsewhere with --root'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "initramfs" -d 'Print what an initramfs needs, so that native drivers in it keep off the devices of vfioctl.d'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "libvirt" -d 'Prepare devices for libvirt\'s domains, and say what libvirt would do with them'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "driverctl" -d 'Take driverctl\'s verbs and options; vfio-pci means the best VFIO driver'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "import-driverctl" -d 'Take over the overrides that driverctl keeps in /etc/driverctl.d'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and not __fish_seen_subcommand_from list show match explain bind unbind apply claim probe sriov drivers groups doctor snapshot initramfs libvirt driverctl import-driverctl help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from libvirt" -f -a "hook" -d 'Be libvirt\'s hook for QEMU: bind the devices of a domain before it starts, give them back when it has ended'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from libvirt" -f -a "xml" -d 'Print what a domain\'s XML needs for a device'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from libvirt" -f -a "check" -d 'Say what would happen to the PCI devices of a domain if it were started'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "set-override" -d 'Bind a device to a driver, and keep the choice'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "unset-override" -d 'Give a device back to the kernel\'s own choice, and forget what was kept'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "load-override" -d 'Do what the choice kept for a device says'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "list-devices" -d 'List devices and their drivers; overridden ones are marked with [*]'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "list-overrides" -d 'List the devices whose driver is overridden'
complete -c vfioctl -n "__fish_vfioctl_using_subcommand help; and __fish_seen_subcommand_from driverctl" -f -a "list-persisted" -d 'List the devices for which a choice is kept, and the choice'
