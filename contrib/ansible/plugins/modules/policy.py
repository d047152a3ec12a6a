#!/usr/bin/python
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Which PCI devices of a host get which driver, by a file in /etc/vfioctl.d and `vfioctl apply`."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: policy
short_description: Give PCI devices the VFIO drivers that fit them
description:
  - Writes a file of rules to C(/etc/vfioctl.d), as vfioctl.d(5) describes it, and has C(vfioctl apply) do what it says.
  - In check mode nothing is written or bound, and C(vfioctl apply --dry-run) says what would be.
  - A policy that vfioctl cannot read is never written.
options:
  devices:
    description: The rules, in their order. With none the file is removed.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: The device at this PCI address.
        type: str
      id:
        description: Devices with this vendor and device id; beside an address a guard.
        type: str
      subsystem:
        description: Devices with this subsystem vendor and device id.
        type: str
      class:
        description: Devices of this class, a name or hex digits.
        type: str
      pf:
        description: The VFs of the PF at this address.
        type: str
      driver:
        description: A driver's name; C(auto) is the best VFIO driver, C(none) no driver at all.
        type: str
        required: true
      require:
        description: What must come with the driver.
        type: list
        elements: str
      force:
        description: What the host may lose with the device.
        type: list
        elements: str
      prepare:
        description: What is to be done before the driver comes, C(auto) or a list of steps.
        type: raw
  name:
    description: The file's name, without C(.toml). Others that this module has written are removed.
    type: str
    default: ansible
  apply:
    description: Make the policy count for the devices that are there; otherwise it does from the next boot.
    type: bool
    default: true
  give_back:
    description: Give devices that no rule is about any more to their native drivers.
    type: bool
    default: false
  executable:
    description: The program.
    type: str
    default: vfioctl
author:
  - The vfioctl authors (@vfioctl)
attributes:
  check_mode:
    description: Nothing is written or bound.
    support: full
  diff_mode:
    description: The file, and each device's driver and override.
    support: full
"""

EXAMPLES = r"""
- name: The VFs of a ConnectX for virtual machines that have to be migratable
  vfioctl.vfioctl.policy:
    devices:
      - pf: "0000:3b:00.0"
        driver: auto
        require: [migration]
"""

RETURN = r"""
results:
  description: What became of each device, as C(vfioctl apply --json) has it.
  returned: when something was applied, or would be
  type: list
  elements: dict
policy_changed:
  description: Is the policy another, or would it be, whatever became of the devices?
  returned: when the policy can be read
  type: bool
initramfs_due:
  description:
    - Is the policy another than when the initramfs was last made, or would it be?
    - Until C(/var/lib/vfioctl/ansible-initramfs-due) is removed, which the role does once it has been made.
  returned: when the policy can be read
  type: bool
"""

import json
import os
import re
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

DIRECTORY = "/etc/vfioctl.d"
# There from before a policy is written until an initramfs has been made with it, however many runs that takes.
DUE = "/var/lib/vfioctl/ansible-initramfs-due"
# What begins so is this module's to change and to remove.
OWN = "# Written by Ansible (vfioctl.vfioctl.policy): changes are lost. See vfioctl.d(5).\n"
KEYS = ["address", "id", "subsystem", "class", "pf", "driver", "require", "force", "prepare"]


def main():
    rule = {key: {"type": "str"} for key in KEYS}
    rule["driver"]["required"] = True
    rule["require"] = rule["force"] = {"type": "list", "elements": "str"}
    rule["prepare"] = {"type": "raw"}
    module = AnsibleModule(
        argument_spec={
            "devices": {"type": "list", "elements": "dict", "required": True, "options": rule},
            "name": {"type": "str", "default": "ansible"},
            "apply": {"type": "bool", "default": True},
            "give_back": {"type": "bool", "default": False},
            "executable": {"type": "str", "default": "vfioctl"},
        },
        supports_check_mode=True,
    )
    if not re.match(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*\Z", module.params["name"]):
        module.fail_json(msg="name: %r cannot be the name of a file of rules" % module.params["name"])
    if os.geteuid() != 0:
        module.fail_json(msg="only root can write to %s and bind devices: become: true" % DIRECTORY)
    Policy(module).run()


class Policy:
    def __init__(self, module):
        self.module = module
        # A package that check mode did not install is not there yet.
        self.vfioctl = module.get_bin_path(module.params["executable"], required=not module.check_mode)
        self.path = os.path.join(DIRECTORY, module.params["name"] + ".toml")
        rules = [table(rule) for rule in module.params["devices"]]
        self.wanted = OWN + "\n".join(rules) if rules else None
        self.result = {"changed": False, "diff": [], "results": [], "initramfs_due": os.path.exists(DUE)}

    def run(self):
        changes = self.changes()
        if self.vfioctl is None:
            self.module.warn("vfioctl is not installed: what it would do to devices is not known")
            self.tell(changes)
            self.module.exit_json(**self.result)
        # Tried before it is in force: what cannot be read is not written.
        candidate = self.candidate(changes)
        try:
            before = self.dry_run(DIRECTORY)["results"] if os.path.isdir(DIRECTORY) else []
            planned = self.dry_run(candidate, is_new=True)
        finally:
            shutil.rmtree(candidate)
        # Before the files are written: these are what the next run knows of who is leaving.
        if self.module.params["give_back"] and self.module.params["apply"]:
            self.give_back(before, planned["results"], changes)
        self.tell(changes)
        if changes and not self.module.check_mode:
            self.write_all(changes)
        if self.module.params["apply"]:
            self.stop_at(self.take(planned if self.module.check_mode else self.vfioctl_json(["apply"])))
        self.module.exit_json(**self.result)

    def give_back(self, before, planned, changes):
        """Gives back what no rule is about any more."""
        named = [result["address"] for result in planned]
        # What has been taken out of the host needs nobody to give it back.
        there = [result for result in before if (result["error"] or {}).get("kind") != "no-device"]
        leaving = [result["address"] for result in there if result["address"] not in named]
        if not leaving:
            return
        document = self.vfioctl_json(["unbind", "--no-save"] + self.dry() + leaving)
        for result in document["results"]:
            # That these files still name it is so for a moment only.
            still = tuple(path + " still names it" for path in changes)
            result["warnings"] = [warning for warning in result["warnings"] if not warning.startswith(still)]
        failures = self.take(document)
        if failures:
            failures.append("The policy is as it was: it is written once what leaves it has been given back.")
        self.stop_at(failures)

    def stop_at(self, failures):
        if failures:
            self.module.fail_json(msg="\n".join(failures), **self.result)

    def tell(self, changes):
        """Adds to the result what becomes of files."""
        self.result["changed"] |= bool(changes)
        self.result["policy_changed"] = bool(changes)
        self.result["initramfs_due"] |= bool(changes)
        for path, (old, new) in sorted(changes.items()):
            shown = {"before": old or "", "after": new or ""}
            self.result["diff"].append(dict(shown, before_header=path, after_header=path))

    def changes(self):
        """What each file of this module is and is to be, where that is not the same; None is no file."""
        names = sorted(os.listdir(DIRECTORY)) if os.path.isdir(DIRECTORY) else []
        paths = [os.path.join(DIRECTORY, name) for name in names if name.endswith(".toml")]
        own = {path: text for path, text in ((path, read(path)) for path in paths) if text.startswith(OWN)}
        if self.path in paths and self.path not in own:
            self.module.fail_json(msg="%s is there, and not by this module's hand: name another file" % self.path)
        wanted = dict.fromkeys(own)
        if self.wanted is not None:
            wanted[self.path] = self.wanted
        return {path: (own.get(path), new) for path, new in wanted.items() if own.get(path) != new}

    def candidate(self, changes):
        """A directory as DIRECTORY would be. Below /run, where nobody else can write: vfioctl believes no other."""
        candidate = tempfile.mkdtemp(prefix="vfioctl-ansible-", dir="/run")
        for name in os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else []:
            path = os.path.join(DIRECTORY, name)
            if name.endswith(".toml") and path not in changes:
                copy(path, os.path.join(candidate, name))
        for path, change in changes.items():
            if change[1] is not None:
                write(os.path.join(candidate, os.path.basename(path)), change[1])
        return candidate

    def write_all(self, changes):
        os.makedirs(os.path.dirname(DUE), exist_ok=True)
        write(DUE, "")
        for path, (_old, new) in sorted(changes.items()):
            self.write(path, new)

    def write(self, path, text):
        if text is None:
            os.unlink(path)
            return
        if not os.path.isdir(DIRECTORY):
            os.mkdir(DIRECTORY)
            os.chmod(DIRECTORY, 0o755)
        handle, draft = tempfile.mkstemp(prefix=".ansible-", dir=DIRECTORY)
        os.close(handle)
        write(draft, text)
        os.chown(draft, 0, 0)
        self.module.atomic_move(draft, path)

    def dry(self):
        return ["--dry-run"] if self.module.check_mode else []

    def dry_run(self, directory, is_new=False):
        document = self.vfioctl_json(["apply", "--dry-run", "--policy", directory])
        own = os.path.join(directory, os.path.basename(self.path))
        for left_out in document.get("left_out", []) if is_new else []:
            # Others' are not for us to mend.
            if left_out["file"] == own:
                shown = left_out["message"].replace(directory, DIRECTORY)
                self.module.fail_json(msg="vfioctl cannot read this policy, which was not written:\n" + shown)
        return document

    def vfioctl_json(self, words):
        status, out, err = self.module.run_command([self.vfioctl, "--json"] + words)
        try:
            document = json.loads(out)
        except ValueError:
            self.module.fail_json(msg=err.strip() or "vfioctl said nothing", rc=status, **self.result)
        return dict(document, status=status, stderr=err)

    def take(self, document):
        """Adds what became of devices to the result; what went wrong comes back, with what to do about it."""
        failures = []
        self.result["changed"] |= document["changed"]
        self.result["results"] += document["results"]
        for result in document["results"]:
            address, error = result["address"], result["error"]
            for warning in result["warnings"]:
                self.module.warn("%s: %s" % (address, warning))
            if result["diff"]:
                self.result["diff"].append(dict(result["diff"], before_header=address, after_header=address))
            if error:
                failures.append("%s\n  %s" % (error["message"], error["hint"]) if error["hint"] else error["message"])
        if document["status"] != 0 and not failures:
            failures.append(document["stderr"].strip())
        if failures:
            self.result["rc"] = document["status"]
        return failures


def read(path):
    # A link to nowhere is nobody's.
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def copy(path, to):
    """As vfioctl will find it: a link stays one, since to /dev/null it says something, and its owner is asked for."""
    if os.path.islink(path):
        os.symlink(os.path.join(DIRECTORY, os.readlink(path)), to)
    else:
        shutil.copy2(path, to)
    owner = os.lstat(path)
    os.chown(to, owner.st_uid, owner.st_gid, follow_symlinks=False)


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(path, 0o644)


def table(rule):
    lines = ["%s = %s\n" % (key, value(rule[key])) for key in KEYS if rule.get(key) is not None]
    return "[[device]]\n" + "".join(lines)


def value(data):
    """A value as TOML has it: of strings, whole numbers, lists and tables that is JSON but for the tables."""
    if isinstance(data, dict):
        return "{ %s }" % ", ".join("%s = %s" % (json.dumps(str(key)), value(item)) for key, item in data.items())
    if isinstance(data, list):
        return "[%s]" % ", ".join(value(item) for item in data)
    # DEL is the one character that JSON leaves as it is and TOML does not.
    return json.dumps(data, ensure_ascii=False).replace("\x7f", "\\u007f")


if __name__ == "__main__":
    main()
