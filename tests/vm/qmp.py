# SPDX-License-Identifier: MIT OR Apache-2.0
"""QEMU's own commands (QMP): to plug, to unplug, and to ask which device is where."""

import contextlib
import json
import time

from agent import GuestLost
from check import Failure

ANSWER_SECONDS = 60


class Qmp:
    """docs/interop/qmp-spec.rst of QEMU, over our end of a socket pair."""

    def __init__(self, channel):
        self.channel = channel
        self.pending = b""
        self.events = []
        self.answer()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        request = {"execute": command, "arguments": arguments}
        with contextlib.suppress(BrokenPipeError):  # message() says what became of QEMU
            self.channel.sendall(json.dumps(request).encode())
        while True:
            message = self.answer()
            if "event" in message:
                self.events.append(message)
            elif "error" in message:
                raise Failure(f"QEMU: {command} {arguments}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(self, name, seconds, **data):
        """Until QEMU has said `name` with this in its data, then or before; True if it did."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            try:
                self.events.append(self.message(left))
            except TimeoutError:
                return False

    def answer(self):
        try:
            return self.message(ANSWER_SECONDS)
        except TimeoutError:
            raise GuestLost(f"QEMU did not answer within {ANSWER_SECONDS} s", again=True) from None

    def message(self, seconds):
        while b"\n" not in self.pending:
            self.channel.settimeout(seconds)
            try:
                data = self.channel.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise GuestLost("QEMU ended, or never started; see qemu.log")
            self.pending += data
        line, _, self.pending = self.pending.partition(b"\n")
        return json.loads(line)


def functions(buses):
    """Address by device id, of what query-pci answers."""
    for bus in buses:
        for device in bus["devices"]:
            if device["qdev_id"]:
                address = f"0000:{device['bus']:02x}:{device['slot']:02x}.{device['function']}"
                yield device["qdev_id"], address
            bridge = device.get("pci_bridge", {})
            yield from functions([bridge] if bridge.get("devices") else [])
