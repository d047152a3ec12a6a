// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Two devices in the hands of one user, as a virtual machine monitor on either end of a live migration has them:
 * their registers, their interrupts and their migration states (linux/vfio.h, VFIO_DEVICE_FEATURE_MIGRATION and what
 * follows it).
 *
 *   vfio-migrate ADDRESS GROUP ADDRESS GROUP <STEPS
 *
 * The devices are a and b. A step is a line, and is answered by a line: what it found, "ok", or the name of an errno.
 *
 *   DEVICE read OFFSET SIZE             a register of BAR0, through its mapping
 *   DEVICE write OFFSET SIZE VALUE
 *   DEVICE config-read OFFSET SIZE      configuration space, as the kernel shows it
 *   DEVICE config-write OFFSET SIZE VALUE
 *   DEVICE flags                        what migration the driver offers
 *   DEVICE size                         what it says the stream will take
 *   DEVICE has FEATURE OPERATION        whether it offers the feature of that number to "get" or to "set"
 *   DEVICE state                        the migration state
 *   DEVICE set STATE                    another one; a stream's descriptor is kept
 *   DEVICE save FILE                    read the stream to its end; its length
 *   DEVICE load FILE FROM TO            write these bytes of a file to the stream; how many
 *   DEVICE reset
 *   DEVICE irq msi|intx                 from now on count these
 *   DEVICE interrupts                   how many came since
 *   map IOVA                            a page of memory for both, all ones, at this address
 *   memory OFFSET                       a byte of it
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Since 6.2. */
#ifndef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9
#endif

#define PAGE 4096
#define WORDS 5

static const char *const states[] = {
	[VFIO_DEVICE_STATE_ERROR] = "ERROR",
	[VFIO_DEVICE_STATE_STOP] = "STOP",
	[VFIO_DEVICE_STATE_RUNNING] = "RUNNING",
	[VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
	[VFIO_DEVICE_STATE_RESUMING] = "RESUMING",
	[VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
	[6] = "PRE_COPY",
};
#define STATES (sizeof(states) / sizeof(*states))

struct device {
	int fd;
	int stream;
	int event;
	off_t config;
	volatile uint8_t *bar;
};

static int container;
static uint8_t *memory;
static struct device devices[2];

static int open_node(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		err(1, "open %s", path);
	return fd;
}

static struct vfio_region_info region(int device, unsigned int index)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
		err(1, "VFIO_DEVICE_GET_REGION_INFO %u", index);
	return info;
}

static void open_device(struct device *device, const char *address, const char *number, bool is_first)
{
	struct vfio_region_info bar;
	char path[64];
	int group;

	snprintf(path, sizeof(path), "/dev/vfio/%s", number);
	group = open_node(path);
	if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
		err(1, "VFIO_GROUP_SET_CONTAINER");
	if (is_first && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		err(1, "VFIO_SET_IOMMU");
	device->fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address);
	if (device->fd < 0)
		err(1, "VFIO_GROUP_GET_DEVICE_FD %s", address);

	device->stream = device->event = -1;
	device->config = region(device->fd, VFIO_PCI_CONFIG_REGION_INDEX).offset;
	bar = region(device->fd, VFIO_PCI_BAR0_REGION_INDEX);
	device->bar = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device->fd, bar.offset);
	if (device->bar == MAP_FAILED)
		err(1, "mmap of BAR0");
}

static int feature(struct device *device, uint32_t flags, void *data, size_t size)
{
	uint64_t buffer[4] = { 0 };
	struct vfio_device_feature *argument = (void *)buffer;
	int result;

	argument->argsz = sizeof(*argument) + size;
	argument->flags = flags;
	memcpy(argument->data, data, size);
	result = ioctl(device->fd, VFIO_DEVICE_FEATURE, argument);
	memcpy(data, argument->data, size);
	return result;
}

static void answer(int result)
{
	puts(result < 0 ? strerrorname_np(errno) : "ok");
}

static void show(uint64_t value)
{
	printf("0x%" PRIx64 "\n", value);
}

static void access_bar(struct device *device, uint64_t offset, uint64_t size, const char *value)
{
	volatile void *address = device->bar + offset;

	if (value && size == 8)
		*(volatile uint64_t *)address = strtoull(value, NULL, 0);
	else if (value)
		*(volatile uint32_t *)address = strtoul(value, NULL, 0);
	else
		return show(size == 8 ? *(volatile uint64_t *)address : *(volatile uint32_t *)address);
	answer(0);
}

static void access_config(struct device *device, uint64_t offset, uint64_t size, const char *value)
{
	uint64_t data = value ? strtoull(value, NULL, 0) : 0;

	if (value)
		return answer(pwrite(device->fd, &data, size, device->config + offset));
	if (pread(device->fd, &data, size, device->config + offset) < 0)
		return answer(-1);
	show(data);
}

static void get_state(struct device *device)
{
	struct vfio_device_feature_mig_state data = { 0 };

	if (feature(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &data, sizeof(data)) < 0)
		return answer(-1);
	puts(data.device_state < STATES ? states[data.device_state] : "unknown");
}

static void set_state(struct device *device, const char *name)
{
	struct vfio_device_feature_mig_state data = { .data_fd = -1 };
	int result;

	while (data.device_state < STATES && strcmp(states[data.device_state], name))
		data.device_state++;
	result = feature(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &data, sizeof(data));
	if (result >= 0 && data.data_fd >= 0) {
		if (device->stream >= 0)
			close(device->stream);
		device->stream = data.data_fd;
	}
	answer(result);
}

static void save(struct device *device, const char *path)
{
	FILE *file = fopen(path, "w");
	unsigned int total = 0;
	/* In pieces that the stream's length is no multiple of. */
	char buffer[24];
	ssize_t count;

	if (!file)
		err(1, "%s", path);
	while ((count = read(device->stream, buffer, sizeof(buffer))) > 0) {
		fwrite(buffer, 1, count, file);
		total += count;
	}
	if (count < 0)
		answer(-1);
	else
		printf("%u\n", total);
	if (fclose(file))
		err(1, "%s", path);
}

static void load(struct device *device, const char *path, size_t from, size_t to)
{
	char buffer[PAGE];
	FILE *file = fopen(path, "r");
	ssize_t count;

	if (!file || fseek(file, from, SEEK_SET) || to - from > sizeof(buffer) ||
	    fread(buffer, 1, to - from, file) != to - from)
		errx(1, "%s: no bytes %zu to %zu", path, from, to);
	fclose(file);
	count = write(device->stream, buffer, to - from);
	if (count < 0)
		answer(-1);
	else
		printf("%zd\n", count);
}

static void count_interrupts(struct device *device, const char *kind)
{
	uint64_t buffer[8] = { 0 };
	struct vfio_irq_set *set = (void *)buffer;

	device->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	set->argsz = sizeof(*set) + sizeof(device->event);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = strcmp(kind, "msi") ? VFIO_PCI_INTX_IRQ_INDEX : VFIO_PCI_MSI_IRQ_INDEX;
	set->count = 1;
	memcpy(set->data, &device->event, sizeof(device->event));
	answer(ioctl(device->fd, VFIO_DEVICE_SET_IRQS, set));
}

static void interrupts(struct device *device)
{
	uint64_t count = 0;

	/* One that is to come has come by then. */
	usleep(200000);
	if (read(device->event, &count, sizeof(count)) < 0 && errno != EAGAIN)
		err(1, "eventfd");
	printf("%" PRIu64 "\n", count);
}

static void map(uint64_t iova)
{
	struct vfio_iommu_type1_dma_map argument = {
		.argsz = sizeof(argument),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.iova = iova,
		.size = PAGE,
	};

	memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	memset(memory, 0xff, PAGE);
	argument.vaddr = (uintptr_t)memory;
	answer(ioctl(container, VFIO_IOMMU_MAP_DMA, &argument));
}

static void migration_flags(struct device *device)
{
	struct vfio_device_feature_migration data = { 0 };

	if (feature(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, &data, sizeof(data)) < 0)
		return answer(-1);
	show(data.flags);
}

static void data_size(struct device *device)
{
	uint64_t length = 0;

	if (feature(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &length, sizeof(length)) < 0)
		return answer(-1);
	printf("%" PRIu64 "\n", length);
}

static void has(struct device *device, uint32_t index, const char *operation)
{
	uint32_t flag = strcmp(operation, "get") ? VFIO_DEVICE_FEATURE_SET : VFIO_DEVICE_FEATURE_GET;

	answer(feature(device, VFIO_DEVICE_FEATURE_PROBE | flag | index, NULL, 0));
}

static uint64_t number(const char *word)
{
	if (!word)
		errx(2, "too few words");
	return strtoull(word, NULL, 0);
}

static void step(char **words)
{
	struct device *device = &devices[!strcmp(words[0], "b")];
	const char *verb = words[1];

	if (!strcmp(words[0], "map"))
		map(number(words[1]));
	else if (!strcmp(words[0], "memory"))
		show(memory[number(words[1])]);
	else if (!verb)
		errx(2, "no step: %s", words[0]);
	else if (!strcmp(verb, "read") || !strcmp(verb, "write"))
		access_bar(device, number(words[2]), number(words[3]), words[4]);
	else if (!strcmp(verb, "config-read") || !strcmp(verb, "config-write"))
		access_config(device, number(words[2]), number(words[3]), words[4]);
	else if (!strcmp(verb, "flags"))
		migration_flags(device);
	else if (!strcmp(verb, "size"))
		data_size(device);
	else if (!strcmp(verb, "has"))
		has(device, number(words[2]), words[3]);
	else if (!strcmp(verb, "state"))
		get_state(device);
	else if (!strcmp(verb, "set"))
		set_state(device, words[2]);
	else if (!strcmp(verb, "save"))
		save(device, words[2]);
	else if (!strcmp(verb, "load"))
		load(device, words[2], number(words[3]), number(words[4]));
	else if (!strcmp(verb, "reset"))
		answer(ioctl(device->fd, VFIO_DEVICE_RESET));
	else if (!strcmp(verb, "irq"))
		count_interrupts(device, words[2]);
	else if (!strcmp(verb, "interrupts"))
		interrupts(device);
	else
		errx(2, "no step: %s", verb);
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc != 5)
		errx(2, "usage: vfio-migrate ADDRESS GROUP ADDRESS GROUP <STEPS");
	container = open_node("/dev/vfio/vfio");
	open_device(&devices[0], argv[1], argv[2], true);
	open_device(&devices[1], argv[3], argv[4], false);

	while (fgets(line, sizeof(line), stdin)) {
		char *words[WORDS + 1] = { NULL };
		int count = 0;

		for (char *word = strtok(line, " \n"); word && count < WORDS; word = strtok(NULL, " \n"))
			words[count++] = word;
		if (count)
			step(words);
		fflush(stdout);
	}
	return 0;
}
