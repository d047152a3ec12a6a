// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO variant driver for QEMU's edu device (docs/specs/edu.rst there), with
 * live migration.
 *
 * edu is a device to learn from: a register that inverts what is written to it,
 * one that computes a factorial, and a DMA engine with a buffer. This driver is
 * to learn from as well. It has all that a variant with migration has, and a
 * device that everybody can have. Read it from the end: probe, the operations,
 * the state machine, the device.
 *
 * What it saves, and restores exactly
 *
 *   0x04 liveness check, 0x08 factorial, 0x20 status (its interrupt enable bit),
 *   0x24 interrupt status, 0x80 DMA source, 0x88 DMA destination, 0x90 DMA count
 *
 * What it cannot save
 *
 * - The DMA buffer, 4 KiB at device address 0x40000. It is not behind BAR0: only
 *   the device's own DMA reaches it, and while a user has the device, DMA goes
 *   to the addresses that the user has mapped. The kernel has no memory there to
 *   let the device write to, and none of the user's to spare.
 *   A real device with such a buffer needs another way to it, or its driver must
 *   not claim that it can migrate. This one does, to show how; a guest that
 *   transfers its data into the buffer again after a migration loses nothing.
 * - The DMA command, 0x98. The device takes no value without the start bit, so
 *   that restoring one would mean a transfer. With no transfer under way its
 *   other bits mean nothing: they are what the last command was.
 * - What the device has written to memory. It does not log its writes, so there
 *   are no log_ops, and the user takes all memory for dirty, or asks the IOMMU.
 *
 * The states are RUNNING, STOP, STOP_COPY and RESUMING. There is no RUNNING_P2P,
 * in which a device initiates nothing but still takes writes from its peers: a
 * write to edu is a command, and the device cannot be told to leave it for
 * later. There is no PRE_COPY, for 56 bytes.
 *
 * edu has no reset of its own, and keeps its registers over a reset of its bus.
 * They outlive a reset, a change of the user and a rebind. With vfio-pci it is no
 * other; a device whose registers matter has to have a reset that clears them.
 */

#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/vfio_pci_core.h>

#include "compat.h"

#ifndef readq
#error The DMA registers of edu take 64 bits in one access.
#endif

#define PCI_VENDOR_ID_QEMU	0x1234
#define PCI_DEVICE_ID_EDU	0x11e8

#define EDU_ID			0x00	/* 0xRRrr00ed: version RR.rr */
#define EDU_LIVENESS		0x04	/* reads as the inverse of what was written */
#define EDU_FACTORIAL		0x08	/* write n, read n! modulo 2^32 */
#define EDU_STATUS		0x20
#define  EDU_STATUS_COMPUTING	BIT(0)	/* read only */
#define  EDU_STATUS_IRQ		BIT(7)	/* interrupt when a factorial is there */
#define EDU_IRQ_STATUS		0x24	/* read only */
#define EDU_IRQ_RAISE		0x60	/* sets bits of it, and interrupts */
#define EDU_IRQ_ACK		0x64	/* clears bits of it */
#define EDU_DMA_SOURCE		0x80
#define EDU_DMA_DESTINATION	0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_COMMAND		0x98
#define  EDU_DMA_RUN		BIT(0)
#define EDU_REGISTERS		0xa0	/* how much of BAR0 they take */

/*
 * A transfer takes 100 ms, and of the factorials that of 2^32 - 1 some seconds,
 * on a busy host more.
 */
#define EDU_BUSY_US		(30 * USEC_PER_SEC)

/*
 * edu shows that a factorial is there first and decides whether to interrupt
 * after that, in a thread of its own. It has no sign for when it has done so,
 * which makes this a time to wait and not a condition.
 */
#define EDU_SETTLE_MS		20

/*
 * The stream: what the user reads on one host and writes on another, perhaps
 * with another kernel and of other endianness. So it says what it is, has fixed
 * sizes and no holes; a change makes another version.
 */
#define EDU_STREAM_MAGIC	0x4d756465	/* "eduM" */
#define EDU_STREAM_VERSION	1

struct edu_stream {
	__le32 magic;
	__le32 version;
	__le32 length;		/* of the whole */
	/* An early end of the stream can be told from here on. */
	__le32 id;
	__le32 liveness;
	__le32 factorial;
	__le32 status;
	__le32 irq_status;
	__le64 dma_source;
	__le64 dma_destination;
	__le64 dma_count;
};
static_assert(sizeof(struct edu_stream) == 56);

#define EDU_STREAM_HEADER	offsetof(struct edu_stream, id)

/*
 * One saving or resuming. The user has a file descriptor for it, which may
 * outlive the state, the device's file and the device: what the file needs is
 * in here, nothing points to the device, and the file holds the module.
 */
struct edu_migration_file {
	struct file *filp;
	/* Of all below. Never held over an access to user memory, see write(). */
	struct mutex lock;
	bool disabled;
	size_t position;
	struct edu_stream stream;
};

struct edu_device {
	struct vfio_pci_core_device core;
	void __iomem *registers;
	/* Of the two below. Taken inside of core.memory_lock, see set_state(). */
	struct mutex state_mutex;
	enum vfio_device_mig_state state;
	struct edu_migration_file *file;
};

static struct edu_device *edu_of(struct vfio_device *vdev)
{
	return container_of(vdev, struct edu_device, core.vdev);
}

/* The device. */

static bool edu_busy(struct edu_device *edu)
{
	return readl(edu->registers + EDU_STATUS) & EDU_STATUS_COMPUTING ||
	       readq(edu->registers + EDU_DMA_COMMAND) & EDU_DMA_RUN;
}

/*
 * Until it neither computes nor transfers nor is about to interrupt. There is no
 * way to stop it half way: what was begun has to end, or the state would lack it.
 */
static int edu_wait_idle(struct edu_device *edu)
{
	bool busy;
	int err;

	err = read_poll_timeout(edu_busy, busy, !busy || fatal_signal_pending(current),
				USEC_PER_MSEC, EDU_BUSY_US, false, edu);
	if (err)
		return err;
	if (busy)
		return -EINTR;
	msleep(EDU_SETTLE_MS);
	/* The user has begun something new, against the rules. */
	return edu_busy(edu) ? -EBUSY : 0;
}

/*
 * Set the bits of PCI_COMMAND that are in @mask to @bits, and return what they
 * were. The core's interrupt handler sets PCI_COMMAND_INTX_DISABLE under irqlock.
 */
static u16 edu_command(struct edu_device *edu, u16 mask, u16 bits)
{
	struct pci_dev *pdev = edu->core.pdev;
	unsigned long flags;
	u16 command;

	spin_lock_irqsave(&edu->core.irqlock, flags);
	pci_read_config_word(pdev, PCI_COMMAND, &command);
	if ((command & mask) != bits)
		pci_write_config_word(pdev, PCI_COMMAND, (command & ~mask) | bits);
	spin_unlock_irqrestore(&edu->core.irqlock, flags);
	return command & mask;
}

static void edu_save(struct edu_device *edu, struct edu_stream *stream)
{
	void __iomem *registers = edu->registers;

	*stream = (struct edu_stream) {
		.magic = cpu_to_le32(EDU_STREAM_MAGIC),
		.version = cpu_to_le32(EDU_STREAM_VERSION),
		.length = cpu_to_le32(sizeof(*stream)),
		.id = cpu_to_le32(readl(registers + EDU_ID)),
		.liveness = cpu_to_le32(readl(registers + EDU_LIVENESS)),
		.factorial = cpu_to_le32(readl(registers + EDU_FACTORIAL)),
		.status = cpu_to_le32(readl(registers + EDU_STATUS)),
		.irq_status = cpu_to_le32(readl(registers + EDU_IRQ_STATUS)),
		.dma_source = cpu_to_le64(readq(registers + EDU_DMA_SOURCE)),
		.dma_destination = cpu_to_le64(readq(registers + EDU_DMA_DESTINATION)),
		.dma_count = cpu_to_le64(readq(registers + EDU_DMA_COUNT)),
	};
}

/*
 * The number that has this factorial, modulo 2^32, or -EINVAL. The register
 * takes nothing but numbers; from 34 on the factorial is 0, as in a device that
 * has not computed yet, so that there is a number for every value it can have.
 */
static int edu_factorial_of(u32 wanted)
{
	u32 factorial = 1;
	int n;

	for (n = 0; n <= 34; factorial *= ++n)
		if (factorial == wanted)
			return n;
	return -EINVAL;
}

static int edu_check_header(const struct edu_stream *stream)
{
	if (le32_to_cpu(stream->magic) != EDU_STREAM_MAGIC)
		return -EINVAL;
	if (le32_to_cpu(stream->version) != EDU_STREAM_VERSION)
		return -EOPNOTSUPP;
	if (le32_to_cpu(stream->length) != sizeof(*stream))
		return -EINVAL;
	return 0;
}

/* Nothing of the device is touched before all of the stream is known to be good. */
static int edu_check(struct edu_device *edu, const struct edu_stream *stream)
{
	if (le32_to_cpu(stream->id) != readl(edu->registers + EDU_ID))
		return -ENXIO;
	if (le32_to_cpu(stream->status) & ~EDU_STATUS_IRQ)
		return -EINVAL;
	if (edu_factorial_of(le32_to_cpu(stream->factorial)) < 0)
		return -EINVAL;
	return 0;
}

/* Write a good stream into the device. Where this fails, nobody knows what the device holds. */
static int edu_load(struct edu_device *edu, const struct edu_stream *stream)
{
	void __iomem *registers = edu->registers;
	u32 irq_status = le32_to_cpu(stream->irq_status);
	u32 factorial = le32_to_cpu(stream->factorial);
	struct edu_stream loaded;
	u16 command;
	int err = 0;

	/*
	 * Only by raising an interrupt can its status be set. The source has sent
	 * that interrupt, and the user carries it over; one by message is a write
	 * to memory, and goes nowhere now. INTx is a level, and comes to be again
	 * what it was on the source.
	 */
	command = edu_command(edu, PCI_COMMAND_MASTER, 0);

	writel(0, registers + EDU_STATUS);
	if (readl(registers + EDU_FACTORIAL) != factorial) {
		writel(edu_factorial_of(factorial), registers + EDU_FACTORIAL);
		err = edu_wait_idle(edu);
	}
	writel(~le32_to_cpu(stream->liveness), registers + EDU_LIVENESS);
	writeq(le64_to_cpu(stream->dma_source), registers + EDU_DMA_SOURCE);
	writeq(le64_to_cpu(stream->dma_destination), registers + EDU_DMA_DESTINATION);
	writeq(le64_to_cpu(stream->dma_count), registers + EDU_DMA_COUNT);
	writel(le32_to_cpu(stream->status), registers + EDU_STATUS);
	writel(~0, registers + EDU_IRQ_ACK);
	if (irq_status)
		writel(irq_status, registers + EDU_IRQ_RAISE);

	/* Reading back also sees to it that the writes are done before the device is let go. */
	edu_save(edu, &loaded);
	if (!err && memcmp(&loaded, stream, sizeof(loaded)))
		err = -EIO;

	edu_command(edu, PCI_COMMAND_MASTER, command);
	return err;
}

/* The stream as a file. */

static ssize_t edu_saving_read(struct file *filp, char __user *buffer, size_t count, loff_t *pos)
{
	struct edu_migration_file *file = filp->private_data;
	struct edu_stream stream;
	size_t position;
	ssize_t done;

	if (pos)
		return -ESPIPE;

	mutex_lock(&file->lock);
	if (file->disabled) {
		mutex_unlock(&file->lock);
		return -ENODEV;
	}
	stream = file->stream;
	position = file->position;
	done = min(count, sizeof(stream) - position);
	file->position += done;
	mutex_unlock(&file->lock);

	/* One who gives a bad address has lost these bytes, and his migration. */
	if (copy_to_user(buffer, (u8 *)&stream + position, done))
		return -EFAULT;
	return done;
}

static ssize_t edu_resuming_write(struct file *filp, const char __user *buffer, size_t count,
				  loff_t *pos)
{
	struct edu_migration_file *file = filp->private_data;
	struct edu_stream piece;
	ssize_t done;

	if (pos)
		return -ESPIPE;
	if (count > sizeof(piece))
		return -EFBIG;

	/*
	 * User memory may be the BAR of a device of this driver, and a page fault
	 * there wants core.memory_lock. set_state() comes with that lock and wants
	 * ours. So ours is not held here.
	 */
	if (copy_from_user(&piece, buffer, count))
		return -EFAULT;

	mutex_lock(&file->lock);
	if (file->disabled) {
		done = -ENODEV;
	} else if (count > sizeof(piece) - file->position) {
		done = -EFBIG;
	} else {
		memcpy((u8 *)&file->stream + file->position, &piece, count);
		file->position += count;
		done = count;
		/* As early as can be: the user still has the source running then. */
		if (file->position >= EDU_STREAM_HEADER) {
			int err = edu_check_header(&file->stream);

			if (err) {
				file->position = 0;
				done = err;
			}
		}
	}
	mutex_unlock(&file->lock);
	return done;
}

static int edu_migration_release(struct inode *inode, struct file *filp)
{
	struct edu_migration_file *file = filp->private_data;

	mutex_destroy(&file->lock);
	kfree(file);
	return 0;
}

static const struct file_operations edu_saving_fops = {
	.owner = THIS_MODULE,
	.read = edu_saving_read,
	.release = edu_migration_release,
};

static const struct file_operations edu_resuming_fops = {
	.owner = THIS_MODULE,
	.write = edu_resuming_write,
	.release = edu_migration_release,
};

/* With two references: the device's, and one to be the user's file descriptor. */
static struct edu_migration_file *edu_open_file(const struct file_operations *fops, int flags)
{
	struct edu_migration_file *file;
	int err;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return ERR_PTR(-ENOMEM);

	mutex_init(&file->lock);
	file->filp = anon_inode_getfile(KBUILD_MODNAME, fops, file, flags);
	if (IS_ERR(file->filp)) {
		err = PTR_ERR(file->filp);
		mutex_destroy(&file->lock);
		kfree(file);
		return ERR_PTR(err);
	}
	/* No position, no pread(). */
	stream_open(file->filp->f_inode, file->filp);
	get_file(file->filp);
	return file;
}

/* The user's descriptor stays, and does nothing from now on. */
static void edu_put_file(struct edu_device *edu)
{
	struct edu_migration_file *file = edu->file;

	if (!file)
		return;
	edu->file = NULL;

	mutex_lock(&file->lock);
	file->disabled = true;
	mutex_unlock(&file->lock);
	fput(file->filp);
}

/* The state machine. */

static struct file *edu_start_saving(struct edu_device *edu)
{
	struct edu_migration_file *file;

	/* It was idle when it went to STOP. Whoever drives a stopped device gets no state. */
	if (edu_busy(edu))
		return ERR_PTR(-EBUSY);

	file = edu_open_file(&edu_saving_fops, O_RDONLY);
	if (IS_ERR(file))
		return ERR_CAST(file);
	edu_save(edu, &file->stream);
	edu->file = file;
	return file->filp;
}

static struct file *edu_start_resuming(struct edu_device *edu)
{
	struct edu_migration_file *file;

	file = edu_open_file(&edu_resuming_fops, O_WRONLY);
	if (IS_ERR(file))
		return ERR_CAST(file);
	edu->file = file;
	return file->filp;
}

/*
 * With a stream that is no good the device stays as it was, in RESUMING: what is
 * missing can still be written, and a reset leads out of it.
 */
static int edu_end_resuming(struct edu_device *edu)
{
	struct edu_migration_file *file = edu->file;
	struct edu_stream stream;
	size_t length;
	int err;

	mutex_lock(&file->lock);
	stream = file->stream;
	length = file->position;
	mutex_unlock(&file->lock);

	if (length != sizeof(stream))
		return -ENODATA;
	err = edu_check(edu, &stream);
	if (err)
		return err;

	err = edu_load(edu, &stream);
	edu_put_file(edu);
	if (err) {
		/* Neither the old state nor the new one. Only a reset leads out of this. */
		edu->state = VFIO_DEVICE_STATE_ERROR;
		dev_err(&edu->core.pdev->dev, "state not restored (%d)\n", err);
		return -EIO;
	}
	return 0;
}

#define ARC(from, to)	((VFIO_DEVICE_STATE_##from) << 8 | (VFIO_DEVICE_STATE_##to))

/* One arc. What the user asked for may take several: vfio_mig_get_next_state() knows the way. */
static struct file *edu_step(struct edu_device *edu, enum vfio_device_mig_state next)
{
	switch (edu->state << 8 | next) {
	case ARC(RUNNING, STOP):
		return ERR_PTR(edu_wait_idle(edu));
	case ARC(STOP, RUNNING):
		return NULL;
	case ARC(STOP, STOP_COPY):
		return edu_start_saving(edu);
	case ARC(STOP_COPY, STOP):
		edu_put_file(edu);
		return NULL;
	case ARC(STOP, RESUMING):
		return edu_start_resuming(edu);
	case ARC(RESUMING, STOP):
		return ERR_PTR(edu_end_resuming(edu));
	}
	/* With our migration_flags there are no other arcs. */
	WARN_ON(1);
	return ERR_PTR(-EINVAL);
}

/*
 * The registers are read and written with memory decoding on, whatever the user
 * has set, and with core.memory_lock held for writing, so that nobody turns it
 * off or resets the device meanwhile. The order is memory_lock, state_mutex,
 * file->lock: a reset by the user comes to reset_done() with the first held, and
 * needs the others. Most drivers in the kernel take memory_lock last and have to
 * put the work of reset_done() off until state_mutex is free.
 */
static struct file *edu_set_state(struct vfio_device *vdev, enum vfio_device_mig_state new_state)
{
	struct edu_device *edu = edu_of(vdev);
	enum vfio_device_mig_state next;
	struct file *filp = NULL;
	u16 command;
	int err;

	down_write(&edu->core.memory_lock);
	mutex_lock(&edu->state_mutex);
	/* vfio_mig_get_next_state() would warn: there is no arc out of ERROR. */
	if (edu->state == VFIO_DEVICE_STATE_ERROR) {
		filp = ERR_PTR(-EIO);
		goto unlock;
	}

	command = edu_command(edu, PCI_COMMAND_MEMORY, PCI_COMMAND_MEMORY);
	while (edu->state != new_state) {
		err = vfio_mig_get_next_state(vdev, edu->state, new_state, &next);
		if (err) {
			filp = ERR_PTR(err);
			break;
		}
		filp = edu_step(edu, next);
		if (IS_ERR(filp))
			break;
		/* A file comes with the last arc or not at all. */
		edu->state = next;
	}
	edu_command(edu, PCI_COMMAND_MEMORY, command);
unlock:
	mutex_unlock(&edu->state_mutex);
	up_write(&edu->core.memory_lock);
	return filp;
}

static int edu_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct edu_device *edu = edu_of(vdev);

	mutex_lock(&edu->state_mutex);
	*state = edu->state;
	mutex_unlock(&edu->state_mutex);
	return 0;
}

#ifdef HAVE_GET_DATA_SIZE
static int edu_get_data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = sizeof(struct edu_stream);
	return 0;
}
#endif

static const struct vfio_migration_ops edu_migration_ops = {
	.migration_set_state = edu_set_state,
	.migration_get_state = edu_get_state,
#ifdef HAVE_GET_DATA_SIZE
	.migration_get_data_size = edu_get_data_size,
#endif
};

/* The operations of the VFIO device. */

/* Before it is registered: here it says what it can do. */
static int edu_init(struct vfio_device *vdev)
{
	struct edu_device *edu = edu_of(vdev);
	int err;

	err = vfio_pci_core_init_dev(vdev);
	if (err)
		return err;

	mutex_init(&edu->state_mutex);
	edu->state = VFIO_DEVICE_STATE_RUNNING;
	vdev->migration_flags = VFIO_MIGRATION_STOP_COPY;
	vdev->mig_ops = &edu_migration_ops;
	return 0;
}

static void edu_release(struct vfio_device *vdev)
{
	struct edu_device *edu = edu_of(vdev);

	mutex_destroy(&edu->state_mutex);
	vfio_pci_core_release_dev(vdev);
}

/* The first user opens it. */
static int edu_open_device(struct vfio_device *vdev)
{
	struct edu_device *edu = edu_of(vdev);
	int err;

	err = vfio_pci_core_enable(&edu->core);
	if (err)
		return err;

	edu->registers = pci_iomap(edu->core.pdev, 0, EDU_REGISTERS);
	if (!edu->registers) {
		vfio_pci_core_disable(&edu->core);
		return -ENOMEM;
	}
	/* Before there is a descriptor, so nobody else is here. */
	edu->state = VFIO_DEVICE_STATE_RUNNING;
	vfio_pci_core_finish_enable(&edu->core);
	return 0;
}

/* The last one is gone. */
static void edu_close_device(struct vfio_device *vdev)
{
	struct edu_device *edu = edu_of(vdev);

	mutex_lock(&edu->state_mutex);
	edu_put_file(edu);
	mutex_unlock(&edu->state_mutex);

	pci_iounmap(edu->core.pdev, edu->registers);
	/* Resets the device, and so comes to reset_done(): not with a lock that it takes. */
	vfio_pci_core_close_device(vdev);
}

static const struct vfio_device_ops edu_ops = {
	/*
	 * The driver's own name: the core writes this string into the
	 * driver_override of the VFs of a PF that it has.
	 */
	.name = KBUILD_MODNAME,
	.init = edu_init,
	.release = edu_release,
	.open_device = edu_open_device,
	.close_device = edu_close_device,
	.ioctl = vfio_pci_core_ioctl,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = vfio_pci_core_write,
	.mmap = vfio_pci_core_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	VFIO_PCI_CORE_NEWER_OPS
};

/* The PCI driver. */

static const struct pci_device_id edu_vfio_pci_table[] = {
	/* Makes an alias vfio_pci:v00001234d000011E8..., which no hot-plug event asks for. */
	{ PCI_DRIVER_OVERRIDE_DEVICE_VFIO(PCI_VENDOR_ID_QEMU, PCI_DEVICE_ID_EDU) },
	{}
};
MODULE_DEVICE_TABLE(pci, edu_vfio_pci_table);

static int edu_vfio_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu_device *edu;
	int err;

	/*
	 * driver_override offers any device, table or not: id is then a dummy,
	 * and only the device itself tells what it is. This driver writes to
	 * registers, and should not on another's device.
	 */
	if (!pci_match_id(edu_vfio_pci_table, pdev))
		return -ENODEV;

	edu = vfio_alloc_device(edu_device, core.vdev, &pdev->dev, &edu_ops);
	if (IS_ERR(edu))
		return PTR_ERR(edu);

	/* The core's error and SR-IOV handlers expect to find its device there. */
	dev_set_drvdata(&pdev->dev, &edu->core);
	err = vfio_pci_core_register_device(&edu->core);
	if (err)
		vfio_put_device(&edu->core.vdev);
	return err;
}

static void edu_vfio_pci_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	/* Waits until the last user has closed the device. */
	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

/* After every reset, whoever asked for it. A reset device runs. */
static void edu_vfio_pci_reset_done(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);
	struct edu_device *edu = container_of(core, struct edu_device, core);

	mutex_lock(&edu->state_mutex);
	edu_put_file(edu);
	edu->state = VFIO_DEVICE_STATE_RUNNING;
	mutex_unlock(&edu->state_mutex);
}

static const struct pci_error_handlers edu_vfio_pci_err_handlers = {
	.reset_done = edu_vfio_pci_reset_done,
	.error_detected = vfio_pci_core_aer_err_detected,
};

static struct pci_driver edu_vfio_pci_driver = {
	.name = KBUILD_MODNAME,
	.id_table = edu_vfio_pci_table,
	.probe = edu_vfio_pci_probe,
	.remove = edu_vfio_pci_remove,
	.err_handler = &edu_vfio_pci_err_handlers,
	/* DMA is the user's: without this the IOMMU group would not be viable. */
	.driver_managed_dma = true,
};
module_pci_driver(edu_vfio_pci_driver);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("The vfioctl authors");
MODULE_DESCRIPTION("VFIO variant driver with migration for QEMU's edu device");
