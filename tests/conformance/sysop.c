// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * One operation on a file, and its result as one line: what a shell does not tell, the error's name above all, and each
 * system call once, where a shell may repeat, split or spare one.
 *
 *   sysop write PATH TEXT           open for writing, one write: ok
 *   sysop write2 PATH TEXT TEXT     two writes to one open file
 *   sysop truncate PATH TEXT        as write, opened as a shell's > does: O_CREAT | O_TRUNC
 *   sysop append PATH TEXT          opened as a shell's >> does: O_CREAT | O_APPEND
 *   sysop fill PATH NUMBER          as write, of so many letters x
 *   sysop update PATH TEXT          open for reading and writing, write, then read from the start
 *   sysop read PATH                 its text in quotes
 *   sysop pieces PATH               its text as read three bytes at a time
 *   sysop stale PATH OTHER TEXT...  open PATH, write each TEXT to OTHER, then read from PATH
 *   sysop link PATH                 where it leads
 *   sysop list PATH                 the names in it, sorted
 *   sysop mode PATH                 what it is, its permissions and, of a file, its size
 *   sysop mkdir|rmdir|unlink PATH
 *
 * In TEXT and in what is printed, \n, \0 and \\ are a newline, a NUL and a backslash; other bytes that are no printable
 * ASCII come out as \xHH. What failed is printed as its errno's name, after "open" if that was it. Exit status 0 either
 * way; 2 if this was not how to call it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* From how many on one character over and over is told by its number, as x{4094}. */
#define LONG 64

static char text[1 << 20];

/* Not perror(3): numbers of the kernel's own, which must not come out of it, have no name and are told too. */
static const char *name_of(int error)
{
	static char number[16];
	const char *name = strerrorname_np(error);

	if (name)
		return name;
	snprintf(number, sizeof(number), "errno %d", error);
	return number;
}

/* Ends with the errno as the result. */
static void fail(const char *what)
{
	printf("%s%s\n", what, name_of(errno));
	exit(0);
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		fail("open ");
	return fd;
}

/* Undoes the escapes in place. */
static size_t plain(char *word)
{
	char *to = word, *from = word;

	while (*from) {
		if (*from != '\\') {
			*to++ = *from++;
			continue;
		}
		switch (from[1]) {
		case 'n': *to++ = '\n'; break;
		case '0': *to++ = '\0'; break;
		case '\\': *to++ = '\\'; break;
		default: errx(2, "no such escape: %s", from);
		}
		from += 2;
	}
	return to - word;
}

static void put(int fd, const char *bytes, size_t size, const char *end)
{
	ssize_t written = write(fd, bytes, size);

	if (written < 0)
		printf("%s", name_of(errno));
	else if ((size_t)written != size)
		printf("wrote %zd of %zu", written, size);
	else
		printf("ok");
	fputs(end, stdout);
}

static void put_text(int fd, char *word, const char *end)
{
	size_t size = plain(word);

	put(fd, word, size, end);
}

/* Reads to the end, so much at a time. */
static void get(int fd, size_t piece)
{
	size_t size = 0;
	ssize_t got;

	while ((got = read(fd, text + size, piece)) > 0) {
		size += got;
		if (size + piece > sizeof(text))
			errx(2, "too long");
	}
	if (got < 0)
		fail("");
	putchar('"');
	for (size_t i = 0; i < size; i++) {
		size_t same = 1;

		while (i + same < size && text[i + same] == text[i])
			same++;
		if (same > LONG) {
			printf("%c{%zu}", text[i], same);
			i += same - 1;
			continue;
		}
		switch (text[i]) {
		case '\n': fputs("\\n", stdout); break;
		case '\0': fputs("\\0", stdout); break;
		case '\\': fputs("\\\\", stdout); break;
		default: printf(text[i] >= ' ' && text[i] <= '~' ? "%c" : "\\x%02x", (unsigned char)text[i]);
		}
	}
	puts("\"");
}

static int shown(const struct dirent *entry)
{
	return strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void list(const char *path)
{
	struct dirent **entries;
	int count = scandir(path, &entries, shown, by_bytes);

	if (count < 0)
		fail("");
	for (int i = 0; i < count; i++)
		printf("%s%s", i ? " " : "", entries[i]->d_name);
	puts(count ? "" : "nothing");
}

static void mode(const char *path)
{
	struct stat stat;

	if (lstat(path, &stat) < 0)
		fail("");
	if (S_ISREG(stat.st_mode))
		printf("file %04o, %lld bytes\n", stat.st_mode & 07777, (long long)stat.st_size);
	else
		printf("%s %04o\n", S_ISDIR(stat.st_mode) ? "directory" : S_ISLNK(stat.st_mode) ? "link" : "other",
		       stat.st_mode & 07777);
}

static void follow(const char *path)
{
	char target[PATH_MAX];
	ssize_t size = readlink(path, target, sizeof(target));

	if (size < 0)
		fail("");
	printf("%.*s\n", (int)size, target);
}

static void done(int result)
{
	if (result < 0)
		fail("");
	puts("ok");
}

int main(int argc, char **argv)
{
	const char *what, *path;
	int fd;

	if (argc < 3)
		errx(2, "usage: sysop OPERATION PATH [TEXT]");
	what = argv[1];
	path = argv[2];

	if (!strcmp(what, "read") && argc == 3) {
		get(open_file(path, O_RDONLY), 65536);
	} else if (!strcmp(what, "pieces") && argc == 3) {
		get(open_file(path, O_RDONLY), 3);
	} else if (!strcmp(what, "link") && argc == 3) {
		follow(path);
	} else if (!strcmp(what, "list") && argc == 3) {
		list(path);
	} else if (!strcmp(what, "mode") && argc == 3) {
		mode(path);
	} else if (!strcmp(what, "mkdir") && argc == 3) {
		done(mkdir(path, 0755));
	} else if (!strcmp(what, "rmdir") && argc == 3) {
		done(rmdir(path));
	} else if (!strcmp(what, "unlink") && argc == 3) {
		done(unlink(path));
	} else if (!strcmp(what, "write") && argc == 4) {
		put_text(open_file(path, O_WRONLY), argv[3], "\n");
	} else if (!strcmp(what, "truncate") && argc == 4) {
		put_text(open_file(path, O_WRONLY | O_CREAT | O_TRUNC), argv[3], "\n");
	} else if (!strcmp(what, "append") && argc == 4) {
		put_text(open_file(path, O_WRONLY | O_CREAT | O_APPEND), argv[3], "\n");
	} else if (!strcmp(what, "fill") && argc == 4) {
		size_t size = strtoul(argv[3], NULL, 10);

		if (size > sizeof(text))
			errx(2, "too long");
		memset(text, 'x', size);
		put(open_file(path, O_WRONLY), text, size, "\n");
	} else if (!strcmp(what, "write2") && argc == 5) {
		fd = open_file(path, O_WRONLY);
		put_text(fd, argv[3], ", ");
		put_text(fd, argv[4], "\n");
	} else if (!strcmp(what, "update") && argc == 4) {
		fd = open_file(path, O_RDWR);
		put_text(fd, argv[3], ", ");
		lseek(fd, 0, SEEK_SET);
		get(fd, 65536);
	} else if (!strcmp(what, "stale") && argc >= 5) {
		fd = open_file(path, O_RDONLY);
		for (int i = 4; i < argc; i++)
			put_text(open_file(argv[3], O_WRONLY), argv[i], ", ");
		get(fd, 65536);
	} else {
		errx(2, "no such operation: %s", what);
	}
	return 0;
}
