/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the VFIO of newer kernels wants of a driver and that of older ones does
 * not know. Kbuild looks into the kernel's own header for each HAVE_ below:
 * distributions backport, so a version would not tell.
 *
 * A driver for one kernel writes these members into its vfio_device_ops and has
 * no use for this file.
 */
#ifndef VFIOCTL_COMPAT_H
#define VFIOCTL_COMPAT_H

#include <linux/vfio_pci_core.h>

/*
 * IOMMUFD in place of the container: without these the device has no
 * /dev/vfio/devices/vfioN. They are NULL in a kernel without CONFIG_IOMMUFD.
 */
#ifdef HAVE_BIND_IOMMUFD
#define OPS_BIND_IOMMUFD						\
	.bind_iommufd = vfio_iommufd_physical_bind,			\
	.unbind_iommufd = vfio_iommufd_physical_unbind,			\
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
#else
#define OPS_BIND_IOMMUFD
#endif

#ifdef HAVE_DETACH_IOAS
#define OPS_DETACH_IOAS							\
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
#else
#define OPS_DETACH_IOAS
#endif

/* The VF token, for those who come by IOMMUFD; .match is for the others. */
#ifdef HAVE_MATCH_TOKEN_UUID
#define OPS_MATCH_TOKEN_UUID						\
	.match_token_uuid = vfio_pci_core_match_token_uuid,
#else
#define OPS_MATCH_TOKEN_UUID
#endif

/* Once a part of .ioctl: without it VFIO_DEVICE_GET_REGION_INFO fails. */
#ifdef HAVE_GET_REGION_INFO_CAPS
#define OPS_GET_REGION_INFO_CAPS					\
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
#else
#define OPS_GET_REGION_INFO_CAPS
#endif

#define VFIO_PCI_CORE_NEWER_OPS						\
	OPS_BIND_IOMMUFD						\
	OPS_DETACH_IOAS							\
	OPS_MATCH_TOKEN_UUID						\
	OPS_GET_REGION_INFO_CAPS

#endif /* VFIOCTL_COMPAT_H */
