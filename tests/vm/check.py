# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a case says when the kernel, or vfioctl, did not do what it should."""


class Failure(Exception):
    pass


class Late(Failure):
    """Something did not come in time, which on a busy host says little."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def equal(what, found, wanted):
    expect(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def among(what, found, wanted):
    expect(found in wanted, f"{what}: {found!r} instead of one of {wanted!r}")
