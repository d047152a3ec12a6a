#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# What `make demo` runs on a simulated host: a ConnectX VF to the driver that fits it, and back.
# Run it with: simhost run tests/fixtures/connectx -- sh tests/demo.sh
set -eu

# simhost sets it for what it runs.
if [ -z "${SIMHOST:-}" ]; then
    echo "tests/demo.sh: not on a simulated host, and a real device must not be touched: run \`make demo\`" >&2
    exit 1
fi

vf=0000:3b:00.1
twin=0000:3b:00.2
devices=/sys/bus/pci/devices
policy=/etc/vfioctl.d

say() {
    printf '\n# %s\n' "$*"
}

run() {
    printf '$ %s\n' "$*"
    "$@"
}

# The demo is a test as well: it ends with an error where a device is not on the driver it should be on.
expect_driver() {
    driver=$(basename "$(readlink "$devices/$1/driver")")
    [ "$driver" = "$2" ] && return
    echo "tests/demo.sh: $1 is on ${driver:-no driver} instead of $2" >&2
    exit 1
}

say "A ConnectX-7 with four virtual functions, in a simulated Ubuntu server."
run vfioctl list

say "Two drivers match the first virtual function. Only mlx5_vfio_pci can migrate it."
run vfioctl explain $vf

say "Bind it to the best, and keep that choice."
run vfioctl bind $vf

say "The kernel's side of it."
run readlink $devices/$vf/driver
run cat $devices/$vf/driver_override
run ls $devices/$vf/vfio-dev
expect_driver $vf mlx5_vfio_pci

say "What is kept."
run cat $policy/$vf.toml

say "Its twin, of the same kind, was left alone."
run readlink $devices/$twin/driver
run cat $devices/$twin/driver_override
expect_driver $twin mlx5_core

say "Give it back."
run vfioctl unbind $vf
run readlink $devices/$vf/driver
run ls -A $policy
expect_driver $vf mlx5_core
