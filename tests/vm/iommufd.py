# SPDX-License-Identifier: MIT OR Apache-2.0
"""iommufd, the device nodes of VFIO (/dev/vfio/devices), and VFIO without an IOMMU, for a kernel of the table.

Debian's kernels are built without any of these. Here they, and the VFIO that goes with them, are built from the kernel's own
sources as modules for that same kernel, with the options on; and the variants of drivers/ for that VFIO.
"""

import pathlib
import shutil
import subprocess

import fetch
import kernels
import variants

# What is taken out of the kernel's sources.
PARTS = ["drivers/iommu", "drivers/vfio", "lib/interval_tree.c"]

# The options, as kbuild and the compiler have them. The tree of intervals is in the kernel's image, but for the part that
# iommufd alone uses: so iommufd has it all once more, and exports none of it.
KBUILD = """
ccflags-y += -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
ccflags-y += -DCONFIG_VFIO_NOIOMMU=1
CFLAGS_lib/interval_tree.o := -D__DISABLE_EXPORTS
obj-m += iommufd.o vfio.o vfio-pci-core.o vfio-pci.o vfio_iommu_type1.o
iommufd-y := $(addprefix drivers/iommu/iommufd/,{iommufd}) lib/interval_tree.o
vfio-y := $(addprefix drivers/vfio/,vfio_main.o device_cdev.o group.o iommufd.o container.o virqfd.o)
vfio-pci-core-y := $(addprefix drivers/vfio/pci/,vfio_pci_core.o vfio_pci_intrs.o vfio_pci_rdwr.o vfio_pci_config.o)
vfio-pci-core-$(CONFIG_VFIO_PCI_DMABUF) += drivers/vfio/pci/vfio_pci_dmabuf.o
vfio-pci-y := $(addprefix drivers/vfio/pci/,vfio_pci.o vfio_pci_igd.o)
vfio_iommu_type1-y := drivers/vfio/vfio_iommu_type1.o
"""

# The files of iommufd, by kernel: the kernels that this can be built for.
COMMON = "device.o hw_pagetable.o io_pagetable.o ioas.o main.o pages.o vfio_compat.o"
IOMMUFD = {"6.12": f"{COMMON} fault.o", "7": f"{COMMON} eventq.o viommu.o"}


def installed(cache, kernel, tools):
    """`kernel` with these modules in place of its own."""
    return variants.place(kernel, tree(cache, kernel), tools)


def tree(cache, kernel):
    """The directory of what was built, named by what it was built from."""
    kbuild = KBUILD.format(iommufd=IOMMUFD[kernel.name])
    own = variants.sources()

    def make(directory):
        source = prepare(cache, kernel)
        work = directory / "work"
        shutil.copytree(source, work)
        # A variant's sources include their header by its name, and the compiler looks beside them.
        for path in own:
            shutil.copy(path, work)
        with open(work / "Kbuild", "a") as file:
            file.write(kbuild)
        variants.make(cache, kernel, work, f"iommufd and VFIO for {kernel.release}")
        variants.keep(work, directory)

    contents = [kbuild, *((path.name, path.read_bytes()) for path in own)]
    return fetch.keyed(cache, f"iommufd-{kernel.release}", contents, make)


def prepare(cache, kernel):
    """The parts of the kernel's sources."""
    suite, _, _ = kernels.KERNELS[kernel.name]
    version = ".".join(kernel.release.split(".")[:2])

    def make(directory):
        package = directory / "package"
        fetch.unpack(fetch.archive(cache, suite).exactly(f"linux-source-{version}"), package)
        name = f"linux-source-{version}"
        members = [f"{name}/{part}" for part in PARTS]
        archive = package / f"usr/src/{name}.tar.xz"
        subprocess.run(["tar", "-xf", archive, "-C", directory, "--strip-components=1", *members], check=True)
        shutil.rmtree(package)
        # Those of the directories are for the kernel's own build.
        for path in pathlib.Path(directory).rglob("Makefile"):
            path.unlink()

    return fetch.tree(cache / f"source-{kernel.release}", make)
