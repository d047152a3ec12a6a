# SPDX-License-Identifier: MIT OR Apache-2.0
"""Commands that take turns, each run timed from its start to its end.

As a program it reads commands as JSON and writes their times: so that it can do that on a simulated host.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

# Nothing of what is set outside is to make a difference. DEVPATH and SUBSYSTEM would, to driverctl.
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Wrong(Exception):
    """A command did not do what it is measured at."""


@dataclass
class Command:
    """What is run `runs` times, and afterwards, untimed, what shows that it worked and puts everything back."""

    argv: list[str]
    runs: int
    after: list[list[str]] = field(default_factory=list)


@dataclass
class Runs:
    """How long each run took, in nanoseconds, and what the first printed."""

    times: list[int] = field(default_factory=list)
    output: str = ""

    @property
    def median(self):
        return statistics.median(self.times)

    @property
    def fastest(self):
        return min(self.times)


def take_turns(commands, environment=None):
    """Runs the commands in turns, in their order and then the other way round, so that whatever else the machine does,
    and whoever is before, hits all alike. What has fewer runs is in as many of the first rounds."""
    spawn = Spawn(environment or ENVIRONMENT)
    done = {name: Runs() for name in commands}
    for number in range(max(command.runs for command in commands.values())):
        names = [name for name in commands if number < commands[name].runs]
        for name in names if number % 2 == 0 else reversed(names):
            command, runs = commands[name], done[name]
            taken, output = spawn.run(command.argv)
            if not runs.times:
                runs.output = output
            elif len(output) != len(runs.output):
                said = f"{len(runs.output)} characters, then {len(output)}"
                raise Wrong(f"`{' '.join(command.argv)[:200]}` printed {said}")
            runs.times.append(taken)
            for argv in command.after:
                spawn.run(argv)
    return done


def on_host(simhost, host, faults, commands):
    """The same on a simulated host."""
    argv = [simhost, "run", host]
    for fault in faults:
        argv += ["--fault", fault]
    given = json.dumps({name: asdict(command) for name, command in commands.items()})
    argv += ["--", sys.executable, os.path.abspath(__file__)]
    ran = subprocess.run(argv, input=given, stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        raise Wrong(f"simhost ended with status {ran.returncode}; what it said is above")
    return {name: Runs(**runs) for name, runs in json.loads(ran.stdout).items()}


class Spawn:
    """Starts commands with nothing between them and the clock. They print to a file in memory: what reads a pipe
    meanwhile would be measured as well."""

    def __init__(self, environment):
        self.environment = environment
        self.null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.out, self.err = os.memfd_create("stdout"), os.memfd_create("stderr")

    def run(self, argv):
        for file in (self.out, self.err):
            os.ftruncate(file, 0)
            os.lseek(file, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate((self.null, self.out, self.err))]
        start = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], argv, self.environment, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        taken = time.perf_counter_ns() - start
        output = self.text(self.out)
        if status != 0:
            code = os.waitstatus_to_exitcode(status)
            raise Wrong(f"`{' '.join(argv)[:200]}` ended with status {code}: {(output + self.text(self.err))[-2000:]}")
        return taken, output

    def text(self, file):
        size = os.fstat(file).st_size
        return os.pread(file, size, 0).decode(errors="replace") if size else ""


def main():
    commands = {name: Command(**one) for name, one in json.load(sys.stdin).items()}
    # A host's own programs come first.
    environment = ENVIRONMENT | {"PATH": f"/run/simhost/bin:{ENVIRONMENT['PATH']}"}
    environment |= {name: os.environ[name] for name in ("SIMHOST", "SYSTEMD_DEVICE_VERIFY_SYSFS")}
    try:
        done = take_turns(commands, environment)
    except Wrong as error:
        print(f"benches/turns.py: {error}", file=sys.stderr)
        return 1
    json.dump({name: asdict(runs) for name, runs in done.items()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
