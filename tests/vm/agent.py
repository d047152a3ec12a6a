# SPDX-License-Identifier: MIT OR Apache-2.0
"""Commands to the guest and their answers: the host's side of guest/init."""

import base64
import contextlib
import dataclasses
import select
import signal
import time

READY = "ready"

# An emulated guest can miss an interrupt, and sleep on what has come; an empty line, which says nothing, brings another.
NUDGE_SECONDS = 10


class GuestLost(Exception):
    """The guest does not answer any more.

    `again` if that may be nobody's fault: emulated kernels panic, or do not come up, now and then.
    """

    def __init__(self, message, again=False):
        super().__init__(message)
        self.again = again


@dataclasses.dataclass
class Answer:
    command: str
    status: int
    stdout: str
    stderr: str

    def __str__(self):
        parts = [f"$ {self.command}", self.stdout.rstrip(), self.stderr.rstrip(), f"[status {self.status}]"]
        return "\n".join(part for part in parts if part)


class Agent:
    def __init__(self, process, transcript):
        self.process = process
        self.transcript = transcript
        self.pending = b""
        self.count = 0

    def wait_ready(self, seconds):
        while self.line(time.monotonic() + seconds, "the boot") != READY:
            pass

    def run(self, command, timeout=30):
        """Run a shell command in the guest."""
        self.count += 1
        encoded = base64.b64encode(command.encode()).decode()
        with contextlib.suppress(BrokenPipeError):  # line() says what became of QEMU
            self.process.channel.sendall(f"{self.count} {encoded}\n".encode())
        line = self.line(time.monotonic() + timeout, command)
        number, status, *texts = line.split(" ")
        if int(number) != self.count:
            raise GuestLost(f"answer {number} to command {self.count}: {command}")
        # The guest ends each text with a dot, so that an empty one is a word too.
        stdout, stderr = (base64.b64decode(text.rstrip(".")).decode(errors="replace") for text in texts)
        answer = Answer(command, int(status), stdout, stderr)
        with open(self.transcript, "a") as transcript:
            print(answer, file=transcript)
        return answer

    def line(self, deadline, what):
        nudge = time.monotonic() + NUDGE_SECONDS
        while b"\n" not in self.pending:
            readable, _, _ = select.select([self.process.channel], [], [], 0.5)
            data = self.process.channel.recv(65536) if readable else b""
            self.pending += data
            if panic := self.process.panic():
                raise GuestLost(f"{panic} (during {what}; see {self.process.log})", again=True)
            if readable and not data:
                status = self.process.wait()
                raise GuestLost(
                    f"QEMU ended with status {status} during {what}; see {self.process.log} and qemu.log beside it",
                    # An assertion of its own, as the emulation of processors has them that now and then do not hold.
                    again=status == -signal.SIGABRT,
                )
            if time.monotonic() > nudge:
                with contextlib.suppress(BrokenPipeError):
                    self.process.channel.sendall(b"\n")
                nudge += NUDGE_SECONDS
            if time.monotonic() > deadline:
                stall = self.process.stall()
                raise GuestLost(
                    f"no answer in time from the guest to: {what}{f' ({stall})' if stall else ''}; see {self.process.log}",
                    again=True,
                )
        line, _, self.pending = self.pending.partition(b"\n")
        return line.decode()
