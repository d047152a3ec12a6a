# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the cases that probe devices have in common: the devices, and the token of a PF."""

# edu behind a root port of its own; and beside the test device's, in the group of their bridge, one on a native driver.
DEVICES = [
    "pcie-root-port,id=edu-port,chassis=11,slot=11,addr=0x16",
    "edu,bus=edu-port",
    "virtio-net-pci,bus=conventional,addr=0x2,romfile=",
]

TESTDEV = "1b36:0005"
PF, VF = "8086:10c9", "8086:10ca"
TOKEN = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3"
OTHER_TOKEN = "00000000-5a5f-4f5a-a211-f591514ba1f3"

REFUSED, NOT_PERMITTED = 4, 6


def find_edu(vm):
    """The one of DEVICES, not that of every guest."""
    (edu,) = (address for address in vm.with_id("1234:11e8") if not address.startswith("0000:00:"))
    return edu
