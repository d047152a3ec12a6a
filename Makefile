# SPDX-License-Identifier: MIT OR Apache-2.0

PREFIX ?= /usr/local
SBINDIR ?= $(PREFIX)/sbin
SYSCONFDIR ?= /etc
# systemd and udev look under /usr/local/lib as they do under /usr/lib.
UDEVDIR ?= $(PREFIX)/lib/udev
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Debian's is /usr/share/zsh/vendor-completions.
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
# Those who build an initramfs look nowhere else, whatever PREFIX is.
DRACUTDIR ?= /usr/lib/dracut
INITRAMFSTOOLSDIR ?= /usr/share/initramfs-tools
INITCPIODIR ?= /usr/lib/initcpio

# Where rustup and `cargo install` put programs; a shell may not know it yet.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
VFIOCTL := $(TARGET)/release/vfioctl
SIMHOST := $(TARGET)/debug/simhost

# In this order: what fails fast first, what takes long last.
STAGES := prerequisites format shellcheck clippy deny fixtures cargo-test build bench-programs bench-check fuzz packages package-tests vm

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench build clean install install-dracut install-initramfs-tools install-mkinitcpio dist $(STAGES)

help:
	@echo 'make demo     bind a ConnectX VF on a simulated host and give it back (some minutes the first time)'
	@echo 'make build    the release binary, target/release/vfioctl'
	@echo 'make check    format, clippy and the tests that take no minutes, without virtual machines; installs nothing'
	@echo 'make test     every test, on simulated hosts and on real kernels in QEMU'
	@echo 'make fuzz     every fuzz target for a few seconds (fuzz/README.md)'
	@echo 'make bench    how long vfioctl takes, beside driverctl, dpdk-devbind.py, lspci and modprobe (docs/speed.md)'
	@echo 'make install  what was built, under DESTDIR, PREFIX ($(PREFIX)), SBINDIR ($(SBINDIR)),'
	@echo '              UDEVDIR ($(UDEVDIR)) and UNITDIR ($(UNITDIR))'
	@echo 'make install-dracut, install-initramfs-tools, install-mkinitcpio'
	@echo '              early boot (docs/early-boot.md), for whichever of them builds the initramfs; not part of install'
	@echo 'make dist     the source with its crates, for distributions: target/dist'
	@echo 'make packages Debian and rpm packages of that, and a system extension: target/packages (packaging/README.md)'
	@echo 'make clean    remove what was built and fetched'
	@echo
	@echo 'demo, test and bench first say what this machine lacks and install it: with apt-get, by sudo unless run as root.'
	@echo 'Simulated hosts need /dev/fuse and a mount namespace: root, or user namespaces for everyone.'

demo:
	@tests/prerequisites demo
	cargo build --release --locked -p vfioctl
	cargo build --locked -p simhost
	@PATH="$(dir $(VFIOCTL)):$$PATH" $(SIMHOST) run tests/fixtures/connectx -- sh tests/demo.sh

test: $(STAGES)

# All but those that go through hundreds of faults, races, kills and waits, or whole hosts with slow programs.
QUICK := $(filter-out ansible faults hang killed races snapshot,$(basename $(notdir $(wildcard tests/*.rs))))

check:
	@tests/prerequisites --check check
	@$(MAKE) --no-print-directory format clippy
	cargo build --workspace --locked
	cargo test --locked -p vfioctl --lib $(addprefix --test ,$(QUICK)) -- --test-threads 4
	cargo test --locked -p simhost

bench:
	@tests/prerequisites bench
	@$(MAKE) --no-print-directory build bench-programs
	benches/run

# A stage starts with a line `== NAME`, by which .ci/run tells how long each took.
prerequisites:
	@echo '== $@'
	@tests/prerequisites test

format:
	@echo '== $@'
	cargo fmt --all --check
	cargo fmt --all --check --manifest-path fuzz/Cargo.toml

# Whatever begins as a shell script, and one that bash reads.
shellcheck:
	@echo '== $@'
	{ git grep -lE '^#!.*\b(sh|bash)$$'; echo completions/vfioctl.bash; } | xargs shellcheck

clippy:
	@echo '== $@'
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p vfioctl --no-default-features --locked -- -D warnings

deny:
	@echo '== $@'
	@.ci/deny

fixtures:
	@echo '== $@'
	python3 tests/fixtures/generate.py --check

# The tests of vfioctl run simhost, which `cargo test` alone does not build for them.
cargo-test:
	@echo '== $@'
	cargo build --workspace --locked
	cargo test --workspace --locked -- --test-threads 4

build:
	@echo '== $@'
	cargo build --release --locked $(CARGOFLAGS) -p vfioctl

# What vfioctl is measured against and on. One by one, and not with it: what one wants of a crate the others would get too.
bench-programs:
	@echo '== $@'
	cargo build --release --locked -p bare
	cargo build --release --locked -p simhost

bench-check:
	@echo '== $@'
	benches/instructions
	benches/run --check

# Longer: fuzz/check SECONDS.
fuzz:
	@echo '== $@'
	fuzz/check

dist:
	packaging/dist $(TARGET)/dist

packages:
	@echo '== $@'
	@$(MAKE) --no-print-directory dist
	packaging/build $(TARGET)/dist/vfioctl-$(shell packaging/version).tar.xz $(TARGET)/packages deb rpm
	packaging/sysext/build $(TARGET)/packages/cargo/release/vfioctl $(TARGET)/packages
	packaging/lint $(TARGET)/packages

package-tests:
	@echo '== $@'
	tests/packages/run.py --packages $(TARGET)/packages --simhost $(SIMHOST)

vm:
	@echo '== $@'
	tests/vm/run.py --vfioctl $(VFIOCTL)

clean:
	cargo clean
	rm -rf .vm-cache

# $(call configure,FILE,DIRECTORY): what is made of FILE.in, into DIRECTORY.
define configure
sed 's|@sbindir@|$(SBINDIR)|g; s|@unitdir@|$(UNITDIR)|g' $(1).in >$(DESTDIR)$(2)/$(notdir $(1))
chmod 644 $(DESTDIR)$(2)/$(notdir $(1))
endef

# Builds nothing, so that no compiler runs as root.
install:
	@test -x $(VFIOCTL) || { echo 'make: no $(VFIOCTL) to install: make build, first' >&2; exit 1; }
	install -D -m755 $(VFIOCTL) $(DESTDIR)$(SBINDIR)/vfioctl
	install -D -m644 completions/vfioctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vfioctl
	install -D -m644 completions/_vfioctl $(DESTDIR)$(ZSHDIR)/_vfioctl
	install -D -m644 completions/vfioctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vfioctl.fish
	install -D -m644 man/vfioctl.8 $(DESTDIR)$(PREFIX)/share/man/man8/vfioctl.8
	install -D -m644 man/vfioctl.d.5 $(DESTDIR)$(PREFIX)/share/man/man5/vfioctl.d.5
	install -d -m755 $(DESTDIR)$(PREFIX)/share/vfioctl
	sed 's|@sbindir@|$(SBINDIR)|g' data/libvirt/qemu.d/vfioctl.in >$(DESTDIR)$(PREFIX)/share/vfioctl/libvirt-hook
	chmod 755 $(DESTDIR)$(PREFIX)/share/vfioctl/libvirt-hook
	install -m644 data/libvirt/06-vfioctl-reattach.rules $(DESTDIR)$(PREFIX)/share/vfioctl/06-vfioctl-reattach.rules
	install -d -m755 $(DESTDIR)$(SYSCONFDIR)/vfioctl.d $(DESTDIR)$(UDEVDIR)/rules.d $(DESTDIR)$(UNITDIR)/sysinit.target.wants
	$(call configure,data/udev/05-vfioctl.rules,$(UDEVDIR)/rules.d)
	$(call configure,data/systemd/vfioctl@.service,$(UNITDIR))
	$(call configure,data/systemd/vfioctl-claim.service,$(UNITDIR))
	ln -sf ../vfioctl-claim.service $(DESTDIR)$(UNITDIR)/sysinit.target.wants/vfioctl-claim.service

# Not part of install: that devices are claimed in every image that is built from then on is a decision of its own.
install-dracut:
	install -d -m755 $(DESTDIR)$(DRACUTDIR)/modules.d/50vfioctl
	$(call configure,data/dracut/50vfioctl/module-setup.sh,$(DRACUTDIR)/modules.d/50vfioctl)
	install -m755 data/dracut/50vfioctl/vfioctl-claim.sh $(DESTDIR)$(DRACUTDIR)/modules.d/50vfioctl/vfioctl-claim.sh
	install -m644 data/systemd/vfioctl-initramfs.service $(DESTDIR)$(DRACUTDIR)/modules.d/50vfioctl/vfioctl-initramfs.service
	chmod 755 $(DESTDIR)$(DRACUTDIR)/modules.d/50vfioctl/module-setup.sh

install-initramfs-tools:
	install -d -m755 $(DESTDIR)$(INITRAMFSTOOLSDIR)/hooks
	$(call configure,data/initramfs-tools/hooks/vfioctl,$(INITRAMFSTOOLSDIR)/hooks)
	chmod 755 $(DESTDIR)$(INITRAMFSTOOLSDIR)/hooks/vfioctl

install-mkinitcpio:
	install -d -m755 $(DESTDIR)$(INITCPIODIR)/install $(DESTDIR)$(UNITDIR)
	$(call configure,data/mkinitcpio/install/vfioctl,$(INITCPIODIR)/install)
	install -D -m644 data/mkinitcpio/hooks/vfioctl $(DESTDIR)$(INITCPIODIR)/hooks/vfioctl
	install -m644 data/systemd/vfioctl-initramfs.service $(DESTDIR)$(UNITDIR)/vfioctl-initramfs.service
