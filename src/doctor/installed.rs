// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sees to it that choices are done at boot and when a device appears: the udev rule, the two units, and udev itself.

use std::fs;
use std::path::{Path, PathBuf};

use super::Scene;
use super::finding::{Finding, quoted, some};
use crate::drop_in;
use crate::file;
use crate::host::Host;

const RULE: &str = "udev-rule";
const CLAIM: &str = "claim-unit";
const APPLY: &str = "apply-unit";
const UDEV: &str = "udev-running";

/// What this version installs, before the place of the program is filled in.
const RULE_TEMPLATE: &str = include_str!("../../data/udev/05-vfioctl.rules.in");
const CLAIM_TEMPLATE: &str = include_str!("../../data/systemd/vfioctl-claim.service.in");
const APPLY_TEMPLATE: &str = include_str!("../../data/systemd/vfioctl@.service.in");

const RULE_FILE: &str = "05-vfioctl.rules";
const CLAIM_FILE: &str = "vfioctl-claim.service";
const APPLY_FILE: &str = "vfioctl@.service";

/// A file that is to be there.
#[derive(Clone, Debug)]
struct Installed {
    /// Where it is, as the host spells it.
    path: String,
    /// Is it there to hide what is below?
    is_masked: bool,
    /// Is it the administrator's, in /etc or /run?
    is_own: bool,
    /// Does it say what this version's does?
    is_of_this_version: bool,
    /// Programs that it calls and that are not there.
    gone: Vec<String>,
    /// Why it could not be read.
    unreadable: Option<String>,
}

/// How things stand.
#[derive(Debug)]
pub struct Facts {
    /// Is anything to be done at boot?
    has_rules: bool,
    rule: Option<Installed>,
    claim: Option<Installed>,
    apply: Option<Installed>,
    /// Is the unit that claims wanted by sysinit.target?
    is_claim_wanted: bool,
    has_systemd: bool,
    has_udev: bool,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let host = scene.host;
    let units = host.unit_directories();
    let wants =
        |directory: &PathBuf| directory.join("sysinit.target.wants").join(CLAIM_FILE).symlink_metadata().is_ok();
    Facts {
        has_rules: !scene.policy.rules.is_empty(),
        rule: find(host, &host.udev_rule_directories(), RULE_FILE, RULE_TEMPLATE),
        claim: find(host, &units, CLAIM_FILE, CLAIM_TEMPLATE),
        apply: find(host, &units, APPLY_FILE, APPLY_TEMPLATE),
        is_claim_wanted: units.iter().any(wants),
        has_systemd: host.systemd().exists() || host.program("systemctl").is_some(),
        has_udev: host.udev_control().exists(),
    }
}

/// The first of that name, in the directories by their precedence.
fn find(host: &Host, directories: &[PathBuf], name: &str, template: &str) -> Option<Installed> {
    let path = directories.iter().map(|directory| directory.join(name)).find(|path| path.symlink_metadata().is_ok())?;
    let own = ["/etc", "/run"];
    let inside = host.inside(&path);
    let mut installed = Installed {
        is_masked: is_masked(&path),
        is_own: own.iter().any(|place| inside.starts_with(place)),
        is_of_this_version: true,
        gone: Vec::new(),
        unreadable: None,
        path: inside.display().to_string(),
    };
    if installed.is_masked {
        return Some(installed);
    }
    match file::read_to_string(&path, file::SETTINGS) {
        Ok(text) => {
            let programs = programs(&text);
            installed.is_of_this_version = is_made_of(template, &text);
            installed.gone = programs.into_iter().filter(|program| !host.named(Path::new(program)).is_file()).collect();
        }
        Err(error) => installed.unreadable = Some(error.to_string()),
    }
    Some(installed)
}

/// Both udev and systemd take an empty file, or a link to /dev/null, for a mask. That need not be there under another root.
fn is_masked(path: &Path) -> bool {
    drop_in::is_mask(path) || fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
}

/// The programs that a rule or a unit calls: by IMPORT{program}, RUN and ExecStart.
fn programs(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let calls = ["IMPORT{program}=\"", "RUN+=\"", "ExecStart="];
        for (at, call) in calls.iter().filter_map(|call| Some((line.find(call)?, call))) {
            let words = line[at + call.len()..].split([' ', '"']).next().unwrap_or_default();
            if words.starts_with('/') && !found.contains(&words.to_string()) {
                found.push(words.to_string());
            }
        }
    }
    found
}

/// Is a text what a template says, wherever the program is? Comments do not count.
fn is_made_of(template: &str, text: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_string).collect()
    };
    let program = programs(text).into_iter().next().unwrap_or_default();
    let directory = program.rsplit_once('/').map_or("", |(directory, _)| directory);
    lines(&template.replace("@sbindir@", directory)) == lines(text)
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![one(facts, RULE, RULE_FILE, facts.rule.as_ref(), "the udev rule")];
    if facts.has_systemd {
        let claim =
            one(facts, CLAIM, CLAIM_FILE, facts.claim.as_ref(), "the unit that keeps native drivers off at boot");
        let is_good = facts.claim.is_some() && claim.severity == super::Severity::Pass;
        findings.push(match is_good && !facts.is_claim_wanted {
            true => unwanted(facts),
            false => claim,
        });
        findings.push(one(
            facts,
            APPLY,
            APPLY_FILE,
            facts.apply.as_ref(),
            "the unit that binds a device when it appears",
        ));
    }
    findings.push(match facts.has_udev {
        true => Finding::pass(UDEV, "udev is running"),
        false if facts.has_rules => Finding::warning(UDEV, "udev does not run: devices that appear are not seen to")
            .seen("/run/udev/control", "not there")
            .mend_all(facts.has_systemd.then(|| "systemctl start systemd-udevd.service".to_string())),
        false => Finding::note(UDEV, "udev does not run").seen("/run/udev/control", "not there"),
    });
    findings
}

fn unwanted(facts: &Facts) -> Finding {
    let message = format!("{CLAIM_FILE} is not started at boot: native drivers take devices first");
    let finding = if facts.has_rules { Finding::warning(CLAIM, message) } else { Finding::note(CLAIM, message) };
    finding
        .seen("sysinit.target.wants", format!("no {CLAIM_FILE} in any of systemd's directories"))
        .mend(format!("systemctl add-wants sysinit.target {CLAIM_FILE}"))
}

fn one(facts: &Facts, check: &'static str, name: &str, installed: Option<&Installed>, what: &str) -> Finding {
    let doubt = |message: String| match facts.has_rules {
        true => Finding::warning(check, message),
        false => Finding::note(check, message),
    };
    let Some(installed) = installed else {
        return doubt(format!("{what} is not installed: choices are not done by themselves"))
            .seen(name, "in none of the directories where it would be read")
            .mend("install the package of vfioctl, or 'make install' in its source");
    };
    let path = &installed.path;
    if installed.is_masked {
        let finding = doubt(format!("{what} is masked: choices are not done by themselves"));
        return finding.seen(path, "empty, or a link to /dev/null").mend(format!("rm {}", quoted(path)));
    }
    if let Some(error) = &installed.unreadable {
        return doubt(format!("{what} cannot be read")).seen(path, error);
    }
    if !installed.gone.is_empty() {
        let message = format!("{what} calls a program that is not there: choices are not done by themselves");
        return Finding::failure(check, message)
            .seen(path, format!("{} is not there", some(&installed.gone)))
            .mend("install the package of vfioctl anew, or 'make install' with the SBINDIR that the program is in");
    }
    if !installed.is_of_this_version {
        let says = "says something else than that of this version";
        return match installed.is_own {
            true => Finding::note(check, format!("{what} is the administrator's own")).seen(path, says),
            false => doubt(format!("{what} is of another version than this program"))
                .seen(path, says)
                .mend("install the package of vfioctl anew, or 'make install' in its source"),
        };
    }
    Finding::pass(check, format!("{what} is installed")).seen(path, "as this version has it")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn good() -> Installed {
        Installed {
            path: "/usr/lib/udev/rules.d/05-vfioctl.rules".to_string(),
            is_masked: false,
            is_own: false,
            is_of_this_version: true,
            gone: Vec::new(),
            unreadable: None,
        }
    }

    #[test]
    fn programs_that_are_called() {
        let configured = |template: &str| template.replace("@sbindir@", "/usr/sbin");
        for template in [RULE_TEMPLATE, CLAIM_TEMPLATE, APPLY_TEMPLATE] {
            assert_eq!(programs(&configured(template)), ["/usr/sbin/vfioctl"], "{template}");
            assert!(is_made_of(template, &configured(template)));
            assert!(is_made_of(template, &format!("# Another comment.\n{}", configured(template))));
            assert!(!is_made_of(template, &configured(template).replace("vfioctl ", "vfioctl --verbose ")));
        }
    }

    #[test]
    fn what_is_wrong_with_each() {
        use Severity::{Failure, Note, Pass, Warning};
        let all = |installed: Option<Installed>| Facts {
            has_rules: true,
            rule: installed,
            claim: Some(good()),
            apply: Some(good()),
            is_claim_wanted: true,
            has_systemd: true,
            has_udev: true,
        };
        let own = |path: &str| Installed { is_own: true, path: path.to_string(), ..good() };
        for (installed, severity, mend) in [
            (Some(good()), Pass, ""),
            (None, Warning, "install the package"),
            (Some(Installed { is_masked: true, ..own("/etc/x") }), Warning, "rm /etc/x"),
            (
                Some(Installed { gone: vec!["/usr/sbin/vfioctl".to_string()], ..good() }),
                Failure,
                "install the package of vfioctl anew",
            ),
            (Some(Installed { is_of_this_version: false, ..good() }), Warning, "install the package of vfioctl anew"),
            (Some(Installed { is_of_this_version: false, ..own("/etc/x") }), Note, ""),
        ] {
            let facts = all(installed);
            let findings = judge(&facts);
            assert_eq!(findings.len(), 4);
            assert_eq!(findings[0].severity, severity, "{findings:?}");
            assert!(findings[0].mend.first().cloned().unwrap_or_default().starts_with(mend), "{findings:?}");
            // Where nothing is to be done, nobody is needed to do it.
            if severity == Warning {
                assert_eq!(judge(&Facts { has_rules: false, ..facts })[0].severity, Note);
            }
        }
        let findings = judge(&Facts { is_claim_wanted: false, has_udev: false, ..all(Some(good())) });
        assert_eq!(findings[1].mend, ["systemctl add-wants sysinit.target vfioctl-claim.service"]);
        assert_eq!((findings[3].check, findings[3].severity), (UDEV, Warning));
        assert_eq!(judge(&Facts { has_systemd: false, ..all(Some(good())) }).len(), 2);
    }
}
