// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Use a device as a virtual machine monitor does, as far as the kernel's side goes: open its group, give it a
 * container with a type 1 IOMMU, get the device and ask it what it is
 * (Documentation/driver-api/vfio.rst, "VFIO Usage Example").
 *
 *   vfio-use ADDRESS GROUP          do that and let go
 *   vfio-use ADDRESS GROUP hold     do that, say "held", keep it until killed
 *   vfio-use ADDRESS GROUP device   keep the device alone, as a program has it that was handed it by another
 */
#include <err.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int open_node(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		err(1, "open %s", path);
	return fd;
}

int main(int argc, char **argv)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	struct vfio_device_info info = { .argsz = sizeof(info) };
	int container, group, device;
	char path[64];

	if (argc < 3)
		errx(2, "usage: vfio-use ADDRESS GROUP [hold|device]");
	snprintf(path, sizeof(path), "/dev/vfio/%s", argv[2]);

	container = open_node("/dev/vfio/vfio");
	group = open_node(path);
	if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0)
		err(1, "VFIO_GROUP_GET_STATUS");
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		errx(1, "group %s is not viable", argv[2]);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
		err(1, "VFIO_GROUP_SET_CONTAINER");
	if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		err(1, "VFIO_SET_IOMMU");
	device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[1]);
	if (device < 0)
		err(1, "VFIO_GROUP_GET_DEVICE_FD");
	if (ioctl(device, VFIO_DEVICE_GET_INFO, &info) < 0)
		err(1, "VFIO_DEVICE_GET_INFO");
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI))
		errx(1, "flags %#x: not a PCI device", info.flags);
	printf("regions %u irqs %u\n", info.num_regions, info.num_irqs);

	if (argc > 3) {
		/* The device keeps the group's file from being released. */
		if (!strcmp(argv[3], "device")) {
			close(group);
			close(container);
		}
		puts("held");
		fflush(stdout);
		for (;;)
			pause();
	}
	return 0;
}
