# SPDX-License-Identifier: MIT OR Apache-2.0
"""Announces as udev does, to whoever listens in this network namespace: uevent.py SUBSYSTEM [COUNT]."""

import socket
import sys

NETLINK_KOBJECT_UEVENT = 15
# The group that udev sends to; libudev hears there whom root has sent from (systemd, sd-device/device-monitor.c).
UDEV = 2

subsystem = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else 1
path = "/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1"
fields = [f"bind@{path}", "ACTION=bind", f"DEVPATH={path}", f"SUBSYSTEM={subsystem}", "SEQNUM=1"]
message = b"".join(field.encode() + b"\0" for field in fields)
sender = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT)
for _ in range(count):
    sender.sendto(message, (0, UDEV))
