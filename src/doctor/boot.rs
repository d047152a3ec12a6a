// SPDX-License-Identifier: MIT OR Apache-2.0
//! What loads the kernel here, and so how a parameter gets onto its command line.

use crate::file;
use crate::host::Host;

/// Who gives the kernel its command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BootLoader {
    /// rpm-ostree, of an image-based host.
    RpmOstree,
    /// NixOS, from its configuration.
    Nix,
    /// kernelstub, of Pop!_OS.
    Kernelstub,
    /// grubby, of Fedora and RHEL: for GRUB and zipl alike.
    Grubby,
    /// proxmox-boot-tool, which gives this file to systemd-boot.
    ProxmoxBoot,
    /// sdbootutil, of openSUSE, which makes entries with that line for systemd-boot and for GRUB.
    Sdbootutil,
    /// mkinitcpio, which puts that line into the unified kernel images that it makes.
    UnifiedImage,
    /// kernel-install(8), which makes systemd-boot's entries with the line of /etc/kernel/cmdline.
    KernelInstall {
        /// The kernel's release.
        release: String,
        /// Its image.
        image: String,
    },
    /// GRUB, whose configuration is made of /etc/default/grub by this command.
    Grub {
        /// The command.
        update: String,
        /// Has the file a line `GRUB_CMDLINE_LINUX="…"`?
        has_line: bool,
        /// What is between the quotes there, and in the line of GRUB_CMDLINE_LINUX_DEFAULT.
        line: String,
    },
    /// Something else.
    Unknown,
}

/// What the variable begins with that a boot loader writes in UTF-16 (after four bytes of the kernel's).
const SYSTEMD_BOOT: &str = "systemd-boot";

impl BootLoader {
    /// Finds out.
    pub fn find(host: &Host, release: &str) -> BootLoader {
        let has = |program: &str| host.program(program).is_some();
        if host.ostree_booted().exists() {
            return if has("rpm-ostree") { BootLoader::RpmOstree } else { BootLoader::Unknown };
        }
        if host.nixos().exists() {
            return BootLoader::Nix;
        }
        if has("sdbootutil") && host.kernel_install_command_line().is_file() {
            return BootLoader::Sdbootutil;
        }
        if has("mkinitcpio") && host.kernel_install_command_line().is_file() && makes_unified_images(host) {
            return BootLoader::UnifiedImage;
        }
        let is_systemd_boot = loader_info(host).is_some_and(|info| info.starts_with(SYSTEMD_BOOT));
        if is_systemd_boot {
            return BootLoader::find_systemd_boot(host, release);
        }
        if has("grubby") {
            return BootLoader::Grubby;
        }
        let Ok(text) = file::read_to_string(&host.default_grub(), file::SETTINGS) else { return BootLoader::Unknown };
        let [grub, grub2] = host.grub_configurations().map(|path| path.exists().then(|| host.inside(&path)));
        let update = if has("update-grub") {
            Some("update-grub".to_string())
        } else {
            let made =
                |program: &str, path| has(program).then_some(path).flatten().map(|path| (program.to_string(), path));
            made("grub2-mkconfig", grub2)
                .or_else(|| made("grub-mkconfig", grub))
                .map(|(program, path)| format!("{program} -o {}", path.display()))
        };
        // Without, the entries that are there keep the line they have (Red Hat's and Fedora's grub2-mkconfig).
        let is_bls = text.lines().any(|line| line.trim() == "GRUB_ENABLE_BLSCFG=true");
        let update = update.map(|update| match is_bls && update.starts_with("grub2-mkconfig") {
            true => format!("{update} --update-bls-cmdline"),
            false => update,
        });
        let begins = "GRUB_CMDLINE_LINUX=\"";
        let has_line = text.lines().any(|line| line.starts_with(begins));
        let lines = text.lines().filter(|line| line.starts_with("GRUB_CMDLINE_LINUX"));
        let line = lines.collect::<Vec<_>>().join(" ");
        update.map_or(BootLoader::Unknown, |update| BootLoader::Grub { update, has_line, line })
    }

    fn find_systemd_boot(host: &Host, release: &str) -> BootLoader {
        if host.program("kernelstub").is_some() {
            return BootLoader::Kernelstub;
        }
        let has_file = host.kernel_install_command_line().is_file();
        if has_file && host.proxmox_boot().exists() && host.program("proxmox-boot-tool").is_some() {
            return BootLoader::ProxmoxBoot;
        }
        let image = host.kernel_images(release).into_iter().find(|path| path.is_file());
        match image.filter(|_| has_file && host.program("kernel-install").is_some()) {
            Some(image) => BootLoader::KernelInstall {
                release: release.to_string(),
                image: host.inside(&image).display().to_string(),
            },
            None => BootLoader::Unknown,
        }
    }

    /// What puts a parameter onto the command line of the next boot.
    pub fn add(&self, parameter: &str) -> Vec<String> {
        let after_file = |command: String| vec![append(parameter), command];
        match self {
            BootLoader::RpmOstree => vec![format!("rpm-ostree kargs --append-if-missing={parameter}")],
            BootLoader::Nix => vec![
                format!("boot.kernelParams = [ \"{parameter}\" ];   (in configuration.nix)"),
                "nixos-rebuild boot".to_string(),
            ],
            BootLoader::Kernelstub => vec![format!("kernelstub -a \"{parameter}\"")],
            BootLoader::Grubby => vec![format!("grubby --update-kernel=ALL --args={parameter}")],
            BootLoader::ProxmoxBoot => after_file("proxmox-boot-tool refresh".to_string()),
            BootLoader::Sdbootutil => after_file("sdbootutil update-all-entries".to_string()),
            BootLoader::UnifiedImage => after_file("mkinitcpio -P".to_string()),
            BootLoader::KernelInstall { release, image } => after_file(format!("kernel-install add {release} {image}")),
            BootLoader::Grub { update, has_line: true, .. } => {
                vec![format!("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{parameter} /' /etc/default/grub"), update.clone()]
            }
            BootLoader::Grub { update, has_line: false, .. } => {
                vec![format!("GRUB_CMDLINE_LINUX=\"{parameter}\"   (in /etc/default/grub)"), update.clone()]
            }
            BootLoader::Unknown => vec![format!("add {parameter} to the kernel command line in your boot loader")],
        }
    }

    /// What takes one away.
    pub fn remove(&self, parameter: &str) -> Vec<String> {
        let sed = |file: &str| format!("sed -i 's/[[:space:]]*\\b{}\\b//' {file}", parameter.replace('.', "\\."));
        let by_hand = || vec![format!("take {parameter} off the kernel command line in your boot loader")];
        // Nothing that a shell or sed would take for something else.
        let is_plain = parameter.bytes().all(|b| b.is_ascii_alphanumeric() || b"_=,.:-".contains(&b));
        match self {
            _ if !is_plain => by_hand(),
            BootLoader::RpmOstree => vec![format!("rpm-ostree kargs --delete-if-present={parameter}")],
            BootLoader::Nix => vec![
                format!("take {parameter} out of boot.kernelParams in configuration.nix"),
                "nixos-rebuild boot".to_string(),
            ],
            BootLoader::Kernelstub => vec![format!("kernelstub -d \"{parameter}\"")],
            BootLoader::Grubby => vec![format!("grubby --update-kernel=ALL --remove-args={parameter}")],
            BootLoader::ProxmoxBoot => {
                vec![sed("/etc/kernel/cmdline"), "proxmox-boot-tool refresh".to_string()]
            }
            BootLoader::Sdbootutil => vec![sed("/etc/kernel/cmdline"), "sdbootutil update-all-entries".to_string()],
            BootLoader::UnifiedImage => vec![sed("/etc/kernel/cmdline"), "mkinitcpio -P".to_string()],
            BootLoader::KernelInstall { release, image } => {
                vec![sed("/etc/kernel/cmdline"), format!("kernel-install add {release} {image}")]
            }
            BootLoader::Grub { update, line, .. } if has_word(line, parameter) => {
                vec![sed("/etc/default/grub"), update.clone()]
            }
            BootLoader::Grub { update, .. } => vec![
                format!("take {parameter} out of the file of /etc/default/grub.d/*.cfg or /etc/grub.d that has it"),
                update.clone(),
            ],
            BootLoader::Unknown => by_hand(),
        }
    }
}

/// Is this among the words of GRUB's lines, quoted or not?
fn has_word(lines: &str, parameter: &str) -> bool {
    let of_value = |word: &str| match word.starts_with("GRUB_CMDLINE_LINUX") {
        true => word.split_once('=').is_some_and(|(_, value)| value == parameter),
        false => word == parameter,
    };
    lines.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').any(of_value)
}

/// Does a preset name a unified image (`default_uki=…`)? The kernel's line is in that, whatever starts it.
fn makes_unified_images(host: &Host) -> bool {
    let presets =
        std::fs::read_dir(host.mkinitcpio_presets()).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut presets = presets.filter(|path| path.extension().is_some_and(|extension| extension == "preset"));
    presets.any(|path| {
        let text = file::read_to_string(&path, file::SETTINGS).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim_start().split_once('='))
            .any(|(name, value)| !name.starts_with('#') && name.ends_with("_uki") && !value.is_empty())
    })
}

/// The file is one line.
fn append(parameter: &str) -> String {
    format!("sed -i '1s/$/ {parameter}/' /etc/kernel/cmdline")
}

/// What the boot loader calls itself.
fn loader_info(host: &Host) -> Option<String> {
    let bytes = file::read(&host.boot_loader_variable(), file::ATTRIBUTE).ok()?;
    let units: Vec<u16> = bytes.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn put(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn variable(name: &str) -> Vec<u8> {
        let units = name.encode_utf16().flat_map(u16::to_le_bytes);
        [6, 0, 0, 0].into_iter().chain(units).chain([0, 0]).collect()
    }

    const VARIABLE: &str = "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    const GRUB: &str =
        "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\nGRUB_CMDLINE_LINUX=\"iommu=off\"\n";

    /// What is there, what adds a parameter, and what removes one.
    type Case<'a> = (&'a [(&'a str, &'a [u8])], &'a [&'a str], &'a [&'a str]);

    #[test]
    fn each_boot_loader_has_its_commands() {
        let systemd_boot = variable("systemd-boot 257.3");
        let grub = variable("GRUB 2.12");
        let bls = format!("{GRUB}GRUB_ENABLE_BLSCFG=true\n");
        let cases: [Case<'_>; 18] = [
            (
                &[],
                &["add x=on to the kernel command line in your boot loader"],
                &["take iommu=off off the kernel command line in your boot loader"],
            ),
            (
                &[("run/ostree-booted", b""), ("usr/bin/rpm-ostree", b""), ("usr/sbin/grubby", b"")],
                &["rpm-ostree kargs --append-if-missing=x=on"],
                &["rpm-ostree kargs --delete-if-present=iommu=off"],
            ),
            (
                &[("run/ostree-booted", b"")],
                &["add x=on to the kernel command line in your boot loader"],
                &["take iommu=off off the kernel command line in your boot loader"],
            ),
            (
                &[("etc/NIXOS", b"")],
                &["boot.kernelParams = [ \"x=on\" ];   (in configuration.nix)", "nixos-rebuild boot"],
                &["take iommu=off out of boot.kernelParams in configuration.nix", "nixos-rebuild boot"],
            ),
            (
                &[(VARIABLE, &systemd_boot), ("usr/bin/kernelstub", b""), ("etc/kernel/cmdline", b"x\n")],
                &["kernelstub -a \"x=on\""],
                &["kernelstub -d \"iommu=off\""],
            ),
            (
                &[("usr/sbin/grubby", b""), ("etc/default/grub", GRUB.as_bytes())],
                &["grubby --update-kernel=ALL --args=x=on"],
                &["grubby --update-kernel=ALL --remove-args=iommu=off"],
            ),
            (
                &[
                    (VARIABLE, &systemd_boot),
                    ("etc/kernel/cmdline", b"x\n"),
                    ("etc/kernel/proxmox-boot-uuids", b""),
                    ("usr/sbin/proxmox-boot-tool", b""),
                ],
                &["sed -i '1s/$/ x=on/' /etc/kernel/cmdline", "proxmox-boot-tool refresh"],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/kernel/cmdline", "proxmox-boot-tool refresh"],
            ),
            (
                &[
                    (VARIABLE, &systemd_boot),
                    ("etc/kernel/cmdline", b"x\n"),
                    ("usr/bin/kernel-install", b""),
                    ("lib/modules/6.12.0/vmlinuz", b""),
                ],
                &["sed -i '1s/$/ x=on/' /etc/kernel/cmdline", "kernel-install add 6.12.0 /lib/modules/6.12.0/vmlinuz"],
                &[
                    "sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/kernel/cmdline",
                    "kernel-install add 6.12.0 /lib/modules/6.12.0/vmlinuz",
                ],
            ),
            (
                &[(VARIABLE, &systemd_boot), ("usr/bin/sdbootutil", b""), ("etc/kernel/cmdline", b"x\n")],
                &["sed -i '1s/$/ x=on/' /etc/kernel/cmdline", "sdbootutil update-all-entries"],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/kernel/cmdline", "sdbootutil update-all-entries"],
            ),
            (
                &[("usr/sbin/grub2-mkconfig", b""), ("boot/grub2/grub.cfg", b""), ("etc/default/grub", bls.as_bytes())],
                &[
                    "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&x=on /' /etc/default/grub",
                    "grub2-mkconfig -o /boot/grub2/grub.cfg --update-bls-cmdline",
                ],
                &[
                    "sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/default/grub",
                    "grub2-mkconfig -o /boot/grub2/grub.cfg --update-bls-cmdline",
                ],
            ),
            // What loads the kernel is not what is installed besides.
            (
                &[(VARIABLE, &systemd_boot), ("usr/sbin/update-grub", b""), ("etc/default/grub", GRUB.as_bytes())],
                &["add x=on to the kernel command line in your boot loader"],
                &["take iommu=off off the kernel command line in your boot loader"],
            ),
            (
                &[(VARIABLE, &grub), ("usr/sbin/update-grub", b""), ("etc/default/grub", GRUB.as_bytes())],
                &["sed -i 's/^GRUB_CMDLINE_LINUX=\"/&x=on /' /etc/default/grub", "update-grub"],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/default/grub", "update-grub"],
            ),
            (
                &[
                    ("usr/sbin/grub2-mkconfig", b""),
                    ("boot/grub2/grub.cfg", b""),
                    ("etc/default/grub", b"GRUB_TIMEOUT=5\n"),
                ],
                &["GRUB_CMDLINE_LINUX=\"x=on\"   (in /etc/default/grub)", "grub2-mkconfig -o /boot/grub2/grub.cfg"],
                &[
                    "take iommu=off out of the file of /etc/default/grub.d/*.cfg or /etc/grub.d that has it",
                    "grub2-mkconfig -o /boot/grub2/grub.cfg",
                ],
            ),
            // Another parameter that ends so is another.
            (
                &[
                    ("usr/sbin/update-grub", b""),
                    ("etc/default/grub", b"GRUB_CMDLINE_LINUX=\"intel_iommu=off vfio_iommu=off\"\n"),
                ],
                &["sed -i 's/^GRUB_CMDLINE_LINUX=\"/&x=on /' /etc/default/grub", "update-grub"],
                &[
                    "take iommu=off out of the file of /etc/default/grub.d/*.cfg or /etc/grub.d that has it",
                    "update-grub",
                ],
            ),
            (
                &[("usr/sbin/update-grub", b""), ("etc/default/grub", b"GRUB_CMDLINE_LINUX=iommu=off\n")],
                &["GRUB_CMDLINE_LINUX=\"x=on\"   (in /etc/default/grub)", "update-grub"],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/default/grub", "update-grub"],
            ),
            // Arch Linux, once with images that have the line in them and once without.
            (
                &[
                    (VARIABLE, &systemd_boot),
                    ("etc/kernel/cmdline", b"x\n"),
                    ("usr/bin/kernel-install", b""),
                    ("usr/bin/mkinitcpio", b""),
                    ("lib/modules/6.12.0/vmlinuz", b""),
                    (
                        "etc/mkinitcpio.d/linux.preset",
                        b"#fallback_uki=\"y\"\ndefault_uki=\"/efi/EFI/Linux/arch-linux.efi\"\n",
                    ),
                ],
                &["sed -i '1s/$/ x=on/' /etc/kernel/cmdline", "mkinitcpio -P"],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/kernel/cmdline", "mkinitcpio -P"],
            ),
            (
                &[
                    (VARIABLE, &systemd_boot),
                    ("etc/kernel/cmdline", b"x\n"),
                    ("usr/bin/kernel-install", b""),
                    ("usr/bin/mkinitcpio", b""),
                    ("lib/modules/6.12.0/vmlinuz", b""),
                    ("etc/mkinitcpio.d/linux.preset", b"#default_uki=\"/efi/EFI/Linux/arch-linux.efi\"\n"),
                ],
                &["sed -i '1s/$/ x=on/' /etc/kernel/cmdline", "kernel-install add 6.12.0 /lib/modules/6.12.0/vmlinuz"],
                &[
                    "sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/kernel/cmdline",
                    "kernel-install add 6.12.0 /lib/modules/6.12.0/vmlinuz",
                ],
            ),
            (
                &[("usr/bin/grub-mkconfig", b""), ("boot/grub/grub.cfg", b""), ("etc/default/grub", GRUB.as_bytes())],
                &[
                    "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&x=on /' /etc/default/grub",
                    "grub-mkconfig -o /boot/grub/grub.cfg",
                ],
                &["sed -i 's/[[:space:]]*\\biommu=off\\b//' /etc/default/grub", "grub-mkconfig -o /boot/grub/grub.cfg"],
            ),
        ];
        for (files, add, remove) in cases {
            let root = tempfile::tempdir().unwrap();
            files.iter().for_each(|(path, bytes)| put(root.path(), path, bytes));
            let loader = BootLoader::find(&Host::new(root.path(), None).unwrap(), "6.12.0");
            assert_eq!(loader.add("x=on"), add, "{loader:?}");
            assert_eq!(loader.remove("iommu=off"), remove, "{loader:?}");
        }
    }

    /// The commands that edit files, run.
    #[test]
    fn the_lines_that_edit_do() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let run = |command: &str, before: &str| {
            fs::write(&path, before).unwrap();
            let (sed, _) = command.rsplit_once(' ').unwrap();
            let status = std::process::Command::new("sh").args(["-c", &format!("{sed} {}", path.display())]).status();
            assert!(status.unwrap().success());
            fs::read_to_string(&path).unwrap()
        };
        let grub = BootLoader::Grub { update: "update-grub".to_string(), has_line: true, line: GRUB.to_string() };
        assert_eq!(run(&grub.add("x=on")[0], GRUB), GRUB.replace("LINUX=\"", "LINUX=\"x=on "));
        assert_eq!(run(&grub.remove("iommu=off")[0], GRUB), GRUB.replace("iommu=off", ""));
        let install = BootLoader::KernelInstall { release: "6.12.0".to_string(), image: "/boot/vmlinuz".to_string() };
        assert_eq!(run(&install.add("x=on")[0], "root=/dev/sda\n"), "root=/dev/sda x=on\n");
        assert_eq!(run(&install.remove("iommu=off")[0], "root=/dev/sda iommu=off quiet\n"), "root=/dev/sda quiet\n");
        // A parameter that ends as another does is another.
        assert_eq!(run(&grub.remove("iommu=off")[0], "\"intel_iommu=off\"\n"), "\"intel_iommu=off\"\n");
    }

    #[test]
    fn a_variable_that_is_none_is_no_boot_loader() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        put(root.path(), VARIABLE, b"abc");
        assert_eq!(BootLoader::find(&host, "6.12.0"), BootLoader::Unknown);
        fs::remove_file(root.path().join(VARIABLE)).unwrap();
        symlink("nowhere", root.path().join(VARIABLE)).unwrap();
        assert_eq!(BootLoader::find(&host, "6.12.0"), BootLoader::Unknown);
    }
}
