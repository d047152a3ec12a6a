// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is written about the command line says what the parser does: man pages, README, `--help`.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser, ValueEnum};
use vfioctl::cli::Cli;
use vfioctl::cli::driverctl::Standalone;
use vfioctl::guard::Use;
use vfioctl::host::Host;
use vfioctl::outcome::Kind;
use vfioctl::policy::Policy;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A manual page as a terminal shows it, without overstrikes and line breaks.
fn man(name: &str) -> String {
    let output = support::run(Command::new("mandoc").args(["-T", "ascii", "-O", "width=1000"]).arg(path(name)));
    assert!(output.status.success(), "{output:?}");
    let mut text = String::new();
    for c in String::from_utf8(output.stdout).unwrap().chars() {
        match c {
            '\u{8}' => drop(text.pop()),
            c => text.push(c),
        }
    }
    text
}

/// The long names of a command's options.
fn options(command: &clap::Command) -> Vec<String> {
    command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_string)).collect()
}

/// Every visible command with its options' long names.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut cli = Cli::command();
    cli.build();
    let visible = cli.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help");
    let mut commands = Vec::new();
    for command in visible {
        commands.push((command.get_name().to_string(), options(command)));
        // driverctl's verbs are another program's, and have a section of their own.
        for verb in
            command.get_subcommands().filter(|verb| command.get_name() == "libvirt" && verb.get_name() != "help")
        {
            commands.push((format!("{} {}", command.get_name(), verb.get_name()), options(verb)));
        }
    }
    commands
}

#[test]
fn the_manual_has_every_command_option_and_exit_status() {
    let text = man("man/vfioctl.8");
    for (command, options) in commands() {
        assert!(text.contains(&format!("vfioctl {command}")), "the manual lacks {command}");
        for option in options {
            assert!(text.contains(&format!("--{option}")), "the manual lacks --{option} of {command}");
        }
    }
    let statuses = text.split("EXIT STATUS").nth(1).unwrap();
    for status in 0..=8 {
        assert!(statuses.lines().any(|line| line.trim_start().starts_with(&format!("{status} "))), "{status}");
    }
}

#[test]
fn the_manual_has_every_use_of_a_device() {
    let text = man("man/vfioctl.8");
    let section = text.rsplit("DEVICES IN USE").next().unwrap();
    let section = section.split("BEFORE THE DRIVER COMES").next().unwrap();
    for used_as in Use::value_variants() {
        let name = used_as.name();
        assert!(
            section.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "the manual lacks {name}"
        );
    }
}

#[test]
fn the_manual_has_every_verb_of_driverctls() {
    let text = man("man/vfioctl.8");
    let section = text.rsplit("FOR USERS OF driverctl").next().unwrap();
    let cli = Standalone::command();
    let verbs: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(verbs.len(), 6);
    for verb in verbs {
        assert!(section.contains(&format!("   {verb}")), "the manual lacks {verb}");
    }
}

/// What a reader looks for, in the order of mdoc(7).
#[test]
fn the_manuals_have_their_sections() {
    let pages = [
        ("man/vfioctl.8", &["ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "NOTES", "SEE ALSO"][..]),
        ("man/vfioctl.d.5", &["FILES", "EXAMPLES", "NOTES", "SEE ALSO"][..]),
    ];
    for (page, wanted) in pages {
        let text = read(page);
        let sections: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(".Sh ")).collect();
        assert_eq!(sections[..3], ["NAME", "SYNOPSIS", "DESCRIPTION"], "{page}");
        let found: Vec<&str> = sections.iter().copied().filter(|section| wanted.contains(section)).collect();
        assert_eq!(found, wanted, "{page}");
    }
}

/// Each command has its own place, with each of its options there, and in the synopsis as well.
#[test]
fn the_manual_has_an_item_for_every_command() {
    let source = read("man/vfioctl.8");
    let mut cli = Cli::command();
    cli.build();
    let common = options(&cli);
    let section = |name: &str| source.split(&format!("\n.Sh {name}\n")).nth(1).unwrap().split("\n.Sh ").next().unwrap();
    let synopsis: Vec<&str> = section("SYNOPSIS").split(".Nm\n").collect();
    let items: Vec<&str> = section("COMMANDS").split("\n.It Cm ").collect();
    for (command, options) in commands() {
        let is_about =
            |text: &&&str| text.trim_start_matches(".Cm ").split([' ', '\n']).next() == command.split(' ').next();
        let (short, long) = (synopsis.iter().filter(is_about), items.iter().filter(is_about));
        let (short, long): (String, String) = (short.copied().collect(), long.copied().collect());
        assert!(!short.is_empty(), "the synopsis lacks {command}");
        assert!(long.len() > command.len() + 60, "the manual has nothing to say of {command}");
        // Those of driverctl's are in its own section.
        for option in options.iter().filter(|option| command != "driverctl" && !common.contains(option)) {
            let words = [format!("Fl {option}"), format!("| {option}")];
            assert!(words.iter().any(|word| short.contains(word)), "the synopsis of {command} lacks --{option}");
            assert!(long.contains(&format!("Fl {option}")), "the manual's item of {command} lacks --{option}");
        }
    }
}

/// Nor does it have any that the parser has not.
#[test]
fn the_manual_has_no_option_of_its_own() {
    let known: Vec<String> = commands().into_iter().flat_map(|(_, options)| options).collect();
    for page in ["man/vfioctl.8", "README.md"] {
        let text = if page.ends_with(".md") { own_commands(&read(page)) } else { man(page) };
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            if let Some(option) =
                word.strip_prefix("--").filter(|option| !option.is_empty() && !option.starts_with('-'))
            {
                assert!(known.iter().any(|known| known == option), "{page}: --{option}");
            }
        }
    }
}

/// The README's lines that are about vfioctl and not about another program.
fn own_commands(text: &str) -> String {
    text.lines().filter(|line| line.contains("vfioctl")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_has_every_command() {
    let text = read("README.md");
    for (command, _) in commands() {
        assert!(text.contains(&format!("vfioctl {command}")), "the README lacks {command}");
    }
}

/// What is to be typed, in the documents for users: in lines of code, and between backquotes. What follows a prompt is run, by
/// tests/sessions.rs.
fn typed(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| !line.starts_with(['#', '$']));
    let quoted =
        text.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').skip(1).step_by(2));
    let commands = lines.chain(quoted).flat_map(|code| code.split(';'));
    commands.map(str::trim).filter(|code| code.starts_with("vfioctl ")).map(str::to_string).collect()
}

/// The documents for users.
fn guides() -> Vec<String> {
    let entries = fs::read_dir(path("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = entries.filter(|name| name.ends_with(".md") && name != "architecture.md" && name != "speed.md");
    names.map(|name| format!("docs/{name}")).collect()
}

/// A reader of the README finds them.
#[test]
fn the_readme_names_every_document() {
    let text = read("README.md");
    for name in guides() {
        assert!(text.contains(&format!("({name})")), "{name}");
    }
}

#[test]
fn what_the_documents_have_one_type_can_be_typed() {
    let placeholders = [
        ("ADDR", "0000:3b:00.1"),
        ("PF", "0000:3b:00.0"),
        ("KIND", "network"),
        ("NAME", "vfio-pci"),
        ("VERB", "list-devices"),
        ("DIR", "/tmp"),
        ("N", "4"),
    ];
    let mut count = 0;
    for name in guides() {
        let mut typed: Vec<String> = typed(&read(&name));
        for command in &mut typed {
            for (placeholder, value) in placeholders {
                *command = command.replace(placeholder, value);
            }
            if let Err(error) = Cli::try_parse_from(command.split(' ')) {
                let asked = [clap::error::ErrorKind::DisplayHelp, clap::error::ErrorKind::DisplayVersion];
                assert!(asked.contains(&error.kind()), "{name}: {command}: {error}");
            }
        }
        count += typed.len();
    }
    assert!(count > 40, "{count}");
}

#[test]
fn every_status_has_its_line_for_people_and_for_programs() {
    for name in ["docs/troubleshooting.md", "docs/fleets.md"] {
        let text = read(name);
        for status in 1..=8 {
            assert!(text.contains(&format!("\n| {status} | ")), "{name}: {status}");
        }
    }
}

/// The README says of every crate what it is for, and of no other.
#[test]
fn the_readme_has_every_dependency() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let wanted: BTreeSet<&str> = manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
    let readme = read("README.md");
    let table = readme.split("| crate | for |\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let cells = table.lines().skip(1).filter_map(|row| row.trim_start_matches('|').split('|').next());
    let named: BTreeSet<&str> = cells.flat_map(|cell| cell.split(',')).map(str::trim).collect();
    assert_eq!(named, wanted);
}

/// The README's table of times has what `benches/run` compares, and its ratios are those of its times.
#[test]
fn the_readmes_times_are_of_what_is_compared() {
    let output = support::run(Command::new("python3").arg(path("benches/run")).arg("--rows"));
    assert!(output.status.success(), "{output:?}");
    let rows = |text: &str| -> Vec<Vec<String>> {
        let rows = text.lines().filter(|line| line.starts_with("| `vfioctl "));
        rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_string()).collect()).collect()
    };
    let compared = rows(&String::from_utf8(output.stdout).unwrap());
    let readme = read("README.md");
    let section = readme.split("\n## Speed\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let shown = rows(section);
    assert!(compared.len() > 10 && shown.len() == compared.len(), "'benches/run --write' writes {compared:?}");
    let microseconds = |text: &str| -> f64 {
        let (number, unit) = text.split_once(' ').unwrap();
        number.parse::<f64>().unwrap()
            * ["µs", "ms", "s"].iter().zip([1.0, 1e3, 1e6]).find(|(name, _)| **name == unit).unwrap().1
    };
    for (shown, compared) in shown.iter().zip(compared) {
        let [ours, takes, theirs, other, ratio] = shown.as_slice() else { panic!("{shown:?}") };
        assert_eq!([ours, theirs], [&compared[0], &compared[2]]);
        let ratio = match ratio.strip_prefix("1/") {
            Some(part) => 1.0 / part.parse::<f64>().unwrap(),
            None => ratio.parse().unwrap(),
        };
        let quotient = microseconds(takes) / microseconds(other);
        // All three are rounded.
        assert!((ratio - quotient).abs() < 0.06 * quotient, "{shown:?}: {quotient}");
    }
}

/// The rules that the manual of vfioctl.d shows are such.
#[test]
fn the_manuals_rules_are_rules() {
    let text = read("man/vfioctl.d.5");
    let examples = text.split(".Bd -literal").skip(1).map(|rest| rest.split(".Ed").next().unwrap());
    let examples: Vec<String> =
        examples.map(|text| text.lines().skip(1).collect::<Vec<_>>().join("\n").replace("\\(dq", "\"")).collect();
    // One is of a unit.
    let examples: Vec<String> = examples.into_iter().filter(|example| !example.starts_with("[Service]")).collect();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/vfioctl.d")).unwrap();
        fs::write(root.path().join("etc/vfioctl.d/x.toml"), &example).unwrap();
        let (policy, errors) = Policy::read(&Host::new(root.path(), None).unwrap());
        assert!(errors.is_empty() && policy.rules.len() == 1, "{example}: {errors:?}");
    }
}

#[test]
fn the_manuals_are_clean() {
    for page in ["man/vfioctl.8", "man/vfioctl.d.5"] {
        let output = support::run(Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(path(page)));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn every_failure_has_a_documented_status() {
    let kinds = [
        Kind::NoDevice,
        Kind::Unsafe,
        Kind::NotForDevice,
        Kind::Identity,
        Kind::Conflict,
        Kind::NoDriver,
        Kind::Permission,
        Kind::Timeout,
        Kind::Module,
        Kind::Preparation,
        Kind::Failed,
        Kind::Interrupted,
        Kind::NotRestored,
    ];
    let help = Cli::command().render_long_help().to_string();
    for kind in kinds {
        let status = kind.exit_status();
        assert!((1..=8).contains(&status) && status != 2, "{kind:?}: 2 is for usage");
        assert!(help.contains(&format!("{status} ")), "--help lacks exit status {status}");
    }
}
