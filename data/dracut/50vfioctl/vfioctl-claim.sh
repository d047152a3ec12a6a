#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
# In an image without systemd: before udev runs. dracut reads its hooks into its own shell.
sh /usr/lib/vfioctl/claim
