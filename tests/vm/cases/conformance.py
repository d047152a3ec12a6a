# SPDX-License-Identifier: MIT OR Apache-2.0
"""The kernel answers the operations of tests/conformance as is written down there: what simhost has to answer too."""

import json
import pathlib

from check import expect

HERE = pathlib.Path(__file__).resolve().parents[2] / "conformance"
SECONDS = 180


def run(vm):
    release = vm.ok("uname -r").strip()
    answer = vm.run("sh /usr/share/conformance/operations.sh", SECONDS)
    # Beside the logs: what to put into expected.txt, once it is judged.
    vm.agent.transcript.with_name("operations.txt").write_text(answer.stdout)
    expect(answer.status == 0 and not answer.stderr, f"operations.sh: status {answer.status}\n{answer.stderr}")
    wrong = compare(expected(release), read(answer.stdout))
    expect(not wrong, "\n".join(wrong))


def expected(release):
    wanted = read((HERE / "expected.txt").read_text())
    for difference in json.loads((HERE / "differences.json").read_text()):
        if any(is_on(release, kernel) for kernel in difference["on"]):
            for name, result in difference["operations"].items():
                expect(wanted.get(name) != result, f"differences.json: no difference any more: {name}: {result}")
                wanted[name] = result
    return wanted


def is_on(release, kernel):
    """Is 6.12.95+deb12-amd64 a 6.12, or a 6?"""
    return release.split("-")[0].replace("+", ".").split(".")[: kernel.count(".") + 1] == kernel.split(".")


def read(text):
    lines = [line.partition(": ") for line in text.splitlines()]
    found = {name: result for name, _, result in lines}
    expect(len(found) == len(lines), "two operations of one name")
    return found


def compare(wanted, found):
    return [
        f"{name}: {found.get(name, 'not there')}\n    instead of {wanted.get(name, 'nothing')}"
        for name in [*found, *(wanted.keys() - found.keys())]
        if found.get(name) != wanted.get(name)
    ]
