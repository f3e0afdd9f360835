//! The documentation matches the binary: flags, variables, exit codes, files.

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory;
use podstrap::cli::Cli;
use podstrap::error::Kind;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The `--flags` at the start of the table rows below this heading of docs/cli.md.
fn documented(reference: &str, heading: &str) -> BTreeSet<String> {
    let heading = format!("{heading}\n");
    let section = reference.split("\n## ").find(|section| section.starts_with(&heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `-"));
    rows.map(|row| row.split("--").nth(1).unwrap().split([' ', '`', '=']).next().unwrap().to_owned()).collect()
}

fn defined(command: &clap::Command) -> BTreeSet<String> {
    // A hidden flag is an old name, whose error names the new one.
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let arguments = shown.filter_map(clap::Arg::get_long);
    arguments.filter(|name| !["help", "version"].contains(name)).map(str::to_owned).collect()
}

#[test]
fn the_reference_lists_every_flag_and_no_other() {
    let reference = read("docs/cli.md");
    let cli = Cli::command();
    let sub = |name: &str| defined(cli.find_subcommand(name).unwrap());
    assert_eq!(documented(&reference, "podstrap init"), sub("init"));
    assert_eq!(documented(&reference, "podstrap apply"), sub("apply"));
    for name in ["rollback", "resume"] {
        assert_eq!(documented(&reference, "podstrap rollback"), sub(name));
    }
    assert_eq!(documented(&reference, "podstrap status"), sub("status"));
    assert_eq!(documented(&reference, "podstrap check"), sub("check"));
    assert_eq!(documented(&reference, "podstrap store"), sub("store"));
    assert_eq!(documented(&reference, "Flags of every command"), defined(&cli));
    assert!(sub("copy-self").is_empty() && sub("completions").is_empty());
    for command in cli.get_subcommands() {
        let heading = format!("\n## podstrap {}\n", command.get_name());
        assert!(reference.contains(&heading), "docs/cli.md has no section{heading}");
    }
    // docs/cli.md describes these by their differences from `init`.
    let once = ["copy-self", "entrypoint-dir", "stale-ok", "store-only", "dry-run", "format"];
    let volume = ["repo", "root", "link", "config", "durable", "size-limit"];
    for (name, other) in [("sidecar", &[][..]), ("up", &volume)] {
        let inherited = sub("init").into_iter().filter(|flag| ![&once, other].concat().contains(&flag.as_str()));
        let own = documented(&reference, &format!("podstrap {name}"));
        assert_eq!(own.into_iter().chain(inherited).collect::<BTreeSet<_>>(), sub(name), "{name}");
    }
}

#[test]
fn the_reference_and_the_help_list_the_exit_codes() {
    let reference = read("docs/cli.md");
    let kinds = [
        Kind::Internal,
        Kind::Usage,
        Kind::Source,
        Kind::Environment,
        Kind::Volume,
        Kind::UnitUnreachable,
        Kind::UnitRefused,
        Kind::Probe,
    ];
    // A new kind does not compile here until it is in the list above.
    for kind in kinds {
        match kind {
            Kind::Internal
            | Kind::Usage
            | Kind::Source
            | Kind::Environment
            | Kind::Volume
            | Kind::UnitUnreachable
            | Kind::UnitRefused
            | Kind::Probe
            | Kind::Interrupted(_) => {}
        }
        assert!(reference.contains(&format!("\n| {} | ", kind.exit_code())), "{kind:?} is not in docs/cli.md");
    }
    let help = Cli::command().render_help().to_string();
    let codes =
        ["0 done", "2 usage", "3 source", "4 environment", "5 volume", "6 Unit", "7 Unit", "8 probe", "130/143"];
    for code in codes {
        assert!(help.replace('\n', " ").contains(code), "{code} is not in --help");
    }
}

#[test]
fn the_map_of_the_code_names_every_module_and_no_other() {
    let map = read("docs/architecture.md");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let modules: BTreeSet<_> = std::fs::read_dir(source)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    let rows = map.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned));
    assert_eq!(rows.collect::<BTreeSet<_>>(), modules);
}

/// All source files, with the line breaks inside string literals removed.
fn messages() -> String {
    fn walk(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }
    let mut text = String::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    regex::Regex::new(r"\\\n\s*").unwrap().replace_all(&text, "").into_owned()
}

#[test]
fn every_message_that_is_explained_exists() {
    let messages = messages();
    let guide = read("docs/troubleshooting.md");
    let rows: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        for part in row.split('…') {
            assert!(messages.contains(part.trim()), "no message contains {part:?} ({row})");
        }
    }
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for dir in [
        "",
        "docs",
        "examples/configs",
        "k8s",
        "k8s/article",
        "k8s/chart",
        "k8s/follow",
        "k8s/recommended",
        "k8s/sidecar",
    ] {
        files.extend(std::fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().path()));
    }
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(file).unwrap();
        for target in link.captures_iter(&text).map(|found| found.get(1).unwrap().as_str()) {
            if target.contains("://") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let place = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            assert!(place.exists(), "{} links to {target}", file.display());
            if !heading.is_empty() {
                let text = std::fs::read_to_string(&place).unwrap().to_lowercase();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
                let mut anchors = headings
                    .map(|line| line.trim_start_matches('#').trim().chars().filter(kept).collect::<String>())
                    .map(|heading| heading.replace(' ', "-"));
                assert!(anchors.any(|anchor| anchor == heading), "{} links to {target}", file.display());
            }
        }
    }
}

#[test]
fn the_readme_is_short_and_links_to_every_document() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 120, "{} lines", readme.lines().count());
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // A picture may be in another document.
        let is_shown = Path::new(&name).extension().is_some_and(|end| end == "svg")
            && read("docs/performance.md").contains(&format!("({name})"));
        assert!(is_shown || readme.contains(&format!("(docs/{name})")), "README.md does not link to docs/{name}");
    }
}

#[test]
fn the_picture_of_many_inits_has_the_figures_of_its_tables() {
    let (page, picture) = (read("docs/performance.md"), read("docs/scale.svg"));
    let section = page.split("\n## scale: ").nth(1).expect("the section");
    for title in ["CPU time", "wall time"] {
        let table = section.split(&format!("\n| {title}, s |")).nth(1).expect("a table");
        let mut rows = table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
        let (names, rows) = (rows.next().unwrap(), rows.skip(1).take_while(|row| row.len() > 1).collect::<Vec<_>>());
        assert!(names.len() == 5 && rows.len() == 7, "{names:?} {rows:?}");
        for row in rows {
            for (name, value) in names.iter().zip(&row[1..]) {
                let point = format!("<title>{title}, {name}, {}: {value} s</title>", row[0]);
                assert!(picture.contains(&point), "docs/scale.svg has no {point}");
            }
        }
    }
}

#[test]
fn the_readme_has_the_times_of_the_picture() {
    let (readme, picture) = (read("README.md"), read("docs/timeline.svg"));
    let told = regex::Regex::new(r"the (shell recipe) takes (\S+) s, (podstrap init) takes (\S+) s").unwrap();
    let told = told.captures(&readme).expect("the text of the picture");
    for run in [1, 3] {
        let title = format!(">{}: {} s<", &told[run], &told[run + 1]);
        assert!(picture.contains(&title), "docs/timeline.svg has no title {title}");
    }
}

#[test]
fn ci_runs_the_readmes_two_commands() {
    let readme = read("README.md");
    let ci = read(".ci/run");
    let commands: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("$ ")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        assert!(ci.contains(command), ".ci/run does not call `{command}`");
    }
}

#[test]
fn the_image_is_built_without_tests_and_benches() {
    let manifest = read("Cargo.toml");
    for target in manifest.split("\n\n").filter(|section| section.contains("[[test]]") || section.contains("[[bench]]"))
    {
        assert!(
            target.contains("\npath = "),
            "this target has no path, and .dockerignore excludes its file:\n{target}"
        );
    }
}

#[test]
fn the_images_are_built_with_the_compiler_of_the_checkout() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split("channel = \"").nth(1).unwrap().split('"').next().unwrap();
    for file in ["Dockerfile", ".github/workflows/ci.yml"] {
        assert!(read(file).contains(&format!("rust:{channel}-")), "{file} names another Rust than {channel}");
    }
}
