#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# What a PCI driver core answers, as text: one line an operation, `NAME: RESULT`. README.md beside this file says who runs
# it and what the lines are compared with. It needs sysop (sysop.c) on the PATH, the modules of the drivers named below
# not loaded yet, and these devices.
set -u

B=/sys/bus/pci D=/sys/bus/pci/devices P=/sys/bus/pci/drivers M=/sys/module
# By its path: busybox's shell takes its own modprobe before one of the PATH.
MODPROBE=/usr/sbin/modprobe

sysop mode / >/dev/null || exit 2

# The devices by their roles, whatever their addresses.
nth() {
    number=$1 ids=$2
    for path in "$D"/*; do
        read -r vendor <"$path/vendor"
        read -r device <"$path/device"
        [ "${vendor#0x}:${device#0x}" = "$ids" ] || continue
        number=$((number - 1))
        [ $number = 0 ] && { echo "${path##*/}"; return; }
    done
    echo "no device $1 with ids $ids" >&2
    exit 2
}
above() { path=$(readlink "$D/$1"); path=${path%/*}; echo "${path##*/}"; }

NIC=$(nth 1 8086:10d3) || exit   # two of one kind, each alone in its IOMMU group; native driver e1000e
TWIN=$(nth 2 8086:10d3) || exit
PF=$(nth 1 8086:10c9) || exit    # with 7 VFs; native driver igb, its VFs' igbvf
EDU=$(nth 1 1234:11e8) || exit   # that no driver knows
TEST=$(nth 1 1b36:0005) || exit  # that no driver knows, on a conventional bus
CARD=$(above "$TEST")            # the bridge to that bus
PORT=$(above "$NIC")             # the root port above, on pcieport
PF_PORT=$(above "$PF") TWIN_PORT=$(above "$TWIN") CARD_PORT=$(above "$CARD")
VF0=${PF%00.0}10.0 VF1=${PF%00.0}10.2
NONE=0000:fe:1f.7                # that is not there

# op NAME SYSOP-ARGUMENTS
op() {
    printf '%s: ' "$1"
    shift
    sysop "$@"
}

# run NAME COMMAND: its exit status alone, as messages differ between tools
run() {
    name=$1
    shift
    "$@" >/dev/null 2>&1
    echo "$name: exit status $?"
}

# state NAME DEVICE: what there is to see of its binding
state() {
    driver=$(sysop link "$D/$2/driver")
    override=$(sysop read "$D/$2/driver_override")
    # Not echo, in which some shells see to the backslashes.
    printf '%s: driver %s, override %s, vfio-dev %s\n' "$1" "${driver##*/}" "$override" "$(sysop list "$D/$2/vfio-dev")"
}

put() { printf %s "$2" >"$1"; }
# To be unbound and without override.
free() {
    [ ! -e "$D/$1/driver" ] || put "$D/$1/driver/unbind" "$1"
    put "$D/$1/driver_override" "
"
}

attributes() {
    for role in NIC PF EDU PORT; do
        eval "device=\$$role"
        for name in class config device driver driver_override enable iommu_group irq modalias numa_node remove rescan \
            resource revision subsystem subsystem_device subsystem_vendor uevent vendor; do
            op "mode of $role's $name" mode "$D/$device/$name"
        done
        for name in class device driver_override modalias revision subsystem_device subsystem_vendor uevent vendor; do
            op "$role's $name" read "$D/$device/$name"
        done
        for name in driver driver/module iommu_group subsystem; do
            op "$role's link $name" link "$D/$device/$name"
        done
    done
    op "mode of NIC's reset" mode "$D/$NIC/reset"
    op "mode of EDU's reset" mode "$D/$EDU/reset"
    op "mode of NIC's directory" mode "$D/$NIC/."
    op "mode of NIC on the bus" mode "$D/$NIC"
    op "NIC on the bus" link "$D/$NIC"
    for name in sriov_drivers_autoprobe sriov_numvfs sriov_offset sriov_stride sriov_totalvfs sriov_vf_device; do
        op "mode of PF's $name" mode "$D/$PF/$name"
        op "PF's $name" read "$D/$PF/$name"
        op "NIC's $name" read "$D/$NIC/$name"
    done
    for name in drivers drivers_autoprobe drivers_probe devices rescan uevent; do
        op "mode of the bus's $name" mode "$B/$name"
    done
    op "the bus's drivers_autoprobe" read $B/drivers_autoprobe
    for name in bind new_id remove_id uevent unbind; do
        op "mode of pcieport's $name" mode $P/pcieport/$name
        op "pcieport's $name" read $P/pcieport/$name
    done
    state "PORT at first" "$PORT"
    state "CARD at first" "$CARD"
    op "PORT in pcieport's directory" link "$P/pcieport/$PORT"
    op "read of drivers_probe" read $B/drivers_probe
    op "read of remove" read "$D/$NIC/remove"
    op "read of a directory" read "$D/$NIC"
    op "read of a missing attribute" read "$D/$NIC/nothing"
    op "read of a missing device's attribute" read "$D/$NONE/vendor"
    op "driver_override read in pieces" pieces "$D/$NIC/driver_override"
    op "uevent read in pieces" pieces "$D/$NIC/uevent"
    op "group's type" read "$D/$NIC/iommu_group/type"
    op "NIC alone in its group" list "$D/$NIC/iommu_group/devices"
    op "NIC in its group" link "$D/$NIC/iommu_group/devices/$NIC"
    op "CARD and TEST in one group" list "$D/$TEST/iommu_group/devices"
    op "mode of a group's reserved_regions" mode "$D/$NIC/iommu_group/reserved_regions"
    op "mode of a group's type" mode "$D/$NIC/iommu_group/type"
    op "mode of a group's directory" mode "$D/$NIC/iommu_group/."
    op "mode of a group's member" mode "$D/$NIC/iommu_group/devices/$NIC"
    op "a module that is not loaded" list $M/e1000e
    op "a driver that is not registered" list $P/e1000e
    op "bind by a driver that is not registered" write $P/e1000e/bind "$NIC"
}

not_sysfs() {
    op "write to a read-only attribute" write "$D/$NIC/vendor" 1
    op "write to a missing attribute" write "$D/$NIC/nothing" 1
    op "write to a missing attribute, O_CREAT" truncate "$D/$NIC/nothing" 1
    op "write to a missing device, O_CREAT" truncate "$D/$NONE/driver_override" x
    op "write to a directory" write "$D/$NIC" 1
    op "write to a link to a directory" write "$D/$NIC/subsystem" 1
    op "read and write of a write-only attribute" update $B/drivers_probe "$NIC"
    op "mkdir" mkdir "$D/$NIC/new"
    op "mkdir, there already" mkdir "$B/drivers"
    op "rmdir" rmdir "$D/$NIC/."
    op "rmdir of a directory" rmdir "$P/pcieport"
    op "unlink" unlink "$D/$NIC/driver_override"
    op "unlink of a missing attribute" unlink "$D/$NIC/nothing"
    op "link of a file" link "$D/$NIC/vendor"
    op "list of a file" list "$D/$NIC/vendor"
}

override() {
    file=$D/$NIC/driver_override
    set_it() { op "override, $1" "$2" "$file" "$3"; op "override, $1, reads" read "$file"; }
    set_it "word and newline" write 'one\n'
    set_it "word" write two
    set_it "O_CREAT O_TRUNC" truncate 'three\n'
    set_it "O_APPEND" append four
    set_it "nothing" write ''
    set_it "newline" write '\n'
    set_it "newline, again" write '\n'
    set_it "spaces around" write ' five '
    set_it "words" write 'six seven\n'
    set_it "lines" write 'eight\nnine\n'
    set_it "newline first" write '\nten'
    set_it "tab" write '	eleven	'
    set_it "up to a NUL" write 'twelve\0thirteen\n'
    set_it "NUL" write '\0'
    set_it "(null)" write '(null)\n'
    set_it "longest" fill 4094
    set_it "too long" fill 4095
    set_it "page" fill 4096
    set_it "over a page" fill 5000
    set_it "not UTF-8" write "$(printf '\344\366')"
    op "override, two writes" write2 "$file" one two
    op "override, two writes, reads" read "$file"
    op "override, two writes, clear" write2 "$file" '\n' ''
    op "override, write and read" update "$file" fourteen
    op "override, write nothing and read" update "$file" ''
    op "override, opened before it is set" stale "$file" "$file" fifteen
    state "override, unbound" "$NIC"
    op "override, bridge" write "$D/$PORT/driver_override" bogus
    state "override, does not unbind" "$PORT"
    op "override, bridge, clear" write "$D/$PORT/driver_override" '\n'
    free "$NIC"
}

native() {
    run "modprobe e1000e" $MODPROBE e1000e
    run "modprobe e1000e, again" $MODPROBE e1000e
    run "modprobe of what is not there" $MODPROBE no_such_module
    state "NIC after modprobe" "$NIC"
    state "TWIN after modprobe" "$TWIN"
    op "e1000e's directory" list $P/e1000e
    op "NIC's link driver, bound" link "$D/$NIC/driver"
    op "NIC's link driver/module, bound" link "$D/$NIC/driver/module"
    op "NIC in e1000e's directory" link "$P/e1000e/$NIC"
    op "module's link to its driver" link $M/e1000e/drivers/pci:e1000e
    op "module's drivers" list $M/e1000e/drivers
    op "module's initstate" read $M/e1000e/initstate
    op "mode of the module's initstate" mode $M/e1000e/initstate
    op "mode of the module's directory" mode $M/e1000e
    for name in bind new_id remove_id uevent unbind; do
        op "mode of e1000e's $name" mode $P/e1000e/$name
    done
    op "NIC's uevent, bound" read "$D/$NIC/uevent"
    op "NIC's enable, bound" read "$D/$NIC/enable"
    op "EDU's enable" read "$D/$EDU/enable"
    op "network interfaces of NIC" list "$D/$NIC/net"
    op "network interfaces of EDU" list "$D/$EDU/net"

    op "unbind, not bound" write $P/e1000e/unbind "$EDU"
    op "unbind, bound to another driver" write $P/e1000e/unbind "$PORT"
    op "unbind, absent" write $P/e1000e/unbind $NONE
    op "unbind, malformed" write $P/e1000e/unbind "${NIC#0000:}"
    op "unbind, nothing" write $P/e1000e/unbind ''
    op "unbind, newline" write $P/e1000e/unbind '\n'
    op "unbind, two addresses" write $P/e1000e/unbind "$NIC $TWIN"
    op "unbind, space behind" write $P/e1000e/unbind "$NIC "
    op "unbind, space before" write $P/e1000e/unbind " $NIC"
    op "unbind, two newlines" write $P/e1000e/unbind "$NIC\n\n"
    state "NIC after refused unbinds" "$NIC"
    op "unbind" write $P/e1000e/unbind "$NIC"
    state "NIC after unbind" "$NIC"
    op "NIC's uevent, unbound" read "$D/$NIC/uevent"
    op "NIC's enable, unbound" read "$D/$NIC/enable"
    op "enable, 0 of none" write "$D/$NIC/enable" 0
    op "enable, junk" write "$D/$NIC/enable" junk
    op "enable, 1" write "$D/$NIC/enable" 1
    op "enable, 1 again" write "$D/$NIC/enable" '1\n'
    op "enable, twice, reads" read "$D/$NIC/enable"
    op "enable, 0" write "$D/$NIC/enable" 0
    op "enable, 0 again" write "$D/$NIC/enable" 0
    op "enable, PORT's, bound" write "$D/$PORT/enable" 1
    op "network interfaces of NIC, unbound" list "$D/$NIC/net"
    op "unbind, again" write $P/e1000e/unbind "$NIC"

    op "bind, absent" write $P/e1000e/bind $NONE
    op "bind, malformed" write $P/e1000e/bind "${NIC#0000:}"
    op "bind, junk" write $P/e1000e/bind junk
    op "bind, nothing" write $P/e1000e/bind ''
    op "bind, newline" write $P/e1000e/bind '\n'
    op "bind, space behind" write $P/e1000e/bind "$NIC "
    op "bind, two newlines" write $P/e1000e/bind "$NIC\n\n"
    op "bind, two lines" write $P/e1000e/bind "$NIC\n$TWIN\n"
    op "bind, a page" fill $P/e1000e/bind 4096
    op "bind, over a page" fill $P/e1000e/bind 5000
    op "bind, no match" write $P/e1000e/bind "$EDU"
    op "bind, bound to another driver that matches" write $P/e1000e/bind "$PORT"
    state "NIC after refused binds" "$NIC"
    op "bind, newline behind" write $P/e1000e/bind "$NIC\n"
    state "NIC after bind" "$NIC"
    op "bind, bound already" write $P/e1000e/bind "$NIC"
    op "unbind, newline behind" write $P/e1000e/unbind "$NIC\n"
    op "bind, up to a NUL" write $P/e1000e/bind "$NIC\0junk"
    op "bind and unbind in two writes" write2 $P/e1000e/unbind "$NIC" "$NIC"

    op "drivers_probe, absent" write $B/drivers_probe $NONE
    op "drivers_probe, malformed" write $B/drivers_probe "${NIC#0000:}"
    op "drivers_probe, nothing" write $B/drivers_probe ''
    op "drivers_probe, newline" write $B/drivers_probe '\n'
    op "drivers_probe, bound" write $B/drivers_probe "$TWIN"
    op "drivers_probe, no match" write $B/drivers_probe "$EDU"
    state "EDU after drivers_probe" "$EDU"
    op "drivers_probe" write $B/drivers_probe "$NIC\n"
    state "NIC after drivers_probe" "$NIC"

    op "override that names no driver, NIC" write "$D/$NIC/driver_override" bogus
    state "NIC, override set while bound" "$NIC"
    op "NIC, bind of its driver despite the override" write $P/e1000e/bind "$NIC"
    op "NIC, unbind under another override" write $P/e1000e/unbind "$NIC"
    op "NIC, drivers_probe with bogus override" write $B/drivers_probe "$NIC"
    op "NIC, bind with an override for another" write $P/e1000e/bind "$NIC"
    state "NIC, bogus override" "$NIC"
    op "NIC, override with a space" write "$D/$NIC/driver_override" 'e1000e '
    op "NIC, bind with an override with a space" write $P/e1000e/bind "$NIC"
    op "NIC, override (null)" write "$D/$NIC/driver_override" '(null)'
    op "NIC, drivers_probe with (null) written" write $B/drivers_probe "$NIC"
    state "NIC, (null) written" "$NIC"
    op "NIC, override for its own driver" write "$D/$NIC/driver_override" e1000e
    op "NIC, drivers_probe with its own driver" write $B/drivers_probe "$NIC"
    state "NIC, override for its own driver, probed" "$NIC"
    op "uevent, write add" write "$D/$NIC/uevent" add
    op "uevent, write junk" write "$D/$NIC/uevent" junk
    op "uevent, write nothing" write "$D/$NIC/uevent" ''
    op "uevent, write change and newline" write "$D/$NIC/uevent" 'change\n'
    op "uevent, write two newlines" write "$D/$NIC/uevent" 'change\n\n'
    op "uevent, write junk behind" write "$D/$NIC/uevent" 'change junk'
    op "uevent, write a space behind" write "$D/$NIC/uevent" 'change '
    op "uevent, write an UUID" write "$D/$NIC/uevent" 'add 01234567-89ab-cdef-0123-456789ABCDEF'
    op "uevent, write a pair" write "$D/$NIC/uevent" 'add 01234567-89ab-cdef-0123-456789ABCDEF A=1 B=c\n'
    op "uevent, write half a pair" write "$D/$NIC/uevent" 'add 01234567-89ab-cdef-0123-456789ABCDEF A'
    op "driver's uevent, write add" write $P/e1000e/uevent add
    op "driver's uevent, write junk" write $P/e1000e/uevent junk
    op "bus's uevent, write add" write $B/uevent add
    op "bus's uevent, write junk" write $B/uevent junk
    free "$NIC"
}

vfio() {
    op "EDU, override before the module" write "$D/$EDU/driver_override" vfio-pci
    op "NIC, override with the module's name" write "$D/$NIC/driver_override" vfio_pci
    run "modprobe vfio-pci" $MODPROBE vfio-pci
    state "EDU, taken by the module" "$EDU"
    state "NIC, override is not the driver's name" "$NIC"
    op "vfio-pci's directory" list $P/vfio-pci
    op "vfio_pci's drivers" list $M/vfio_pci/drivers
    op "vfio_pci's link to its driver" link $M/vfio_pci/drivers/pci:vfio-pci
    op "vfio-pci's link to its module" link $P/vfio-pci/module
    op "EDU in class vfio-dev" link /sys/class/vfio-dev/vfio0
    op "EDU's vfio-dev" link "$D/$EDU/vfio-dev/vfio0/device"
    op "EDU's vfio-dev's class" link "$D/$EDU/vfio-dev/vfio0/subsystem"
    op "EDU's vfio-dev's uevent, write junk" write "$D/$EDU/vfio-dev/vfio0/uevent" junk
    op "EDU's vfio-dev's uevent" read "$D/$EDU/vfio-dev/vfio0/uevent"
    op "mode of EDU's vfio-dev's uevent" mode "$D/$EDU/vfio-dev/vfio0/uevent"
    op "mode of EDU's vfio-dev" mode "$D/$EDU/vfio-dev"
    op "EDU's uevent on vfio-pci" read "$D/$EDU/uevent"
    for module in vfio vfio_pci_core vfio_iommu_type1; do
        op "$module" read $M/$module/initstate
    done

    op "bind vfio, no override" write $P/vfio-pci/bind "$TWIN"
    free "$NIC"
    op "bind vfio, unbound, no override" write $P/vfio-pci/bind "$NIC"
    op "drivers_probe, no override, vfio-pci is in" write $B/drivers_probe "$NIC"
    state "NIC, the native driver takes it" "$NIC"
    op "NIC, override while bound" write "$D/$NIC/driver_override" 'vfio-pci\n'
    op "bind vfio, bound to the native driver" write $P/vfio-pci/bind "$NIC"
    op "drivers_probe, bound to the native driver" write $B/drivers_probe "$NIC"
    state "NIC still on its driver" "$NIC"
    op "NIC, unbind" write "$D/$NIC/driver/unbind" "$NIC"
    op "NIC, bind of the native driver under override" write $P/e1000e/bind "$NIC"
    op "NIC, bind vfio" write $P/vfio-pci/bind "$NIC"
    state "NIC on vfio-pci" "$NIC"
    op "NIC, bind vfio again" write $P/vfio-pci/bind "$NIC"
    op "NIC's enable on vfio-pci" read "$D/$NIC/enable"
    op "NIC's uevent on vfio-pci" read "$D/$NIC/uevent"
    op "NIC in class vfio-dev" link /sys/class/vfio-dev/vfio1
    op "class vfio-dev" list /sys/class/vfio-dev
    op "group's type on vfio-pci" read "$D/$NIC/iommu_group/type"
    op "NIC, override cleared while bound" write "$D/$NIC/driver_override" '\n'
    state "NIC stays on vfio-pci" "$NIC"
    op "NIC, bind vfio, bound, without override" write $P/vfio-pci/bind "$NIC"
    op "NIC, bind of the native driver, bound to vfio-pci" write $P/e1000e/bind "$NIC"
    op "NIC, override again" write "$D/$NIC/driver_override" vfio-pci
    op "NIC, unbind from vfio" write $P/vfio-pci/unbind "$NIC"
    state "NIC, override survives the unbind" "$NIC"
    op "class vfio-dev after it" list /sys/class/vfio-dev
    op "NIC, drivers_probe to vfio" write $B/drivers_probe "$NIC"
    state "NIC on vfio-pci by drivers_probe" "$NIC"
    free "$NIC"
    op "NIC, back by drivers_probe" write $B/drivers_probe "$NIC"
    state "NIC back" "$NIC"

    op "PORT, override" write "$D/$PORT/driver_override" vfio-pci
    op "bridge, bind vfio while on pcieport" write $P/vfio-pci/bind "$PORT"
    op "CARD, override" write "$D/$CARD/driver_override" vfio-pci
    op "bridge, bind vfio" write $P/vfio-pci/bind "$CARD"
    state "bridge after bind" "$CARD"
    op "bridge, drivers_probe to vfio" write $B/drivers_probe "$CARD"
    state "bridge after drivers_probe" "$CARD"
    free "$CARD"
    put "$D/$PORT/driver_override" '
'
    op "TEST, override" write "$D/$TEST/driver_override" vfio-pci
    op "TEST, bind vfio" write $P/vfio-pci/bind "$TEST"
    state "TEST, on vfio-pci behind its bridge" "$TEST"
    free "$TEST"
    free "$EDU"
}

new_id() {
    put "$P/e1000e/unbind" "$NIC"
    put "$P/e1000e/unbind" "$TWIN"
    file=$P/vfio-pci/new_id
    op "new_id, nothing" write $file ''
    op "new_id, newline" write $file '\n'
    op "new_id, one field" write $file 8086
    op "new_id, junk" write $file 'junk'
    op "new_id, junk behind one field" write $file '8086 junk'
    op "new_id, in the driver's own table" write $P/e1000e/new_id '8086 10d3'
    put "$D/$TWIN/driver_override" none
    op "new_id" write $file '8086 10d3\n'
    state "NIC, taken by new_id" "$NIC"
    state "TWIN, kept by its override" "$TWIN"
    state "PF, of another id" "$PF"
    op "new_id, again" write $file '8086 10d3'
    op "new_id, again with junk behind" write $file '8086 10d3 junk'
    op "new_id, again with a subsystem" write $file '8086 10d3 8086 0'
    op "new_id, other digits" write $file '0x1234 0x5678'
    op "new_id, upper case" write $file 'ABCD EF01'
    op "new_id, lower case of it" write $file 'abcd ef01'
    op "new_id, subsystem and class" write $file '1234 5679 ffffffff ffffffff 020000 ffff00'
    op "new_id, with driver data" write $file '1234 567a 1 2 0 0 1'
    op "new_id, with driver data 0" write $file '1234 567b 1 2 0 0 0'
    op "new_id, with driver data 0, again" write $file '1234 567b 1 2 0 0 0'
    op "new_id, more than 16 bits" write $file '12345 567b'
    op "new_id, commas" write $file '1234,567c'
    put "$D/$TWIN/driver_override" '
'
    op "TWIN, drivers_probe after new_id" write $B/drivers_probe "$TWIN"
    state "TWIN, the first driver takes it" "$TWIN"
    file=$P/vfio-pci/remove_id
    op "remove_id, nothing" write $file ''
    op "remove_id, one field" write $file 8086
    op "remove_id, unknown" write $file '8086 ffff'
    op "remove_id, in the driver's own table" write $P/e1000e/remove_id '8086 10d3'
    op "remove_id, more than was given" write $file '1234 5678 1 2'
    op "remove_id, less than was given" write $file '1234 567a'
    op "remove_id" write $file '8086 10d3'
    state "NIC, stays after remove_id" "$NIC"
    op "remove_id, again" write $file '8086 10d3'
    free "$NIC"
    op "NIC, bind vfio after remove_id" write $P/vfio-pci/bind "$NIC"
    op "NIC, drivers_probe after remove_id" write $B/drivers_probe "$NIC"
    state "NIC after remove_id" "$NIC"
    put "$P/e1000e/unbind" "$NIC"
    # Ids of a subsystem and a class that are the device's and that are not.
    for id in '8086 10d3 8086 1' '8086 10d3 ffffffff 1' '8086 10d3 ffffffff ffffffff 010000 ff0000' \
        '8086 ffffffff ffffffff ffffffff 020000 ffffff' '8086 10d3 8086 0 020100 ff0000' '8086 10d3 8086'; do
        op "new_id $id" write $P/vfio-pci/new_id "$id"
        state "NIC after new_id $id" "$NIC"
        [ ! -e "$D/$NIC/driver" ] || put "$D/$NIC/driver/unbind" "$NIC"
        [ ! -e "$D/$PF/driver" ] || put "$D/$PF/driver/unbind" "$PF"
        op "remove_id $id" write $P/vfio-pci/remove_id "$id"
    done
    put "$B/drivers_probe" "$NIC"
}

sriov() {
    file=$D/$PF/sriov_numvfs
    op "numvfs, PF without driver" write "$file" 1
    op "numvfs, PF without driver, 0" write "$file" 0
    op "numvfs, PF without driver, too many" write "$file" 9
    op "totalvfs, PF without driver" read "$D/$PF/sriov_totalvfs"
    op "PF, override" write "$D/$PF/driver_override" vfio-pci
    op "PF, drivers_probe to vfio" write $B/drivers_probe "$PF"
    op "numvfs, PF on vfio-pci" write "$file" 1
    free "$PF"
    run "modprobe igb" $MODPROBE igb
    state "PF after modprobe" "$PF"
    op "totalvfs, as the driver has it" read "$D/$PF/sriov_totalvfs"
    op "numvfs, too many" write "$file" 8
    op "numvfs, junk" write "$file" many
    op "numvfs, negative" write "$file" -1
    op "numvfs, over 16 bits" write "$file" 65536
    op "numvfs, junk behind" write "$file" '1 2'
    op "numvfs, space behind" write "$file" '1 '
    op "numvfs, nothing" write "$file" ''
    op "numvfs, newline" write "$file" '\n'
    op "numvfs, none of none" write "$file" 0
    op "numvfs, reads" read "$file"
    op "no virtfn" link "$D/$PF/virtfn0"
    op "numvfs" write "$file" '2\n'
    op "numvfs, two, reads" read "$file"
    op "virtfn0" link "$D/$PF/virtfn0"
    op "virtfn1" link "$D/$PF/virtfn1"
    op "no virtfn2" link "$D/$PF/virtfn2"
    op "physfn" link "$D/$VF0/physfn"
    op "VF0 on the bus" link "$D/$VF0"
    op "VF0's group" list "$D/$VF0/iommu_group/devices"
    for name in class config device driver_override enable irq modalias numa_node remove rescan reset resource revision \
        sriov_numvfs sriov_totalvfs subsystem_device subsystem_vendor uevent vendor; do
        op "mode of VF0's $name" mode "$D/$VF0/$name"
    done
    for name in class device driver_override enable modalias revision subsystem_device subsystem_vendor uevent vendor; do
        op "VF0's $name" read "$D/$VF0/$name"
    done
    state "VF0, no driver for it" "$VF0"
    op "VF0, drivers_probe" write $B/drivers_probe "$VF0"
    op "VF0, override" write "$D/$VF0/driver_override" vfio-pci
    run "modprobe igbvf" $MODPROBE igbvf
    state "VF0, override keeps igbvf off" "$VF0"
    state "VF1 after modprobe" "$VF1"
    op "VF0, bind vfio" write $P/vfio-pci/bind "$VF0"
    state "VF0 on vfio-pci" "$VF0"
    op "numvfs, another number" write "$file" 3
    op "numvfs, the same number" write "$file" 2
    op "numvfs, too many, with VFs" write "$file" 8
    op "PF, override with VFs" write "$D/$PF/driver_override" vfio-pci
    op "PF, bind vfio with VFs, bound" write $P/vfio-pci/bind "$PF"
    op "PF, override cleared" write "$D/$PF/driver_override" '\n'
    op "VF0, an opened file when the VF goes" stale "$D/$VF0/vendor" "$file" 0
    op "numvfs, none, reads" read "$file"
    op "VF0, gone" link "$D/$VF0"
    op "virtfn0, gone" link "$D/$PF/virtfn0"
    op "vfio-pci's directory, VF gone" list $P/vfio-pci
    op "numvfs, hexadecimal" write "$file" 0x1
    state "VF0, made anew without its override" "$VF0"
    op "VF0, an opened file when the VF goes and comes" stale "$D/$VF0/vendor" "$file" 0 1
    op "VF0, an opened attribute when the VF goes and comes" stale "$D/$VF0/driver_override" "$file" 0 1
    op "PF, an opened file when its VFs go and come" stale "$D/$PF/vendor" "$file" 0 1
    op "VF1, not made" link "$D/$VF1"
    op "numvfs, octal" write "$file" 00

    op "autoprobe, junk" write "$D/$PF/sriov_drivers_autoprobe" x
    op "autoprobe, nothing" write "$D/$PF/sriov_drivers_autoprobe" ''
    op "autoprobe, n" write "$D/$PF/sriov_drivers_autoprobe" n
    op "autoprobe, n, reads" read "$D/$PF/sriov_drivers_autoprobe"
    op "autoprobe, on" write "$D/$PF/sriov_drivers_autoprobe" 'on\n'
    op "autoprobe, on, reads" read "$D/$PF/sriov_drivers_autoprobe"
    op "autoprobe, 0" write "$D/$PF/sriov_drivers_autoprobe" 0
    op "numvfs, autoprobe 0" write "$file" 2
    state "VF0, autoprobe 0" "$VF0"
    op "VF0, bind of its driver, autoprobe 0" write $P/igbvf/bind "$VF0"
    op "VF0, drivers_probe, autoprobe 0" write $B/drivers_probe "$VF0"
    state "VF0, nothing took it" "$VF0"
    op "VF0, override, autoprobe 0" write "$D/$VF0/driver_override" vfio-pci
    op "VF0, drivers_probe with override, autoprobe 0" write $B/drivers_probe "$VF0"
    state "VF0, override is probed" "$VF0"
    op "VF1, override for its driver, autoprobe 0" write "$D/$VF1/driver_override" igbvf
    op "VF1, bind with override, autoprobe 0" write $P/igbvf/bind "$VF1"
    state "VF1, on its driver by override" "$VF1"

    op "PF, unbind with VFs" write $P/igb/unbind "$PF"
    op "VF0, gone with the PF's driver" link "$D/$VF0"
    op "numvfs, PF unbound, reads" read "$file"
    op "autoprobe, PF unbound, reads" read "$D/$PF/sriov_drivers_autoprobe"
    op "autoprobe, 1" write "$D/$PF/sriov_drivers_autoprobe" 1
    op "PF, override for vfio" write "$D/$PF/driver_override" vfio-pci
    op "PF, bind vfio without VFs" write $P/vfio-pci/bind "$PF"
    state "PF on vfio-pci" "$PF"
    op "totalvfs, as another driver had it" read "$D/$PF/sriov_totalvfs"
    op "numvfs, PF on vfio-pci, none" write "$file" 0
    free "$PF"
    op "PF, back" write $B/drivers_probe "$PF"
    state "PF back" "$PF"
    # The native driver takes its VFs along when it goes; this one leaves them for vfio-pci to find.
    run "modprobe pci-pf-stub" $MODPROBE pci-pf-stub
    free "$PF"
    op "PF, override for pci-pf-stub" write "$D/$PF/driver_override" pci-pf-stub
    op "PF, bind pci-pf-stub" write $P/pci-pf-stub/bind "$PF"
    op "numvfs, pci-pf-stub" write "$file" 1
    op "PF, unbind from pci-pf-stub" write $P/pci-pf-stub/unbind "$PF"
    op "numvfs, PF unbound with VFs, reads" read "$file"
    op "numvfs, PF unbound with VFs, none" write "$file" 0
    op "PF, override for vfio, VFs left" write "$D/$PF/driver_override" vfio-pci
    op "PF, bind vfio with VFs" write $P/vfio-pci/bind "$PF"
    op "PF, drivers_probe to vfio with VFs" write $B/drivers_probe "$PF"
    state "PF, with VFs, not on vfio-pci" "$PF"
    op "PF, override for pci-pf-stub again" write "$D/$PF/driver_override" pci-pf-stub
    op "PF, back on pci-pf-stub" write $B/drivers_probe "$PF"
    op "numvfs, back on pci-pf-stub, none" write "$file" 0
    free "$PF"
    op "PF, back on igb" write $B/drivers_probe "$PF"
    state "PF back on igb" "$PF"
}

reset() {
    op "reset, 1" write "$D/$NIC/reset" 1
    op "reset, 1 and newline" write "$D/$NIC/reset" '1\n'
    op "reset, 0" write "$D/$NIC/reset" 0
    op "reset, 2" write "$D/$NIC/reset" 2
    op "reset, junk" write "$D/$NIC/reset" junk
    op "reset, nothing" write "$D/$NIC/reset" ''
    state "NIC after reset" "$NIC"
}

hotplug() {
    free "$NIC"
    put "$D/$NIC/driver_override" vfio-pci
    put $B/drivers_probe "$NIC"
    state "NIC before its removal" "$NIC"
    op "remove, junk" write "$D/$NIC/remove" junk
    op "remove, 0" write "$D/$NIC/remove" 0
    op "remove, nothing" write "$D/$NIC/remove" ''
    state "NIC still there" "$NIC"
    op "remove, with an opened file" stale "$D/$NIC/vendor" "$D/$NIC/remove" 1
    op "NIC, gone" link "$D/$NIC"
    op "NIC, gone from vfio-pci's directory" list $P/vfio-pci
    op "NIC, gone from the class" list /sys/class/vfio-dev
    op "NIC, gone, bind" write $P/vfio-pci/bind "$NIC"
    op "rescan, junk" write $B/rescan junk
    op "rescan, 0" write $B/rescan 0
    op "NIC, not found by rescan 0" link "$D/$NIC"
    op "rescan" write $B/rescan 1
    state "NIC, found again, native driver has it" "$NIC"
    op "NIC's driver_override after its return" read "$D/$NIC/driver_override"
    op "NIC's directory after its return" link "$D/$NIC"
    op "remove of the port above" write "$D/$PORT/remove" 1
    op "NIC, gone with its port" link "$D/$NIC"
    op "PORT, gone" link "$D/$PORT"
    op "TWIN's rescan, junk" write "$D/$TWIN/rescan" junk
    op "rescan of another device" write "$D/$TWIN/rescan" 1
    op "PORT, not on that bus" link "$D/$PORT"
    op "rescan of the bus" write $B/rescan 1
    state "PORT, found again" "$PORT"
    state "NIC, found again with its port" "$NIC"
    op "PF, VFs before its removal" write "$D/$PF/sriov_numvfs" 2
    op "VF0, remove" write "$D/$VF0/remove" 1
    op "PF, remove with VFs" write "$D/$PF/remove" 1
    op "VF0, gone with its PF" link "$D/$VF0"
    op "PF, rescan" write $B/rescan 1
    state "PF, found again" "$PF"
    op "PF, found again without VFs" read "$D/$PF/sriov_numvfs"
    op "VF0, not found" link "$D/$VF0"
}

autoprobe() {
    op "bus autoprobe, 0" write $B/drivers_autoprobe 0
    op "bus autoprobe, 0, reads" read $B/drivers_autoprobe
    op "bus autoprobe, rescan after remove" write "$D/$NIC/remove" 1
    op "bus autoprobe, rescan" write $B/rescan 1
    state "NIC, found again, nothing probes" "$NIC"
    op "bus autoprobe, drivers_probe all the same" write $B/drivers_probe "$NIC"
    state "NIC, probed" "$NIC"
    run "bus autoprobe, modprobe -r" $MODPROBE -r e1000e
    state "NIC, module gone" "$NIC"
    run "bus autoprobe, modprobe" $MODPROBE e1000e
    state "NIC, module back, nothing probes" "$NIC"
    op "bus autoprobe, junk is on" write $B/drivers_autoprobe x
    op "bus autoprobe, junk, reads" read $B/drivers_autoprobe
    op "bus autoprobe, 1" write $B/drivers_autoprobe 1
    op "NIC, probed again" write $B/drivers_probe "$NIC"
}

modules() {
    free "$NIC"
    put "$D/$NIC/driver_override" vfio-pci
    put $B/drivers_probe "$NIC"
    op "vfio-pci's new_id before its module goes" write $P/vfio-pci/new_id '4321 8765'
    run "modprobe -r vfio-pci" $MODPROBE -r vfio-pci
    state "NIC, module unloaded" "$NIC"
    op "vfio-pci's directory, gone" list $P/vfio-pci
    op "vfio_pci's directory, gone" list $M/vfio_pci
    op "class vfio-dev, module unloaded" list /sys/class/vfio-dev
    op "NIC, drivers_probe without the module" write $B/drivers_probe "$NIC"
    op "NIC, bind without the module" write $P/vfio-pci/bind "$NIC"
    run "modprobe by alias" $MODPROBE "vfio_pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00"
    state "NIC, taken back by its override" "$NIC"
    op "PF, VFs before its module goes" write "$D/$PF/sriov_numvfs" 1
    run "modprobe -r igb" $MODPROBE -r igb
    op "VF0, gone with its PF's module" link "$D/$VF0"
    state "PF, module unloaded" "$PF"
    op "PF, numvfs without module" read "$D/$PF/sriov_numvfs"
    op "ids of new_id go with the driver" write $P/vfio-pci/remove_id '4321 8765'
    run "modprobe -r e1000e" $MODPROBE -r e1000e
    state "NIC, another driver's module goes" "$NIC"
    state "TWIN, its module unloaded" "$TWIN"
    op "e1000e's directory, gone" list $P/e1000e
    op "TWIN's link driver, gone" link "$D/$TWIN/driver"
    run "modprobe -r of what is not in" $MODPROBE -r e1000e
    put "$D/$TWIN/driver_override" bogus
    run "modprobe by modalias" $MODPROBE "$(cat "$D/$TWIN/modalias")"
    state "TWIN, kept from its module by its override" "$TWIN"
    free "$TWIN"
    run "modprobe -r vfio_pci_core, in use" $MODPROBE -r vfio_pci_core
    state "NIC after a refused removal" "$NIC"
    op "TWIN, back" write $B/drivers_probe "$TWIN"
    state "TWIN back" "$TWIN"
    # e1000e was registered after vfio-pci this time.
    put "$P/e1000e/unbind" "$TWIN"
    op "new_id of the driver that was registered first" write $P/vfio-pci/new_id '8086 10d3'
    state "TWIN, taken by new_id" "$TWIN"
    put "$P/vfio-pci/unbind" "$TWIN"
    op "TWIN, drivers_probe with two drivers that match" write $B/drivers_probe "$TWIN"
    state "TWIN, the driver that was registered first takes it" "$TWIN"

    run "modprobe --first-time of what is in" $MODPROBE --first-time e1000e
    run "modprobe -r --first-time of what is not in" $MODPROBE -r --first-time igb
    run "modprobe -r of what is built in" $MODPROBE -r iova
    run "modprobe of what is built in" $MODPROBE iova
    run "modprobe --first-time of what is built in" $MODPROBE --first-time iova
    run "modprobe -r of what is not there" $MODPROBE -r no_such_module
    run "modprobe -q of what is not there" $MODPROBE -q no_such_module
    run "modprobe -n" $MODPROBE -n igb
    op "igb, not loaded by modprobe -n" list $M/igb
    run "modprobe -a" $MODPROBE -a igb no_such_module igbvf
    op "igb, loaded by modprobe -a" read $M/igb/initstate
    op "igbvf, loaded by modprobe -a" read $M/igbvf/initstate
    run "modprobe -R" $MODPROBE -R vfio-pci
}

# Roles for addresses; the group's number is as chance has it, and an interface's name as the kernel has it.
roles() {
    sed -e "s/$NIC/NIC/g; s/$TWIN/TWIN/g; s/$PF/PF/g; s/$EDU/EDU/g; s/$TEST/TEST/g; s/$CARD/CARD/g; s/$PORT/PORT/g" \
        -e "s/$PF_PORT/PF-PORT/g; s/$TWIN_PORT/TWIN-PORT/g; s/$CARD_PORT/CARD-PORT/g" \
        -e "s/$VF0/VF0/g; s/$VF1/VF1/g; s/$NONE/NONE/g" \
        -e 's,iommu_groups/[0-9]*,iommu_groups/N,g'
}

{
    attributes
    not_sysfs
    override
    native
    vfio
    new_id
    sriov
    reset
    hotplug
    autoprobe
    modules
} | roles
