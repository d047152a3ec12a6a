// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO variant driver for the virtual functions of Intel's 82576 (igb), which
 * QEMU has as `-device igb`.
 *
 * The smallest useful variant: everything is the core's, and one condition is
 * its own. A VF of igb gets its queues, its MAC address and each of its resets
 * from the PF's driver, over a mailbox; with the PF on anything but igb nobody
 * answers, and a guest would find a NIC that never comes up. So the probe fails
 * then, as those of qat_vfio_pci and pds_vfio_pci do, where the administrator
 * sees it.
 *
 * There is no migration: the state of a VF is spread over registers that only
 * the PF can read, and igb has no interface to ask it for them. A driver that
 * cannot save all of its device's state does not claim that it can.
 */

#include <linux/module.h>
#include <linux/pci.h>
#include <linux/string.h>
#include <linux/vfio_pci_core.h>

#include "compat.h"

#define IGB_DEV_ID_82576_VF	0x10ca
#define PF_DRIVER		"igb"

/*
 * Nothing of its own beside the core device: a driver with state embeds struct
 * vfio_pci_core_device in a structure of its own, see edu_vfio_pci.c.
 */

static int igbvf_vfio_pci_open_device(struct vfio_device *vdev)
{
	struct vfio_pci_core_device *core =
		container_of(vdev, struct vfio_pci_core_device, vdev);
	int err;

	err = vfio_pci_core_enable(core);
	if (err)
		return err;

	/* Between the two a driver prepares what the user is to find. */
	vfio_pci_core_finish_enable(core);
	return 0;
}

static const struct vfio_device_ops igbvf_vfio_pci_ops = {
	/*
	 * The driver's own name: the core writes this string into the
	 * driver_override of the VFs of a PF that it has.
	 */
	.name = KBUILD_MODNAME,
	.init = vfio_pci_core_init_dev,
	.release = vfio_pci_core_release_dev,
	.open_device = igbvf_vfio_pci_open_device,
	.close_device = vfio_pci_core_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	VFIO_PCI_CORE_NEWER_OPS
};

static const struct pci_device_id igbvf_vfio_pci_table[] = {
	/* Makes an alias vfio_pci:v00008086d000010CA..., which no hot-plug event asks for. */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_INTEL, IGB_DEV_ID_82576_VF) },
	{}
};
MODULE_DEVICE_TABLE(pci, igbvf_vfio_pci_table);

/* Whether the PF's driver is there to serve this function. */
static int igbvf_vfio_pci_check(struct pci_dev *pdev)
{
	struct device *pf;

	/*
	 * driver_override offers any device, table or not: id is then a dummy,
	 * and only the device itself tells what it is.
	 */
	if (!pci_match_id(igbvf_vfio_pci_table, pdev))
		return -ENODEV;

	if (!pdev->is_virtfn) {
		dev_err(&pdev->dev, "not a virtual function\n");
		return -ENODEV;
	}

	/*
	 * A driver with access to its PF's driver asks for that one's data by
	 * pci_iov_get_pf_drvdata(); igb exports nothing, so the name has to do.
	 * The PF's device lock cannot be taken: whoever writes sriov_numvfs holds
	 * it while this probe runs. That igb comes or goes meanwhile does no
	 * harm: when it goes it takes its VFs away, and waits for this probe.
	 */
	pf = &pci_physfn(pdev)->dev;
	if (strcmp(dev_driver_string(pf), PF_DRIVER)) {
		dev_err(&pdev->dev, "PF %s has to be on driver %s, and is on %s\n", dev_name(pf),
			PF_DRIVER, READ_ONCE(pf->driver) ? dev_driver_string(pf) : "none");
		/* The driver core says nothing about this errno: hence the line above. */
		return -ENODEV;
	}
	return 0;
}

static int igbvf_vfio_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct vfio_pci_core_device *core;
	int err;

	/* Before there is a VFIO device, so that user space sees none come and go. */
	err = igbvf_vfio_pci_check(pdev);
	if (err)
		return err;

	core = vfio_alloc_device(vfio_pci_core_device, vdev, &pdev->dev, &igbvf_vfio_pci_ops);
	if (IS_ERR(core))
		return PTR_ERR(core);

	/* The core's error and SR-IOV handlers expect to find its device there. */
	dev_set_drvdata(&pdev->dev, core);
	err = vfio_pci_core_register_device(core);
	if (err)
		vfio_put_device(&core->vdev);
	return err;
}

static void igbvf_vfio_pci_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	/* Waits until the last user has closed the device. */
	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

static struct pci_driver igbvf_vfio_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = igbvf_vfio_pci_table,
	.probe = igbvf_vfio_pci_probe,
	.remove = igbvf_vfio_pci_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	/* DMA is the user's: without this the IOMMU group would not be viable. */
	.driver_managed_dma = true,
};
module_pci_driver(igbvf_vfio_pci_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The vfioctl authors");
MODULE_DESCRIPTION("VFIO variant driver for virtual functions of igb");
